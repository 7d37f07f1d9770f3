//! Tokens times `tl1` and `tl2` rows, one after the other, by tables in registers and without a
//! multiplication; once for all tiers.
//!
//! A nibble stands for the weights of two columns (three in `tl2`, whose signs lie apart), which have
//! so few combinations that their sums fit a register, and one instruction looks a sum up for each of
//! 16 nibbles or more. Sums are exact: an entry has 16 bits, and its low and high bytes are two tables,
//! whose answers are interleaved.
//!
//! ```text
//! byte column   the columns that a byte of a row stands for: four (tl1) or six (tl2)
//! its tables    low bytes and high bytes for the high nibble, then the same for the low one
//! ```
//!
//! 16-bit sums hold 127 sums of two products, at most 2 · 128 = 256 each, or 85 of three, at most 384;
//! [`fold`] comes earlier.

use crate::acts::Activations;
use crate::buffer::{Array, AtLine, Plain};
use crate::kernel::Packed;
use crate::layout::tl1::blocks;
use crate::layout::tm2::ROWS;
use crate::layout::{Layout, TL1, TL2};
use crate::tier::{prefetch, prefetch_l2};
use crate::tuning;
use std::ops::Range;

/// The most tokens of `tl1`, and of `tl2`, for which this is faster than unpacking the rows.
pub(super) const MOST: [usize; 2] = [16, 36];

/// Whether this is the way for so many tokens and a layout.
pub(super) fn suit(layout: &dyn Layout, tokens: usize, [tl1, tl2]: [usize; 2]) -> bool {
    let most = match layout.name() {
        "tl1" => tl1,
        "tl2" => tl2,
        _ => 0,
    };
    tokens <= most
}

/// A byte of each of 32 rows, or 16 sums of 16 bits, in two halves: one register or two.
///
/// # Safety
/// All methods may only be called on a CPU that has the instructions of the implementing type, from
/// a function compiled for them (they are inlined into it).
pub(super) trait Halves: Copy {
    /// All bits 0.
    unsafe fn zero() -> Self;

    /// These bytes.
    unsafe fn load(bytes: &[u8; 32]) -> Self;

    /// The same bytes in both halves.
    unsafe fn twice(bytes: &[u8; 16]) -> Self;

    /// The high nibbles of all bytes, and the low ones.
    unsafe fn nibbles(self) -> [Self; 2];

    /// For each of `nibbles`, the byte of that number in the same half of `self`.
    unsafe fn look_up(self, nibbles: Self) -> Self;

    /// The sums of which these are the low and the high bytes: of the first eight bytes of each half,
    /// then of the others.
    unsafe fn interleave(low: Self, high: Self) -> [Self; 2];

    /// Products, wrapping.
    unsafe fn products(a: &[i16; 16], x: i16) -> Self;

    /// Adds sums, wrapping.
    unsafe fn add(self, other: Self) -> Self;

    /// Negates the sums whose place in `signs` has the top bit set.
    unsafe fn signed(self, signs: Self) -> Self;

    /// Shifts 16-bit lanes left by 1.
    unsafe fn shl1(self) -> Self;

    /// The low bytes of the sums, and the high ones.
    unsafe fn bytes(self) -> [[u8; 16]; 2];

    /// The sums.
    unsafe fn sums(self) -> [[i16; 8]; 2];
}

/// The four tables (see above) of two byte columns side by side.
type Two = AtLine<[[u8; 32]; 4]>;

// SAFETY: bytes that fill two lines.
unsafe impl Plain for Two {}

/// Weights that nibbles stand for.
static PAIRS: [[i16; 16]; 2] = {
    let mut digits = [[0; 16]; 2];
    let mut code = 0;
    while code < 9 {
        digits[0][code] = (code / 3) as i16 - 1;
        digits[1][code] = (code % 3) as i16 - 1;
        code += 1;
    }
    digits
};

