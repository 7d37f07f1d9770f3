//! Looking sums up with Advanced SIMD; see [`nibbles`].

use crate::acts::Activations;
use crate::kernel::Packed;
use crate::tier::nibbles::{self, Halves};
use std::arch::aarch64::*;
use std::ops::Range;

pub(super) use crate::tier::nibbles::{MOST, Scratch, suit};

/// [`nibbles::multiply`].
#[target_feature(enable = "neon")]
pub(super) fn multiply(
    weights: &Packed,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    scratch: &mut Scratch,
    sink: &mut dyn FnMut(usize, usize, &[i32]),
) {
    // SAFETY: the function is compiled for the tier.
    unsafe { nibbles::multiply::<Neon>(weights, x, tokens, rows, scratch, sink) }
}

/// A register for each half.
#[derive(Clone, Copy)]
pub(super) struct Neon([uint8x16_t; 2]);

/// Lanes of 16 bits.
///
/// # Safety
/// The CPU must have Advanced SIMD.
#[inline(always)]
unsafe fn lanes(bytes: uint8x16_t) -> int16x8_t {
    // SAFETY: the caller vouches for Advanced SIMD.
    unsafe { vreinterpretq_s16_u8(bytes) }
}

impl Halves for Neon {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { [vdupq_n_u8(0); 2] })
    }

    #[inline(always)]
    unsafe fn load(bytes: &[u8; 32]) -> Self {
        // SAFETY: the tier is the caller's promise; both loads lie in the array.
        Self(unsafe { [vld1q_u8(bytes.as_ptr()), vld1q_u8(bytes.as_ptr().add(16))] })
    }

    #[inline(always)]
    unsafe fn halves(bytes: [&[u8; 16]; 2]) -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { [vld1q_u8(bytes[0].as_ptr()), vld1q_u8(bytes[1].as_ptr())] })
    }

    #[inline(always)]
    unsafe fn twice(bytes: &[u8; 16]) -> Self {
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { [vld1q_u8(bytes.as_ptr()); 2] })
    }

    #[inline(always)]
    unsafe fn nibbles(self) -> [Self; 2] {
        let Self([a, b]) = self;
        // SAFETY: the tier is the caller's promise.
        unsafe {
            let nibble = vdupq_n_u8(15);
            [Self([vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)]), Self([vandq_u8(a, nibble), vandq_u8(b, nibble)])]
        }
    }

    #[inline(always)]
    unsafe fn look_up(self, nibbles: Self) -> Self {
        let (Self(tables), Self(at)) = (self, nibbles);
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { [vqtbl1q_u8(tables[0], at[0]), vqtbl1q_u8(tables[1], at[1])] })
    }

    #[inline(always)]
    unsafe fn interleave(Self(low): Self, Self(high): Self) -> [Self; 2] {
        // SAFETY: the tier is the caller's promise.
        unsafe {
            [
                Self([vzip1q_u8(low[0], high[0]), vzip1q_u8(low[1], high[1])]),
                Self([vzip2q_u8(low[0], high[0]), vzip2q_u8(low[1], high[1])]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn products(a: &[i16; 16], x: i16) -> Self {
        let product = |half: &[i16]| {
            // SAFETY: the tier is the caller's promise; a half is eight numbers.
            unsafe { vreinterpretq_u8_s16(vmulq_n_s16(vld1q_s16(half.as_ptr()), x)) }
        };
        Self([product(&a[..8]), product(&a[8..])])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the tier is the caller's promise.
        let add = |i: usize| unsafe { vreinterpretq_u8_s16(vaddq_s16(lanes(self.0[i]), lanes(other.0[i]))) };
        Self([add(0), add(1)])
    }

    #[inline(always)]
    unsafe fn signed(self, signs: Self) -> Self {
        let signed = |i: usize| {
            // SAFETY: the tier is the caller's promise.
            unsafe {
                // All ones where negative: the sum's complement, and one more.
                let negative = vshrq_n_s16::<15>(lanes(signs.0[i]));
                vreinterpretq_u8_s16(vsubq_s16(veorq_s16(lanes(self.0[i]), negative), negative))
            }
        };
        Self([signed(0), signed(1)])
    }

    #[inline(always)]
    unsafe fn shl1(self) -> Self {
        // SAFETY: the tier is the caller's promise.
        let shl1 = |i: usize| unsafe { vreinterpretq_u8_s16(vshlq_n_s16::<1>(lanes(self.0[i]))) };
        Self([shl1(0), shl1(1)])
    }

    #[inline(always)]
    unsafe fn bytes(self) -> [[u8; 16]; 2] {
        let Self([a, b]) = self;
        // SAFETY: the tier is the caller's promise; a register is 16 bytes.
        unsafe { std::mem::transmute([vuzp1q_u8(a, b), vuzp2q_u8(a, b)]) }
    }

    #[inline(always)]
    unsafe fn sums(self) -> [[i16; 8]; 2] {
        // SAFETY: two registers are 16 lanes, and all bits are numbers.
        unsafe { std::mem::transmute(self.0) }
    }

    #[inline(always)]
    unsafe fn of_sums(sums: &[[i16; 8]; 2]) -> Self {
        // SAFETY: the tier is the caller's promise.
        let lanes = |half: &[i16; 8]| unsafe { vreinterpretq_u8_s16(vld1q_s16(half.as_ptr())) };
        Self([lanes(&sums[0]), lanes(&sums[1])])
    }

    #[inline(always)]
    unsafe fn field(self, by: i16, mask: u16) -> Self {
        let field = |i: usize| {
            // SAFETY: the tier is the caller's promise.
            unsafe {
                let lanes = vshlq_u16(vreinterpretq_u16_u8(self.0[i]), vdupq_n_s16(by));
                vreinterpretq_u8_u16(vandq_u16(lanes, vdupq_n_u16(mask)))
            }
        };
        Self([field(0), field(1)])
    }

    #[inline(always)]
    unsafe fn look_up_long([low, high]: [Self; 2], at: Self) -> Self {
        // SAFETY: the tier is the caller's promise.
        let look_up = |i: usize| unsafe { vqtbl2q_u8(uint8x16x2_t(low.0[i], high.0[i]), at.0[i]) };
        Self([look_up(0), look_up(1)])
    }

    #[inline(always)]
    unsafe fn turn(Self(low): Self, Self(high): Self) -> [[u8; 32]; 2] {
        // SAFETY: the tier is the caller's promise; two registers are 32 bytes.
        unsafe {
            std::mem::transmute([
                [vtrn1q_s16(lanes(low[0]), lanes(high[0])), vtrn1q_s16(lanes(low[1]), lanes(high[1]))],
                [vtrn2q_s16(lanes(low[0]), lanes(high[0])), vtrn2q_s16(lanes(low[1]), lanes(high[1]))],
            ])
        }
    }

    #[inline(always)]
    unsafe fn words(Self(low): Self, Self(high): Self) -> [[u8; 32]; 2] {
        // SAFETY: the tier is the caller's promise; two registers are 32 bytes.
        unsafe {
            let words = |i: usize| {
                let (low, high) = (lanes(low[i]), lanes(high[i]));
                [vzip1q_s16(low, high), vzip2q_s16(low, high)]
            };
            std::mem::transmute([words(0), words(1)])
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [&[u8; 32]; 8]) -> [[u8; 32]; 8] {
        let mut out = [[0; 32]; 8];
        for (half, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (i, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: the tier is the caller's promise; each half lies in its row, and results of four rows
                // are a half of one of `out`.
                unsafe {
                    let mut halves = [vdupq_n_u32(0); 4];
                    for (half_row, row) in halves.iter_mut().zip(rows) {
                        *half_row = vreinterpretq_u32_u8(vld1q_u8(row.as_ptr().add(16 * half)));
                    }
                    let low = [vzip1q_u32(halves[0], halves[2]), vzip1q_u32(halves[1], halves[3])];
                    let high = [vzip2q_u32(halves[0], halves[2]), vzip2q_u32(halves[1], halves[3])];
                    let words = [
                        vzip1q_u32(low[0], low[1]),
                        vzip2q_u32(low[0], low[1]),
                        vzip1q_u32(high[0], high[1]),
                        vzip2q_u32(high[0], high[1]),
                    ];
                    for (out, words) in out.iter_mut().zip(words) {
                        vst1q_u8(out.as_mut_ptr().add(16 * i), vreinterpretq_u8_u32(words));
                    }
                }
            }
        }
        out
    }
}
