//! Hugging Face checkpoints: `config.json`, safetensors files, a tokenizer.
//!
//! Everything that headers and configuration can tell is checked when a checkpoint is opened: each
//! tensor that the family needs is there with the right shape and type, and none is there that the
//! family does not know. Tensors are then decoded one by one, straight from the mapped file.

mod config;
mod files;
mod tensors;

use super::families::{self, Family, Weights};
use super::safetensors::Archive;
use super::ternarise::Recipe;
use super::{Checkpoint, OpenOptions, POST_TRAINING_NOTE, Provenance, Ptq, tokenizer};
use crate::checkpoint::config::LinearKind;
use crate::error::{Error, Result};
use config::{Json, Quantization};
pub use files::{from_memory, open_dir, open_file};
use std::path::Path;
use tensors::{Catalog, Tensors};

/// The parts of a checkpoint, read but not yet understood.
struct Parts {
    /// The directory, or what stands for it in messages.
    root: std::path::PathBuf,
    name: String,
    config: Json,
    generation: Option<Json>,
    tokenizer_config: Option<Json>,
    tokenizer: Option<Vec<u8>>,
    archive: Archive,
    notes: Vec<String>,
}

/// What the matrices of a checkpoint are, and how they become trits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Trits and a `weight_scale`; packed, or not.
    Offline {
        inverse_scale: bool,
    },
    /// Master weights of a model trained ternary.
    Master(Recipe),
    /// Floats that are trits times a scale already.
    Dequantised,
    /// Full-precision weights, made ternary after training.
    PostTraining(Ptq),
    Float,
}

impl Source {
    fn scale_rule(self) -> &'static str {
        match self {
            Source::Offline { inverse_scale: false } => "weight_scale multiplies",
            Source::Offline { inverse_scale: true } => "weight_scale divides",
            Source::Master(Recipe::AbsmeanF32) => "absmean in f32",
            Source::Master(Recipe::AbsmeanBf16) => "absmean in bf16",
            Source::Dequantised => "common magnitude of the weights",
            Source::PostTraining(Ptq::Absmean) => "POST-TRAINING absmean in f32",
            Source::Float => "none: full precision",
        }
    }
}

impl Parts {
    /// Names the family, checks everything that can be checked without decoding, and puts the
    /// checkpoint together.
    fn assemble(self, options: &OpenOptions) -> Result<Checkpoint> {
        let family = self.family(options)?;
        let quantization = self.config.quantization()?;
        let (inner_norm, inner_norm_eps) =
            match (family.inner_norm, quantization.and_then(|q| q.inner_norm_eps)) {
                (Some(end), _) => (Some(end), self.config.norm_eps()?),
                (None, Some(eps)) => (Some("rms_norm"), Some(eps)),
                (None, None) => (None, None),
            };
        let mut model = self.config.model(family, LinearKind::Float, inner_norm_eps)?;
        let catalog = Catalog { root: &self.root, archive: &self.archive, family, inner_norm, model: &model };
        let source = self.source(family, quantization, options, &catalog)?;
        let index = catalog.index(source)?;
        let untied = model.tied && catalog.head_differs()?;
        model.tied &= !untied;
        if source != Source::Float {
            model.linear = LinearKind::Ternary;
        }
        model.bos = self.bos(model.vocab)?;
        model.eos = self.config.eos(model.vocab)?;
        if let Some(generation) = &self.generation {
            model.eos.extend(generation.eos(model.vocab)?);
        }
        model.eos.sort_unstable();
        model.eos.dedup();
        let mut kept = self.config.kept(model.vocab)?;
        let post_training = matches!(source, Source::PostTraining(_)) || self.config.was_post_training();
        let provenance = Provenance {
            name: self.name,
            files: self.archive.paths(),
            family: family.name.into(),
            dialect: index.dialect(source).into(),
            scale_rule: source.scale_rule().into(),
            post_training,
            choices: vec![],
            notes: (self.notes.into_iter())
                .chain(untied.then(|| UNTIED_NOTE.into()))
                .chain(note(family, source, post_training))
                .collect(),
        };
        let tensors = Tensors::new(self.archive, index, family, source);
        kept.inverse |= source == Source::Offline { inverse_scale: true };
        let mut checkpoint = Checkpoint::new(model, provenance, self.tokenizer, Box::new(tensors));
        checkpoint.kept = kept;
        Ok(checkpoint)
    }

