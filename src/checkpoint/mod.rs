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
use half::slice::HalfFloatSliceExt;
use role::Role;
use std::ops::Range;
use std::path::{Path, PathBuf};
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
    container: Box<dyn Container>,
}

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
    /// What could not be proven from the files, or was asked for against them; full sentences that
    /// every command shows.
    pub notes: Vec<String>,
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
        match &self.data {
            FloatData::F32(v) => v.clone(),
            FloatData::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            FloatData::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
        }
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

    /// As [`open`](Self::open), with what the files leave open stated by the user. The option that
    /// makes another model of it may stand in the name itself, `demo-full --ptq absmean`, so that
    /// suites and lists of models can hold both.
    ///
    /// # Errors
    /// As there; and if `options` contradict the files.
    pub fn open_with(name: &str, options: &OpenOptions) -> Result<Self> {
        if let Some((model, rule)) = name.split_once(" --ptq ") {
            let ptq = <Ptq as clap::ValueEnum>::from_str(rule.trim(), false)
                .map_err(|_| Error::Usage(format!("model '{name}': expected --ptq absmean")))?;
            let mut checkpoint = Self::open_with(model, &OpenOptions { ptq: Some(ptq), ..options.clone() })?;
            checkpoint.provenance.name = name.into();
            return Ok(checkpoint);
        }
        if let Some(demo) = demo::open(name, options) {
            return demo;
        }
        let path = Path::new(name);
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
        Self { config, provenance, tokenizer, container }
    }

    /// Every tensor in the files, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.container.tensors()
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
        self.container.ternary(role, spare)
    }

    /// See [`Container::scale`].
    ///
    /// # Errors
    /// As there.
    pub fn scale(&self, role: Role) -> Result<f32> {
        self.container.scale(role)
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
