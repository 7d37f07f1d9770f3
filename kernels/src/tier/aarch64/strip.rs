//! Multiplying `tm2` strips and rows of chunks.
//!
//! In a strip a lane of the registers is a row; the registers hold the sums of a tile of rows × tokens
//! ([`tile`], [`tile_mm`]), and each unpacked plane serves all tokens of the tile. In a row of chunks
//! ([`chunks`]) a lane is a few columns, and lanes are added up at the end.
//!
//! Codes are 0..=2 for the weights -1..=1: the caller subtracts the sum of the activations.

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::vector::{Dot, smmla};
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use crate::tier::source::Chunks;
use std::arch::aarch64::*;

/// Rows in a register of a strip.
const LANES: usize = 4;
/// Bytes of a register.
const BYTES: usize = 16;
/// Bytes of a block: four columns of each plane, all rows of the strip.
const BLOCK: usize = 4 * ROWS;
/// Blocks in a group.
const BLOCKS: usize = GROUP_BYTES / BLOCK;

/// Rows of chunks that are read at once, to share the loads of activations.
pub(super) const CHUNK_ROWS: usize = 4;

/// The codes of the lowest plane.
///
/// # Safety
/// The CPU must have Advanced SIMD.
#[inline(always)]
unsafe fn lowest(codes: uint8x16_t) -> int8x16_t {
    // SAFETY: the caller vouches for Advanced SIMD.
    unsafe { vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(3))) }
}

/// The same four activations in every lane.
///
/// # Safety
/// The CPU must have Advanced SIMD and `at` be valid for four bytes.
#[inline(always)]
unsafe fn splat(at: *const i8) -> int8x16_t {
    // SAFETY: the caller vouches for Advanced SIMD and the pointer, which is read unaligned.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())) }
}

/// Adds the products of the four planes of `codes` with their activations.
///
/// # Safety
/// The CPU must have the tier of `D` and the caller be compiled for it.
#[inline(always)]
unsafe fn dot4<D: Dot>(sums: D, codes: uint8x16_t, x: [int8x16_t; 4]) -> D {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        sums.dot(lowest(codes), x[0])
            .dot(lowest(vshrq_n_u8::<2>(codes)), x[1])
            .dot(lowest(vshrq_n_u8::<4>(codes)), x[2])
            .dot(vreinterpretq_s8_u8(vshrq_n_u8::<6>(codes)), x[3])
    }
}

/// `out[t][r] = Σ_k code(r, k) · x[t][k]` over a strip of `groups` groups, for `NT` tokens, `RV`
/// registers of rows at a time.
///
/// # Safety
/// The CPU must have the tier of `D` and the caller be compiled for it; `strip` must be valid for
/// `groups` groups and each of `x` for as many columns.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const RV: usize, const NT: usize>(
    strip: *const u8,
    groups: usize,
    x: &[*const i8; NT],
    planes: [usize; 4],
    out: &mut [[i32; ROWS]; NT],
) {
    const { assert!(ROWS.is_multiple_of(RV * LANES)) };
    // A lane takes 32 dots a group.
    let fold = (D::DOTS / (4 * BLOCKS)).min(groups);
    for part in (0..ROWS / LANES).step_by(RV) {
        // SAFETY: tier and pointers are the caller's promise; every access lies within the group
        // that is counted.
        unsafe {
            let strip = strip.add(part * BYTES);
            let mut totals = [[vdupq_n_s32(0); RV]; NT];
            let mut first = 0;
            while first < groups {
                let last = groups.min(first + fold);
                let mut sums = [[D::zero(); RV]; NT];
                for g in first..last {
                    for j in 0..BLOCKS {
                        let block = strip.add(g * GROUP_BYTES + j * BLOCK);
                        let mut codes = [vdupq_n_u8(0); RV];
                        for v in 0..RV {
                            codes[v] = vld1q_u8(block.add(v * BYTES));
                        }
                        for plane in planes {
                            for t in 0..NT {
                                let x = splat(x[t].add(g * GROUP + plane + 4 * j));
                                for v in 0..RV {
                                    sums[t][v] = sums[t][v].dot(lowest(codes[v]), x);
                                }
                            }
                            for v in 0..RV {
                                codes[v] = vshrq_n_u8::<2>(codes[v]);
                            }
                        }
                    }
                }
                for t in 0..NT {
                    for v in 0..RV {
                        totals[t][v] = vaddq_s32(totals[t][v], sums[t][v].fold());
                    }
                }
                first = last;
            }
            for t in 0..NT {
                for v in 0..RV {
                    vst1q_s32(out[t].as_mut_ptr().add((part + v) * LANES), totals[t][v]);
                }
            }
        }
    }
}

