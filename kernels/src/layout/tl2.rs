//! `tl2`: triples of trits as a 4-bit magnitude and a sign bit, as bitnet.cpp writes it for its x86
//! lookup kernels (GGUF type 39 or 42).
//!
//! ```text
//! A triple (a, b, c) is t = 9a + 3b + c. The first K3 = K - K mod BK columns are triples, the others
//! pairs as in tl1. Three parts follow each other:
//!
//! magnitudes  tiles of BM rows · tiles of BK columns · 32 rows · 6 columns; a byte holds two
//!             neighbouring |t| of one row, the first in the high half; the 32 rows come in the order
//!             0..8, 16..24, 8..16, 24..32
//! signs       tiles of BM rows · tiles of BK columns · 32 rows · 24 columns; 16 little-endian u16:
//!             bit 15 - i of word j is set if t < 0 in triple i / 2 and row (i mod 2) * 16 + j
//! pairs       tiles of BM rows · 32 columns · 32 rows · 4 columns; rows ordered as above
//!
//! Zeros up to (K - 256) * M / 3 * 5 / 8 + 256 * M / 2 * 4 / 8 (each division rounded down) and on to
//! a multiple of 32; then the scale (f32) and 28 bytes of zeros.
//! ```
//!
//! BM and BK are a [`Tile`], which files do not state; its bm is always 32.

use super::i2_s::{TAIL, read_tail, write_tail};
use super::tile::{Made, PUBLISHED, Tile, largest};
use super::tl1::{check_quads, decode, encode};
use super::tm2::ROWS;
use super::{Layout, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use std::sync::Mutex;

/// The [`tl2`](self) layout with the tile of [`Tl2::tile`].
pub static TL2: Tl2 = Tl2 { name: "tl2", tile: None };

/// The type of [`TL2`] and of its relatives with explicit tiles.
#[derive(Debug)]
pub struct Tl2 {
    name: &'static str,
    tile: Option<Tile>,
}

/// The layout called `tl2_BM…_BK…_bm32`.
pub(super) fn by_name(name: &str) -> Option<&'static dyn Layout> {
    static MADE: Made<Tl2> = Made(Mutex::new(Vec::new()));
    let fits =
        |tile: Tile| tile.inner_rows == 32 && tile.rows.is_multiple_of(32) && tile.cols.is_multiple_of(24);
    Some(MADE.by_name(name, "tl2_", fits, |name, tile| Tl2 { name, tile: Some(tile) })?)
}

impl Tl2 {
    /// The tile that a `rows` × `cols` matrix is cut with: the explicit one, else the one published
    /// for this shape, else one derived from it. It may not fit; then the shape is refused.
    pub fn tile(&self, rows: usize, cols: usize) -> Tile {
        self.tile.unwrap_or_else(|| {
            let published = PUBLISHED.iter().find(|p| (p.0, p.1) == (rows, cols)).map(|p| p.3);
            published.unwrap_or(Tile {
                rows: largest(&[320, 256, 160, 128, 64, 32], rows),
                cols: 96,
                inner_rows: 32,
            })
        })
    }

    /// Where the parts of a matrix of a shape that fits lie.
    pub(crate) fn parts(&self, rows: usize, cols: usize) -> Parts {
        let tile = self.tile(rows, cols);
        let triple_cols = cols - cols % tile.cols;
        let signs = rows * triple_cols / 6;
        Parts { tile, triple_cols, pair_cols: cols - triple_cols, signs, pairs: signs + signs / 4 }
    }
}

/// Where what lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    tile: Tile,
    /// K3.
    triple_cols: usize,
    /// K - K3.
    pair_cols: usize,
    /// Offset of the signs.
    signs: usize,
    /// Offset of the pairs.
    pairs: usize,
}

/// Place of a row among its 32.
fn slot(row: usize) -> usize {
    [0, 16, 8, 24][row % 32 / 8] + row % 8
}

impl Parts {
    /// The tile that the matrix is cut with.
    pub(crate) fn tile(&self) -> Tile {
        self.tile
    }

    /// Columns that are triples; those behind them are pairs.
    pub(crate) fn triple_cols(&self) -> usize {
        self.triple_cols
    }

    /// The weights before the 32 rows that `row` is in, in tile `j` of tiles of `tile_cols` of `cols`
    /// columns.
    fn before(&self, row: usize, j: usize, cols: usize, tile_cols: usize) -> usize {
        let bm = self.tile.rows;
        row / bm * bm * cols + j * bm * tile_cols + row % bm / 32 * 32 * tile_cols
    }

    /// The offsets of the magnitudes and of the signs of a row in tile `i` of columns; 24 columns further
    /// are four and one [`STEP`].
    pub(crate) fn triples(self, row: usize, i: usize) -> (usize, usize) {
        let before = self.before(row, i, self.triple_cols, self.tile.cols);
        (before / 6 + slot(row), self.signs + before / 24 + 2 * (row % 16))
    }

