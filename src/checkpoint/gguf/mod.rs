//! GGUF files of every dialect that ternary models come in.

mod arrangement;
pub mod form;
pub mod names;
pub mod quant;
pub mod reader;
pub mod runtime;
mod settings;
pub mod tokenizer;
pub mod writer;

use super::config::{LinearKind, ModelConfig};
use super::role::{LayerRole, Linear, Role};
use super::ternarise::{self, Floats, NotTernary};
use super::write::Origin;
use super::{
    Checkpoint, Container, FloatData, FloatTensor, Kept, OpenOptions, POST_TRAINING_NOTE, Provenance,
    TensorInfo, Ternary, number, stated,
};
use crate::error::{Error, Result};
use crate::words::counted;
use arrangement::Evidence;
use form::{Form, Open, Resolved};
use half::{bf16, f16};
use reader::Reader;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use tritmark_kernels::Trits;
use tritmark_kernels::layout::{Layout, ScaleForm, UnpackError};

/// Key under which we write the layout of the ternary tensors: it settles what ids leave open.
pub const LAYOUT_KEY: &str = "tritmark.layout";

/// Key under which we write where the weights come from.
pub const ORIGIN_KEY: &str = "tritmark.origin";

/// Key under which we write the exact scales of the ternary matrices, f32 each, in the order of
/// [`ModelConfig::linear_roles`], where the layout rounds them.
pub const SCALES_KEY: &str = "tritmark.scales";

/// Key under which we write [`Kept`] as JSON.
pub const KEPT_KEY: &str = "tritmark.kept";

/// Key under which we write `true` where the matrices of a BitNet are in full precision, as in none of its releases.
pub const FULL_KEY: &str = "tritmark.full_precision";

/// The form to which a layout rounds scales, if it does.
pub fn rounding(layout: &dyn Layout) -> Option<Form> {
    match layout.scale_form() {
        ScaleForm::F16PerRow | ScaleForm::F16PerBlock => Some(Form::F16),
        ScaleForm::Beside | ScaleForm::F32 | ScaleForm::F32PerRow => None,
    }
}

/// Opens a GGUF file; `options` state what it leaves open.
///
/// # Errors
/// If it is damaged, contradicts itself, or leaves open what it holds.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    from_reader(Reader::open(path)?, options)
}

