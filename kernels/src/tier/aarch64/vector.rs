//! Multiply-adding bytes, once per tier.

use std::arch::aarch64::*;
use std::arch::asm;

/// Sums of products of codes 0..=2 and activations, in four lanes of four bytes each.
///
/// # Safety
/// All methods may only be called on a CPU that has the instructions of the implementing type, from
/// a function compiled for them (they are inlined into it).
pub(super) trait Dot: Copy {
    /// How often [`dot`](Self::dot) may add before [`fold`](Self::fold).
    const DOTS: usize;

    /// No products.
    unsafe fn zero() -> Self;

    /// Adds the products of 16 codes and 16 activations.
    unsafe fn dot(self, codes: int8x16_t, x: int8x16_t) -> Self;

    /// The sums, one for each four bytes.
    unsafe fn fold(self) -> int32x4_t;
}

/// Plain Advanced SIMD: a 16-bit sum for each byte, which holds 128 products: 128 · 2 · -128 = -32768.
#[derive(Clone, Copy)]
pub(super) struct Neon(int16x8_t, int16x8_t);

impl Dot for Neon {
    const DOTS: usize = 128;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the tier is the caller's promise.
        unsafe { Self(vdupq_n_s16(0), vdupq_n_s16(0)) }
    }

    #[inline(always)]
    unsafe fn dot(self, codes: int8x16_t, x: int8x16_t) -> Self {
        // SAFETY: the tier is the caller's promise.
        unsafe {
            let low = vmlal_s8(self.0, vget_low_s8(codes), vget_low_s8(x));
            Self(low, vmlal_high_s8(self.1, codes, x))
        }
    }

    #[inline(always)]
    unsafe fn fold(self) -> int32x4_t {
        // SAFETY: the tier is the caller's promise.
        unsafe { vpaddq_s32(vpaddlq_s16(self.0), vpaddlq_s16(self.1)) }
    }
}

/// `sdot`: a 32-bit sum for four bytes.
#[derive(Clone, Copy)]
pub(super) struct Sdot(int32x4_t);

impl Dot for Sdot {
    const DOTS: usize = usize::MAX;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the tier is the caller's promise.
        unsafe { Self(vdupq_n_s32(0)) }
    }

    #[inline(always)]
    unsafe fn dot(self, codes: int8x16_t, x: int8x16_t) -> Self {
        let mut sums = self.0;
        // The intrinsic is not stable on the oldest compiler that we support.
        // SAFETY: the tier is the caller's promise; the instruction only touches its registers.
        unsafe {
            asm!(
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sums, in(vreg) codes, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(sums)
    }

    #[inline(always)]
    unsafe fn fold(self) -> int32x4_t {
        self.0
    }
}

/// `smmla`: adds the products of the 2 × 8 bytes of `a` and the 2 × 8 bytes of `b`, each row of the one
/// with each row of the other: lanes a0b0, a0b1, a1b0, a1b1.
///
/// # Safety
/// As for [`Dot`], with the instructions of [`Tier::NeonI8mm`](crate::Tier).
#[inline(always)]
pub(super) unsafe fn smmla(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the tier is the caller's promise; the instruction only touches its registers.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
