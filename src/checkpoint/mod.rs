//! Reading and writing model files.
//!
//! [`Checkpoint::open`] names the family and the dialect before any tensor is decoded; after that
//! every tensor comes out one at a time, by its [`Role`], as trits with an effective scale or as
//! floats. Nothing else in the program knows about containers, names or byte layouts of files.

pub mod config;
pub mod demo;
pub mod families;
pub mod file;
pub mod gguf;
pub mod hf;
pub mod packed;
pub mod role;
pub mod safetensors;
pub mod ternarise;
pub mod tokenizer;
pub mod write;

use crate::error::{Error, Result};
use config::ModelConfig;
use gguf::form::Form;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use role::{Linear, Role};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tritmark_kernels::Trits;
/// Floats in one of the precisions that checkpoints store.
pub use tritmark_kernels::float::Floats as FloatData;

/// An opened model: its configuration, its tensors, its tokenizer.
pub struct Checkpoint {
    /// Hyperparameters; complete and checked.
    pub config: ModelConfig,
    /// Where it came from and how it is written.
    pub provenance: Provenance,
    /// The tokenizer in the `tokenizers` crate's JSON form, where the checkpoint brings one.
    pub tokenizer: Option<Vec<u8>>,
    /// How the first source of a file of ours held what this one holds in other forms.
    pub kept: Kept,
    /// The small files that came with its tensors.
    pub companions: Companions,
    container: Box<dyn Container>,
    /// Scales that are known, since those of some files take decoding whole matrices.
    scales: Mutex<HashMap<Role, f32>>,
}

/// The small files that belong to a checkpoint, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Companions {
    /// Those in this folder.
    Folder(PathBuf),
    /// These, by name and content.
    Files(Vec<(String, Vec<u8>)>),
}

/// What a file of ours says of its source where its own forms say less, so that a conversion back ends
/// in the same bytes. It never changes a value.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Whether the source's scales divide.
    pub inverse: bool,
    /// The forms of embedding, head and norms in the source, by the names of their [`Role`].
    pub forms: std::collections::BTreeMap<String, String>,
    /// The BOS token, whether or not texts start with it.
    pub bos: Option<u32>,
    /// Keys of the source's `config.json` that no computation needs, as they stood there.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Its `modules_to_not_convert`.
    pub not_converted: Option<Vec<String>>,
    /// Whether scales were rounded to bf16, because that was asked for.
    pub rounded: bool,
}

/// What we wrote as JSON into a file's metadata.
///
/// # Errors
/// If it is damaged.
fn stated<T: DeserializeOwned>(file: &Path, key: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| {
        Error::input(file, format!("the metadata \"{key}\" is damaged: {e}"))
            .hint("Take the file again, or convert its source again.")
    })
}

/// A scale outside this range is no mean magnitude of trained weights.
pub const PLAUSIBLE_SCALES: std::ops::RangeInclusive<f32> = 1e-6..=1e3;

/// Where a checkpoint came from and how it is written.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Provenance {
    /// What the user named: a path, `demo` or `demo-full`.
    pub name: String,
    /// The files that hold tensors.
    pub files: Vec<PathBuf>,
    /// The family's name in the table of families, e.g. `bitnet`.
    pub family: String,
    /// How the family is written here, e.g. `hf-packed`, `hf-master`, `gguf i2_s`.
    pub dialect: String,
    /// How the effective scale follows from what is stored, e.g. `weight_scale multiplies`.
    pub scale_rule: String,
    /// Whether it was made ternary after training, not trained so.
    pub post_training: bool,
    /// Dialects among which the files leave it open; the tensors are read as the first. Empty where it
    /// is known, and always so unless [`OpenOptions::assume`] allows it.
    pub choices: Vec<String>,
    /// What could not be proven from the files, or was asked for against them; full sentences that
    /// every command shows.
    pub notes: Vec<String>,
}

/// Options that may stand in the name of a model.
const IN_NAMES: [&str; 3] = [" --ptq ", " --dialect ", " --family "];

