//! The precision of the output head, which may be rounded as it is loaded.

use crate::checkpoint::FloatData;
use crate::checkpoint::gguf::quant::Quant;
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::ops::Range;
use tritmark_kernels::float::FloatRows;
use tritmark_kernels::pool::Pool;

/// Precision in which the output head, and with it a tied embedding, is used.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// As the checkpoint stores it
    #[default]
    AsIs,
    /// IEEE half
    F16,
    /// bfloat16
    Bf16,
    /// 8 bits, a scale for each row
    Int8,
    /// 6.25 bits, a scale for every 64 columns; the fastest
    Int6,
    /// GGUF's 6-bit form
    #[value(name = "q6_k")]
    #[serde(rename = "q6_k")]
    Q6K,
    /// GGUF's 4-bit form
    #[value(name = "q4_0")]
    #[serde(rename = "q4_0")]
    Q4_0,
}

impl Head {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Head::AsIs => "as-is",
            Head::F16 => "f16",
            Head::Bf16 => "bf16",
            Head::Int8 => "int8",
            Head::Int6 => "int6",
            Head::Q6K => "q6_k",
            Head::Q4_0 => "q4_0",
        }
    }

    /// A matrix in this precision, which is read band by band (see [`FloatRows::read`]), so that it is
    /// never there as it was. The block-quantised forms are encoded as a GGUF file would hold them and
    /// decoded again to f32, so that logits are those of the form, but speed is that of f32.
    ///
    /// # Errors
    /// As `read`, or if rows are no whole blocks of the form, or a value is one that blocks do not hold.
    pub(super) fn read(
        self,
        pool: &Pool,
        rows: usize,
        cols: usize,
        read: impl Fn(Range<usize>) -> Result<FloatData> + Sync,
    ) -> Result<FloatRows> {
        let quant = match self {
            Head::AsIs => return FloatRows::read(pool, rows, cols, read),
            Head::Int8 => return FloatRows::read_int8(pool, rows, cols, read),
            Head::Int6 => return FloatRows::read_int6(pool, rows, cols, read),
            Head::F16 | Head::Bf16 => None,
            Head::Q6K => Some(Quant::Q6K),
            Head::Q4_0 => Some(Quant::Q4_0),
        };
        if let Some((values, _)) = quant.map(Quant::block).filter(|(values, _)| !cols.is_multiple_of(*values))
        {
            return Err(Error::Usage(format!(
                "--head {}: rows are no multiple of {values} values, but of {cols}; choose int8, int6, f16 or bf16",
                self.name()
            )));
        }
        FloatRows::read(pool, rows, cols, |band| {
            let first = band.start;
            let mut values = read(band)?.to_f32();
            Ok(match (self, quant) {
                (_, Some(quant)) => {
                    // Its code would stand for a number like any other.
                    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                        return Err(Error::Usage(format!(
                            "--head {}: row {}, column {} is {}, which the form cannot hold; \
                             choose int8, int6, f16 or bf16",
                            self.name(),
                            first + at / cols,
                            at % cols,
                            values[at]
                        )));
                    }
                    let (block, bytes) = quant.block();
                    let mut blocks = vec![0; values.len() / block * bytes];
                    quant.encode(&values, &mut blocks);
                    quant.decode(&blocks, &mut values);
                    FloatData::F32(values)
                }
                (Head::F16, _) => FloatData::F16(values.into_iter().map(f16::from_f32).collect()),
                _ => FloatData::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that no form holds exactly.
    fn matrix(rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 640.0 * 1.001).collect()
    }

    fn rounded(head: Head, values: &[f32], cols: usize) -> Result<FloatRows> {
        let band = |r: Range<usize>| Ok(FloatData::F32(values[r.start * cols..r.end * cols].to_vec()));
        head.read(&Pool::new(2), values.len() / cols, cols, band)
    }

    #[test]
    fn fewer_bits_are_farther_off() {
        let values = matrix(5, 256);
        let error = |head: Head| {
            let rounded = rounded(head, &values, 256).unwrap();
            let mut row = vec![0.0; 256];
            let mut sum = 0.0;
            for (r, exact) in values.chunks(256).enumerate() {
                rounded.row(r, &mut row);
                sum += row.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            sum
        };
        let [exact, f16, bf16, int8, q6_k, int6, q4_0] =
            [Head::AsIs, Head::F16, Head::Bf16, Head::Int8, Head::Q6K, Head::Int6, Head::Q4_0].map(error);
        assert_eq!(exact, 0.0);
        assert!(0.0 < f16 && f16 < bf16, "{f16} {bf16}");
        for six in [q6_k, int6] {
            assert!(int8 < six && six < q4_0, "{int8} {six} {q4_0}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_refused() {
        let values = matrix(2, 96);
        assert!(rounded(Head::Q4_0, &values, 96).is_ok());
        let error = rounded(Head::Q6K, &values, 96).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("96"), "{error}");
    }

    #[test]
    fn what_is_not_finite_is_refused_or_seen() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = matrix(5, 256);
            values[3 * 256 + 7] = bad;
            for head in [Head::Q6K, Head::Q4_0] {
                let error = rounded(head, &values, 256).unwrap_err().to_string();
                assert!(error.contains("row 3, column 7"), "{error}");
            }
            for head in [Head::AsIs, Head::F16, Head::Bf16, Head::Int8, Head::Int6] {
                let mut row = vec![0.0; 256];
                rounded(head, &values, 256).unwrap().row(3, &mut row);
                assert!(!row[7].is_finite(), "{head:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_command_line_and_of_suites() {
        for head in <Head as clap::ValueEnum>::value_variants() {
            assert_eq!(<Head as clap::ValueEnum>::from_str(head.name(), false).as_ref(), Ok(head));
            assert_eq!(serde_json::to_value(head).unwrap(), head.name());
        }
    }
}
