//! Float matrices in the precision that they are stored in.

use super::int6::{Int6, ROUND, TINY};
use super::on_every_level;
use super::simd::Simd;
use super::tile::{Element, Line, Lines, Out, PANEL, TASK, for_each_tile, multiply, product};
use crate::pool::{Parts, Pool};
use crate::tier::prefetch_all;
use crate::tuning;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::convert::Infallible;
use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError};

/// A float matrix `[rows, cols]`, kept in its stored precision, multiplied in f32.
///
/// `y[t, r]` is `fma(w[r, c], x[t, c], sum)` over the columns in order (and other for int6, see
/// [`read_int6`](Self::read_int6)). The matrix lies in panels of
/// 32 rows, column by column, so that one token reads it as a single sequential stream.
pub struct FloatRows {
    rows: usize,
    cols: usize,
    panels: Panels,
}

enum Panels {
    F32(Lines<f32>),
    F16(Lines<f16>),
    Bf16(Lines<bf16>),
    /// With the scale of each row.
    Int8(Lines<i8>, Vec<f32>),
    Int6(Int6),
}

/// Floats in one of the precisions that matrices are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Floats {
    /// IEEE single.
    F32(Vec<f32>),
    /// IEEE half.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

impl Floats {
    /// All values as f32, exact.
    pub fn to_f32(&self) -> Vec<f32> {
        fn widened(v: &(impl HalfFloatSliceExt + ?Sized), len: usize) -> Vec<f32> {
            let mut wide = vec![0.0; len];
            v.convert_to_f32_slice(&mut wide);
            wide
        }
        match self {
            Floats::F32(v) => v.clone(),
            Floats::F16(v) => widened(&v[..], v.len()),
            Floats::Bf16(v) => widened(&v[..], v.len()),
        }
    }
}

/// Multiplies (panels, cols) by (x, tokens).
type Multiply<E> = fn(&[Line<E>], usize, &[f32], usize, Out);

impl FloatRows {
    /// Packs a matrix whose rows are read band by band, on all threads: `read(rows)` gives some of them (none at first,
    /// to know the precision), row-major, always in the same precision. So the matrix need not be there twice.
    ///
    /// # Errors
    /// As `read`.
    ///
    /// # Panics
    /// If `read` gives another number of values, or another precision.
    pub fn read<X: Send>(
        pool: &Pool,
        rows: usize,
        cols: usize,
        read: impl Fn(Range<usize>) -> Result<Floats, X> + Sync,
    ) -> Result<Self, X> {
        macro_rules! panels {
            ($kind:ident) => {
                Panels::$kind(pack(pool, rows, cols, |band| match read(band)? {
                    Floats::$kind(values) => Ok(values),
                    _ => panic!("bands of one matrix have one precision"),
                })?)
            };
        }
        let panels = match read(0..0)? {
            Floats::F32(_) => panels!(F32),
            Floats::F16(_) => panels!(F16),
            Floats::Bf16(_) => panels!(Bf16),
        };
        Ok(Self { rows, cols, panels })
    }

