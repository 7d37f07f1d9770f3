//! The candle oracle: the same checkpoint in f32, without packing, without our kernels.
//!
//! Weights are `trits · scale` (or the floats of a full-precision model) as f32 tensors, and the
//! forward pass is written in candle's operations after the definition of the architectures in
//! Hugging Face transformers. It shares nothing with [`model`](crate::model) but the checkpoint.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{Activation, Gemma, LinearKind, ModelConfig};
use crate::checkpoint::role::{LayerRole, Linear, Role};
use crate::error::{Error, Result};
use candle_core::{D, DType, Device, Tensor};

/// What the reference does with the inputs of ternary matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationMode {
    /// int8 per-token absmax quantisation, as in training: differences come from float order only.
    Int8,
    /// Full precision: shows what activation quantisation costs.
    Full,
}

/// A model in candle tensors.
pub struct Reference {
    config: ModelConfig,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    /// The head, transposed: `[hidden, vocab]`.
    head: Tensor,
}

struct Norm {
    weight: Tensor,
    eps: f64,
}

struct Matrix {
    /// Transposed: `[in, out]`.
    weight: Tensor,
    norm: Option<Norm>,
    quantise: bool,
}

struct Block {
    attn_norm: Norm,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    attn_sub_norm: Option<Norm>,
    post_attn_norm: Option<Norm>,
    ffn_norm: Norm,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    ffn_sub_norm: Option<Norm>,
    post_ffn_norm: Option<Norm>,
    theta: f64,
    /// Positions that a query sees, its own included.
    window: usize,
}

fn bug(e: candle_core::Error) -> Error {
    Error::Bug(format!("candle: {e}"))
}

/// Reads tensors of one checkpoint as candle ones.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    mode: ActivationMode,
}

impl Loader<'_> {
    fn float(&self, role: Role) -> Result<Tensor> {
        let tensor = self.checkpoint.float(role)?;
        Tensor::from_vec(tensor.to_f32(), tensor.shape, &Device::Cpu).map_err(bug)
    }

    fn norm(&self, role: Role, eps: f32) -> Result<Norm> {
        Ok(Norm { weight: self.float(role)?, eps: eps.into() })
    }

    fn matrix(&self, layer: usize, linear: Linear) -> Result<Matrix> {
        let config = &self.checkpoint.config;
        let role = Role::Layer(layer, LayerRole::Linear(linear));
        let ternary = config.linear == LinearKind::Ternary;
        let weight = if ternary {
            let found = self.checkpoint.ternary(role)?;
            let weights = found.trits.as_slice().iter().map(|&t| f32::from(t) * found.scale).collect();
            Tensor::from_vec(weights, (found.trits.rows(), found.trits.cols()), &Device::Cpu).map_err(bug)?
        } else {
            self.float(role)?
        };
        let norm = config
            .inner_norm_eps
            .map(|eps| self.norm(Role::Layer(layer, LayerRole::InnerNorm(linear)), eps))
            .transpose()?;
        let quantise = ternary && self.mode == ActivationMode::Int8;
        Ok(Matrix { weight: weight.t().map_err(bug)?, norm, quantise })
    }

    fn block(&self, layer: usize) -> Result<Block> {
        let config = &self.checkpoint.config;
        let norm = |role| self.norm(Role::Layer(layer, role), config.norm_eps);
        let norm_if = |has: bool, role| has.then(|| norm(role)).transpose();
        let matrix = |linear| self.matrix(layer, linear);
        let gemma = config.gemma.as_ref();
        let (theta, window) = match gemma {
            Some(g) if g.windowed[layer] => (g.local_rope_theta, g.window),
            _ => (config.rope_theta, usize::MAX),
        };
        Ok(Block {
            attn_norm: norm(LayerRole::AttnNorm)?,
            q: matrix(Linear::Q)?,
            k: matrix(Linear::K)?,
            v: matrix(Linear::V)?,
            o: matrix(Linear::O)?,
            q_norm: norm_if(config.qk_norm, LayerRole::QNorm)?,
            k_norm: norm_if(config.qk_norm, LayerRole::KNorm)?,
            attn_sub_norm: norm_if(config.sub_norms, LayerRole::AttnSubNorm)?,
            post_attn_norm: norm_if(gemma.is_some(), LayerRole::PostAttnNorm)?,
            ffn_norm: norm(LayerRole::FfnNorm)?,
            gate: matrix(Linear::Gate)?,
            up: matrix(Linear::Up)?,
            down: matrix(Linear::Down)?,
            ffn_sub_norm: norm_if(config.sub_norms, LayerRole::FfnSubNorm)?,
            post_ffn_norm: norm_if(gemma.is_some(), LayerRole::PostFfnNorm)?,
            theta,
            window,
        })
    }
}

