//! `tl1`: pairs of trits as 4-bit codes, as bitnet.cpp writes it for its ARM lookup kernels (GGUF
//! type 38).
//!
//! ```text
//! A byte holds four neighbouring weights of one row: code(w0, w1) << 4 | code(w2, w3),
//! with code(a, b) = 3a + b + 4. With by = 256 / bm, bytes are nested from the outside in as
//!
//!   tiles of BM rows · tiles of BK columns · bm rows · by columns · 16 rows · 4 columns · row
//!
//! After the last byte: the scale (f32), then 28 bytes of zeros.
//! ```
//!
//! BM, BK and bm are a [`Tile`], which files do not state.

use super::i2_s::{TAIL, read_tail, write_tail};
use super::tile::{Made, PUBLISHED, Tile, largest};
use super::{Layout, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;
use crate::kernel::Packed;
use crate::sealed::Sealed;
use std::sync::Mutex;

/// The [`tl1`](self) layout with the tile of [`Tl1::tile`].
pub static TL1: Tl1 = Tl1 { name: "tl1", tile: None };

/// The type of [`TL1`] and of its relatives with explicit tiles.
#[derive(Debug)]
pub struct Tl1 {
    name: &'static str,
    tile: Option<Tile>,
}

/// The layout called `tl1_BM…_BK…_bm…`.
pub(super) fn by_name(name: &str) -> Option<&'static dyn Layout> {
    static MADE: Made<Tl1> = Made(Mutex::new(Vec::new()));
    let fits = |tile: Tile| {
        let inner_cols = 256 / tile.inner_rows.min(256);
        matches!(tile.inner_rows, 16 | 32 | 64)
            && tile.rows.is_multiple_of(tile.inner_rows)
            && tile.cols.is_multiple_of(inner_cols)
    };
    Some(MADE.by_name(name, "tl1_", fits, |name, tile| Tl1 { name, tile: Some(tile) })?)
}

impl Tl1 {
    /// The tile that a `rows` × `cols` matrix is cut with: the explicit one, else the one published
    /// for this shape, else one derived from it. It may not fit; then the shape is refused.
    pub fn tile(&self, rows: usize, cols: usize) -> Tile {
        self.tile.unwrap_or_else(|| {
            let published = PUBLISHED.iter().find(|p| (p.0, p.1) == (rows, cols)).map(|p| p.2);
            published.unwrap_or(Tile {
                rows: largest(&[320, 256, 160, 128, 64, 32], rows),
                cols: largest(&[128, 64, 32], cols),
                inner_rows: 32,
            })
        })
    }
}

/// The blocks of 64 bytes, inner rows × `by` columns, that hold row `row` in tile `i` of columns of
/// weights that are cut with `tile`.
pub(crate) fn blocks(weights: &Packed, tile: Tile, row: usize, i: usize) -> &[[u8; 64]] {
    let before = row / tile.rows * tile.rows * weights.cols() + i * tile.rows * tile.cols;
    let start = (before + row % tile.rows / tile.inner_rows * tile.inner_rows * tile.cols) / 4;
    weights.bytes()[start..][..tile.inner_rows * tile.cols / 4].as_chunks().0
}

/// Offsets of the bytes of a row, from its first four columns to its last.
fn offsets(tile: Tile, cols: usize, row: usize) -> impl Iterator<Item = usize> {
    let Tile { rows: bm_outer, cols: bk, inner_rows: bm } = tile;
    let by = 256 / bm;
    let weights = row / bm_outer * bm_outer * cols + row % bm_outer / bm * bm * bk + row % bm / 16 * 16 * by;
    let start = weights / 4 + row % 16;
    // Four columns of 16 rows are 16 bytes, `by` columns of `bm` rows 64.
    (0..cols / bk).flat_map(move |tile| {
        let tile = start + tile * bm_outer * bk / 4;
        (0..bk / by).flat_map(move |i| (0..by / 4).map(move |j| tile + 64 * i + 16 * j))
    })
}

/// The pairs of trits that each byte stands for.
static QUADS: [[i8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (high, low) = ((byte >> 4) as i8, (byte & 15) as i8);
        table[byte] = [high / 3 - 1, high % 3 - 1, low / 3 - 1, low % 3 - 1];
        byte += 1;
    }
    table
};

/// The byte of four weights.
pub(super) fn encode(w: &[i8]) -> u8 {
    let code = |a: i8, b: i8| (3 * a + b + 4) as u8;
    code(w[0], w[1]) << 4 | code(w[2], w[3])
}

/// The four weights of a byte.
pub(super) fn decode(byte: u8) -> [i8; 4] {
    QUADS[byte as usize]
}

/// Refuses bytes with a code above 8; `offset` is where `bytes` start.
pub(super) fn check_quads(bytes: &[u8], offset: usize) -> Result<(), UnpackError> {
    match bytes.iter().position(|b| b >> 4 > 8 || b & 15 > 8) {
        None => Ok(()),
        Some(i) => Err(UnpackError::Code { offset: offset + i, byte: bytes[i] }),
    }
}

impl Sealed for Tl1 {}

impl Layout for Tl1 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F32
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name, rows, cols)?;
        let tile = self.tile(rows, cols);
        if !rows.is_multiple_of(tile.rows) || !cols.is_multiple_of(tile.cols) {
            let requires = match self.tile {
                Some(_) => "rows must be a multiple of BM and columns of BK",
                None => "rows and columns must be multiples of 32",
            };
            return Err(ShapeError { layout: self.name, rows, cols, requires });
        }
        Ok(n / 4 + TAIL)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        assert_eq!(out.len(), self.packed_len(rows, cols)?);
        let tile = self.tile(rows, cols);
        for row in 0..rows {
            for (quad, at) in trits.row(row).chunks_exact(4).zip(offsets(tile, cols, row)) {
                out[at] = encode(quad);
            }
        }
        write_tail(&mut out[rows * cols / 4..], scale);
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let (codes, tail) = bytes.split_at(rows * cols / 4);
        check_quads(codes, 0)?;
        Ok(Some(read_tail(tail)))
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let tile = self.tile(rows, cols);
        let mut quads = out.as_chunks_mut::<4>().0.iter_mut();
        // In one loop over the offsets, which are several when asked for one by one.
        offsets(tile, cols, row)
            .for_each(|at| *quads.next().expect("a byte for four columns") = decode(bytes[at]));
    }
}
