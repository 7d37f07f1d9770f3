//! The kernel trait, the table of all kernels, and run-time selection.

use crate::Trits;
use crate::acts::Activations;
use crate::buffer::{Arena, Buffer};
use crate::layout::{self, Layout, ShapeError, UnpackError};
use crate::sealed::Sealed;
use crate::tier::{self, Tier};
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

/// One layout on one tier: exact integer products of packed weights and int8 activations.
///
/// A value of an implementing type exists only where the CPU and the operating system can run it:
/// constructors return `Option`. Only this crate implements the trait: threads write without locks where
/// kernels put sums.
pub trait Kernel: Sealed + Send + Sync {
    /// The layout that it reads.
    fn layout(&self) -> &'static dyn Layout;

    /// The instructions that it uses.
    fn tier(&self) -> Tier;

    /// `layout/tier`, e.g. `i2_s/avx512vnni`.
    fn name(&self) -> String {
        format!("{}/{}", self.layout().name(), self.tier())
    }

    /// Rows are handed out in ranges that start at a multiple of this (and end at one or at the
    /// matrix' last row). Always the same of one kernel.
    fn row_step(&self) -> usize;

    /// Where a thread has this many tokens or more, it should have all rows of them, because the
    /// kernel does work for each token that all rows share. `None` where rows are better split.
    fn tokens_each(&self) -> Option<usize> {
        None
    }

    /// How it gets at the weights for one token, and with the instructions of which tier: a lower one
    /// than its own where its own bring this layout nothing.
    fn way(&self) -> (Way, Tier);

    /// Computes `Σ_c w[r, c] · x[t, c]`, exact, for each token `t` of `tokens` and row `r` of `rows`, and
    /// hands the sums to `sink(token, first row, sums of consecutive rows)`, each exactly once, in any
    /// order. One token runs as gemv, more as gemm. A sink is called with as many rows as the kernel
    /// has ready in cache, so that whoever wants them scaled or stored elsewhere needs no other pass.
    ///
    /// # Panics
    /// If `weights` is not of the kernel's layout, `x` does not have its columns or all of `tokens`, or
    /// `rows` does not start at a multiple of the kernel's row step, ends neither at one nor at the last
    /// row, or leaves the matrix. If `sink` runs a kernel.
    fn run(
        &self,
        weights: &Packed,
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        sink: &mut dyn FnMut(usize, usize, &[i32]),
    );

    /// As [`run`](Self::run) for all tokens: `out[t * rows.len() + i]` is the sum of row
    /// `rows.start + i`.
    ///
    /// # Panics
    /// As `run`, or if `out` is not `x.tokens() * rows.len()` long.
    fn matmul(&self, weights: &Packed, x: &Activations, rows: Range<usize>, out: &mut [i32]) {
        assert_eq!(out.len(), x.tokens() * rows.len(), "output of another size");
        self.run(weights, x, 0..x.tokens(), rows.clone(), &mut |t, row, sums| {
            out[t * rows.len() + row - rows.start..][..sums.len()].copy_from_slice(sums);
        });
    }
}

/// How a kernel gets at weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the bytes lie.
    Direct,
    /// It looks sums up in tables, by the bytes as they lie.
    Lookup,
    /// By turning 32 rows at a time, in cache, into a form that it multiplies.
    Strips,
    /// By unpacking row after row.
    Rows,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Direct => "direct",
            Way::Lookup => "lookup",
            Way::Strips => "strips",
            Way::Rows => "rows",
        })
    }
}

/// Refuses what [`Kernel::run`] cannot be called with. Kernels call it first and rely on it.
///
/// # Panics
/// As [`Kernel::run`], but for its sink.
pub(crate) fn check_call(
    kernel: &dyn Kernel,
    weights: &Packed,
    x: &Activations,
    tokens: &Range<usize>,
    rows: &Range<usize>,
) {
    let step = kernel.row_step();
    assert_eq!(weights.layout.name(), kernel.layout().name(), "weights of another layout");
    assert_eq!(x.cols(), weights.cols, "activations of another width");
    assert!(tokens.start <= tokens.end && tokens.end <= x.tokens(), "tokens that are not there");
    assert!(rows.start <= rows.end && rows.end <= weights.rows, "rows outside the matrix");
    assert!(rows.is_empty() || rows.start.is_multiple_of(step), "rows start between steps of {step}");
    assert!(rows.end == weights.rows || rows.end.is_multiple_of(step), "rows end between steps of {step}");
}

/// A packed ternary matrix in memory; its bytes are proven by construction (only packing makes one,
/// or a checked read), so kernels need not look for impossible codes.
///
/// The bytes are 64-byte aligned.
#[derive(Debug)]
pub struct Packed {
    layout: &'static dyn Layout,
    rows: usize,
    cols: usize,
    bytes: Buffer,
}

