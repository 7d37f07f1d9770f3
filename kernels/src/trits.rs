//! The unpacked ternary matrix.

use std::fmt;

/// A row-major ternary matrix, one `i8` in {-1, 0, +1} per weight.
///
/// Row `r` holds the weights of output `r`; columns are inputs.
#[derive(Clone, PartialEq, Eq)]
pub struct Trits {
    rows: usize,
    cols: usize,
    data: Vec<i8>,
}

/// Why a buffer is no ternary matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TritsError {
    /// The buffer does not hold `rows * cols` values.
    Length {
        /// `rows * cols`, or `usize::MAX` where that overflows.
        expected: usize,
        /// What the buffer holds.
        found: usize,
    },
    /// A value outside {-1, 0, +1}.
    Value {
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// What stands there.
        found: i8,
    },
}

impl fmt::Display for TritsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TritsError::Length { expected, found } => {
                write!(f, "expected {expected} weights, found {found}")
            }
            TritsError::Value { row, col, found } => {
                write!(f, "weight {found} at row {row}, column {col} is not in {{-1, 0, 1}}")
            }
        }
    }
}

impl std::error::Error for TritsError {}

impl Trits {
    /// Takes a row-major buffer of `rows * cols` weights.
    ///
    /// # Errors
    /// If the length is wrong or a value is not a trit.
    pub fn new(rows: usize, cols: usize, data: Vec<i8>) -> Result<Self, TritsError> {
        let expected = rows.saturating_mul(cols);
        if data.len() != expected {
            return Err(TritsError::Length { expected, found: data.len() });
        }
        let bad = |v: i8| !(-1..=1).contains(&v);
        // One vectorised pass; the position is only looked for where there is one.
        let any_bad = |chunk: &[i8]| chunk.iter().fold(false, |any, &v| any | bad(v));
        if data.chunks(1024).any(any_bad) {
            let at = data.iter().position(|&v| bad(v)).expect("a bad value was seen");
            return Err(TritsError::Value { row: at / cols, col: at % cols, found: data[at] });
        }
        Ok(Self { rows, cols, data })
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The buffer alone, to be used again.
    pub fn into_vec(self) -> Vec<i8> {
        self.data
    }

    /// All weights, row-major.
    pub fn as_slice(&self) -> &[i8] {
        &self.data
    }

    /// The weights of row `r`.
    ///
    /// # Panics
    /// If `r` is not below [`rows`](Self::rows).
    pub fn row(&self, r: usize) -> &[i8] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// The share of zero weights, 0 for an empty matrix.
    pub fn zero_fraction(&self) -> f64 {
        let zeros = self.data.iter().filter(|v| **v == 0).count();
        if self.data.is_empty() { 0.0 } else { zeros as f64 / self.data.len() as f64 }
    }
}

impl fmt::Debug for Trits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trits {}x{}", self.rows, self.cols)
    }
}
