//! `config.json`, `generation_config.json` and `tokenizer_config.json`, of old and new shape.
//!
//! A key is read only if its meaning is certain. One that is missing, of the wrong kind, or at odds
//! with another is an error that names it; a feature that the forward pass does not have is
//! refused, because a model without it would run and be wrong.

use crate::checkpoint::Kept;
use crate::checkpoint::config::{Activation, Gemma, LinearKind, MAX_DIMENSION, ModelConfig};
use crate::checkpoint::families::Family;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A JSON object and the file that it came from.
#[derive(Debug, Clone)]
pub struct Json {
    path: PathBuf,
    /// Where in the file, for messages: empty or `quantization_config.`.
    inside: String,
    map: Map<String, Value>,
}

/// What `quantization_config` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// `bitlinear` divides by its scale; `autobitlinear` multiplies.
    pub inverse_scale: bool,
    /// Master weights instead of ternary ones.
    pub online: bool,
    /// Epsilon of the norm inside each BitLinear (`use_rms_norm`).
    pub inner_norm_eps: Option<f32>,
}

/// The key that holds a field of [`ModelConfig`].
fn key_of(field: &str) -> &str {
    match field {
        "heads" => "num_attention_heads",
        "kv_heads" => "num_key_value_heads",
        "layers" => "num_hidden_layers",
        "norm_eps" => "rms_norm_eps",
        "inner_norm_eps" => "quantization_config.rms_norm_eps",
        "gemma.windowed" => "layer_types",
        // What else can be wrong here has the field's name, or was checked when its key was read.
        other => other,
    }
}

