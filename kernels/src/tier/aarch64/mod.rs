//! Kernels for aarch64.
//!
//! One kernel type serves every layout and tier, over the algorithms of [`strip`]: several tokens are
//! multiplied with strips of the [`tm2`](crate::layout::TM2) form, into which other layouts are turned
//! a strip at a time in cache; one token with strips, or straight from a layout's rows where its
//! bytes allow it. For a few tokens, sums of `tl1` and `tl2` weights are looked up ([`nibbles`]).

mod nibbles;
mod strip;
mod vector;

use crate::acts::Activations;
use crate::kernel::{Kernel, Packed, Way, check_call};
use crate::layout::Layout;
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use crate::sealed::Sealed;
use crate::tier::Tier;
use crate::tier::source::{Chunks, Source, Space};
use crate::tier::triples;
use std::cell::RefCell;
use std::ops::Range;
use strip::CHUNK_ROWS;
pub(crate) use vector::sdot;
use vector::{Neon, Sdot};

/// The compiled algorithms of a tier.
struct Ops {
    tier: Tier,
    /// [`strip::tile`] or [`strip::tile_mm`] for one to [`tile_tokens`](Self::tile_tokens) tokens.
    tile: unsafe fn(*const u8, usize, &[*const i8], [usize; 4], &mut Tile),
    /// [`strip::chunks`].
    chunks: unsafe fn(&[*const u8; CHUNK_ROWS], Chunks, usize, *const i8, &mut [i32; CHUNK_ROWS]),
    /// Tokens in a full tile.
    tile_tokens: usize,
}

/// The most tokens that the tiles of any tier take.
const MAX_TILE: usize = 8;

/// Sums of a tile: rows of a strip for each token.
type Tile = [[i32; ROWS]; MAX_TILE];

/// Compiles the algorithms for a tier, given how it multiplies a tile.
macro_rules! ops {
    ($name:ident, $tier:expr, $features:literal, $dot:ident, $largest:literal,
     |$strip:ident, $groups:ident, $x:ident, $planes:ident, $out:ident| $tile:expr) => {
        static $name: Ops = {
            #[target_feature(enable = $features)]
            unsafe fn tile(
                $strip: *const u8,
                $groups: usize,
                $x: &[*const i8],
                $planes: [usize; 4],
                $out: &mut Tile,
            ) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { $tile }
            }
            #[target_feature(enable = $features)]
            unsafe fn chunks(
                rows: &[*const u8; CHUNK_ROWS],
                chunks: Chunks,
                groups: usize,
                x: *const i8,
                out: &mut [i32; CHUNK_ROWS],
            ) {
                // SAFETY: passed on; the function is compiled for the tier.
                unsafe { strip::chunks::<$dot>(rows, chunks, groups, x, out) }
            }
            Ops { tier: $tier, tile, chunks, tile_tokens: $largest }
        };
    };
}

/// Tiles of lanes, for as many tokens as there are, each with its number of registers of rows.
macro_rules! tile {
    ($dot:ident, [$($nt:literal: $registers:literal)+], $strip:ident, $groups:ident, $x:ident, $planes:ident,
     $out:ident) => {
        match $x.len() {
            $($nt => {
                let x: &[_; $nt] = $x.try_into().expect("matched");
                let out = $out.first_chunk_mut::<$nt>().expect("no tile is larger");
                strip::tile::<$dot, $registers, $nt>($strip, $groups, x, $planes, out)
            })+
            n => unreachable!("a tile of {n} tokens"),
        }
    };
}

/// Tiles of pairs of tokens; an odd one is paired with itself.
macro_rules! tile_mm {
    ([$($np:literal)+], $strip:ident, $groups:ident, $x:ident, $planes:ident, $out:ident) => {
        match $x.len().div_ceil(2) {
            $($np => {
                let last = $x.len() - 1;
                let x: [_; $np] = std::array::from_fn(|i| [$x[2 * i], $x[(2 * i + 1).min(last)]]);
                let (pairs, _) = $out.as_chunks_mut::<2>();
                let out = pairs.first_chunk_mut::<$np>().expect("no tile is larger");
                strip::tile_mm::<$np>($strip, $groups, &x, $planes, out)
            })+
            n => unreachable!("a tile of {n} pairs of tokens"),
        }
    };
}

ops!(NEON, Tier::Neon, "neon", Neon, 4, |strip, groups, x, planes, out| {
    tile!(Neon, [1: 4 2: 2 3: 2 4: 2], strip, groups, x, planes, out)
});
ops!(DOTPROD, Tier::NeonDotprod, "neon,dotprod", Sdot, 4, |strip, groups, x, planes, out| {
    tile!(Sdot, [1: 8 2: 4 3: 4 4: 4], strip, groups, x, planes, out)
});
ops!(I8MM, Tier::NeonI8mm, "neon,dotprod,i8mm", Sdot, 8, |strip, groups, x, planes, out| {
    match x.len() {
        1 => tile!(Sdot, [1: 8], strip, groups, x, planes, out),
        _ => tile_mm!([1 2 3 4], strip, groups, x, planes, out),
    }
});

/// All tiers, lowest first.
static TIERS: [&Ops; 3] = [&NEON, &DOTPROD, &I8MM];

/// Any layout on one tier.
struct Aarch64 {
    layout: &'static dyn Layout,
    ops: &'static Ops,
}

