//! One token times the rows of a layout with 128 columns of one row in each 32 bytes, planes 32
//! columns apart (`i2_s`, `tq2_0`): a lane is a few columns, and its sums are added up at the end.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

pub(super) use crate::tier::source::Chunks;

use super::vector::Vector;
use crate::layout::tm2::{GROUP, ROW_BYTES};

/// Rows that are read at once, to share the loads of activations.
pub(super) const ROWS: usize = 4;

/// `out[r] = Σ_k code(r, k) · x[k]` over `groups` chunks of each of the rows that start at `rows`.
///
/// # Safety
/// The CPU must have the tier of `V`, which has 8 lanes, and the caller be compiled for it; each of
/// `rows` must be valid for the offsets of its chunks and 32 bytes, `x` for `groups * 128` columns.
#[inline(always)]
pub(super) unsafe fn gemv<V: Vector>(
    rows: &[*const u8; ROWS],
    chunks: Chunks,
    groups: usize,
    x: *const i8,
    out: &mut [i32; ROWS],
) {
    const { assert!(4 * V::LANES == ROW_BYTES) };
    let planes = super::strip::planes(chunks.reversed);
    // 2 dots a chunk in the low sums, 2 · 4 in the high ones; wide as in `strip::gemv`.
    let fold = if V::NARROW { 8 } else { 1024 };
    // SAFETY: tier and pointers are the caller's promise.
    unsafe {
        let mut totals = [V::zero(); ROWS];
        let mut first = 0;
        while first < groups {
            let last = groups.min(first + fold);
            let (mut low, mut high) = ([V::zero(); ROWS], [V::zero(); ROWS]);
            for g in first..last {
                let x: [V; 4] = std::array::from_fn(|p| V::load(x.add(g * GROUP + planes[p]).cast()));
                let at = chunks.offset(g);
                for r in 0..ROWS {
                    super::strip::prefetch(rows[r].wrapping_add(at + 2048));
                    let codes = V::load(rows[r].add(at));
                    let upper = codes.shr4();
                    low[r] = V::dot(low[r], codes.mask(0x03), x[0]);
                    high[r] = V::dot(high[r], codes.mask(0x0c), x[1]);
                    low[r] = V::dot(low[r], upper.mask(0x03), x[2]);
                    high[r] = V::dot(high[r], upper.mask(0x0c), x[3]);
                }
            }
            for r in 0..ROWS {
                totals[r] = totals[r].add(low[r].widen()).add(high[r].widen().quarter());
            }
            first = last;
        }
        for r in 0..ROWS {
            out[r] = totals[r].sum();
        }
    }
}
