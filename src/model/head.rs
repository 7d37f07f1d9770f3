//! The precision of the output head, which may be rounded after loading.

use crate::checkpoint::gguf::quant::Quant;
use crate::error::{Error, Result};
use half::{bf16, f16};
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

    /// `rows` in this precision. The block-quantised forms are encoded as a GGUF file would hold them
    /// and decoded again to f32, so that logits are those of the form, but speed is that of f32.
    ///
    /// # Errors
    /// If rows are no whole blocks of the form.
    pub(super) fn round(self, rows: &FloatRows, pool: &Pool) -> Result<FloatRows> {
        let (count, cols) = (rows.rows(), rows.cols());
        let quant = match self {
            Head::Int8 => return Ok(rows.to_int8(pool)),
            Head::Int6 => return Ok(rows.to_int6(pool)),
            Head::Q6K => Some(Quant::Q6K),
            Head::Q4_0 => Some(Quant::Q4_0),
            Head::AsIs | Head::F16 | Head::Bf16 => None,
        };
        if let Some((values, _)) = quant.map(Quant::block).filter(|(values, _)| cols % values != 0) {
            return Err(Error::Usage(format!(
                "--head {}: rows are no multiple of {values} values, but of {cols}; choose int8, f16 or bf16",
                self.name()
            )));
        }
        let mut values = vec![0f32; count * cols];
        pool.chunks_mut(&mut values, cols, |r, out| {
            rows.row(r, out);
            if let Some(quant) = quant {
                let (values, bytes) = quant.block();
                let mut blocks = vec![0; cols / values * bytes];
                quant.encode(out, &mut blocks);
                quant.decode(&blocks, out);
            }
        });
        Ok(match self {
            Head::F16 => {
                let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                FloatRows::from_f16(pool, count, cols, &halves)
            }
            Head::Bf16 => {
                let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                FloatRows::from_bf16(pool, count, cols, &halves)
            }
            _ => FloatRows::from_f32(pool, count, cols, &values),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that no form holds exactly.
    fn matrix(pool: &Pool, rows: usize, cols: usize) -> (Vec<f32>, FloatRows) {
        let values: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 640.0 * 1.001).collect();
        let packed = FloatRows::from_f32(pool, rows, cols, &values);
        (values, packed)
    }

    #[test]
    fn fewer_bits_are_farther_off() {
        let pool = Pool::new(2);
        let (values, rows) = matrix(&pool, 5, 256);
        let error = |head: Head| {
            let rounded = head.round(&rows, &pool).unwrap();
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
        let pool = Pool::new(1);
        let (_, rows) = matrix(&pool, 2, 96);
        assert!(Head::Q4_0.round(&rows, &pool).is_ok());
        let error = Head::Q6K.round(&rows, &pool).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("96"), "{error}");
    }

    #[test]
    fn names_are_those_of_the_command_line_and_of_suites() {
        for head in <Head as clap::ValueEnum>::value_variants() {
            assert_eq!(<Head as clap::ValueEnum>::from_str(head.name(), false).as_ref(), Ok(head));
            assert_eq!(serde_json::to_value(head).unwrap(), head.name());
        }
    }
}
