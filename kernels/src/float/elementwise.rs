//! What runs over one token's vector: norms, rotary embedding, gates, quantisation.
//!
//! These compute in f64. They are a hundredth of the work, and what they give is rounded to int8 next:
//! a value near the border between two integers falls to one side by the last bits of what went
//! before, and each such flip shows in the logits. Only what large loops produce or read is f32.

use super::on_every_level;
use super::simd::{LANES, Simd};
use crate::acts::Quant;

/// `e^x` within 2 ulp; 0 below -104, infinite above 89.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 · 2^23: adding it rounds to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has few enough bits for n · LN2_HIGH to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // Taylor's terms up to r^7: |r| ≤ ln 2 / 2 leaves less than 1e-8 relative.
    let mut p = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, term);
    }
    // 2^n in two factors, so that neither leaves the range of exponents.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// `e^x` in f64, within 1e-14 of itself; 0 below -745, infinite above 710.
#[inline(always)]
fn exp64(x: f64) -> f64 {
    // As in `exp`, with 1.5 · 2^52.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -746.0 { -746.0 } else { x };
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.0 / 479_001_600.0;
    let terms =
        [39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0];
    for factorial in terms {
        p = r.mul_add(p, 1.0 / factorial);
    }
    let n = (shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
    let half = n >> 1;
    let power = |n: i64| f64::from_bits((n.wrapping_add(1023) as u64) << 52);
    p * power(half) * power(n.wrapping_sub(half))
}

/// The sum of lanes in a fixed order: halves onto each other.
#[inline(always)]
pub(super) fn tree(mut v: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            v[i] += v[i + half];
        }
        half /= 2;
    }
    v[0]
}

/// `1/√(mean(x²) + eps)`: lane i sums the squares at indices ≡ i mod 16 in order, then the lanes are
/// added as a tree.
#[inline(always)]
fn inverse_rms(x: &[f64], eps: f32) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = chunk[i].mul_add(chunk[i], lanes[i]);
        }
    }
    for (i, v) in rest.iter().enumerate() {
        lanes[i] = v.mul_add(*v, lanes[i]);
    }
    1.0 / (tree(lanes) / x.len() as f64 + f64::from(eps)).sqrt()
}

#[inline(always)]
fn rmsnorm_body<S: Simd>(_: S, x: &mut [f64], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len());
    let inverse = inverse_rms(x, eps);
    for i in 0..x.len() {
        x[i] *= inverse * f64::from(weight[i]);
    }
}

on_every_level! {
    /// `x = weight · x / √(mean(x²) + eps)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rmsnorm(x: &mut [f64], weight: &[f32], eps: f32) = rmsnorm_body
}

#[inline(always)]
fn quantize_body<S: Simd>(_: S, x: &[f64], q: &mut [i8]) -> Quant {
    // Magnitudes order as their bits do, and NaN above infinity.
    let absmax = f64::from_bits(x.iter().map(|v| v.abs().to_bits()).fold(0, u64::max));
    // Not f64::max, which would drop NaN.
    let scale = 127.0 / if absmax < 1e-5 { 1e-5 } else { absmax };
    let (q, pad) = q.split_at_mut(x.len());
    for (q, &v) in q.iter_mut().zip(x) {
        // Adding 1.5 · 2^52 leaves the integer, rounded half to even, in the low bits.
        *q = ((v * scale).clamp(-128.0, 127.0) + 6_755_399_441_055_744.0).to_bits() as i8;
    }
    pad.fill(0);
    Quant { scale: scale as f32, sum: q.iter().map(|&v| i32::from(v)).sum() }
}

on_every_level! {
    /// Quantises one token to the first `x.len()` of `q` and clears the rest:
    /// `q = clamp(round_half_even(x * scale), -128, 127)` with `scale = 127 / max(absmax, 1e-5)`.
    ///
    /// A NaN in `x` makes the scale NaN and an infinity makes it 0, so neither goes unseen in what is
    /// computed from it.
    ///
    /// # Panics
    /// If `q` is shorter than `x`.
    pub fn quantize(x: &[f64], q: &mut [i8]) -> Quant = quantize_body
}

#[inline(always)]
fn widen_body<S: Simd>(_: S, x: &[f32], out: &mut [f64]) {
    assert_eq!(x.len(), out.len());
    for i in 0..x.len() {
        out[i] = x[i].into();
    }
}

on_every_level! {
    /// `out = x`, exact.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn widen(x: &[f32], out: &mut [f64]) = widen_body
}

