//! From floats to trits: the rules by which master weights become ternary, and the proof that
//! weights already are.

use super::FloatData;
use super::safetensors::Dtype;
use half::f16;
use tritmark_kernels::Trits;

/// A rule that makes master weights ternary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// In f32: `s = 1 / max(mean|W|, 1e-5)`, `q = clamp(round_half_even(W·s), -1, 1)`, scale `1/s`.
    /// BitNet b1.58, and what transformers does in "online" mode.
    AbsmeanF32,
    /// The same with every result rounded to bf16, as Falcon-E was packed. About one trit in a
    /// thousand differs from [`AbsmeanF32`](Self::AbsmeanF32).
    AbsmeanBf16,
}

/// Why floats are not ternary, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NotTernary {
    /// Index of the element, row-major.
    pub at: usize,
    /// Its value.
    pub value: f32,
}

/// A float tensor, wherever its elements are.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// Little-endian bytes in a file; F32, F16, BF16 or I8.
    Bytes(Dtype, &'a [u8]),
    /// Decoded already.
    Data(&'a FloatData),
}

impl Floats<'_> {
    /// Calls `f` with all elements as f32, some at a time.
    fn blocks(self, f: impl FnMut(&[f32])) {
        fn each<T: Copy>(items: &[T], one: impl Fn(T) -> f32, mut f: impl FnMut(&[f32])) {
            let mut block = [0f32; 1024];
            for items in items.chunks(block.len()) {
                for (x, item) in block.iter_mut().zip(items) {
                    *x = one(*item);
                }
                f(&block[..items.len()]);
            }
        }
        // Unlike `bf16::to_f32` without a case for NaN, which stays one.
        let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        match self {
            Floats::Bytes(Dtype::F32, bytes) => each(bytes.as_chunks().0, f32::from_le_bytes, f),
            Floats::Bytes(Dtype::F16, bytes) => {
                each(bytes.as_chunks().0, |b| f16::from_le_bytes(b).to_f32(), f)
            }
            Floats::Bytes(Dtype::BF16, bytes) => {
                each(bytes.as_chunks().0, |b| wide(u16::from_le_bytes(b)), f)
            }
            Floats::Bytes(Dtype::I8, bytes) => each(bytes, |b| f32::from(b as i8), f),
            Floats::Bytes(other, _) => unreachable!("{other:?} is no type of weights"),
            Floats::Data(FloatData::F32(v)) => each(v, |x| x, f),
            Floats::Data(FloatData::F16(v)) => each(v, f16::to_f32, f),
            Floats::Data(FloatData::Bf16(v)) => each(v, |x| wide(x.to_bits()), f),
        }
    }

    /// The trits that `trit` makes of the elements.
    fn trits(self, rows: usize, cols: usize, trit: impl Fn(f32) -> i8) -> Trits {
        let mut data = Vec::with_capacity(rows * cols);
        self.blocks(|block| data.extend(block.iter().map(|&w| trit(w))));
        Trits::new(rows, cols, data).expect("one trit for each weight")
    }

    /// The first element of which `bad` is true, which some block was seen to hold.
    fn find(self, bad: impl Fn(f32) -> bool) -> NotTernary {
        let (mut before, mut found) = (0, None);
        self.blocks(|block| {
            if found.is_none() {
                found = block
                    .iter()
                    .position(|&w| bad(w))
                    .map(|i| NotTernary { at: before + i, value: block[i] });
            }
            before += block.len();
        });
        found.expect("a bad weight was seen")
    }
}

/// Makes master weights ternary; returns the trits and their multiplicative scale.
///
/// # Errors
/// With the first weight that is not finite.
///
/// # Panics
/// If there are not `rows * cols` weights.
pub fn master(recipe: Recipe, rows: usize, cols: usize, weights: Floats) -> Result<(Trits, f32), NotTernary> {
    let mean = mean_abs(weights, rows * cols)?;
    // Rounding half to even and clamping to ±1 is a comparison: ±0.5 itself goes to 0.
    let trit = |x: f32| i8::from(x > 0.5) - i8::from(x < -0.5);
    let (trits, s) = match recipe {
        Recipe::AbsmeanF32 => {
            let s = 1.0 / mean.max(1e-5);
            (weights.trits(rows, cols, |w| trit(w * s)), s)
        }
        Recipe::AbsmeanBf16 => {
            let s = round_to_bf16(1.0 / round_to_bf16(mean).max(round_to_bf16(1e-5)));
            (weights.trits(rows, cols, |w| trit(round_to_bf16(w * s))), s)
        }
    };
    Ok((trits, 1.0 / s))
}

/// The nearest bf16, ties to even, of a value that is not NaN.
fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Mean magnitude, summed in f64 and rounded once. torch sums in f32, in pairs; its result differs
/// by an ulp at most, which no trit of any known checkpoint notices.
fn mean_abs(weights: Floats, len: usize) -> Result<f32, NotTernary> {
    // Independent sums, so that one addition need not wait for the one before.
    let mut sums = [0f64; 16];
    weights.blocks(|block| {
        for part in block.chunks(sums.len()) {
            for (sum, w) in sums.iter_mut().zip(part) {
                *sum += f64::from(w.abs());
            }
        }
    });
    let sum: f64 = sums.iter().sum();
    if !sum.is_finite() {
        return Err(weights.find(|w| !w.is_finite()));
    }
    Ok(if len == 0 { 0.0 } else { (sum / len as f64) as f32 })
}

