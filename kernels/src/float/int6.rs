//! Matrices rounded to six bits a weight, for a head that decoding reads at the speed of memory.
//!
//! ```text
//! Rows are cut into panels of 32 and columns into blocks of 64, both filled up with zeros. A panel is
//! one sequence of blocks, and a block
//!
//!      64 bytes   32 scales, bf16: row r at place 2·(r mod 16) + r/16
//!   2 × 768 bytes rows 0–15, rows 16–31: four runs of 16 columns, 192 bytes each:
//!                 byte 64·g + 4r + c (g < 3) holds in its low six bits the code of row r at column
//!                 4g + c, and in its upper two bits bits 2g and 2g + 1 of the code at column 12 + c
//!
//! weight = scale · (code - 32)
//! ```
//!
//! These are 6.25 bits a weight. Activations are rounded to 16 bits for each token, so that a block's
//! sum is an exact integer, and each output is `fma(sum, scale, before)` over the blocks in order: the
//! same on every CPU, whatever instructions compute the integers.

use super::on_every_level;
use super::simd::{LANES, Simd};
use super::tile::{Element, Out, PANEL, Sums, TASK, for_each_tile, product};
use crate::buffer::{Array, Plain};
use crate::pool::Pool;
use crate::tier::prefetch_all;
use crate::tuning;
use half::bf16;
use std::cell::RefCell;
use std::hint::black_box;

/// Columns of a block.
const BLOCK: usize = 64;

/// The code of a zero.
const ZERO: u8 = 32;

/// 1.5 · 2^23: adding it rounds to the nearest integer, which then stands in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Magnitudes below which all products are as good as 0, and reciprocals could be infinite.
pub(super) const TINY: f32 = 1e-30;

/// 127 · 256, the magnitude that a token's greatest number is scaled to: upper bytes stay below 128.
const LARGEST: f32 = 32512.0;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block {
    scales: [bf16; PANEL],
    codes: [[[u8; 12 * LANES]; 4]; 2],
}

// SAFETY: 64 + 2 · 768 bytes are a multiple of the alignment, so there is no padding; any bits are
// floats and integers.
unsafe impl Plain for Block {}

/// A matrix `[rows, cols]` of six bits a weight.
pub(super) struct Int6 {
    rows: usize,
    cols: usize,
    panels: Array<Block>,
}

/// 64 columns of a token, rounded to 16 bits.
#[derive(Clone, Copy, Default)]
struct Columns {
    /// As [`Simd::dot`] takes them.
    x: [[[i8; LANES]; 2]; 4],
    /// What takes the code of the zeros off again.
    offset: i32,
}

/// Tokens, reusable without allocating.
#[derive(Default)]
struct Tokens {
    /// `[tokens, blocks]`.
    columns: Vec<Columns>,
    /// What the sums are multiplied by, `[tokens]`.
    factors: Vec<f32>,
}

thread_local! {
    static TOKENS: RefCell<Tokens> = RefCell::default();
}

impl Int6 {
    /// Rounds a matrix of whose panel `p` the rows, row-major, are `read(p)`; panels that it has no rows
    /// for stay zero.
    pub fn new(
        pool: &Pool,
        rows: usize,
        cols: usize,
        read: impl Fn(usize) -> Option<Vec<f32>> + Sync,
    ) -> Self {
        let blocks = cols.div_ceil(BLOCK);
        let mut panels = Array::<Block>::new(product(&[rows.div_ceil(PANEL), blocks]));
        if !panels.is_empty() {
            pool.chunks_mut(&mut panels, blocks, |p, panel| {
                for (r, row) in read(p).iter().flat_map(|values| values.chunks_exact(cols)).enumerate() {
                    for (block, values) in panel.iter_mut().zip(row.chunks(BLOCK)) {
                        let mut padded = [0.0; BLOCK];
                        padded[..values.len()].copy_from_slice(values);
                        block.set(r, &padded);
                    }
                }
            });
        }
        Self { rows, cols, panels }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }

