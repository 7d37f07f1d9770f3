//! The tensors of a Hugging Face checkpoint: which there must be, and how they are decoded.

use super::Source;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::families::Family;
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::role::{LayerRole, Linear, Role};
use crate::checkpoint::safetensors::{Archive, Dtype, Entry, form};
use crate::checkpoint::ternarise::{self, Floats, NotTernary, Recipe};
use crate::checkpoint::{Container, FloatData, FloatTensor, TensorInfo, Ternary, number};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use tritmark_kernels::Trits;
use tritmark_kernels::layout::{self, Layout, UnpackError};

/// Ends of tensor names that carry nothing which the configuration does not say.
const REDUNDANT: &[&str] = &["rotary_emb.inv_freq"];

/// Elements of each matrix that are looked at to see whether a checkpoint is dequantised.
const SAMPLE: usize = 4096;

/// What is needed to tell the tensors of a checkpoint.
pub struct Catalog<'a> {
    pub root: &'a Path,
    pub archive: &'a Archive,
    pub family: &'a Family,
    pub inner_norm: Option<&'a str>,
    pub model: &'a ModelConfig,
}

/// The tensors of a checkpoint, told and checked.
pub struct Index {
    infos: Vec<TensorInfo>,
    by_role: HashMap<Role, usize>,
}

