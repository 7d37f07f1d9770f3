//! Kernels for x86-64.
//!
//! One kernel type serves every layout and tier. Its core multiplies strips of the
//! [`tm2`](crate::layout::TM2) form ([`strip`]), over the few operations of [`vector::Vector`]; a
//! tier is a choice of vector type and tile size. A layout other than `tm2` is turned into that form,
//! a strip at a time in cache, which many tokens share; where its bytes allow it, one token is
//! multiplied directly ([`chunk`]).

mod chunk;
mod lookup;
mod peak;
mod strip;
mod vector;

use crate::acts::Activations;
use crate::kernel::{Kernel, New, Packed, check_call};
use crate::layout::tm2::{self, GROUP, GROUP_BYTES, ROW_BYTES, ROWS};
use crate::layout::{HF, I2_S, Layout, TM2, TQ1_0, TQ2_0};
use crate::tier::Tier;
use chunk::Chunks;
use std::cell::RefCell;
use std::ops::Range;

/// Every kernel for this architecture.
pub(crate) static KERNELS: &[(&dyn Layout, Tier, New)] = &kernels![HF, I2_S, TM2, TQ1_0, TQ2_0];

/// The compiled algorithms of a tier.
struct Ops {
    tier: Tier,
    /// [`strip::gemv`].
    gemv: unsafe fn(*const u8, usize, *const i8, bool, &mut [i32; ROWS]),
    /// [`strip::tile`] for up to [`MAX_TILE`] tokens.
    tile: unsafe fn(*const u8, usize, &[*const i8], bool, &mut Tile),
    /// [`chunk::gemv`].
    chunks: unsafe fn(&[*const u8; chunk::ROWS], Chunks, usize, *const i8, &mut [i32; chunk::ROWS]),
    /// [`peak::peak`].
    peak: unsafe fn(usize),
    /// Multiply-adds of one time of it.
    peak_macs: f64,
    /// Tokens in a full tile.
    tile_tokens: usize,
    /// Tokens and rows from which on lookup is faster than multiplying.
    lookup_from: Option<(usize, usize)>,
}

/// The most tokens that the tiles of any tier take.
const MAX_TILE: usize = 12;

/// Sums of a tile: rows of a strip for each token.
type Tile = [[i32; ROWS]; MAX_TILE];

