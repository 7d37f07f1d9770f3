//! One token times the rows of a layout with 128 columns of one row in each 32 bytes, planes 32
//! columns apart (`i2_s`, `tq2_0`): a lane is a few columns, and its sums are added up at the end. A few
//! neighbouring rows at a time, which share the activations and together are read in order.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

use super::vector::Vector;
use crate::layout::tm2::{GROUP, ROW_BYTES};
use crate::tier::source::Chunks;
use crate::tier::{prefetch, prefetch_l2};
use crate::tuning;

/// Rows at a time.
pub(super) const RUN: usize = 4;

/// `Σ_k code(k) · x[k]` over the `groups` chunks of each of the rows that begin `stride` bytes apart.
///
/// As in [`strip::gemv`](super::strip::gemv), the planes at bits 2 and 6 are multiplied where they stand
/// after one shift for both upper planes, and their sums, four times too large, divided at the end.
///
/// # Safety
/// The CPU must have the tier of `V`, which has 8 lanes, and the caller be compiled for it; each row
/// must be valid for the offsets of its chunks and 32 bytes, `x` for `groups * 128` columns.
#[inline(always)]
pub(super) unsafe fn gemv<V: Vector>(
    row: *const u8,
    stride: usize,
    chunks: Chunks,
    groups: usize,
    x: *const i8,
) -> [i32; RUN] {
    const { assert!(4 * V::LANES == ROW_BYTES) };
    let planes = chunks.planes();
    // A chunk has two dots in each low sum and two that count four-fold in each high one; wide as in
    // `strip::gemv`. Even, so that only the last pair of chunks can be half a one.
    let fold = if V::NARROW { 8 } else { 1024 };
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let mut totals = [V::zero(); RUN];
        // The next run at least: all of this one is about to be read.
        let mut ahead = row.wrapping_add(tuning::prefetch().max(RUN * stride));
        let further = tuning::ahead_of_sequences();
        for first in (0..groups).step_by(fold) {
            let last = groups.min(first + fold);
            let (mut low, mut high) = ([V::zero(); RUN], [V::zero(); RUN]);
            let (mut at, mut x) = (row.add(chunks.offset(first)), x.add(first * GROUP));
            for _ in 0..(last - first) / 2 {
                // As many lines as are read, in order: neighbouring rows are one sequence.
                for _ in 0..RUN {
                    prefetch(ahead);
                    if let Some(further) = further {
                        prefetch_l2(ahead.wrapping_add(further));
                    }
                    ahead = ahead.wrapping_add(64);
                }
                add(&mut low, &mut high, at, stride, x, planes);
                add(&mut low, &mut high, at.add(ROW_BYTES), stride, x.add(GROUP), planes);
                (at, x) = (at.wrapping_add(chunks.offset(2)), x.wrapping_add(2 * GROUP));
            }
            if last % 2 == 1 {
                add(&mut low, &mut high, at, stride, x, planes);
            }
            for r in 0..RUN {
                totals[r] = totals[r].add(low[r].widen()).add(high[r].widen().quarter());
            }
        }
        totals.map(|total| total.sum())
    }
}

/// Adds the dots of a chunk of each row.
///
/// # Safety
/// As for [`gemv`].
#[inline(always)]
unsafe fn add<V: Vector>(
    low: &mut [V; RUN],
    high: &mut [V; RUN],
    row: *const u8,
    stride: usize,
    x: *const i8,
    planes: [usize; 4],
) {
    // SAFETY: tier and pointers are the caller's promise.
    unsafe {
        let x: [V; 4] = std::array::from_fn(|p| V::load(x.add(planes[p]).cast()));
        for r in 0..RUN {
            let codes = V::load(row.add(r * stride));
            let upper = codes.shr4();
            low[r] = V::dot(low[r], codes.mask(0x03), x[0]);
            high[r] = V::dot(high[r], codes.mask(0x0c), x[1]);
            low[r] = V::dot(low[r], upper.mask(0x03), x[2]);
            high[r] = V::dot(high[r], upper.mask(0x0c), x[3]);
        }
    }
}
