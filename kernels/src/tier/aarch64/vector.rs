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
        let Self(mut low, mut high) = self;
        // From the intrinsics the compiler makes twice as many instructions: as it knows that codes
        // are small, it widens them first.
        // SAFETY: the tier is the caller's promise; the instructions only touch their registers.
        unsafe {
            asm!(
                "smlal {0:v}.8h, {2:v}.8b, {3:v}.8b",
                "smlal2 {1:v}.8h, {2:v}.16b, {3:v}.16b",
                inout(vreg) low, inout(vreg) high, in(vreg) codes, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(low, high)
    }

    #[inline(always)]
    unsafe fn fold(self) -> int32x4_t {
        // SAFETY: the tier is the caller's promise.
        unsafe { vpaddq_s32(vpaddlq_s16(self.0), vpaddlq_s16(self.1)) }
    }
}

/// `sdot`: adds the products of the bytes of `a` and `b`, four to a lane.
///
/// # Safety
/// The CPU must have the instructions of [`Tier::NeonDotprod`](crate::Tier).
#[inline(always)]
pub(crate) unsafe fn sdot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // The intrinsic is not stable on the oldest compiler that we support.
    // SAFETY: the tier is the caller's promise; the instruction only touches its registers.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
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
        // SAFETY: the tier is the caller's promise.
        Self(unsafe { sdot(self.0, codes, x) })
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
