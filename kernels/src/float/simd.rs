//! Sixteen f32 lanes on every CPU.
//!
//! [`Simd`] is what the float loops are written over. All its operations are lane-wise and correctly
//! rounded (IEEE 754), so a loop gives the same bits whichever implementation it runs on; only the
//! number of registers that sixteen lanes take differs. An implementing value is a token: it exists
//! only on a CPU that has the instructions.

use half::{bf16, f16};

/// Number of lanes.
pub(super) const LANES: usize = 16;

/// Sixteen lanes of f32 in the registers of some instruction set.
pub(super) trait Simd: Copy {
    /// The sixteen lanes.
    type V: Copy;

    /// How many tokens (times two vectors) a tile of the matrix loops keeps in registers.
    const TILE: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// Lane `i` is `x[i]`.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// The lanes as an array.
    fn to_array(self, v: Self::V) -> [f32; LANES];
    /// `a * b + c` with one rounding.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Exact values of the elements at even and at odd indices.
    fn widen_bf16(self, x: &[bf16; 2 * LANES]) -> (Self::V, Self::V);
    /// Exact values.
    fn widen_f16(self, x: &[f16; LANES]) -> Self::V;
    /// Exact values.
    fn widen_i8(self, x: &[i8; LANES]) -> Self::V;
}

