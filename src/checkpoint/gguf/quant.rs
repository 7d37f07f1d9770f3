//! The block-quantised float types that GGUF files use for embeddings and heads.
//!
//! ```text
//! Q8_0   32 values, 34 bytes: d (f16), 32 × i8;                                     x = d·q
//! Q4_0   32 values, 18 bytes: d (f16), byte j = q[j] | q[j+16] << 4;                x = d·(q-8)
//! Q6_K  256 values, 210 bytes: low nibbles (128), high bit pairs (64), 16 × i8, d;  x = d·s[i/16]·(q-32)
//! ```
//!
//! Quantising follows the reference quantisers of ggml step by step, all in f32, so that equal values
//! give equal bytes.

use half::f16;

/// A block-quantised type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// 4 bits, a scale for each 32.
    Q4_0,
    /// 8 bits, a scale for each 32.
    Q8_0,
    /// 6 bits, an 8-bit scale for each 16, a scale for each 256.
    Q6K,
}

impl Quant {
    /// Values and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Quant::Q4_0 => (32, 18),
            Quant::Q8_0 => (32, 34),
            Quant::Q6K => (256, 210),
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `bytes` are not whole blocks or `out` is not as long as their values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (values, len) = self.block();
        assert!(bytes.len().is_multiple_of(len) && out.len() == bytes.len() / len * values);
        for (block, out) in bytes.chunks_exact(len).zip(out.chunks_exact_mut(values)) {
            match self {
                Quant::Q4_0 => decode_q4_0(block, out),
                Quant::Q8_0 => decode_q8_0(block, out),
                Quant::Q6K => decode_q6_k(block, out),
            }
        }
    }

    /// Encodes whole blocks.
    ///
    /// # Panics
    /// If `x` is not whole blocks or `out` is not as long as their bytes.
    pub fn encode(self, x: &[f32], out: &mut [u8]) {
        let (values, len) = self.block();
        assert!(x.len().is_multiple_of(values) && out.len() == x.len() / values * len);
        for (x, block) in x.chunks_exact(values).zip(out.chunks_exact_mut(len)) {
            match self {
                Quant::Q4_0 => encode_q4_0(x, block),
                Quant::Q8_0 => encode_q8_0(x, block),
                Quant::Q6K => encode_q6_k(x, block),
            }
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

fn encode_q8_0(x: &[f32], block: &mut [u8]) {
    let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let d = amax / 127.0;
    let inverse = reciprocal(d);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, x) in block[2..].iter_mut().zip(x) {
        *q = (x * inverse).round() as i8 as u8;
    }
}

fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &b) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = (f32::from(b & 15) - 8.0) * d;
        *high = (f32::from(b >> 4) - 8.0) * d;
    }
}

/// The value of largest magnitude with its sign, the first of several.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m })
}

fn encode_q4_0(x: &[f32], block: &mut [u8]) {
    let d = extreme(x) / -8.0;
    let inverse = reciprocal(d);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    for (j, b) in block[2..].iter_mut().enumerate() {
        *b = code(x[j]) | code(x[j + 16]) << 4;
    }
}

fn decode_q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half_at(rest, 16);
    for (i, out) in out.iter_mut().enumerate() {
        // Each half of 128 values: nibbles of 64 bytes, bit pairs of 32.
        let (half, j) = (i / 128, i % 128);
        let nibble = low[64 * half + j % 64] >> (4 * (j / 64)) & 15;
        let pair = high[32 * half + j % 32] >> (2 * (j / 32)) & 3;
        let scale = f32::from(rest[i / 16] as i8);
        *out = d * scale * (f32::from(nibble | pair << 4) - 32.0);
    }
}

/// Below this a group counts as zero.
const GROUP_EPS: f32 = 1e-15;

fn encode_q6_k(x: &[f32], block: &mut [u8]) {
    block.fill(0);
    let mut codes = [0u8; 256];
    let mut scales = [0f32; 16];
    for ((scale, x), codes) in scales.iter_mut().zip(x.chunks_exact(16)).zip(codes.chunks_exact_mut(16)) {
        *scale = best_scale(x, codes);
    }
    let largest = extreme(&scales);
    if largest.abs() < GROUP_EPS {
        return;
    }
    let inverse = -128.0 / largest;
    let d = f16::from_f32(1.0 / inverse);
    for (j, scale) in scales.iter().enumerate() {
        let s = (inverse * scale).round_ties_even().min(127.0) as i8;
        block[192 + j] = s as u8;
        let step = d.to_f32() * f32::from(s);
        if step == 0.0 {
            continue;
        }
        for (code, x) in codes[16 * j..].iter_mut().zip(&x[16 * j..16 * j + 16]) {
            *code = (level(x / step) + LEVELS) as u8;
        }
    }
    block[208..].copy_from_slice(&d.to_le_bytes());
    for (i, code) in codes.iter().enumerate() {
        let (half, j) = (i / 128, i % 128);
        block[64 * half + j % 64] |= (code & 15) << (4 * (j / 64));
        block[128 + 32 * half + j % 32] |= (code >> 4) << (2 * (j / 32));
    }
}