impl Catalog<'_> {
    /// Every tensor's role, form and logical shape.
    ///
    /// # Errors
    /// If one is missing, unknown, or of the wrong shape or type.
    pub fn index(&self, source: Source) -> Result<Index> {
        let entries = self.archive.entries();
        let mut infos = self.archive.infos();
        let mut by_role = HashMap::new();
        let prefix = self.prefix();
        let mut take = |role: Role, optional: bool| -> Result<()> {
            let Some(name) = self.name(prefix, role) else { return Ok(()) };
            let shape = self.model.shape(role);
            let Some(i) = self.archive.position(&name) else {
                return match optional {
                    true => Ok(()),
                    false => {
                        Err(Error::tensor(self.root, name, format!("is missing; expected shape {shape:?}")))
                    }
                };
            };
            infos[i].role = Some(role);
            infos[i].form = self.check(&entries[i], role, &shape, source)?;
            infos[i].shape = shape;
            by_role.insert(role, i);
            Ok(())
        };
        take(Role::TokenEmbedding, false)?;
        for layer in 0..self.model.layers {
            let mut take = |role| take(Role::Layer(layer, role), false);
            take(LayerRole::AttnNorm)?;
            for linear in Linear::ALL {
                take(LayerRole::Linear(linear))?;
                take(LayerRole::InnerNorm(linear))?;
                if matches!(source, Source::Offline { .. }) {
                    take(LayerRole::Scale(linear))?;
                }
            }
            for role in [
                LayerRole::AttnSubNorm,
                LayerRole::FfnNorm,
                LayerRole::FfnSubNorm,
                LayerRole::QNorm,
                LayerRole::KNorm,
                LayerRole::PostAttnNorm,
                LayerRole::PostFfnNorm,
            ] {
                take(role)?;
            }
        }
        take(Role::OutputNorm, false)?;
        take(Role::Head, self.model.tied)?;
        let unknown =
            |info: &TensorInfo| info.role.is_none() && !REDUNDANT.iter().any(|end| info.name.ends_with(end));
        if let Some(i) = infos.iter().position(unknown) {
            return Err(self.unknown(&entries[i]));
        }
        Ok(Index { infos, by_role })
    }

    fn unknown(&self, entry: &Entry) -> Error {
        let (family, layers) = (self.family.name, self.model.layers);
        let error = |message: &str| self.archive.error(entry, message);
        if entry.name.ends_with(".weight_scale") {
            return error(
                "is the scale of a packed weight, but \"quantization_config\" in config.json does not say that weights are packed",
            );
        }
        if entry.name.ends_with(".bias") {
            return error("is a bias; models with biases are not supported");
        }
        error(&format!("is not part of a {family} model of {layers} layers"))
            .hint("A model with parts that are not computed would run and be wrong.")
    }

    /// What stands in front of all names but the head's.
    fn prefix(&self) -> &'static str {
        if self.archive.get("embed_tokens.weight").is_some() { "" } else { "model." }
    }

    fn name(&self, prefix: &str, role: Role) -> Option<String> {
        let name = self.family.tensor_name(role, self.inner_norm)?;
        Some(if role == Role::Head { name } else { format!("{prefix}{name}") })
    }

    /// Checks a tensor's type and stored shape; returns its form.
    fn check(&self, entry: &Entry, role: Role, shape: &[usize], source: Source) -> Result<String> {
        let matrix = role.is_matrix();
        let scalar = matches!(role, Role::Layer(_, LayerRole::Scale(_)));
        let float = matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let offline = matches!(source, Source::Offline { .. });
        let wrong = |expected: String| {
            Err(self
                .archive
                .error(entry, format!("expected {expected}, found {:?} {:?}", entry.dtype, entry.shape)))
        };
        if matrix && offline {
            let packed = [shape[0] / 4, shape[1]];
            return match entry.dtype {
                Dtype::U8 if entry.shape == packed && shape[0].is_multiple_of(4) => Ok("hf".into()),
                Dtype::I8 | Dtype::F32 | Dtype::F16 | Dtype::BF16 if entry.shape == shape => {
                    Ok(form(entry.dtype))
                }
                _ if shape[0].is_multiple_of(4) => {
                    wrong(format!("U8 {packed:?} (packed), or trits {shape:?}"))
                }
                _ => wrong(format!("trits {shape:?} (packed ones need rows in fours)")),
            };
        }
        if matrix && entry.dtype == Dtype::U8 {
            let message = "is packed, but config.json does not say that weights are packed";
            return Err(self
                .archive
                .error(entry, message)
                .hint("Expected an offline \"quantization_config\"."));
        }
        if !float || (entry.shape != shape && !(scalar && entry.shape.is_empty())) {
            return wrong(format!("F32, F16 or BF16 {shape:?}"));
        }
        Ok(form(entry.dtype))
    }

    /// Whether a head is stored that is no copy of the token embedding.
    ///
    /// # Errors
    /// If either is not made of floats.
    pub fn head_differs(&self) -> Result<bool> {
        let embedding = self.name(self.prefix(), Role::TokenEmbedding).and_then(|n| self.archive.get(&n));
        let head = self.name(self.prefix(), Role::Head).and_then(|n| self.archive.get(&n));
        let (Some(embedding), Some(head)) = (embedding, head) else { return Ok(false) };
        if embedding.dtype == head.dtype {
            return Ok(self.archive.data(embedding) != self.archive.data(head));
        }
        for start in (0..self.model.vocab).step_by(256) {
            let rows = start..self.model.vocab.min(start + 256);
            let of = |entry| self.archive.float_rows(entry, rows.clone());
            if of(embedding)?.to_f32() != of(head)?.to_f32() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all matrices look as if they were trits times a scale. Decides nothing for good: each
    /// is proven when it is decoded.
    pub fn looks_dequantised(&self) -> Result<bool> {
        let mut any = false;
        for layer in 0..self.model.layers {
            for linear in Linear::ALL {
                let name = self.name(self.prefix(), Role::Layer(layer, LayerRole::Linear(linear)));
                let Some(entry) = name.and_then(|n| self.archive.get(&n)) else { return Ok(false) };
                let size = match entry.dtype {
                    Dtype::F32 => 4,
                    Dtype::F16 | Dtype::BF16 => 2,
                    _ => return Ok(false),
                };
                let bytes = self.archive.data(entry);
                let len = (bytes.len() / size).min(SAMPLE);
                let sample = Floats::Bytes(entry.dtype, &bytes[..len * size]);
                match ternarise::dequantised(1, len, sample, None) {
                    Ok((trits, _)) => any |= trits.as_slice().iter().any(|t| *t != 0),
                    Err(_) => return Ok(false),
                }
            }
        }
        Ok(any)
    }
}

impl Index {
    /// How the checkpoint is written.
    pub fn dialect(&self, source: Source) -> &'static str {
        match source {
            Source::Offline { .. } if self.infos.iter().any(|i| i.form == "hf") => "hf-packed",
            Source::Offline { .. } => "hf-unpacked",
            Source::Master(_) => "hf-master",
            Source::Dequantised => "hf-dequantised",
            Source::PostTraining(_) => "hf-float, ternarised after training",
            Source::Float => "hf-float",
        }
    }
}

/// How floats become trits.
#[derive(Clone, Copy)]
enum Rule {
    Master(Recipe),
    /// All magnitudes equal or zero; equal to this, where given.
    Magnitude(Option<f32>),
}

fn decode(weights: Floats, rows: usize, cols: usize, rule: Rule) -> Result<(Trits, f32), NotTernary> {
    match rule {
        Rule::Master(recipe) => ternarise::master(recipe, rows, cols, weights),
        Rule::Magnitude(scale) => ternarise::dequantised(rows, cols, weights, scale),
    }
}

/// The decoding side of a checkpoint.
pub struct Tensors {
    archive: Archive,
    index: Index,
    family: &'static Family,
    source: Source,
}

impl Tensors {
    pub fn new(archive: Archive, index: Index, family: &'static Family, source: Source) -> Self {
        Self { archive, index, family, source }
    }

    fn entry(&self, role: Role) -> Result<(&Entry, &TensorInfo)> {
        match self.index.by_role.get(&role) {
            Some(&i) => Ok((&self.archive.entries()[i], &self.index.infos[i])),
            None => Err(Error::Bug(format!("a {} model has no {role}", self.family.name))),
        }
    }