/// Compiles the algorithms for a tier.
macro_rules! ops {
    ($name:ident, $tier:expr, $features:literal, $strip:ident, $registers:literal, $chunk:ident,
     $tile_registers:literal, [$($nt:literal)+], $largest:literal, $peak:literal, $lookup:expr) => {
        static $name: Ops = {
            #[target_feature(enable = $features)]
            unsafe fn gemv(strip: *const u8, groups: usize, x: *const i8, reversed: bool, out: &mut [i32; ROWS]) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe {
                    strip::gemv::<vector::$strip, $registers>(strip, groups, x, strip::planes(reversed), out)
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn tile(
                strip: *const u8,
                groups: usize,
                x: &[*const i8],
                reversed: bool,
                out: &mut Tile,
            ) {
                let planes = strip::planes(reversed);
                match x.len() {
                    $($nt => {
                        let x: &[_; $nt] = x.try_into().expect("matched");
                        let out = out.first_chunk_mut::<$nt>().expect("no tile is larger");
                        // SAFETY: passed on; the function is compiled for the tier.
                        unsafe {
                            strip::tile::<vector::$strip, $tile_registers, $nt>(strip, groups, x, planes, out)
                        }
                    })+
                    n => unreachable!("a tile of {n} tokens"),
                }
            }
            #[target_feature(enable = $features)]
            unsafe fn chunks(
                rows: &[*const u8; chunk::ROWS],
                chunks: Chunks,
                groups: usize,
                x: *const i8,
                out: &mut [i32; chunk::ROWS],
            ) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { chunk::gemv::<vector::$chunk>(rows, chunks, groups, x, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn peak(times: usize) {
                // SAFETY: the function is compiled for the tier.
                unsafe { peak::peak::<vector::$strip, $peak>(times) }
            }
            Ops {
                tier: $tier,
                gemv,
                tile,
                chunks,
                peak,
                peak_macs: peak::macs::<vector::$strip, $peak>(),
                tile_tokens: $largest,
                lookup_from: $lookup,
            }
        };
    };
}

ops!(AVX2, Tier::Avx2, "avx2", Avx2, 4, Avx2, 2, [1 2 3 4], 4, 2, None);
ops!(AVXVNNI, Tier::AvxVnni, "avx2,avxvnni", AvxVnni, 4, AvxVnni, 2, [1 2 3 4], 4, 2, None);
ops!(AVX512, Tier::Avx512, "avx512f,avx512bw", Avx512, 2, Avx2, 2, [1 2 3 4 5 6 7 8 9 10 11 12], 12, 3, Some((16, 256)));
ops!(
    AVX512VNNI, Tier::Avx512Vnni, "avx512f,avx512bw,avx512vl,avx512vnni", Vnni512, 2, Vnni256, 2,
    [1 2 3 4 5 6 7 8 9 10 11 12], 12, 3, Some((64, 1024))
);

/// All tiers, lowest first.
static TIERS: [&Ops; 4] = [&AVX2, &AVXVNNI, &AVX512, &AVX512VNNI];

/// The multiply loop of a tier.
pub(crate) struct Peak(&'static Ops);

impl Peak {
    /// Multiply-adds of one time.
    pub(crate) fn macs(&self) -> f64 {
        self.0.peak_macs
    }

    /// Runs the loop.
    pub(crate) fn run(&self, times: usize) {
        // SAFETY: `peak`, which alone makes this value, has seen the tier.
        unsafe { (self.0.peak)(times) }
    }
}

/// The multiply loop of a tier, if this CPU has it.
pub(crate) fn peak(tier: Tier) -> Option<Peak> {
    let ops = TIERS.into_iter().find(|ops| ops.tier == tier)?;
    tier.is_available().then_some(Peak(ops))
}

/// How a layout's bytes become `tm2` strips.
#[derive(Clone, Copy)]
enum Source {
    /// They are strips.
    Strips,
    /// Rows of chunks.
    Chunks(Chunks),
    /// By unpacking rows.
    Rows,
}

impl Source {
    /// The best way for these weights.
    fn of(weights: &Packed) -> Self {
        let whole_groups = weights.cols().is_multiple_of(GROUP);
        match weights.layout().name() {
            "tm2" => Source::Strips,
            // A block straddles rows otherwise.
            "i2_s" if whole_groups => Source::Chunks(Chunks { pair: 2 * ROW_BYTES, reversed: true }),
            "tq2_0" => Source::Chunks(Chunks { pair: 2 * ROW_BYTES + 2, reversed: false }),
            _ => Source::Rows,
        }
    }

    /// The strip of these rows, from the weights or made in `strip`.
    fn strip<'a>(
        self,
        weights: &'a Packed,
        rows: Range<usize>,
        strip: &'a mut Vec<u8>,
        unpacked: &mut Vec<i8>,
    ) -> &'a [u8] {
        match self {
            Source::Strips => {
                let bytes = tm2::strip_bytes(weights.cols());
                &weights.bytes()[rows.start / ROWS * bytes..][..bytes]
            }
            Source::Chunks(chunks) => gather_chunks(weights, chunks, rows, strip),
            Source::Rows => gather_rows(weights, rows, strip, unpacked),
        }
    }
}

/// Any layout on one tier.
struct X86 {
    layout: &'static dyn Layout,
    ops: &'static Ops,
}

/// What a call needs besides its arguments; kept so that calls do not allocate.
#[derive(Default)]
struct Scratch {
    strip: Vec<u8>,
    rows: Vec<i8>,
    words: lookup::Words,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl X86 {
    /// The kernel, if this CPU has the tier.
    fn boxed(layout: &'static dyn Layout, ops: &'static Ops) -> Option<Box<dyn Kernel>> {
        ops.tier.is_available().then(|| Box::new(X86 { layout, ops }) as _)
    }
}

/// The kernels of some layouts.
macro_rules! kernels {
    ($($layout:ident),+) => {
        [$(
            (&$layout, Tier::Avx2, || X86::boxed(&$layout, &AVX2)),
            (&$layout, Tier::AvxVnni, || X86::boxed(&$layout, &AVXVNNI)),
            (&$layout, Tier::Avx512, || X86::boxed(&$layout, &AVX512)),
            (&$layout, Tier::Avx512Vnni, || X86::boxed(&$layout, &AVX512VNNI)),
        )+]
    };
}
use kernels;

impl Kernel for X86 {
    fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    fn tier(&self) -> Tier {
        self.ops.tier
    }

    fn row_step(&self) -> usize {
        ROWS
    }

    fn tokens_each(&self) -> Option<usize> {
        self.ops.lookup_from.map(|(tokens, _)| tokens)
    }

    fn run(&self, weights: &Packed, x: &Activations, tokens: Range<usize>, rows: Range<usize>, sink: Sink) {
        check_call(self, weights, x, &tokens, &rows);
        let source = Source::of(weights);
        match source {
            Source::Chunks(chunks) if tokens.len() == 1 => {
                self.gemv_chunks(weights, chunks, x, tokens.start, rows, sink)
            }
            _ => SCRATCH.with_borrow_mut(|scratch| {
                if self.looks_up(tokens.len(), rows.len()) {
                    self.by_lookup(weights, source, x, tokens, rows, scratch, sink)
                } else {
                    self.by_strips(weights, source, x, tokens, rows, scratch, sink)
                }
            }),
        }
    }
}

impl X86 {
    /// Whether lookup is faster than multiplying.
    fn looks_up(&self, tokens: usize, rows: usize) -> bool {
        self.ops.lookup_from.is_some_and(|(t, r)| tokens >= t && rows >= r)
    }

    /// By table lookup, and the tokens that do not fill a tile by multiplying.
    #[allow(clippy::too_many_arguments)] // those of `run`, and two
    fn by_lookup(
        &self,
        weights: &Packed,
        source: Source,
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        scratch: &mut Scratch,
        sink: Sink,
    ) {
        let reversed = matches!(source, Source::Chunks(Chunks { reversed: true, .. }));
        scratch.words.resize(rows.len(), weights.cols());
        for (at, start) in rows.clone().step_by(ROWS).enumerate() {
            let strip = source.strip(
                weights,
                start..rows.end.min(start + ROWS),
                &mut scratch.strip,
                &mut scratch.rows,
            );
            // SAFETY: `boxed` has seen the tier, and the caller that it is AVX-512.
            unsafe { scratch.words.decode(at, strip, reversed) };
        }
        let whole = tokens.start..tokens.end - tokens.len() % lookup::TOKENS;
        for first in whole.clone().step_by(lookup::TOKENS) {
            for t in 0..lookup::TOKENS {
                scratch.words.set_token(t, x.row(first + t));
            }
            // SAFETY: as above.
            unsafe { scratch.words.multiply() };
            for (t, row, sums) in scratch.words.sums() {
                // The last run may reach behind the last row.
                let len = sums.len().min(rows.len().saturating_sub(row));
                sink(first + t, rows.start + row, &sums[..len]);
            }
        }
        if whole.end < tokens.end {
            self.by_strips(weights, source, x, whole.end..tokens.end, rows, scratch, sink);
        }
    }

    /// Strip by strip, in tiles of tokens.
    #[allow(clippy::too_many_arguments)] // those of `run`, and two
    fn by_strips(
        &self,
        weights: &Packed,
        source: Source,
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        scratch: &mut Scratch,
        sink: Sink,
    ) {
        let groups = weights.cols().div_ceil(GROUP);
        // The activations' stride covers whole groups, so a token may be read up to the last one's end.
        assert!(x.stride() >= groups * GROUP);
        let reversed = matches!(source, Source::Chunks(Chunks { reversed: true, .. }));
        let mut sums = [[0; ROWS]; MAX_TILE];
        for start in rows.clone().step_by(ROWS) {
            let strip_rows = start..rows.end.min(start + ROWS);
            let len = strip_rows.len();
            let strip = source.strip(weights, strip_rows, &mut scratch.strip, &mut scratch.rows);
            assert_eq!(strip.len(), groups * GROUP_BYTES);
            let strip = strip.as_ptr();
            let tiles = tokens.len().div_ceil(self.ops.tile_tokens);
            for i in 0..tiles {
                // As even as possible.
                let cut = |i| tokens.start + i * tokens.len() / tiles;
                let tile = cut(i)..cut(i + 1);
                if tile.len() == 1 {
                    let x = x.row(tile.start).as_ptr();
                    // SAFETY: `boxed` has seen the tier; the strip holds `groups` groups and the
                    // token as many columns, both asserted above.
                    unsafe { (self.ops.gemv)(strip, groups, x, reversed, &mut sums[0]) };
                } else {
                    let mut pointers = [std::ptr::null(); MAX_TILE];
                    for (pointer, t) in pointers.iter_mut().zip(tile.clone()) {
                        *pointer = x.row(t).as_ptr();
                    }
                    // SAFETY: as above, for each token; a tile has at most `tile_tokens` tokens.
                    unsafe { (self.ops.tile)(strip, groups, &pointers[..tile.len()], reversed, &mut sums) };
                }
                for (sums, t) in sums.iter_mut().zip(tile) {
                    correct(sums, x.sum(t));
                    sink(t, start, &sums[..len]);
                }
            }
        }
    }

    /// One token, straight from the chunks.
    fn gemv_chunks(
        &self,
        weights: &Packed,
        chunks: Chunks,
        x: &Activations,
        token: usize,
        rows: Range<usize>,
        sink: Sink,
    ) {
        let groups = weights.cols() / GROUP;
        assert!(x.stride() >= groups * GROUP);
        let row_bytes = row_bytes(weights, chunks);
        for start in rows.clone().step_by(chunk::ROWS) {
            let len = chunk::ROWS.min(rows.end - start);
            // Behind the last row it is taken again.
            let pointers = std::array::from_fn(|i| {
                weights.bytes()[(start + i.min(len - 1)) * row_bytes..][..row_bytes].as_ptr()
            });
            let mut sums = [0; chunk::ROWS];
            // SAFETY: `boxed` has seen the tier; each row's slice holds the chunks of `groups` groups
            // and the token as many columns, asserted above.
            unsafe { (self.ops.chunks)(&pointers, chunks, groups, x.row(token).as_ptr(), &mut sums) };
            correct(&mut sums, x.sum(token));
            sink(token, start, &sums[..len]);
        }
    }
}

/// Where sums go; see [`Kernel::run`].
type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[i32]);

/// Turns sums over codes into sums over weights.
fn correct(sums: &mut [i32], sum: i32) {
    for s in sums {
        *s = s.wrapping_sub(sum);
    }
}

/// Bytes of a row of chunks.
fn row_bytes(weights: &Packed, chunks: Chunks) -> usize {
    let groups = weights.cols() / GROUP;
    // A row of an odd number of chunks ends in half a pair.
    groups / 2 * chunks.pair + groups % 2 * ROW_BYTES
}

/// The rows as a strip whose planes stand as in the chunks.
fn gather_chunks<'a>(
    weights: &Packed,
    chunks: Chunks,
    rows: Range<usize>,
    strip: &'a mut Vec<u8>,
) -> &'a [u8] {
    strip.resize(weights.cols() / GROUP * GROUP_BYTES, 0);
    let row_bytes = row_bytes(weights, chunks);
    for (r, row) in rows.enumerate() {
        let row = &weights.bytes()[row * row_bytes..][..row_bytes];
        for (g, group) in strip.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().enumerate() {
            let codes = row[chunks.offset(g)..].first_chunk().expect("a chunk is inside its row");
            tm2::put_row(group, r, codes);
        }
    }
    strip
}

