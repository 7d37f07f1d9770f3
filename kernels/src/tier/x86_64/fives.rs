//! Multiplying `tm1_6` strips on AVX-512: as in [`strip`](super::strip), with the digits of a byte taken
//! apart in registers.
//!
//! ```text
//! low = min(x, x - 81, x - 162)    four digits, 0 to 80                (bytes that wrap)
//! table[low]                       the four digits as 2-bit codes, by one vpermi2b over 128 entries; one
//!                                  token multiplies them where they stand and divides at the end
//! x - low                          81 times the last digit d. One token multiplies that as it is
//!                                  too; for several it is masked with 3, which gives
//!                                  d, as 81 and 162 end in the bits 01 and 10
//! ```

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::Tile;
use super::strip::prefetch;
use crate::layout::tm1_6::GROUP;
use crate::layout::tm2::{GROUP_BYTES, ROWS};
use crate::tuning;
use std::arch::x86_64::*;

/// 2-bit codes of all four-digit numbers.
static TABLE: [u8; 128] = {
    let mut table = [0; 128];
    let mut low = 0;
    while low < 81 {
        table[low] = ((low % 3) | (low / 3 % 3) << 2 | (low / 9 % 3) << 4 | (low / 27 % 3) << 6) as u8;
        low += 1;
    }
    table
};

/// `out[t][r] = Σ_k code(r, k) · x[t][k]` over a strip of `groups` groups, for one to [`MAX_TILE`](super::MAX_TILE) tokens.
///
/// # Safety
/// The CPU must have the features that [`gemv`] is compiled for; `strip` must be valid for `groups`
/// groups and each of `x` for as many columns of 160.
pub(super) unsafe fn multiply(strip: *const u8, groups: usize, x: &[*const i8], out: &mut Tile) {
    macro_rules! tile {
        ($($nt:literal)+) => {
            match x.len() {
                // SAFETY: passed on.
                1 => unsafe { gemv(strip, groups, x[0], &mut out[0]) },
                $($nt => {
                    let x: &[_; $nt] = x.try_into().expect("matched");
                    let out = out.first_chunk_mut::<$nt>().expect("no tile is larger");
                    // SAFETY: passed on.
                    unsafe { tile::<$nt>(strip, groups, x, out) }
                })+
                n => unreachable!("a tile of {n} tokens"),
            }
        };
    }
    tile!(2 3 4 5 6 7 8 9 10 11 12)
}

/// [`multiply`] for several tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
unsafe fn tile<const NT: usize>(
    strip: *const u8,
    groups: usize,
    x: &[*const i8; NT],
    out: &mut [[i32; ROWS]; NT],
) {
    let byte = |b: u8| _mm512_set1_epi8(b as i8);
    // SAFETY: as in `gemv`. Sums of codes fit, see `MAX_COLS`.
    unsafe {
        let table: [_; 2] =
            [_mm512_loadu_si512(TABLE.as_ptr().cast()), _mm512_loadu_si512(TABLE.as_ptr().add(64).cast())];
        let mut sums = [[_mm512_setzero_si512(); 2]; NT];
        for g in 0..groups {
            for j in 0..8 {
                let block = strip.add(g * GROUP_BYTES + j * 4 * ROWS);
                let (mut codes, mut top) = ([_mm512_setzero_si512(); 2], [_mm512_setzero_si512(); 2]);
                for v in 0..2 {
                    let all = _mm512_loadu_si512(block.add(64 * v).cast());
                    let low =
                        _mm512_min_epu8(_mm512_sub_epi8(all, byte(81)), _mm512_sub_epi8(all, byte(162)));
                    let low = _mm512_min_epu8(low, all);
                    codes[v] = _mm512_permutex2var_epi8(table[0], low, table[1]);
                    top[v] = _mm512_sub_epi8(all, low);
                }
                for p in 0..5 {
                    let plane = if p < 4 { codes } else { top };
                    for t in 0..NT {
                        let at = x[t].add(g * GROUP + 32 * p + 4 * j);
                        let x = _mm512_set1_epi32(at.cast::<i32>().read_unaligned());
                        for v in 0..2 {
                            let code = _mm512_and_si512(plane[v], byte(0x03));
                            sums[t][v] = _mm512_dpbusd_epi32(sums[t][v], code, x);
                        }
                    }
                    for v in 0..2 {
                        codes[v] = _mm512_srli_epi16::<2>(codes[v]);
                    }
                }
            }
        }
        for t in 0..NT {
            for v in 0..2 {
                _mm512_storeu_si512(out[t].as_mut_ptr().add(16 * v).cast(), sums[t][v]);
            }
        }
    }
}