/// As [`PAIRS`]; a nibble `9a + 3b + c` is not negative.
static TRIPLES: [[i16; 16]; 3] = {
    let mut digits = [[0; 16]; 3];
    let mut t = 0;
    while t < 14 {
        digits[0][t] = ((t + 13) / 9) as i16 - 1;
        digits[1][t] = ((t + 13) / 3 % 3) as i16 - 1;
        digits[2][t] = ((t + 13) % 3) as i16 - 1;
        t += 1;
    }
    digits
};

/// Makes the tables for the columns of a token, nibbles of `W` columns each.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn fill<H: Halves, const W: usize>(tables: &mut Array<Two>, x: &[i8], digits: &[[i16; 16]; W]) {
    let tables = tables.first(x.len().div_ceil(4 * W));
    for (two, x) in tables.iter_mut().zip(x.chunks(4 * W)) {
        for (i, x) in x.as_chunks::<W>().0.iter().enumerate() {
            // SAFETY: the tier is the caller's promise.
            let bytes = unsafe {
                let mut sums = H::zero();
                for (digits, &x) in digits.iter().zip(x) {
                    sums = sums.add(H::products(digits, x.into()));
                }
                sums.bytes()
            };
            for (table, bytes) in two.0[i % 2 * 2..].iter_mut().zip(bytes) {
                table.as_chunks_mut().0[i / 2] = bytes;
            }
        }
    }
}

/// The tables of one byte column, for both halves.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn one<H: Halves>(two: &Two, column: usize) -> [H; 4] {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let mut tables = [H::zero(); 4];
        for (table, bytes) in tables.iter_mut().zip(&two.0) {
            *table = H::twice(&bytes.as_chunks().0[column]);
        }
        tables
    }
}

/// The tables of two byte columns, each for one half.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn both<H: Halves>(AtLine([a, b, c, d]): &Two) -> [H; 4] {
    // SAFETY: the tier is the caller's promise.
    unsafe { [H::load(a), H::load(b), H::load(c), H::load(d)] }
}

/// The sums that the nibbles of 32 bytes stand for: of the high nibbles and of the low ones, each first
/// those of bytes 0..8 and 16..24, then those of the others.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn look_up<H: Halves>(bytes: &[u8; 32], tables: [H; 4]) -> [[H; 2]; 2] {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let [high, low] = H::load(bytes).nibbles();
        [
            H::interleave(tables[0].look_up(high), tables[1].look_up(high)),
            H::interleave(tables[2].look_up(low), tables[3].look_up(low)),
        ]
    }
}

/// Adds both nibbles' sums.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn add<H: Halves>(sums: &mut [H; 2], [high, low]: [[H; 2]; 2]) {
    for ((sum, high), low) in sums.iter_mut().zip(high).zip(low) {
        // SAFETY: the tier is the caller's promise.
        *sum = unsafe { sum.add(high.add(low)) };
    }
}

/// Adds 16-bit sums to those of the rows, each half to the eight rows from one of `rows` on.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn fold<H: Halves>(sums: [H; 2], rows: [usize; 4], out: &mut [i32; ROWS]) {
    // SAFETY: the tier is the caller's promise.
    let sums = unsafe { [sums[0].sums(), sums[1].sums()] };
    for (sums, row) in sums.as_flattened().iter().zip(rows) {
        let out: &mut [i32; 8] = out[row..].first_chunk_mut().expect("eight of 32 rows");
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out += i32::from(sum);
        }
    }
}

/// The 32 bytes at an offset.
#[inline(always)]
fn at(bytes: &[u8], offset: usize) -> &[u8; 32] {
    bytes[offset..].first_chunk().expect("a step of 32 rows lies in the weights")
}

/// What calls keep so that they do not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    /// Tables of all byte columns: those of `tl1` or of the triples of `tl2`, and those of its pairs.
    tables: [Array<Two>; 2],
    /// Sums of the rows of a tile.
    sums: Array<i32>,
}

