//! One tensor of the output from the tensors of the source.

use super::{Action, Inexact, Item, matrix, source_form};
use crate::checkpoint::PLAUSIBLE_SCALES;
use crate::checkpoint::gguf::RowOrder;
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::gguf::quant::Quant;
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::{Checkpoint, FloatData, FloatTensor, number};
use crate::error::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;
use tritmark_kernels::Trits;
use tritmark_kernels::layout::Layout;

/// Values of a float matrix that are encoded at once; few, so that they stay in the cache.
const SLICE: usize = 256 << 10;

/// Slices that are read between two calls of [`Checkpoint::release`].
const SLICES: usize = 64;

/// Makes tensors.
pub struct Encoder<'a> {
    pub checkpoint: &'a Checkpoint,
    /// What is odd about scales that were written all the same.
    pub odd: Mutex<Vec<String>>,
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

    /// The bytes of a piece, and the scale if it had to be rounded. `spare` is kept from piece to piece,
    /// so that not each matrix asks the system for new memory.
    pub fn encode(
        &self,
        item: &Item,
        piece: &Piece,
        spare: &mut Vec<i8>,
    ) -> Result<(Vec<u8>, Option<Inexact>)> {
        if let Action::Bytes(bytes) = &item.action {
            return Ok((bytes.clone(), None));
        }
        let role = item.role.ok_or_else(|| Error::Bug(format!("{} has no role", item.name)))?;
        let inexact = |scale: f32, stored: f32| {
            (stored != scale).then(|| Inexact { tensor: item.name.clone(), scale, stored })
        };
        match &item.action {
            Action::Bytes(bytes) => Ok((bytes.clone(), None)),
            Action::Float { form, interleave, less_one } => {
                let mut float = match &piece.rows {
                    Some(rows) => self.checkpoint.float_rows(role, rows.clone())?,
                    None => self.checkpoint.float(role)?,
                };
                self.sound_floats(item, role, &float, *form, piece.rows.as_ref().map_or(0, |r| r.start))?;
                if *less_one {
                    float.data = FloatData::F32(float.to_f32().into_iter().map(|w| w - 1.0).collect());
                }
                if let Some(heads) = *interleave {
                    float = interleave_floats(&float, heads);
                }
                Ok((floats(&float, *form)?, None))
            }
            Action::Spread { form, interleave, scaled } => {
                let (trits, scale) = self.trits(role, *interleave, spare)?;
                let factor = if *scaled { scale } else { 1.0 };
                self.sound_scale(item, role, factor, rounded(factor, *form)?, &trits)?;
                let values = trits.as_slice().iter().map(|&t| f32::from(t) * factor).collect();
                let values = FloatTensor { shape: item.shape.clone(), data: FloatData::F32(values) };
                *spare = trits.into_vec();
                Ok((floats(&values, *form)?, inexact(factor, rounded(factor, *form)?)))
            }
            Action::Pack { layout, interleave, unit } => {
                let (trits, scale) = self.trits(role, *interleave, spare)?;
                let scale = if *unit { 1.0 } else { scale };
                let (bytes, stored) = pack(*layout, &trits, scale, item.len as usize)
                    .map_err(|what| Error::Bug(format!("{} as {}: {what}", item.name, layout.name())))?;
                if let Some(stored) = stored {
                    self.sound_scale(item, role, scale, stored, &trits)?;
                }
                *spare = trits.into_vec();
                Ok((bytes, stored.and_then(|stored| inexact(scale, stored))))
            }
            Action::Scale { form, inverse } => {
                let Role::Layer(layer, LayerRole::Scale(linear)) = role else {
                    return Err(Error::Bug(format!("{} is no scale", item.name)));
                };
                let scale = self.checkpoint.scale(Role::Layer(layer, LayerRole::Linear(linear)))?;
                let turn = |x: f32| if *inverse { 1.0 / x } else { x };
                let stored = rounded(turn(scale), *form)?;
                if !(stored.is_finite() && stored > 0.0) {
                    return Err(self.unfit(item, role, format!("its scale {}", number(scale)), form.name()));
                }
                let stored_tensor = FloatTensor { shape: vec![1], data: FloatData::F32(vec![stored]) };
                Ok((floats(&stored_tensor, *form)?, inexact(scale, turn(stored))))
            }
        }
    }

    /// Refuses values that are no numbers, and those that would become none in `form`. `first` is the row
    /// at which `float` starts.
    fn sound_floats(
        &self,
        item: &Item,
        role: Role,
        float: &FloatTensor,
        form: Form,
        first: usize,
    ) -> Result<()> {
        // In most cases there is nothing to look at: the largest magnitude tells.
        let limit = largest(form);
        let fine = match &float.data {
            // As integers, magnitudes have the order that they have as numbers.
            FloatData::Bf16(v) => {
                let limit = (limit.to_bits() >> 16) as u16;
                v.iter().fold(true, |fine, x| fine & (x.to_bits() & 0x7fff <= limit))
            }
            _ => {
                let mut fine = true;
                float.each_f32(|piece| fine &= piece.iter().fold(true, |fine, x| fine & (x.abs() <= limit)));
                fine
            }
        };
        if fine {
            return Ok(());
        }
        let (mut bad, mut at) = (None, 0);
        float.each_f32(|piece| {
            if bad.is_none() {
                bad = piece.iter().position(|x| x.is_nan() || x.abs() > limit).map(|i| (at + i, piece[i]));
            }
            at += piece.len();
        });
        let (at, value) = bad.ok_or_else(|| Error::Bug("a bad value was seen".into()))?;
        let cols = float.shape.last().copied().unwrap_or(1);
        let place = match float.shape.len() {
            1 => format!("value {at}"),
            _ => format!("row {}, column {}", first + at / cols, at % cols),
        };
        Err(match value.is_finite() {
            true => self.unfit(item, role, format!("{place} is {}, which", number(value)), form.name()),
            false => self
                .error(role, format!("{place} is {value}; expected a number"))
                .hint("The checkpoint is damaged: download it again, or train it on."),
        })
    }

    /// Refuses a scale that the output would turn into nothing or everything; zeros need none.
    fn sound_scale(&self, item: &Item, role: Role, scale: f32, stored: f32, trits: &Trits) -> Result<()> {
        let lost = !(stored.is_finite() && stored > 0.0);
        match lost && trits.as_slice().iter().any(|&t| t != 0) {
            true => Err(self.unfit(item, role, format!("its scale {}", number(scale)), item.to.clone())),
            false => Ok(()),
        }
    }

    fn unfit(&self, item: &Item, role: Role, what: String, form: String) -> Error {
        let hint = match item.action {
            Action::Pack { .. } | Action::Spread { .. } => {
                "Choose a layout that keeps f32 scales: i2_s, tl1, tl2, iq2_bn, or one of our own (.safetensors). No trained model has such a scale, though."
            }
            _ => "Choose a wider form, e.g. --embedding f32.",
        };
        self.error(role, format!("{what} does not fit {form}")).hint(hint)
    }

    /// An error about a tensor of the source.
    fn error(&self, role: Role, message: String) -> Error {
        let of_scale = |role| match role {
            Role::Layer(layer, LayerRole::Scale(linear)) => Role::Layer(layer, LayerRole::Linear(linear)),
            other => other,
        };
        let info = self.checkpoint.info(role).or_else(|| self.checkpoint.info(of_scale(role)));
        let files = &self.checkpoint.provenance.files;
        let path = info.and_then(|info| files.get(info.file));
        let path = path.map_or_else(|| self.checkpoint.provenance.path(), |path| path.as_path());
        Error::tensor(path, info.map_or_else(|| role.to_string(), |info| info.name.clone()), message)
    }

    fn trits(&self, role: Role, interleave: Option<usize>, spare: &mut Vec<i8>) -> Result<(Trits, f32)> {
        let ternary = self.checkpoint.ternary_into(role, std::mem::take(spare))?;
        let odd = match ternary.trits.zero_fraction() < 1.0 {
            false => Some("all its weights are zero".to_owned()),
            true if PLAUSIBLE_SCALES.contains(&ternary.scale) => None,
            true => Some(format!("its scale {} is not plausible", number(ternary.scale))),
        };
        if let Some(odd) = odd {
            let odd = self.error(role, odd);
            self.odd.lock().expect("no thread panics with the lock").push(odd.to_string());
        }
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
    form.round(x).ok_or_else(|| Error::Bug(format!("{} holds no single values", form.name())))
}

