//! `iq1_bn`: five trits a byte and a scale per row, as ik_llama.cpp defines it (GGUF type 134).
//!
//! ```text
//! A row is its scale (f16), then 13 bytes for each 64 codes (trit + 1). A byte holds base-3 digits,
//! the first one least significant, as byte = ceil(value * 256 / 243):
//!
//! byte 3g + k (g < 4, k < 3)   codes 16g + 5k + n,   n = 0..4
//! byte 12                      codes 16n + 15,       n = 0..3; the most significant digit is 0
//!
//! A row of zeros has scale 0.
//! ```

use super::tq1_0::{DIGITS, TRITS, encode};
use super::tq2_0::block_scale;
use super::{Layout, OneScale, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use half::f16;

/// The [`iq1_bn`](self) layout.
pub static IQ1_BN: Iq1Bn = Iq1Bn;

/// The type of [`IQ1_BN`].
#[derive(Debug)]
pub struct Iq1Bn;

/// Weights in a block.
const BLOCK: usize = 64;
/// Bytes in a block.
const BYTES: usize = 13;
/// Bytes of the scale before each row.
const SCALE: usize = 2;

/// The codes of byte `i` of a block, least significant first: first code, step, number.
fn codes(i: usize) -> (usize, usize, usize) {
    if i == 12 { (15, 16, 4) } else { (16 * (i / 3) + 5 * (i % 3), 1, 5) }
}

impl Sealed for Iq1Bn {}

impl Layout for Iq1Bn {
    fn name(&self) -> &'static str {
        "iq1_bn"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F16PerRow
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
            let (d, bytes) = out.split_at_mut(SCALE);
            d.copy_from_slice(&block_scale(row, scale));
            for (out, block) in bytes.chunks_exact_mut(BYTES).zip(row.chunks_exact(BLOCK)) {
                for (i, byte) in out.iter_mut().enumerate() {
                    let (first, step, n) = codes(i);
                    let digit = |n: usize| (block[first + step * n] + 1) as u16;
                    *byte = encode((0..n).rev().fold(0, |v, n| 3 * v + digit(n)));
                }
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        let len = self.packed_len(rows, cols)?;
        check_len(len, bytes)?;
        let mut scale = OneScale::default();
        for (r, row) in bytes.chunks_exact(len / rows).enumerate() {
            let (d, row) = row.split_at(SCALE);
            let mut zero = true;
            for (i, &byte) in row.iter().enumerate() {
                let four = i % BYTES == BYTES - 1;
                if DIGITS[byte as usize] > 5 || four && byte > encode(80) {
                    return Err(UnpackError::Code { offset: r * (len / rows) + SCALE + i, byte });
                }
                zero &= byte == encode(if four { 40 } else { 121 });
            }
            if !zero {
                scale.state(f16::from_le_bytes([d[0], d[1]]).to_f32())?;
            }
        }
        Ok(scale.get())
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let row_bytes = bytes.len() / rows;
        let bytes = &bytes[row * row_bytes..][SCALE..row_bytes];
        for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
            let five = |at: usize| &LEAST_FIRST[block[at] as usize];
            for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                // What an entry has too many is overwritten by the next.
                out[..8].copy_from_slice(five(3 * g));
                out[5..13].copy_from_slice(five(3 * g + 1));
                out[10..].copy_from_slice(&five(3 * g + 2)[..6]);
                out[15] = five(BYTES - 1)[g];
            }
        }
    }
}

/// The trits of each byte, the least significant one first, as long as a machine word: one is written faster than
/// its parts.
static LEAST_FIRST: [[i8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut n = 0;
        while n < 5 {
            table[byte][n] = TRITS[byte][4 - n];
            n += 1;
        }
        byte += 1;
    }
    table
};
