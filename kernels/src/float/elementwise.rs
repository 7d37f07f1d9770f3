//! What runs over one token's vector: norms, rotary embedding, gates, and the exponential under them.

use super::on_every_level;
use super::simd::{LANES, Simd};
use crate::acts::{Quant, quantize_row};

/// `e^x` of each value, in place, within 2 ulp; 0 below -104, infinite above 89.
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

/// The sum of lanes in a fixed order: halves onto each other.
#[inline(always)]
pub(super) fn tree(mut v: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            v[i] += v[i + half];
        }
        half /= 2;
    }
    v[0]
}

/// Σ a·b: lane i sums the products at indices ≡ i mod 16 in order, then the lanes are added as a tree.
#[inline(always)]
fn dot_body<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = simd.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.fma(simd.load(a), simd.load(b), sum);
    }
    let (mut a_tail, mut b_tail) = ([0.0; LANES], [0.0; LANES]);
    for (to, from) in a_tail.iter_mut().zip(a_rest) {
        *to = *from;
    }
    for (to, from) in b_tail.iter_mut().zip(b_rest) {
        *to = *from;
    }
    tree(simd.to_array(simd.fma(simd.load(&a_tail), simd.load(&b_tail), sum)))
}

on_every_level! {
    /// The scalar product of `a` and `b`, as long as the shorter.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

#[inline(always)]
fn rmsnorm_body<S: Simd>(simd: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    let inverse = inverse_rms(simd, x, eps);
    for i in 0..x.len() {
        out[i] = weight[i] * (x[i] * inverse);
    }
}

#[inline(always)]
fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (dot_body(simd, x, x) / x.len() as f32 + eps).sqrt()
}

on_every_level! {
    /// `out = weight · (x / √(mean(x²) + eps))`, all of one length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rmsnorm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rmsnorm_body
}

#[inline(always)]
fn rmsnorm_in_place_body<S: Simd>(simd: S, x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len());
    let inverse = inverse_rms(simd, x, eps);
    for i in 0..x.len() {
        x[i] = weight[i] * (x[i] * inverse);
    }
}

on_every_level! {
    /// [`rmsnorm`] onto its own input.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rmsnorm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rmsnorm_in_place_body
}

#[inline(always)]
fn quantize_body<S: Simd>(_: S, x: &[f32], q: &mut [i8]) -> Quant {
    quantize_row(x, q)
}

on_every_level! {
    /// [`quantize_row`], in the widest vectors of this CPU.
    ///
    /// # Panics
    /// If `q` is shorter than `x`.
    pub fn quantize(x: &[f32], q: &mut [i8]) -> Quant = quantize_body
}

#[inline(always)]
fn add_body<S: Simd>(_: S, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for i in 0..x.len() {
        x[i] += y[i];
    }
}

on_every_level! {
    /// `x += y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body
}

#[inline(always)]
fn scale_body<S: Simd>(_: S, x: &mut [f32], by: f32) {
    for v in x {
        *v *= by;
    }
}

on_every_level! {
    /// `x *= by`.
    pub fn scale(x: &mut [f32], by: f32) = scale_body
}

#[inline(always)]
fn relu2_gate_body<S: Simd>(_: S, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for i in 0..gate.len() {
        let positive = if gate[i] > 0.0 { gate[i] } else { 0.0 };
        gate[i] = positive * positive * up[i];
    }
}

on_every_level! {
    /// `gate = relu(gate)² · up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_gate(gate: &mut [f32], up: &[f32]) = relu2_gate_body
}

#[inline(always)]
fn silu_gate_body<S: Simd>(_: S, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for i in 0..gate.len() {
        gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    }
}

on_every_level! {
    /// `gate = gate · sigmoid(gate) · up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_gate(gate: &mut [f32], up: &[f32]) = silu_gate_body
}

#[inline(always)]
fn gelu_tanh_gate_body<S: Simd>(_: S, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    // 2 · √(2/π): x · (1 + tanh u) / 2 is x · sigmoid(2u).
    const TWICE: f32 = 1.595_769;
    for i in 0..gate.len() {
        let x = gate[i];
        let u2 = TWICE * (0.044_715 * x * x).mul_add(x, x);
        gate[i] = x / (1.0 + exp(-u2)) * up[i];
    }
}

on_every_level! {
    /// `gate = gelu(gate) · up`, gelu in its tanh form.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_tanh_gate(gate: &mut [f32], up: &[f32]) = gelu_tanh_gate_body
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

/// Replaces `x` by `e^(x - max)` and returns (max, sum).
#[inline(always)]
pub(super) fn exponentials<S: Simd>(_: S, x: &mut [f32]) -> (f32, f32) {
    let max = greatest(x);
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - max);
            lanes[i] += chunk[i];
        }
    }
    for (i, v) in rest.iter_mut().enumerate() {
        *v = exp(*v - max);
        lanes[i] += *v;
    }
    (max, tree(lanes))
}