/// A checkpoint over a file whose header has been read.
///
/// # Errors
/// As [`open`].
pub fn from_reader(reader: Reader, options: &OpenOptions) -> Result<Checkpoint> {
    let path = reader.path().to_owned();
    if options.ptq.is_some() {
        return Err(Error::Usage(
            "weights are made ternary from Hugging Face checkpoints only, not from GGUF".into(),
        ));
    }
    let layout = match &options.dialect {
        Some(name) => {
            if form::ternary_id(name).is_none() {
                let mut known: Vec<_> =
                    form::TERNARY.iter().flat_map(|(_, names)| names.iter().copied()).collect();
                known.sort_unstable();
                known.dedup();
                let known = known.join(", ");
                return Err(Error::Usage(format!(
                    "unknown dialect '{name}': expected one of {known}, or a tiling such as tl2_BM64_BK96_bm32"
                )));
            }
            if !reader.tensors().iter().any(|tensor| form::may_be(tensor.kind, name)) {
                let message = format!("no tensor has the type of {name}, which --dialect names");
                return Err(Error::input(&path, message).hint("Leave it out, or name another one."));
            }
            Some(name.as_str())
        }
        None => reader.text(LAYOUT_KEY)?,
    };
    let resolution =
        form::resolve(reader.tensors(), reader.alignment(), layout).map_err(|(tensor, message)| {
            let ternary = reader
                .tensors()
                .iter()
                .any(|t| t.name == tensor && form::TERNARY.iter().any(|(id, _)| *id == t.kind));
            let error = Error::tensor(&path, tensor, message);
            if ternary { error.hint("If the file is sound, name its layout with --dialect.") } else { error }
        })?;
    let mut notes = vec![];
    let mut by_role = HashMap::new();
    for (i, tensor) in reader.tensors().iter().enumerate() {
        if let Some(role) = names::role(&tensor.name) {
            by_role.insert(role, i);
        }
    }
    let mut config = settings::read(&reader, &by_role, options, &mut notes)?;
    check_shapes(&reader, &config, &by_role)?;
    let permuted = reader.text("general.architecture")? == Some("llama");
    let exact = exact_scales(&reader, &config)?;
    let mut gguf = Gguf { infos: vec![], reader, by_role, forms: resolution.forms, heads: None, exact };
    if permuted {
        gguf.heads = Some((config.heads, config.kv_heads));
    }
    let mut choices = vec![];
    for open in &resolution.open {
        match gguf.arrange(open, &config)? {
            Ok(note) => notes.extend(note),
            Err(undecided) => choices.push(undecided),
        }
    }
    let choices = common(&choices);
    let ambiguous = format!(
        "The arrangement of the ternary tensors is ambiguous: {} are equally long, and nothing in the file tells them apart.",
        choices.join(", ")
    );
    match choices.first() {
        Some(first) if !options.assume => {
            return Err(Error::input(&path, ambiguous).hint(format!(
                "Say how it was written, e.g. --dialect {first}; `tritmark verify SOURCE {}` tells where the source is at hand.", path.display()
            )));
        }
        Some(_) => notes.push(format!("{ambiguous} (--dialect)")),
        None => {}
    }
    config.linear = gguf.linear_kind(&config)?;
    gguf.infos = gguf.infos();
    let tokenizer = tokenizer::to_json(&gguf.reader, &mut notes)?;
    let origin: Option<Origin> = ours(&gguf.reader, ORIGIN_KEY)?;
    let post_training = origin.is_some_and(|origin| origin.post_training);
    if post_training {
        notes.push(POST_TRAINING_NOTE.into());
    }
    let provenance = Provenance {
        name: path.display().to_string(),
        files: vec![path],
        family: settings::family(&config).into(),
        dialect: gguf.dialect(&choices)?,
        scale_rule: gguf.scale_rule(),
        post_training,
        choices,
        notes,
    };
    let kept: Option<Kept> = ours(&gguf.reader, KEPT_KEY)?;
    let kept = Kept { bos: settings::token(&gguf.reader, "bos")?, ..kept.unwrap_or_default() };
    Ok(Checkpoint { kept, ..Checkpoint::new(config, provenance, tokenizer, Box::new(gguf)) })
}

/// What we wrote of the source under a key of the metadata.
fn ours<T: DeserializeOwned>(reader: &Reader, key: &str) -> Result<Option<T>> {
    reader.text(key)?.map(|json| stated(reader.path(), key, json)).transpose()
}

/// The scales that we wrote beside rounded ones.
fn exact_scales(reader: &Reader, config: &ModelConfig) -> Result<HashMap<Role, f32>> {
    let scales = reader.floats(SCALES_KEY)?.unwrap_or_default();
    if !scales.is_empty() && scales.len() != config.layers * Linear::ALL.len() {
        let message =
            format!("metadata key {SCALES_KEY}: expected a scale for each matrix, found {}", scales.len());
        return Err(Error::input(reader.path(), message));
    }
    Ok(config.linear_roles().zip(scales.into_iter().map(|scale| scale as f32)).collect())
}

