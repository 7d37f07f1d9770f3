//! Tensor names of GGUF files and the parts they play.

use crate::checkpoint::role::{LayerRole, Linear, Role};

/// Names inside a block, without `blk.N.` before and `.weight` behind.
const BLOCK: [(LayerRole, &str); 15] = [
    (LayerRole::AttnNorm, "attn_norm"),
    (LayerRole::FfnNorm, "ffn_norm"),
    (LayerRole::AttnSubNorm, "attn_sub_norm"),
    (LayerRole::FfnSubNorm, "ffn_sub_norm"),
    (LayerRole::QNorm, "attn_q_norm"),
    (LayerRole::KNorm, "attn_k_norm"),
    (LayerRole::PostAttnNorm, "post_attention_norm"),
    (LayerRole::PostFfnNorm, "post_ffw_norm"),
    (LayerRole::Linear(Linear::Q), "attn_q"),
    (LayerRole::Linear(Linear::K), "attn_k"),
    (LayerRole::Linear(Linear::V), "attn_v"),
    (LayerRole::Linear(Linear::O), "attn_output"),
    (LayerRole::Linear(Linear::Gate), "ffn_gate"),
    (LayerRole::Linear(Linear::Up), "ffn_up"),
    (LayerRole::Linear(Linear::Down), "ffn_down"),
];

/// The name of a tensor; `None` where GGUF has none (norms inside a BitLinear).
pub fn name(role: Role) -> Option<String> {
    let block = |layer: usize, part: LayerRole, suffix: &str| {
        let (_, name) = BLOCK.iter().find(|(r, _)| *r == part)?;
        Some(format!("blk.{layer}.{name}.{suffix}"))
    };
    match role {
        Role::TokenEmbedding => Some("token_embd.weight".into()),
        Role::OutputNorm => Some("output_norm.weight".into()),
        Role::Head => Some("output.weight".into()),
        Role::Layer(layer, LayerRole::Scale(linear)) => block(layer, LayerRole::Linear(linear), "scale"),
        Role::Layer(layer, part) => block(layer, part, "weight"),
    }
}

/// The part that a name stands for.
pub fn role(name: &str) -> Option<Role> {
    match name {
        "token_embd.weight" => return Some(Role::TokenEmbedding),
        "output_norm.weight" => return Some(Role::OutputNorm),
        "output.weight" => return Some(Role::Head),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let layer = layer.parse().ok()?;
    let (part, _) = BLOCK.iter().find(|(_, n)| *n == part)?;
    match (suffix, *part) {
        ("weight", part) => Some(Role::Layer(layer, part)),
        ("scale", LayerRole::Linear(linear)) => Some(Role::Layer(layer, LayerRole::Scale(linear))),
        _ => None,
    }
}