impl Provenance {
    /// The path in the name, without the options that may stand there.
    pub fn path(&self) -> &Path {
        let end = IN_NAMES.iter().filter_map(|option| self.name.find(option)).min();
        Path::new(&self.name[..end.unwrap_or(self.name.len())])
    }
}

/// The note on every checkpoint that was made ternary after training.
pub const POST_TRAINING_NOTE: &str = "POST-TRAINING ternarisation: this model was trained in full precision and \
     made ternary by absmean afterwards. Its quality says nothing about models trained ternary.";

/// What the user states because a checkpoint does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// The family's name in the table of families, where the files leave it open.
    pub family: Option<String>,
    /// How the file is written, where a container leaves that open (GGUF).
    pub dialect: Option<String>,
    /// Make a full-precision model ternary, although it was not trained so.
    pub ptq: Option<Ptq>,
    /// Open a file of which nothing tells the dialect as one of those it could be, instead of refusing
    /// it: for those who show [`Provenance::choices`], or have something to compare it with.
    pub assume: bool,
}

/// A rule that makes the weights of a full-precision model ternary after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ptq {
    /// `q = clamp(round(W / mean|W|), -1, 1)`, scale `mean|W|`, as BitNet b1.58 does in training.
    Absmean,
}

/// A file format's side of a checkpoint: lists and decodes tensors.
pub trait Container: Send + Sync {
    /// Every tensor in the files, in file order, known or not.
    fn tensors(&self) -> &[TensorInfo];

    /// A ternary weight as trits and its effective *multiplicative* scale:
    /// `y = (x_i8 · trits) / s_x · scale`.
    ///
    /// `spare` is a buffer that is not needed any more, for the trits where they fit it.
    ///
    /// # Errors
    /// If the tensor is missing, not ternary, or damaged.
    fn ternary(&self, role: Role, spare: Vec<i8>) -> Result<Ternary>;

    /// The scale of [`ternary`](Self::ternary) alone.
    ///
    /// # Errors
    /// As there.
    fn scale(&self, role: Role) -> Result<f32> {
        Ok(self.ternary(role, vec![])?.scale)
    }

    /// The form to which the scale of [`ternary`](Self::ternary) was rounded when the file was
    /// written; `None` where the file holds any scale, or is the origin of this one.
    fn scale_rounding(&self, _role: Role) -> Option<Form> {
        None
    }

    /// A tensor of floats in its stored precision (integer-quantised ones come as f32).
    ///
    /// # Errors
    /// If the tensor is missing, not made of floats, or damaged.
    fn float(&self, role: Role) -> Result<FloatTensor>;

    /// Some rows of a tensor of floats, for those too large to hold at once.
    ///
    /// # Errors
    /// As [`float`](Self::float).
    ///
    /// # Panics
    /// If `rows` are not all there.
    fn float_rows(&self, role: Role, rows: Range<usize>) -> Result<FloatTensor> {
        Ok(self.float(role)?.rows(rows))
    }

    /// Gives back memory that only holds what can be read again; for those who go through all tensors once.
    fn release(&self) {}
}

/// One tensor as it stands in a file.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// What it is in the model; `None` for one that the family does not know.
    pub role: Option<Role>,
    /// Its logical shape, outputs first.
    pub shape: Vec<usize>,
    /// Its stored form: a dtype or a layout name (`bf16`, `hf`, `i2_s`, `q6_k` …).
    pub form: String,
    /// Bytes in the file.
    pub bytes: u64,
    /// Index into [`Provenance::files`].
    pub file: usize,
}

/// A decoded ternary weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// The weights `[out, in]`.
    pub trits: Trits,
    /// The effective multiplicative scale.
    pub scale: f32,
}

/// A decoded tensor of floats.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatTensor {
    /// Its shape, outputs first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: FloatData,
}

/// A number as people read it: very large and very small ones with an exponent.
pub fn number(x: f32) -> String {
    match x.abs() {
        small_or_large if small_or_large != 0.0 && !(1e-5..1e7).contains(&small_or_large) => format!("{x:e}"),
        _ => x.to_string(),
    }
}

/// Values in a piece of [`FloatTensor::each_f32`]: a multiple of every block of a float form.
const PIECE: usize = 4096;