impl Json {
    /// Parses a file's bytes, which must be one JSON object.
    ///
    /// # Errors
    /// If they are not.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { path: path.into(), inside: String::new(), map }),
            Ok(_) => Err(Error::input(path, "expected a JSON object")),
            Err(e) => Err(Error::input(path, format!("not JSON: {e}"))),
        }
    }

    /// An error about this file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::input(&self.path, message)
    }

    fn key(&self, key: &str) -> String {
        format!("\"{}{key}\"", self.inside)
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("{} is missing", self.key(key)))
    }

    /// A value; `null` is the same as none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn typed<'a, T: Deserialize<'a>>(&'a self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|_| {
            let mut found = value.to_string();
            if found.len() > 60 {
                found = format!("{}…", found.chars().take(60).collect::<String>());
            }
            self.error(format!("{}: expected {expected}, found {found}", self.key(key)))
        })
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.typed::<u64>(key, "a whole number")? {
            None => Ok(None),
            Some(n) if (1..MAX_DIMENSION as u64).contains(&n) => Ok(Some(n as usize)),
            Some(n) => {
                let most = MAX_DIMENSION - 1;
                Err(self.error(format!("{}: expected 1 to {most}, found {n}", self.key(key))))
            }
        }
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.typed::<f64>(key, "a number")? {
            Some(x) if !(x > 0.0 && x.is_finite()) => {
                Err(self.error(format!("{}: expected a positive number, found {x}", self.key(key))))
            }
            other => Ok(other),
        }
    }

    /// A flag.
    ///
    /// # Errors
    /// If the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false")
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text")
    }

    fn object(&self, key: &str) -> Result<Option<Json>> {
        let Some(map) = self.typed::<Map<String, Value>>(key, "an object")? else { return Ok(None) };
        Ok(Some(Json { path: self.path.clone(), inside: format!("{}{key}.", self.inside), map }))
    }

    fn need<T>(&self, key: &str, value: Result<Option<T>>) -> Result<T> {
        value?.ok_or_else(|| self.missing(key))
    }

    fn need_count(&self, key: &str) -> Result<usize> {
        self.need(key, self.count(key))
    }

    fn unsupported(&self, key: &str, what: &str) -> Error {
        self.error(format!("{} asks for {what}, which is not supported", self.key(key)))
    }

    /// The one entry of `architectures`, and `model_type`.
    ///
    /// # Errors
    /// If either is missing or there is more than one architecture.
    pub fn identity(&self) -> Result<(&str, &str)> {
        let key = "architectures";
        let architectures: Vec<&str> = self.need(key, self.typed(key, "a list of texts"))?;
        let [architecture] = architectures[..] else {
            return Err(self.error(format!("\"{key}\": expected one entry, found {}", architectures.len())));
        };
        let model_type = self.need("model_type", self.text("model_type"))?;
        Ok((architecture, model_type))
    }

    /// Whether the configuration claims to be a BitNet's (`is_bitnet_config`).
    ///
    /// # Errors
    /// If the value is no flag.
    pub fn claims_bitnet(&self) -> Result<bool> {
        Ok(self.flag("is_bitnet_config")? == Some(true))
    }

    /// `quantization_config`, where there is one.
    ///
    /// # Errors
    /// If it is no BitNet's, contradicts itself, or leaves some of the matrices as floats.
    pub fn quantization(&self) -> Result<Option<Quantization>> {
        let Some(q) = self.object("quantization_config")? else { return Ok(None) };
        let method = q.need("quant_method", q.text("quant_method"))?;
        if method != "bitnet" {
            return Err(
                q.error(format!("{}: expected \"bitnet\", found \"{method}\"", q.key("quant_method")))
            );
        }
        let class = q.text("linear_class")?.unwrap_or("bitlinear");
        let inverse_scale = match class {
            "bitlinear" => true,
            "autobitlinear" => false,
            other => {
                return Err(q.error(format!(
                    "{}: expected \"bitlinear\" or \"autobitlinear\", found \"{other}\"",
                    q.key("linear_class")
                )));
            }
        };
        let online = match q.text("quantization_mode")?.unwrap_or("offline") {
            "offline" => false,
            "online" if inverse_scale => {
                return Err(q.error(format!(
                    "{}: \"online\" contradicts the class \"bitlinear\", which has packed weights only",
                    q.key("quantization_mode")
                )));
            }
            "online" => true,
            other => {
                return Err(q.error(format!(
                    "{}: expected \"offline\" or \"online\", found \"{other}\"",
                    q.key("quantization_mode")
                )));
            }
        };
        let key = "modules_to_not_convert";
        if let Some(modules) = q.typed::<Vec<String>>(key, "a list of texts")? {
            if let Some(other) =
                modules.iter().find(|m| m.as_str() != "lm_head" && !m.contains("embed_tokens"))
            {
                return Err(q.unsupported(key, &format!("\"{other}\" to stay a float matrix")));
            }
            if !modules.iter().any(|m| m == "lm_head") {
                return Err(q
                    .unsupported(key, "a ternary lm_head (it does not name it)")
                    .hint("Where the head is a float matrix, add \"lm_head\" to the list."));
            }
        }
        let inner_norm_eps = match q.flag("use_rms_norm")? {
            Some(true) => Some(q.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32),
            _ => None,
        };
        Ok(Some(Quantization { inverse_scale, online, inner_norm_eps }))
    }

    /// Checks what the 1bitLLM configurations state beside the usual.
    ///
    /// # Errors
    /// If weights or activations have another width than BitNet b1.58's.
    pub fn check_bits(&self) -> Result<()> {
        for (key, expected) in [("weight_bits", 1), ("input_bits", 8)] {
            match self.count(key)? {
                None => {}
                Some(n) if n == expected => {}
                Some(n) => {
                    return Err(self.error(format!("{}: expected {expected}, found {n}", self.key(key))));
                }
            }
        }
        Ok(())
    }

    /// All hyperparameters.
    ///
    /// `linear` and `inner_norm_eps` follow from the family and the quantization; `bos` and `eos`
    /// are left empty.
    ///
    /// # Errors
    /// If a key is missing, contradictory, or asks for what is not supported.
    pub fn model(
        &self,
        family: &Family,
        linear: LinearKind,
        inner_norm_eps: Option<f32>,
    ) -> Result<ModelConfig> {
        self.refuse_unsupported(family)?;
        let hidden = self.need_count("hidden_size")?;
        let heads = self.need_count("num_attention_heads")?;
        let kv_heads = self.need_count("num_key_value_heads")?;
        let head_dim = match self.count("head_dim")? {
            Some(n) => n,
            // Only where the architecture defines it so; Qwen3 and Gemma 3 have other defaults.
            None if !family.qk_norm && hidden.is_multiple_of(heads) => hidden / heads,
            None if !family.qk_norm => {
                return Err(self.error(format!(
                    "{} is {hidden}, which is no multiple of the {heads} heads, and {} does not tell their width",
                    self.key("hidden_size"),
                    self.key("head_dim")
                )));
            }
            None => return Err(self.missing("head_dim")),
        };
        let layers = self.need_count("num_hidden_layers")?;
        let norm_eps = self.need("rms_norm_eps", self.positive("rms_norm_eps"))? as f32;
        let (rope_theta, gemma) = if family.gemma { self.gemma(layers)? } else { (self.rope(self)?, None) };
        let model = ModelConfig {
            vocab: self.need_count("vocab_size")?,
            hidden,
            ffn: self.need_count("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            context: self.need_count("max_position_embeddings")?,
            rope_theta,
            norm_eps,
            activation: self.activation()?,
            tied: match self.flag("tie_word_embeddings")? {
                Some(tied) => tied,
                // transformers leaves a key out where it has the default of the class.
                None if family.gemma => true,
                None => return Err(self.missing("tie_word_embeddings")),
            },
            linear,
            sub_norms: family.sub_norms.is_some(),
            inner_norm_eps,
            qk_norm: family.qk_norm,
            gemma,
            bos: None,
            eos: vec![],
        };
        model.check(|field| self.key(key_of(field))).map_err(|e| self.error(e))?;
        Ok(model)
    }

    fn refuse_unsupported(&self, family: &Family) -> Result<()> {
        for (key, what) in [
            ("attention_bias", "biases"),
            ("mlp_bias", "biases"),
            ("rope_interleaved", "interleaved rotary pairs"),
            ("parallel_attn", "parallel attention"),
            ("use_sliding_window", "a sliding window"),
            ("use_bidirectional_attention", "bidirectional attention"),
        ] {
            if self.flag(key)? == Some(true) {
                return Err(self.unsupported(key, what));
            }
        }
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if self.get(key).is_some() {
                return Err(self.unsupported(key, "soft caps"));
            }
        }
        if self.positive("partial_rotary_factor")?.is_some_and(|f| f != 1.0) {
            return Err(self.unsupported("partial_rotary_factor", "a partial rotary embedding"));
        }
        let kinds: Option<Vec<&str>> = self.typed("layer_types", "a list of texts")?;
        if !family.gemma && kinds.is_some_and(|k| k.iter().any(|k| *k != "full_attention")) {
            return Err(self.unsupported("layer_types", "layers without full attention"));
        }
        Ok(())
    }

    fn activation(&self) -> Result<Activation> {
        let keys = ["hidden_act", "hidden_activation"];
        let [act, activation] = [self.text(keys[0])?, self.text(keys[1])?];
        if let (Some(a), Some(b)) = (act, activation)
            && a != b
        {
            return Err(self.error(format!("\"hidden_act\" ({a}) contradicts \"hidden_activation\" ({b})")));
        }
        match act.or(activation) {
            Some("relu2") => Ok(Activation::Relu2),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(self.unsupported(keys[0], &format!("\"{other}\""))),
            None => Err(self.missing(keys[0])),
        }
    }

    /// Base of the rotary embedding from `rope_theta` and `rope_scaling` of `self` (old), or from
    /// `rope_parameters` of `holder` (new); several may state it and must then agree.
    fn rope(&self, holder: &Json) -> Result<f64> {
        let old = self.positive("rope_theta")?;
        let mut found = old.map(|theta| ("rope_theta", theta));
        let objects = [
            ("rope_scaling.rope_theta", self.object("rope_scaling")?),
            ("rope_parameters.rope_theta", holder.object("rope_parameters")?),
        ];
        for (key, parameters) in objects {
            let Some(theta) = parameters.map(|p| p.rope_parameters()).transpose()?.flatten() else {
                continue;
            };
            match found {
                Some((known, a)) if a != theta => {
                    return Err(self.error(format!("\"{known}\" ({a}) contradicts \"{key}\" ({theta})")));
                }
                _ => found = Some((key, theta)),
            }
        }
        let missing = || self.error("\"rope_theta\" (or \"rope_parameters.rope_theta\") is missing");
        found.map(|(_, theta)| theta).ok_or_else(missing)
    }

    fn rope_parameters(&self) -> Result<Option<f64>> {
        self.only_default_rope("type")?;
        self.only_default_rope("rope_type")?;
        if self.positive("partial_rotary_factor")?.is_some_and(|f| f != 1.0) {
            return Err(self.unsupported("partial_rotary_factor", "a partial rotary embedding"));
        }
        self.positive("rope_theta")
    }

    fn only_default_rope(&self, key: &str) -> Result<()> {
        match self.text(key)? {
            None | Some("default") => Ok(()),
            Some(other) => Err(self.unsupported(key, &format!("rotary embedding of type \"{other}\""))),
        }
    }

    /// Base of the rotary embedding in full layers, and what only Gemma 3 states.
    fn gemma(&self, layers: usize) -> Result<(f64, Option<Gemma>)> {
        let (rope_theta, local_rope_theta) = match self.object("rope_parameters")? {
            Some(both) => {
                let one = |key: &str| {
                    let inner = both.need(key, both.object(key))?;
                    inner.need("rope_theta", inner.rope_parameters())
                };
                (one("full_attention")?, one("sliding_attention")?)
            }
            None => {
                let key = "rope_local_base_freq";
                (self.rope(self)?, self.need(key, self.positive(key))?)
            }
        };
        let windowed: Vec<bool> = match self.typed::<Vec<&str>>("layer_types", "a list of texts")? {
            Some(kinds) => kinds
                .iter()
                .map(|kind| match *kind {
                    "sliding_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => Err(self.unsupported("layer_types", &format!("\"{other}\""))),
                })
                .collect::<Result<_>>()?,
            None => {
                // Every n-th layer sees everything.
                let key = "sliding_window_pattern";
                let n = self.need_count(key)?;
                (1..=layers.min(1 << 16)).map(|i| !i.is_multiple_of(n)).collect()
            }
        };
        let key = "query_pre_attn_scalar";
        let gemma = Gemma {
            query_pre_attn_scalar: self.need(key, self.positive(key))?,
            local_rope_theta,
            window: self.need_count("sliding_window")?,
            windowed,
        };
        Ok((rope_theta, Some(gemma)))
    }

    /// `bos_token_id`.
    ///
    /// # Errors
    /// If it is no token of a vocabulary of that size.
    pub fn bos(&self, vocab: usize) -> Result<Option<u32>> {
        Ok(self.tokens("bos_token_id", vocab)?.first().copied())
    }

    /// `eos_token_id`: one, several, or none.
    ///
    /// # Errors
    /// If one is no token of a vocabulary of that size.
    pub fn eos(&self, vocab: usize) -> Result<Vec<u32>> {
        self.tokens("eos_token_id", vocab)
    }

    fn tokens(&self, key: &str, vocab: usize) -> Result<Vec<u32>> {
        let expected = "a token id";
        let ids: Vec<u64> = match self.get(key) {
            None => vec![],
            Some(Value::Array(_)) => self.typed(key, "a list of token ids")?.unwrap_or_default(),
            Some(_) => self.typed(key, expected)?.into_iter().collect(),
        };
        ids.into_iter()
            .map(|id| match u32::try_from(id) {
                Ok(small) if id < vocab as u64 => Ok(small),
                _ => Err(self.error(format!("{}: {id} is outside the vocabulary of {vocab}", self.key(key)))),
            })
            .collect()
    }

    /// The tensors of an index file, and the file that each should be in.
    ///
    /// # Errors
    /// If `weight_map` is missing or maps to something else than texts.
    pub fn weight_map(&self) -> Result<BTreeMap<String, String>> {
        let key = "weight_map";
        self.need(key, self.typed(key, "an object that maps tensors to files"))
    }

    /// `rms_norm_eps`, for the norms inside linears where nothing else is stated.
    ///
    /// # Errors
    /// If it is no positive number.
    pub fn norm_eps(&self) -> Result<Option<f32>> {
        Ok(self.positive("rms_norm_eps")?.map(|eps| eps as f32))
    }

    /// Whether we wrote the checkpoint from a model that was made ternary after training.
    pub fn was_post_training(&self) -> bool {
        self.get("tritmark").is_some_and(|origin| origin["post_training"] == true)
    }

    /// What we wrote of the source, if we wrote the checkpoint, and what only this file says.
    ///
    /// # Errors
    /// If a token is outside a vocabulary of that size.
    pub fn kept(&self, vocab: usize) -> Result<Kept> {
        let ours = self.get("tritmark").and_then(|ours| ours.get("kept")).map(Kept::deserialize).transpose();
        let damaged =
            |e| self.error(format!("what \"tritmark\" says of the source (\"kept\") is damaged: {e}"));
        let mut kept = ours.map_err(damaged)?.unwrap_or_default();
        kept.bos = self.bos(vocab)?;
        let idle = ["pad_token_id", "initializer_range"];
        kept.config =
            idle.iter().filter_map(|key| Some(((*key).to_owned(), self.get(key)?.clone()))).collect();
        let key = "modules_to_not_convert";
        let modules = self.object("quantization_config")?.map(|q| q.typed(key, "a list of texts"));
        kept.not_converted = modules.transpose()?.flatten();
        Ok(kept)
    }

    /// The object itself.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }
}
