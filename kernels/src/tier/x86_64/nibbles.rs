//! One token times `tl1` and `tl2` rows, by tables in registers and without a multiplication.
//!
//! A nibble stands for the weights of two columns (three in `tl2`, whose signs lie apart), which have
//! so few combinations that their sums fit a register and one `vpshufb` looks a sum up for each of 32
//! nibbles. Sums are exact: an entry has 16 bits, and its low and high bytes are two tables, whose
//! answers are interleaved.
//!
//! ```text
//! byte column   the columns that a byte of a row stands for: four (tl1) or six (tl2)
//! its tables    low bytes and high bytes for the high nibble, then the same for the low one
//! ```
//!
//! 16-bit sums hold 127 sums of two products, at most 2 · 128 = 256 each, or 85 of three, at most 384;
//! [`fold`] comes earlier.

use super::strip::prefetch;
use crate::kernel::Packed;
use crate::layout::tl1::blocks;
use crate::layout::tm2::ROWS;
use crate::layout::{TL1, TL2};
use crate::tuning;
use std::arch::x86_64::*;
use std::ops::Range;

/// Tables of all byte columns.
#[derive(Default)]
struct Tables(Vec<Two>);

/// The four tables (see above) of two byte columns side by side.
type Two = [[[u8; 16]; 2]; 4];

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

impl Tables {
    /// The tables for the columns of a token, nibbles of `W` columns each.
    #[target_feature(enable = "avx2")]
    fn fill<const W: usize>(&mut self, x: &[i8], digits: &[[i16; 16]; W]) {
        self.0.resize(x.len().div_ceil(4 * W), Two::default());
        // SAFETY: an array is the 32 bytes of a register.
        let digits = digits.each_ref().map(|d| unsafe { _mm256_loadu_si256(d.as_ptr().cast()) });
        for (i, x) in x.as_chunks::<W>().0.iter().enumerate() {
            let mut sums = _mm256_setzero_si256();
            for (digits, &x) in digits.iter().zip(x) {
                sums = _mm256_add_epi16(sums, _mm256_mullo_epi16(*digits, _mm256_set1_epi16(x.into())));
            }
            let low = _mm256_and_si256(sums, _mm256_set1_epi16(0xff));
            let bytes = _mm256_packus_epi16(low, _mm256_srli_epi16::<8>(sums));
            // Packing works within 128-bit halves.
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
            let halves = [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)];
            for (half, bytes) in halves.into_iter().enumerate() {
                let table = &mut self.0[i / 4][i % 2 * 2 + half][i / 2 % 2];
                // SAFETY: a table is the 16 bytes of a register.
                unsafe { _mm_storeu_si128(table.as_mut_ptr().cast(), bytes) };
            }
        }
    }

    /// The tables of byte column `at`, for both halves of a register.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn one(&self, at: usize) -> [__m256i; 4] {
        self.0[at / 2].each_ref().map(|tables| {
            // SAFETY: a table is the 16 bytes of a register.
            _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(tables[at % 2].as_ptr().cast()) })
        })
    }

    /// The tables of byte columns `2 * at` and `2 * at + 1`, each for one half of a register.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn two(&self, at: usize) -> [__m256i; 4] {
        // SAFETY: two tables are the 32 bytes of a register.
        self.0[at].each_ref().map(|tables| unsafe { _mm256_loadu_si256(tables.as_ptr().cast()) })
    }
}

/// The sums that the nibbles of 32 bytes stand for: of the high nibbles and of the low ones, each first
/// those of bytes 0..8 and 16..24, then those of the others.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(bytes: &[u8; 32], tables: [__m256i; 4]) -> [[__m256i; 2]; 2] {
    // SAFETY: the array is the 32 bytes of a register.
    let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    let nibble = _mm256_set1_epi8(15);
    let (high, low) =
        (_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble), _mm256_and_si256(bytes, nibble));
    [(high, tables[0], tables[1]), (low, tables[2], tables[3])].map(|(nibbles, low, high)| {
        let (low, high) = (_mm256_shuffle_epi8(low, nibbles), _mm256_shuffle_epi8(high, nibbles));
        [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)]
    })
}