/// The largest magnitude that a form takes; what is larger becomes infinite, or its block's scale does.
fn largest(form: Form) -> f32 {
    // The last f32 that rounds to the largest value of the form, not to infinity.
    let half = f32::from_bits(65520f32.to_bits() - 1);
    match form {
        Form::F16 => half,
        Form::Bf16 => f32::from_bits(0x7f7f_7fff),
        Form::Quant(Quant::Q8_0) => 127.0 * 65504.0,
        Form::Quant(Quant::Q4_0) => 8.0 * 65504.0,
        Form::Quant(Quant::Q6K) => 32.0 * 65504.0,
        _ => f32::MAX,
    }
}

/// Little-endian bytes of floats in `form`.
fn floats(float: &FloatTensor, form: Form) -> Result<Vec<u8>> {
    let (values, bytes) = match form {
        Form::F32 => (1, 4),
        Form::F16 | Form::Bf16 => (1, 2),
        Form::Quant(quant) => quant.block(),
        Form::Packed(_) | Form::Other(_) => {
            return Err(Error::Bug(format!("{} is no form of floats", form.name())));
        }
    };
    let mut out = vec![0; float.shape.iter().product::<usize>() / values * bytes];
    match (form, &float.data) {
        (Form::F16, FloatData::F16(v)) => put(&mut out, v, |x| x.to_le_bytes()),
        (Form::Bf16, FloatData::Bf16(v)) => put(&mut out, v, |x| x.to_le_bytes()),
        _ => {
            let mut rest = out.as_mut_slice();
            float.each_f32(|piece| {
                let (out, behind) = std::mem::take(&mut rest).split_at_mut(piece.len() / values * bytes);
                rest = behind;
                match form {
                    Form::F16 => put(out, &halves(piece), |x| x.to_le_bytes()),
                    Form::Bf16 => put(out, piece, |x| bf16::from_f32(x).to_le_bytes()),
                    Form::Quant(quant) => quant.encode(piece, out),
                    _ => put(out, piece, |x| x.to_le_bytes()),
                }
            });
        }
    }
    Ok(out)
}

