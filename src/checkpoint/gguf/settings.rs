//! The model's configuration from GGUF metadata.

use super::reader::Reader;
use crate::checkpoint::OpenOptions;
use crate::checkpoint::config::{Activation, LinearKind, MAX_DIMENSION, ModelConfig};
use crate::checkpoint::role::{LayerRole, Role};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Architectures that are read, and their activation function where the name settles it. `bitnet` does
/// not: it is written for models with SiLU and for models with ReLU².
const ARCHITECTURES: &[(&str, Option<Activation>)] = &[
    ("bitnet", None),
    ("bitnet-25", Some(Activation::Relu2)),
    ("bitnet-b1.58", Some(Activation::Relu2)),
    ("llama", Some(Activation::Silu)),
    ("qwen3", Some(Activation::Silu)),
];

/// The family that a configuration belongs to, by its name in the table of families.
pub fn family(config: &ModelConfig) -> &'static str {
    match (config.sub_norms, config.activation) {
        (true, Activation::Relu2) => "bitnet",
        (true, _) => "bitnet-1bitllm",
        (false, _) if config.qk_norm => "qwen3",
        (false, _) => "llama",
    }
}

/// Keys of one architecture.
struct Keys<'a> {
    reader: &'a Reader,
    architecture: &'a str,
}

impl Keys<'_> {
    fn error(&self, message: String) -> Error {
        Error::input(self.reader.path(), message)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The key that holds a field of [`ModelConfig`].
    fn key_of(&self, field: &str) -> String {
        match field {
            "heads" => self.key("attention.head_count"),
            "kv_heads" => self.key("attention.head_count_kv"),
            "head_dim" => self.key("attention.key_length"),
            "layers" => self.key("block_count"),
            "norm_eps" => self.key("attention.layer_norm_rms_epsilon"),
            "rope_theta" => self.key("rope.freq_base"),
            "bos" | "eos" => format!("tokenizer.ggml.{field}_token_id"),
            // What else can be wrong here was checked when its key was read.
            other => self.key(other),
        }
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("metadata key {} is missing", self.key(key)))
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.reader.uint(&self.key(key))? {
            Some(n) if (1..MAX_DIMENSION).contains(&n) => Ok(Some(n)),
            Some(n) => Err(self.error(format!(
                "metadata key {}: {n} is out of range, expected 1 to {}",
                self.key(key),
                MAX_DIMENSION - 1
            ))),
            None => Ok(None),
        }
    }

    fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.reader.float(&self.key(key))? {
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            Some(x) => Err(self.error(format!(
                "metadata key {}: {x} is out of range, expected a finite number above 0",
                self.key(key)
            ))),
            None => Ok(None),
        }
    }

    /// Refuses a setting that the forward pass does not have.
    fn refuse(&self, key: &str, found: impl ToString) -> Error {
        self.error(format!("metadata key {} is {}, which is not supported", self.key(key), found.to_string()))
    }
}