impl FloatTensor {
    /// A copy of some rows (of some values, for a vector).
    ///
    /// # Panics
    /// If `rows` are not all there.
    pub fn rows(&self, rows: Range<usize>) -> FloatTensor {
        let cols: usize = self.shape[1..].iter().product();
        let at = rows.start * cols..rows.end * cols;
        let data = match &self.data {
            FloatData::F32(v) => FloatData::F32(v[at].to_vec()),
            FloatData::F16(v) => FloatData::F16(v[at].to_vec()),
            FloatData::Bf16(v) => FloatData::Bf16(v[at].to_vec()),
        };
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        FloatTensor { shape, data }
    }

    /// Its values in pieces, one after the other, each as f32 (exact) in the same small buffer.
    pub fn each_f32(&self, mut piece: impl FnMut(&[f32])) {
        let mut buffer = [0f32; PIECE];
        match &self.data {
            FloatData::F32(v) => piece(v),
            FloatData::F16(v) => v.chunks(PIECE).for_each(|v| {
                let out = &mut buffer[..v.len()];
                v.convert_to_f32_slice(out);
                piece(out);
            }),
            FloatData::Bf16(v) => v.chunks(PIECE).for_each(|v| {
                let out = &mut buffer[..v.len()];
                v.convert_to_f32_slice(out);
                piece(out);
            }),
        }
    }

    /// All values as f32, exact.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.to_f32()
    }
}