    /// Writes row `r`.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        let blocks = self.cols.div_ceil(BLOCK);
        let panel = &self.panels[r / PANEL * blocks..][..blocks];
        for (out, block) in out.chunks_mut(BLOCK).zip(panel) {
            block.get(r % PANEL, out);
        }
    }

    /// Multiplies by `x` `[tokens, cols]` on all threads and hands each (panel, token, 32 sums) to `out`.
    pub fn matmul(
        &self,
        pool: &Pool,
        x: &[f32],
        tokens: usize,
        out: impl Fn(usize, usize, &[f32; PANEL]) + Sync,
    ) {
        let blocks = self.cols.div_ceil(BLOCK);
        let count = self.rows.div_ceil(PANEL);
        TOKENS.with_borrow_mut(|all| {
            all.columns.resize(tokens * blocks, Columns::default());
            all.factors.resize(tokens, 0.0);
            let Tokens { columns, factors } = &mut *all;
            pool.chunks_mut2((columns, blocks), (factors, 1), |t, columns, factor| {
                factor[0] = round(&x[t * self.cols..][..self.cols], columns);
            });
            let all = &*all;
            let step = (TASK / (blocks * size_of::<Block>())).max(1);
            pool.tasks(count.div_ceil(step), |_, task| {
                let first = task * step;
                let panels = &self.panels[first * blocks..count.min(first + step) * blocks];
                multiply(panels, blocks, all, &mut |p, t, sums| out(first + p, t, sums));
            });
        });
    }
}