/// Reads weights of which all magnitudes are equal or zero: trits times a scale. The scale must be
/// `expected`, where given. All zero gives scale 1.
///
/// # Errors
/// With the first weight that has another magnitude.
///
/// # Panics
/// If there are not `rows * cols` weights.
pub fn dequantised(
    rows: usize,
    cols: usize,
    weights: Floats,
    expected: Option<f32>,
) -> Result<(Trits, f32), NotTernary> {
    let (mut scale, mut any_bad) = (expected, false);
    weights.blocks(|block| {
        if scale.is_none() {
            scale = block.iter().map(|w| w.abs()).find(|w| *w != 0.0);
        }
        // The magnitude of NaN equals none.
        let scale = scale.unwrap_or(0.0);
        any_bad |=
            !scale.is_finite() || block.iter().fold(false, |any, &w| any | (w != 0.0) & (w.abs() != scale));
    });
    let scale = scale.unwrap_or(1.0);
    if any_bad {
        return Err(weights.find(|w| w != 0.0 && w.abs() != scale || !w.is_finite()));
    }
    Ok((weights.trits(rows, cols, |w| i8::from(w > 0.0) - i8::from(w < 0.0)), scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(recipe: Recipe, rows: usize, cols: usize, w: &[f32]) -> Result<(Trits, f32), NotTernary> {
        master(recipe, rows, cols, Floats::Data(&FloatData::F32(w.into())))
    }

    fn equal(cols: usize, w: &[f32], scale: Option<f32>) -> Result<(Trits, f32), NotTernary> {
        dequantised(1, cols, Floats::Data(&FloatData::F32(w.into())), scale)
    }

    #[test]
    fn absmean_rounds_half_to_even() {
        // mean 1, so s = 1: 0.5 is a tie and goes to 0, as does -0.5.
        let w = [0.5, -0.5, 0.50001, -0.50001, 2.0, -1.99998];
        let (trits, scale) = run(Recipe::AbsmeanF32, 2, 3, &w).unwrap();
        assert_eq!(trits.as_slice(), [0, 0, 1, -1, 1, -1]);
        assert_eq!(scale, 1.0);
    }

    #[test]
    fn absmean_in_bf16_rounds_every_step() {
        // mean 0.75. In f32 0.3752 / 0.75 is above 0.5; in bf16 the product rounds to 0.5, a tie.
        let w = [0.3752, 1.1248, 0.75, -0.75];
        let (exact, _) = run(Recipe::AbsmeanF32, 1, 4, &w).unwrap();
        assert_eq!(exact.as_slice(), [1, 1, 1, -1]);
        let (rounded, scale) = run(Recipe::AbsmeanBf16, 1, 4, &w).unwrap();
        assert_eq!(rounded.as_slice(), [0, 1, 1, -1]);
        assert_eq!(scale, 1.0 / 1.3359375);
    }

    #[test]
    fn every_stored_type_gives_the_same_trits() {
        let w: Vec<f32> = (0..3000).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
        let expected = run(Recipe::AbsmeanF32, 30, 100, &w).unwrap();
        let f16s: Vec<u8> = w.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect();
        let bf16s: Vec<u8> = w.iter().flat_map(|&w| half::bf16::from_f32(w).to_le_bytes()).collect();
        for (dtype, bytes) in [(Dtype::F16, f16s), (Dtype::BF16, bf16s)] {
            let found = master(Recipe::AbsmeanF32, 30, 100, Floats::Bytes(dtype, &bytes)).unwrap();
            assert_eq!(found, expected, "{dtype:?}");
        }
    }

    #[test]
    fn rounding_is_that_of_bf16() {
        for bits in (0..0x7f80_0000u32).step_by(30_011).flat_map(|b| [b, b | 0x8000_0000]) {
            let x = f32::from_bits(bits);
            assert_eq!(round_to_bf16(x), half::bf16::from_f32(x).to_f32(), "{x}");
        }
    }

    #[test]
    fn zero_weights_get_the_smallest_scale() {
        let (trits, scale) = run(Recipe::AbsmeanF32, 1, 4, &[0f32; 4]).unwrap();
        assert_eq!(trits.as_slice(), [0; 4]);
        assert_eq!(scale, 1.0 / (1.0 / 1e-5f32));
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named() {
        let w = [1.0, f32::NAN, 1.0, f32::INFINITY];
        let error = run(Recipe::AbsmeanF32, 2, 2, &w).unwrap_err();
        assert_eq!(error.at, 1);
    }

    #[test]
    fn dequantised_weights_are_proven() {
        let (trits, scale) = equal(4, &[0.25, 0.0, -0.25, 0.25], None).unwrap();
        assert_eq!((trits.as_slice(), scale), ([1, 0, -1, 1].as_slice(), 0.25));
        assert_eq!(equal(3, &[0.25, 0.0, -0.5], None).unwrap_err().at, 2);
        assert_eq!(equal(2, &[f32::INFINITY, 0.0], None).unwrap_err().at, 0);
        assert_eq!(equal(2, &[0.0, 0.25], Some(1.0)).unwrap_err().at, 1);
    }
}
