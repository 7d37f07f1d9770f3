//! Multiplying `tm2` strips, once for all tiers.
//!
//! A lane of the registers is a row. For one token ([`gemv`]) memory is the limit, so the loop reads
//! the strip once, in order, asks for weights ahead only on CPUs that do not see that by themselves
//! ([`Tuning::sequences`](tuning::Tuning::sequences)), and shifts as little as it can: the planes at
//! bits 2 and 6 are multiplied where they stand after one shift by 4 for both upper planes, and the
//! sums, four times too large, are divided at the end. For several tokens ([`tile`]) multiplying is the limit, so the
//! registers hold the sums of a tile of rows × tokens, each unpacked plane serves all tokens of the tile, and weights
//! are asked for ahead on all CPUs. For very many, unpacking is the limit
//! where the CPU multiplies as fast as it masks, so codes can be spread to a byte each first ([`spread`]).
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::vector::Vector;
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use crate::tier::{NEAR, prefetch, prefetch_all, prefetch_l2};
use crate::tuning;

/// `out[r] = Σ_k code(r, k) · x[k]` over a strip of `groups` groups.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it; `strip` must be valid for
/// `groups` groups and `x` for as many columns. `RV` is `ROWS / V::LANES`; `ASK` says whether it asks for
/// weights ahead.
#[inline(always)]
pub(super) unsafe fn gemv<V: Vector, const RV: usize, const ASK: bool>(
    strip: *const u8,
    groups: usize,
    x: *const i8,
    planes: [usize; 4],
    out: &mut [i32; ROWS],
) {
    const { assert!(RV * V::LANES == ROWS) };
    // The high sums count four-fold: 8 blocks · 2 planes · 4 = 64 dots a group when narrow; when wide
    // 1024 groups stay below 2^17 columns · 2 · 4 · 128 = 2^27.
    let fold = if V::NARROW { 1 } else { 1024 };
    let ahead = tuning::prefetch_l2();
    // SAFETY: tier and pointers are the caller's promise; every access lies within the group that is
    // counted, but for prefetches, which may point anywhere.
    unsafe {
        let mut totals = [V::zero(); RV];
        let mut first = 0;
        while first < groups {
            let last = groups.min(first + fold);
            let (mut low, mut high) = ([V::zero(); RV], [V::zero(); RV]);
            for g in first..last {
                for j in 0..8 {
                    let block = strip.add(g * GROUP_BYTES + j * 4 * ROWS);
                    if ASK {
                        prefetch_all(&*block.cast::<[u8; 4 * ROWS]>(), ahead);
                    }
                    let x: [V; 4] = std::array::from_fn(|p| V::splat(x.add(g * GROUP + planes[p] + 4 * j)));
                    for v in 0..RV {
                        let codes = V::load(block.add(v * 4 * V::LANES));
                        let upper = codes.shr4();
                        low[v] = V::dot(low[v], codes.mask(0x03), x[0]);
                        high[v] = V::dot(high[v], codes.mask(0x0c), x[1]);
                        low[v] = V::dot(low[v], upper.mask(0x03), x[2]);
                        high[v] = V::dot(high[v], upper.mask(0x0c), x[3]);
                    }
                }
            }
            for v in 0..RV {
                totals[v] = totals[v].add(low[v].widen()).add(high[v].widen().quarter());
            }
            first = last;
        }
        for v in 0..RV {
            totals[v].store(out.as_mut_ptr().add(v * V::LANES));
        }
    }
}

/// `out[t][r] = Σ_k code(r, k) · x[t][k]` over a strip of `groups` groups, for `NT` tokens; `RV`
/// registers of rows at a time. `SPREAD` says whether the strip went through [`spread`], `ask` whether to ask for the
/// strip behind this one, a part of it with each part, so that memory is never idle.
///
/// # Safety
/// As for [`gemv`], for each token, but that a spread strip must be valid for [`SPREAD_BYTES`] a group; `ROWS` must
/// be a multiple of `RV * V::LANES`.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const RV: usize, const NT: usize, const SPREAD: bool>(
    strip: *const u8,
    groups: usize,
    x: &[*const i8; NT],
    planes: [usize; 4],
    out: &mut [[i32; ROWS]; NT],
    ask: bool,
) {
    const { assert!(ROWS.is_multiple_of(RV * V::LANES)) };
    let mut next = strip.wrapping_add(groups * GROUP_BYTES);
    // 32 dots a group when narrow; when wide the sum itself fits, see `MAX_COLS`.
    let fold = if V::NARROW { 2 } else { groups };
    for part in (0..ROWS / V::LANES).step_by(RV) {
        // SAFETY: tier and pointers are the caller's promise; every access lies within the group
        // that is counted.
        unsafe {
            let strip = strip.add(part * 4 * V::LANES);
            let mut totals = [[V::zero(); RV]; NT];
            let mut first = 0;
            while first < groups {
                let last = groups.min(first + fold);
                let mut sums = [[V::zero(); RV]; NT];
                for g in first..last {
                    for j in 0..8 {
                        let block = if SPREAD {
                            strip.add(g * SPREAD_BYTES + j * 16 * ROWS)
                        } else {
                            strip.add(g * GROUP_BYTES + j * 4 * ROWS)
                        };
                        let load = |p: usize| -> [V; RV] {
                            std::array::from_fn(|v| V::load(block.add(p * 4 * ROWS + v * 4 * V::LANES)))
                        };
                        if ask && !SPREAD {
                            for line in 0..RV * V::LANES / 16 {
                                prefetch_l2(next.wrapping_add(64 * line));
                                prefetch(block.wrapping_add(NEAR + 64 * line));
                            }
                            next = next.wrapping_add(RV * V::LANES * 4);
                        }
                        let mut codes = load(0);
                        for p in 0..4 {
                            if SPREAD {
                                codes = load(p);
                            }
                            let k = g * GROUP + planes[p] + 4 * j;
                            for t in 0..NT {
                                let x = V::splat(x[t].add(k));
                                for v in 0..RV {
                                    let code = if SPREAD { codes[v] } else { codes[v].mask(0x03) };
                                    sums[t][v] = V::dot(sums[t][v], code, x);
                                }
                            }
                            codes = codes.map(|c| c.shr2());
                        }
                    }
                }
                for t in 0..NT {
                    for v in 0..RV {
                        totals[t][v] = totals[t][v].add(sums[t][v].widen());
                    }
                }
                first = last;
            }
            for t in 0..NT {
                for v in 0..RV {
                    totals[t][v].store(out[t].as_mut_ptr().add((part + v) * V::LANES));
                }
            }
        }
    }
}

/// Bytes of a group that is spread.
pub(super) const SPREAD_BYTES: usize = 4 * GROUP_BYTES;

/// Gives each code of a strip a byte of its own: the four planes of each block, one after the other.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it.
#[inline(always)]
pub(super) unsafe fn spread<V: Vector>(strip: &[u8], out: &mut [u8]) {
    const BLOCK: usize = 4 * ROWS;
    for (block, out) in strip.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<{ 4 * BLOCK }>().0) {
        for at in (0..BLOCK).step_by(4 * V::LANES) {
            // SAFETY: the tier is the caller's promise; a block is whole registers, and what it is spread to four
            // times as many.
            unsafe {
                let mut codes = V::load(block.as_ptr().add(at));
                for p in 0..4 {
                    codes.mask(0x03).store_bytes(out.as_mut_ptr().add(p * BLOCK + at));
                    codes = codes.shr2();
                }
            }
        }
    }
}
