//! `i2_s`: two bits a weight, as bitnet.cpp writes it on x86.
//!
//! ```text
//! The row-major matrix is one sequence, so a block may straddle rows.
//! A block of 128 codes (trit + 1) is 32 bytes; in byte p:
//!
//! bits    7 6    5 4     3 2     1 0
//! code    p      p+32    p+64    p+96
//!
//! After the last block: the scale (f32), then 28 bytes that nobody reads; we write zeros.
//! ```
//!
//! `i2_s_arm` is the same in blocks of 64 and 16 bytes, as bitnet.cpp writes it on ARM, under the same
//! type id and without a mark.

use super::{Layout, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::float::on_every_level;
use crate::sealed::Sealed;

/// The [`i2_s`](self) layout: blocks of 128.
pub static I2_S: I2S<32> = I2S { name: "i2_s", requires: "rows times columns must be a multiple of 128" };

/// The [`i2_s_arm`](self) layout: blocks of 64.
pub static I2_S_ARM: I2S<16> =
    I2S { name: "i2_s_arm", requires: "rows times columns must be a multiple of 64" };

/// Bytes after the codes: the scale and filler.
pub(super) const TAIL: usize = 32;

/// Writes the [`TAIL`].
pub(super) fn write_tail(tail: &mut [u8], scale: f32) {
    tail.fill(0);
    tail[..4].copy_from_slice(&scale.to_le_bytes());
}

/// The scale in a [`TAIL`].
pub(super) fn read_tail(tail: &[u8]) -> f32 {
    f32::from_le_bytes(*tail.first_chunk().expect("the tail begins with an f32"))
}

/// Blocks of `4 * STRIDE` weights in `STRIDE` bytes.
#[derive(Debug)]
pub struct I2S<const STRIDE: usize> {
    name: &'static str,
    requires: &'static str,
}

impl<const STRIDE: usize> Sealed for I2S<STRIDE> {}

impl<const STRIDE: usize> Layout for I2S<STRIDE> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F32
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name, rows, cols)?;
        if !n.is_multiple_of(4 * STRIDE) {
            return Err(ShapeError { layout: self.name, rows, cols, requires: self.requires });
        }
        Ok(n / 4 + TAIL)
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        assert_eq!(out.len(), self.packed_len(trits.rows(), trits.cols())?);
        let (codes, tail) = out.split_at_mut(out.len() - TAIL);
        write(STRIDE, trits.as_slice(), codes);
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
        read(STRIDE, bytes, row * cols, out);
    }
}

on_every_level!(
    /// Writes blocks of `4 * stride` trits.
    fn write(stride: usize, trits: &[i8], codes: &mut [u8]) = write_at_level
);

#[inline(always)]
fn write_at_level<S>(_: S, stride: usize, trits: &[i8], codes: &mut [u8]) {
    match stride {
        16 => write_blocks::<16>(trits, codes),
        _ => write_blocks::<32>(trits, codes),
    }
}

#[inline(always)]
fn write_blocks<const STRIDE: usize>(trits: &[i8], codes: &mut [u8]) {
    let blocks = trits.chunks_exact(4 * STRIDE);
    for (out, block) in codes.chunks_exact_mut(STRIDE).zip(blocks) {
        for (p, byte) in out.iter_mut().enumerate() {
            let code = |i: usize| (block[i * STRIDE + p] + 1) as u8;
            *byte = code(0) << 6 | code(1) << 4 | code(2) << 2 | code(3);
        }
    }
}

on_every_level!(
    /// Reads the trits from `at` on, from blocks of `4 * stride`.
    fn read(stride: usize, bytes: &[u8], at: usize, out: &mut [i8]) = read_at_level
);

#[inline(always)]
fn read_at_level<S>(_: S, stride: usize, bytes: &[u8], at: usize, out: &mut [i8]) {
    match stride {
        16 => read_blocks::<16>(bytes, at, out),
        _ => read_blocks::<32>(bytes, at, out),
    }
}

#[inline(always)]
fn read_blocks<const STRIDE: usize>(bytes: &[u8], mut at: usize, mut out: &mut [i8]) {
    let trit = |byte: u8, lane: usize| (byte >> (6 - 2 * lane) & 3) as i8 - 1;
    // Whole blocks where a row starts with one.
    if at.is_multiple_of(4 * STRIDE) {
        let whole = out.len() / (4 * STRIDE) * (4 * STRIDE);
        let (blocks, rest) = out.split_at_mut(whole);
        let packed = bytes[at / 4..].chunks_exact(STRIDE);
        for (block, packed) in blocks.chunks_exact_mut(4 * STRIDE).zip(packed) {
            for (lane, run) in block.chunks_exact_mut(STRIDE).enumerate() {
                for (out, &byte) in run.iter_mut().zip(packed) {
                    *out = trit(byte, lane);
                }
            }
        }
        (at, out) = (at + whole, rest);
    }
    // Elsewhere runs of up to STRIDE weights share a bit position.
    while !out.is_empty() {
        let (block, lane, p) = (at / (4 * STRIDE), at / STRIDE % 4, at % STRIDE);
        let (run, rest) = out.split_at_mut(out.len().min(STRIDE - p));
        for (out, &byte) in run.iter_mut().zip(&bytes[block * STRIDE + p..]) {
            *out = trit(byte, lane);
        }
        at += run.len();
        out = rest;
    }
}
