//! `i2_s_4row`: two bits a weight, four rows a byte, another arrangement under the name I2_S.
//!
//! ```text
//! Byte [g, c] (g < rows / 4, c < cols) holds column c of four neighbouring rows, as codes (trit + 1):
//!
//! bits   7 6    5 4     3 2     1 0
//! row    4g     4g+1    4g+2    4g+3
//!
//! After the last byte: the scale (f32), then 28 bytes that nobody reads; we write zeros.
//! ```

use super::i2_s::{TAIL, read_tail, write_tail};
use super::{Layout, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;

/// The [`i2_s_4row`](self) layout.
pub static I2_S_4ROW: I2S4Row = I2S4Row;

/// The type of [`I2_S_4ROW`].
#[derive(Debug)]
pub struct I2S4Row;

impl Sealed for I2S4Row {}

impl Layout for I2S4Row {
    fn name(&self) -> &'static str {
        "i2_s_4row"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F32
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name(), rows, cols)?;
        if !rows.is_multiple_of(4) {
            let requires = "rows must be a multiple of 4";
            return Err(ShapeError { layout: self.name(), rows, cols, requires });
        }
        Ok(n / 4 + TAIL)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        assert_eq!(out.len(), self.packed_len(rows, cols)?);
        let (codes, tail) = out.split_at_mut(out.len() - TAIL);
        for (g, out) in codes.chunks_exact_mut(cols).enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| trits.row(4 * g + i));
            for (i, byte) in out.iter_mut().enumerate() {
                let code = |q: i8| (q + 1) as u8;
                *byte = code(a[i]) << 6 | code(b[i]) << 4 | code(c[i]) << 2 | code(d[i]);
            }
        }
        write_tail(tail, scale);
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let (codes, tail) = bytes.split_at(bytes.len() - TAIL);
        check_2bit(codes, 0)?;
        Ok(Some(read_tail(tail)))
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let shift = 6 - 2 * (row % 4);
        for (out, byte) in out.iter_mut().zip(&bytes[row / 4 * cols..][..cols]) {
            *out = (byte >> shift & 3) as i8 - 1;
        }
    }
}
