//! `hf`: the packed form that Hugging Face transformers keeps in safetensors (`U8 [rows/4, cols]`).
//!
//! ```text
//! R = rows / 4; byte [r, c] holds column c of four rows, as codes (trit + 1):
//!
//! bits   7 6      5 4      3 2      1 0
//! row    3R+r     2R+r     R+r      r
//! ```
//!
//! The scale lives in a tensor of its own. Code 3 is unused.

use super::{Layout, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::float::on_every_level;
use crate::sealed::Sealed;

/// The [`hf`](self) layout.
pub static HF: Hf = Hf;

/// The type of [`HF`].
#[derive(Debug)]
pub struct Hf;

impl Sealed for Hf {}

impl Layout for Hf {
    fn name(&self) -> &'static str {
        "hf"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::Beside
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name(), rows, cols)?;
        if !rows.is_multiple_of(4) {
            let requires = "rows must be a multiple of 4";
            return Err(ShapeError { layout: self.name(), rows, cols, requires });
        }
        Ok(n / 4)
    }

    fn pack(&self, trits: &Trits, _scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        assert_eq!(out.len(), self.packed_len(rows, cols)?);
        let quarter = rows / 4;
        for (r, out) in out.chunks_exact_mut(cols).enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| trits.row(i * quarter + r));
            for (i, byte) in out.iter_mut().enumerate() {
                let code = |q: i8| (q + 1) as u8;
                *byte = code(a[i]) | code(b[i]) << 2 | code(c[i]) << 4 | code(d[i]) << 6;
            }
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
        let quarter = rows / 4;
        let (shift, r) = (2 * (row / quarter), row % quarter);
        read(&bytes[r * cols..(r + 1) * cols], shift, out);
    }
}

on_every_level!(
    /// Reads one code of each byte.
    fn read(bytes: &[u8], shift: usize, out: &mut [i8]) = read_at_level
);

#[inline(always)]
fn read_at_level<S>(_: S, bytes: &[u8], shift: usize, out: &mut [i8]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = (byte >> shift & 3) as i8 - 1;
    }
}