/// Layouts that are left for all groups of tensors, by their names: a dialect is one for the whole file.
/// Those of the first group, where no layout is left for all.
fn common(groups: &[Vec<&'static dyn Layout>]) -> Vec<String> {
    let Some((first, rest)) = groups.split_first() else { return vec![] };
    let names = first.iter().map(|l| l.name());
    let all: Vec<_> =
        names.clone().filter(|name| rest.iter().all(|g| g.iter().any(|l| l.name() == *name))).collect();
    let names: Vec<_> = if all.is_empty() { names.collect() } else { all };
    names.into_iter().map(str::to_owned).collect()
}

/// Proves that every tensor of the model is there with its shape, and nothing else that would have to be computed.
fn check_shapes(reader: &Reader, config: &ModelConfig, by_role: &HashMap<Role, usize>) -> Result<()> {
    for role in config.roles() {
        let name = names::name(role).ok_or_else(|| Error::Bug(format!("{role} has no GGUF name")))?;
        let Some(&i) = by_role.get(&role) else {
            return Err(Error::tensor(
                reader.path(),
                name,
                "the model needs it, but the file does not have it",
            ));
        };
        let (expected, found) = (config.shape(role), reader.tensors()[i].shape());
        if expected != found {
            let message = format!("the metadata asks for the shape {expected:?}, found {found:?}");
            return Err(Error::tensor(reader.path(), name, message));
        }
    }
    let scales = config.linear_roles().filter_map(Role::scale);
    let known: HashSet<String> = config.roles().into_iter().chain(scales).filter_map(names::name).collect();
    let unknown = |tensor: &&reader::Tensor| !known.contains(&tensor.name);
    reader.tensors().iter().find(unknown).map_or(Ok(()), |tensor| {
        let (family, layers) = (settings::family(config), counted(config.layers as u64, "block"));
        let message = format!("is not part of a {family} model of {layers}");
        let hint = "A model with parts that are not computed would run and be wrong: convert it again from its source.";
        Err(Error::tensor(reader.path(), &tensor.name, message).hint(hint))
    })
}

/// Tensors whose bytes are tried as each layout; a wrong one fails at the first.
const PROVEN: usize = 2;

/// The container.
struct Gguf {
    reader: Reader,
    infos: Vec<TensorInfo>,
    by_role: HashMap<Role, usize>,
    forms: Vec<Resolved>,
    /// Query and key-value heads, where the rows of Q and K are interleaved (architecture `llama`).
    heads: Option<(usize, usize)>,
    /// Scales before they were rounded, where the file states them.
    exact: HashMap<Role, f32>,
}

impl Gguf {
    fn infos(&self) -> Vec<TensorInfo> {
        let info = |(tensor, resolved): (&reader::Tensor, &Resolved)| TensorInfo {
            name: tensor.name.clone(),
            role: names::role(&tensor.name),
            shape: tensor.shape(),
            form: resolved.form.name(),
            bytes: if resolved.len > 0 { resolved.len } else { tensor.room } as u64,
            file: 0,
        };
        self.reader.tensors().iter().zip(&self.forms).map(info).collect()
    }

    fn error(&self, tensor: &reader::Tensor, message: impl ToString) -> Error {
        Error::tensor(self.reader.path(), &tensor.name, message.to_string())
    }

    /// The scale in the bytes of a matrix, which must be trits.
    fn check(&self, tensor: &reader::Tensor, layout: &dyn Layout, bytes: &[u8]) -> Result<Option<f32>> {
        let (rows, cols) = form::matrix(tensor);
        layout.check(rows, cols, bytes).map_err(|e| match e {
            UnpackError::Code { .. } if layout.name().starts_with("i2_s") => self.error(tensor, e).hint(
                "The file is damaged. bitnet.cpp's llama-quantize writes such files with more than one thread: run it with one, the last argument being 1.",
            ),
            e => self.error(tensor, e),
        })
    }

    /// Settles which of several layouts of equal length some tensors have, and says how where that is
    /// no matter of course. The inner error holds the layouts that are left where nothing tells.
    fn arrange(
        &mut self,
        open: &Open,
        config: &ModelConfig,
    ) -> Result<Result<Option<String>, Vec<&'static dyn Layout>>> {
        // Bytes that are no trits in a layout prove that it is another one.
        let possible = |layout: &&'static dyn Layout| {
            open.tensors.iter().take(PROVEN).all(|&i| {
                let (rows, cols) = form::matrix(&self.reader.tensors()[i]);
                layout.check(rows, cols, self.bytes(i)).is_ok()
            })
        };
        let left: Vec<_> = open.candidates.iter().copied().filter(possible).collect();
        let Some(&first) = left.first() else {
            // Damaged: the first says how when a tensor is read.
            return Ok(Ok(None));
        };
        let others = |taken: &dyn Layout| {
            let names = open.candidates.iter().map(|l| l.name()).filter(|name| *name != taken.name());
            let names: Vec<_> = names.collect();
            if names.len() > 3 { format!("one of {} others", names.len()) } else { names.join(" or ") }
        };
        let (taken, note) = if left.len() == 1 {
            let note = format!(
                "The file does not state the arrangement of its ternary tensors; their bytes are trits as {} only, not as {} (--dialect overrides).",
                first.name(),
                others(first)
            );
            (first, (open.candidates.len() > 1).then_some(note))
        } else if let Some(told) = arrangement::tell(&left, &self.evidence(open, config)?) {
            let note = format!(
                "The file does not state the arrangement of its ternary tensors; the weights themselves tell that it is {}, not {} (--dialect overrides).",
                told.name(),
                others(told)
            );
            (told, Some(note))
        } else if open.published && left[0].name() == open.candidates[0].name() {
            let note = format!(
                "The file does not state the tiles of its {} tensors: those that bitnet.cpp publishes for each shape are assumed (--dialect {}_BM…_BK…_bm… overrides).",
                first.name(),
                first.name()
            );
            (first, Some(note))
        } else {
            return Ok(Err(left));
        };
        for &i in &open.tensors {
            self.forms[i].form = Form::Packed(taken);
        }
        Ok(Ok(note))
    }

    /// Matrices among some tensors with a norm right before them, from the first blocks.
    fn evidence(&self, open: &Open, config: &ModelConfig) -> Result<Vec<Evidence<'_>>> {
        let mut evidence = vec![];
        for layer in 0..config.layers.min(4) {
            for (linear, norm) in [
                (Linear::Down, LayerRole::FfnSubNorm),
                (Linear::Up, LayerRole::FfnNorm),
                (Linear::Gate, LayerRole::FfnNorm),
                (Linear::Q, LayerRole::AttnNorm),
                (Linear::K, LayerRole::AttnNorm),
                (Linear::O, LayerRole::AttnSubNorm),
            ] {
                let (role, norm) = (Role::Layer(layer, LayerRole::Linear(linear)), Role::Layer(layer, norm));
                let Some(&i) = self.by_role.get(&role).filter(|i| open.tensors.contains(i)) else { continue };
                if self.by_role.contains_key(&norm) {
                    let (rows, cols) = form::matrix(&self.reader.tensors()[i]);
                    let norm = self.float(norm)?.to_f32();
                    evidence.push(Evidence { rows, cols, bytes: self.bytes(i), norm });
                }
            }
        }
        Ok(evidence)
    }

    /// The bytes of a tensor.
    fn bytes(&self, i: usize) -> &[u8] {
        &self.reader.bytes()[self.reader.tensors()[i].start..][..self.forms[i].len]
    }

    /// Directory entry, form and bytes of a tensor.
    fn find(&self, role: Role) -> Result<(&reader::Tensor, Form, &[u8])> {
        let Some(&i) = self.by_role.get(&role) else {
            let name = names::name(role).unwrap_or_else(|| format!("{role}"));
            return Err(Error::tensor(self.reader.path(), name, "the file does not have this tensor"));
        };
        Ok((&self.reader.tensors()[i], self.forms[i].form, self.bytes(i)))
    }

    /// Whether the matrices are ternary, from their forms or, where they are floats, from the values
    /// of the first one.
    fn linear_kind(&self, config: &ModelConfig) -> Result<LinearKind> {
        let mut packed = false;
        for role in config.linear_roles() {
            let (tensor, form, _) = self.find(role)?;
            match form {
                Form::Packed(_) => packed = true,
                Form::Other(id) => {
                    let message =
                        format!("its ggml type {id} is none that holds ternary weights or plain floats");
                    return Err(self.error(tensor, message));
                }
                _ => {}
            }
        }
        if packed {
            return Ok(LinearKind::Ternary);
        }
        let Some(first) = config.linear_roles().next() else { return Ok(LinearKind::Float) };
        match dequantised(&self.float(first)?) {
            Ok(_) => Ok(LinearKind::Ternary),
            Err(_) if !config.sub_norms || self.reader.flag(FULL_KEY)? == Some(true) => Ok(LinearKind::Float),
            Err(found) => {
                let (tensor, ..) = self.find(first)?;
                let message = format!("a BitNet's weights must be ternary, but it has {found}");
                Err(self.error(tensor, message).hint("Convert from the Hugging Face checkpoint instead."))
            }
        }
    }

    fn linear_forms(&self) -> impl Iterator<Item = Form> {
        let linear = |(role, i): (&Role, &usize)| role.is_matrix().then(|| self.forms[*i].form);
        self.by_role.iter().filter_map(linear)
    }

    fn dialect(&self, choices: &[String]) -> Result<String> {
        let mut forms: Vec<_> = self.linear_forms().map(Form::name).collect();
        forms.sort_unstable();
        forms.dedup();
        let architecture = self.reader.text("general.architecture")?.unwrap_or_default();
        let forms = if choices.is_empty() { forms.join("+") } else { choices.join("|") };
        Ok(format!("gguf {architecture} {forms}"))
    }

    fn scale_rule(&self) -> String {
        let beside = self.by_role.keys().any(|r| matches!(r, Role::Layer(_, LayerRole::Scale(_))));
        let stored = match self.linear_forms().next() {
            Some(Form::Packed(layout)) => match layout.scale_form() {
                ScaleForm::Beside => "no scale in the tensor",
                ScaleForm::F32 => "f32 behind the codes multiplies",
                ScaleForm::F32PerRow => "f32 before each row multiplies",
                ScaleForm::F16PerRow => "f16 before each row multiplies",
                ScaleForm::F16PerBlock => "f16 in each block multiplies",
            },
            _ => "magnitude of the dequantised values",
        };
        format!("{stored}{}", if beside { ", times the tensor X.scale" } else { "" })
    }

    /// The value of the tensor `X.scale` beside a matrix, 1 where there is none.
    fn scale_beside(&self, role: Role) -> Result<f32> {
        let Some(role) = role.scale().filter(|role| self.by_role.contains_key(role)) else {
            return Ok(1.0);
        };
        let values = self.float(role)?.to_f32();
        match values[..] {
            [scale] => Ok(scale),
            _ => {
                let (tensor, ..) = self.find(role)?;
                Err(self.error(tensor, format!("expected one value, found {}", values.len())))
            }
        }
    }

    /// The scale of a matrix: the exact one that we wrote, if the file's own is that one rounded and so
    /// was not changed since.
    fn unrounded(&self, role: Role, stored: f32) -> f32 {
        let exact = self.exact.get(&role).zip(self.scale_rounding(role));
        let exact = exact.filter(|(exact, form)| form.round(**exact) == Some(stored));
        exact.map_or(stored, |(exact, _)| *exact)
    }

    /// The matrix, if its scale can be meant; a matrix of zeros needs none.
    fn sound(&self, tensor: &reader::Tensor, trits: Trits, scale: f32) -> Result<Ternary> {
        if scale.is_finite() && scale > 0.0 {
            return Ok(Ternary { trits, scale });
        }
        if trits.as_slice().iter().all(|&t| t == 0) {
            return Ok(Ternary { trits, scale: 1.0 });
        }
        Err(self
            .error(tensor, format!("its scale is {}, expected a positive number", number(scale)))
            .hint("The file was damaged when it was made (bitnet.cpp's llama-quantize loses scales with more than one thread); convert again from the source."))
    }

    /// The order of rows in the file, where it is not the model's.
    fn row_order(&self, role: Role, rows: usize) -> Option<RowOrder> {
        let (heads, kv_heads) = self.heads?;
        match role {
            Role::Layer(_, LayerRole::Linear(Linear::Q)) => Some(RowOrder::new(rows, heads)),
            Role::Layer(_, LayerRole::Linear(Linear::K)) => Some(RowOrder::new(rows, kv_heads)),
            _ => None,
        }
    }
}