/// Adds both nibbles' sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut [__m256i; 2], [high, low]: [[__m256i; 2]; 2]) {
    for ((sum, high), low) in sums.iter_mut().zip(high).zip(low) {
        *sum = _mm256_add_epi16(*sum, _mm256_add_epi16(high, low));
    }
}

/// Adds 16-bit sums to those of the rows, each half of a register to the eight rows from one of `rows`
/// on, and clears them.
#[inline]
#[target_feature(enable = "avx2")]
fn fold(sums: &mut [__m256i; 2], rows: [usize; 4], out: &mut [i32; ROWS]) {
    for (i, sum) in sums.iter_mut().enumerate() {
        let halves = [_mm256_castsi256_si128(*sum), _mm256_extracti128_si256::<1>(*sum)];
        for (half, row) in halves.into_iter().zip(&rows[2 * i..]) {
            let out: &mut [i32; 8] = out[*row..].first_chunk_mut().expect("eight of 32 rows");
            // SAFETY: the array is the 32 bytes of a register.
            unsafe {
                let old = _mm256_loadu_si256(out.as_ptr().cast());
                let new = _mm256_add_epi32(old, _mm256_cvtepi16_epi32(half));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), new);
            }
        }
        *sum = _mm256_setzero_si256();
    }
}

/// The 32 bytes at an offset.
#[inline]
fn at(bytes: &[u8], offset: usize) -> &[u8; 32] {
    bytes[offset..].first_chunk().expect("a step of 32 rows lies in the weights")
}

/// What calls keep so that they do not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    tables: [Tables; 2],
    /// Sums of the rows of a tile.
    sums: Vec<[i32; ROWS]>,
}

/// The rows of a range that lie in the same tile of `tile` rows, for each tile.
fn by_tiles(rows: Range<usize>, tile: usize) -> impl Iterator<Item = Range<usize>> {
    let tiles = rows.start / tile..rows.end.div_ceil(tile);
    tiles.map(move |i| rows.start.max(i * tile)..rows.end.min((i + 1) * tile))
}

/// `Σ_k w(r, k) · x[k]` for `rows` of `tl1` weights, which begin and end at multiples of 32, given to `sink`
/// 32 at a time with the first of them. Weights are read in the order of their bytes.
#[target_feature(enable = "avx2")]
pub(super) fn tl1(
    weights: &Packed,
    Scratch { tables: [tables, _], sums }: &mut Scratch,
    x: &[i8],
    rows: Range<usize>,
    sink: &mut dyn FnMut(usize, &[i32; ROWS]),
) {
    tables.fill(x, &PAIRS);
    let tile = TL1.tile(weights.rows(), weights.cols());
    for rows in by_tiles(rows, tile.rows) {
        sums.clear();
        sums.resize(rows.len() / ROWS, [0; ROWS]);
        for i in 0..weights.cols() / tile.cols {
            for (row, sums) in rows.clone().step_by(ROWS).zip(sums.iter_mut()) {
                // A lane takes two sums of two products of a block.
                for (j, blocks) in blocks(weights, tile, row, i).chunks(63).enumerate() {
                    let first = i * tile.cols * tile.inner_rows / 256 + 63 * j;
                    if tile.inner_rows == ROWS {
                        narrow_blocks(blocks, tables, first, sums);
                    } else {
                        tall_blocks(blocks, tables, first, row % tile.inner_rows, sums);
                    }
                }
            }
        }
        for (row, sums) in rows.step_by(ROWS).zip(sums.iter()) {
            sink(row, sums);
        }
    }
}

/// Adds blocks of 32 rows × 8 columns from block `first` of the rows on: 16 rows at two byte columns, and
/// 16 more.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow_blocks(blocks: &[[u8; 64]], tables: &Tables, first: usize, out: &mut [i32; ROWS]) {
    let ahead = tuning::prefetch();
    let mut sums = [[_mm256_setzero_si256(); 2]; 2];
    for (i, block) in blocks.iter().enumerate() {
        prefetch(block.as_ptr().wrapping_add(ahead));
        let tables = tables.two(first + i);
        add(&mut sums[0], look_up(at(block, 0), tables));
        add(&mut sums[1], look_up(at(block, 32), tables));
    }
    fold(&mut sums[0], [0, 0, 8, 8], out);
    fold(&mut sums[1], [16, 16, 24, 24], out);
}

