//! Writing model files: a plan of every byte first, then tensor by tensor into temporary files that
//! take their final name when all is proven.
//!
//! A plan places each tensor, so tensors are packed in parallel and written where they belong, in any
//! order; memory holds a tensor (or a slice of one) for each thread and no more.

mod archive;
mod encode;
pub mod gguf;
pub mod hf;
mod memory;
mod output;
pub mod packed;
mod side;

use super::Checkpoint;
use super::gguf::form::Form;
use super::gguf::rounding;
use super::role::Role;
use crate::error::{Error, Result};
use crate::files::same_file;
use encode::Encoder;
use memory::System;
pub use output::Output;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tritmark_kernels::layout::Layout;

/// Makes bytes that state where the weights come from; equally many whatever the hashes are.
pub type Stating = Box<dyn Fn(&Origin) -> Vec<u8> + Send + Sync>;

/// Everything that will be written.
pub struct Plan {
    /// In words: what it is.
    pub target: String,
    /// Whether the output is a directory of `files` and `side`, or the one file.
    pub directory: bool,
    /// Files with tensors.
    pub files: Vec<FilePlan>,
    /// Small files beside them: name and content.
    pub side: Vec<(String, Stating)>,
    /// What the user must hear of.
    pub warnings: Vec<String>,
}

/// A file with tensors.
pub struct FilePlan {
    /// Its name inside the output directory.
    pub name: String,
    /// Everything before the first tensor.
    pub header: Stating,
    /// Length of the file.
    pub len: u64,
    /// Its tensors, in file order.
    pub tensors: Vec<Item>,
}

/// A tensor to write.
#[derive(Serialize)]
pub struct Item {
    /// Its name in the output.
    pub name: String,
    /// What it is in the model; `None` for what is no tensor of it.
    pub role: Option<Role>,
    /// Its shape in the model, outputs first.
    pub shape: Vec<usize>,
    /// Its form in the source.
    pub from: String,
    /// Its form in the output.
    pub to: String,
    /// Where it starts in its file.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
    /// How it is made.
    #[serde(skip)]
    pub action: Action,
}

/// How a tensor is made.
#[derive(Debug, Clone)]
pub enum Action {
    /// Trits in a packed layout.
    Pack {
        /// The layout.
        layout: &'static dyn Layout,
        /// Heads whose rows are interleaved (architecture `llama`), where they are.
        interleave: Option<usize>,
        /// Whether the layout is to state the scale 1, because a tensor of its own holds it.
        unit: bool,
    },
    /// Trits as floats.
    Spread {
        /// The floats.
        form: Form,
        /// As in [`Action::Pack`].
        interleave: Option<usize>,
        /// Whether they are multiplied by the scale.
        scaled: bool,
    },
    /// Floats in this form.
    Float {
        /// The form.
        form: Form,
        /// As in [`Action::Pack`].
        interleave: Option<usize>,
        /// Whether the reader adds one to each (norms of Gemma).
        less_one: bool,
    },
    /// The scale of a ternary matrix, as one float of this form; its reciprocal where `inverse`.
    Scale {
        /// The form.
        form: Form,
        /// Whether the reader divides by it.
        inverse: bool,
    },
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Where weights come from, for the output's own metadata.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// SHA-256 of each file that held tensors.
    pub sha256: BTreeMap<String, String>,
    /// The family.
    pub family: String,
    /// How the source was written.
    pub dialect: String,
    /// How the scale followed from what was stored.
    pub scale_rule: String,
    /// Whether the model was made ternary after training.
    pub post_training: bool,
    /// The version of this program.
    pub tritmark: String,
}