/// As [`tile`] with `smmla`, for `NP` pairs of tokens: two blocks side by side give each row eight
/// neighbouring columns, and a register two rows.
///
/// # Safety
/// As for [`tile`], on [`Tier::NeonI8mm`](crate::Tier).
#[inline(always)]
pub(super) unsafe fn tile_mm<const NP: usize>(
    strip: *const u8,
    groups: usize,
    x: &[[*const i8; 2]; NP],
    planes: [usize; 4],
    out: &mut [[[i32; ROWS]; 2]; NP],
) {
    /// Rows at a time, as pairs.
    const PAIRS: usize = 4;
    for part in (0..ROWS).step_by(2 * PAIRS) {
        // SAFETY: tier and pointers are the caller's promise; every access lies within the group
        // that is counted.
        unsafe {
            let strip = strip.add(4 * part);
            let mut sums = [[vdupq_n_s32(0); PAIRS]; NP];
            for g in 0..groups {
                for j in (0..BLOCKS).step_by(2) {
                    let block = strip.add(g * GROUP_BYTES + j * BLOCK);
                    let mut codes = [vdupq_n_u8(0); PAIRS];
                    for v in 0..PAIRS / 2 {
                        let left = vreinterpretq_u32_u8(vld1q_u8(block.add(v * BYTES)));
                        let right = vreinterpretq_u32_u8(vld1q_u8(block.add(BLOCK + v * BYTES)));
                        codes[2 * v] = vreinterpretq_u8_u32(vzip1q_u32(left, right));
                        codes[2 * v + 1] = vreinterpretq_u8_u32(vzip2q_u32(left, right));
                    }
                    for plane in planes {
                        let k = g * GROUP + plane + 4 * j;
                        for i in 0..NP {
                            let x = vcombine_s8(vld1_s8(x[i][0].add(k)), vld1_s8(x[i][1].add(k)));
                            for v in 0..PAIRS {
                                sums[i][v] = smmla(sums[i][v], lowest(codes[v]), x);
                            }
                        }
                        for v in 0..PAIRS {
                            codes[v] = vshrq_n_u8::<2>(codes[v]);
                        }
                    }
                }
            }
            for i in 0..NP {
                for v in 0..PAIRS {
                    let row = part + 2 * v;
                    let mut lanes = [0; 4];
                    vst1q_s32(lanes.as_mut_ptr(), sums[i][v]);
                    [out[i][0][row], out[i][1][row], out[i][0][row + 1], out[i][1][row + 1]] = lanes;
                }
            }
        }
    }
}

/// `out[r] = Σ_k code(r, k) · x[k]` over `groups` chunks of each of the rows that start at `rows`.
///
/// # Safety
/// The CPU must have the tier of `D` and the caller be compiled for it; each of `rows` must be valid
/// for the offsets of its chunks and 32 bytes, `x` for `groups * 128` columns.
#[inline(always)]
pub(super) unsafe fn chunks<D: Dot>(
    rows: &[*const u8; CHUNK_ROWS],
    chunks: Chunks,
    groups: usize,
    x: *const i8,
    out: &mut [i32; CHUNK_ROWS],
) {
    let planes = chunks.planes();
    // A lane takes 8 dots a chunk.
    let fold = (D::DOTS / 8).min(groups);
    // SAFETY: tier and pointers are the caller's promise.
    unsafe {
        let mut totals = [vdupq_n_s32(0); CHUNK_ROWS];
        let mut first = 0;
        while first < groups {
            let last = groups.min(first + fold);
            let mut sums = [D::zero(); CHUNK_ROWS];
            for g in first..last {
                for half in [0, BYTES] {
                    let x = x.add(g * GROUP + half);
                    let x = [
                        vld1q_s8(x.add(planes[0])),
                        vld1q_s8(x.add(planes[1])),
                        vld1q_s8(x.add(planes[2])),
                        vld1q_s8(x.add(planes[3])),
                    ];
                    for r in 0..CHUNK_ROWS {
                        sums[r] = dot4(sums[r], vld1q_u8(rows[r].add(chunks.offset(g) + half)), x);
                    }
                }
            }
            for r in 0..CHUNK_ROWS {
                totals[r] = vaddq_s32(totals[r], sums[r].fold());
            }
            first = last;
        }
        for r in 0..CHUNK_ROWS {
            out[r] = vaddvq_s32(totals[r]);
        }
    }
}
