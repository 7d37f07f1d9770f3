//! `tm1_6`: five weights a byte, 1.6 bits a weight, rows interleaved; made for decoding, where the
//! bytes read from memory decide.
//!
//! ```text
//! Rows are padded to a multiple of 32, columns to a multiple of 160, with zero weights.
//! A strip of 32 rows is one sequence of groups of 160 columns, a group 8 blocks of 128 bytes.
//! In block j of group g, byte 4r + c (row r of the strip; c = 0..4), with k = 160g + 4j + c, is
//!
//!     q(k) + 3·q(k+32) + 9·q(k+64) + 27·q(k+96) + 81·q(k+128)          (q = trit + 1; 0 to 242)
//! ```
//!
//! It is [`tm2`](super::TM2) with a fifth plane, and the planes as base-3 digits. The last digit comes
//! apart without a table, which is why it is the most significant one: of x, x - 81 and x - 162 (as
//! bytes that wrap) the least is what the other four digits make.

use super::tm2::{self, GROUP_BYTES, ROWS};
use super::{Layout, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;

/// The [`tm1_6`](self) layout.
pub static TM1_6: Tm1_6 = Tm1_6;

/// The type of [`TM1_6`].
#[derive(Debug)]
pub struct Tm1_6;

/// Columns in a group.
pub(crate) const GROUP: usize = 160;
/// Columns from one digit to the next.
pub(crate) const PLANE: usize = 32;
/// What the digits count.
const DIGITS: [u8; 5] = [1, 3, 9, 27, 81];
/// A byte of five zero weights.
const ZERO: u8 = 1 + 3 + 9 + 27 + 81;
/// Bytes above this are no five trits.
const LARGEST: u8 = 2 * ZERO;

/// Bytes of a strip of a matrix with `cols` columns.
pub(crate) fn strip_bytes(cols: usize) -> usize {
    cols.div_ceil(GROUP) * GROUP_BYTES
}

/// Turns a strip into one of [`tm2`](super::TM2) with the same columns. Inlined so that callers
/// compiled for wider vectors get them here too.
#[inline(always)]
pub(crate) fn to_tm2(strip: &[u8], out: &mut [u8]) {
    // Columns are planes of 32 in either layout: five to a group here, four there.
    let blocks = strip.as_chunks::<{ 4 * ROWS }>().0;
    let out = out.as_chunks_mut::<{ 4 * ROWS }>().0;
    let (planes, wanted) = (blocks.len() / 8 * 5, out.len() / 8 * 4);
    for j in 0..8 {
        for (g, block) in blocks.iter().skip(j).step_by(8).enumerate() {
            let mut rest = *block;
            // From the top: comparing and subtracting is what vectors do well.
            for p in (0..5).rev() {
                let unit = DIGITS[p];
                let mut digits = [0; 4 * ROWS];
                for (digit, rest) in digits.iter_mut().zip(&mut rest) {
                    *digit = u8::from(*rest >= unit) + u8::from(*rest >= 2 * unit);
                    // What a wrapping subtraction makes smaller held it.
                    *rest = (*rest).min(rest.wrapping_sub(unit)).min(rest.wrapping_sub(2 * unit));
                }
                put_plane(out, 5 * g + p, j, &digits);
            }
        }
        for s in planes..wanted {
            put_plane(out, s, j, &[1; 4 * ROWS]);
        }
    }
}

/// Writes plane `s` of block `j` of a [`tm2`](super::TM2) strip, cut in blocks; planes behind the last
/// are padding.
#[inline(always)]
fn put_plane(out: &mut [[u8; 4 * ROWS]], s: usize, j: usize, codes: &[u8; 4 * ROWS]) {
    let Some(block) = out.get_mut(s / 4 * 8 + j) else { return };
    let shift = s % 4 * 2;
    for (byte, code) in block.iter_mut().zip(codes) {
        *byte = *byte & !(3 << shift) | code << shift;
    }
}

impl Layout for Tm1_6 {
    fn name(&self) -> &'static str {
        "tm1_6"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::Beside
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        elements(self.name(), rows, cols)?;
        // Padding adds at most 31 rows and 159 columns; the width itself may exceed the bound by it.
        elements(self.name(), rows.next_multiple_of(ROWS), cols)?;
        Ok(rows.div_ceil(ROWS) * strip_bytes(cols))
    }

    fn pack(&self, trits: &Trits, _scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        assert_eq!(out.len(), self.packed_len(trits.rows(), trits.cols())?);
        out.fill(ZERO);
        for r in 0..trits.rows() {
            let strip = &mut out[r / ROWS * strip_bytes(trits.cols())..][..strip_bytes(trits.cols())];
            for (group, trits) in
                strip.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().zip(trits.row(r).chunks(GROUP))
            {
                let mut row = [ZERO; PLANE];
                for (trits, unit) in trits.chunks(PLANE).zip(DIGITS) {
                    for (byte, &trit) in row.iter_mut().zip(trits) {
                        *byte = byte.wrapping_add_signed(trit * unit as i8);
                    }
                }
                tm2::put_row(group, r % ROWS, &row);
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        match bytes.iter().position(|&b| b > LARGEST) {
            Some(offset) => Err(UnpackError::Code { offset, byte: bytes[offset] }),
            None => Ok(None),
        }
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let strip = &bytes[row / ROWS * strip_bytes(cols)..][..strip_bytes(cols)];
        for (out, group) in out.chunks_mut(GROUP).zip(strip.chunks_exact(GROUP_BYTES)) {
            let mut digits = tm2::get_row(group.try_into().expect("a whole group"), row % ROWS);
            for out in out.chunks_mut(PLANE) {
                for (out, digits) in out.iter_mut().zip(&mut digits) {
                    *out = (*digits % 3) as i8 - 1;
                    *digits /= 3;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::TM2;

    fn some(rows: usize, cols: usize) -> Trits {
        Trits::new(rows, cols, (0..rows * cols).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect()).unwrap()
    }

    #[test]
    fn bytes_are_where_the_diagram_says() {
        let (rows, cols) = (33, 161);
        let trits = some(rows, cols);
        let mut bytes = vec![0; TM1_6.packed_len(rows, cols).unwrap()];
        assert_eq!(bytes.len(), 2 * 2 * 1024);
        TM1_6.pack(&trits, 1.0, &mut bytes).unwrap();
        let q = |r: usize, k: usize| {
            if r < rows && k < cols { (trits.row(r)[k] + 1) as u8 } else { 1 }
        };
        for (at, &byte) in bytes.iter().enumerate() {
            let (strip, g, j, r, c) = (at / 2048, at / 1024 % 2, at / 128 % 8, at / 4 % 32, at % 4);
            let (r, k) = (32 * strip + r, 160 * g + 4 * j + c);
            let expected: u8 = (0..5).map(|p| q(r, k + 32 * p) * 3u8.pow(p as u32)).sum();
            assert_eq!(byte, expected, "byte {at}");
        }
        assert_eq!(TM1_6.unpack(rows, cols, &bytes).unwrap().trits, trits);
        bytes[5] = 243;
        assert_eq!(TM1_6.check(rows, cols, &bytes), Err(UnpackError::Code { offset: 5, byte: 243 }));
    }

    #[test]
    fn strips_turn_into_tm2() {
        for cols in [1, 128, 129, 160, 161, 640, 641, 2560] {
            let trits = some(32, cols);
            let pack = |layout: &dyn Layout| {
                let mut bytes = vec![0; layout.packed_len(32, cols).unwrap()];
                layout.pack(&trits, 1.0, &mut bytes).unwrap();
                bytes
            };
            let mut strip = vec![0; crate::layout::tm2::strip_bytes(cols)];
            to_tm2(&pack(&TM1_6), &mut strip);
            assert_eq!(strip, pack(&TM2), "{cols} columns");
        }
    }
}