    /// Packs a row-major matrix of f32.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn from_f32(pool: &Pool, rows: usize, cols: usize, data: &[f32]) -> Self {
        Self { rows, cols, panels: Panels::F32(pack_all(pool, rows, cols, data)) }
    }

    /// Packs a row-major matrix of IEEE halves.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn from_f16(pool: &Pool, rows: usize, cols: usize, data: &[f16]) -> Self {
        Self { rows, cols, panels: Panels::F16(pack_all(pool, rows, cols, data)) }
    }

    /// Packs a row-major matrix of bfloat16.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn from_bf16(pool: &Pool, rows: usize, cols: usize, data: &[bf16]) -> Self {
        Self { rows, cols, panels: Panels::Bf16(pack_all(pool, rows, cols, data)) }
    }

    /// As [`read`](Self::read), each row rounded to int8: `round(w · 127 / absmax)`, with a scale of its
    /// own. This is not exact: a value is off by up to `absmax / 254`, and rows whose absmax is below 1e-30 become 0.
    ///
    /// # Errors
    /// As `read`.
    ///
    /// # Panics
    /// If `read` gives another number of values.
    pub fn read_int8<X: Send>(
        pool: &Pool,
        rows: usize,
        cols: usize,
        read: impl Fn(Range<usize>) -> Result<Floats, X> + Sync,
    ) -> Result<Self, X> {
        let panels = rows.div_ceil(PANEL);
        let lines = Lines::<i8>::new(product(&[panels, cols]));
        let (mut lines, mut scales) = (lines, vec![0.0; product(&[panels, PANEL])]);
        let failed = Failure::default();
        let round = |p, lines: &mut [Line<i8>], scales: &mut [f32]| {
            let Some(values) = failed.keep(band(rows, cols, p, &read)) else { return };
            for (i, (row, scale)) in values.chunks_exact(cols).zip(scales).enumerate() {
                // Magnitudes order as their bits do, and NaN above infinity: the scale shows it.
                let absmax = f32::from_bits(row.iter().fold(0, |max, v| v.abs().to_bits().max(max)));
                let absmax = if absmax < TINY { 0.0 } else { absmax };
                let inverse = if absmax > 0.0 { 127.0 / absmax } else { 0.0 };
                for (line, v) in lines.iter_mut().zip(row) {
                    line.0[i] = (*v * inverse + ROUND).to_bits() as i8;
                }
                *scale = absmax / 127.0;
            }
        };
        if !lines.is_empty() {
            pool.chunks_mut2((&mut lines, cols), (&mut scales, PANEL), round);
        }
        failed.none()?;
        scales.truncate(rows);
        Ok(Self { rows, cols, panels: Panels::Int8(lines, scales) })
    }

    /// As [`read`](Self::read), rounded to six bits a weight, with a scale for every 64 columns of a row:
    /// 6.25 bits. This is not exact: a value is off by up to about 1.06 / 32 of the greatest of the 64, as
    /// the scale is rounded too, to bf16; 64 that are all below 1e-30 become 0. Products round the activations, to 16 bits.
    ///
    /// # Errors
    /// As `read`.
    ///
    /// # Panics
    /// If `read` gives another number of values.
    pub fn read_int6<X: Send>(
        pool: &Pool,
        rows: usize,
        cols: usize,
        read: impl Fn(Range<usize>) -> Result<Floats, X> + Sync,
    ) -> Result<Self, X> {
        let failed = Failure::default();
        let panels = Int6::new(pool, rows, cols, |p| failed.keep(band(rows, cols, p, &read)));
        failed.none()?;
        Ok(Self { rows, cols, panels: Panels::Int6(panels) })
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that one token reads.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(p) => size_of_val(&p[..]),
            Panels::F16(p) => size_of_val(&p[..]),
            Panels::Bf16(p) => size_of_val(&p[..]),
            Panels::Int8(p, scales) => size_of_val(&p[..]) + size_of_val(&scales[..]),
            Panels::Int6(m) => m.bytes(),
        }
    }

    /// Name of the stored precision: `f32`, `f16`, `bf16`, `int8`, `int6`.
    pub fn precision(&self) -> &'static str {
        match self.panels {
            Panels::F32(_) => "f32",
            Panels::F16(_) => "f16",
            Panels::Bf16(_) => "bf16",
            Panels::Int8(..) => "int8",
            Panels::Int6(_) => "int6",
        }
    }

    /// Writes row `r` to `out`, exact as it is stored.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not [`cols`](Self::cols) long.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        assert!(r < self.rows && out.len() == self.cols);
        fn copy<E: Element>(panels: &[Line<E>], r: usize, out: &mut [f32]) {
            let lines = &panels[r / PANEL * out.len()..];
            for (to, line) in out.iter_mut().zip(lines) {
                *to = line.0[E::place(r % PANEL)].to_f32();
            }
        }
        match &self.panels {
            Panels::F32(p) => copy(p, r, out),
            Panels::F16(p) => copy(p, r, out),
            Panels::Bf16(p) => copy(p, r, out),
            Panels::Int8(p, scales) => {
                copy(p, r, out);
                out.iter_mut().for_each(|v| *v *= scales[r]);
            }
            Panels::Int6(m) => m.row(r, out),
        }
    }

    /// `out[t, r] = Σ_c w[r, c] · x[t, c]`; `x` is `[tokens, cols]`, `out` is `[tokens, rows]`.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn matmul(&self, pool: &Pool, x: &[f32], tokens: usize, out: &mut [f32]) {
        assert_eq!(Some(x.len()), tokens.checked_mul(self.cols), "x is [tokens, cols]");
        assert_eq!(Some(out.len()), tokens.checked_mul(self.rows), "out is [tokens, rows]");
        if tokens == 0 || self.rows == 0 {
            return;
        }
        if self.cols == 0 {
            return out.fill(0.0);
        }
        match &self.panels {
            Panels::F32(p) => self.spread(pool, (p, &[]), (x, tokens), out, multiply_f32),
            Panels::F16(p) => self.spread(pool, (p, &[]), (x, tokens), out, multiply_f16),
            Panels::Bf16(p) => self.spread(pool, (p, &[]), (x, tokens), out, multiply_bf16),
            Panels::Int8(p, scales) => self.spread(pool, (p, scales), (x, tokens), out, multiply_i8),
            Panels::Int6(m) => {
                let out = Parts::new(out);
                m.matmul(pool, x, tokens, |panel, token, sums| {
                    // SAFETY: each (panel, token) comes once.
                    let out = unsafe { self.part(&out, token, panel * PANEL) };
                    out.copy_from_slice(&sums[..out.len()]);
                });
            }
        }
    }

    /// One token's outputs of the up to 32 rows from `row` on.
    ///
    /// # Safety
    /// As for [`Parts::get`].
    unsafe fn part<'a>(&self, out: &Parts<'a, f32>, token: usize, row: usize) -> &'a mut [f32] {
        // SAFETY: as demanded.
        unsafe { out.get(token * self.rows + row, PANEL.min(self.rows - row)) }
    }

    fn spread<E: Element>(
        &self,
        pool: &Pool,
        (panels, scales): (&[Line<E>], &[f32]),
        (x, tokens): (&[f32], usize),
        out: &mut [f32],
        multiply: Multiply<E>,
    ) {
        let count = self.rows.div_ceil(PANEL);
        let step = (TASK / (self.cols * size_of::<Line<E>>())).max(1);
        let out = Parts::new(out);
        pool.tasks(count.div_ceil(step), |_, task| {
            let first = task * step;
            let panels = &panels[first * self.cols..count.min(first + step) * self.cols];
            multiply(panels, self.cols, x, tokens, &mut |panel, token, sums| {
                let row = (first + panel) * PANEL;
                // SAFETY: each task has panels of its own, and comes once.
                let out = unsafe { self.part(&out, token, row) };
                out.copy_from_slice(&sums[..out.len()]);
                for (v, scale) in out.iter_mut().zip(scales.iter().skip(row)) {
                    *v *= scale;
                }
            });
        });
    }
}