/// `Σ_k w(r, k) · x[k]` for `rows` of `tl1` or `tl2` weights, which begin and end at multiples of 32, as
/// [`Kernel::run`](crate::kernel::Kernel::run) gives them to its sink. Weights are read in the order of
/// their bytes, once for each token.
///
/// # Safety
/// The CPU must have the tier of `H` and the caller be compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply<H: Halves>(
    weights: &Packed,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    scratch: &mut Scratch,
    sink: &mut dyn FnMut(usize, usize, &[i32]),
) {
    for t in tokens {
        let x = &x.row(t)[..weights.cols()];
        let sink = |row, sums: &[i32; ROWS]| sink(t, row, sums);
        // SAFETY: the tier is the caller's promise.
        unsafe {
            match weights.layout().name() {
                "tl1" => tl1::<H>(weights, scratch, x, rows.clone(), sink),
                _ => tl2::<H>(weights, scratch, x, rows.clone(), sink),
            }
        }
    }
}

/// The rows of a range that lie in the same tile of `tile` rows, for each tile.
fn by_tiles(rows: Range<usize>, tile: usize) -> impl Iterator<Item = Range<usize>> {
    let tiles = rows.start / tile..rows.end.div_ceil(tile);
    tiles.map(move |i| rows.start.max(i * tile)..rows.end.min((i + 1) * tile))
}

/// One token times `tl1` weights; the sums go to `sink` 32 at a time with the first of their rows.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn tl1<H: Halves>(
    weights: &Packed,
    Scratch { tables: [tables, _], sums }: &mut Scratch,
    x: &[i8],
    rows: Range<usize>,
    mut sink: impl FnMut(usize, &[i32; ROWS]),
) {
    // SAFETY: the tier is the caller's promise.
    unsafe { fill::<H, _>(tables, x, &PAIRS) };
    let tile = TL1.tile(weights.rows(), weights.cols());
    for rows in by_tiles(rows, tile.rows) {
        let sums = sums.first(rows.len());
        sums.fill(0);
        let sums = sums.as_chunks_mut::<ROWS>().0;
        for i in 0..weights.cols() / tile.cols {
            for (row, sums) in rows.clone().step_by(ROWS).zip(sums.iter_mut()) {
                // A lane takes two sums of two products of a block.
                for (j, blocks) in blocks(weights, tile, row, i).chunks(63).enumerate() {
                    let first = i * tile.cols * tile.inner_rows / 256 + 63 * j;
                    // SAFETY: the tier is the caller's promise.
                    unsafe {
                        if tile.inner_rows == ROWS {
                            narrow_blocks::<H>(blocks, &tables[first..][..blocks.len()], sums);
                        } else {
                            tall_blocks::<H>(blocks, tables, first, row % tile.inner_rows, sums);
                        }
                    }
                }
            }
        }
        for (row, sums) in rows.step_by(ROWS).zip(sums.iter()) {
            sink(row, sums);
        }
    }
}

/// Adds blocks of 32 rows × 8 columns, each with its tables: 16 rows at two byte columns, and 16 more.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn narrow_blocks<H: Halves>(blocks: &[[u8; 64]], tables: &[Two], out: &mut [i32; ROWS]) {
    let ahead = tuning::prefetch_l2();
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let mut sums = [[H::zero(); 2]; 2];
        for (block, two) in blocks.iter().zip(tables) {
            prefetch_l2(block.as_ptr().wrapping_add(ahead));
            let tables = both(two);
            add(&mut sums[0], look_up(at(block, 0), tables));
            add(&mut sums[1], look_up(at(block, 32), tables));
        }
        fold(sums[0], [0, 0, 8, 8], out);
        fold(sums[1], [16, 16, 24, 24], out);
    }
}

