//! Packed byte arrangements of a ternary matrix, one file each.

use crate::Trits;
use std::fmt;

/// A byte arrangement of a ternary matrix.
///
/// `unpack(pack(x)) == x` for every matrix that [`packed_len`](Layout::packed_len) accepts.
pub trait Layout: Send + Sync + fmt::Debug {
    /// The name used in kernel names, files and on the command line, e.g. `i2_s`.
    fn name(&self) -> &'static str;

    /// Where the layout keeps the scale of the matrix.
    fn scale_form(&self) -> ScaleForm;

    /// Exact number of bytes for a `rows` × `cols` matrix.
    ///
    /// # Errors
    /// If the layout cannot hold that shape. Nothing is ever padded silently.
    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError>;

    /// Writes the packed form to `out`, which must be [`packed_len`](Layout::packed_len) long.
    ///
    /// `scale` is the effective multiplicative scale; layouts with [`ScaleForm::Beside`] ignore it.
    ///
    /// # Errors
    /// If the layout cannot hold the shape.
    ///
    /// # Panics
    /// If `out` has the wrong length.
    fn pack(&self, trits: &Trits, scale: f32, out: &mut [u8]) -> Result<(), ShapeError>;

    /// Reads a packed matrix back.
    ///
    /// # Errors
    /// If the length is wrong, a code is unused, or the stored scales disagree with each other.
    fn unpack(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Unpacked, UnpackError>;
}

/// Where a layout keeps the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleForm {
    /// Not in the packed bytes: it travels beside them.
    Beside,
    /// One f32 in the packed bytes.
    F32,
    /// One f32 a row.
    F32PerRow,
    /// One f16 a row: rounds the scale.
    F16PerRow,
    /// One f16 a block: rounds the scale.
    F16PerBlock,
}

/// What [`Layout::unpack`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// The weights.
    pub trits: Trits,
    /// The scale in the bytes; `None` for [`ScaleForm::Beside`] or where no block states one.
    pub scale: Option<f32>,
}

/// A shape that a layout cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// The layout's name.
    pub layout: &'static str,
    /// Rows asked for.
    pub rows: usize,
    /// Columns asked for.
    pub cols: usize,
    /// What the layout requires, e.g. "columns must be a multiple of 256".
    pub requires: &'static str,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, rows, cols, requires } = self;
        write!(f, "{layout} cannot hold a {rows}x{cols} matrix: {requires}")
    }
}

impl std::error::Error for ShapeError {}

/// Why packed bytes are not a matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum UnpackError {
    /// The layout cannot hold the shape at all.
    Shape(ShapeError),
    /// Wrong number of bytes.
    Length {
        /// What the shape needs.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A code that stands for no trit.
    Code {
        /// Offset of the byte.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// Blocks of one matrix state different scales, so no single scale describes it.
    Scales {
        /// The first scale seen.
        first: f32,
        /// One that differs.
        other: f32,
    },
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnpackError::Shape(e) => e.fmt(f),
            UnpackError::Length { expected, found } => {
                write!(f, "expected {expected} bytes, found {found}")
            }
            UnpackError::Code { offset, byte } => {
                write!(f, "byte {byte:#04x} at offset {offset} holds a code that is no trit")
            }
            UnpackError::Scales { first, other } => {
                write!(f, "blocks state different scales ({first} and {other})")
            }
        }
    }
}

impl std::error::Error for UnpackError {}

impl From<ShapeError> for UnpackError {
    fn from(e: ShapeError) -> Self {
        UnpackError::Shape(e)
    }
}

/// Every layout, foreign ones first.
pub static ALL: &[&dyn Layout] = &[];

/// Finds a layout by its [name](Layout::name).
pub fn by_name(name: &str) -> Option<&'static dyn Layout> {
    ALL.iter().copied().find(|l| l.name() == name)
}