impl std::fmt::Debug for FloatRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FloatRows {}x{} {}", self.rows, self.cols, self.precision())
    }
}

/// Lays a matrix that is read band by band out in panels; rows that fill the last panel up are zero.
fn pack<E: Element, B: Deref<Target = [E]>, X: Send>(
    pool: &Pool,
    rows: usize,
    cols: usize,
    read: impl Fn(Range<usize>) -> Result<B, X> + Sync,
) -> Result<Lines<E>, X> {
    let mut lines = Lines::new(product(&[rows.div_ceil(PANEL), cols]));
    if lines.is_empty() {
        return Ok(lines);
    }
    let failed = Failure::default();
    pool.chunks_mut(&mut lines, cols, |panel, lines| {
        let band = panel * PANEL..rows.min((panel + 1) * PANEL);
        let count = band.len();
        let Some(band) = failed.keep(read(band)) else { return };
        assert_eq!(band.len(), count * cols, "a band is [rows, cols]");
        for (i, row) in band.chunks_exact(cols).enumerate() {
            let place = E::place(i);
            for (line, v) in lines.iter_mut().zip(row) {
                line.0[place] = *v;
            }
        }
    });
    failed.none()?;
    Ok(lines)
}

/// The rows of a panel, row-major, as f32.
fn band<X>(
    rows: usize,
    cols: usize,
    panel: usize,
    read: impl Fn(Range<usize>) -> Result<Floats, X>,
) -> Result<Vec<f32>, X> {
    let band = panel * PANEL..rows.min((panel + 1) * PANEL);
    let count = band.len();
    let values = read(band)?.to_f32();
    assert_eq!(values.len(), count * cols, "a band is [rows, cols]");
    Ok(values)
}

/// An error of one of several threads.
struct Failure<X>(Mutex<Option<X>>);

