//! The kernel trait, the table of all kernels, and run-time selection.

use crate::acts::Activations;
use crate::layout::Layout;
use crate::tier::Tier;
use std::ops::Range;

/// One layout on one tier: exact integer products of packed weights and int8 activations.
///
/// A value of an implementing type exists only where the CPU and the operating system can run it:
/// constructors return `Option`.
pub trait Kernel: Send + Sync {
    /// The layout that it reads.
    fn layout(&self) -> &'static dyn Layout;

    /// The instructions that it uses.
    fn tier(&self) -> Tier;

    /// `layout/tier`, e.g. `i2_s/avx512vnni`.
    fn name(&self) -> String {
        format!("{}/{}", self.layout().name(), self.tier())
    }

    /// Rows are handed out in ranges that start at a multiple of this (and end at one or at the
    /// matrix' last row).
    fn row_step(&self) -> usize;

    /// Writes `out[t * rows.len() + i] = Σ_c w[rows.start + i, c] · x[t, c]`, exact, for each token
    /// `t` of `x`. One token runs as gemv, more as gemm.
    ///
    /// # Panics
    /// If `out` or `rows` do not fit `weights` and `x`, or `weights` is of another layout.
    fn matmul(&self, weights: &Packed, x: &Activations, rows: Range<usize>, out: &mut [i32]);
}

/// A packed ternary matrix in memory; its bytes are proven by construction (only packing makes one,
/// or a checked read), so kernels need not look for impossible codes.
#[derive(Debug)]
pub struct Packed {
    _todo: (),
}

/// Every kernel that this CPU can run, by layout and then lowest tier first.
pub fn available() -> &'static [Box<dyn Kernel>] {
    &[]
}