    fn scale(&self, layer: usize, linear: Linear, inverse: bool) -> Result<f32> {
        let (entry, _) = self.entry(Role::Layer(layer, LayerRole::Scale(linear)))?;
        let stored = self.archive.float(entry)?.to_f32()[0];
        let scale = if inverse { 1.0 / stored } else { stored };
        if !(stored > 0.0 && stored.is_finite() && scale > 0.0 && scale.is_finite()) {
            return Err(self
                .archive
                .error(entry, format!("expected a positive finite scale, found {}", number(stored))));
        }
        Ok(scale)
    }

    fn unpack(&self, entry: &Entry, rows: usize, cols: usize, spare: Vec<i8>) -> Result<Trits> {
        match layout::HF.unpack_into(rows, cols, self.archive.data(entry), spare) {
            Ok(unpacked) => Ok(unpacked.trits),
            Err(UnpackError::Code { offset, byte }) => {
                // The first of the byte's four codes that is 3.
                let quarter = (0..4).find(|i| byte >> (2 * i) & 3 == 3).unwrap_or(0);
                let (row, col) = (quarter * (rows / 4) + offset / cols, offset % cols);
                Err(self
                    .archive
                    .error(entry, format!("code 3 at row {row}, column {col} is no trit (byte {byte:#04x})")))
            }
            Err(e) => Err(self.archive.error(entry, e.to_string())),
        }
    }
}

impl Container for Tensors {
    fn tensors(&self) -> &[TensorInfo] {
        &self.index.infos
    }

    fn ternary(&self, role: Role, spare: Vec<i8>) -> Result<Ternary> {
        let (entry, info) = self.entry(role)?;
        let Role::Layer(layer, LayerRole::Linear(linear)) = role else {
            return Err(self.archive.error(entry, "is no ternary matrix"));
        };
        let (rows, cols) = (info.shape[0], info.shape[1]);
        let floats = |rule| {
            decode(Floats::Bytes(entry.dtype, self.archive.data(entry)), rows, cols, rule).map_err(
                |NotTernary { at, value }| {
                    let (row, col) = (at / cols, at % cols);
                    let expected = match rule {
                        Rule::Master(_) => "a finite weight",
                        Rule::Magnitude(Some(_)) => "-1, 0 or 1",
                        Rule::Magnitude(None) => "zero or the magnitude of all others",
                    };
                    self.archive
                        .error(entry, format!("row {row}, column {col}: expected {expected}, found {value}"))
                },
            )
        };
        let (trits, scale) = match self.source {
            Source::Offline { inverse_scale } => {
                let scale = self.scale(layer, linear, inverse_scale)?;
                let trits = match entry.dtype {
                    Dtype::U8 => self.unpack(entry, rows, cols, spare)?,
                    _ => floats(Rule::Magnitude(Some(1.0)))?.0,
                };
                (trits, scale)
            }
            Source::Master(recipe) => floats(Rule::Master(recipe))?,
            Source::PostTraining(_) => floats(Rule::Master(Recipe::AbsmeanF32))?,
            Source::Dequantised => floats(Rule::Magnitude(None))?,
            Source::Float => {
                return Err(self
                    .archive
                    .error(entry, "is a matrix of a full-precision model, not a ternary one"));
            }
        };
        Ok(Ternary { trits, scale })
    }

    fn scale(&self, role: Role) -> Result<f32> {
        match (self.source, role) {
            (Source::Offline { inverse_scale }, Role::Layer(layer, LayerRole::Linear(linear))) => {
                Tensors::scale(self, layer, linear, inverse_scale)
            }
            _ => Ok(self.ternary(role, vec![])?.scale),
        }
    }

    fn scale_rounding(&self, role: Role) -> Option<Form> {
        let (_, info) = self.entry(role).ok()?;
        // The magnitude of the values themselves; all else is a scale of its own.
        let form = Form::float(&info.form).filter(|_| self.source == Source::Dequantised)?;
        (form != Form::F32).then_some(form)
    }

    fn release(&self) {
        self.archive.release();
    }

    fn float_rows(&self, role: Role, rows: Range<usize>) -> Result<FloatTensor> {
        let (entry, _) = self.entry(role)?;
        match entry.shape.len() {
            2 => self.archive.float_rows(entry, rows),
            _ => Ok(self.float(role)?.rows(rows)),
        }
    }

    fn float(&self, role: Role) -> Result<FloatTensor> {
        let (entry, info) = self.entry(role)?;
        let mut tensor = self.archive.float(entry)?;
        tensor.shape.clone_from(&info.shape);
        if self.family.norm_lacks_one(role) {
            tensor.data = FloatData::F32(tensor.to_f32().into_iter().map(|w| 1.0 + w).collect());
        }
        Ok(tensor)
    }
}
