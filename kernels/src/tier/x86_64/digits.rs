//! A few tokens times the rows of `tq1_0`: one ([`gemv`]) without taking its digits out where that can be done,
//! several ([`tile`]) with digits that serve all.
//!
//! A block is read as one register, or as two: the 32 bytes of its first group, and its last 32 bytes, which
//! hold the other two groups. Bytes of no group, and those of the second register that the first one has too, meet
//! activations of zero. [`arrange`] puts the activations in that order.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::chunk::{RUN, Tile, add_wide, rows, sums_of};
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

/// As [`gemv`] for `NT` tokens; `ask` says whether to ask for weights ahead.
///
/// # Safety
/// As for [`gemv`], for each token.
#[inline(always)]
pub(super) unsafe fn tile<V: Digits, const NT: usize>(
    row: *const u8,
    stride: usize,
    blocks: usize,
    x: &[*const i8; NT],
    ask: bool,
) -> Tile {
    // Fractions and their digits take more registers than chunks: the few of 8 lanes bear two rows.
    let rows = const { if V::LANES == 8 && NT == 2 { 2 } else { rows::<V>(NT) } };
    let width = 4 * V::LANES;
    let fold = if V::NARROW { V::FOLD } else { blocks };
    let mut ahead = row.wrapping_add(tuning::prefetch().max(RUN * stride));
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let mut totals = [[V::zero(); RUN]; NT];
        for part in (0..RUN).step_by(rows) {
            for first in (0..blocks).step_by(fold) {
                let mut sums = [[V::zero(); RUN]; NT];
                for block in first..blocks.min(first + fold) {
                    if ask {
                        for _ in 0..rows {
                            prefetch(ahead);
                            ahead = ahead.wrapping_add(BYTES);
                        }
                    }
                    for register in 0..WIDTH / width {
                        let at = row.add(part * stride + block * BYTES + start(register, width));
                        let mut fractions = [V::zero(); RUN];
                        for r in 0..rows {
                            fractions[r] = V::exact(at.add(r * stride));
                        }
                        for n in 0..DIGITS {
                            let mut digits = [V::zero(); RUN];
                            for r in 0..rows {
                                digits[r] = fractions[r].digit();
                            }
                            let k = block * ARRANGED + (register * DIGITS + n) * width;
                            for t in 0..NT {
                                let x = V::load(x[t].add(k).cast());
                                for r in 0..rows {
                                    sums[t][r] = V::dot(sums[t][r], digits[r], x);
                                }
                            }
                        }
                    }
                }
                add_wide(&mut totals, part..part + rows, &sums);
            }
        }
        sums_of(&totals)
    }
}
