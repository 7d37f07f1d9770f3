//! Packed byte arrangements of a ternary matrix, one file each.

mod hf;
mod i2_s;
mod i2_s_4row;
mod iq1_bn;
mod iq2_bn;
mod q2_0;
pub mod tile;
pub(crate) mod tl1;
mod tl2;
pub(crate) mod tm1_67;
pub(crate) mod tm2;
pub(crate) mod tq1_0;
mod tq2_0;

pub use hf::HF;
pub use i2_s::{I2_S, I2_S_ARM};
pub use i2_s_4row::I2_S_4ROW;
pub use iq1_bn::IQ1_BN;
pub use iq2_bn::IQ2_BN;
pub use q2_0::{Q2_0, Q2_0_G128};
pub use tl1::TL1;
pub use tl2::TL2;
pub use tm1_67::TM1_67;
pub use tm2::TM2;
pub use tq1_0::TQ1_0;
pub use tq2_0::TQ2_0;

use crate::Trits;
use crate::float::on_every_level;
use crate::sealed::Sealed;
use std::fmt;

/// A byte arrangement of a ternary matrix.
///
/// `unpack(pack(x)) == x` for every matrix that [`packed_len`](Layout::packed_len) accepts.
///
/// Only this crate implements it: kernels take bytes to lie as a layout of that name has them.
pub trait Layout: Sealed + Send + Sync + fmt::Debug {
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

    /// Proves that `bytes` are a `rows` × `cols` matrix in this layout, and gives the scale in them;
    /// `None` for [`ScaleForm::Beside`] or where no block states one.
    ///
    /// # Errors
    /// If the length is wrong, a code is unused, or the stored scales disagree with each other.
    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError>;

    /// Writes the `cols` weights of row `row` to `out`, from bytes that passed
    /// [`check`](Layout::check).
    ///
    /// # Panics
    /// If `row`, the length of `bytes` or the length of `out` does not fit the shape. Bytes that fit
    /// but did not pass the check give meaningless weights.
    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]);

    /// Reads a packed matrix back.
    ///
    /// # Errors
    /// As [`check`](Layout::check).
    fn unpack(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_into(rows, cols, bytes, vec![])
    }

    /// As [`unpack`](Layout::unpack), into a buffer of any length and content that is not needed any
    /// more.
    ///
    /// # Errors
    /// As [`check`](Layout::check).
    fn unpack_into(
        &self,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        spare: Vec<i8>,
    ) -> Result<Unpacked, UnpackError> {
        let scale = self.check(rows, cols, bytes)?;
        let mut data = spare;
        data.resize(rows * cols, 0);
        for (row, out) in data.chunks_exact_mut(cols).enumerate() {
            self.unpack_row(rows, cols, bytes, row, out);
        }
        let trits = Trits::new(rows, cols, data).expect("checked bytes decode to trits");
        Ok(Unpacked { trits, scale })
    }
}

/// The widest matrix that any layout holds: the products of `2^22` columns of codes 0..=2 with
/// activations of magnitude 128 sum to at most `2^30` and so fit an `i32` with room for corrections.
pub const MAX_COLS: usize = 1 << 22;

/// `rows * cols`, for a shape that is not empty, not wider than [`MAX_COLS`] and not larger than memory.
pub(crate) fn elements(layout: &'static str, rows: usize, cols: usize) -> Result<usize, ShapeError> {
    let error = |requires| ShapeError { layout, rows, cols, requires };
    if rows == 0 || cols == 0 {
        return Err(error("rows and columns must be at least 1"));
    }
    if cols > MAX_COLS {
        return Err(error("columns must be at most 4194304, so that sums fit 32 bits"));
    }
    rows.checked_mul(cols)
        .filter(|n| *n <= isize::MAX as usize / 8)
        .ok_or(error("rows times columns must fit in memory"))
}

/// Refuses bytes of the wrong length.
pub(crate) fn check_len(expected: usize, bytes: &[u8]) -> Result<(), UnpackError> {
    if bytes.len() == expected { Ok(()) } else { Err(UnpackError::Length { expected, found: bytes.len() }) }
}

on_every_level!(
    /// Refuses bytes of four 2-bit codes of which one is 3; `offset` is where `bytes` start.
    pub(crate) fn check_2bit(bytes: &[u8], offset: usize) -> Result<(), UnpackError> = check_2bit_at_level
);

#[inline(always)]
fn check_2bit_at_level<S>(_: S, bytes: &[u8], offset: usize) -> Result<(), UnpackError> {
    let bad = |b: u8| b & (b >> 1) & 0x55;
    for (i, chunk) in bytes.chunks(1024).enumerate() {
        // One vectorised pass; the position is only looked for where there is one.
        if chunk.iter().fold(0, |any, &b| any | bad(b)) != 0 {
            let at = chunk.iter().position(|&b| bad(b) != 0).expect("a bad code was seen");
            return Err(UnpackError::Code { offset: offset + i * 1024 + at, byte: chunk[at] });
        }
    }
    Ok(())
}

/// Collects the scales that the blocks of one matrix state, which must be equal bit for bit.
#[derive(Default)]
pub(crate) struct OneScale(Option<f32>);

impl OneScale {
    /// Takes the scale of one more block.
    pub(crate) fn state(&mut self, scale: f32) -> Result<(), UnpackError> {
        let first = *self.0.get_or_insert(scale);
        if first.to_bits() == scale.to_bits() {
            Ok(())
        } else {
            Err(UnpackError::Scales { first, other: scale })
        }
    }

    /// The scale, if any block stated one.
    pub(crate) fn get(self) -> Option<f32> {
        self.0
    }
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
pub static ALL: &[&dyn Layout] = &[
    &HF, &I2_S, &I2_S_ARM, &I2_S_4ROW, &TL1, &TL2, &TQ1_0, &TQ2_0, &Q2_0, &Q2_0_G128, &IQ1_BN, &IQ2_BN, &TM2,
    &TM1_67,
];

/// Finds a layout by its [name](Layout::name): one of [`ALL`], or `tl1` or `tl2` with an explicit
/// [`Tile`](tile::Tile), such as `tl2_BM64_BK96_bm32`.
pub fn by_name(name: &str) -> Option<&'static dyn Layout> {
    let plain = ALL.iter().copied().find(|l| l.name() == name);
    plain.or_else(|| tl1::by_name(name)).or_else(|| tl2::by_name(name))
}