impl Origin {
    /// An origin with zeros for the hashes: as long as the true one in any text form.
    fn unhashed(checkpoint: &Checkpoint) -> Self {
        let p = &checkpoint.provenance;
        Self {
            sha256: p.files.iter().map(|path| (file_name(path), "0".repeat(64))).collect(),
            family: p.family.clone(),
            dialect: p.dialect.clone(),
            scale_rule: p.scale_rule.clone(),
            post_training: p.post_training,
            tritmark: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn hashed(checkpoint: &Checkpoint) -> Result<Self> {
        let mut origin = Self::unhashed(checkpoint);
        for path in &checkpoint.provenance.files {
            let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
            // So small that it stays in the cache between being read and hashed.
            let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 128 << 10]);
            loop {
                match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            origin.sha256.insert(file_name(path), crate::words::hex(&hasher.finalize()));
        }
        Ok(origin)
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("strings have a JSON form")
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What there is to say of an output.
#[derive(Debug)]
pub struct Written {
    /// The scales that had to be rounded.
    pub inexact: Vec<Inexact>,
    /// What is odd about the weights; full sentences.
    pub odd: Vec<String>,
}

/// A scale that the output cannot hold exactly.
#[derive(Debug, Clone, Serialize)]
pub struct Inexact {
    /// The tensor in the output.
    pub tensor: String,
    /// The model's scale.
    pub scale: f32,
    /// What the output gives instead.
    pub stored: f32,
}

impl Inexact {
    /// `|stored - scale| / scale`.
    pub fn relative_error(&self) -> f64 {
        (f64::from(self.stored) / f64::from(self.scale) - 1.0).abs()
    }
}

/// What the tensors in work at one time may take, roughly; large machines run fewer threads for it.
const MEMORY: usize = 512 << 20;

/// Bytes that are written between two calls of [`Checkpoint::release`].
const RELEASE: u64 = 64 << 20;

/// Starts the threads on which tensors are looked at and planned, fewer where memory is limited; to be
/// called when the source is open, before anything is done with its tensors.
///
/// # Errors
/// If there is no room for one thread.
pub fn start_threads() -> Result<()> {
    let system = System::now();
    if !system.limited() {
        return Ok(());
    }
    let most = tritmark_kernels::pool::cpus();
    // [`Plan::write`] has threads of its own.
    let threads = system.threads(2 * most, 0)?.div_ceil(2);
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        Err(e) if std::error::Error::source(&e).is_some() => {
            Err(System::refused(format!("the system gives no {threads} threads: {e}")))
        }
        // Where they run already, that is as good.
        _ => Ok(()),
    }
}

/// Bytes of a tensor of this name in a form.
///
/// # Errors
/// If the form cannot hold its shape.
fn length(form: Form, name: &dyn std::fmt::Display, rows: usize, cols: usize) -> Result<usize> {
    form.len(rows, cols).map_err(|reason| {
        Error::Usage(format!(
            "tensor {name}: {reason}\n  Choose another form with --to (`tritmark formats` lists them; safetensors hold every shape in tm2), for embedding and head with --embedding."
        ))
    })
}

impl Plan {
    /// Bytes of all files with tensors.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }

    /// As many threads as the machine has and [`MEMORY`] allows.
    fn pool(&self, system: &System) -> Result<rayon::ThreadPool> {
        // Embeddings are cut into slices; the other matrices are not.
        let items = self.files.iter().flat_map(|f| &f.tensors);
        let whole = items.filter(|item| matches!(item.role, Some(Role::Layer(..))));
        // Trits or values, packed bytes, and what is read back of them.
        let largest = whole.map(|item| item.shape.iter().product::<usize>() * 4).max().unwrap_or(1);
        let most = tritmark_kernels::pool::cpus();
        let wanted = (MEMORY / largest.max(1)).clamp(1, most);
        let threads = system.threads(wanted, largest as u64)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|e| System::refused(format!("it gives no {threads} threads: {e}")))
    }

    /// Refuses to replace what is read.
    fn spare_sources(&self, checkpoint: &Checkpoint, out: &Path) -> Result<()> {
        match checkpoint.provenance.files.iter().find(|source| same_file(source, out)) {
            Some(source) => Err(Error::Usage(format!(
                "{} is {} itself: the output would replace what it is made from; choose another name",
                out.display(),
                source.display()
            ))),
            None => Ok(()),
        }
    }

    /// Writes everything to `out`. Each packed tensor is unpacked again and compared before it is
    /// written. `done` hears of the bytes of each piece written.
    ///
    /// # Errors
    /// If the source is damaged, a tensor does not come back equal, or the system refuses to write;
    /// then `out` is as it was before.
    pub fn write(&self, checkpoint: &Checkpoint, out: &Path, done: &(dyn Fn(u64) + Sync)) -> Result<Written> {
        self.spare_sources(checkpoint, out)?;
        let pool = self.pool(&System::now())?;
        let mut output = Output::create(out, self.directory)?;
        let unhashed = Origin::unhashed(checkpoint);
        let mut files = vec![];
        for plan in &self.files {
            files.push((plan, output.file(&plan.name, plan.len)?, (plan.header)(&unhashed).len()));
        }
        let encoder = Encoder { checkpoint, odd: Mutex::default() };
        let mut pieces = vec![];
        for (plan, file, _) in &files {
            for item in &plan.tensors {
                pieces.extend(encoder.pieces(item).into_iter().map(|piece| (item, file, piece)));
            }
        }
        let inexact = Mutex::new(vec![]);
        let written = AtomicU64::new(0);
        let convert = || {
            pieces.par_iter().try_for_each_init(Vec::new, |spare, (item, file, piece)| {
                let (bytes, rounded) = encoder.encode(item, piece, spare)?;
                file.write_at(&bytes, item.start + piece.offset)?;
                // The source's pages go back now and then; each time, what other threads read comes anew.
                let len = bytes.len() as u64;
                let before = written.fetch_add(len, Ordering::Relaxed);
                if before / RELEASE != (before + len) / RELEASE {
                    checkpoint.release();
                }
                inexact.lock().expect("no thread panics with the lock").extend(rounded);
                done(len);
                Ok(())
            })
        };
        let (converted, origin) = pool.install(|| rayon::join(convert, || Origin::hashed(checkpoint)));
        converted?;
        let origin = origin?;
        drop(pieces);
        for (plan, file, header_len) in files {
            let header = (plan.header)(&origin);
            if header.len() != header_len {
                return Err(Error::Bug(format!("the header of {} changed its length", plan.name)));
            }
            file.write_at(&header, 0)?;
            file.finish()?;
        }
        for (name, content) in &self.side {
            output.side(name, &content(&origin))?;
        }
        output.finish()?;
        let mut inexact = inexact.into_inner().expect("no thread panics with the lock");
        inexact.sort_by(|a: &Inexact, b| a.tensor.cmp(&b.tensor));
        let mut odd = encoder.odd.into_inner().expect("no thread panics with the lock");
        odd.sort_unstable();
        Ok(Written { inexact, odd })
    }

    /// The scales that [`write`](Self::write) will have to round.
    ///
    /// # Errors
    /// If a scale of the source is damaged.
    pub fn inexact(&self, checkpoint: &Checkpoint) -> Result<Vec<Inexact>> {
        let mut all = vec![];
        for item in self.files.iter().flat_map(|f| &f.tensors) {
            let form = match &item.action {
                Action::Pack { layout, unit: false, .. } => rounding(*layout),
                Action::Spread { form, scaled: true, .. } => Some(*form),
                _ => None,
            };
            let Some((form, role)) = form.zip(item.role) else { continue };
            let scale = checkpoint.scale(role)?;
            let stored = encode::rounded(scale, form)?;
            if stored != scale {
                all.push(Inexact { tensor: item.name.clone(), scale, stored });
            }
        }
        Ok(all)
    }
}

/// The form of a tensor in the source.
fn source_form(checkpoint: &Checkpoint, role: Role) -> String {
    checkpoint.info(role).map_or_else(|| "made".into(), |info| info.form.clone())
}

/// Rows and columns; a vector is one row.
fn matrix(shape: &[usize]) -> (usize, usize) {
    match *shape {
        [cols] => (1, cols),
        _ => (shape[0], shape[1..].iter().product()),
    }
}
