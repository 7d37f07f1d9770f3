//! From any form of a model to any other, tensor by tensor, each proven as it is written.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::form::{self, Form};
use crate::checkpoint::gguf::runtime::Runtime;
use crate::checkpoint::write::{Inexact, Plan, gguf, hf, packed};
use crate::error::{Error, Result};
use std::path::Path;
use tritmark_kernels::layout;

/// What to convert to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A layout, `hf`, or a form of floats (`bf16`, `f16`, `f32`); `None` takes what the output's
    /// name implies.
    pub to: Option<String>,
    /// Who shall run a GGUF.
    pub runtime: Option<Runtime>,
    /// Form of embedding and head.
    pub embedding: Option<String>,
    /// Bytes of a file of a Hugging Face directory.
    pub shard_size: Option<u64>,
    /// Keep scales in f32 tensors of their own (GGUF, architecture `bitnet`).
    pub scale_tensors: bool,
    /// The ggml type id of `tl2`, one of [`gguf::TL2_IDS`] (GGUF).
    pub tl2_id: Option<u32>,
    /// Write what the runtime does not run rightly all the same.
    pub force: bool,
}

/// Files of a Hugging Face directory are at most this large unless asked otherwise, as transformers
/// has it.
const SHARD_SIZE: u64 = 5_000_000_000;

/// The kinds of output, told by the name's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `.gguf`.
    Gguf,
    /// `.safetensors`: one of our own files.
    Safetensors,
    /// Anything else: a Hugging Face directory.
    Directory,
}

impl Container {
    /// What the name of an output asks for.
    pub fn of(out: &Path) -> Self {
        match out.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("gguf") => Container::Gguf,
            Some("safetensors") => Container::Safetensors,
            _ => Container::Directory,
        }
    }

    /// What a container can hold, by the names that `to` takes.
    pub fn forms(self) -> Vec<String> {
        let layouts = layout::ALL.iter().map(|l| l.name());
        match self {
            Container::Gguf => layouts
                .filter(|name| form::ternary_id(name).is_some())
                .chain(["f16", "bf16", "f32"])
                .map(str::to_owned)
                .collect(),
            Container::Safetensors => layouts.map(str::to_owned).collect(),
            Container::Directory => vec!["hf".into(), "bf16".into()],
        }
    }
}

/// Plans the conversion of `checkpoint` to what the name `out` and `options` ask for.
///
/// # Errors
/// If they ask for what there is not, or for what the model, the layout or the runtime cannot be.
pub fn plan(checkpoint: &Checkpoint, out: &Path, options: &Options) -> Result<Plan> {
    let container = Container::of(out);
    let usage = |message: String| Err(Error::Usage(message));
    let to = match (options.to.as_deref(), container) {
        (Some(to), _) => to,
        (None, Container::Directory) => "hf",
        (None, Container::Gguf) => "i2_s",
        (None, Container::Safetensors) => "tm2",
    };
    let float = match to {
        "f32" | "f16" | "bf16" => Form::float(to),
        _ => None,
    };
    let layout = layout::by_name(to);
    let held = match container {
        Container::Gguf => float.is_some() || (layout.is_some() && form::ternary_id(to).is_some()),
        Container::Safetensors => layout.is_some(),
        Container::Directory => matches!(to, "hf" | "bf16"),
    };
    if !held {
        let known = container.forms().join(", ");
        return usage(match container {
            Container::Directory if layout.is_some() => {
                format!("a directory holds hf or bf16, not {to}: name the output X.gguf or X.safetensors")
            }
            _ => format!("{} cannot hold '{to}': expected one of {known}", out.display()),
        });
    }
    let embedding = options.embedding.as_deref().map(embedding_form).transpose()?;
    if container != Container::Gguf && matches!(embedding, Some(Form::Quant(_))) {
        return usage("only GGUF holds quantised embeddings: choose f32, f16 or bf16".into());
    }
    if container != Container::Gguf
        && (options.runtime.is_some() || options.scale_tensors || options.tl2_id.is_some())
    {
        return usage(
            "--for, --scale-tensors and --tl2-id are for GGUF outputs: name the output X.gguf".into(),
        );
    }
    if container != Container::Directory && options.shard_size.is_some() {
        return usage("--shard-size is for Hugging Face directories".into());
    }
    let matrices = match (layout, float) {
        (Some(layout), _) => gguf::Matrices::Packed(layout),
        (None, Some(form)) => gguf::Matrices::Float(form),
        (None, None) => return Err(Error::Bug(format!("'{to}' is neither a layout nor a float form"))),
    };
    match (container, matrices) {
        (Container::Gguf, matrices) => gguf::plan(
            checkpoint,
            &gguf::Options {
                matrices,
                runtime: options.runtime,
                embedding,
                scale_tensors: options.scale_tensors,
                tl2_id: options.tl2_id,
                force: options.force,
            },
        ),
        (Container::Directory, matrices) => hf::plan(
            checkpoint,
            &hf::Options {
                packed: matches!(matrices, gguf::Matrices::Packed(_)),
                embedding,
                shard_size: options.shard_size.unwrap_or(SHARD_SIZE),
            },
        ),
        (Container::Safetensors, gguf::Matrices::Packed(layout)) => {
            packed::plan(checkpoint, layout, embedding)
        }
        (Container::Safetensors, gguf::Matrices::Float(_)) => {
            Err(Error::Bug("a float form passed for a packed one".into()))
        }
    }
}

fn embedding_form(name: &str) -> Result<Form> {
    Form::float(name).ok_or_else(|| {
        Error::Usage(format!("unknown embedding form '{name}': expected f32, f16, bf16, q8_0, q6_k or q4_0"))
    })
}

/// The largest relative error of the scales that an output had to round, with its tensor.
pub fn worst(inexact: &[Inexact]) -> Option<&Inexact> {
    inexact.iter().max_by(|a, b| a.relative_error().total_cmp(&b.relative_error()))
}
