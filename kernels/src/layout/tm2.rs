//! `tm2`: two bits a weight, rows interleaved; made for our kernels.
//!
//! ```text
//! Rows are padded to a multiple of 32, columns to a multiple of 128, with zero weights.
//! A strip of 32 rows is one sequence of groups of 128 columns, a group 8 blocks of 128 bytes.
//! In block j of group g, byte 4r + c (row r of the strip; c = 0..4), with k = 128g + 4j + c, is
//!
//! bits    7 6     5 4     3 2     1 0
//! code    k+96    k+64    k+32    k         (trit + 1)
//! ```
//!
//! Why so: a vector of 64 (or 32) bytes holds 16 (or 8) rows with four columns in each 32-bit lane,
//! so a bit plane of it meets four activations broadcast to all lanes and every lane is the sum of
//! its own row: no horizontal sums. A thread reads a strip as one sequential stream, at one token and
//! at many. Planes 32 columns apart make the group of one row the 32 bytes of an
//! [`i2_s`](super::I2_S) or [`tq2_0`](super::TQ2_0) block, cut in eight: those layouts turn into this
//! one by moving 32-bit words.

use super::{Layout, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;

/// The [`tm2`](self) layout.
pub static TM2: Tm2 = Tm2;

/// The type of [`TM2`].
#[derive(Debug)]
pub struct Tm2;

/// Rows in a strip.
pub(crate) const ROWS: usize = 32;
/// Columns in a group.
pub(crate) const GROUP: usize = 128;
/// Bytes of a group in a strip.
pub(crate) const GROUP_BYTES: usize = ROWS * GROUP / 4;
/// Bytes of a group in a row.
pub(crate) const ROW_BYTES: usize = GROUP / 4;

/// Bytes of a strip of a matrix with `cols` columns.
pub(crate) fn strip_bytes(cols: usize) -> usize {
    cols.div_ceil(GROUP) * GROUP_BYTES
}

/// Writes one row of codes of a group (byte `m`, bits `2p` = column `m + 32p`) to row `r` of the
/// strip's group.
#[inline(always)]
pub(crate) fn put_row(group: &mut [u8; GROUP_BYTES], r: usize, codes: &[u8; ROW_BYTES]) {
    for (block, word) in group.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().zip(codes.as_chunks::<4>().0) {
        block[4 * r..4 * r + 4].copy_from_slice(word);
    }
}

/// The bytes of row `r` of a strip's group, as [`put_row`] takes them.
#[inline(always)]
pub(crate) fn get_row(group: &[u8; GROUP_BYTES], r: usize) -> [u8; ROW_BYTES] {
    let mut codes = [0; ROW_BYTES];
    for (word, block) in codes.as_chunks_mut::<4>().0.iter_mut().zip(group.as_chunks::<{ 4 * ROWS }>().0) {
        word.copy_from_slice(&block[4 * r..4 * r + 4]);
    }
    codes
}

/// The codes of up to [`GROUP`] trits of a row, zeros behind them.
#[inline(always)]
pub(crate) fn encode(trits: &[i8]) -> [u8; ROW_BYTES] {
    let encode = |row: &[i8; GROUP]| {
        let code = |k: usize| (row[k] + 1) as u8;
        std::array::from_fn(|m| code(m) | code(m + 32) << 2 | code(m + 64) << 4 | code(m + 96) << 6)
    };
    match trits.first_chunk() {
        Some(row) => encode(row),
        None => {
            let mut row = [0; GROUP];
            row[..trits.len()].copy_from_slice(trits);
            encode(&row)
        }
    }
}

/// The first trits of a row's codes, up to [`GROUP`].
#[inline(always)]
pub(crate) fn decode(mut codes: [u8; ROW_BYTES], trits: &mut [i8]) {
    for trits in trits.chunks_mut(ROW_BYTES) {
        for (trit, codes) in trits.iter_mut().zip(&mut codes) {
            *trit = (*codes & 3) as i8 - 1;
            *codes >>= 2;
        }
    }
}

/// Puts the rows of one strip into the layout; `row(r)` gives row `r` of the strip. Rows behind the
/// last are zero. Inlined so that callers compiled for wider vectors get them here too.
#[inline(always)]
pub(crate) fn pack_strip<'a>(rows: usize, row: impl Fn(usize) -> &'a [i8], out: &mut [u8]) {
    out.fill(0x55);
    for r in 0..rows {
        let groups = out.as_chunks_mut::<GROUP_BYTES>().0;
        for (group, trits) in groups.iter_mut().zip(row(r).chunks(GROUP)) {
            put_row(group, r, &encode(trits));
        }
    }
}

impl Sealed for Tm2 {}

impl Layout for Tm2 {
    fn name(&self) -> &'static str {
        "tm2"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::Beside
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        elements(self.name(), rows, cols)?;
        // Padding adds at most 31 rows and 127 columns.
        elements(self.name(), rows.next_multiple_of(ROWS), cols.next_multiple_of(GROUP))?;
        Ok(rows.div_ceil(ROWS) * strip_bytes(cols))
    }

    fn pack(&self, trits: &Trits, _scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        assert_eq!(out.len(), self.packed_len(trits.rows(), trits.cols())?);
        for (s, strip) in out.chunks_exact_mut(strip_bytes(trits.cols())).enumerate() {
            let rows = ROWS.min(trits.rows() - s * ROWS);
            pack_strip(rows, |r| trits.row(s * ROWS + r), strip);
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        check_2bit(bytes, 0)?;
        Ok(None)
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let strip = &bytes[row / ROWS * strip_bytes(cols)..][..strip_bytes(cols)];
        for (out, group) in out.chunks_mut(GROUP).zip(strip.chunks_exact(GROUP_BYTES)) {
            decode(get_row(group.try_into().expect("a whole group"), row % ROWS), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_where_the_diagram_says() {
        let (rows, cols) = (33, 129);
        let data = (0..rows * cols).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect();
        let trits = Trits::new(rows, cols, data).unwrap();
        let mut bytes = vec![0; TM2.packed_len(rows, cols).unwrap()];
        assert_eq!(bytes.len(), 2 * 2 * 1024);
        TM2.pack(&trits, 1.0, &mut bytes).unwrap();
        let code = |r: usize, k: usize| {
            if r < rows && k < cols { (trits.row(r)[k] + 1) as u8 } else { 1 }
        };
        for (at, &byte) in bytes.iter().enumerate() {
            let (strip, g, j, r, c) = (at / 2048, at / 1024 % 2, at / 128 % 8, at / 4 % 32, at % 4);
            let (r, k) = (32 * strip + r, 128 * g + 4 * j + c);
            let expected = code(r, k) | code(r, k + 32) << 2 | code(r, k + 64) << 4 | code(r, k + 96) << 6;
            assert_eq!(byte, expected, "byte {at}");
        }
        assert_eq!(TM2.unpack(rows, cols, &bytes).unwrap().trits, trits);
    }
}