#[inline(always)]
fn narrow_body<S: Simd>(_: S, x: &[f64], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    for i in 0..x.len() {
        out[i] = x[i] as f32;
    }
}

on_every_level! {
    /// `out = x`, rounded.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn narrow(x: &[f64], out: &mut [f32]) = narrow_body
}

#[inline(always)]
fn add_body<S: Simd>(_: S, x: &mut [f64], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for i in 0..x.len() {
        x[i] += f64::from(y[i]);
    }
}

on_every_level! {
    /// `x += y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(x: &mut [f64], y: &[f32]) = add_body
}

/// Defines `out = activation(gate) · up`.
macro_rules! gate {
    ($(#[$doc:meta])* $name:ident, $body:ident, |$x:ident| $activation:expr) => {
        #[inline(always)]
        fn $body<S: Simd>(_: S, gate: &[f32], up: &[f32], out: &mut [f64]) {
            assert!(gate.len() == up.len() && gate.len() == out.len());
            for i in 0..gate.len() {
                let $x = f64::from(gate[i]);
                out[i] = $activation * f64::from(up[i]);
            }
        }

        on_every_level! {
            $(#[$doc])*
            ///
            /// # Panics
            /// If the lengths differ.
            pub fn $name(gate: &[f32], up: &[f32], out: &mut [f64]) = $body
        }
    };
}

gate! {
    /// `out = relu(gate)² · up`; of what is no number, none.
    relu2_gate, relu2_body, |x| if x < 0.0 { 0.0 } else { x * x }
}
gate! {
    /// `out = gate · sigmoid(gate) · up`; of -∞, where that is -∞ · 0, no number.
    silu_gate, silu_body, |x| x / (1.0 + exp64(-x))
}
gate! {
    /// `out = gelu(gate) · up`, gelu in its tanh form: x · (1 + tanh u) / 2 is x · sigmoid(2u); of -∞ no number.
    gelu_tanh_gate, gelu_body,
    |x| x / (1.0 + exp64(-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (0.044_715 * x * x).mul_add(x, x)))
}

/// The greatest value of a slice, -∞ if it is empty; NaN is passed over.
#[inline(always)]
fn greatest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let mut greatest = f32::NEG_INFINITY;
    for &v in lanes.iter().chain(rest) {
        greatest = if v > greatest { v } else { greatest };
    }
    greatest
}

/// Replaces `x` by `e^(x - max)` and returns (max, sum). Lane i of the sum takes the values at indices
/// ≡ i mod 16 in order.
#[inline(always)]
pub(super) fn exponentials(x: &mut [f32]) -> (f32, f32) {
    let max = greatest(x);
    for v in x.iter_mut() {
        *v = exp(*v - max);
    }
    // A loop of its own, which passes lanes on by value, so that they stay in registers.
    let add = |lanes: [f64; LANES], chunk: &[f32; LANES]| -> [f64; LANES] {
        std::array::from_fn(|i| lanes[i] + f64::from(chunk[i]))
    };
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let lanes = add(chunks.iter().fold([0.0; LANES], add), &last);
    (max, tree(lanes) as f32)
}

/// `e^x`, as attention has it.
pub(super) fn exp1(x: f32) -> f32 {
    exp(x)
}

/// Cosines and sines of a rotary embedding, for positions one after another.
#[derive(Debug, Default)]
pub struct Rope {
    inverse: Vec<f32>,
    half: usize,
    /// For each position `half` cosines, then `half` sines.
    table: Vec<f32>,
}

impl Rope {
    /// A rotary embedding of heads `head_dim` wide: pair (i, i + head_dim/2) turns by
    /// `position · theta^(-2i/head_dim)`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        assert!(head_dim.is_multiple_of(2), "a rotary head has pairs");
        let inverse =
            (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64) as f32).collect();
        Self { inverse, half: head_dim / 2, table: Vec::new() }
    }

    /// Prepares the positions `start..start + count`; allocates only for more than ever before.
    pub fn prepare(&mut self, start: usize, count: usize) {
        self.table.clear();
        for position in start..start + count {
            // The angle is rounded to f32 as in training; its cosine and sine are not far from exact.
            let angle = |inverse: &f32| f64::from(position as f32 * inverse);
            self.table.extend(self.inverse.iter().map(|i| angle(i).cos() as f32));
            self.table.extend(self.inverse.iter().map(|i| angle(i).sin() as f32));
        }
    }

    /// Norms every head of `heads` where `norm` is given (weights, epsilon), then turns it by the
    /// angles of the `index`-th prepared position.
    ///
    /// # Panics
    /// If that was not prepared, `heads` is not made of whole heads, or the norm is not as wide as one.
    pub fn apply(&self, index: usize, heads: &mut [f32], norm: Option<(&[f32], f32)>) {
        assert!(heads.len().is_multiple_of(2 * self.half));
        let angles = &self.table[index * 2 * self.half..][..2 * self.half];
        let (cos, sin) = angles.split_at(self.half);
        for head in heads.chunks_exact_mut(2 * self.half) {
            turn(head, norm, cos, sin);
        }
    }
}

