//! A few tokens, one after the other, times the rows of `tq1_0`.
//!
//! A block is read as one register, or as two: the 32 bytes of its first group, and its last 32 bytes, which
//! hold the other two groups. Bytes of no group, and those of the second register that the first one has too, meet
//! activations of zero. [`arrange`] puts the activations in that order.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

use super::chunk::RUN;
use super::vector::Digits;
use crate::layout::tq1_0::{BLOCK, BYTES, GROUPS};
use crate::layout::{Layout, TQ1_0};
use crate::tier::{prefetch, prefetch_l2};
use crate::tuning;

/// Digits in a byte.
const DIGITS: usize = 5;

/// Bytes of all registers of a block.
const WIDTH: usize = 64;

/// Activations of a block, arranged: for each digit of each register.
const ARRANGED: usize = DIGITS * WIDTH;

/// Whether these are the digits of the layout.
pub(super) fn suit(layout: &dyn Layout) -> bool {
    layout.name() == TQ1_0.name()
}

/// Blocks of a row.
pub(super) fn blocks(cols: usize) -> usize {
    cols / BLOCK
}

/// Bytes of a row.
pub(super) fn row_bytes(cols: usize) -> usize {
    blocks(cols) * BYTES
}

/// Where in a block a register of so many bytes begins: the last one of several ends with it.
const fn start(register: usize, width: usize) -> usize {
    register * BYTES.saturating_sub(width)
}

/// Writes the activations of a token in the order in which [`gemv`] meets them with registers of `width` bytes.
pub(super) fn arrange(x: &[i8], width: usize, out: &mut [i8]) {
    for (x, arranged) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<ARRANGED>().0) {
        arranged.fill(0);
        for (first, byte, step, digits) in GROUPS {
            let register = byte / width;
            let lane = byte - start(register, width);
            for n in 0..digits {
                arranged[(register * DIGITS + n) * width + lane..][..step]
                    .copy_from_slice(&x[first + n * step..][..step]);
            }
        }
    }
}

/// Length of what [`arrange`] writes.
pub(super) fn arranged(cols: usize) -> usize {
    blocks(cols) * ARRANGED
}

/// `Σ_k code(k) · x[k]` over the blocks of each of the rows that begin `stride` bytes apart; `x` are
/// activations, arranged for `V`.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it; each row must be valid for
/// `blocks * 54` bytes, `x` for `blocks * 320`.
#[inline(always)]
pub(super) unsafe fn gemv<V: Digits>(
    row: *const u8,
    stride: usize,
    blocks: usize,
    x: *const i8,
) -> [i32; RUN] {
    let width = 4 * V::LANES;
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let mut totals = [V::zero(); RUN];
        // The next run at least: all of this one is about to be read.
        let mut ahead = row.wrapping_add(tuning::prefetch().max(RUN * stride));
        // Smaller registers are too busy with computing to gain by it.
        let further = if width == WIDTH { tuning::ahead_of_sequences() } else { None };
        for first in (0..blocks).step_by(V::FOLD) {
            let mut sums = [[V::zero(); 2]; RUN];
            for block in first..blocks.min(first + V::FOLD) {
                // About as many lines as are read, in order: neighbouring rows are one sequence.
                for _ in 0..RUN {
                    prefetch(ahead);
                    if let Some(further) = further {
                        prefetch_l2(ahead.wrapping_add(further));
                    }
                    ahead = ahead.wrapping_add(BYTES);
                }
                for register in 0..WIDTH / width {
                    let at = block * BYTES + start(register, width);
                    let mut fractions: [V; RUN] =
                        std::array::from_fn(|r| V::fractions(row.add(r * stride + at)));
                    for n in 0..DIGITS {
                        let x = V::load(x.add(block * ARRANGED + (register * DIGITS + n) * width).cast());
                        V::step(&mut sums, &mut fractions, x);
                    }
                }
            }
            for (total, sums) in totals.iter_mut().zip(sums) {
                *total = total.add(V::total(sums));
            }
        }
        V::sums(totals)
    }
}