impl Checkpoint {
    /// Opens `demo`, `demo-full`, a Hugging Face directory, a `.safetensors` or a `.gguf`.
    ///
    /// # Errors
    /// If it is none of these, or contradicts itself; nothing is guessed.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_with(name, &OpenOptions::default())
    }

    /// As [`open`](Self::open), with what the files leave open stated by the user. Options may stand in
    /// the name itself, as in `demo-full --ptq absmean` or `x.gguf --dialect i2_s`, so that suites and
    /// lists of models can hold them.
    ///
    /// # Errors
    /// As there; and if `options` contradict the files.
    pub fn open_with(name: &str, options: &OpenOptions) -> Result<Self> {
        let last = IN_NAMES.iter().filter_map(|option| Some((name.rfind(option)?, option))).max();
        if let Some((at, option)) = last {
            let (model, value) = (&name[..at], name[at + option.len()..].trim());
            let mut options = options.clone();
            match option.trim() {
                "--dialect" => options.dialect = Some(value.into()),
                "--family" => options.family = Some(value.into()),
                _ => {
                    let ptq = <Ptq as clap::ValueEnum>::from_str(value, false);
                    let expected = |_| Error::Usage(format!("model '{name}': expected --ptq absmean"));
                    options.ptq = Some(ptq.map_err(expected)?);
                }
            }
            let mut checkpoint = Self::open_with(model, &options)?;
            checkpoint.provenance.name = name.into();
            return Ok(checkpoint);
        }
        let path = Path::new(name);
        let gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if options.dialect.is_some() && !gguf {
            return Err(Error::Usage(format!(
                "--dialect is for GGUF files, and {name} is none: leave it out"
            )));
        }
        if let Some(demo) = demo::open(name, options) {
            return demo;
        }
        let kind = file::metadata(path)?;
        let extension = path.extension().map(|e| e.to_ascii_lowercase());
        match extension.as_ref().and_then(|e| e.to_str()) {
            _ if kind.is_dir() => hf::open_dir(name, options),
            Some("safetensors") if packed::is_packed(path)? => packed::open(name),
            Some("safetensors") => hf::open_file(name, options),
            Some("gguf") => gguf::open(path, options),
            _ => Err(Error::input(path, "expected a directory, a .safetensors or a .gguf file")),
        }
    }

    /// Puts a checkpoint together; used by the readers.
    pub fn new(
        config: ModelConfig,
        provenance: Provenance,
        tokenizer: Option<Vec<u8>>,
        container: Box<dyn Container>,
    ) -> Self {
        let (kept, companions) = (Kept::default(), Companions::Files(vec![]));
        Self { config, provenance, tokenizer, kept, companions, container, scales: Mutex::default() }
    }

    /// The form of single floats in which the first source held a tensor, where that is known.
    pub fn original_form(&self, role: Role) -> Option<Form> {
        let kept = self.kept.forms.get(&role.to_string()).map(String::as_str);
        let own = || {
            let known = ["hf", "tritmark"].iter().any(|start| self.provenance.dialect.starts_with(start));
            let info = self.info(role).filter(|_| known)?;
            Some(info.form.as_str())
        };
        kept.or_else(own).and_then(Form::float).filter(|form| !matches!(form, Form::Quant(_)))
    }

    /// What a file must say of this model's first source, if it holds tensors in the forms that
    /// `stored` tells.
    pub fn keep(&self, stored: impl Fn(Role) -> Option<Form>) -> Kept {
        let float = |role: Role| {
            let original = self.original_form(role)?;
            (stored(role) != Some(original)).then(|| (role.to_string(), original.name()))
        };
        Kept {
            forms: self
                .config
                .roles()
                .into_iter()
                .filter(|role| !role.is_matrix())
                .filter_map(float)
                .collect(),
            rounded: false,
            ..self.kept.clone()
        }
    }

    /// Every tensor in the files, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.container.tensors()
    }

    /// The tensor of that role, where there is one.
    pub fn info(&self, role: Role) -> Option<&TensorInfo> {
        self.tensors().iter().find(|t| t.role == Some(role))
    }

    /// See [`Container::ternary`].
    ///
    /// # Errors
    /// As there.
    pub fn ternary(&self, role: Role) -> Result<Ternary> {
        self.ternary_into(role, vec![])
    }

    /// As [`ternary`](Self::ternary), into the buffer of a matrix that is not needed any more.
    ///
    /// # Errors
    /// As there.
    pub fn ternary_into(&self, role: Role, spare: Vec<i8>) -> Result<Ternary> {
        let ternary = self.container.ternary(role, spare)?;
        self.known_scales().insert(role, ternary.scale);
        Ok(ternary)
    }

    fn known_scales(&self) -> MutexGuard<'_, HashMap<Role, f32>> {
        self.scales.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Container::scale`].
    ///
    /// # Errors
    /// As there.
    pub fn scale(&self, role: Role) -> Result<f32> {
        let known = self.known_scales().get(&role).copied();
        if let Some(scale) = known {
            return Ok(scale);
        }
        let scale = self.container.scale(role)?;
        self.known_scales().insert(role, scale);
        Ok(scale)
    }

    /// The scales of all ternary matrices, in the order of [`ModelConfig::linear_roles`].
    ///
    /// # Errors
    /// As of [`scale`](Self::scale).
    pub fn scales(&self) -> Result<Vec<f32>> {
        /// What the matrices that are decoded at one time may take, bytes.
        const MEMORY: usize = 512 << 20;
        let roles: Vec<Role> = self.config.linear_roles().collect();
        let largest =
            Linear::ALL.map(|linear| self.config.linear_shape(linear)).map(|(rows, cols)| rows * cols);
        let largest = size_of::<f32>() * largest.into_iter().max().unwrap_or(0);
        let parts = roles.chunks((MEMORY / largest.max(1)).max(1));
        let scales =
            parts.map(|roles| roles.par_iter().map(|&role| self.scale(role)).collect::<Result<Vec<_>>>());
        Ok(scales.collect::<Result<Vec<_>>>()?.concat())
    }

    /// See [`Container::scale_rounding`].
    pub fn scale_rounding(&self, role: Role) -> Option<Form> {
        self.container.scale_rounding(role)
    }

    /// See [`Container::float`].
    ///
    /// # Errors
    /// As there.
    pub fn float(&self, role: Role) -> Result<FloatTensor> {
        self.container.float(role)
    }

    /// See [`Container::release`].
    pub fn release(&self) {
        self.container.release();
    }

    /// See [`Container::float_rows`].
    ///
    /// # Errors
    /// As there.
    pub fn float_rows(&self, role: Role, rows: Range<usize>) -> Result<FloatTensor> {
        self.container.float_rows(role, rows)
    }
}
