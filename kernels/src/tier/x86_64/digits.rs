//! A few tokens, one after the other, times the rows of `tq1_0`: base-3 digits, as fractions of 256 whose
//! triple has the next digit above the point.
//!
//! A block is read as two registers: the 32 bytes of its first group, and its last 32 bytes, which hold the
//! other two groups between bytes that meet activations of zero. [`arrange`] puts the activations in that
//! order.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

use super::chunk::RUN;
use super::vector::Digits;
use crate::layout::tq1_0::{BLOCK, BYTES, GROUPS};
use crate::layout::{Layout, TQ1_0};
use crate::tier::Tier;
use crate::tier::prefetch;
use crate::tuning;

/// Bytes of a register, and activations that meet it at once.
const WIDTH: usize = 32;

/// Digits in a byte.
const DIGITS: usize = 5;

/// Activations of a block, arranged: for each digit of each register.
const ARRANGED: usize = 2 * DIGITS * WIDTH;

/// Offset of the second register in a block.
const TAIL: usize = BYTES - WIDTH;

/// Whether this is faster for so many tokens than unpacking rows.
pub(super) fn suit(layout: &dyn Layout, tier: Tier, tokens: usize) -> bool {
    let most = if matches!(tier, Tier::AvxVnni | Tier::Avx512Vnni) { 3 } else { 1 };
    layout.name() == TQ1_0.name() && tokens <= most
}

/// Blocks of a row.
pub(super) fn blocks(cols: usize) -> usize {
    cols / BLOCK
}

/// Bytes of a row.
pub(super) fn row_bytes(cols: usize) -> usize {
    blocks(cols) * BYTES
}

/// Writes the activations of a token in the order in which [`gemv`] meets them.
pub(super) fn arrange(x: &[i8], out: &mut [i8]) {
    for (x, arranged) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<ARRANGED>().0) {
        arranged.fill(0);
        for (first, byte, step, digits) in GROUPS {
            let (register, lane) = if byte == 0 { (0, 0) } else { (1, byte - TAIL) };
            for n in 0..digits {
                arranged[(register * DIGITS + n) * WIDTH + lane..][..step]
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
/// arranged activations.
///
/// With `f(n + 1) = 3 f(n) mod 256`, the digit above the point of `3 f(n)` is `(3 f(n) - f(n + 1)) / 256`.
/// Where sums are wide no digit is ever taken out: `3 Σ f(n)·x(n) - Σ f(n + 1)·x(n)`, divided at the end,
/// is exact.
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
    const { assert!(4 * V::LANES == WIDTH) };
    // Of a block, a sum takes ten dots: of codes, 64 of which a narrow one holds, or of fractions. A lane of
    // those is 256 times its four codes times activations, at most 256 · 10 · 4 · 2 · 128 a block.
    let fold = if V::NARROW { 6 } else { 512 };
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let mut totals = [V::zero(); RUN];
        // The next run at least: all of this one is about to be read.
        let mut ahead = row.wrapping_add(tuning::prefetch().max(RUN * stride));
        for first in (0..blocks).step_by(fold) {
            let (mut sums, mut next) = ([V::zero(); RUN], [V::zero(); RUN]);
            for block in first..blocks.min(first + fold) {
                // About as many lines as are read, in order: neighbouring rows are one sequence.
                for _ in 0..RUN {
                    prefetch(ahead);
                    ahead = ahead.wrapping_add(BYTES);
                }
                for (register, at) in [0, TAIL].into_iter().enumerate() {
                    let mut fractions: [V; RUN] =
                        std::array::from_fn(|r| V::load(row.add(r * stride + block * BYTES + at)));
                    if V::NARROW {
                        fractions = fractions.map(|f| f.biased());
                    }
                    for n in 0..DIGITS {
                        let x = V::load(x.add(block * ARRANGED + (register * DIGITS + n) * WIDTH).cast());
                        for r in 0..RUN {
                            if V::NARROW {
                                sums[r] = V::dot(sums[r], fractions[r].digit(), x);
                                fractions[r] = fractions[r].triple();
                            } else {
                                sums[r] = V::dot(sums[r], fractions[r], x);
                                fractions[r] = fractions[r].triple();
                                next[r] = V::dot(next[r], fractions[r], x);
                            }
                        }
                    }
                }
            }
            for r in 0..RUN {
                let sum = if V::NARROW { sums[r].widen() } else { V::carried(sums[r], next[r]) };
                totals[r] = totals[r].add(sum);
            }
        }
        totals.map(|total| total.sum())
    }
}
