//! One call of a kernel, by one of three ways.

use super::chunk::Chunks;
use super::lookup::Lookup;
use super::source::{Source, Space, row_bytes};
use super::{MAX_TILE, Ops};
use crate::acts::Activations;
use crate::kernel::Packed;
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use std::ops::Range;

/// Where sums go; see [`Kernel::run`](crate::kernel::Kernel::run).
type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[i32]);

/// The arguments of [`Kernel::run`](crate::kernel::Kernel::run), checked, on a tier that the CPU has.
pub(super) struct Call<'a> {
    ops: &'static Ops,
    weights: &'a Packed,
    source: Source,
    x: &'a Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    /// Groups of columns; the activations have room for all of them.
    groups: usize,
}

impl<'a> Call<'a> {
    /// Takes arguments that passed [`check_call`](crate::kernel::check_call).
    ///
    /// # Safety
    /// The CPU must have the tier of `ops`.
    pub(super) unsafe fn new(
        ops: &'static Ops,
        weights: &'a Packed,
        x: &'a Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
    ) -> Self {
        let groups = weights.cols().div_ceil(GROUP);
        assert!(x.stride() >= groups * GROUP, "strides are whole groups");
        Self { ops, weights, source: Source::of(weights), x, tokens, rows, groups }
    }

    /// One token, straight from the chunks of a layout that has them.
    pub(super) fn by_chunks(&self, chunks: Chunks, sink: Sink) {
        let row_bytes = row_bytes(self.weights, chunks);
        let rows = &self.weights.bytes()[self.rows.start * row_bytes..][..self.rows.len() * row_bytes];
        for t in self.tokens.clone() {
            let mut sums = [0; ROWS];
            for (i, rows) in rows.chunks(ROWS * row_bytes).enumerate() {
                let sums = &mut sums[..rows.len() / row_bytes];
                for (row, sum) in rows.chunks_exact(row_bytes).zip(sums.iter_mut()) {
                    // SAFETY: the tier is there (`new`); the row's slice holds the chunks of all
                    // groups, and the token as many columns (`new`).
                    *sum = unsafe {
                        (self.ops.chunks)(row.as_ptr(), chunks, self.groups, self.x.row(t).as_ptr())
                    };
                }
                correct(sums, self.x.sum(t));
                sink(t, self.rows.start + i * ROWS, sums);
            }
        }
    }

    /// Strip by strip, in tiles of tokens.
    pub(super) fn by_strips(&self, space: &mut Space, sink: Sink) {
        let reversed = self.source.reversed();
        let mut sums = [[0; ROWS]; MAX_TILE];
        for start in self.rows.clone().step_by(ROWS) {
            let rows = start..self.rows.end.min(start + ROWS);
            let strip = self.source.strip(self.weights, rows.clone(), space);
            assert_eq!(strip.len(), self.groups * GROUP_BYTES);
            let strip = strip.as_ptr();
            let tiles = self.tokens.len().div_ceil(self.ops.tile_tokens);
            for i in 0..tiles {
                // As even as possible.
                let cut = |i| self.tokens.start + i * self.tokens.len() / tiles;
                let tile = cut(i)..cut(i + 1);
                if tile.len() == 1 {
                    let x = self.x.row(tile.start).as_ptr();
                    // SAFETY: the tier is there (`new`); the strip holds all groups, as asserted, and
                    // the token as many columns (`new`).
                    unsafe { (self.ops.gemv)(strip, self.groups, x, reversed, &mut sums[0]) };
                } else {
                    let mut x = [std::ptr::null(); MAX_TILE];
                    for (x, t) in x.iter_mut().zip(tile.clone()) {
                        *x = self.x.row(t).as_ptr();
                    }
                    // SAFETY: as above, for each token; a tile has at most `tile_tokens` tokens.
                    unsafe { (self.ops.tile)(strip, self.groups, &x[..tile.len()], reversed, &mut sums) };
                }
                for (sums, t) in sums.iter_mut().zip(tile) {
                    correct(sums, self.x.sum(t));
                    sink(t, start, &sums[..rows.len()]);
                }
            }
        }
    }

    /// By table lookup, and the tokens that do not fill a tile by multiplying.
    ///
    /// # Safety
    /// The CPU must have the tier of `L`.
    pub(super) unsafe fn by_lookup<L: Lookup>(mut self, lookup: &mut L, space: &mut Space, sink: Sink) {
        lookup.resize(self.rows.len(), self.weights.cols());
        for (at, start) in self.rows.clone().step_by(ROWS).enumerate() {
            let strip = self.source.strip(self.weights, start..self.rows.end.min(start + ROWS), space);
            // SAFETY: the tier is the caller's promise.
            unsafe { lookup.decode(at, strip, self.source.reversed()) };
        }
        let whole = self.tokens.start..self.tokens.end - self.tokens.len() % L::TOKENS;
        for first in whole.clone().step_by(L::TOKENS) {
            for t in 0..L::TOKENS {
                lookup.set_token(t, self.x.row(first + t));
            }
            // SAFETY: the tier is the caller's promise.
            unsafe { lookup.multiply(self.source.reversed()) };
            let mut sink = |t, row, sums: &[i32]| {
                let len = sums.len().min(self.rows.len().saturating_sub(row));
                sink(first + t, self.rows.start + row, &sums[..len]);
            };
            // SAFETY: the tier is the caller's promise.
            unsafe { lookup.each_sum(&mut sink) };
        }
        self.tokens.start = whole.end;
        if !self.tokens.is_empty() {
            self.by_strips(space, sink);
        }
    }
}

/// Turns sums over codes into sums over weights.
fn correct(sums: &mut [i32], sum: i32) {
    for s in sums {
        *s = s.wrapping_sub(sum);
    }
}