/// Plain Rust, for any CPU.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];

    const TILE: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }

    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; LANES] {
        v
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let mut v = c;
        for i in 0..LANES {
            v[i] = a[i].mul_add(b[i], c[i]);
        }
        v
    }

    #[inline(always)]
    fn widen_bf16(self, x: &[bf16; 2 * LANES]) -> (Self::V, Self::V) {
        let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            even[i] = x[2 * i].to_f32();
            odd[i] = x[2 * i + 1].to_f32();
        }
        (even, odd)
    }

    #[inline(always)]
    fn widen_f16(self, x: &[f16; LANES]) -> Self::V {
        x.map(f16::to_f32)
    }

    #[inline(always)]
    fn widen_i8(self, x: &[i8; LANES]) -> Self::V {
        x.map(f32::from)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{LANES, Simd, bf16, f16};
    use std::arch::x86_64::*;

    /// AVX-512 F, BW, DQ, VL.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(());

    /// AVX2, FMA, F16C.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(());

    impl Avx512 {
        /// Where the CPU and the operating system have it.
        pub(in super::super) fn new() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            (has && Avx2::new().is_some()).then_some(Self(()))
        }
    }

    impl Avx2 {
        /// Where the CPU and the operating system have it.
        pub(in super::super) fn new() -> Option<Self> {
            let has = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            has.then_some(Self(()))
        }
    }

    impl Simd for Avx512 {
        type V = __m512;

        const TILE: usize = 12;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> __m512 {
            // SAFETY: the token proves AVX-512 F; the array is 64 readable bytes.
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }

        #[inline(always)]
        fn to_array(self, v: __m512) -> [f32; LANES] {
            let mut x = [0.0; LANES];
            // SAFETY: the token proves AVX-512 F; the array is 64 writable bytes.
            unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) };
            x
        }

        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn widen_bf16(self, x: &[bf16; 2 * LANES]) -> (__m512, __m512) {
            // SAFETY: the token proves AVX-512 F; the array is 64 readable bytes. A bf16 is the upper
            // half of an f32, and the even elements are the lower halves of 32-bit lanes.
            unsafe {
                let v = _mm512_loadu_si512(x.as_ptr().cast());
                let odd = _mm512_and_si512(v, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                (_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)), _mm512_castsi512_ps(odd))
            }
        }

        #[inline(always)]
        fn widen_f16(self, x: &[f16; LANES]) -> __m512 {
            // SAFETY: the token proves AVX-512 F; the array is 32 readable bytes.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
        }

        #[inline(always)]
        fn widen_i8(self, x: &[i8; LANES]) -> __m512 {
            // SAFETY: the token proves AVX-512 F; the array is 16 readable bytes.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
        }
    }

    impl Simd for Avx2 {
        type V = [__m256; 2];

        const TILE: usize = 2;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            // SAFETY: the token proves AVX.
            let v = unsafe { _mm256_set1_ps(x) };
            [v, v]
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::V {
            // SAFETY: the token proves AVX; the array is 64 readable bytes.
            unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
        }

        #[inline(always)]
        fn to_array(self, v: Self::V) -> [f32; LANES] {
            let mut x = [0.0; LANES];
            // SAFETY: the token proves AVX; the array is 64 writable bytes.
            unsafe {
                _mm256_storeu_ps(x.as_mut_ptr(), v[0]);
                _mm256_storeu_ps(x.as_mut_ptr().add(8), v[1]);
            }
            x
        }

        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: the token proves FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn widen_bf16(self, x: &[bf16; 2 * LANES]) -> (Self::V, Self::V) {
            // SAFETY: the token proves AVX2; the array is 64 readable bytes. See AVX-512 for the rest.
            unsafe {
                let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                let a = _mm256_loadu_si256(x.as_ptr().cast());
                let b = _mm256_loadu_si256(x.as_ptr().add(LANES).cast());
                let even = [_mm256_slli_epi32(a, 16), _mm256_slli_epi32(b, 16)];
                let odd = [_mm256_and_si256(a, upper), _mm256_and_si256(b, upper)];
                (
                    [_mm256_castsi256_ps(even[0]), _mm256_castsi256_ps(even[1])],
                    [_mm256_castsi256_ps(odd[0]), _mm256_castsi256_ps(odd[1])],
                )
            }
        }

        #[inline(always)]
        fn widen_f16(self, x: &[f16; LANES]) -> Self::V {
            // SAFETY: the token proves F16C; the array is 32 readable bytes.
            unsafe {
                let (a, b) = (_mm_loadu_si128(x.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().add(8).cast()));
                [_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)]
            }
        }

        #[inline(always)]
        fn widen_i8(self, x: &[i8; LANES]) -> Self::V {
            // SAFETY: the token proves AVX2; the array is 16 readable bytes.
            unsafe {
                let v = _mm_loadu_si128(x.as_ptr().cast());
                let (a, b) = (_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_bsrli_si128::<8>(v)));
                [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)]
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::Neon;

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{LANES, Simd, bf16, f16};
    use std::arch::aarch64::*;

    /// Advanced SIMD, which every supported aarch64 target requires.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon;

    impl Simd for Neon {
        type V = [float32x4_t; 4];

        const TILE: usize = 2;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            // SAFETY: the target requires NEON.
            [unsafe { vdupq_n_f32(x) }; 4]
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::V {
            // SAFETY: the target requires NEON; each load is inside the array of 16.
            std::array::from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
        }

        #[inline(always)]
        fn to_array(self, v: Self::V) -> [f32; LANES] {
            let mut x = [0.0; LANES];
            for (i, v) in v.into_iter().enumerate() {
                // SAFETY: the target requires NEON; each store is inside the array of 16.
                unsafe { vst1q_f32(x.as_mut_ptr().add(4 * i), v) };
            }
            x
        }

        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: the target requires NEON.
            std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
        }

        #[inline(always)]
        fn widen_bf16(self, x: &[bf16; 2 * LANES]) -> (Self::V, Self::V) {
            let mut even = [self.splat(0.0)[0]; 4];
            let mut odd = even;
            for i in 0..4 {
                // SAFETY: the target requires NEON; each load of 8 is inside the array of 32. A bf16 is
                // the upper half of an f32, and even elements are the lower halves of 32-bit lanes.
                unsafe {
                    let v = vreinterpretq_u32_u16(vld1q_u16(x.as_ptr().add(8 * i).cast()));
                    even[i] = vreinterpretq_f32_u32(vshlq_n_u32::<16>(v));
                    odd[i] = vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff_0000)));
                }
            }
            (even, odd)
        }

        #[inline(always)]
        fn widen_f16(self, x: &[f16; LANES]) -> Self::V {
            self.load(&x.map(f16::to_f32))
        }

        #[inline(always)]
        fn widen_i8(self, x: &[i8; LANES]) -> Self::V {
            // SAFETY: the target requires NEON; the array is 16 readable bytes.
            unsafe {
                let v = vld1q_s8(x.as_ptr());
                let (a, b) = (vmovl_s8(vget_low_s8(v)), vmovl_s8(vget_high_s8(v)));
                [
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))),
                    vcvtq_f32_s32(vmovl_s16(vget_high_s16(a))),
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(b))),
                    vcvtq_f32_s32(vmovl_s16(vget_high_s16(b))),
                ]
            }
        }
    }
}