impl Container for Gguf {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn ternary(&self, role: Role, spare: Vec<i8>) -> Result<Ternary> {
        let (tensor, form, bytes) = self.find(role)?;
        let (rows, cols) = form::matrix(tensor);
        let (trits, scale) = match form {
            Form::Packed(layout) => {
                let scale = self.check(tensor, layout, bytes)?;
                let order = self.row_order(role, rows);
                let mut data = spare;
                data.resize(rows * cols, 0);
                for (row, out) in data.chunks_exact_mut(cols).enumerate() {
                    let row = order.as_ref().map_or(row, |order| order.in_file(row));
                    layout.unpack_row(rows, cols, bytes, row, out);
                }
                let trits = Trits::new(rows, cols, data).map_err(|e| self.error(tensor, e))?;
                (trits, scale.unwrap_or(1.0))
            }
            _ => dequantised(&self.float(role)?)
                .map_err(|found| self.error(tensor, format!("expected ternary weights, found {found}")))?,
        };
        let scale = self.unrounded(role, scale * self.scale_beside(role)?);
        self.sound(tensor, trits, scale)
    }

    fn scale(&self, role: Role) -> Result<f32> {
        let (tensor, form, bytes) = self.find(role)?;
        let stored = match form {
            // Without unpacking. What is odd about a scale is said with the trits.
            Form::Packed(layout) => self.check(tensor, layout, bytes)?,
            _ => None,
        };
        match stored.map(|scale| scale * self.scale_beside(role).unwrap_or(f32::NAN)) {
            Some(scale) if scale.is_finite() && scale > 0.0 => Ok(self.unrounded(role, scale)),
            _ => Ok(self.ternary(role, vec![])?.scale),
        }
    }

