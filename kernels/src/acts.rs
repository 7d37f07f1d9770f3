//! int8 activations: per-token absmax quantisation, as BitLinear defines it.

use crate::buffer::{Buffer, as_i8, as_i8_mut};
use crate::float::elementwise::quantize;
use crate::layout::MAX_COLS;

/// What strides are multiples of: the columns that the widest kernels read at once.
const ALIGN: usize = 128;

/// A batch of quantised tokens, reusable without allocating.
///
/// Row `t` holds the `cols` numbers of token `t` and zeros up to the [`stride`](Self::stride); it
/// starts at a multiple of 64 bytes.
#[derive(Debug)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    stride: usize,
    data: Buffer,
    quants: Vec<Quant>,
}

/// What belongs to a quantised token besides its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quant {
    /// What the token was multiplied by: `127 / max(absmax, 1e-5)`. Products are divided by it.
    pub scale: f32,
    /// The sum of the token's int8 numbers.
    pub sum: i32,
}

impl Default for Activations {
    fn default() -> Self {
        Self::new()
    }
}

impl Activations {
    /// No tokens.
    pub fn new() -> Self {
        Self { tokens: 0, cols: 0, stride: 0, data: Buffer::new(0), quants: Vec::new() }
    }

    /// Makes room for `tokens` × `cols`; what stands there afterwards is unspecified. Allocates only
    /// if it never was as large.
    ///
    /// # Panics
    /// If `cols` exceeds [`MAX_COLS`].
    pub fn resize(&mut self, tokens: usize, cols: usize) {
        assert!(cols <= MAX_COLS, "{cols} columns: at most {MAX_COLS} are possible");
        let stride = cols.next_multiple_of(ALIGN);
        if tokens * stride > self.data.len() {
            self.data = Buffer::near(tokens * stride);
        }
        self.quants.resize(tokens, Quant::default());
        (self.tokens, self.cols, self.stride) = (tokens, cols, stride);
    }

    /// Quantises `tokens` rows of `cols` numbers; see [`quantize`]. Allocates; models write to
    /// [`parts_mut`](Self::parts_mut) themselves.
    ///
    /// # Panics
    /// If `x` is not `tokens * cols` long or `cols` exceeds [`MAX_COLS`].
    pub fn quantize(&mut self, x: &[f32], tokens: usize, cols: usize) {
        assert_eq!(x.len(), tokens * cols);
        self.resize(tokens, cols);
        let (rows, quants) = self.parts_mut();
        for (t, quant) in quants.iter_mut().enumerate() {
            let stride = cols.next_multiple_of(ALIGN);
            let row: Vec<f64> = x[t * cols..][..cols].iter().map(|v| f64::from(*v)).collect();
            *quant = quantize(&row, &mut rows[t * stride..][..stride]);
        }
    }

    /// Takes numbers that are quantised already, `[tokens, cols]`; the scales are 1.
    ///
    /// # Panics
    /// If `q` is not `tokens * cols` long or `cols` exceeds [`MAX_COLS`].
    pub fn set_i8(&mut self, tokens: usize, cols: usize, q: &[i8]) {
        assert_eq!(q.len(), tokens * cols);
        self.resize(tokens, cols);
        let (rows, quants) = self.parts_mut();
        for (t, quant) in quants.iter_mut().enumerate() {
            let stride = cols.next_multiple_of(ALIGN);
            let (row, pad) = rows[t * stride..][..stride].split_at_mut(cols);
            row.copy_from_slice(&q[t * cols..][..cols]);
            pad.fill(0);
            *quant = Quant { scale: 1.0, sum: row.iter().map(|&v| i32::from(v)).sum() };
        }
    }

    /// All rows, each [`stride`](Self::stride) long, and what belongs to each, so that several
    /// threads can fill them. Every row must be filled as by [`quantize`]: exact sum, zeros
    /// behind the last column. Anything else gives wrong products.
    pub fn parts_mut(&mut self) -> (&mut [i8], &mut [Quant]) {
        let data = &mut self.data.bytes_mut()[..self.tokens * self.stride];
        (as_i8_mut(data), &mut self.quants)
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Numbers in a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes from one token to the next: `cols` rounded up to a multiple of 128, so that kernels may read whole
    /// blocks.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All rows: `tokens * stride` numbers, of which those behind column `cols` are zero.
    pub fn rows(&self) -> &[i8] {
        as_i8(&self.data.bytes()[..self.tokens * self.stride])
    }

    /// Token `t`, [`stride`](Self::stride) numbers of which those behind column `cols` are zero.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn row(&self, t: usize) -> &[i8] {
        &self.rows()[t * self.stride..(t + 1) * self.stride]
    }

    /// The scale of token `t`: its products are divided by it.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn scale(&self, t: usize) -> f32 {
        self.quants[t].scale
    }

    /// The sum of the numbers of token `t`.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn sum(&self, t: usize) -> i32 {
        self.quants[t].sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        let x: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1009) as f32 / 37.0 - 13.3).collect();
        let mut acts = Activations::new();
        acts.quantize(&x, 8, 125);
        for t in 0..8 {
            let row = &x[t * 125..][..125];
            let scale = 127.0 / f64::from(row.iter().fold(0.0, |m: f32, v| m.max(v.abs())));
            let expected: Vec<i8> =
                row.iter().map(|v| (f64::from(*v) * scale).round_ties_even() as i8).collect();
            assert_eq!(acts.row(t)[..125], expected);
            assert_eq!(acts.row(t)[125..], [0; 3]);
            assert_eq!(acts.scale(t), scale as f32);
            assert_eq!(acts.sum(t), expected.iter().map(|&v| i32::from(v)).sum::<i32>());
        }
    }

    #[test]
    fn reuse_leaves_no_traces() {
        let mut acts = Activations::new();
        acts.set_i8(2, 128, &[7; 256]);
        acts.set_i8(3, 65, &[-1; 195]);
        assert_eq!((acts.tokens(), acts.cols(), acts.stride()), (3, 65, 128));
        for t in 0..3 {
            assert_eq!(acts.row(t)[65..], [0; 63]);
            assert_eq!(acts.sum(t), -65);
        }
    }
}