#[inline(always)]
fn turn_body<S: Simd>(_: S, head: &mut [f32], norm: Option<(&[f32], f32)>, cos: &[f32], sin: &[f32]) {
    let (a, b) = head.split_at_mut(cos.len());
    assert!(a.len() == b.len() && a.len() == sin.len());
    let turned = |x: f64, y: f64, i: usize| {
        let (cos, sin) = (f64::from(cos[i]), f64::from(sin[i]));
        ((x * cos - y * sin) as f32, (y * cos + x * sin) as f32)
    };
    let Some((weight, eps)) = norm else {
        for i in 0..cos.len() {
            (a[i], b[i]) = turned(a[i].into(), b[i].into(), i);
        }
        return;
    };
    let mut sum = 0.0;
    for v in a.iter().chain(&*b) {
        sum = f64::from(*v).mul_add(f64::from(*v), sum);
    }
    let inverse = 1.0 / (sum / (2 * cos.len()) as f64 + f64::from(eps)).sqrt();
    let (low, high) = weight.split_at(cos.len());
    assert_eq!(high.len(), cos.len());
    for i in 0..cos.len() {
        let normed = |v: f32, weight: f32| f64::from(v) * (inverse * f64::from(weight));
        (a[i], b[i]) = turned(normed(a[i], low[i]), normed(b[i], high[i]), i);
    }
}

