//! One call of a kernel, by one of its ways.

use super::chunk;
use super::digits;
use super::lookup256::{self, Quads};
use super::lookup512::{self, Words};
use super::nibbles;
use super::row;
use super::strip::SPREAD_BYTES;
use super::triples;
use super::{MAX_TILE, Ops, Read, Tile, most};
use crate::acts::Activations;
use crate::buffer::{Array, AtLine};
use crate::kernel::Packed;
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use crate::tier::Tier;
use crate::tier::source::{Chunks, Source, Space};
use crate::tuning;
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
        Self { ops, weights, source: Source::of(weights.layout(), weights.cols()), x, tokens, rows, groups }
    }

    /// A few tokens at a time, straight from the chunks of a layout that has them.
    pub(super) fn by_chunks(&self, chunks: Chunks, arranged: &mut Array<i8>, sink: Sink) {
        let row_bytes = chunks.row_bytes(self.groups);
        if self.tokens.len() == 1 {
            let x = self.x.row(self.tokens.start).as_ptr();
            return self.by_runs(row_bytes, 1, sink, |rows, stride, _| {
                // SAFETY: the tier is there (`new`); each row of the run holds the chunks of all groups, and the
                // token as many columns (`new`).
                [unsafe { (self.ops.chunks)(rows, stride, chunks, self.groups, x) }]
            });
        }
        let width = chunk::arranged(self.groups, self.ops.chunk_width);
        let arranged = arranged.first(self.tokens.len() * width);
        for (t, out) in self.tokens.clone().zip(arranged.chunks_exact_mut(width)) {
            let x = &self.x.row(t)[..self.groups * GROUP];
            chunk::arrange(x, chunks.planes(), self.ops.chunk_width, out);
        }
        self.by_runs(row_bytes, self.ops.chunk_tokens, sink, |rows, stride, tokens| {
            let x = arranged_tokens(arranged, width, &tokens);
            // SAFETY: the tier is there (`new`); each row of the run holds the chunks of all groups, and the
            // tokens are arranged for all of them.
            unsafe {
                let x = &x[..tokens.len()];
                (self.ops.chunk_tile)(rows, stride, chunks, self.groups, x, tokens.start == 0)
            }
        });
    }

    /// A few tokens at a time, straight from the bytes of `tq1_0`.
    pub(super) fn by_digits(&self, arranged: &mut Array<i8>, sink: Sink) {
        let cols = self.weights.cols();
        let (bytes, width) = (digits::row_bytes(cols), digits::arranged(cols));
        let arranged = arranged.first(self.tokens.len() * width);
        for (t, out) in self.tokens.clone().zip(arranged.chunks_exact_mut(width)) {
            digits::arrange(&self.x.row(t)[..cols], self.ops.digit_width, out);
        }
        let blocks = digits::blocks(cols);
        self.by_runs(bytes, self.ops.chunk_tokens, sink, |rows, stride, tokens| {
            let x = arranged_tokens(arranged, width, &tokens);
            // SAFETY: the tier is there (`new`); each row of the run holds all blocks, and so do the tokens,
            // as they are arranged.
            unsafe {
                match &x[..tokens.len()] {
                    [x] => {
                        let mut tile = [[0; chunk::RUN]; chunk::TOKENS];
                        tile[0] = (self.ops.digits)(rows, stride, blocks, *x);
                        tile
                    }
                    x => (self.ops.digit_tile)(rows, stride, blocks, x, tokens.start == 0),
                }
            }
        });
    }

    /// A few neighbouring rows of so many bytes at a time, for up to `most` tokens at a time, as evenly as possible:
    /// `run` gives the sums of tokens, counted from the first, over the [`chunk::RUN`] rows that begin at a pointer,
    /// so many bytes apart: all in a slice of the weights.
    fn by_runs<const N: usize>(
        &self,
        row_bytes: usize,
        most: usize,
        sink: Sink,
        run: impl Fn(*const u8, usize, Range<usize>) -> [[i32; chunk::RUN]; N],
    ) {
        let mut sums = AtLine([[0; ROWS]; most::RUNS]);
        let sums = &mut sums.0[..self.tokens.len()];
        for start in self.rows.clone().step_by(ROWS) {
            let rows = start..self.rows.end.min(start + ROWS);
            for first in rows.clone().step_by(chunk::RUN) {
                let run_rows = first - start..rows.len().min(first - start + chunk::RUN);
                let bytes =
                    |i: usize, n: usize| &self.weights.bytes()[(first + i) * row_bytes..][..n * row_bytes];
                for tile in even(0..sums.len(), most) {
                    if run_rows.len() == chunk::RUN {
                        let of_run = run(bytes(0, chunk::RUN).as_ptr(), row_bytes, tile.clone());
                        for (sums, of_run) in sums[tile].iter_mut().zip(of_run) {
                            sums[run_rows.clone()].copy_from_slice(&of_run);
                        }
                        continue;
                    }
                    // The last rows: each by itself, as often as there are rows in a run.
                    for (i, row) in run_rows.clone().enumerate() {
                        let of_row = run(bytes(i, 1).as_ptr(), 0, tile.clone());
                        for (sums, [sum, ..]) in sums[tile.clone()].iter_mut().zip(of_row) {
                            sums[row] = sum;
                        }
                    }
                }
            }
            self.hand_over(start, sums, self.tokens.clone(), sink);
        }
    }

    /// By rows, unpacked, for a few tokens at a time.
    pub(super) fn by_rows(&self, unpacked: &mut Array<i8>, sink: Sink) {
        /// Room for unpacked rows in the first cache. Where it is enough for some rows, none waits for its
        /// own bytes to be written.
        const ROOM: usize = 4 << 10;
        let width = self.groups * GROUP;
        let run = (ROOM / width).clamp(1, ROWS);
        // Columns behind the last meet activations of zero.
        let unpacked = unpacked.first(run * width);
        let mut sums = AtLine([[0; ROWS]; most::ROWS]);
        let sums = &mut sums.0[..self.tokens.len()];
        for start in self.rows.clone().step_by(ROWS) {
            let all = start..self.rows.end.min(start + ROWS);
            for first in all.clone().step_by(run) {
                let rows = first..all.end.min(first + run);
                for (row, out) in rows.clone().zip(unpacked.chunks_exact_mut(width)) {
                    self.weights.unpack_row(row, &mut out[..self.weights.cols()]);
                }
                for (few, sums) in sums.chunks_mut(row::TOKENS).enumerate() {
                    let x: [_; row::TOKENS] = std::array::from_fn(|i| {
                        let t = self.tokens.start + few * row::TOKENS + i;
                        if t < self.tokens.end { self.x.row(t).as_ptr() } else { std::ptr::null() }
                    });
                    for (row, unpacked) in rows.clone().zip(unpacked.chunks_exact(width)) {
                        let mut dots = [0; row::TOKENS];
                        // SAFETY: the tier is there (`new`); the row was made long enough for all groups,
                        // and so are the tokens (`new`), as many as there are sums.
                        unsafe {
                            (self.ops.row)(unpacked.as_ptr(), self.groups, &x[..sums.len()], &mut dots);
                        }
                        for (sums, dot) in sums.iter_mut().zip(dots) {
                            sums[row - start] = dot;
                        }
                    }
                }
            }
            self.hand_over(start, sums, self.tokens.clone(), sink);
        }
    }

    /// By looking sums of triples of `tm1_67` weights up.
    ///
    /// # Safety
    /// The CPU must have AVX-512 with BW.
    pub(super) unsafe fn by_triples(&self, scratch: &mut triples::Scratch, sink: Sink) {
        let (tokens, rows) = (self.tokens.clone(), self.rows.clone());
        let vnni = self.ops.tier == Tier::Avx512Vnni;
        // SAFETY: the tier is the caller's promise; the one with VNNI has VBMI2 (`new`).
        unsafe { triples::multiply(self.weights, self.x, tokens, rows, vnni, scratch, sink) }
    }

    /// Token after token, straight from the nibbles of `tl1` or `tl2`.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    pub(super) unsafe fn by_nibbles(&self, scratch: &mut nibbles::Scratch, sink: Sink) {
        let (tokens, rows) = (self.tokens.clone(), self.rows.clone());
        // SAFETY: the tier is the caller's promise.
        unsafe { nibbles::multiply(self.weights, self.x, tokens, rows, scratch, sink) }
    }

    /// Strip by strip, in tiles of tokens.
    pub(super) fn by_strips(&self, space: &mut Space, sink: Sink) {
        let mut sums = AtLine([[0; ROWS]; MAX_TILE]);
        for start in self.rows.clone().step_by(ROWS) {
            let strip = self.strip(start..self.rows.end.min(start + ROWS), space);
            self.by_tiles(start, strip, &mut sums.0, sink);
        }
    }

    /// The strip that begins at row `start`, in tiles of tokens.
    fn by_tiles(&self, start: usize, strip: &[u8], sums: &mut Tile, sink: Sink) {
        /// Bytes of a strip from which on a Zen 4, too, reads it more slowly than memory gives it, unless asked.
        const WIDE: usize = 24 << 10;
        assert_eq!(strip.len(), self.groups * GROUP_BYTES);
        for tile in self.tiles() {
            // Other strips were just made, in cache.
            let ask = matches!(self.source, Source::Strips) && tile.start == self.tokens.start;
            if tile.len() == 1 {
                let (x, planes) = (self.x.row(tile.start).as_ptr(), self.source.planes());
                let ask = ask && (tuning::sequences() || strip.len() > WIDE);
                // SAFETY: the tier is there (`new`); the strip holds all groups, as asserted, and
                // the token as many columns (`new`).
                unsafe { (self.ops.gemv)(strip.as_ptr(), self.groups, x, planes, &mut sums[0], ask) };
            } else {
                let read = if ask { Read::Asking } else { Read::Cached };
                // SAFETY: the strip holds all groups, as asserted.
                unsafe { self.tile(strip, tile.clone(), sums, read) };
            }
            self.hand_over(start, sums, tile, sink);
        }
    }

    /// As [`by_strips`](Self::by_strips), with the codes of a few strips at a time spread before all tokens pass.
    pub(super) fn by_spread(&self, space: &mut Space, spread: &mut Array<u8>, sink: Sink) {
        /// Room for spread strips in the second-level cache.
        const ROOM: usize = 256 << 10;
        let bytes = self.groups * SPREAD_BYTES;
        let run = (ROOM / bytes.max(1)).max(1);
        let spread = spread.first(run * bytes);
        let mut sums = AtLine([[0; ROWS]; MAX_TILE]);
        for first in self.rows.clone().step_by(run * ROWS) {
            let starts = (first..self.rows.end.min(first + run * ROWS)).step_by(ROWS);
            for (start, out) in starts.clone().zip(spread.chunks_exact_mut(bytes)) {
                let strip = self.strip(start..self.rows.end.min(start + ROWS), space);
                // SAFETY: the tier is there (`new`).
                unsafe { (self.ops.spread)(strip, out) };
            }
            for tile in self.tiles() {
                for (start, strip) in starts.clone().zip(spread.chunks_exact(bytes)) {
                    // SAFETY: spread strips are cut to hold all groups.
                    unsafe { self.tile(strip, tile.clone(), &mut sums.0, Read::Spread) };
                    self.hand_over(start, &mut sums.0, tile.clone(), sink);
                }
            }
        }
    }

    /// The strip of some rows.
    fn strip<'s>(&'s self, rows: Range<usize>, space: &'s mut Space) -> &'s [u8] {
        // SAFETY: the tier is there (`new`).
        unsafe { (self.ops.strip)(self.source, self.weights, rows, space) }
    }

    /// The tokens in tiles: as few as possible, as even as possible, where there are tiles of that size, else the
    /// largest.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (mut left, sizes) = (self.tokens.clone(), self.ops.tiles);
        std::iter::from_fn(move || {
            let most = sizes.iter().copied().rfind(|&size| size <= left.len())?;
            let parts = left.len().div_ceil(sizes[sizes.len() - 1]);
            let even = left.len().div_ceil(parts);
            let size = if sizes.contains(&even) { even } else { most };
            let tile = left.start..left.start + size;
            left.start = tile.end;
            Some(tile)
        })
    }

    /// Sums over the codes of a strip for a tile.
    ///
    /// # Safety
    /// The strip must hold all groups, spread if it is read so; `tile` must be one of [`tiles`](Self::tiles).
    unsafe fn tile(&self, strip: &[u8], tile: Range<usize>, sums: &mut Tile, read: Read) {
        let planes = self.source.planes();
        let mut x = [std::ptr::null(); MAX_TILE];
        for (x, t) in x.iter_mut().zip(tile.clone()) {
            *x = self.x.row(t).as_ptr();
        }
        // SAFETY: the tier is there (`new`); each token has the columns of all groups (`new`); the rest is the
        // caller's promise.
        unsafe { (self.ops.tile)(strip.as_ptr(), self.groups, &x[..tile.len()], planes, sums, read) };
    }

    /// Turns sums over codes of the strip that begins at row `start` into sums over weights and hands
    /// them on.
    fn hand_over(&self, start: usize, sums: &mut [[i32; ROWS]], tokens: Range<usize>, sink: Sink) {
        // Before the first of them goes anywhere: what `sink` writes is far from caches, and sums that are behind it in
        // the store queue cannot be read until it is there.
        for (sums, t) in sums.iter_mut().zip(tokens.clone()) {
            let of_token = self.x.sum(t);
            for sum in sums.iter_mut() {
                *sum = sum.wrapping_sub(of_token);
            }
        }
        let rows = ROWS.min(self.rows.end - start);
        for (sums, t) in sums.iter().zip(tokens) {
            sink(t, start, &sums[..rows]);
        }
    }

    /// By looking sums of quads of weights up; `made` holds strips that had to be made. The tokens that are left over
    /// are multiplied.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    pub(super) unsafe fn by_quads(
        mut self,
        quads: &mut Quads,
        space: &mut Space,
        made: &mut Array<u8>,
        sink: Sink,
    ) {
        let bytes = self.groups * GROUP_BYTES;
        let (first, last) = (self.rows.start / ROWS, self.rows.end.div_ceil(ROWS));
        let strips = match self.source {
            Source::Strips => &self.weights.bytes()[first * bytes..last * bytes],
            _ => {
                let made = made.first((last - first) * bytes);
                for (start, out) in self.rows.clone().step_by(ROWS).zip(made.chunks_exact_mut(bytes)) {
                    out.copy_from_slice(self.strip(start..self.rows.end.min(start + ROWS), space));
                }
                made
            }
        };
        let left = self.tokens.len() % lookup256::TOKENS;
        let end = self.tokens.end - if left < lookup256::LEAST { left } else { 0 };
        let (tokens, planes) = (self.tokens.start..end, self.source.planes());
        // SAFETY: the tier is the caller's promise.
        unsafe {
            quads.multiply(strips, self.groups, planes, self.x, tokens, |t, row, sums| {
                self.hand_run(t, row, sums, sink);
            });
        }
        self.tokens.start = end;
        if !self.tokens.is_empty() {
            let mut sums = AtLine([[0; ROWS]; MAX_TILE]);
            for (start, strip) in self.rows.clone().step_by(ROWS).zip(strips.chunks_exact(bytes)) {
                self.by_tiles(start, strip, &mut sums.0, sink);
            }
        }
    }

    /// By looking sums of words of weights up.
    ///
    /// # Safety
    /// The CPU must have AVX-512 with BW, and VNNI to multiply too.
    pub(super) unsafe fn by_words<const DOTS: bool>(
        &self,
        words: &mut Words<DOTS>,
        space: &mut Space,
        sink: Sink,
    ) {
        words.resize(self.rows.len(), self.weights.cols());
        let bytes = self.groups * GROUP_BYTES;
        // Those that are there are taken while the first tokens are multiplied.
        let mut strips: &[u8] = &[];
        if matches!(self.source, Source::Strips) {
            let (first, last) = (self.rows.start / ROWS, self.rows.end.div_ceil(ROWS));
            strips = &self.weights.bytes()[first * bytes..last * bytes];
        } else {
            for (at, start) in self.rows.clone().step_by(ROWS).enumerate() {
                let strip = self.strip(start..self.rows.end.min(start + ROWS), space);
                // SAFETY: the tier is the caller's promise.
                unsafe { words.decode(at, strip) };
            }
        }
        let planes = self.source.planes();
        for first in self.tokens.clone().step_by(lookup512::TOKENS) {
            let tokens = lookup512::TOKENS.min(self.tokens.end - first);
            for t in 0..tokens {
                // SAFETY: the tier is the caller's promise.
                unsafe { words.set_token(t, self.x.row(first + t), planes) };
            }
            // SAFETY: the tier is the caller's promise.
            unsafe { words.multiply(tokens, std::mem::take(&mut strips), bytes) };
            words.each_sum(tokens, |t, row, sums| self.hand_run(first + t, row, sums, sink));
        }
    }

    /// Hands sums of consecutive rows on that may reach behind the last one.
    fn hand_run(&self, t: usize, row: usize, sums: &[i32], sink: Sink) {
        let len = sums.len().min(self.rows.len().saturating_sub(row));
        sink(t, self.rows.start + row, &sums[..len]);
    }
}

/// Where some tokens are, of which each takes `width`.
fn arranged_tokens(arranged: &[i8], width: usize, tokens: &Range<usize>) -> [*const i8; chunk::TOKENS] {
    let mut x = [std::ptr::null(); chunk::TOKENS];
    for (x, t) in x.iter_mut().zip(tokens.clone()) {
        *x = arranged[t * width..][..width].as_ptr();
    }
    x
}

/// Tokens in as few parts of at most so many as possible, as even as possible.
fn even(tokens: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (tokens.start, tokens.len());
    let parts = len.div_ceil(most);
    (0..parts).map(move |i| start + i * len / parts..start + (i + 1) * len / parts)
}
