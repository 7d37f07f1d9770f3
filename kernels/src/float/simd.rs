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
    /// Sums of sixteen lanes, i32.
    type I: Copy;
    /// Four codes, 0 to 63, for each of sixteen lanes.
    type Codes: Copy;

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
    /// Sums that start at `x`.
    fn splat_i32(self, x: i32) -> Self::I;
    /// Each sum as the nearest f32.
    fn to_f32(self, v: Self::I) -> Self::V;
    /// Four times 64 codes of six bits: three in the low bits of the thirds of `x`, and the fourth in
    /// their upper two bits, its lowest bits first.
    fn codes(self, x: &[u8; 12 * LANES]) -> [Self::Codes; 4];
    /// Adds to each lane the products of its 2 · 4 codes and as many 16-bit numbers, given as
    /// 256 · high + low: four highs, four lows, and the same for the second codes.
    fn dot(self, sum: Self::I, codes: [Self::Codes; 2], x: &[i8; LANES]) -> Self::I;
}

/// Plain Rust, for any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];
    type I = [i32; LANES];
    type Codes = [u8; 4 * LANES];

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

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }

    #[inline(always)]
    fn to_f32(self, v: Self::I) -> Self::V {
        v.map(|v| v as f32)
    }

    #[inline(always)]
    fn codes(self, x: &[u8; 12 * LANES]) -> [Self::Codes; 4] {
        let [a, b, c] = [0, 1, 2].map(|i| &x[4 * LANES * i..][..4 * LANES]);
        let mut codes = [[0; 4 * LANES]; 4];
        for i in 0..4 * LANES {
            (codes[0][i], codes[1][i], codes[2][i]) = (a[i] & 63, b[i] & 63, c[i] & 63);
            codes[3][i] = a[i] >> 6 | b[i] >> 6 << 2 | c[i] >> 6 << 4;
        }
        codes
    }

    #[inline(always)]
    fn dot(self, mut sum: Self::I, codes: [Self::Codes; 2], x: &[i8; LANES]) -> Self::I {
        for (codes, x) in codes.iter().zip(x.chunks_exact(8)) {
            for (sum, codes) in sum.iter_mut().zip(codes.chunks_exact(4)) {
                for c in 0..4 {
                    *sum += i32::from(codes[c]) * (256 * i32::from(x[c]) + i32::from(x[4 + c]));
                }
            }
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{LANES, Simd, bf16, f16};
    use std::arch::x86_64::*;

    /// AVX-512 F, BW, DQ, VL, and with `VNNI` that.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512<const VNNI: bool>(());

    /// AVX2, FMA, F16C.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl<const VNNI: bool> Avx512<VNNI> {
        /// Where the CPU and the operating system have it.
        pub(in super::super) fn new() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && (!VNNI || is_x86_feature_detected!("avx512vnni"));
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

    impl<const VNNI: bool> Simd for Avx512<VNNI> {
        type V = __m512;
        /// Of upper and of lower bytes, so that each is a shorter chain of instructions.
        type I = [__m512i; 2];
        type Codes = __m512i;

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

        #[inline(always)]
        fn splat_i32(self, x: i32) -> [__m512i; 2] {
            // SAFETY: the token proves AVX-512 F.
            unsafe { [_mm512_setzero_si512(), _mm512_set1_epi32(x)] }
        }

        #[inline(always)]
        fn to_f32(self, [high, low]: [__m512i; 2]) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)) }
        }

        #[inline(always)]
        fn codes(self, x: &[u8; 12 * LANES]) -> [__m512i; 4] {
            // SAFETY: the token proves AVX-512 F and BW; each load is inside the array of 192. Bits that
            // 16-bit shifts bring in from the neighbour are masked.
            unsafe {
                let [a, b, c] = [0, 64, 128].map(|i| _mm512_loadu_si512(x.as_ptr().add(i).cast()));
                let low = |v| _mm512_and_si512(v, _mm512_set1_epi8(63));
                let fourth = _mm512_and_si512(_mm512_srli_epi16::<6>(a), _mm512_set1_epi8(0x03));
                // First or (second and third).
                let fourth = _mm512_ternarylogic_epi32::<0xf8>(
                    fourth,
                    _mm512_srli_epi16::<4>(b),
                    _mm512_set1_epi8(0x0c),
                );
                let fourth = _mm512_ternarylogic_epi32::<0xf8>(
                    fourth,
                    _mm512_srli_epi16::<2>(c),
                    _mm512_set1_epi8(0x30),
                );
                [low(a), low(b), low(c), fourth]
            }
        }

        #[inline(always)]
        fn dot(self, sums: [__m512i; 2], codes: [__m512i; 2], x: &[i8; LANES]) -> [__m512i; 2] {
            let mut sums = sums;
            for (part, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the token proves AVX-512 F and BW, and with `VNNI` that; each load is inside the array of
                // 16. The 16-bit sums are at most 4 · 63 · 128 < 2^15.
                unsafe {
                    let x = x.as_ptr().add(4 * part).cast::<i32>();
                    let x0 = _mm512_set1_epi32(x.read_unaligned());
                    let x1 = _mm512_set1_epi32(x.add(2).read_unaligned());
                    *sum = if VNNI {
                        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(*sum, codes[0], x0), codes[1], x1)
                    } else {
                        let first = _mm512_maddubs_epi16(codes[0], x0);
                        let pairs = _mm512_add_epi16(first, _mm512_maddubs_epi16(codes[1], x1));
                        _mm512_add_epi32(*sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
                    };
                }
            }
            sums
        }
    }

    impl Simd for Avx2 {
        type V = [__m256; 2];
        type I = [__m256i; 2];
        type Codes = [__m256i; 2];

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

        #[inline(always)]
        fn splat_i32(self, x: i32) -> Self::I {
            // SAFETY: the token proves AVX.
            [unsafe { _mm256_set1_epi32(x) }; 2]
        }

        #[inline(always)]
        fn to_f32(self, v: Self::I) -> Self::V {
            // SAFETY: the token proves AVX.
            unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
        }

        // Indices name registers.
        #[allow(clippy::needless_range_loop)]
        #[inline(always)]
        fn codes(self, x: &[u8; 12 * LANES]) -> [Self::Codes; 4] {
            // No closures here and in `dot`: those of functions that are inlined do not have the features of the
            // function they end up in, and are called with the registers in memory.
            // SAFETY: the token proves AVX2; each load is inside the array of 192. Bits that 16-bit shifts bring in
            // from the neighbour are masked.
            unsafe {
                let mut codes = [[_mm256_setzero_si256(); 2]; 4];
                for half in 0..2 {
                    let mut fourth = _mm256_setzero_si256();
                    for (i, mask) in [0x03, 0x0c, 0x30].into_iter().enumerate() {
                        let run = _mm256_loadu_si256(x.as_ptr().add(64 * i + 32 * half).cast());
                        codes[i][half] = _mm256_and_si256(run, _mm256_set1_epi8(63));
                        let up = _mm256_srl_epi16(run, _mm_cvtsi32_si128(6 - 2 * i as i32));
                        fourth = _mm256_or_si256(fourth, _mm256_and_si256(up, _mm256_set1_epi8(mask)));
                    }
                    codes[3][half] = fourth;
                }
                codes
            }
        }

        #[inline(always)]
        fn dot(self, sum: Self::I, codes: [Self::Codes; 2], x: &[i8; LANES]) -> Self::I {
            let mut sums = sum;
            for (half, sum) in sums.iter_mut().enumerate() {
                // The upper bytes' products count 256-fold.
                for (part, factor) in [(0, 256), (4, 1)] {
                    // SAFETY: the token proves AVX2; each load is inside the array of 16. For the bounds see
                    // AVX-512.
                    unsafe {
                        let x = x.as_ptr().add(part).cast::<i32>();
                        let x0 = _mm256_set1_epi32(x.read_unaligned());
                        let x1 = _mm256_set1_epi32(x.add(2).read_unaligned());
                        let first = _mm256_maddubs_epi16(codes[0][half], x0);
                        let pairs = _mm256_add_epi16(first, _mm256_maddubs_epi16(codes[1][half], x1));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(factor)));
                    }
                }
            }
            sums
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Neon;

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{LANES, Simd, bf16, f16};
    use crate::tier::aarch64::sdot;
    use std::arch::aarch64::*;

    /// Advanced SIMD, which every supported aarch64 target requires, and with `DOTPROD` that.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon<const DOTPROD: bool>(());

    impl<const DOTPROD: bool> Neon<DOTPROD> {
        /// Where the CPU and the operating system have it.
        pub(in super::super) fn new() -> Option<Self> {
            let has = !DOTPROD || std::arch::is_aarch64_feature_detected!("dotprod");
            has.then_some(Self(()))
        }
    }

    impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
        type V = [float32x4_t; 4];
        /// Of upper and of lower bytes.
        type I = [[int32x4_t; 4]; 2];
        type Codes = [uint8x16_t; 4];

        const TILE: usize = 2;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            // SAFETY: the target requires NEON.
            [unsafe { vdupq_n_f32(x) }; 4]
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::V {
            let mut v = self.splat(0.0);
            for (i, v) in v.iter_mut().enumerate() {
                // SAFETY: the target requires NEON; each load is inside the array of 16.
                *v = unsafe { vld1q_f32(x.as_ptr().add(4 * i)) };
            }
            v
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
            let mut sum = c;
            for (i, sum) in sum.iter_mut().enumerate() {
                // SAFETY: the target requires NEON.
                *sum = unsafe { vfmaq_f32(*sum, a[i], b[i]) };
            }
            sum
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

        #[inline(always)]
        fn splat_i32(self, x: i32) -> Self::I {
            // SAFETY: the target requires NEON.
            unsafe { [[vdupq_n_s32(0); 4], [vdupq_n_s32(x); 4]] }
        }

        #[inline(always)]
        fn to_f32(self, [high, low]: Self::I) -> Self::V {
            let mut v = self.splat(0.0);
            for (i, v) in v.iter_mut().enumerate() {
                // SAFETY: the target requires NEON.
                *v = unsafe { vcvtq_f32_s32(vaddq_s32(vshlq_n_s32::<8>(high[i]), low[i])) };
            }
            v
        }

        // Indices name registers.
        #[allow(clippy::needless_range_loop)]
        #[inline(always)]
        fn codes(self, x: &[u8; 12 * LANES]) -> [Self::Codes; 4] {
            // SAFETY: the target requires NEON.
            let mut codes = [[unsafe { vdupq_n_u8(0) }; 4]; 4];
            for i in 0..4 {
                // SAFETY: the target requires NEON; each load is inside the array of 192.
                unsafe {
                    let mut runs = [vdupq_n_u8(0); 3];
                    for (g, run) in runs.iter_mut().enumerate() {
                        *run = vld1q_u8(x.as_ptr().add(64 * g + 16 * i));
                        codes[g][i] = vandq_u8(*run, vdupq_n_u8(63));
                    }
                    let fourth = vsliq_n_u8::<2>(vshrq_n_u8::<6>(runs[0]), vshrq_n_u8::<6>(runs[1]));
                    codes[3][i] = vsliq_n_u8::<4>(fourth, vshrq_n_u8::<6>(runs[2]));
                }
            }
            codes
        }

        #[inline(always)]
        fn dot(self, sums: Self::I, codes: [Self::Codes; 2], x: &[i8; LANES]) -> Self::I {
            let mut sums = sums;
            for (part, sums) in sums.iter_mut().enumerate() {
                for (i, sum) in sums.iter_mut().enumerate() {
                    for (codes, x) in codes.iter().zip(x.chunks_exact(8)) {
                        // SAFETY: the target requires NEON, and with `DOTPROD` the token proves that; each load is
                        // inside the 8 bytes. For the bounds see AVX-512 above.
                        unsafe {
                            let x = x.as_ptr().add(4 * part).cast::<i32>().read_unaligned();
                            let (x, codes) =
                                (vreinterpretq_s8_s32(vdupq_n_s32(x)), vreinterpretq_s8_u8(codes[i]));
                            *sum = if DOTPROD {
                                sdot(*sum, codes, x)
                            } else {
                                let low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
                                vpadalq_s16(*sum, vpaddq_s16(low, vmull_high_s8(codes, x)))
                            };
                        }
                    }
                }
            }
            sums
        }
    }
}