    fn float(&self, role: Role) -> Result<FloatTensor> {
        let (tensor, form, bytes) = self.find(role)?;
        let (rows, _) = form::matrix(tensor);
        let data = match self.row_order(role, rows) {
            None => decode(form, bytes),
            Some(order) => {
                let len = bytes.len() / rows;
                let mut ordered = Vec::with_capacity(bytes.len());
                for row in (0..rows).map(|row| order.in_file(row)) {
                    ordered.extend_from_slice(&bytes[row * len..(row + 1) * len]);
                }
                decode(form, &ordered)
            }
        };
        let data = data.map_err(|message| self.error(tensor, message))?;
        Ok(FloatTensor { shape: tensor.shape(), data })
    }

    fn scale_rounding(&self, role: Role) -> Option<Form> {
        let form = self.by_role.get(&role).map(|&i| self.forms[i].form)?;
        let beside = role.scale().unwrap_or(role);
        match form {
            // A tensor of its own is f32.
            _ if self.by_role.contains_key(&beside) => None,
            Form::Packed(layout) => rounding(layout),
            Form::F16 | Form::Bf16 => Some(form),
            _ => None,
        }
    }

    fn release(&self) {
        self.reader.release();
    }

    fn float_rows(&self, role: Role, rows: Range<usize>) -> Result<FloatTensor> {
        let (tensor, form, bytes) = self.find(role)?;
        let (all, cols) = form::matrix(tensor);
        if tensor.ne.len() != 2 || self.row_order(role, all).is_some() {
            return Ok(self.float(role)?.rows(rows));
        }
        // Blocks never straddle rows, so rows are whole numbers of bytes.
        let len = bytes.len() / all;
        let data = decode(form, &bytes[rows.start * len..rows.end * len])
            .map_err(|message| self.error(tensor, message))?;
        Ok(FloatTensor { shape: vec![rows.len(), cols], data })
    }
}

