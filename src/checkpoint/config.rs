//! Hyperparameters of a model, complete and checked, whatever file they came from.

use super::role::{LayerRole, Linear, Role};
use serde::{Deserialize, Serialize};

/// No dimension of a model is as large; keeps products of two in range.
pub const MAX_DIMENSION: usize = 1 << 31;

/// Everything that the forward pass needs to know beside the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Tokens that have an embedding; may exceed the tokenizer's.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; not always `hidden / heads`.
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Epsilon of every norm of the model.
    pub norm_eps: f32,
    /// Activation function of the feed-forward part.
    pub activation: Activation,
    /// Whether the head is the token embedding.
    pub tied: bool,
    /// Whether the linear weights are ternary, and how.
    pub linear: LinearKind,
    /// Whether the blocks have `attn_sub_norm` and `ffn_sub_norm` (BitNet b1.58).
    pub sub_norms: bool,
    /// Epsilon of an RMSNorm inside every BitLinear, where there is one.
    pub inner_norm_eps: Option<f32>,
    /// Per-head norms of queries and keys (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// What Gemma 3 does beyond a Llama block, where the model is one.
    pub gemma: Option<Gemma>,
    /// Token put in front of a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

impl ModelConfig {
    /// What makes it another model than that of `other`, full sentences. How text becomes tokens and when generation
    /// ends is no part of what is computed.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |config: &Self| {
            let value = serde_json::to_value(config).unwrap_or_default();
            let mut fields = value.as_object().cloned().unwrap_or_default();
            fields.retain(|key, _| !["bos", "eos"].contains(&key.as_str()));
            fields
        };
        let other = fields(other);
        let differ = fields(self).into_iter().filter(|(key, value)| other.get(key) != Some(value));
        differ
            .map(|(key, value)| {
                format!(
                    "The configurations differ in {key}: {value} and {}.",
                    other.get(&key).unwrap_or_default()
                )
            })
            .collect()
    }
}

/// What Gemma 3 does beyond a Llama block: embeddings times `sqrt(hidden)`, norms after attention
/// and feed-forward, its own attention scale, and layers that see a window only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gemma {
    /// Attention scores are divided by the root of this, not of `head_dim`.
    pub query_pre_attn_scalar: f64,
    /// Base of the rotary embedding in windowed layers; [`ModelConfig::rope_theta`] elsewhere.
    pub local_rope_theta: f64,
    /// Positions that a windowed layer sees, its own included.
    pub window: usize,
    /// For each layer, whether it is a windowed one.
    pub windowed: Vec<bool>,
}

/// Activation function of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `relu(x)²`
    Relu2,
    /// `x · sigmoid(x)`
    Silu,
    /// `gelu(x)`, tanh form.
    GeluTanh,
}

/// What the seven matrices of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LinearKind {
    /// BitLinear: ternary weights, int8 activations.
    Ternary,
    /// Plain floats: a full-precision model.
    Float,
}

impl ModelConfig {
    /// Proves that a model can have these hyperparameters; the message calls a field what `key` calls it.
    ///
    /// # Errors
    /// If a field is out of range or contradicts another.
    pub fn check(&self, key: impl Fn(&str) -> String) -> Result<(), String> {
        let gemma = self.gemma.as_ref();
        for (field, n) in [
            ("vocab", self.vocab),
            ("hidden", self.hidden),
            ("ffn", self.ffn),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("context", self.context),
            ("gemma.window", gemma.map_or(1, |g| g.window)),
        ] {
            if !(1..MAX_DIMENSION).contains(&n) {
                return Err(format!("{}: expected 1 to {}, found {n}", key(field), MAX_DIMENSION - 1));
            }
        }
        for (field, x) in [
            ("norm_eps", self.norm_eps.into()),
            ("inner_norm_eps", self.inner_norm_eps.unwrap_or(1.0).into()),
            ("gemma.query_pre_attn_scalar", gemma.map_or(1.0, |g| g.query_pre_attn_scalar)),
        ] {
            if !(x > 0.0 && x.is_finite()) {
                return Err(format!("{}: expected a positive number, found {x}", key(field)));
            }
        }
        // Below 1 frequencies grow without end.
        let local = gemma.map_or(1.0, |g| g.local_rope_theta);
        for (field, x) in [("rope_theta", self.rope_theta), ("gemma.local_rope_theta", local)] {
            if !(1.0..f64::from(f32::MAX)).contains(&x) {
                return Err(format!("{}: expected a number of at least 1, found {x}", key(field)));
            }
        }
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        if !heads.is_multiple_of(kv_heads) {
            let (many, few) = (key("heads"), key("kv_heads"));
            return Err(format!("{many} ({heads}) is not a multiple of {few} ({kv_heads})"));
        }
        if !head_dim.is_multiple_of(2) {
            let name = key("head_dim");
            return Err(format!(
                "{name}: the width of a head is {head_dim}; rotary embedding needs an even one"
            ));
        }
        if heads.checked_mul(head_dim).is_none_or(|n| n >= MAX_DIMENSION) {
            let name = key("head_dim");
            return Err(format!("{name}: {heads} heads of width {head_dim} are out of range"));
        }
        let block = Linear::ALL.map(|l| self.linear_shape(l)).map(|(o, i)| o as u128 * i as u128);
        if block.iter().sum::<u128>() * self.layers as u128 > u64::MAX.into() {
            return Err(format!("{}: the weights of {} blocks are out of range", key("layers"), self.layers));
        }
        if let Some(n) = gemma.map(|g| g.windowed.len()).filter(|&n| n != self.layers) {
            return Err(format!("{} has {n} entries for {} layers", key("gemma.windowed"), self.layers));
        }
        let tokens = self.eos.iter().map(|id| ("eos", id)).chain(self.bos.iter().map(|id| ("bos", id)));
        for (field, id) in tokens {
            if *id as usize >= self.vocab {
                return Err(format!("{}: {id} is outside the vocabulary of {}", key(field), self.vocab));
            }
        }
        Ok(())
    }