/// Levels on each side of zero.
const LEVELS: f32 = 32.0;

/// The level next to a multiple of the step, the even one of two.
fn level(x: f32) -> f32 {
    // 1.5 · 2^23: what is added to it and taken away again is rounded. `round_ties_even` would be a call
    // for each value on x86-64 CPUs without SSE4.1.
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND) - ROUND).clamp(-LEVELS, LEVELS - 1.0)
}

/// Scales that are tried, and a last place that makes whole vectors.
const CANDIDATES: usize = 20;

/// The scale that minimises the squared error of 16 values weighted by their squares, among nineteen
/// candidates around the one that maps the extreme value to -32; `codes` become code + 32.
fn best_scale(x: &[f32], codes: &mut [u8]) -> f32 {
    let max = extreme(x);
    if max.abs() < GROUP_EPS {
        codes.fill(0);
        return 0.0;
    }
    // The one in the middle first: others must be better.
    let inverses: [f32; CANDIDATES] = std::array::from_fn(|i| match i {
        0 => -LEVELS / max,
        1..=9 => -(LEVELS + 0.1 * (i as f32 - 10.0)) / max,
        _ => -(LEVELS + 0.1 * (i as f32 - 9.0)) / max,
    });
    // All candidates at once, in vectors; each adds up value after value.
    let (mut xl, mut ll) = ([0f32; CANDIDATES], [0f32; CANDIDATES]);
    for &x in x {
        let w = x * x;
        for i in 0..CANDIDATES {
            let l = level(inverses[i] * x);
            xl[i] += w * x * l;
            ll[i] += w * l * l;
        }
    }
    let (mut chosen, mut scale) = (inverses[0], if ll[0] > 0.0 { xl[0] / ll[0] } else { 0.0 });
    let mut best = scale * xl[0];
    for i in 1..CANDIDATES - 1 {
        if ll[i] > 0.0 && xl[i] * xl[i] > best * ll[i] {
            (chosen, scale) = (inverses[i], xl[i] / ll[i]);
            best = scale * xl[i];
        }
    }
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = (level(chosen * x) + LEVELS) as u8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 640.0 * (1.0 + (i % 7) as f32)).collect()
    }

    #[test]
    fn error_is_within_half_a_step() {
        let x = wave(1024);
        for (quant, bits) in [(Quant::Q4_0, 4), (Quant::Q8_0, 8), (Quant::Q6K, 6)] {
            let (values, len) = quant.block();
            let mut bytes = vec![0; x.len() / values * len];
            quant.encode(&x, &mut bytes);
            let mut back = vec![0.0; x.len()];
            quant.decode(&bytes, &mut back);
            let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            // A full step, as Q4_0 clips the side opposite to its extreme value.
            let step = amax / (1 << (bits - 1)) as f32;
            let worst = x.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= step, "{quant:?}: {worst} > {step}");
        }
    }

    #[test]
    fn known_bytes() {
        // d = 127/127, so codes are the values themselves.
        let mut x = [0f32; 32];
        (x[0], x[1], x[31]) = (127.0, -3.5, 2.5);
        let mut q8 = [0u8; 34];
        Quant::Q8_0.encode(&x, &mut q8);
        assert_eq!(q8[..2], f16::ONE.to_le_bytes());
        assert_eq!([q8[2], q8[3], q8[33]], [127, -4i8 as u8, 3], "halves round away from zero");
        // The extreme value 8 maps to code 0 through d = -1.
        let mut x = [0f32; 32];
        (x[0], x[16]) = (8.0, -1.0);
        let mut q4 = [0u8; 18];
        Quant::Q4_0.encode(&x, &mut q4);
        assert_eq!(q4[..2], f16::NEG_ONE.to_le_bytes());
        assert_eq!(q4[2], 0x90);
        assert_eq!(q4[3], 0x88);
    }

    /// The bytes that this encoder has always made, one candidate for a scale after another.
    #[test]
    fn q6_k_keeps_its_bytes() {
        let mut x = wave(1 << 16);
        for (i, x) in x.iter_mut().enumerate() {
            // Groups of all magnitudes, values on ties, zeros and groups of them.
            *x *= [1.0, 0.125, 3e-3, 1e-6, -40.0, 0.0, 1e-17][i / 16 % 7];
        }
        let mut bytes = vec![0; x.len() / 256 * 210];
        Quant::Q6K.encode(&x, &mut bytes);
        let hash = crate::words::hex(&Sha256::digest(&bytes));
        assert_eq!(hash, "a6fbf2d6b8c1054cb27dfac5188b7f94cee9bd8bbc09310b033f9d724aef1e7f");
    }

    #[test]
    fn zeros_stay_zeros() {
        for quant in [Quant::Q4_0, Quant::Q8_0, Quant::Q6K] {
            let (values, len) = quant.block();
            let (mut bytes, mut back) = (vec![0xff; len], vec![1.0; values]);
            quant.encode(&vec![0.0; values], &mut bytes);
            quant.decode(&bytes, &mut back);
            assert!(back.iter().all(|&x| x == 0.0), "{quant:?}");
        }
    }
}