/// The kernels of a layout, lowest tier first, each if this CPU has the tier.
pub(crate) fn kernels(layout: &'static dyn Layout) -> impl Iterator<Item = (Tier, Option<Box<dyn Kernel>>)> {
    TIERS.into_iter().map(move |ops| {
        let kernel = ops.tier.is_available().then(|| Box::new(Aarch64 { layout, ops }) as Box<dyn Kernel>);
        (ops.tier, kernel)
    })
}

/// Where sums go; see [`Kernel::run`].
type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[i32]);

impl Sealed for Aarch64 {}

impl Kernel for Aarch64 {
    fn layout(&self) -> &'static dyn Layout {
        self.layout
    }

    fn tier(&self) -> Tier {
        self.ops.tier
    }

    fn row_step(&self) -> usize {
        ROWS
    }

    fn way(&self) -> (Way, Tier) {
        // `smmla` multiplies pairs of tokens.
        let dots = self.ops.tier.min(Tier::NeonDotprod);
        match Source::of(self.layout, GROUP) {
            Source::Strips | Source::Chunks(_) => (Way::Direct, dots),
            Source::Nibbles if nibbles::suit(self.layout, 1, nibbles::MOST) => (Way::Lookup, Tier::Neon),
            Source::Triples | Source::Digits | Source::Rows | Source::Nibbles => (Way::Strips, dots),
        }
    }

    fn run(&self, weights: &Packed, x: &Activations, tokens: Range<usize>, rows: Range<usize>, sink: Sink) {
        check_call(self, weights, x, &tokens, &rows);
        SCRATCH.with_borrow_mut(|Scratch { space, nibbles }| match Source::of(self.layout, weights.cols()) {
            Source::Chunks(chunks) if tokens.len() == 1 => {
                self.by_chunks(weights, chunks, x, tokens.start, rows, sink)
            }
            Source::Nibbles if nibbles::suit(self.layout, tokens.len(), nibbles::MOST) => {
                // SAFETY: `kernels` has seen the tier, which includes Advanced SIMD.
                unsafe { nibbles::multiply(weights, x, tokens, rows, nibbles, sink) }
            }
            source => {
                for start in rows.clone().step_by(ROWS) {
                    let rows = start..rows.end.min(start + ROWS);
                    // SAFETY: `kernels` has seen the tier, which includes Advanced SIMD.
                    let strip = unsafe {
                        source.strip::<nibbles::Neon>(weights, rows.clone(), space, |section, out| {
                            triples::to_tm2::<nibbles::Neon>(section, out);
                        })
                    };
                    self.by_tiles(strip, source.planes(), x, tokens.clone(), rows, sink);
                }
            }
        })
    }
}

impl Aarch64 {
    /// One strip, in tiles of tokens.
    fn by_tiles(
        &self,
        strip: &[u8],
        planes: [usize; 4],
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        sink: Sink,
    ) {
        let groups = strip.len() / GROUP_BYTES;
        // The activations' stride covers whole groups, so a token may be read up to the last one's end.
        assert!(x.stride() >= groups * GROUP);
        let mut sums = [[0; ROWS]; MAX_TILE];
        let tiles = tokens.len().div_ceil(self.ops.tile_tokens);
        for i in 0..tiles {
            // As even as possible.
            let cut = |i| tokens.start + i * tokens.len() / tiles;
            let tile = cut(i)..cut(i + 1);
            let mut pointers = [std::ptr::null(); MAX_TILE];
            for (pointer, t) in pointers.iter_mut().zip(tile.clone()) {
                *pointer = x.row(t).as_ptr();
            }
            let tokens = &pointers[..tile.len()];
            // SAFETY: `kernels` has seen the tier; the strip holds `groups` groups, and each token as many
            // columns, asserted above; a tile has at most `tile_tokens` tokens.
            unsafe { (self.ops.tile)(strip.as_ptr(), groups, tokens, planes, &mut sums) };
            for (sums, t) in sums.iter_mut().zip(tile) {
                hand_over(sums, x, t, rows.clone(), sink);
            }
        }
    }

    /// One token, straight from the chunks.
    fn by_chunks(
        &self,
        weights: &Packed,
        chunks: Chunks,
        x: &Activations,
        token: usize,
        rows: Range<usize>,
        sink: Sink,
    ) {
        let groups = weights.cols().div_ceil(GROUP);
        assert!(x.stride() >= groups * GROUP);
        for start in rows.clone().step_by(CHUNK_ROWS) {
            let rows = start..rows.end.min(start + CHUNK_ROWS);
            // Behind the last row it is taken again.
            let pointers =
                std::array::from_fn(|i| chunks.row(weights, (start + i).min(rows.end - 1)).as_ptr());
            let mut sums = [0; CHUNK_ROWS];
            // SAFETY: `kernels` has seen the tier; each row's slice holds the chunks of `groups` groups,
            // and the token as many columns, asserted above.
            unsafe { (self.ops.chunks)(&pointers, chunks, groups, x.row(token).as_ptr(), &mut sums) };
            hand_over(&mut sums, x, token, rows, sink);
        }
    }
}

/// What calls need besides their arguments; kept so that they do not allocate.
#[derive(Default)]
struct Scratch {
    space: Space,
    nibbles: nibbles::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Turns the sums over codes of these rows into sums over weights and hands them on.
fn hand_over(sums: &mut [i32], x: &Activations, token: usize, rows: Range<usize>, sink: Sink) {
    for sum in sums.iter_mut() {
        *sum -= x.sum(token);
    }
    sink(token, rows.start, &sums[..rows.len()]);
}
