//! `tq2_0`: two bits a weight and a scale per block, as llama.cpp defines it (GGUF type 35).
//!
//! ```text
//! A block of 256 codes (trit + 1) of one row is 66 bytes: 64 bytes of codes, then the scale (f16).
//! In byte 32h + m (h = 0, 1):
//!
//! bits    7 6            5 4            3 2            1 0
//! code    128h+96+m      128h+64+m      128h+32+m      128h+m
//!
//! A block of zeros has scale 0 and codes 1.
//! ```

use super::{Layout, OneScale, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use half::f16;

/// The [`tq2_0`](self) layout.
pub static TQ2_0: Tq2_0 = Tq2_0;

/// The type of [`TQ2_0`].
#[derive(Debug)]
pub struct Tq2_0;

/// Weights in a block.
const BLOCK: usize = 256;
/// Bytes of codes in a block.
const CODES: usize = 64;
/// Bytes in a block.
const BYTES: usize = CODES + 2;

impl Sealed for Tq2_0 {}

impl Layout for Tq2_0 {
    fn name(&self) -> &'static str {
        "tq2_0"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F16PerBlock
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name(), rows, cols)?;
        if !cols.is_multiple_of(BLOCK) {
            let requires = "columns must be a multiple of 256";
            return Err(ShapeError { layout: self.name(), rows, cols, requires });
        }
        Ok(n / BLOCK * BYTES)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        assert_eq!(out.len(), self.packed_len(trits.rows(), trits.cols())?);
        let blocks = trits.as_slice().chunks_exact(BLOCK);
        for (out, block) in out.chunks_exact_mut(BYTES).zip(blocks) {
            let (codes, d) = out.split_at_mut(CODES);
            for (codes, half) in codes.chunks_exact_mut(32).zip(block.chunks_exact(128)) {
                for (m, byte) in codes.iter_mut().enumerate() {
                    let code = |n: usize| (half[32 * n + m] + 1) as u8;
                    *byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
                }
            }
            d.copy_from_slice(&block_scale(block, scale));
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let mut scale = OneScale::default();
        for (i, block) in bytes.chunks_exact(BYTES).enumerate() {
            let (codes, d) = block.split_at(CODES);
            check_2bit(codes, i * BYTES)?;
            if codes.iter().any(|&b| b != 0x55) {
                scale.state(f16::from_le_bytes([d[0], d[1]]).to_f32())?;
            }
        }
        Ok(scale.get())
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let row_bytes = cols / BLOCK * BYTES;
        let blocks = bytes[row * row_bytes..][..row_bytes].chunks_exact(BYTES);
        for (out, block) in out.chunks_exact_mut(BLOCK).zip(blocks) {
            for (out, codes) in out.chunks_exact_mut(128).zip(block.chunks_exact(32)) {
                for (n, out) in out.chunks_exact_mut(32).enumerate() {
                    for (out, byte) in out.iter_mut().zip(codes) {
                        *out = (byte >> (2 * n) & 3) as i8 - 1;
                    }
                }
            }
        }
    }
}

/// The f16 that a block states: the scale, or 0 for a block of zeros.
pub(super) fn block_scale(block: &[i8], scale: f32) -> [u8; 2] {
    let zero = block.iter().all(|&q| q == 0);
    f16::from_f32(if zero { 0.0 } else { scale }).to_le_bytes()
}