/// Adds 32 rows from `row` on of blocks of 64 rows × 4 columns: one byte column.
#[inline]
#[target_feature(enable = "avx2")]
fn tall_blocks(blocks: &[[u8; 64]], tables: &Tables, first: usize, row: usize, out: &mut [i32; ROWS]) {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (i, block) in blocks.iter().enumerate() {
        add(&mut sums, look_up(at(block, row), tables.one(first + i)));
    }
    fold(&mut sums, [0, 16, 8, 24], out);
}

/// As [`tl1`] for `tl2` weights.
#[target_feature(enable = "avx2")]
pub(super) fn tl2(
    weights: &Packed,
    Scratch { tables: [triples, pairs], sums }: &mut Scratch,
    x: &[i8],
    rows: Range<usize>,
    sink: &mut dyn FnMut(usize, &[i32; ROWS]),
) {
    let parts = TL2.parts(weights.rows(), weights.cols());
    let (x, rest) = x.split_at(parts.triple_cols());
    triples.fill(x, &TRIPLES);
    pairs.fill(rest, &PAIRS);
    let bytes = weights.bytes();
    let tile = parts.tile();
    for rows in by_tiles(rows, tile.rows) {
        sums.clear();
        sums.resize(rows.len() / ROWS, [0; ROWS]);
        for i in 0..x.len() / tile.cols {
            for (row, sums) in rows.clone().step_by(ROWS).zip(sums.iter_mut()) {
                let (magnitudes, signs) = parts.triples(row, i);
                let steps = tile.cols / 24;
                let magnitudes = bytes[magnitudes..][..steps * 4 * ROWS].as_chunks().0;
                let signs = bytes[signs..][..steps * ROWS].as_chunks().0;
                // A step is eight sums of three products.
                for (j, (magnitudes, signs)) in magnitudes.chunks(10).zip(signs.chunks(10)).enumerate() {
                    add_triples(magnitudes, signs, triples, 4 * (i * steps + 10 * j), sums);
                }
            }
        }
        for (row, sums) in rows.step_by(ROWS).zip(sums.iter_mut()) {
            for (i, offset) in parts.pairs(row).enumerate() {
                let mut found = [_mm256_setzero_si256(); 2];
                add(&mut found, look_up(at(bytes, offset), pairs.one(i)));
                fold(&mut found, ORDER, sums);
            }
            sink(row, sums);
        }
    }
}

/// Rows of the halves of sums of `tl2`, by the order of rows in a step.
const ORDER: [usize; 4] = [0, 8, 16, 24];

/// Adds steps of 32 rows × 24 columns, the first of which begins at byte column `first`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_triples(
    magnitudes: &[[u8; 4 * ROWS]],
    signs: &[[u8; 32]],
    tables: &Tables,
    first: usize,
    out: &mut [i32; ROWS],
) {
    let ahead = tuning::prefetch();
    let mut sums = [_mm256_setzero_si256(); 2];
    for (i, (magnitudes, signs)) in magnitudes.iter().zip(signs).enumerate() {
        prefetch(magnitudes.as_ptr().wrapping_add(ahead));
        prefetch(magnitudes.as_ptr().wrapping_add(ahead + 64));
        // SAFETY: the array is the 32 bytes of a register.
        let mut signs = unsafe { _mm256_loadu_si256(signs.as_ptr().cast()) };
        for (step, bytes) in magnitudes.as_chunks().0.iter().enumerate() {
            let found = look_up(bytes, tables.one(first + 4 * i + step));
            for (sum, found) in [0, 1, 0, 1].into_iter().zip(found.into_iter().flatten()) {
                // The top bit is the sign; a lane of zero would clear the sum.
                let sign = _mm256_or_si256(signs, _mm256_set1_epi16(1));
                sums[sum] = _mm256_add_epi16(sums[sum], _mm256_sign_epi16(found, sign));
                signs = _mm256_slli_epi16::<1>(signs);
            }
        }
    }
    fold(&mut sums, ORDER, out);
}