/// Reads the configuration; [`ModelConfig::linear`] is left for the caller, who knows the forms.
pub fn read(
    reader: &Reader,
    by_role: &HashMap<Role, usize>,
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<ModelConfig> {
    let path = reader.path();
    let Some(architecture) = reader.text("general.architecture")? else {
        return Err(Error::input(path, "metadata key general.architecture is missing"));
    };
    let Some((_, certain)) = ARCHITECTURES.iter().find(|(name, _)| *name == architecture) else {
        let known = ARCHITECTURES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(Error::input(
            path,
            format!("unknown architecture '{architecture}': expected one of {known}"),
        ));
    };
    let keys = Keys { reader, architecture };
    refuse_unsupported(&keys, by_role)?;
    let has = |part| by_role.contains_key(&Role::Layer(0, part));
    let (hidden, heads) = (keys.required("embedding_length")?, keys.required("attention.head_count")?);
    let kv_heads = keys.count("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match keys.count("attention.key_length")? {
        Some(n) => n,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(keys.error(format!(
                "{heads} heads do not divide the width {hidden}, and metadata key {} is missing",
                keys.key("attention.key_length")
            )));
        }
    };
    if let Some(n) = keys.count("attention.value_length")?.filter(|&n| n != head_dim) {
        return Err(keys.refuse("attention.value_length", format!("{n} where keys have {head_dim}")));
    }
    if let Some(n) = keys.count("rope.dimension_count")?.filter(|&n| n != head_dim) {
        return Err(keys.refuse("rope.dimension_count", format!("{n} where heads have {head_dim}")));
    }
    let layers = keys.required("block_count")?;
    if layers > reader.tensors().len() {
        return Err(keys.error(format!("{layers} blocks in {} tensors", reader.tensors().len())));
    }
    let vocab = vocabulary(&keys, by_role)?;
    let epsilon = "attention.layer_norm_rms_epsilon";
    let model = ModelConfig {
        vocab,
        hidden,
        ffn: keys.required("feed_forward_length")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        context: keys.required("context_length")?,
        // The specification's default.
        rope_theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
        norm_eps: keys.float(epsilon)?.ok_or_else(|| keys.missing(epsilon))? as f32,
        activation: activation(&keys, *certain, options, notes)?,
        tied: !by_role.contains_key(&Role::Head),
        linear: LinearKind::Ternary,
        sub_norms: has(LayerRole::AttnSubNorm) || has(LayerRole::FfnSubNorm),
        inner_norm_eps: None,
        qk_norm: has(LayerRole::QNorm) || has(LayerRole::KNorm),
        gemma: None,
        bos: if super::tokenizer::adds_bos(reader)? { token(reader, "bos")? } else { None },
        eos: [token(reader, "eos")?, token(reader, "eot")?].into_iter().flatten().collect(),
    };
    model.check(|field| format!("metadata key {}", keys.key_of(field))).map_err(|e| keys.error(e))?;
    // A family is more than its activation.
    let norms = |model: &ModelConfig| (model.sub_norms, model.qk_norm);
    let of_family = match options.family.as_deref() {
        Some("bitnet" | "bitnet-1bitllm") => (true, false),
        Some("qwen3") => (false, true),
        Some(_) => (false, false),
        None => norms(&model),
    };
    if let Some(family) = options.family.as_ref().filter(|_| norms(&model) != of_family) {
        let has = |yes| if yes { "has" } else { "lacks" };
        return Err(keys
            .error(format!(
                "it is not of the family {family}: it {} sub-norms and {} norms of queries and keys",
                has(model.sub_norms),
                has(model.qk_norm)
            ))
            .hint("Leave --family out, or name another one."));
    }
    Ok(model)
}