/// Adds 32 rows from `row` on of blocks of 64 rows × 4 columns, the first of which is byte column `first`.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn tall_blocks<H: Halves>(
    blocks: &[[u8; 64]],
    tables: &[Two],
    first: usize,
    row: usize,
    out: &mut [i32; ROWS],
) {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let mut sums = [H::zero(); 2];
        for (column, block) in (first..).zip(blocks) {
            add(&mut sums, look_up(at(block, row), one(&tables[column / 2], column % 2)));
        }
        fold(sums, [0, 16, 8, 24], out);
    }
}

/// As [`tl1`] for `tl2` weights.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn tl2<H: Halves>(
    weights: &Packed,
    Scratch { tables: [triples, pairs], sums }: &mut Scratch,
    x: &[i8],
    rows: Range<usize>,
    mut sink: impl FnMut(usize, &[i32; ROWS]),
) {
    let parts = TL2.parts(weights.rows(), weights.cols());
    let (x, rest) = x.split_at(parts.triple_cols());
    // SAFETY: the tier is the caller's promise.
    unsafe {
        fill::<H, _>(triples, x, &TRIPLES);
        fill::<H, _>(pairs, rest, &PAIRS);
    }
    let bytes = weights.bytes();
    let tile = parts.tile();
    for rows in by_tiles(rows, tile.rows) {
        let sums = sums.first(rows.len());
        sums.fill(0);
        let sums = sums.as_chunks_mut::<ROWS>().0;
        for i in 0..x.len() / tile.cols {
            for (row, sums) in rows.clone().step_by(ROWS).zip(sums.iter_mut()) {
                let (magnitudes, signs) = parts.triples(row, i);
                let steps = tile.cols / 24;
                let magnitudes = bytes[magnitudes..][..steps * 4 * ROWS].as_chunks().0;
                let signs = bytes[signs..][..steps * ROWS].as_chunks().0;
                let tables = triples.as_chunks().0[i * steps..][..steps].chunks(10);
                // A step is eight sums of three products.
                for ((magnitudes, signs), tables) in magnitudes.chunks(10).zip(signs.chunks(10)).zip(tables) {
                    // SAFETY: the tier is the caller's promise.
                    unsafe { add_triples::<H>(magnitudes, signs, tables, sums) };
                }
            }
        }
        for (row, sums) in rows.step_by(ROWS).zip(sums.iter_mut()) {
            for (i, offset) in parts.pairs(row).enumerate() {
                // SAFETY: the tier is the caller's promise.
                unsafe {
                    let mut found = [H::zero(); 2];
                    add(&mut found, look_up(at(bytes, offset), one(&pairs[i / 2], i % 2)));
                    fold(found, ORDER, sums);
                }
            }
            sink(row, sums);
        }
    }
}

/// Rows of the halves of sums of `tl2`, by the order of rows in a step.
const ORDER: [usize; 4] = [0, 8, 16, 24];

/// Adds steps of 32 rows × 24 columns, each with its signs and the tables of its four byte columns.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn add_triples<H: Halves>(
    magnitudes: &[[u8; 4 * ROWS]],
    signs: &[[u8; 32]],
    tables: &[[Two; 2]],
    out: &mut [i32; ROWS],
) {
    let ahead = tuning::prefetch();
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let mut sums = [H::zero(); 2];
        for ((magnitudes, signs), tables) in magnitudes.iter().zip(signs).zip(tables) {
            prefetch(magnitudes.as_ptr().wrapping_add(ahead));
            prefetch(magnitudes.as_ptr().wrapping_add(ahead + 64));
            let mut signs = H::load(signs);
            for (two, magnitudes) in tables.iter().zip(magnitudes.as_chunks::<{ 2 * ROWS }>().0) {
                for (column, bytes) in magnitudes.as_chunks().0.iter().enumerate() {
                    let found = look_up::<H>(bytes, one(two, column));
                    for (sum, found) in [0, 1, 0, 1].into_iter().zip(found.into_iter().flatten()) {
                        sums[sum] = sums[sum].add(found.signed(signs));
                        signs = signs.shl1();
                    }
                }
            }
        }
        fold(sums, ORDER, out);
    }
}
