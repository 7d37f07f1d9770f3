//! `tq1_0`: five trits a byte and a scale per block, as llama.cpp defines it (GGUF type 34).
//!
//! ```text
//! A block of 256 codes (trit + 1) of one row is 54 bytes: qs[48], qh[4], the scale (f16).
//! A byte holds base-3 digits, the first one most significant, as byte = ceil(value * 256 / 243):
//!
//! qs[m], m < 32       codes m + 32n,         n = 0..4
//! qs[32 + m], m < 16  codes 160 + m + 16n,   n = 0..4
//! qh[j], j < 4        codes 240 + j + 4n,    n = 0..3; the fifth digit is 0
//!
//! A block of zeros has scale 0.
//! ```

use super::tm2::{self, GROUP, ROW_BYTES};
use super::tq2_0::block_scale;
use super::{Layout, OneScale, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use half::f16;

/// The [`tq1_0`](self) layout.
pub static TQ1_0: Tq1_0 = Tq1_0;

/// The type of [`TQ1_0`].
#[derive(Debug)]
pub struct Tq1_0;

/// Weights in a block.
pub(crate) const BLOCK: usize = 256;
/// Bytes in a block.
pub(crate) const BYTES: usize = 54;
/// The groups of a block: first code, first byte, bytes (which is also the step between the codes
/// of a byte), codes a byte.
pub(crate) const GROUPS: [(usize, usize, usize, usize); 3] =
    [(0, 0, 32, 5), (160, 32, 16, 5), (240, 48, 4, 4)];

/// The byte that holds the five-digit number `value`.
pub(super) const fn encode(value: u16) -> u8 {
    (value * 256).div_ceil(243) as u8
}

/// The five trits of each byte.
pub(super) static TRITS: [[i8; 5]; 256] = {
    let mut table = [[0; 5]; 256];
    let mut byte = 0;
    while byte < 256 {
        // Multiplying the fraction byte/256 by 3 moves the next digit above the point.
        let (mut fraction, mut n) = (byte as u16, 0);
        while n < 5 {
            table[byte][n] = ((fraction * 3) >> 8) as i8 - 1;
            fraction = (fraction * 3) & 255;
            n += 1;
        }
        byte += 1;
    }
    table
};

/// Digits in the number that each byte stands for, without zeros at its end; 6 for the 13 bytes that
/// stand for none.
pub(super) static DIGITS: [u8; 256] = {
    let mut table = [6; 256];
    let mut value = 0;
    while value < 243 {
        let (mut digits, mut v) = (5, value);
        while digits > 0 && v % 3 == 0 {
            v /= 3;
            digits -= 1;
        }
        table[encode(value) as usize] = digits;
        value += 1;
    }
    table
};

impl Sealed for Tq1_0 {}

impl Layout for Tq1_0 {
    fn name(&self) -> &'static str {
        "tq1_0"
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
            for (code, byte, step, per_byte) in GROUPS {
                for m in 0..step {
                    let digit = |n: usize| (block[code + m + step * n] + 1) as u16;
                    let value = (0..per_byte).fold(0, |v, n| 3 * v + digit(n));
                    out[byte + m] = encode(if per_byte == 4 { 3 * value } else { value });
                }
            }
            out[BYTES - 2..].copy_from_slice(&block_scale(block, scale));
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let mut scale = OneScale::default();
        for (i, block) in bytes.chunks_exact(BYTES).enumerate() {
            let mut zero = true;
            for (_, first, len, per_byte) in GROUPS {
                for (j, &byte) in block[first..first + len].iter().enumerate() {
                    if DIGITS[byte as usize] > per_byte as u8 {
                        return Err(UnpackError::Code { offset: i * BYTES + first + j, byte });
                    }
                    zero &= byte == encode(if per_byte == 4 { 3 * 40 } else { 121 });
                }
            }
            if !zero {
                scale.state(f16::from_le_bytes([block[BYTES - 2], block[BYTES - 1]]).to_f32())?;
            }
        }
        Ok(scale.get())
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks(bytes, cols, row)) {
            for (out, codes) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes(block)) {
                tm2::decode(codes, out);
            }
        }
    }
}

/// The blocks of a row of so many columns.
#[inline(always)]
pub(crate) fn blocks(bytes: &[u8], cols: usize, row: usize) -> &[[u8; BYTES]] {
    let row_bytes = cols / BLOCK * BYTES;
    bytes[row * row_bytes..][..row_bytes].as_chunks().0
}

/// The codes of a block, 128 columns each, as [`tm2::put_row`] takes them. Inlined so that callers
/// compiled for wider vectors get them here too.
#[inline(always)]
pub(crate) fn codes(block: &[u8; BYTES]) -> [[u8; ROW_BYTES]; 2] {
    let first = digits::<32>(block);
    let second = digits::<16>(&block[GROUPS[1].1..]);
    // As sixteen bytes have them: side by side.
    let mut last = [0; 16];
    for (m, &byte) in block[GROUPS[2].1..BYTES - 2].iter().enumerate() {
        for (n, trit) in TRITS[byte as usize][..4].iter().enumerate() {
            last[4 * n + m] = (trit + 1) as u8;
        }
    }
    let [a, b, c, d, e] = &first;
    let (f, g, h) =
        (beside(&second[0], &second[1]), beside(&second[2], &second[3]), beside(&second[4], &last));
    [planes([a, b, c, d]), planes([e, &f, &g, &h])]
}

/// Bytes behind others.
#[inline(always)]
fn beside(a: &[u8; 16], b: &[u8; 16]) -> [u8; ROW_BYTES] {
    let mut both = [0; ROW_BYTES];
    both[..16].copy_from_slice(a);
    both[16..].copy_from_slice(b);
    both
}

/// Codes of four planes in a byte.
#[inline(always)]
fn planes([a, b, c, d]: [&[u8; ROW_BYTES]; 4]) -> [u8; ROW_BYTES] {
    let mut codes = [0; ROW_BYTES];
    for (m, codes) in codes.iter_mut().enumerate() {
        *codes = a[m] | b[m] << 2 | c[m] << 4 | d[m] << 6;
    }
    codes
}

/// The digits of `S` bytes, the most significant of all of them first.
#[inline(always)]
fn digits<const S: usize>(bytes: &[u8]) -> [[u8; S]; 5] {
    let mut fractions: [u8; S] = *bytes.first_chunk().expect("a group lies in its block");
    let mut digits = [[0; S]; 5];
    for digits in &mut digits {
        for (digit, fraction) in digits.iter_mut().zip(&mut fractions) {
            // As in `TRITS`: what is above the point of three times n/256.
            *digit = u8::from(*fraction >= 86) + u8::from(*fraction >= 171);
            *fraction = fraction.wrapping_add(*fraction).wrapping_add(*fraction);
        }
    }
    digits
}
