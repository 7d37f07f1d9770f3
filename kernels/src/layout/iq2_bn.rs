//! `iq2_bn`: two bits a weight and a scale per row, as ik_llama.cpp defines it (GGUF type 135).
//!
//! ```text
//! A row is its scale (f32), then 16 bytes for each 64 codes (trit + 1); in byte j:
//!
//! bits    7 6     5 4     3 2     1 0
//! code    j+48    j+32    j+16    j
//!
//! A row of zeros has scale 0 and codes 1.
//! ```

use super::{Layout, OneScale, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;

/// The [`iq2_bn`](self) layout.
pub static IQ2_BN: Iq2Bn = Iq2Bn;

/// The type of [`IQ2_BN`].
#[derive(Debug)]
pub struct Iq2Bn;

/// Weights in a block.
const BLOCK: usize = 64;
/// Bytes in a block.
const BYTES: usize = 16;
/// Bytes of the scale before each row.
const SCALE: usize = 4;

impl Sealed for Iq2Bn {}

impl Layout for Iq2Bn {
    fn name(&self) -> &'static str {
        "iq2_bn"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F32PerRow
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name(), rows, cols)?;
        if !cols.is_multiple_of(BLOCK) {
            let requires = "columns must be a multiple of 64";
            return Err(ShapeError { layout: self.name(), rows, cols, requires });
        }
        Ok(n / BLOCK * BYTES + rows * SCALE)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        let len = self.packed_len(rows, cols)?;
        assert_eq!(out.len(), len);
        for (out, row) in out.chunks_exact_mut(len / rows).zip(trits.as_slice().chunks_exact(cols)) {
            let (d, codes) = out.split_at_mut(SCALE);
            let zero = row.iter().all(|&q| q == 0);
            d.copy_from_slice(&if zero { 0.0 } else { scale }.to_le_bytes());
            for (out, block) in codes.chunks_exact_mut(BYTES).zip(row.chunks_exact(BLOCK)) {
                for (j, byte) in out.iter_mut().enumerate() {
                    let code = |n: usize| (block[BYTES * n + j] + 1) as u8;
                    *byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
                }
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        let len = self.packed_len(rows, cols)?;
        check_len(len, bytes)?;
        let mut scale = OneScale::default();
        for (i, row) in bytes.chunks_exact(len / rows).enumerate() {
            let (d, codes) = row.split_first_chunk().expect("a row is longer than its scale");
            check_2bit(codes, i * (len / rows) + SCALE)?;
            if codes.iter().any(|&b| b != 0x55) {
                scale.state(f32::from_le_bytes(*d))?;
            }
        }
        Ok(scale.get())
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let row_bytes = bytes.len() / rows;
        let codes = &bytes[row * row_bytes..][SCALE..row_bytes];
        for (out, block) in out.chunks_exact_mut(BLOCK).zip(codes.chunks_exact(BYTES)) {
            for (n, out) in out.chunks_exact_mut(BYTES).enumerate() {
                for (out, byte) in out.iter_mut().zip(block) {
                    *out = (byte >> (2 * n) & 3) as i8 - 1;
                }
            }
        }
    }
}