    fn family(&self, options: &OpenOptions) -> Result<&'static Family> {
        let (architecture, model_type) = self.config.identity()?;
        let found = format!("architecture \"{architecture}\" of type \"{model_type}\"");
        let Some(name) = &options.family else {
            let ends = |end: &str| self.archive.entries().iter().any(|e| e.name.ends_with(end));
            return families::detect(architecture, model_type, ends).ok_or_else(|| {
                let known =
                    families::ALL.iter().map(|f| format!("{} ({})", f.name, f.architectures.join(", ")));
                let known = known.collect::<Vec<_>>().join("; ");
                self.config
                    .error(format!("no known family has the {found} and these tensor names"))
                    .hint(format!("Known: {known}."))
            });
        };
        let Some(family) = families::by_name(name) else {
            let known: Vec<_> = families::ALL.iter().map(|f| f.name).collect();
            return Err(Error::Usage(format!("unknown family '{name}'; known: {}", known.join(", "))));
        };
        if !family.architectures.contains(&architecture) || family.model_type != model_type {
            return Err(self.config.error(format!("the {found} is not the family {name}'s")));
        }
        Ok(family)
    }

    fn source(
        &self,
        family: &Family,
        quantization: Option<Quantization>,
        options: &OpenOptions,
        catalog: &Catalog,
    ) -> Result<Source> {
        let source = match (&family.weights, quantization) {
            (Weights::Master(recipe), None) => {
                self.config.check_bits()?;
                Source::Master(*recipe)
            }
            (Weights::Master(_), Some(_)) => {
                return Err(self.config.error(format!(
                    "\"quantization_config\" contradicts the family {}, whose weights are masters",
                    family.name
                )));
            }
            (Weights::Configured, Some(Quantization { online: true, .. })) => {
                Source::Master(Recipe::AbsmeanF32)
            }
            (Weights::Configured, Some(Quantization { inverse_scale, .. })) => {
                Source::Offline { inverse_scale }
            }
            (Weights::Configured, None) if catalog.looks_dequantised()? => Source::Dequantised,
            (Weights::Configured, None) if self.config.claims_bitnet()? => {
                return Err(self
                    .config
                    .error("\"is_bitnet_config\" is true, but \"quantization_config\" is missing")
                    .hint("If these are master weights, say by which recipe they become ternary: --family llama-master (absmean in f32, as transformers' \"online\" mode) or --family falcon-e-prequantized (the same rounded to bf16 at every step, as TII packed Falcon-E; about one trit in a thousand differs)."));
            }
            (Weights::Configured, None) => Source::Float,
        };
        match (options.ptq, source) {
            (None, source) => Ok(source),
            (Some(ptq), Source::Float) => Ok(Source::PostTraining(ptq)),
            (Some(_), _) => Err(Error::Usage(format!(
                "{}: --ptq is for full-precision models, but this one is ternary already ({})",
                self.name,
                source.scale_rule()
            ))),
        }
    }

    /// The token that stands in front of a text: what the tokenizer itself does counts first, then
    /// `add_bos_token`; where there is no `tokenizer_config.json`, the model's own BOS token.
    fn bos(&self, vocab: usize) -> Result<Option<u32>> {
        let Some(bos) = self.config.bos(vocab)? else { return Ok(None) };
        let adds = match (&self.tokenizer, &self.tokenizer_config) {
            (Some(json), _) if tokenizer::begins_with(json, bos) => true,
            (_, Some(config)) => config.flag("add_bos_token")? == Some(true),
            (_, None) => true,
        };
        Ok(adds.then_some(bos))
    }
}

/// transformers (5.24, tried) does so too, and warns.
const UNTIED_NOTE: &str = "The configuration ties the head to the token embedding (\"tie_word_embeddings\"), but another \
     head is stored: that one is used, as transformers does.";

/// What a reader of any output must know about how the weights were read.
fn note(family: &Family, source: Source, post_training: bool) -> Option<String> {
    let note = match source {
        _ if post_training => POST_TRAINING_NOTE,
        Source::Float if family.name == "llama" => {
            "Nothing in the files tells full-precision weights from the master weights of a ternary \
             Llama; they were read as full precision. If they are masters, say --family \
             llama-master (absmean in f32, as transformers' online mode) or --family falcon-e-prequantized \
             (the same in bf16, as TII packed Falcon-E; about one trit in a thousand differs)."
        }
        Source::Dequantised => {
            "The configuration does not say so, but every weight is a trit times a common scale: read \
             as a ternary model with int8 activations."
        }
        Source::Master(_) if family.on_request => {
            "That these are master weights of a ternary model was stated by the user; the files do \
             not say so."
        }
        _ => return None,
    };
    Some(note.into())
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    Some(dir.join(name)).filter(|p| p.symlink_metadata().is_ok())
}