/// Rows of Q and K as architecture `llama` stores them: in each head, row `(half, i)` of the model is
/// row `(i, half)` of the file, because that runtime rotates neighbours.
pub struct RowOrder {
    head_dim: usize,
}

impl RowOrder {
    /// For `rows` rows of `heads` heads.
    pub fn new(rows: usize, heads: usize) -> Self {
        Self { head_dim: rows / heads }
    }

    /// The row of the file that holds row `row` of the model.
    pub fn in_file(&self, row: usize) -> usize {
        let (head, at) = (row / self.head_dim, row % self.head_dim);
        let half = self.head_dim / 2;
        head * self.head_dim + at % half * 2 + at / half
    }
}

/// Decodes floats; integer-quantised ones become f32.
fn decode(form: Form, bytes: &[u8]) -> Result<FloatData, String> {
    Ok(match form {
        Form::F32 => FloatData::F32(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Form::F16 => FloatData::F16(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect()),
        Form::Bf16 => FloatData::Bf16(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b)).collect()),
        Form::Quant(quant) => {
            let (values, len) = quant.block();
            let mut out = vec![0.0; bytes.len() / len * values];
            quant.decode(bytes, &mut out);
            FloatData::F32(out)
        }
        Form::Packed(_) | Form::Other(_) => {
            return Err(format!("expected floats, found {}", form.name()));
        }
    })
}

/// Takes values of the form {-s, 0, s} apart.
///
/// # Errors
/// What else there is, in words.
fn dequantised(float: &FloatTensor) -> Result<(Trits, f32), String> {
    let (rows, cols) = (float.shape[0], float.shape[1..].iter().product());
    let result = ternarise::dequantised(rows, cols, Floats::Data(&float.data), None);
    result.map_err(|NotTernary { at, value }| {
        format!("the value {value} at row {}, column {}: another magnitude than before", at / cols, at % cols)
    })
}