#[inline(always)]
fn softmax_body<S: Simd>(simd: S, x: &mut [f32]) {
    let (_, sum) = exponentials(simd, x);
    scale_body(simd, x, 1.0 / sum);
}

on_every_level! {
    /// Replaces `x` by its softmax.
    pub fn softmax(x: &mut [f32]) = softmax_body
}

/// `e^x`, the one that [`softmax`] and the gates use.
pub fn exp1(x: f32) -> f32 {
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

    /// Turns every head of `heads` by the angles of the `index`-th prepared position.
    ///
    /// # Panics
    /// If that was not prepared or `heads` is not made of whole heads.
    pub fn apply(&self, index: usize, heads: &mut [f32]) {
        assert!(heads.len().is_multiple_of(2 * self.half));
        let angles = &self.table[index * 2 * self.half..][..2 * self.half];
        let (cos, sin) = angles.split_at(self.half);
        for head in heads.chunks_exact_mut(2 * self.half) {
            turn(head, cos, sin);
        }
    }
}

#[inline(always)]
fn turn_body<S: Simd>(_: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = head.split_at_mut(cos.len());
    assert!(a.len() == b.len() && a.len() == sin.len());
    for i in 0..cos.len() {
        let (x, y) = (a[i], b[i]);
        a[i] = x * cos[i] - y * sin[i];
        b[i] = y * cos[i] + x * sin[i];
    }
}

on_every_level! {
    fn turn(head: &mut [f32], cos: &[f32], sin: &[f32]) = turn_body
}

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_on_every_level, values};
    use super::*;

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|v| v.to_bits()).collect()
    }

    /// Distance in units of the last place of the exact result.
    fn ulp(found: f32, exact: f64) -> f64 {
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(found) - exact).abs() / unit
    }

    #[test]
    fn exp_is_within_two_ulp_and_saturates() {
        let mut worst: f64 = 0.0;
        for i in -1_040_000..890_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            if exact < f64::from(f32::MAX) {
                worst = worst.max(ulp(exp(x), exact));
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn levels_agree_and_the_results_are_right() {
        for n in [1, 15, 16, 17, 64, 100, 255, 768] {
            let (a, b) = (values(1, n), values(2, n));
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let found = equal_on_every_level(|| dot(&a, &b).to_bits());
            assert!((f64::from(f32::from_bits(found)) - exact).abs() < 1e-3, "dot of {n}");

            let mean: f64 = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            let inverse = 1.0 / (mean + 1e-5).sqrt();
            equal_on_every_level(|| {
                let mut out = vec![0.0; n];
                rmsnorm(&a, &b, 1e-5, &mut out);
                for i in 0..n {
                    let exact = f64::from(b[i]) * f64::from(a[i]) * inverse;
                    assert!((f64::from(out[i]) - exact).abs() < 1e-5);
                }
                let mut same = a.clone();
                rmsnorm_in_place(&mut same, &b, 1e-5);
                assert_eq!(same, out);
                bits(&out)
            });

            equal_on_every_level(|| {
                let mut x = a.clone();
                softmax(&mut x);
                let sum: f64 = a.iter().map(|v| f64::from(*v).exp()).sum();
                for i in 0..n {
                    assert!((f64::from(x[i]) - f64::from(a[i]).exp() / sum).abs() < 1e-6);
                }
                bits(&x)
            });
        }
    }

    #[test]
    fn gates_follow_their_formulas() {
        type Case = (fn(&mut [f32], &[f32]), fn(f64) -> f64);
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
                let mut x = gate.clone();
                run(&mut x, &up);
                bits(&x)
            });
            for i in 0..gate.len() {
                let exact = formula(gate[i].into()) * f64::from(up[i]);
                let found = f64::from(f32::from_bits(found[i]));
                assert!((found - exact).abs() <= 1e-5 * exact.abs().max(1e-3), "{found} {exact}");
            }
        }
    }

    #[test]
    fn rope_turns_pairs_of_halves() {
        let mut rope = Rope::new(8, 10000.0);
        rope.prepare(7, 3);
        let x = values(5, 24);
        let found = equal_on_every_level(|| {
            let mut y = x.clone();
            rope.apply(2, &mut y);
            bits(&y)
        });
        for head in 0..3 {
            for i in 0..4 {
                let angle = 9.0 * 10000f64.powf(-2.0 * i as f64 / 8.0);
                let (a, b) = (f64::from(x[head * 8 + i]), f64::from(x[head * 8 + i + 4]));
                let low = f64::from(f32::from_bits(found[head * 8 + i]));
                let high = f64::from(f32::from_bits(found[head * 8 + i + 4]));
                assert!((low - (a * angle.cos() - b * angle.sin())).abs() < 1e-5);
                assert!((high - (b * angle.cos() + a * angle.sin())).abs() < 1e-5);
            }
        }
    }
}
