//! Tokens times `tl1` and `tl2` rows, one after the other, by tables in registers and without a
//! multiplication; once for all tiers. For more tokens the same tables' instructions make [`strip`]s.
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
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROW_BYTES, ROWS};
use crate::layout::{Layout, TL1, TL2};
use crate::tier::{prefetch, prefetch_l2};
use crate::tuning;
use std::ops::Range;

/// The most tokens of `tl1`, and of `tl2`, for which this is faster than strips, unless a tier says otherwise: measured
/// with AVX2 on a Zen 4.
pub(super) const MOST: [usize; 2] = [6, 6];

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

    /// These bytes in each half.
    unsafe fn halves(bytes: [&[u8; 16]; 2]) -> Self;

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

    /// These sums.
    unsafe fn of_sums(sums: &[[i16; 8]; 2]) -> Self;

    /// 16-bit lanes shifted left by `by` bits, or right by `-by`, of which those in `mask` are kept.
    unsafe fn field(self, by: i16, mask: u16) -> Self;

    /// For each of `at`, all below 32, the byte of that number: of the first of `tables`, each the same in both
    /// halves, those below 16, of the second the others.
    unsafe fn look_up_long(tables: [Self; 2], at: Self) -> Self;

    /// The 32-bit words of which these have the low and the high lanes of 16 bits: those of even lanes, then those
    /// of odd ones.
    unsafe fn turn(low: Self, high: Self) -> [[u8; 32]; 2];

    /// The 32-bit words of which these are the low and the high sums, of each half.
    unsafe fn words(low: Self, high: Self) -> [[u8; 32]; 2];

    /// For each of the eight 32-bit words of a row, those of all rows.
    unsafe fn transpose(rows: [&[u8; 32]; 8]) -> [[u8; 32]; 8];
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

/// What a nibble of `tl1` or `tl2` adds to the codes of two columns, the first in the low byte, in each bit plane: low
/// bytes and high bytes of 16-bit sums, as for [`look_up`].
type Adds = [[[u8; 32]; 2]; 4];

/// The sums of weights times these factors, shifted to each plane.
const fn adds<const W: usize>(digits: &[[i16; 16]; W], factors: [i16; W]) -> Adds {
    let mut adds = [[[0; 32]; 2]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        let (plane, at) = (i / 32, i % 32);
        let (mut sum, mut w) = (0, 0);
        while w < W {
            sum += digits[w][at % 16] * factors[w];
            w += 1;
        }
        [adds[plane][0][at], adds[plane][1][at]] = (sum << (2 * plane)).to_le_bytes();
        i += 1;
    }
    adds
}

/// Of a pair.
static OF_PAIR: Adds = adds(&PAIRS, [1, 256]);
/// Of a triple that begins with the first of two columns: to these, and to the next two.
static OF_EVEN: [Adds; 2] = [adds(&TRIPLES, [1, 256, 0]), adds(&TRIPLES, [0, 0, 1])];
/// Of a triple that begins with the second of two columns.
static OF_ODD: [Adds; 2] = [adds(&TRIPLES, [256, 0, 0]), adds(&TRIPLES, [0, 1, 256])];

/// The codes of 32 rows in two columns, and in those 32, 64 and 96 columns further, two bits each: the first column's
/// in low bytes. Halves stand for the eight rows from one of [`ORDER`] on in `tl2`, of [`HALVES`] in `tl1`.
pub(super) type Codes = AtLine<[[[i16; 8]; 2]; 2]>;

// SAFETY: numbers that fill a line.
unsafe impl Plain for Codes {}

/// Rows of the halves of sums of 32 rows of which the first 16 are one half, the others the other.
const HALVES: [usize; 4] = [0, 16, 8, 24];

/// Makes the strip (see [`tm2`](crate::layout::TM2)) of the 32 rows of `tl1` or `tl2` weights from `row` on, a multiple
/// of that. A code is a weight and one, so that it is found by adding: each nibble what its weights are to the codes.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
pub(super) unsafe fn strip<H: Halves>(
    weights: &Packed,
    row: usize,
    codes: &mut Array<Codes>,
    strip: &mut [u8],
) {
    /// Of a group of columns.
    const CODES: usize = GROUP / 8;
    let codes = codes.first(strip.len() / GROUP_BYTES * CODES);
    // Zero weights, as columns behind the last are.
    codes.fill(AtLine([[[0x5555; 8]; 2]; 2]));
    // SAFETY: the tier is the caller's promise.
    let rows = unsafe {
        match weights.layout().name() {
            "tl1" => tl1_codes::<H>(weights, row, codes),
            _ => tl2_codes::<H>(weights, row, codes),
        }
    };
    for (group, codes) in strip.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().zip(codes.as_chunks::<CODES>().0)
    {
        let blocks = group.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut();
        for (block, [AtLine(first), AtLine(second)]) in blocks.zip(codes.as_chunks::<2>().0) {
            for ((first, second), rows) in first.iter().zip(second).zip(rows.as_chunks::<2>().0) {
                // SAFETY: the tier is the caller's promise.
                let words = unsafe { H::words(H::of_sums(first), H::of_sums(second)) };
                for (words, row) in words.into_iter().zip(rows) {
                    block[4 * row..][..32].copy_from_slice(&words);
                }
            }
        }
    }
}