    /// For each 24 columns of the triples of a row: the offset of the first of four bytes of
    /// magnitudes, [`STEP`] apart, and the offset of the word of signs.
    fn steps(self, row: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.triple_cols / self.tile.cols).flat_map(move |j| {
            let (magnitudes, signs) = self.triples(row, j);
            (0..self.tile.cols / 24).map(move |i| (magnitudes + i * 4 * STEP, signs + i * STEP))
        })
    }

    /// Offsets of the bytes of the pairs of a row.
    pub(crate) fn pairs(self, row: usize) -> impl Iterator<Item = usize> {
        (0..self.pair_cols / 32).flat_map(move |j| {
            let before = self.before(row, j, self.pair_cols, 32);
            (0..8).map(move |i| self.pairs + before / 4 + i * STEP + slot(row))
        })
    }

    /// End of the pairs.
    fn end(&self, rows: usize) -> usize {
        self.pairs + rows * self.pair_cols / 4
    }
}

/// Bytes of 32 rows in each of the parts.
const STEP: usize = ROWS;

/// The bit of triple `i` of a word of signs.
fn sign(row: usize, i: usize) -> u16 {
    0x8000 >> (2 * i + row % 32 / 16)
}

/// t of three weights.
fn triple(w: &[i8]) -> i8 {
    9 * w[0] + 3 * w[1] + w[2]
}

/// The magnitude of triple `i` of those whose first byte is at `at`.
fn magnitude(bytes: &[u8], at: usize, i: usize) -> u8 {
    let byte = bytes[at + i / 2 * STEP];
    if i.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
}

/// The word of signs at `at`.
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The weights of t + 13.
static TRIPLES: [[i8; 3]; 27] = {
    let mut table = [[0; 3]; 27];
    let mut v = 0;
    while v < 27 {
        table[v] = [(v / 9) as i8 - 1, (v / 3 % 3) as i8 - 1, (v % 3) as i8 - 1];
        v += 1;
    }
    table
};

impl Sealed for Tl2 {}

impl Layout for Tl2 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F32
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        elements(self.name, rows, cols)?;
        let error = |requires| ShapeError { layout: self.name, rows, cols, requires };
        let tile = self.tile(rows, cols);
        if !rows.is_multiple_of(tile.rows) || !(cols % tile.cols).is_multiple_of(32) {
            return Err(error(match self.tile {
                Some(_) => "rows must be a multiple of BM, and columns modulo BK of 32",
                None => "rows and columns must be multiples of 32",
            }));
        }
        if cols < 256 {
            return Err(error("columns must be at least 256"));
        }
        let len = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8;
        if self.parts(rows, cols).end(rows) > len {
            return Err(error("at most 256 columns may be left over by tiles of BK"));
        }
        Ok(len.next_multiple_of(32) + TAIL)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        assert_eq!(out.len(), self.packed_len(rows, cols)?);
        let (out, tail) = out.split_at_mut(out.len() - TAIL);
        out.fill(0);
        let parts = self.parts(rows, cols);
        for row in 0..rows {
            let (triples, pairs) = trits.row(row).split_at(parts.triple_cols);
            for (w, (magnitudes, signs)) in triples.chunks_exact(24).zip(parts.steps(row)) {
                let mut word = word(out, signs);
                for (i, w) in w.chunks_exact(3).enumerate() {
                    let t = triple(w);
                    out[magnitudes + i / 2 * STEP] |= t.unsigned_abs() << if i % 2 == 0 { 4 } else { 0 };
                    word |= if t < 0 { sign(row, i) } else { 0 };
                }
                out[signs..signs + 2].copy_from_slice(&word.to_le_bytes());
            }
            for (w, at) in pairs.chunks_exact(4).zip(parts.pairs(row)) {
                out[at] = encode(w);
            }
        }
        write_tail(tail, scale);
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let parts = self.parts(rows, cols);
        let magnitudes = &bytes[..parts.signs];
        if let Some(offset) = magnitudes.iter().position(|b| b >> 4 > 13 || b & 15 > 13) {
            return Err(UnpackError::Code { offset, byte: bytes[offset] });
        }
        // A negative zero is a triple that no writer makes.
        for row in 0..rows {
            for (magnitudes, offset) in parts.steps(row) {
                let signs = word(bytes, offset);
                if (0..8).any(|i| magnitude(bytes, magnitudes, i) == 0 && signs & sign(row, i) != 0) {
                    return Err(UnpackError::Code { offset, byte: bytes[offset] });
                }
            }
        }
        check_quads(&bytes[parts.pairs..parts.end(rows)], parts.pairs)?;
        Ok(Some(read_tail(&bytes[bytes.len() - TAIL..])))
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let parts = self.parts(rows, cols);
        let (triples, pairs) = out.split_at_mut(parts.triple_cols);
        let mut steps = triples.as_chunks_mut::<24>().0.iter_mut();
        // In one loop over the offsets, which are several when asked for one by one.
        parts.steps(row).for_each(|(magnitudes, signs)| {
            let signs = word(bytes, signs);
            let bytes = &bytes[magnitudes..][..3 * STEP + 1];
            let step = steps.next().expect("24 columns for each step");
            for (i, w) in step.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let magnitude = magnitude(bytes, 0, i) as i8;
                let t = if signs & sign(row, i) == 0 { magnitude } else { -magnitude };
                // Out of bounds only for bytes that did not pass the check.
                *w = TRIPLES[(t + 13).clamp(0, 26) as usize];
            }
        });
        for (w, at) in pairs.chunks_exact_mut(4).zip(parts.pairs(row)) {
            w.copy_from_slice(&decode(bytes[at]));
        }
    }
}
