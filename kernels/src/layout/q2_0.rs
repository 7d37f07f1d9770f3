//! `q2_0` and `q2_0_g128`: two bits a weight in sequence and a scale per group (GGUF type 42).
//!
//! ```text
//! A group of G codes (trit + 1) of one row is 2 + G/4 bytes: the scale (f16), then in byte p:
//!
//! bits    7 6     5 4     3 2     1 0
//! code    4p+3    4p+2    4p+1    4p
//!
//! G is 64 in llama.cpp, 128 in PrismML's files. A group of zeros has scale 0 and codes 1.
//! ```

use super::tq2_0::block_scale;
use super::{Layout, OneScale, ScaleForm, ShapeError, UnpackError, check_2bit, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use half::f16;

/// The [`q2_0`](self) layout of llama.cpp: groups of 64.
pub static Q2_0: Q20 = Q20 { name: "q2_0", group: 64, requires: "columns must be a multiple of 64" };

/// The [`q2_0`](self) layout of PrismML: groups of 128.
pub static Q2_0_G128: Q20 =
    Q20 { name: "q2_0_g128", group: 128, requires: "columns must be a multiple of 128" };

/// The type of [`Q2_0`] and [`Q2_0_G128`].
#[derive(Debug)]
pub struct Q20 {
    name: &'static str,
    group: usize,
    requires: &'static str,
}

impl Q20 {
    /// Bytes in a group.
    fn bytes(&self) -> usize {
        2 + self.group / 4
    }
}

impl Sealed for Q20 {}

impl Layout for Q20 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::F16PerBlock
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        let n = elements(self.name, rows, cols)?;
        if !cols.is_multiple_of(self.group) {
            return Err(ShapeError { layout: self.name, rows, cols, requires: self.requires });
        }
        Ok(n / self.group * self.bytes())
    }

    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        assert_eq!(out.len(), self.packed_len(trits.rows(), trits.cols())?);
        let groups = trits.as_slice().chunks_exact(self.group);
        for (out, group) in out.chunks_exact_mut(self.bytes()).zip(groups) {
            let (d, codes) = out.split_at_mut(2);
            d.copy_from_slice(&block_scale(group, scale));
            for (byte, q) in codes.iter_mut().zip(group.chunks_exact(4)) {
                let code = |n: usize| (q[n] + 1) as u8;
                *byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        let mut scale = OneScale::default();
        for (i, group) in bytes.chunks_exact(self.bytes()).enumerate() {
            let (d, codes) = group.split_at(2);
            check_2bit(codes, i * self.bytes() + 2)?;
            if codes.iter().any(|&b| b != 0x55) {
                scale.state(f16::from_le_bytes([d[0], d[1]]).to_f32())?;
            }
        }
        Ok(scale.get())
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let row_bytes = cols / self.group * self.bytes();
        let groups = bytes[row * row_bytes..][..row_bytes].chunks_exact(self.bytes());
        for (out, group) in out.chunks_exact_mut(self.group).zip(groups) {
            for (out, byte) in out.chunks_exact_mut(4).zip(&group[2..]) {
                for (n, out) in out.iter_mut().enumerate() {
                    *out = (byte >> (2 * n) & 3) as i8 - 1;
                }
            }
        }
    }
}
