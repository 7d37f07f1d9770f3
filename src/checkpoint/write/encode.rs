//! One tensor of the output from the tensors of the source.

use super::{Action, Inexact, Item, matrix};
use crate::checkpoint::gguf::RowOrder;
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::{Checkpoint, FloatData, FloatTensor};
use crate::error::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;
use tritmark_kernels::Trits;
use tritmark_kernels::layout::Layout;

/// Values of a float matrix that are encoded at once.
const SLICE: usize = 2 << 20;

/// Makes tensors.
pub struct Encoder<'a> {
    pub checkpoint: &'a Checkpoint,
}

/// A part of a tensor that is encoded at once.
pub struct Piece {
    /// Rows of it; `None` for all of what is not cut.
    rows: Option<Range<usize>>,
    /// Where it starts in the tensor.
    pub offset: u64,
}

/// Rows that are handled at once.
fn slices(rows: usize, cols: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (SLICE / cols).max(1);
    (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
}

impl Encoder<'_> {
    /// Cuts large float matrices into rows.
    pub fn pieces(&self, item: &Item) -> Vec<Piece> {
        match (item.shape.as_slice(), &item.action) {
            (&[rows, cols], Action::Float { interleave: None, .. }) => {
                let row_len = item.len / rows as u64;
                let piece =
                    |rows: Range<usize>| Piece { offset: rows.start as u64 * row_len, rows: Some(rows) };
                slices(rows, cols).map(piece).collect()
            }
            _ => vec![Piece { rows: None, offset: 0 }],
        }
    }

    /// The bytes of a piece, and the scale if it had to be rounded.
    pub fn encode(&self, item: &Item, piece: &Piece) -> Result<(Vec<u8>, Option<Inexact>)> {
        if let Action::Bytes(bytes) = &item.action {
            return Ok((bytes.clone(), None));
        }
        let role = item.role.ok_or_else(|| Error::Bug(format!("{} has no role", item.name)))?;
        let inexact = |scale: f32, stored: f32| {
            (stored != scale).then(|| Inexact { tensor: item.name.clone(), scale, stored })
        };
        match &item.action {
            Action::Bytes(bytes) => Ok((bytes.clone(), None)),
            Action::Float { form, interleave } => {
                let mut float = match &piece.rows {
                    Some(rows) => self.checkpoint.float_rows(role, rows.clone())?,
                    None => self.checkpoint.float(role)?,
                };
                if let Some(heads) = *interleave {
                    float = interleave_floats(&float, heads);
                }
                Ok((floats(&float.data, *form)?, None))
            }
            Action::Spread { form, interleave, scaled } => {
                let (trits, scale) = self.trits(role, *interleave)?;
                let factor = if *scaled { scale } else { 1.0 };
                let values = trits.as_slice().iter().map(|&t| f32::from(t) * factor).collect();
                Ok((floats(&FloatData::F32(values), *form)?, inexact(factor, rounded(factor, *form)?)))
            }
            Action::Pack { layout, interleave, unit } => {
                let (trits, scale) = self.trits(role, *interleave)?;
                let scale = if *unit { 1.0 } else { scale };
                let (bytes, stored) = pack(*layout, &trits, scale, item.len as usize)
                    .map_err(|what| Error::Bug(format!("{} as {}: {what}", item.name, layout.name())))?;
                Ok((bytes, stored.and_then(|stored| inexact(scale, stored))))
            }
            Action::Scale { form, inverse } => {
                let Role::Layer(layer, LayerRole::Scale(linear)) = role else {
                    return Err(Error::Bug(format!("{} is no scale", item.name)));
                };
                let scale = self.checkpoint.scale(Role::Layer(layer, LayerRole::Linear(linear)))?;
                let turn = |x: f32| if *inverse { 1.0 / x } else { x };
                let stored = rounded(turn(scale), *form)?;
                Ok((floats(&FloatData::F32(vec![stored]), *form)?, inexact(scale, turn(stored))))
            }
        }
    }

    fn trits(&self, role: Role, interleave: Option<usize>) -> Result<(Trits, f32)> {
        let ternary = self.checkpoint.ternary(role)?;
        let Some(heads) = interleave else { return Ok((ternary.trits, ternary.scale)) };
        let (rows, cols) = (ternary.trits.rows(), ternary.trits.cols());
        let data = interleave_rows(ternary.trits.as_slice(), rows, heads);
        let trits = Trits::new(rows, cols, data).map_err(|e| Error::Bug(e.to_string()))?;
        Ok((trits, ternary.scale))
    }
}

