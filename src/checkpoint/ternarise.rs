//! From floats to trits: the rules by which master weights become ternary, and the proof that
//! weights already are.

use half::bf16;
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

/// Elements of a float tensor, decoded one by one from its bytes; nothing is copied.
pub trait Floats: Clone + Iterator<Item = f32> {}
impl<T: Clone + Iterator<Item = f32>> Floats for T {}

/// Makes master weights ternary; returns the trits and their multiplicative scale.
///
/// # Errors
/// With the first weight that is not finite.
///
/// # Panics
/// If there are not `rows * cols` weights.
pub fn master(
    recipe: Recipe,
    rows: usize,
    cols: usize,
    weights: impl Floats,
) -> Result<(Trits, f32), NotTernary> {
    let mean = mean_abs(weights.clone(), rows * cols);
    if !mean.is_finite() {
        let bad = weights.enumerate().find(|(_, w)| !w.is_finite());
        let (at, value) = bad.unwrap_or((0, f32::INFINITY));
        return Err(NotTernary { at, value });
    }
    // Rounding half to even and clamping to ±1 is a comparison: ±0.5 itself goes to 0.
    let trit = |x: f32| i8::from(x > 0.5) - i8::from(x < -0.5);
    let (data, s): (Vec<i8>, f32) = match recipe {
        Recipe::AbsmeanF32 => {
            let s = 1.0 / mean.max(1e-5);
            (weights.map(|w| trit(w * s)).collect(), s)
        }
        Recipe::AbsmeanBf16 => {
            let round = |x: f32| bf16::from_f32(x).to_f32();
            let s = round(1.0 / round(mean).max(round(1e-5)));
            (weights.map(|w| trit(round(w * s))).collect(), s)
        }
    };
    Ok((Trits::new(rows, cols, data).expect("one trit for each weight"), 1.0 / s))
}

/// Mean magnitude, summed in f64 and rounded once. torch sums in f32, in pairs; its result differs
/// by an ulp at most, which no trit of any known checkpoint notices.
fn mean_abs(weights: impl Floats, len: usize) -> f32 {
    // Independent sums, so that one addition need not wait for the one before.
    let mut sums = [0f64; 16];
    for (i, w) in weights.enumerate() {
        sums[i % 16] += f64::from(w.abs());
    }
    if len == 0 { 0.0 } else { (sums.iter().sum::<f64>() / len as f64) as f32 }
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
    weights: impl Floats,
    expected: Option<f32>,
) -> Result<(Trits, f32), NotTernary> {
    let first = || weights.clone().map(f32::abs).find(|w| *w != 0.0);
    let scale = expected.or_else(first).unwrap_or(1.0);
    let bad = |w: f32| w != 0.0 && w.abs() != scale || !w.is_finite();
    if let Some((at, value)) = weights.clone().enumerate().find(|(_, w)| bad(*w)) {
        return Err(NotTernary { at, value });
    }
    let data = weights.map(|w| i8::from(w > 0.0) - i8::from(w < 0.0)).collect();
    Ok((Trits::new(rows, cols, data).expect("one trit for each weight"), scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absmean_rounds_half_to_even() {
        // mean 1, so s = 1: 0.5 is a tie and goes to 0, as does -0.5.
        let w = [0.5, -0.5, 0.50001, -0.50001, 2.0, -1.99998];
        let (trits, scale) = master(Recipe::AbsmeanF32, 2, 3, w.into_iter()).unwrap();
        assert_eq!(trits.as_slice(), [0, 0, 1, -1, 1, -1]);
        assert_eq!(scale, 1.0);
    }

    #[test]
    fn absmean_in_bf16_rounds_every_step() {
        // mean 0.75. In f32 0.3752 / 0.75 is above 0.5; in bf16 the product rounds to 0.5, a tie.
        let w = [0.3752, 1.1248, 0.75, -0.75];
        let (exact, _) = master(Recipe::AbsmeanF32, 1, 4, w.into_iter()).unwrap();
        assert_eq!(exact.as_slice(), [1, 1, 1, -1]);
        let (rounded, scale) = master(Recipe::AbsmeanBf16, 1, 4, w.into_iter()).unwrap();
        assert_eq!(rounded.as_slice(), [0, 1, 1, -1]);
        assert_eq!(scale, 1.0 / 1.3359375);
    }

    #[test]
    fn zero_weights_get_the_smallest_scale() {
        let (trits, scale) = master(Recipe::AbsmeanF32, 1, 4, [0f32; 4].into_iter()).unwrap();
        assert_eq!(trits.as_slice(), [0; 4]);
        assert_eq!(scale, 1.0 / (1.0 / 1e-5f32));
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named() {
        let w = [1.0, f32::NAN, 1.0, f32::INFINITY];
        let error = master(Recipe::AbsmeanF32, 2, 2, w.into_iter()).unwrap_err();
        assert_eq!(error.at, 1);
    }

    #[test]
    fn dequantised_weights_are_proven() {
        let (trits, scale) = dequantised(1, 4, [0.25, 0.0, -0.25, 0.25].into_iter(), None).unwrap();
        assert_eq!((trits.as_slice(), scale), ([1, 0, -1, 1].as_slice(), 0.25));
        assert_eq!(dequantised(1, 3, [0.25, 0.0, -0.5].into_iter(), None).unwrap_err().at, 2);
        assert_eq!(dequantised(1, 2, [f32::INFINITY, 0.0].into_iter(), None).unwrap_err().at, 0);
        assert_eq!(dequantised(1, 2, [0.0, 0.25].into_iter(), Some(1.0)).unwrap_err().at, 1);
    }
}
