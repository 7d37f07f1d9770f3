//! The few vector operations that the multiply kernels are made of, once per tier.

use crate::layout::tq1_0::BYTES;
use std::arch::asm;
use std::arch::x86_64::*;

/// A register of 32-bit lanes with four bytes each.
///
/// # Safety
/// All methods may only be called on a CPU that has the instructions of the implementing type, from
/// a function compiled for them (they are inlined into it); pointers must be valid for the access
/// that a method names, at any alignment.
pub(super) trait Vector: Copy {
    /// 32-bit lanes in a register.
    const LANES: usize;

    /// Whether [`dot`](Self::dot) sums pairs in 16 bits. Such sums hold 64 dots of codes 0..=2 with any
    /// activations: 64 · 2 products · 2 · -128 = -32768. Codes that stand `2p` bits higher count `4^p`
    /// dots. [`widen`](Self::widen) must come in time.
    const NARROW: bool;

    /// All lanes 0.
    unsafe fn zero() -> Self;

    /// `4 * LANES` bytes.
    unsafe fn load(at: *const u8) -> Self;

    /// `2 * LANES` bytes in the lower half, zeros in the upper.
    unsafe fn load_half(at: *const u8) -> Self;

    /// The same four bytes in every lane.
    unsafe fn splat(at: *const i8) -> Self;

    /// The codes 0..=2 of trits.
    unsafe fn code(self) -> Self;

    /// Keeps the bits `mask` of each byte.
    unsafe fn mask(self, mask: u8) -> Self;

    /// Shifts 16-bit halves right by 2; what comes from the neighbouring byte must be masked away.
    unsafe fn shr2(self) -> Self;

    /// Shifts 16-bit halves right by 4; what comes from the neighbouring byte must be masked away.
    unsafe fn shr4(self) -> Self;

    /// Adds the products of unsigned `codes` and signed `x` to the sums, lane by lane.
    unsafe fn dot(sums: Self, codes: Self, x: Self) -> Self;

    /// The sums of [`dot`](Self::dot) as one `i32` a lane.
    unsafe fn widen(self) -> Self;

    /// Adds `i32` lanes, wrapping.
    unsafe fn add(self, other: Self) -> Self;

    /// Divides `i32` lanes by 4 (they are multiples of 4).
    unsafe fn quarter(self) -> Self;

    /// Writes [`LANES`](Self::LANES) `i32`.
    unsafe fn store(self, at: *mut i32);

    /// Writes `4 * LANES` bytes.
    unsafe fn store_bytes(self, at: *mut u8);

    /// Sums of all `i32` lanes of each, wrapping.
    unsafe fn sums(of: [Self; 4]) -> [i32; 4];
}

/// Operations on the base-3 digits in a block of `tq1_0`, each byte a fraction of 256 whose triple has the next
/// digit above the point.
///
/// # Safety
/// As for [`Vector`].
pub(super) trait Digits: Vector {
    /// Blocks over which [`step`](Self::step) may sum.
    const FOLD: usize;

    /// The bytes from `at` on that belong to a block, as [`step`](Self::step) wants them: where a register is smaller
    /// than a block, all that it holds, else those of the block that begins at `at`.
    unsafe fn fractions(at: *const u8) -> Self;

    /// As [`fractions`](Self::fractions), as [`digit`](Self::digit) wants them.
    unsafe fn exact(at: *const u8) -> Self;

    /// The next digit of each fraction, 0..=2, and moves on to the digit after it.
    unsafe fn digit(&mut self) -> Self;

    /// Adds the products of the next digit of each fraction and `x`, and moves on to the digit after it.
    unsafe fn step<const N: usize>(sums: &mut [[Self; 2]; N], fractions: &mut [Self; N], x: Self);

    /// The sums of [`step`](Self::step) as one `i32` a lane.
    unsafe fn total(sums: [Self; 2]) -> Self;
}

/// AVX2: `vpmaddubsw`.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256i);

/// AVX-VNNI: `vpdpbusd`, VEX-encoded.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(__m256i);

/// AVX-512 VL and VNNI on 256 bits: `vpdpbusd`, EVEX-encoded.
#[derive(Clone, Copy)]
pub(super) struct Vnni256(__m256i);

/// AVX-512 BW: `vpmaddubsw`.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512i);