/// [`multiply`] for one token.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
unsafe fn gemv(strip: *const u8, groups: usize, x: *const i8, out: &mut [i32; ROWS]) {
    // The largest sums are at most 2^15 columns · 2 · 81 · 128 < 2^30 in this many groups.
    const FOLD: usize = 1024;
    let byte = |b: u8| _mm512_set1_epi8(b as i8);
    let ahead = tuning::prefetch();
    // SAFETY: pointers are the caller's promise, and a table has 128 bytes; every access lies within
    // the group that is counted, and a prefetch may point anywhere.
    unsafe {
        let table: [_; 2] =
            [_mm512_loadu_si512(TABLE.as_ptr().cast()), _mm512_loadu_si512(TABLE.as_ptr().add(64).cast())];
        let mut totals = [_mm512_setzero_si512(); 2];
        for first in (0..groups).step_by(FOLD) {
            // Planes 0 to 3, which count 4^p fold, and plane 4, which counts 81-fold.
            let mut sums = [[_mm512_setzero_si512(); 5]; 2];
            for g in first..groups.min(first + FOLD) {
                for j in 0..8 {
                    let block = strip.add(g * GROUP_BYTES + j * 4 * ROWS);
                    prefetch(block.wrapping_add(ahead));
                    prefetch(block.wrapping_add(ahead + 64));
                    let mut xs = [_mm512_setzero_si512(); 5];
                    for p in 0..5 {
                        let at = x.add(g * GROUP + 32 * p + 4 * j);
                        xs[p] = _mm512_set1_epi32(at.cast::<i32>().read_unaligned());
                    }
                    for v in 0..2 {
                        let all = _mm512_loadu_si512(block.add(64 * v).cast());
                        let low =
                            _mm512_min_epu8(_mm512_sub_epi8(all, byte(81)), _mm512_sub_epi8(all, byte(162)));
                        let low = _mm512_min_epu8(low, all);
                        let top = _mm512_sub_epi8(all, low);
                        let codes = _mm512_permutex2var_epi8(table[0], low, table[1]);
                        for p in 0..4 {
                            let code = _mm512_and_si512(codes, byte(3 << (2 * p)));
                            sums[v][p] = _mm512_dpbusd_epi32(sums[v][p], code, xs[p]);
                        }
                        sums[v][4] = _mm512_dpbusd_epi32(sums[v][4], top, xs[4]);
                    }
                }
            }
            for v in 0..2 {
                let [a, b, c, d, top] = sums[v];
                let mut lanes = [0i32; 16];
                _mm512_storeu_si512(lanes.as_mut_ptr().cast(), top);
                for lane in &mut lanes {
                    *lane /= 81;
                }
                let top = _mm512_loadu_si512(lanes.as_ptr().cast());
                let (ab, cd) = (
                    _mm512_add_epi32(a, _mm512_srai_epi32::<2>(b)),
                    _mm512_add_epi32(_mm512_srai_epi32::<4>(c), _mm512_srai_epi32::<6>(d)),
                );
                let sum = _mm512_add_epi32(_mm512_add_epi32(ab, cd), top);
                totals[v] = _mm512_add_epi32(totals[v], sum);
            }
        }
        for v in 0..2 {
            _mm512_storeu_si512(out.as_mut_ptr().add(16 * v).cast(), totals[v]);
        }
    }
}

/// [`tm1_6::to_tm2`](crate::layout::tm1_6::to_tm2): four groups here are five there.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
pub(super) fn to_tm2(fives: &[u8], out: &mut [u8]) {
    let byte = |b: u8| _mm512_set1_epi8(b as i8);
    // SAFETY: the table has 128 bytes.
    let table: [_; 2] = unsafe {
        [_mm512_loadu_si512(TABLE.as_ptr().cast()), _mm512_loadu_si512(TABLE.as_ptr().add(64).cast())]
    };
    // Halves of a block are 16 rows.
    let (fives, _) = fives.as_chunks::<64>();
    let (out, _) = out.as_chunks_mut::<64>();
    const HALVES: usize = GROUP_BYTES / 64;
    for half in 0..HALVES {
        for first in 0..out.len().div_ceil(5 * HALVES) {
            let (mut low, mut top) = ([byte(0x55); 4], [byte(1); 4]);
            for i in 0..4 {
                let Some(all) = fives.get((4 * first + i) * HALVES + half) else { break };
                // SAFETY: the array is the 64 bytes of a register.
                let all = unsafe { _mm512_loadu_si512(all.as_ptr().cast()) };
                let rest = _mm512_min_epu8(_mm512_sub_epi8(all, byte(81)), _mm512_sub_epi8(all, byte(162)));
                let rest = _mm512_min_epu8(rest, all);
                low[i] = _mm512_permutex2var_epi8(table[0], rest, table[1]);
                top[i] = _mm512_and_si512(_mm512_sub_epi8(all, rest), byte(3));
            }
            for i in 0..5 {
                let Some(out) = out.get_mut((5 * first + i) * HALVES + half) else { break };
                // What planes are left of the last group, its fifth plane, and the first of the next.
                let mut codes = byte(0);
                if i > 0 {
                    let left = 2 * i as u32 - 2;
                    let rest = _mm512_srl_epi16(low[i - 1], _mm_cvtsi32_si128(10 - 2 * i as i32));
                    codes = _mm512_and_si512(rest, byte(((1u16 << left) - 1) as u8));
                    codes =
                        _mm512_or_si512(codes, _mm512_sll_epi16(top[i - 1], _mm_cvtsi32_si128(left as i32)));
                }
                if i < 4 {
                    let next = _mm512_and_si512(low[i], byte(0xff >> (2 * i)));
                    codes = _mm512_or_si512(codes, _mm512_sll_epi16(next, _mm_cvtsi32_si128(2 * i as i32)));
                }
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), codes) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tm1_6;

    #[test]
    fn turns_strips_like_plain_code() {
        if !crate::Tier::Avx512Vnni.is_available() {
            return println!("skipped: this CPU lacks AVX-512 with VNNI and VBMI");
        }
        for (fives, groups) in [(1, 1), (1, 2), (4, 5), (5, 6), (5, 7), (16, 20)] {
            let fives: Vec<u8> = (0..fives * GROUP_BYTES).map(|i| (i * 31 % 1009 % 243) as u8).collect();
            let (mut a, mut b) = (vec![7; groups * GROUP_BYTES], vec![9; groups * GROUP_BYTES]);
            // SAFETY: the CPU has the features, see above.
            unsafe { to_tm2(&fives, &mut a) };
            tm1_6::to_tm2(&fives, &mut b);
            assert!(a == b, "{groups} groups");
        }
    }
}