impl Reference {
    /// Loads all weights as f32. `mode` has no effect on a full-precision model.
    ///
    /// # Errors
    /// If a tensor is missing or damaged.
    pub fn load(checkpoint: &Checkpoint, mode: ActivationMode) -> Result<Self> {
        let loader = Loader { checkpoint, mode };
        let config = checkpoint.config.clone();
        let embedding = loader.float(Role::TokenEmbedding)?;
        let head = if config.tied { embedding.clone() } else { loader.float(Role::Head)? };
        Ok(Self {
            embedding,
            blocks: (0..config.layers).map(|layer| loader.block(layer)).collect::<Result<_>>()?,
            norm: loader.norm(Role::OutputNorm, config.norm_eps)?,
            head: head.t().map_err(bug)?,
            config,
        })
    }

    /// Logits `[ids.len(), vocab]` of a text from its first position.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or there are more than the model's context holds.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.logits_batch(&[ids])
    }

    /// Logits `[texts, ids, vocab]` of texts of equal length.
    ///
    /// # Errors
    /// As [`logits`](Self::logits); or if the texts differ in length.
    pub fn logits_batch(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let hidden = self.checked(texts)?;
        let logits = hidden.and_then(|h| h.matmul(&self.head)?.flatten_all()?.to_vec1());
        logits.map_err(bug)
    }

    /// Logits `[vocab]` of the last position.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn last_logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let hidden = self.checked(&[ids])?.and_then(|h| h.narrow(D::Minus2, ids.len() - 1, 1)?.contiguous());
        let logits = hidden.and_then(|h| h.matmul(&self.head)?.flatten_all()?.to_vec1());
        logits.map_err(bug)
    }

    /// Hidden states after the final norm, `[ids.len(), hidden]`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn hidden(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.checked(&[ids])?.and_then(|h| h.flatten_all()?.to_vec1()).map_err(bug)
    }

    fn checked(&self, texts: &[&[u32]]) -> Result<candle_core::Result<Tensor>> {
        let ModelConfig { vocab, context, .. } = self.config;
        let len = texts.first().map_or(0, |ids| ids.len());
        if len == 0 || texts.iter().any(|ids| ids.len() != len) {
            return Err(Error::Usage("the reference needs texts of one length, and a token at least".into()));
        }
        if len > context {
            return Err(Error::Usage(format!("{len} tokens are more than the model's context of {context}")));
        }
        if let Some(id) = texts.iter().copied().flatten().find(|id| **id as usize >= vocab) {
            return Err(Error::Usage(format!("token {id} is not in the vocabulary of {vocab}")));
        }
        Ok(self.forward(texts, len))
    }

    /// Hidden states after the final norm, `[texts * len, hidden]`.
    fn forward(&self, texts: &[&[u32]], len: usize) -> candle_core::Result<Tensor> {
        let config = &self.config;
        let ids = Tensor::from_vec(texts.concat(), texts.len() * len, &Device::Cpu)?;
        let mut x = self.embedding.index_select(&ids, 0)?;
        if config.gemma.is_some() {
            x = x.affine((config.hidden as f64).sqrt(), 0.0)?;
        }
        for block in &self.blocks {
            x = block.forward(&x, config, texts.len(), len)?;
        }
        self.norm.forward(&x)
    }
}

impl Block {
    /// `x` is `[texts * len, hidden]`, and so is the result.
    fn forward(
        &self,
        x: &Tensor,
        config: &ModelConfig,
        texts: usize,
        len: usize,
    ) -> candle_core::Result<Tensor> {
        let a = self.attention(&self.attn_norm.forward(x)?, config, texts, len)?;
        let x = (x + optional(&self.post_attn_norm, a)?)?;

        let h = self.ffn_norm.forward(&x)?;
        let gate = self.gate.forward(&h)?;
        let gate = match config.activation {
            Activation::Relu2 => gate.relu()?.sqr()?,
            Activation::Silu => gate.silu()?,
            Activation::GeluTanh => gate.gelu()?,
        };
        let h = optional(&self.ffn_sub_norm, (gate * self.up.forward(&h)?)?)?;
        let h = optional(&self.post_ffn_norm, self.down.forward(&h)?)?;
        x + h
    }