/// AVX-512 VNNI: `vpdpbusd`.
#[derive(Clone, Copy)]
pub(super) struct Vnni512(__m512i);

/// Stamps the operations onto a type, given those that differ.
macro_rules! vector {
    ($name:ident, $lanes:expr, $narrow:expr,
     zero: $zero:expr, load: $load:expr, load_half: $widened:ident of $load_low:ident, splat: $splat:ident, splat8: $splat8:ident, add8: $add8:ident,
     and: $and:ident,
     shr: $shr:ident, add: $add:ident, sra: $sra:ident, store: $store:expr, sums: $sums:expr,
     dot: |$s:ident, $c:ident, $x:ident| $dot:expr, widen: |$w:ident| $widen:expr) => {
        // Every intrinsic here belongs to the type's tier, which the caller vouches for.
        impl Vector for $name {
            const LANES: usize = $lanes;
            const NARROW: bool = $narrow;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $zero() })
            }
            #[inline(always)]
            unsafe fn load(at: *const u8) -> Self {
                // SAFETY: tier and pointer are the caller's promise; the load is an unaligned one.
                Self(unsafe { $load(at.cast()) })
            }
            #[inline(always)]
            unsafe fn load_half(at: *const u8) -> Self {
                // SAFETY: tier and pointer are the caller's promise; the load is an unaligned one.
                Self(unsafe { $widened($load_low(at.cast())) })
            }
            #[inline(always)]
            unsafe fn splat(at: *const i8) -> Self {
                // SAFETY: tier and pointer are the caller's promise; the read is an unaligned one.
                Self(unsafe { $splat(at.cast::<i32>().read_unaligned()) })
            }
            #[inline(always)]
            unsafe fn code(self) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $add8(self.0, $splat8(1)) })
            }
            #[inline(always)]
            unsafe fn mask(self, mask: u8) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $and(self.0, $splat8(mask as i8)) })
            }
            #[inline(always)]
            unsafe fn shr2(self) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $shr::<2>(self.0) })
            }
            #[inline(always)]
            unsafe fn shr4(self) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $shr::<4>(self.0) })
            }
            #[inline(always)]
            unsafe fn dot(sums: Self, codes: Self, x: Self) -> Self {
                let ($s, $c, $x) = (sums.0, codes.0, x.0);
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $dot })
            }
            #[inline(always)]
            unsafe fn widen(self) -> Self {
                let $w = self.0;
                // Nothing to do where sums are wide already.
                #[allow(unused_unsafe)]
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $widen })
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn quarter(self) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $sra::<2>(self.0) })
            }
            #[inline(always)]
            unsafe fn store(self, at: *mut i32) {
                // SAFETY: tier and pointer are the caller's promise; the store is an unaligned one.
                unsafe { $store(at.cast(), self.0) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, at: *mut u8) {
                // SAFETY: tier and pointer are the caller's promise; the store is an unaligned one.
                unsafe { $store(at.cast(), self.0) }
            }
            #[inline(always)]
            unsafe fn sums(of: [Self; 4]) -> [i32; 4] {
                // SAFETY: the tier is the caller's promise.
                unsafe {
                    let [a, b, c, d] = of;
                    $sums([a.0, b.0, c.0, d.0])
                }
            }
        }
    };
}

macro_rules! vector256 {
    ($name:ident, $narrow:expr, dot: |$s:ident, $c:ident, $x:ident| $dot:expr, widen: |$w:ident| $widen:expr) => {
        vector!(
            $name, 8, $narrow, zero: _mm256_setzero_si256, load: _mm256_loadu_si256,
            load_half: _mm256_zextsi128_si256 of _mm_loadu_si128, splat: _mm256_set1_epi32, splat8: _mm256_set1_epi8, add8: _mm256_add_epi8,
            and: _mm256_and_si256, shr: _mm256_srli_epi16, add: _mm256_add_epi32, sra: _mm256_srai_epi32,
            store: _mm256_storeu_si256, sums: sums256, dot: |$s, $c, $x| $dot, widen: |$w| $widen
        );
    };
}