impl<X> Default for Failure<X> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<X> Failure<X> {
    /// Keeps an error.
    fn keep<T>(&self, result: Result<T, X>) -> Option<T> {
        result.map_err(|e| *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(e)).ok()
    }

    /// Gives the error that was kept.
    fn none(self) -> Result<(), X> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// As [`pack`], from a whole matrix.
fn pack_all<E: Element>(pool: &Pool, rows: usize, cols: usize, data: &[E]) -> Lines<E> {
    assert_eq!(Some(data.len()), rows.checked_mul(cols), "data is [rows, cols]");
    let band = |r: Range<usize>| Ok::<_, Infallible>(&data[r.start * cols..r.end * cols]);
    pack(pool, rows, cols, band).unwrap_or_else(|e| match e {})
}

/// Multiplies panels of `cols` lines by all tokens and hands each (panel, token, 32 sums) out.
#[inline(always)]
fn multiply_body<S: Simd, E: Element>(
    simd: S,
    panels: &[Line<E>],
    cols: usize,
    x: &[f32],
    tokens: usize,
    out: Out,
) {
    match tuning::ahead_of_sequences() {
        Some(ahead) => multiply_asking(simd, panels, cols, x, tokens, |line| prefetch_all(line, ahead), out),
        None => multiply_asking(simd, panels, cols, x, tokens, |_| {}, out),
    }
}

/// As [`multiply_body`], calling `before` for each line that is about to be read.
#[inline(always)]
fn multiply_asking<S: Simd, E: Element>(
    simd: S,
    panels: &[Line<E>],
    cols: usize,
    x: &[f32],
    tokens: usize,
    before: impl Fn(&Line<E>) + Copy,
    out: Out,
) {
    for (p, panel) in panels.chunks_exact(cols).enumerate() {
        for_each_tile!(S, tokens, |start, T| {
            let sums = multiply::<S, E, T>(simd, panel, &x[start * cols..], cols, |c| before(&panel[c]));
            for (t, sums) in sums.iter().enumerate() {
                out(p, start + t, sums);
            }
        });
    }
}

macro_rules! multiply_of {
    ($name:ident, $element:ty) => {
        on_every_level! {
            fn $name(
                panels: &[Line<$element>],
                cols: usize,
                x: &[f32],
                tokens: usize,
                out: Out,
            ) = multiply_body
        }
    };
}
multiply_of!(multiply_f32, f32);
multiply_of!(multiply_f16, f16);
multiply_of!(multiply_bf16, bf16);
multiply_of!(multiply_i8, i8);

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_on_every_level, values};
    use super::*;

    /// The law: a plain loop.
    fn law(w: &[f32], x: &[f32], tokens: usize, rows: usize, cols: usize) -> Vec<u32> {
        let mut out = Vec::new();
        for t in 0..tokens {
            for r in 0..rows {
                let mut sum = 0.0f32;
                for c in 0..cols {
                    sum = w[r * cols + c].mul_add(x[t * cols + c], sum);
                }
                out.push(sum.to_bits());
            }
        }
        out
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn every_precision_batch_and_thread_count_follows_the_law() {
        for (rows, cols) in [(1, 1), (31, 7), (33, 64), (100, 50), (256, 33)] {
            let w = values(7, rows * cols);
            let w16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let wb16: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            for threads in [1, 2, 3] {
                let pool = Pool::new(threads);
                let matrices = [
                    FloatRows::from_f32(&pool, rows, cols, &w),
                    FloatRows::from_f16(&pool, rows, cols, &w16),
                    FloatRows::from_bf16(&pool, rows, cols, &wb16),
                ];
                for m in matrices {
                    let mut exact = vec![0.0; rows * cols];
                    for (r, row) in exact.chunks_mut(cols).enumerate() {
                        m.row(r, row);
                    }
                    for tokens in [0, 1, 2, 3, 13, 31] {
                        let x = values(8, tokens * cols);
                        let found = equal_on_every_level(|| {
                            let mut out = vec![f32::NAN; tokens * rows];
                            m.matmul(&pool, &x, tokens, &mut out);
                            out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                        });
                        assert_eq!(found, law(&exact, &x, tokens, rows, cols), "{m:?}, {tokens} tokens");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn int8_is_near_and_follows_the_law_with_a_scale_behind() {
        let (rows, cols, tokens) = (45, 30, 5);
        let pool = Pool::new(2);
        let (mut w, x) = (values(10, rows * cols), values(11, tokens * cols));
        w[7 * cols..8 * cols].fill(0.0);
        let band =
            |r: Range<usize>| Ok::<_, Infallible>(Floats::F32(w[r.start * cols..r.end * cols].to_vec()));
        let rounded = FloatRows::read_int8(&pool, rows, cols, band).unwrap();
        assert_eq!((rounded.precision(), rounded.bytes()), ("int8", 64 * cols + 4 * rows));
        let Panels::Int8(_, scales) = &rounded.panels else { panic!("not int8") };
        let (mut row, mut codes) = (vec![0.0; cols], vec![]);
        for (r, exact) in w.chunks(cols).enumerate() {
            rounded.row(r, &mut row);
            let absmax = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(row.iter().zip(exact).all(|(a, b)| (a - b).abs() <= absmax / 253.0), "row {r}");
            codes.extend(row.iter().map(|v| if scales[r] > 0.0 { (v / scales[r]).round() } else { 0.0 }));
        }
        let found = equal_on_every_level(|| {
            let mut out = vec![0.0; tokens * rows];
            rounded.matmul(&pool, &x, tokens, &mut out);
            out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        });
        let expected = law(&codes, &x, tokens, rows, cols).into_iter().zip(scales.iter().cycle());
        let expected: Vec<_> = expected.map(|(v, s)| (f32::from_bits(v) * s).to_bits()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn weights_that_are_not_finite_are_seen_in_int8() {
        let pool = Pool::new(1);
        for bad in [f32::NAN, f32::INFINITY] {
            let band = |_| Ok::<_, Infallible>(Floats::F32(vec![bad, 1.0]));
            let m = FloatRows::read_int8(&pool, 1, 2, band).unwrap();
            let mut out = [0.0];
            m.matmul(&pool, &[1.0; 2], 1, &mut out);
            assert!(!out[0].is_finite(), "{bad}");
        }
    }

    #[test]
    fn bands_make_the_same_matrix_and_errors_come_through() {
        let (pool, rows, cols) = (Pool::new(2), 70, 9);
        let w = values(12, rows * cols);
        let band = |r: Range<usize>| Floats::F32(w[r.start * cols..r.end * cols].to_vec());
        let read = FloatRows::read(&pool, rows, cols, |r| Ok::<_, String>(band(r))).unwrap();
        let (mut found, mut expected) = ([0.0; 9], [0.0; 9]);
        for r in 0..rows {
            read.row(r, &mut found);
            FloatRows::from_f32(&pool, rows, cols, &w).row(r, &mut expected);
            assert_eq!(found, expected);
        }
        let fails = |r: Range<usize>| if r.contains(&40) { Err("row 40") } else { Ok(band(r)) };
        assert_eq!(FloatRows::read(&pool, rows, cols, fails).unwrap_err(), "row 40");
        assert_eq!(FloatRows::read_int8(&pool, rows, cols, fails).unwrap_err(), "row 40");
        assert_eq!(FloatRows::read_int6(&pool, rows, cols, fails).unwrap_err(), "row 40");
    }

    #[test]
    fn sums_over_no_columns_are_zero() {
        let (pool, rows) = (Pool::new(2), 33);
        let none = |_| Ok::<_, Infallible>(Floats::F32(vec![]));
        let matrices = [FloatRows::read, FloatRows::read_int8, FloatRows::read_int6];
        for m in matrices.map(|read| read(&pool, rows, 0, none).unwrap()) {
            let mut out = [f32::NAN; 2 * 33];
            m.matmul(&pool, &[], 2, &mut out);
            assert_eq!(out, [0.0; 2 * 33], "{m:?}");
            m.row(32, &mut []);
        }
    }

    #[test]
    fn rows_come_back_exact() {
        let pool = Pool::new(2);
        let w: Vec<bf16> = values(9, 70 * 11).iter().map(|v| bf16::from_f32(*v)).collect();
        let m = FloatRows::from_bf16(&pool, 70, 11, &w);
        let mut row = [0.0; 11];
        for r in 0..70 {
            m.row(r, &mut row);
            assert!(row.iter().zip(&w[r * 11..]).all(|(a, b)| *a == b.to_f32()));
        }
        assert_eq!(m.bytes(), 96 * 11 * 2);
    }
}