    fn attention(
        &self,
        x: &Tensor,
        config: &ModelConfig,
        texts: usize,
        len: usize,
    ) -> candle_core::Result<Tensor> {
        let ModelConfig { heads, kv_heads, head_dim, .. } = *config;
        // [texts * len, n * head_dim] to [texts, n, len, head_dim], normed where the model does.
        let split = |x: Tensor, n: usize, norm: &Option<Norm>| {
            let x = optional(norm, x.reshape((texts, len, n, head_dim))?)?;
            x.transpose(1, 2)?.contiguous()
        };
        let q = rope(&split(self.q.forward(x)?, heads, &self.q_norm)?, self.theta)?;
        let k = rope(&split(self.k.forward(x)?, kv_heads, &self.k_norm)?, self.theta)?;
        let v = split(self.v.forward(x)?, kv_heads, &None)?;
        // Query head h reads key head h / (heads / kv_heads).
        let spread = |x: Tensor| {
            let shape = (texts, kv_heads, heads / kv_heads, len, head_dim);
            x.unsqueeze(2)?.broadcast_as(shape)?.contiguous()?.reshape((texts, heads, len, head_dim))
        };
        let (k, v) = (spread(k)?, spread(v)?);
        let divisor = config.gemma.as_ref().map_or(head_dim as f64, |g: &Gemma| g.query_pre_attn_scalar);
        let scores = q.matmul(&k.t()?)?.affine(1.0 / divisor.sqrt(), 0.0)?;
        let scores = scores.broadcast_add(&self.mask(len)?)?;
        let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let out = weights.matmul(&v)?.transpose(1, 2)?.reshape((texts * len, heads * head_dim))?;
        self.o.forward(&optional(&self.attn_sub_norm, out)?)
    }

    /// 0 where a query sees a key, else minus infinity: `[len, len]`.
    fn mask(&self, len: usize) -> candle_core::Result<Tensor> {
        let sees = |query: usize, key: usize| key <= query && query - key < self.window;
        let value = |i: usize| if sees(i / len, i % len) { 0f32 } else { f32::NEG_INFINITY };
        Tensor::from_vec((0..len * len).map(value).collect(), (len, len), &Device::Cpu)
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&mean.affine(1.0, self.eps)?.sqrt()?)?;
        x.broadcast_mul(&self.weight)
    }
}

fn optional(norm: &Option<Norm>, x: Tensor) -> candle_core::Result<Tensor> {
    norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
}

impl Matrix {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = optional(&self.norm, x.clone())?;
        let x = if self.quantise { fake_quantise(&x)? } else { x };
        x.matmul(&self.weight)
    }
}

/// What int8 activations stand for: `round(x·s) / s` with `s = 127 / max(|x|)` of each token,
/// rounded half to even.
fn fake_quantise(x: &Tensor) -> candle_core::Result<Tensor> {
    /// Added to and taken from an f32 below 2^22, it rounds to the nearest integer, ties to even.
    const ROUND: f64 = 12_582_912.0;
    let absmax = x.abs()?.max_keepdim(D::Minus1)?.clamp(1e-5f32, f32::MAX)?;
    let s = (absmax.ones_like()? * 127.0)?.div(&absmax)?;
    let rounded = x.broadcast_mul(&s)?.affine(1.0, ROUND)?.affine(1.0, -ROUND)?;
    rounded.clamp(-128f32, 127f32)?.broadcast_div(&s)
}

/// Rotary embedding of pairs `(i, i + head_dim / 2)` of `[texts, heads, len, head_dim]`.
fn rope(x: &Tensor, theta: f64) -> candle_core::Result<Tensor> {
    let (_, _, len, head_dim) = x.dims4()?;
    let half = head_dim / 2;
    let inv_freq = |i: usize| 1.0 / (theta as f32).powf(2.0 * i as f32 / head_dim as f32);
    let angles = (0..len * half).map(|i| (i / half) as f32 * inv_freq(i % half)).collect();
    let angles = Tensor::from_vec(angles, (len, half), x.device())?.to_dtype(DType::F32)?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_round_half_to_even_and_per_token() {
        // The first token has s = 1; the second is all zero, where s is capped.
        let x = Tensor::new(&[[127f32, 0.5, 1.5, -2.5], [0., 0., 0., 0.]], &Device::Cpu).unwrap();
        let y: Vec<Vec<f32>> = fake_quantise(&x).unwrap().to_vec2().unwrap();
        assert_eq!(y, [[127., 0., 2., -2.], [0.; 4]]);
    }

    #[test]
    fn rope_turns_pairs_half_a_head_apart() {
        let x = Tensor::new(&[[[[0f32, 0., 0., 0.], [1., 0., 0., 1.]]]], &Device::Cpu).unwrap();
        let y: Vec<f32> = rope(&x, 100.0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        // At position 1 the pair (0, 2) turns by 1, the pair (1, 3) by 1/10.
        let expected = [0., 0., 0., 0., 1f32.cos(), -(0.1f32.sin()), 1f32.sin(), 0.1f32.cos()];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }
}
