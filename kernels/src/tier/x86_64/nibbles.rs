//! Looking sums up with AVX2; see [`nibbles`].

use crate::acts::Activations;
use crate::kernel::Packed;
use crate::tier::nibbles::{self, Halves};
use std::arch::x86_64::*;
use std::ops::Range;

pub(super) use crate::tier::nibbles::{MOST, Scratch, suit};

/// [`nibbles::multiply`].
#[target_feature(enable = "avx2")]
pub(super) fn multiply(
    weights: &Packed,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    scratch: &mut Scratch,
    sink: &mut dyn FnMut(usize, usize, &[i32]),
) {
    // SAFETY: the function is compiled for the tier.
    unsafe { nibbles::multiply::<Avx2>(weights, x, tokens, rows, scratch, sink) }
}

/// One register.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256i);

// Every intrinsic here belongs to AVX2, which the caller vouches for.
impl Halves for Avx2 {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(bytes: &[u8; 32]) -> Self {
        // SAFETY: the tier is the caller's promise; the load is an unaligned one.
        Self(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn halves([a, b]: [&[u8; 16]; 2]) -> Self {
        // SAFETY: the tier is the caller's promise; the loads are unaligned ones.
        Self(unsafe { _mm256_loadu2_m128i(b.as_ptr().cast(), a.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn twice(bytes: &[u8; 16]) -> Self {
        // SAFETY: the tier is the caller's promise; the load is an unaligned one.
        Self(unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) })
    }

    #[inline(always)]
    unsafe fn nibbles(self) -> [Self; 2] {
        // SAFETY: the tier is the caller's promise.
        unsafe {
            let nibble = _mm256_set1_epi8(15);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(self.0), nibble);
            [Self(high), Self(_mm256_and_si256(self.0, nibble))]
        }
    }

    #[inline(always)]
    unsafe fn look_up(self, nibbles: Self) -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { _mm256_shuffle_epi8(self.0, nibbles.0) })
    }

    #[inline(always)]
    unsafe fn interleave(low: Self, high: Self) -> [Self; 2] {
        // SAFETY: the tier is the caller's promise.
        unsafe { [Self(_mm256_unpacklo_epi8(low.0, high.0)), Self(_mm256_unpackhi_epi8(low.0, high.0))] }
    }

    #[inline(always)]
    unsafe fn products(a: &[i16; 16], x: i16) -> Self {
        // SAFETY: the tier is the caller's promise; the load is an unaligned one.
        Self(unsafe { _mm256_mullo_epi16(_mm256_loadu_si256(a.as_ptr().cast()), _mm256_set1_epi16(x)) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { _mm256_add_epi16(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn signed(self, signs: Self) -> Self {
        // A lane of zero would clear the sum.
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { _mm256_sign_epi16(self.0, _mm256_or_si256(signs.0, _mm256_set1_epi16(1))) })
    }

    #[inline(always)]
    unsafe fn shl1(self) -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { _mm256_slli_epi16::<1>(self.0) })
    }

    #[inline(always)]
    unsafe fn bytes(self) -> [[u8; 16]; 2] {
        // SAFETY: the tier is the caller's promise; a register is 32 bytes.
        unsafe {
            let low = _mm256_and_si256(self.0, _mm256_set1_epi16(0xff));
            let bytes = _mm256_packus_epi16(low, _mm256_srli_epi16::<8>(self.0));
            // Packing works within 128-bit halves.
            std::mem::transmute(_mm256_permute4x64_epi64::<0b11_01_10_00>(bytes))
        }
    }

    #[inline(always)]
    unsafe fn sums(self) -> [[i16; 8]; 2] {
        // SAFETY: a register is 16 lanes, and all bits are numbers.
        unsafe { std::mem::transmute(self.0) }
    }

    #[inline(always)]
    unsafe fn of_sums(sums: &[[i16; 8]; 2]) -> Self {
        // SAFETY: the tier is the caller's promise; the load is an unaligned one.
        Self(unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn field(self, by: i16, mask: u16) -> Self {
        let count = i32::from(by.abs());
        // SAFETY: the tier is the caller's promise.
        unsafe {
            let count = _mm_cvtsi32_si128(count);
            let lanes =
                if by < 0 { _mm256_srl_epi16(self.0, count) } else { _mm256_sll_epi16(self.0, count) };
            Self(_mm256_and_si256(lanes, _mm256_set1_epi16(mask as i16)))
        }
    }

    #[inline(always)]
    unsafe fn look_up_long([low, high]: [Self; 2], at: Self) -> Self {
        // Where the top bit of an index is set, a zero is found.
        // SAFETY: the tier is the caller's promise.
        unsafe {
            let low = _mm256_shuffle_epi8(low.0, _mm256_add_epi8(at.0, _mm256_set1_epi8(0x70)));
            let high = _mm256_shuffle_epi8(high.0, _mm256_sub_epi8(at.0, _mm256_set1_epi8(16)));
            Self(_mm256_or_si256(low, high))
        }
    }

    #[inline(always)]
    unsafe fn turn(low: Self, high: Self) -> [[u8; 32]; 2] {
        const ODD: i32 = 0b1010_1010;
        // SAFETY: the tier is the caller's promise; registers are 32 bytes.
        unsafe {
            std::mem::transmute([
                _mm256_blend_epi16::<ODD>(low.0, _mm256_slli_epi32::<16>(high.0)),
                _mm256_blend_epi16::<ODD>(_mm256_srli_epi32::<16>(low.0), high.0),
            ])
        }
    }

    #[inline(always)]
    unsafe fn words(low: Self, high: Self) -> [[u8; 32]; 2] {
        // SAFETY: the tier is the caller's promise; registers are 32 bytes.
        unsafe {
            let (first, last) = (_mm256_unpacklo_epi16(low.0, high.0), _mm256_unpackhi_epi16(low.0, high.0));
            std::mem::transmute([
                _mm256_permute2x128_si256::<0x20>(first, last),
                _mm256_permute2x128_si256::<0x31>(first, last),
            ])
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [&[u8; 32]; 8]) -> [[u8; 32]; 8] {
        let mut out = [[0; 32]; 8];
        for (half, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: the tier is the caller's promise; each half lies in its row, and each result in `out`.
            unsafe {
                // A half of each of two rows, four rows apart.
                let mut pairs = [_mm256_setzero_si256(); 4];
                for r in 0..4 {
                    let [low, high] = [rows[r], rows[r + 4]].map(|row| row.as_ptr().add(16 * half).cast());
                    pairs[r] = _mm256_loadu2_m128i(high, low);
                }
                let low =
                    [_mm256_unpacklo_epi32(pairs[0], pairs[1]), _mm256_unpacklo_epi32(pairs[2], pairs[3])];
                let high =
                    [_mm256_unpackhi_epi32(pairs[0], pairs[1]), _mm256_unpackhi_epi32(pairs[2], pairs[3])];
                let words = [
                    _mm256_unpacklo_epi64(low[0], low[1]),
                    _mm256_unpackhi_epi64(low[0], low[1]),
                    _mm256_unpacklo_epi64(high[0], high[1]),
                    _mm256_unpackhi_epi64(high[0], high[1]),
                ];
                for (out, words) in out.iter_mut().zip(words) {
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), words);
                }
            }
        }
        out
    }
}