/// What changes the forward pass in ways that it does not have.
fn refuse_unsupported(keys: &Keys, by_role: &HashMap<Role, usize>) -> Result<()> {
    for key in ["expert_count", "attention.sliding_window"] {
        if let Some(n) = keys.reader.uint(&keys.key(key))?.filter(|&n| n != 0) {
            return Err(keys.refuse(key, n));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping", "attention.scale"] {
        if let Some(x) = keys.reader.float(&keys.key(key))?.filter(|&x| x != 0.0) {
            return Err(keys.refuse(key, x));
        }
    }
    if let Some(x) = keys.reader.float(&keys.key("rope.scaling.attn_factor"))?.filter(|&x| x != 1.0) {
        return Err(keys.refuse("rope.scaling.attn_factor", x));
    }
    if keys.reader.flag(&keys.key("attention.causal"))? == Some(false) {
        return Err(keys.refuse("attention.causal", false));
    }
    // Files of old name the factor otherwise; without a type it is linear, as llama.cpp reads it.
    let named = |key: &str| keys.reader.float(&keys.key(key));
    let factor = named("rope.scaling.factor")?.or(named("rope.scale_linear")?).unwrap_or(1.0);
    let kind = keys.reader.text(&keys.key("rope.scaling.type"))?.unwrap_or("linear");
    // A factor of 0 stands for none there.
    if kind != "none" && !(kind == "linear" && [0.0, 1.0].contains(&factor)) {
        return Err(keys.refuse("rope.scaling.type", format!("{kind} with the factor {factor}")));
    }
    let odd =
        |name: &str| name.starts_with("rope_freqs") || (name.starts_with("blk.") && name.ends_with(".bias"));
    match keys.reader.tensors().iter().find(|t| odd(&t.name)) {
        Some(t) => {
            Err(Error::tensor(keys.reader.path(), &t.name, "models with this tensor are not supported"))
        }
        None if keys.reader.tensors().is_empty() => Err(keys.error("it has no tensors".into())),
        None if by_role.is_empty() => Err(keys.error("none of its tensors has a name that is known".into())),
        None => Ok(()),
    }
}

/// Rows of the embedding, which the metadata must not contradict.
fn vocabulary(keys: &Keys, by_role: &HashMap<Role, usize>) -> Result<usize> {
    let Some(&i) = by_role.get(&Role::TokenEmbedding) else {
        let name = "token_embd.weight";
        return Err(Error::tensor(
            keys.reader.path(),
            name,
            "the model needs it, but the file does not have it",
        ));
    };
    let rows = keys.reader.tensors()[i].shape()[0];
    match keys.count("vocab_size")? {
        Some(n) if n != rows => Err(keys.error(format!(
            "metadata key {} is {n}, but the embedding has {rows} rows",
            keys.key("vocab_size")
        ))),
        _ => Ok(rows),
    }
}

fn activation(
    keys: &Keys,
    certain: Option<Activation>,
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<Activation> {
    let stated = match keys.reader.text(&keys.key("hidden_activation"))? {
        None => None,
        Some("relu2") => Some(Activation::Relu2),
        Some("silu") => Some(Activation::Silu),
        Some(other) => return Err(keys.refuse("hidden_activation", other)),
    };
    let asked = match options.family.as_deref() {
        None => None,
        Some("bitnet") => Some(Activation::Relu2),
        Some("bitnet-1bitllm" | "llama" | "qwen3") => Some(Activation::Silu),
        Some(other) => {
            return Err(Error::Usage(format!(
                "a GGUF cannot be of the family '{other}': expected bitnet, bitnet-1bitllm, llama or qwen3"
            )));
        }
    };
    let found = stated.or(certain);
    match (found, asked) {
        (Some(found), Some(asked)) if found != asked => {
            notes.push(format!("The file says that the activation is {found:?}; {asked:?} is used as asked for."));
            Ok(asked)
        }
        (Some(activation), _) | (None, Some(activation)) => Ok(activation),
        (None, None) => Err(keys
            .error(format!(
                "the architecture '{}' leaves the activation function open, and metadata key {} is missing",
                keys.architecture,
                keys.key("hidden_activation")
            ))
            .hint("Say which model it is: --family bitnet (ReLU², as microsoft/bitnet-b1.58-2B-4T) or --family bitnet-1bitllm (SiLU, as 1bitLLM/bitnet_b1_58).")),
    }
}

/// The id of a special token, e.g. `bos`.
///
/// # Errors
/// If it is out of range.
pub fn token(reader: &Reader, which: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{which}_token_id");
    match reader.uint(&key)? {
        Some(id) => u32::try_from(id)
            .map(Some)
            .map_err(|_| Error::input(reader.path(), format!("metadata key {key}: {id} is no token's id"))),
        // As llama.cpp has it where a file with SentencePiece's tokenizer does not state them.
        None if reader.text(super::tokenizer::MODEL_KEY)? == Some("llama") => {
            Ok([("bos", 1), ("eos", 2)].into_iter().find(|(name, _)| *name == which).map(|(_, id)| id))
        }
        None => Ok(None),
    }
}
