//! The one loop under float matrices and attention.
//!
//! A matrix lies in *panels* of 32 rows, column by column: line `c` of a panel holds the weights of
//! its 32 rows at column `c`. One pass over a panel's lines multiplies it by up to [`Simd::TILE`]
//! tokens, whose sums stay in registers. Each output is `fma(w[c], x[c], sum)` over the columns in
//! order, from 0: a sequence that does not depend on how many tokens or rows share the pass.

use super::simd::{LANES, Simd};
use crate::buffer::{Array, Plain};
use half::{bf16, f16};

/// Rows of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// Bytes of panels that a thread takes at a time.
pub(super) const TASK: usize = 128 << 10;

/// One column of a panel: half a cache line or some whole ones.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Line<E>(pub [E; PANEL]);

// SAFETY: nothing but elements, aligned to 32 bytes or as they are (see `Element`).
unsafe impl<E: Element> Plain for Line<E> {}

/// An array of lines.
pub(super) type Lines<E> = Array<Line<E>>;

/// The size of what has these dimensions.
///
/// # Panics
/// If no memory holds so much.
pub(super) fn product(dimensions: &[usize]) -> usize {
    let size = dimensions.iter().try_fold(1usize, |size, &n| size.checked_mul(n));
    size.expect("a size that memory can hold")
}

/// A stored float.
///
/// # Safety
/// Any bits are a value without padding, all bits zero are 0, and it needs no more than 32 bytes of
/// alignment.
pub(super) unsafe trait Element: Copy + Send + Sync {
    /// Where row `row` of a panel stands in its lines.
    fn place(row: usize) -> usize {
        row
    }
    /// Its exact value.
    fn to_f32(self) -> f32;
    /// The exact values of rows 0–15 and of rows 16–31.
    fn widen<S: Simd>(simd: S, line: &[Self; PANEL]) -> (S::V, S::V);
}

fn halves<E>(line: &[E; PANEL]) -> (&[E; LANES], &[E; LANES]) {
    let (a, b) = line.split_at(LANES);
    (a.try_into().expect("half a line"), b.try_into().expect("half a line"))
}

// SAFETY: an IEEE-like float of 4 bytes: any bits are a value, and zero bits are 0.
unsafe impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, line: &[Self; PANEL]) -> (S::V, S::V) {
        let (a, b) = halves(line);
        (simd.load(a), simd.load(b))
    }
}

// SAFETY: an IEEE-like float of 2 bytes: any bits are a value, and zero bits are 0.
unsafe impl Element for f16 {
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, line: &[Self; PANEL]) -> (S::V, S::V) {
        let (a, b) = halves(line);
        (simd.widen_f16(a), simd.widen_f16(b))
    }
}

// SAFETY: an integer of one byte.
unsafe impl Element for i8 {
    fn to_f32(self) -> f32 {
        self.into()
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, line: &[Self; PANEL]) -> (S::V, S::V) {
        let (a, b) = halves(line);
        (simd.widen_i8(a), simd.widen_i8(b))
    }
}

// SAFETY: an IEEE-like float of 2 bytes: any bits are a value, and zero bits are 0.
unsafe impl Element for bf16 {
    /// Rows 0–15 at even places, 16–31 at odd ones: widening is then a shift and a mask.
    fn place(row: usize) -> usize {
        row % LANES * 2 + row / LANES
    }

    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, line: &[Self; PANEL]) -> (S::V, S::V) {
        simd.widen_bf16(line)
    }
}

/// Sums of 32 rows for `T` tokens.
pub(super) type Sums<const T: usize> = [[f32; PANEL]; T];

/// Takes the 32 sums of (panel, token).
pub(super) type Out<'a> = &'a mut dyn FnMut(usize, usize, &[f32; PANEL]);

/// Multiplies a panel by `T` tokens: token `t` starts at `x[t * stride]` and is as long as the panel
/// has lines. `before(c)` is called before line `c` is read.
///
/// # Panics
/// If `x` is too short.
#[inline(always)]
pub(super) fn multiply<S: Simd, E: Element, const T: usize>(
    simd: S,
    panel: &[Line<E>],
    x: &[f32],
    stride: usize,
    before: impl Fn(usize),
) -> Sums<T> {
    assert!(x.len() >= (T - 1) * stride + panel.len());
    let mut sums = [[simd.splat(0.0); 2]; T];
    for (c, line) in panel.iter().enumerate() {
        before(c);
        let (a, b) = E::widen(simd, &line.0);
        for (t, sum) in sums.iter_mut().enumerate() {
            // SAFETY: t < T and c < panel.len(), so the index is below the length asserted above.
            let x = simd.splat(unsafe { *x.get_unchecked(t * stride + c) });
            *sum = [simd.fma(a, x, sum[0]), simd.fma(b, x, sum[1])];
        }
    }
    let mut out = [[0.0; PANEL]; T];
    for (out, sum) in out.iter_mut().zip(sums) {
        out[..LANES].copy_from_slice(&simd.to_array(sum[0]));
        out[LANES..].copy_from_slice(&simd.to_array(sum[1]));
    }
    out
}

/// Cuts `tokens` into tiles that the instruction set has registers for and runs
/// `$body` for each, with `$start` the first token and `$t` the (constant) number of tokens.
macro_rules! for_each_tile {
    ($simd:ty, $tokens:expr, |$start:ident, $t:ident| $body:expr) => {{
        let (tokens, mut $start) = ($tokens, 0);
        for_each_tile!(@size 12, $simd, tokens, $start, $t, $body);
        for_each_tile!(@size 8, $simd, tokens, $start, $t, $body);
        for_each_tile!(@size 4, $simd, tokens, $start, $t, $body);
        for_each_tile!(@size 2, $simd, tokens, $start, $t, $body);
        for_each_tile!(@size 1, $simd, tokens, $start, $t, $body);
        debug_assert_eq!($start, tokens);
    }};
    (@size $size:literal, $simd:ty, $tokens:ident, $start:ident, $t:ident, $body:expr) => {
        if <$simd>::TILE >= $size {
            const $t: usize = $size;
            while $tokens - $start >= $t {
                $body;
                $start += $t;
            }
        }
    };
}
pub(super) use for_each_tile;