impl Block {
    /// Rounds 64 columns of row `r`.
    fn set(&mut self, r: usize, values: &[f32; BLOCK]) {
        let (scale, codes) = encode(values);
        self.scales[bf16::place(r)] = scale;
        for (run, codes) in self.codes[r / LANES].iter_mut().zip(codes.as_chunks::<16>().0) {
            let quad = |g: usize| u32::from_le_bytes(codes.as_chunks().0[g]);
            for g in 0..3 {
                let word = quad(g) | (quad(3) >> (2 * g) & 0x0303_0303) << 6;
                run[64 * g + r % LANES * 4..][..4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Writes up to 64 columns of row `r`.
    fn get(&self, r: usize, out: &mut [f32]) {
        let scale = self.scales[bf16::place(r)].to_f32();
        for (c, v) in out.iter_mut().enumerate() {
            let (run, group, at) = (&self.codes[r / LANES][c / 16], c % 16 / 4, r % LANES * 4 + c % 4);
            let code = if group < 3 {
                run[64 * group + at] & 63
            } else {
                (0..3).fold(0, |code, i| code | run[64 * i + at] >> 6 << (2 * i))
            };
            *v = scale * (f32::from(code) - f32::from(ZERO));
        }
    }
}

/// A scale and codes; the greatest magnitude gets the code furthest from that of zero.
#[inline(always)]
fn encode_body<S: Simd>(_: S, values: &[f32; BLOCK]) -> (bf16, [u8; BLOCK]) {
    // Magnitudes order as their bits do, and NaN above infinity. Two passes, because one over pairs of
    // magnitude and place would go value by value.
    let magnitude = |v: f32| v.abs().to_bits();
    let most = values.iter().fold(0, |max, &v| magnitude(v).max(max));
    let first = (0..BLOCK as u32)
        .zip(values)
        .fold(BLOCK as u32, |first, (i, &v)| if magnitude(v) == most { first.min(i) } else { first });
    let greatest = values[first as usize];
    let scale = if greatest.abs() < TINY { 0.0 } else { greatest / -f32::from(ZERO) };
    let scale = bf16::from_f32(scale);
    let inverse = if scale == bf16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    (
        scale,
        values.map(|v| ((v * inverse).clamp(-32.0, 31.0) + (ROUND + f32::from(ZERO))).to_bits() as u8 & 63),
    )
}

on_every_level! {
    fn encode(values: &[f32; BLOCK]) -> (bf16, [u8; BLOCK]) = encode_body
}

/// Rounds a token and returns what its sums are multiplied by: NaN or infinite if one of the numbers is.
#[inline(always)]
fn round_body<S: Simd>(_: S, x: &[f32], columns: &mut [Columns]) -> f32 {
    // Magnitudes order as their bits do, and NaN above infinity.
    let absmax = f32::from_bits(x.iter().fold(0, |max, v| v.abs().to_bits().max(max)));
    let scale = if absmax >= TINY { LARGEST / absmax } else { 0.0 };
    for (x, columns) in x.chunks(BLOCK).zip(columns) {
        let mut values = [0.0; BLOCK];
        if scale > 0.0 {
            values[..x.len()].copy_from_slice(x);
        }
        let rounded = values.map(|v| (v * scale + ROUND).to_bits() as i32 - ROUND.to_bits() as i32);
        columns.offset = rounded.iter().fold(0i32, |sum, v| sum - v * i32::from(ZERO));
        let pairs = columns.x.as_flattened_mut().iter_mut().zip(rounded.as_chunks::<8>().0);
        for (x, rounded) in pairs {
            for i in 0..8 {
                let low = rounded[i] as i8;
                x[i / 4 * 8 + i % 4] = ((rounded[i] - i32::from(low)) >> 8) as i8;
                x[i / 4 * 8 + 4 + i % 4] = low;
            }
        }
    }
    absmax / LARGEST
}

on_every_level! {
    fn round(x: &[f32], columns: &mut [Columns]) -> f32 = round_body
}

/// Multiplies a panel by `T` tokens from token `first` on; `before` is called for each block that is about to be
/// read.
#[inline(always)]
fn panel<S: Simd, const T: usize>(
    simd: S,
    panel: &[Block],
    tokens: &Tokens,
    first: usize,
    before: impl Fn(&Block),
) -> Sums<T> {
    let columns: [&[Columns]; T] =
        std::array::from_fn(|t| &tokens.columns[(first + t) * panel.len()..][..panel.len()]);
    // Hidden from the compiler, which would unroll the loop over the runs and read them in another order
    // than that of memory, at half the speed.
    let runs = black_box(4);
    let mut sums = [[simd.splat(0.0); 2]; T];
    for (b, block) in panel.iter().enumerate() {
        before(block);
        let scales = simd.widen_bf16(&block.scales);
        for (half, scale) in [scales.0, scales.1].into_iter().enumerate() {
            let mut dots = [simd.splat_i32(0); T];
            for (dot, columns) in dots.iter_mut().zip(&columns) {
                *dot = simd.splat_i32(columns[b].offset);
            }
            for (run, codes) in block.codes[half].iter().take(runs).enumerate() {
                let codes = simd.codes(codes);
                for (dot, columns) in dots.iter_mut().zip(&columns) {
                    let x = &columns[b].x[run];
                    *dot = simd.dot(*dot, [codes[0], codes[1]], &x[0]);
                    *dot = simd.dot(*dot, [codes[2], codes[3]], &x[1]);
                }
            }
            for (sum, dot) in sums.iter_mut().zip(dots) {
                sum[half] = simd.fma(simd.to_f32(dot), scale, sum[half]);
            }
        }
    }
    let mut out = [[0.0; PANEL]; T];
    for ((out, sum), factor) in out.iter_mut().zip(sums).zip(&tokens.factors[first..]) {
        out[..LANES].copy_from_slice(&simd.to_array(sum[0]));
        out[LANES..].copy_from_slice(&simd.to_array(sum[1]));
        out.iter_mut().for_each(|v| *v *= factor);
    }
    out
}

/// Multiplies panels of `blocks` blocks by all tokens and hands each (panel, token, 32 sums) out.
#[inline(always)]
fn multiply_body<S: Simd>(simd: S, panels: &[Block], blocks: usize, tokens: &Tokens, out: Out) {
    match tuning::ahead_of_sequences() {
        Some(ahead) => multiply_asking(simd, panels, blocks, tokens, |block| prefetch_all(block, ahead), out),
        None => multiply_asking(simd, panels, blocks, tokens, |_| {}, out),
    }
}

/// As [`multiply_body`], calling `before` for each block that is about to be read.
#[inline(always)]
fn multiply_asking<S: Simd>(
    simd: S,
    panels: &[Block],
    blocks: usize,
    tokens: &Tokens,
    before: impl Fn(&Block) + Copy,
    out: Out,
) {
    for (p, blocks) in panels.chunks_exact(blocks).enumerate() {
        for_each_tile!(S, tokens.factors.len(), |start, T| {
            let sums = panel::<S, T>(simd, blocks, tokens, start, before);
            for (t, sums) in sums.iter().enumerate() {
                out(p, start + t, sums);
            }
        });
    }
}

on_every_level! {
    fn multiply(panels: &[Block], blocks: usize, tokens: &Tokens, out: Out) = multiply_body
}

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_on_every_level, values};
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Reads a matrix that is there.
    fn panels(values: &[f32], cols: usize) -> impl Fn(usize) -> Option<Vec<f32>> + Sync {
        move |p| values.chunks(PANEL * cols).nth(p).map(<[f32]>::to_vec)
    }

    #[test]
    fn codes_come_back_and_are_near() {
        let pool = Pool::new(2);
        for (rows, cols) in [(1, 1), (33, 64), (40, 65), (64, 200)] {
            let mut w = values(20, rows * cols);
            w[..cols].fill(0.0);
            let m = Int6::new(&pool, rows, cols, panels(&w, cols));
            let mut row = vec![f32::NAN; cols];
            for r in 0..rows {
                m.row(r, &mut row);
                for (found, exact) in row.chunks(BLOCK).zip(w[r * cols..][..cols].chunks(BLOCK)) {
                    let greatest = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
                    // Half a step where the code is not cut off, one and a bit at the other end.
                    let most = greatest / 32.0 * 1.1;
                    assert!(found.iter().zip(exact).all(|(a, b)| (a - b).abs() <= most));
                }
                // What is rounded already stays.
                let again = Int6::new(&pool, 1, cols, panels(&row, cols));
                let mut twice = vec![0.0; cols];
                again.row(0, &mut twice);
                assert_eq!(twice, row);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn products_follow_the_law_on_every_level() {
        for (rows, cols) in [(1, 1), (31, 63), (33, 64), (70, 130)] {
            let w = values(21, rows * cols);
            for (threads, tokens) in [(1, 1), (2, 3), (3, 29)] {
                let pool = Pool::new(threads);
                let m = Int6::new(&pool, rows, cols, panels(&w, cols));
                let mut x = values(22, tokens * cols);
                x[0] = -5.0;
                let found = equal_on_every_level(|| {
                    let out: Vec<_> = (0..tokens * rows).map(|_| AtomicU32::new(0)).collect();
                    m.matmul(&pool, &x, tokens, |p, t, sums| {
                        for (r, sum) in (p * PANEL..rows).zip(sums) {
                            out[t * rows + r].store(sum.to_bits(), Relaxed);
                        }
                    });
                    out.into_iter().map(AtomicU32::into_inner).collect::<Vec<_>>()
                });
                assert_eq!(found, law(&m, &x, tokens));
            }
        }
    }

    /// The law: plain loops over what [`Int6::row`] and the scales say.
    fn law(m: &Int6, x: &[f32], tokens: usize) -> Vec<u32> {
        let (mut row, mut out) = (vec![0.0; m.cols], vec![]);
        for t in 0..tokens {
            let x = &x[t * m.cols..][..m.cols];
            let absmax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let x: Vec<i64> = x.iter().map(|v| (v * (LARGEST / absmax)).round_ties_even() as i64).collect();
            for r in 0..m.rows {
                m.row(r, &mut row);
                let mut sum = 0f32;
                for (b, (w, x)) in row.chunks(BLOCK).zip(x.chunks(BLOCK)).enumerate() {
                    let block = &m.panels[r / PANEL * m.cols.div_ceil(BLOCK) + b];
                    let scale = block.scales[bf16::place(r % PANEL)].to_f32();
                    let dot: i64 = w.iter().zip(x).map(|(w, x)| (w / scale).round() as i64 * x).sum();
                    sum = (dot as f32).mul_add(scale, sum);
                }
                out.push((sum * (absmax / LARGEST)).to_bits());
            }
        }
        out
    }

    #[test]
    fn what_is_not_finite_is_seen() {
        let pool = Pool::new(1);
        let m = Int6::new(&pool, 1, 3, panels(&[1.0, -2.0, 0.5], 3));
        for bad in [f32::NAN, f32::INFINITY] {
            m.matmul(&pool, &[1.0, bad, 2.0], 1, |_, _, sums| assert!(!sums[0].is_finite(), "{bad}"));
        }
        m.matmul(&pool, &[0.0; 3], 1, |_, _, sums| assert_eq!(sums[0], 0.0));
        let m = Int6::new(&pool, 1, 2, panels(&[f32::NAN, 1.0], 2));
        m.matmul(&pool, &[1.0; 2], 1, |_, _, sums| assert!(sums[0].is_nan()));
    }
}
