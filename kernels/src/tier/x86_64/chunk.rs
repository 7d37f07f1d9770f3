//! A few tokens times the rows of a layout with 128 columns of one row in each 32 bytes, planes 32
//! columns apart (`i2_s`, `tq2_0`): a lane is a few columns, and its sums are added up at the end. A few
//! neighbouring rows at a time, which share the activations and together are read in order. One token ([`gemv`])
//! shifts as little as it can; of several ([`tile`]) each unpacked plane serves all.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::vector::Vector;
use crate::layout::tm2::{GROUP, ROW_BYTES};
use crate::tier::source::Chunks;
use crate::tier::{prefetch, prefetch_l2};
use crate::tuning;
use std::ops::Range;

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
        V::sums(totals)
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

/// The most tokens that a [`tile`] takes on any tier.
pub(super) const TOKENS: usize = 12;

/// Rows at a time in a tile of so many tokens: as many as leave registers for their codes beside the sums (there are
/// 32 registers of 16 lanes and 16 of 8; where sums are narrow, dots need one before they are added).
pub(super) const fn rows<V: Vector>(tokens: usize) -> usize {
    match (V::LANES, tokens) {
        (16, ..=4) | (_, ..=2) => RUN,
        (16, _) | (_, ..=4) => RUN / 2,
        (_, 5) if !V::NARROW => RUN / 2,
        _ => 1,
    }
}

/// Length of what [`arrange`] writes for registers of `width` bytes.
pub(super) fn arranged(groups: usize, width: usize) -> usize {
    (groups * GROUP).next_multiple_of(4 * width)
}

/// Writes a token in the order in which [`tile`] meets it with registers of `width` bytes: plane by plane of each
/// register, zeros for the chunk that the last one may lack.
pub(super) fn arrange(x: &[i8], planes: [usize; 4], width: usize, out: &mut [i8]) {
    out.fill(0);
    for (g, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
        let at = g * ROW_BYTES / width * 4 * width + g * ROW_BYTES % width;
        for (p, plane) in planes.into_iter().enumerate() {
            out[at + p * width..][..ROW_BYTES].copy_from_slice(&x[plane..][..ROW_BYTES]);
        }
    }
}

/// Sums of the rows of a run, token by token; 0 for tokens that are not there.
pub(super) type Tile = [[i32; RUN]; TOKENS];

/// As [`gemv`] for `NT` tokens, [`arrange`]d; some [`rows`] at a time. `ask` says whether to ask for weights ahead.
///
/// # Safety
/// As for [`gemv`], but that registers may have 16 lanes, and each token must be valid for [`arranged`] columns.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const NT: usize>(
    row: *const u8,
    stride: usize,
    chunks: Chunks,
    groups: usize,
    x: &[*const i8; NT],
    ask: bool,
) -> Tile {
    let rows = const { rows::<V>(NT) };
    let each = 4 * V::LANES / ROW_BYTES;
    let registers = groups.div_ceil(each);
    // A register has four dots in each sum.
    let fold = if V::NARROW { 16 } else { registers };
    let mut ahead = row.wrapping_add(tuning::prefetch().max(RUN * stride));
    // SAFETY: tier and pointers are the caller's promise; a prefetch may point anywhere.
    unsafe {
        let mut totals = [[V::zero(); RUN]; NT];
        for part in (0..RUN).step_by(rows) {
            let row = row.add(part * stride);
            for first in (0..registers).step_by(fold) {
                let last = registers.min(first + fold);
                let mut sums = [[V::zero(); RUN]; NT];
                for i in first..last.min(groups / each) {
                    if ask {
                        for _ in 0..rows * each {
                            prefetch(ahead);
                            ahead = ahead.wrapping_add(ROW_BYTES);
                        }
                    }
                    let at = row.add(chunks.offset(i * each));
                    let mut codes = [V::zero(); RUN];
                    for r in 0..rows {
                        codes[r] = V::load(at.add(r * stride));
                    }
                    dots(&mut sums, codes, x, i);
                }
                if last > groups / each {
                    let at = row.add(chunks.offset(groups - 1));
                    let mut codes = [V::zero(); RUN];
                    for r in 0..rows {
                        codes[r] = V::load_half(at.add(r * stride));
                    }
                    dots(&mut sums, codes, x, last - 1);
                }
                add_wide(&mut totals, part..part + rows, &sums);
            }
        }
        sums_of(&totals)
    }
}

/// Adds the sums of a tile's dots to the totals of those rows, a lane wide.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it.
#[inline(always)]
pub(super) unsafe fn add_wide<V: Vector, const NT: usize>(
    totals: &mut [[V; RUN]; NT],
    rows: Range<usize>,
    sums: &[[V; RUN]; NT],
) {
    for t in 0..NT {
        for (r, row) in rows.clone().enumerate() {
            // SAFETY: the tier is the caller's promise.
            totals[t][row] = unsafe { totals[t][row].add(sums[t][r].widen()) };
        }
    }
}

/// What a tile's totals add up to.
///
/// # Safety
/// As for [`add_wide`].
#[inline(always)]
pub(super) unsafe fn sums_of<V: Vector, const NT: usize>(totals: &[[V; RUN]; NT]) -> Tile {
    let mut out = [[0; RUN]; TOKENS];
    for t in 0..NT {
        // SAFETY: the tier is the caller's promise.
        out[t] = unsafe { V::sums(totals[t]) };
    }
    out
}

/// Adds the dots of register `i` of each row.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn dots<V: Vector, const NT: usize>(
    sums: &mut [[V; RUN]; NT],
    mut codes: [V; RUN],
    x: &[*const i8; NT],
    i: usize,
) {
    // SAFETY: tier and pointers are the caller's promise.
    unsafe {
        for p in 0..4 {
            let mut plane = [V::zero(); RUN];
            for r in 0..const { rows::<V>(NT) } {
                plane[r] = codes[r].mask(0x03);
                codes[r] = codes[r].shr2();
            }
            for t in 0..NT {
                let x = V::load(x[t].add((i * 4 + p) * 4 * V::LANES).cast());
                for r in 0..const { rows::<V>(NT) } {
                    sums[t][r] = V::dot(sums[t][r], plane[r], x);
                }
            }
        }
    }
}