    /// Shape `[out, in]` of one of the seven matrices.
    pub fn linear_shape(&self, linear: Linear) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            Linear::Q => (q, self.hidden),
            Linear::K | Linear::V => (kv, self.hidden),
            Linear::O => (self.hidden, q),
            Linear::Gate | Linear::Up => (self.ffn, self.hidden),
            Linear::Down => (self.hidden, self.ffn),
        }
    }

    /// Number of linear weights over all blocks (the ternary ones of a BitNet).
    pub fn linear_params(&self) -> u64 {
        let block: usize = Linear::ALL.iter().map(|&l| self.linear_shape(l)).map(|(o, i)| o * i).sum();
        block as u64 * self.layers as u64
    }

    /// The linear weights of all blocks, in the order of the forward pass.
    pub fn linear_roles(&self) -> impl Iterator<Item = Role> + use<> {
        (0..self.layers)
            .flat_map(|layer| Linear::ALL.map(move |linear| Role::Layer(layer, LayerRole::Linear(linear))))
    }

    /// Every tensor that the model must have, in the order in which files are written.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::TokenEmbedding, Role::OutputNorm];
        if !self.tied {
            roles.push(Role::Head);
        }
        let mut block = vec![LayerRole::AttnNorm, LayerRole::FfnNorm];
        if self.sub_norms {
            block.extend([LayerRole::AttnSubNorm, LayerRole::FfnSubNorm]);
        }
        if self.qk_norm {
            block.extend([LayerRole::QNorm, LayerRole::KNorm]);
        }
        if self.gemma.is_some() {
            block.extend([LayerRole::PostAttnNorm, LayerRole::PostFfnNorm]);
        }
        if self.inner_norm_eps.is_some() {
            block.extend(Linear::ALL.map(LayerRole::InnerNorm));
        }
        block.extend(Linear::ALL.map(LayerRole::Linear));
        roles.extend((0..self.layers).flat_map(|layer| block.iter().map(move |&r| Role::Layer(layer, r))));
        roles
    }

    /// Shape of a tensor, outputs first.
    pub fn shape(&self, role: Role) -> Vec<usize> {
        match role {
            Role::TokenEmbedding | Role::Head => vec![self.vocab, self.hidden],
            Role::OutputNorm => vec![self.hidden],
            Role::Layer(_, part) => match part {
                LayerRole::Linear(linear) => {
                    let (rows, cols) = self.linear_shape(linear);
                    vec![rows, cols]
                }
                LayerRole::InnerNorm(linear) => vec![self.linear_shape(linear).1],
                LayerRole::AttnSubNorm => vec![self.heads * self.head_dim],
                LayerRole::FfnSubNorm => vec![self.ffn],
                LayerRole::QNorm | LayerRole::KNorm => vec![self.head_dim],
                LayerRole::AttnNorm
                | LayerRole::FfnNorm
                | LayerRole::PostAttnNorm
                | LayerRole::PostFfnNorm => vec![self.hidden],
                LayerRole::Scale(_) => vec![1],
            },
        }
    }
}