/// The rows as a strip.
fn gather_rows<'a>(
    weights: &Packed,
    rows: Range<usize>,
    strip: &'a mut Vec<u8>,
    unpacked: &mut Vec<i8>,
) -> &'a [u8] {
    let cols = weights.cols();
    unpacked.resize(rows.len() * cols, 0);
    for (row, out) in rows.clone().zip(unpacked.chunks_exact_mut(cols)) {
        weights.unpack_row(row, out);
    }
    strip.resize(tm2::strip_bytes(cols), 0);
    tm2::pack_strip(rows.len(), |r| &unpacked[r * cols..][..cols], strip);
    strip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trits;
    use crate::tier::scalar::Scalar;

    /// The tiers with lookup wherever it is possible, however slow: the test-suite over all kernels
    /// has too few tokens for most of them to choose it.
    #[test]
    fn lookup_agrees_with_the_scalar_kernel() {
        let mut x = Activations::new();
        for (rows, cols, tokens) in [(1, 1, 8), (33, 97, 9), (64, 128, 17), (70, 512, 16), (200, 1280, 40)] {
            let trit = |i: usize| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i8 % 2;
            let matrices =
                [(0..rows * cols).map(trit).collect(), vec![1; rows * cols], vec![-1; rows * cols]];
            for trits in matrices.map(|data| Trits::new(rows, cols, data).unwrap()) {
                for layout in [&I2_S as &dyn Layout, &TM2, &TQ2_0] {
                    let Ok(packed) = Packed::pack(layout, &trits) else { continue };
                    let layout = packed.layout();
                    let byte = |i: usize| (i.wrapping_mul(0xD1B5_4A32_D192_ED03) >> 40) as i8;
                    let n = tokens * cols;
                    for q in [(0..n).map(byte).collect(), vec![127; n], vec![-128; n]] {
                        x.set_i8(tokens, cols, &q);
                        let mut expected = vec![0; tokens * rows];
                        Scalar(layout).matmul(&packed, &x, 0..rows, &mut expected);
                        for ops in TIERS.into_iter().filter(|o| o.lookup_from.is_some()) {
                            let ops: &Ops = Box::leak(Box::new(Ops { lookup_from: Some((1, 1)), ..*ops }));
                            let Some(kernel) = X86::boxed(layout, ops) else { continue };
                            let mut out = vec![0; tokens * rows];
                            kernel.matmul(&packed, &x, 0..rows, &mut out);
                            assert!(out == expected, "{} {rows}x{cols}, {tokens} tokens", kernel.name());
                        }
                    }
                }
            }
        }
    }
}