/// All values as f16, rounded.
fn halves(values: &[f32]) -> Vec<f16> {
    let mut out = vec![f16::ZERO; values.len()];
    out.convert_from_f32_slice(values);
    out
}

fn put<T: Copy, const N: usize>(out: &mut [u8], values: &[T], one: impl Fn(T) -> [u8; N]) {
    for (out, &x) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = one(x);
    }
}

/// Whether all values are 0 or of an exponent of the normal numbers of f16, which have more bits than
/// they.
fn normal_f16(values: &[bf16]) -> bool {
    // Without a branch, so that the many values of an embedding are looked at in vectors.
    values.iter().fold(true, |all, x| {
        let bits = x.to_bits() & 0x7fff;
        let exponent = bits >> 7;
        all & ((bits == 0) | ((127 - 14..=127 + 15).contains(&exponent)))
    })
}

/// Whether a form of single floats holds every value of a tensor.
pub fn exact(checkpoint: &Checkpoint, role: Role, form: Form) -> Result<bool> {
    let shape = checkpoint.config.shape(role);
    // Matrices are used as they are stored; norms of Gemma have one more.
    if form == Form::F32 || shape.len() == 2 && source_form(checkpoint, role) == form.name() {
        return Ok(true);
    }
    let (rows, cols) = matrix(&shape);
    let slices: Vec<_> = slices(rows, cols).enumerate().collect();
    let holds = |(i, slice): (usize, Range<usize>)| {
        let float = match shape.len() {
            1 => checkpoint.float(role)?,
            _ => checkpoint.float_rows(role, slice)?,
        };
        if i % SLICES == 0 {
            checkpoint.release();
        }
        Ok(match (&float.data, form) {
            (FloatData::Bf16(v), Form::F16) if normal_f16(v) => true,
            (_, Form::F16 | Form::Bf16) => {
                let mut holds = true;
                float.each_f32(|piece| {
                    holds = holds
                        && match form {
                            Form::F16 => {
                                let mut back = vec![0.0; piece.len()];
                                halves(piece).convert_to_f32_slice(&mut back);
                                piece.iter().zip(&back).all(|(x, y)| x.to_bits() == y.to_bits())
                            }
                            _ => piece.iter().all(|x| x.to_bits() & 0xffff == 0),
                        };
                });
                holds
            }
            _ => return Err(Error::Bug(format!("{} holds no single values", form.name()))),
        })
    };
    // The first slice that does not hold ends the search.
    slices.into_par_iter().map(holds).find_any(|held| !matches!(held, Ok(true))).unwrap_or(Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_normal_is_exact() {
        let all = || (0..=u16::MAX).map(bf16::from_bits);
        let exact = |x: &bf16| f16::from_f32(x.to_f32()).to_f32() == x.to_f32();
        let normal = |x: &bf16| normal_f16(&[*x]);
        assert!(all().filter(normal).all(|x| exact(&x)));
        // What is left for the slow way: subnormal numbers of f16, and infinities.
        assert!(all().filter(|x| !normal(x) && exact(x)).all(|x| {
            let size = x.to_f32().abs();
            size < 2f32.powi(-14) || size.is_infinite()
        }));
    }
}