macro_rules! vector512 {
    ($name:ident, $narrow:expr, dot: |$s:ident, $c:ident, $x:ident| $dot:expr, widen: |$w:ident| $widen:expr) => {
        vector!(
            $name, 16, $narrow, zero: _mm512_setzero_si512, load: _mm512_loadu_si512,
            load_half: _mm512_zextsi256_si512 of _mm256_loadu_si256, splat: _mm512_set1_epi32, splat8: _mm512_set1_epi8, add8: _mm512_add_epi8,
            and: _mm512_and_si512, shr: _mm512_srli_epi16, add: _mm512_add_epi32, sra: _mm512_srai_epi32,
            store: _mm512_storeu_si512, sums: sums512, dot: |$s, $c, $x| $dot, widen: |$w| $widen
        );
    };
}

vector256!(
    Avx2, true,
    dot: |sums, codes, x| _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x)),
    widen: |sums| _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
);
vector256!(AvxVnni, false, dot: |s, c, x| _mm256_dpbusd_avx_epi32(s, c, x), widen: |s| s);
vector256!(Vnni256, false, dot: |s, c, x| _mm256_dpbusd_epi32(s, c, x), widen: |s| s);
vector512!(
    Avx512, true,
    dot: |sums, codes, x| _mm512_add_epi16(sums, _mm512_maddubs_epi16(codes, x)),
    widen: |sums| _mm512_madd_epi16(sums, _mm512_set1_epi16(1))
);
vector512!(Vnni512, false, dot: |s, c, x| _mm512_dpbusd_epi32(s, c, x), widen: |s| s);

/// Digits by comparisons that are signed: of fractions with the highest bit flipped.
macro_rules! exact256 {
    () => {
        #[inline(always)]
        unsafe fn exact(at: *const u8) -> Self {
            // SAFETY: the tier is the caller's promise, and the bytes belong to the block.
            Self(unsafe { _mm256_xor_si256(Self::load(at).0, _mm256_set1_epi8(i8::MIN)) })
        }
        #[inline(always)]
        unsafe fn digit(&mut self) -> Self {
            // SAFETY: the tier is the caller's promise.
            unsafe {
                let above = |n: u8| _mm256_cmpgt_epi8(self.0, _mm256_set1_epi8((n ^ 0x80) as i8));
                let digit = _mm256_abs_epi8(_mm256_add_epi8(above(85), above(170)));
                self.0 = triple256(self.0);
                Self(digit)
            }
        }
    };
}

/// Digits by comparisons to masks.
macro_rules! exact512 {
    () => {
        #[inline(always)]
        unsafe fn exact(at: *const u8) -> Self {
            // SAFETY: passed on.
            unsafe { Self::fractions(at) }
        }
        #[inline(always)]
        unsafe fn digit(&mut self) -> Self {
            // SAFETY: the tier is the caller's promise.
            unsafe {
                let (one, two) = (_mm512_set1_epi8(1), _mm512_set1_epi8(2));
                let digit = _mm512_maskz_mov_epi8(_mm512_cmpgt_epu8_mask(self.0, _mm512_set1_epi8(85)), one);
                let above = _mm512_cmpgt_epu8_mask(self.0, _mm512_set1_epi8(170u8 as i8));
                self.0 = triple512(self.0);
                Self(_mm512_mask_mov_epi8(digit, above, two))
            }
        }
    };
}

/// Digits are taken out.
impl Digits for Avx2 {
    // Ten dots a block, of which a narrow sum holds 64.
    const FOLD: usize = 6;

    #[inline(always)]
    unsafe fn fractions(at: *const u8) -> Self {
        // SAFETY: passed on.
        unsafe { Self::exact(at) }
    }
    exact256!();
    #[inline(always)]
    unsafe fn step<const N: usize>(sums: &mut [[Self; 2]; N], fractions: &mut [Self; N], x: Self) {
        for ([sum, _], f) in sums.iter_mut().zip(fractions) {
            // SAFETY: the tier is the caller's promise.
            unsafe { *sum = Self::dot(*sum, f.digit(), x) };
        }
    }
    #[inline(always)]
    unsafe fn total([sum, _]: [Self; 2]) -> Self {
        // SAFETY: the tier is the caller's promise.
        unsafe { sum.widen() }
    }
}

