//! What a tensor is in the model, whatever it is called in a file.

use serde::Serialize;
use std::fmt;

/// The part that a tensor plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token embedding `[vocab, hidden]`; also the head where it is tied.
    TokenEmbedding,
    /// Final norm `[hidden]`.
    OutputNorm,
    /// Output head `[vocab, hidden]`, absent where tied.
    Head,
    /// A tensor of block `.0`.
    Layer(usize, LayerRole),
}

/// A tensor inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerRole {
    /// Norm before attention `[hidden]`.
    AttnNorm,
    /// A matrix `[out, in]`; ternary in a BitNet.
    Linear(Linear),
    /// Norm of the concatenated heads, before O `[heads * head_dim]`.
    AttnSubNorm,
    /// Norm before the feed-forward part `[hidden]`.
    FfnNorm,
    /// Norm of the gated product, before Down `[ffn]`.
    FfnSubNorm,
    /// Per-head norm of queries `[head_dim]` (Qwen3, Gemma 3).
    QNorm,
    /// Per-head norm of keys `[head_dim]`.
    KNorm,
    /// Norm of the attention's output before the residual (Gemma 3).
    PostAttnNorm,
    /// Norm of the feed-forward part's output before the residual (Gemma 3).
    PostFfnNorm,
    /// RMSNorm inside a BitLinear, over its input `[in]`.
    InnerNorm(Linear),
    /// The scale stored beside a ternary matrix `[1]`; comes with the matrix, already made
    /// multiplicative.
    Scale(Linear),
}

impl Role {
    /// Whether it is a matrix of a block, so ternary in a BitNet.
    pub fn is_matrix(self) -> bool {
        self.scale().is_some()
    }

    /// The scale that belongs to a matrix of a block.
    pub fn scale(self) -> Option<Role> {
        match self {
            Role::Layer(layer, LayerRole::Linear(linear)) => {
                Some(Role::Layer(layer, LayerRole::Scale(linear)))
            }
            _ => None,
        }
    }
}

/// The seven matrices of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Linear {
    /// Queries `[heads * head_dim, hidden]`.
    Q,
    /// Keys `[kv_heads * head_dim, hidden]`.
    K,
    /// Values `[kv_heads * head_dim, hidden]`.
    V,
    /// Attention output `[hidden, heads * head_dim]`.
    O,
    /// Gate `[ffn, hidden]`.
    Gate,
    /// Up `[ffn, hidden]`.
    Up,
    /// Down `[hidden, ffn]`.
    Down,
}

impl Linear {
    /// All seven, in the order of the forward pass.
    pub const ALL: [Linear; 7] =
        [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Linear::Q => "q",
            Linear::K => "k",
            Linear::V => "v",
            Linear::O => "o",
            Linear::Gate => "gate",
            Linear::Up => "up",
            Linear::Down => "down",
        })
    }
}

/// As our own files name tensors: `layers.0.q.scale`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, part) = match self {
            Role::TokenEmbedding => return f.write_str("token_embedding"),
            Role::OutputNorm => return f.write_str("output_norm"),
            Role::Head => return f.write_str("head"),
            Role::Layer(layer, part) => (layer, part),
        };
        write!(f, "layers.{layer}.")?;
        match part {
            LayerRole::AttnNorm => f.write_str("attn_norm"),
            LayerRole::AttnSubNorm => f.write_str("attn_sub_norm"),
            LayerRole::FfnNorm => f.write_str("ffn_norm"),
            LayerRole::FfnSubNorm => f.write_str("ffn_sub_norm"),
            LayerRole::QNorm => f.write_str("q_norm"),
            LayerRole::KNorm => f.write_str("k_norm"),
            LayerRole::PostAttnNorm => f.write_str("post_attn_norm"),
            LayerRole::PostFfnNorm => f.write_str("post_ffn_norm"),
            LayerRole::Linear(linear) => write!(f, "{linear}"),
            LayerRole::InnerNorm(linear) => write!(f, "{linear}.norm"),
            LayerRole::Scale(linear) => write!(f, "{linear}.scale"),
        }
    }
}