on_every_level! {
    fn turn(head: &mut [f32], norm: Option<(&[f32], f32)>, cos: &[f32], sin: &[f32]) = turn_body
}

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_on_every_level, values};
    use super::*;

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|v| f64::from(*v)).collect()
    }

    fn bits(x: &[f64]) -> Vec<u64> {
        x.iter().map(|v| v.to_bits()).collect()
    }

    /// Distance in units of the last place of the exact result.
    fn ulp(found: f32, exact: f64) -> f64 {
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(found) - exact).abs() / unit
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn exponentials_are_near_and_saturate() {
        let (mut worst, mut worst64): (f64, f64) = (0.0, 0.0);
        for i in -1_040_000..890_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst64 = worst64.max((exp64(x.into()) / exact - 1.0).abs());
            if exact < f64::from(f32::MAX) {
                worst = worst.max(ulp(exp(x), exact));
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert!(worst64 <= 1e-14, "{worst64} relative");
        assert_eq!((exp(0.0), exp64(0.0)), (1.0, 1.0));
        assert_eq!((exp(f32::NEG_INFINITY), exp64(f64::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp64(f64::INFINITY)), (f32::INFINITY, f64::INFINITY));
        assert!(exp(f32::NAN).is_nan() && exp64(f64::NAN).is_nan());
    }

    #[test]
    fn norms_and_quantisation() {
        for n in [1, 15, 16, 17, 64, 100, 255, 768] {
            let (x, weight) = (values(1, n), values(2, n));
            let mean: f64 = wide(&x).iter().map(|v| v * v).sum::<f64>() / n as f64;
            let found = equal_on_every_level(|| {
                let mut out = wide(&x);
                rmsnorm(&mut out, &weight, 1e-5);
                bits(&out)
            });
            for i in 0..n {
                let exact = f64::from(weight[i]) * f64::from(x[i]) / (mean + f64::from(1e-5f32)).sqrt();
                assert!((f64::from_bits(found[i]) - exact).abs() < 1e-12);
            }
            let scale = 127.0 / wide(&x).iter().fold(1e-5, |max: f64, v| max.max(v.abs()));
            let mut expected: Vec<i8> =
                wide(&x).iter().map(|v| (v * scale).round_ties_even() as i8).collect();
            let sum: i32 = expected.iter().map(|q| i32::from(*q)).sum();
            expected.extend([0; 5]);
            let found = equal_on_every_level(|| {
                let mut q = vec![1; n + 5];
                let Quant { scale, sum } = quantize(&wide(&x), &mut q);
                (q, scale.to_bits(), sum)
            });
            assert_eq!(found, (expected, (scale as f32).to_bits(), sum), "{n}");
        }
        let mut q = [1; 9];
        let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0, 0.49];
        assert_eq!(quantize(&x, &mut q), Quant { scale: 1.0, sum: 2 });
        assert_eq!(q, [127, 0, 2, 2, 0, -2, -127, 0, 0], "ties go to the even integer");
        let nothing = Quant { scale: 127.0 / 1e-5, sum: 0 };
        assert_eq!((quantize(&[0.0; 4], &mut q), quantize(&[], &mut q)), (nothing, nothing));
        assert!(quantize(&[1.0, f64::NAN], &mut q).scale.is_nan());
        assert!(quantize(&[f64::INFINITY, f64::NAN], &mut q).scale.is_nan());
        assert_eq!(quantize(&[1.0, f64::NEG_INFINITY], &mut q).scale, 0.0);
    }

    #[test]
    fn softmax_parts() {
        for n in [1, 16, 100, 256] {
            let x = values(6, n);
            let mut found = x.clone();
            let (greatest, sum) = exponentials(&mut found);
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact: Vec<f64> = x.iter().map(|v| f64::from(v - max).exp()).collect();
            assert_eq!(greatest.to_bits(), max.to_bits());
            assert!((f64::from(sum) / exact.iter().sum::<f64>() - 1.0).abs() < 3e-7);
            assert!(found.iter().zip(exact).all(|(a, b)| ulp(*a, b) <= 2.0));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "its functions of floats err on purpose")]
    fn gates_follow_their_formulas() {
        type Case = (fn(&[f32], &[f32], &mut [f64]), fn(f64) -> f64);
        let cases: [Case; 3] = [
            (relu2_gate, |x| x.max(0.0).powi(2)),
            (silu_gate, |x| x / (1.0 + (-x).exp())),
            (gelu_tanh_gate, |x| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }),
        ];
        let (gate, up): (Vec<_>, Vec<_>) =
            (values(3, 203).iter().map(|v| v * 10.0).collect(), values(4, 203));
        for (run, formula) in cases {
            let found = equal_on_every_level(|| {
                let mut out = vec![0.0; gate.len()];
                run(&gate, &up, &mut out);
                bits(&out)
            });
            for i in 0..gate.len() {
                let exact = formula(gate[i].into()) * f64::from(up[i]);
                let found = f64::from_bits(found[i]);
                assert!((found - exact).abs() <= 1e-12 * exact.abs().max(1e-3), "{found} {exact}");
            }
            let mut out = [0.0; 20];
            run(&[f32::NAN; 20], &[2.0; 20], &mut out);
            assert!(out.iter().all(|v| v.is_nan()), "what is no number does not go unseen");
        }
    }

    #[test]
    fn the_rest_is_plain() {
        let (a, b) = (values(5, 37), values(6, 37));
        let (mut x, mut back) = (vec![0.0; 37], vec![0.0; 37]);
        widen(&a, &mut x);
        add(&mut x, &b);
        narrow(&x, &mut back);
        assert!((0..37).all(|i| back[i] == (f64::from(a[i]) + f64::from(b[i])) as f32));
    }

    #[test]
    fn rope_turns_pairs_of_halves() {
        let mut rope = Rope::new(8, 10000.0);
        rope.prepare(7, 3);
        let (x, weight) = (values(5, 24), values(6, 8));
        for norm in [None, Some((&weight[..], 1e-6f32))] {
            let found = equal_on_every_level(|| {
                let mut y = x.clone();
                rope.apply(2, &mut y, norm);
                y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            });
            for (head, turned) in x.chunks(8).zip(found.chunks(8)) {
                let mut head = wide(head);
                if let Some((weight, eps)) = norm {
                    rmsnorm(&mut head, weight, eps);
                }
                for i in 0..4 {
                    let angle = 9.0 * 10000f64.powf(-2.0 * i as f64 / 8.0);
                    let (low, high) =
                        (f64::from(f32::from_bits(turned[i])), f64::from(f32::from_bits(turned[i + 4])));
                    assert!((low - (head[i] * angle.cos() - head[i + 4] * angle.sin())).abs() < 1e-5);
                    assert!((high - (head[i + 4] * angle.cos() + head[i] * angle.sin())).abs() < 1e-5);
                }
            }
        }
    }
}