/// No digit is ever taken out: with `f(n + 1) = 3 f(n) mod 256`, the digit above the point of `3 f(n)` is
/// `(3 f(n) - f(n + 1)) / 256`, so `3 Σ f(n)·x(n) - Σ f(n + 1)·x(n)`, divided at the end, is exact. That
/// difference is a multiple of 256 in any case, and may have wrapped on the way.
macro_rules! wide_digits {
    ($name:ident, exact: $exact:ident, fractions: $fractions:expr, triple: $triple:ident, add: $add:ident, sub: $sub:ident,
     sra: $sra:ident) => {
        // Every intrinsic here belongs to the type's tier, which the caller vouches for.
        impl Digits for $name {
            // A lane of the difference is 256 times its codes times activations, at most 256 · 10 · 4 · 2 · 128 a
            // block.
            const FOLD: usize = 512;

            #[inline(always)]
            unsafe fn fractions(at: *const u8) -> Self {
                // SAFETY: the tier is the caller's promise, and the bytes that are read belong to the block.
                Self(unsafe { $fractions(at.cast()) })
            }
            $exact!();
            #[inline(always)]
            unsafe fn step<const N: usize>(sums: &mut [[Self; 2]; N], fractions: &mut [Self; N], x: Self) {
                // SAFETY: the tier is the caller's promise.
                unsafe {
                    for ([sum, _], f) in sums.iter_mut().zip(&*fractions) {
                        *sum = Self::dot(*sum, *f, x);
                    }
                    for f in &mut *fractions {
                        f.0 = $triple(f.0);
                    }
                    for ([_, next], f) in sums.iter_mut().zip(fractions) {
                        *next = Self::dot(*next, *f, x);
                    }
                }
            }
            #[inline(always)]
            unsafe fn total([sum, next]: [Self; 2]) -> Self {
                // SAFETY: the tier is the caller's promise.
                Self(unsafe { $sra::<8>($sub($add($add(sum.0, sum.0), sum.0), next.0)) })
            }
        }
    };
}

wide_digits!(
    AvxVnni, exact: exact256, fractions: _mm256_loadu_si256, triple: triple256, add: _mm256_add_epi32,
    sub: _mm256_sub_epi32, sra: _mm256_srai_epi32
);
/// As [`AvxVnni`], for its tests on CPUs that have the instruction in the other encoding alone.
#[cfg(test)]
mod evex {
    use super::*;

    wide_digits!(
        Vnni256, exact: exact256, fractions: _mm256_loadu_si256, triple: triple256, add: _mm256_add_epi32,
        sub: _mm256_sub_epi32, sra: _mm256_srai_epi32
    );
}
wide_digits!(
    Vnni512, exact: exact512, fractions: |at| _mm512_maskz_loadu_epi8((1 << BYTES) - 1, at), triple: triple512,
    add: _mm512_add_epi32, sub: _mm512_sub_epi32, sra: _mm512_srai_epi32
);

/// Threefold bytes, of which the compiler knows nothing: of several in a row it would make products by 9, 27 and
/// 81, which no CPU has for bytes.
macro_rules! triple {
    ($name:ident, $features:literal, $vector:ident, $register:ident, $add:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name(v: $vector) -> $vector {
            let mut triple = $add($add(v, v), v);
            // SAFETY: the assembly is empty.
            unsafe {
                asm!("/* {} */", inout($register) triple, options(pure, nomem, nostack, preserves_flags))
            };
            triple
        }
    };
}

triple!(triple256, "avx2", __m256i, ymm_reg, _mm256_add_epi8);
triple!(triple512, "avx512bw", __m512i, zmm_reg, _mm512_add_epi8);

/// Sums of the eight `i32` lanes of each, wrapping.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn sums256([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    // SAFETY: the caller vouches for AVX2; the store is an unaligned one, into as many bytes.
    unsafe {
        let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
        let mut out = [0; 4];
        _mm_storeu_si128(out.as_mut_ptr().cast(), sums);
        out
    }
}

/// Sums of the sixteen `i32` lanes of each, wrapping.
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn sums512(of: [__m512i; 4]) -> [i32; 4] {
    // SAFETY: the caller vouches for AVX-512, which comes with AVX2.
    unsafe {
        let mut halves = [_mm256_setzero_si256(); 4];
        for (half, v) in halves.iter_mut().zip(of) {
            *half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
        }
        sums256(halves)
    }
}