/// The 32 rows of the strip that is probably next, to ask for them: those of one lie in parts of a few lines, too short
/// for the CPU to do it.
fn next_rows(weights: &Packed, row: usize) -> usize {
    (row + ROWS).min(weights.rows() - ROWS)
}

/// Where the codes of a column and the next lie, and their plane; the column is even.
#[inline(always)]
fn codes_of(column: usize) -> (usize, usize) {
    (column / GROUP * (GROUP / 8) + column % ROW_BYTES / 2, column / ROW_BYTES % 4)
}

/// What some nibbles add to codes in a plane.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn found<H: Halves>(adds: &Adds, plane: usize, nibbles: H) -> [H; 2] {
    let [low, high] = &adds[plane];
    // SAFETY: the tier is the caller's promise.
    unsafe { H::interleave(H::load(low).look_up(nibbles), H::load(high).look_up(nibbles)) }
}

/// Adds to codes.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn put<H: Halves>(AtLine(codes): &mut Codes, found: [H; 2]) {
    for (codes, found) in codes.iter_mut().zip(found) {
        // SAFETY: the tier is the caller's promise.
        *codes = unsafe { H::of_sums(codes).add(found).sums() };
    }
}

/// Adds what a byte column of pairs is to the codes of four columns from `column` on.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn put_pairs<H: Halves>(codes: &mut [Codes], column: usize, bytes: H) {
    let (at, plane) = codes_of(column);
    // SAFETY: the tier is the caller's promise.
    unsafe {
        for (codes, nibbles) in codes[at..at + 2].iter_mut().zip(bytes.nibbles()) {
            put(codes, found(&OF_PAIR, plane, nibbles));
        }
    }
}

/// Adds the weights of 32 rows of `tl1` to codes; gives the rows of these.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn tl1_codes<H: Halves>(weights: &Packed, row: usize, codes: &mut [Codes]) -> [usize; 4] {
    let tile = TL1.tile(weights.rows(), weights.cols());
    // Bytes of 16 rows in a block, for its `by` columns.
    let rows = 16 * (256 / tile.inner_rows) / 4;
    let first = row % tile.inner_rows / 16 * rows;
    let next = next_rows(weights, row);
    let mut column = 0;
    for i in 0..weights.cols() / tile.cols {
        for (block, next) in blocks(weights, tile, row, i).iter().zip(blocks(weights, tile, next, i)) {
            prefetch_l2(next.as_ptr());
            let (low, high) = block[first..][..2 * rows].split_at(rows);
            for (low, high) in low.as_chunks().0.iter().zip(high.as_chunks().0) {
                // SAFETY: the tier is the caller's promise.
                unsafe { put_pairs(codes, column, H::halves([low, high])) };
                column += 4;
            }
        }
    }
    HALVES
}

/// As [`tl1_codes`] for `tl2`.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn tl2_codes<H: Halves>(weights: &Packed, row: usize, codes: &mut [Codes]) -> [usize; 4] {
    let parts = TL2.parts(weights.rows(), weights.cols());
    let (bytes, tile) = (weights.bytes(), parts.tile());
    let next = next_rows(weights, row);
    let steps = |row, i| {
        let (magnitudes, signs) = parts.triples(row, i);
        let steps = tile.cols / 24;
        let magnitudes = bytes[magnitudes..][..steps * 4 * ROWS].as_chunks::<{ 4 * ROWS }>().0;
        magnitudes.iter().zip(bytes[signs..][..steps * ROWS].as_chunks().0)
    };
    let mut column = 0;
    for i in 0..parts.triple_cols() / tile.cols {
        for ((magnitudes, signs), (next_magnitudes, next_signs)) in steps(row, i).zip(steps(next, i)) {
            prefetch_l2(next_magnitudes.as_ptr());
            prefetch_l2(next_magnitudes[64..].as_ptr());
            prefetch_l2(next_signs.as_ptr());
            // SAFETY: the tier is the caller's promise.
            unsafe {
                let mut signs = H::load(signs);
                for bytes in magnitudes.as_chunks().0 {
                    put_triples(codes, column, H::load(bytes), &mut signs);
                    column += 6;
                }
            }
        }
    }
    for offset in parts.pairs(row) {
        // SAFETY: the tier is the caller's promise.
        unsafe { put_pairs(codes, column, H::load(at(bytes, offset))) };
        column += 4;
    }
    ORDER
}

/// Adds what a byte column of triples is to the codes of six columns from `column` on, and goes on to the signs of the
/// next.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn put_triples<H: Halves>(codes: &mut [Codes], column: usize, bytes: H, signs: &mut H) {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let [even, odd] = bytes.nibbles();
        let (s, t) = (*signs, signs.shl1());
        let (u, v) = (t.shl1(), t.shl1().shl1());
        *signs = v.shl1();
        let (at, plane) = codes_of(column);
        let [a, b] = found(&OF_EVEN[0], plane, even);
        put(&mut codes[at], [a.signed(s), b.signed(t)]);
        let (at, plane) = codes_of(column + 2);
        let [a, b] = found(&OF_EVEN[1], plane, even);
        let [c, d] = found(&OF_ODD[0], plane, odd);
        put(&mut codes[at], [a.signed(s).add(c.signed(u)), b.signed(t).add(d.signed(v))]);
        let (at, plane) = codes_of(column + 4);
        let [c, d] = found(&OF_ODD[1], plane, odd);
        put(&mut codes[at], [c.signed(u), d.signed(v)]);
    }
}
