//! One token times the rows of a layout with 128 columns of one row in each 32 bytes, planes 32
//! columns apart (`i2_s`, `tq2_0`): a lane is a few columns, and its sums are added up at the end. Row
//! after row, because memory is fastest read in order.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

use super::strip::prefetch;
use super::vector::Vector;
use crate::layout::tm2::{GROUP, ROW_BYTES};
use crate::tier::source::Chunks;
use crate::tuning;

/// `Σ_k code(k) · x[k]` over the `groups` chunks of a row.
///
/// # Safety
/// The CPU must have the tier of `V`, which has 8 lanes, and the caller be compiled for it; `row` must
/// be valid for the offsets of its chunks and 32 bytes, `x` for `groups * 128` columns.
#[inline(always)]
pub(super) unsafe fn gemv<V: Vector>(row: *const u8, chunks: Chunks, groups: usize, x: *const i8) -> i32 {
    const { assert!(4 * V::LANES == ROW_BYTES) };
    let planes = chunks.planes();
    // A chunk has one dot in each low sum and one that counts four-fold in each high one; wide as in
    // `strip::gemv`.
    let fold = if V::NARROW { 16 } else { 1024 };
    let ahead = tuning::prefetch();
    // SAFETY: tier and pointers are the caller's promise.
    unsafe {
        let mut total = V::zero();
        let mut first = 0;
        while first < groups {
            let last = groups.min(first + fold);
            // Of even and odd chunks and of each plane, so that no sum waits for another.
            let mut sums = [[V::zero(); 4]; 2];
            for g in (first..last - 1).step_by(2) {
                add(&mut sums[0], row, chunks, g, x, planes, ahead);
                add(&mut sums[1], row, chunks, g + 1, x, planes, ahead);
            }
            if last % 2 == 1 {
                add(&mut sums[0], row, chunks, last - 1, x, planes, ahead);
            }
            for [a, b, c, d] in sums {
                total = total.add(a.widen()).add(c.widen());
                total = total.add(b.widen().add(d.widen()).quarter());
            }
            first = last;
        }
        total.sum()
    }
}

/// Adds the dots of chunk `g`, plane by plane, and prefetches `ahead` bytes.
///
/// # Safety
/// As for [`gemv`].
#[inline(always)]
unsafe fn add<V: Vector>(
    sums: &mut [V; 4],
    row: *const u8,
    chunks: Chunks,
    g: usize,
    x: *const i8,
    planes: [usize; 4],
    ahead: usize,
) {
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let at = row.wrapping_add(chunks.offset(g));
        prefetch(at.wrapping_add(ahead));
        let codes = V::load(at);
        let upper = codes.shr4();
        let x: [V; 4] = std::array::from_fn(|p| V::load(x.add(g * GROUP + planes[p]).cast()));
        sums[0] = V::dot(sums[0], codes.mask(0x03), x[0]);
        sums[1] = V::dot(sums[1], codes.mask(0x0c), x[1]);
        sums[2] = V::dot(sums[2], upper.mask(0x03), x[2]);
        sums[3] = V::dot(sums[3], upper.mask(0x0c), x[3]);
    }
}