impl Packed {
    /// Packs a matrix. Scales that are part of the layout's bytes are 1: kernels do not read them.
    ///
    /// # Errors
    /// If the layout cannot hold the shape.
    pub fn pack(layout: &'static dyn Layout, trits: &Trits) -> Result<Self, ShapeError> {
        Self::pack_to(layout, trits, Buffer::new)
    }

    /// As [`pack`](Self::pack), beside the other matrices of a model.
    ///
    /// # Errors
    /// As `pack`.
    pub fn pack_in(arena: &Arena, layout: &'static dyn Layout, trits: &Trits) -> Result<Self, ShapeError> {
        Self::pack_to(layout, trits, |len| arena.buffer(len))
    }

    fn pack_to(
        layout: &'static dyn Layout,
        trits: &Trits,
        buffer: impl FnOnce(usize) -> Buffer,
    ) -> Result<Self, ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        let mut bytes = buffer(layout.packed_len(rows, cols)?);
        layout.pack(trits, 1.0, bytes.bytes_mut())?;
        Ok(Self { layout, rows, cols, bytes })
    }

    /// Copies packed bytes, once they are proven.
    ///
    /// # Errors
    /// As [`Layout::check`].
    pub fn from_bytes(
        layout: &'static dyn Layout,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Self, UnpackError> {
        layout.check(rows, cols, bytes)?;
        let mut copy = Buffer::new(bytes.len());
        copy.bytes_mut().copy_from_slice(bytes);
        Ok(Self { layout, rows, cols, bytes: copy })
    }

    /// The layout.
    pub fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    /// Writes the weights of row `row` to `out`.
    ///
    /// # Panics
    /// If there is no such row or `out` is not [`cols`](Self::cols) long.
    pub fn unpack_row(&self, row: usize, out: &mut [i8]) {
        self.layout.unpack_row(self.rows, self.cols, self.bytes(), row, out);
    }
}

/// A kernel that is part of this program, whether or not this CPU can run it.
pub struct Compiled {
    /// The layout that it reads.
    pub layout: &'static dyn Layout,
    /// The instructions that it uses.
    pub tier: Tier,
    /// The kernel, or `None` where this CPU or operating system lacks the tier.
    pub kernel: Option<Box<dyn Kernel>>,
}

impl Compiled {
    /// `layout/tier`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.layout.name(), self.tier)
    }
}

/// Every kernel in this program, by layout and then lowest tier first.
pub fn compiled() -> &'static [Compiled] {
    static TABLE: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
        let of_layout = |layout| {
            let scalar: Box<dyn Kernel> = Box::new(tier::scalar::Scalar(layout));
            #[cfg(target_arch = "x86_64")]
            let simd = tier::x86_64::kernels(layout);
            #[cfg(target_arch = "aarch64")]
            let simd = tier::aarch64::kernels(layout);
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let simd = std::iter::empty();
            let all = std::iter::once((Tier::Scalar, Some(scalar))).chain(simd);
            all.map(move |(tier, kernel)| Compiled { layout, tier, kernel })
        };
        layout::ALL.iter().copied().flat_map(of_layout).collect()
    });
    &TABLE
}

/// Every kernel that this CPU can run, by layout and then lowest tier first.
pub fn available() -> impl Iterator<Item = &'static dyn Kernel> {
    compiled().iter().filter_map(|c| c.kernel.as_deref())
}

/// The kernel of a layout on exactly this tier, if there is one and this CPU can run it.
pub fn find(layout: &dyn Layout, tier: Tier) -> Option<&'static dyn Kernel> {
    available().find(|k| k.layout().name() == layout.name() && k.tier() == tier)
}

/// The kernel of the highest tier that this CPU can run and that is not above `at_most`. `None` only
/// for a layout that is not in [`layout::ALL`].
pub fn best(layout: &dyn Layout, at_most: Option<Tier>) -> Option<&'static dyn Kernel> {
    available().filter(|k| k.layout().name() == layout.name() && at_most.is_none_or(|t| k.tier() <= t)).last()
}

/// The layout to keep a model in: it holds every shape, and of those that do it is the fastest with the
/// kernels of `tier`, or with the best that this CPU can run.
pub fn own_layout(tier: Option<Tier>) -> &'static dyn Layout {
    // Fewer bytes a weight are faster where sums can be looked up in registers.
    let lookup = tier.unwrap_or(Tier::Avx512Vnni) >= Tier::Avx512 && Tier::Avx512.is_available();
    if lookup { &layout::TM1_67 } else { &layout::TM2 }
}