/// Packs a matrix and proves that it comes back; returns the scale that the bytes state.
fn pack(
    layout: &dyn Layout,
    trits: &Trits,
    scale: f32,
    len: usize,
) -> Result<(Vec<u8>, Option<f32>), String> {
    let (rows, cols) = (trits.rows(), trits.cols());
    let mut bytes = vec![0; len];
    layout.pack(trits, scale, &mut bytes).map_err(|e| e.to_string())?;
    let stored = layout.check(rows, cols, &bytes).map_err(|e| e.to_string())?;
    let mut back = vec![0; cols];
    for row in 0..rows {
        layout.unpack_row(rows, cols, &bytes, row, &mut back);
        if back != trits.row(row) {
            return Err(format!("row {row} does not come back as it was packed"));
        }
    }
    Ok((bytes, stored))
}

/// Rows in the order in which architecture `llama` stores them.
fn interleave_rows<T: Copy + Default>(data: &[T], rows: usize, heads: usize) -> Vec<T> {
    let (order, cols) = (RowOrder::new(rows, heads), data.len() / rows);
    let mut out = vec![T::default(); data.len()];
    for (row, values) in data.chunks_exact(cols).enumerate() {
        let at = order.in_file(row) * cols;
        out[at..at + cols].copy_from_slice(values);
    }
    out
}

fn interleave_floats(float: &FloatTensor, heads: usize) -> FloatTensor {
    let rows = float.shape[0];
    let data = match &float.data {
        FloatData::F32(v) => FloatData::F32(interleave_rows(v, rows, heads)),
        FloatData::F16(v) => FloatData::F16(interleave_rows(v, rows, heads)),
        FloatData::Bf16(v) => FloatData::Bf16(interleave_rows(v, rows, heads)),
    };
    FloatTensor { shape: float.shape.clone(), data }
}

/// A value as a form of single floats holds it.
pub fn rounded(x: f32, form: Form) -> Result<f32> {
    match form {
        Form::F32 => Ok(x),
        Form::F16 => Ok(f16::from_f32(x).to_f32()),
        Form::Bf16 => Ok(bf16::from_f32(x).to_f32()),
        _ => Err(Error::Bug(format!("{} holds no single values", form.name()))),
    }
}

/// Little-endian bytes of floats in `form`.
fn floats(data: &FloatData, form: Form) -> Result<Vec<u8>> {
    Ok(match (form, data) {
        (Form::F16, FloatData::F16(v)) => bytes(v, |x| x.to_le_bytes()),
        (Form::Bf16, FloatData::Bf16(v)) => bytes(v, |x| x.to_le_bytes()),
        (_, FloatData::F32(v)) => from_f32(v, form)?,
        (_, FloatData::F16(v)) => from_f32(&v.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), form)?,
        (_, FloatData::Bf16(v)) => from_f32(&v.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), form)?,
    })
}

fn from_f32(values: &[f32], form: Form) -> Result<Vec<u8>> {
    Ok(match form {
        Form::F32 => bytes(values, |x| x.to_le_bytes()),
        Form::F16 => bytes(&halves(values), |x| x.to_le_bytes()),
        Form::Bf16 => bytes(values, |x| bf16::from_f32(x).to_le_bytes()),
        Form::Quant(quant) => {
            let (len, block) = quant.block();
            let mut out = vec![0; values.len() / len * block];
            quant.encode(values, &mut out);
            out
        }
        Form::Packed(_) | Form::Other(_) => {
            return Err(Error::Bug(format!("{} is no form of floats", form.name())));
        }
    })
}

/// All values as f16, rounded.
fn halves(values: &[f32]) -> Vec<f16> {
    let mut out = vec![f16::ZERO; values.len()];
    out.convert_from_f32_slice(values);
    out
}

fn bytes<T: Copy, const N: usize>(values: &[T], one: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = vec![0; values.len() * N];
    for (out, &x) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = one(x);
    }
    out
}

/// Whether a form of single floats holds every value of a tensor.
pub fn exact(checkpoint: &Checkpoint, role: Role, form: Form) -> Result<bool> {
    let shape = checkpoint.config.shape(role);
    let (rows, cols) = matrix(&shape);
    let slices: Vec<_> = slices(rows, cols).collect();
    let holds = |slice: Range<usize>| {
        let float = match shape.len() {
            1 => checkpoint.float(role)?,
            _ => checkpoint.float_rows(role, slice)?,
        };
        checkpoint.release();
        Ok(match (&float.data, form) {
            (_, Form::F32) | (FloatData::F16(_), Form::F16) | (FloatData::Bf16(_), Form::Bf16) => true,
            (_, Form::F16) => {
                let values = float.to_f32();
                let mut back = vec![0.0; values.len()];
                halves(&values).convert_to_f32_slice(&mut back);
                values.iter().zip(&back).all(|(x, y)| x.to_bits() == y.to_bits())
            }
            (_, Form::Bf16) => float.to_f32().iter().all(|x| x.to_bits() & 0xffff == 0),
            _ => return Err(Error::Bug(format!("{} holds no single values", form.name()))),
        })
    };
    slices.into_par_iter().map(holds).try_reduce(|| true, |a, b| Ok(a && b))
}
