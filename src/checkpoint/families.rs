//! The families of models, as data.
//!
//! A family is told by what a checkpoint holds (architecture, model type, a tensor that only this
//! family has), never by a file's name. What the configuration states (sizes, activation function,
//! `quantization_config`) is not repeated here.

use super::role::{LayerRole, Linear, Role};
use super::ternarise::Recipe;

/// One family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, as printed and as taken by [`OpenOptions::family`](super::OpenOptions::family).
    pub name: &'static str,
    /// Entries of `architectures` that it goes by.
    pub architectures: &'static [&'static str],
    /// Its `model_type`.
    pub model_type: &'static str,
    /// End of a tensor name in block 0 that tells it from others of that architecture.
    pub marker: Option<&'static str>,
    /// Whether nothing in the files tells it: it must be asked for by name.
    pub on_request: bool,
    /// How its seven matrices become ternary.
    pub weights: Weights,
    /// Names of the norms before O and before Down, where it has them.
    pub sub_norms: Option<[&'static str; 2]>,
    /// End of the names of norms inside each linear, for those that have them without a
    /// `quantization_config` that says so.
    pub inner_norm: Option<&'static str>,
    /// Whether queries and keys have norms of their own.
    pub qk_norm: bool,
    /// Whether it is a Gemma 3: see [`Gemma`](super::config::Gemma). Its native norms, not those
    /// inside a linear, store the weight minus one.
    pub gemma: bool,
}

/// How a family's matrices become ternary.
#[derive(Debug, PartialEq, Eq)]
pub enum Weights {
    /// As `quantization_config` says; without one they are floats.
    Configured,
    /// They are master weights, made ternary by this recipe.
    Master(Recipe),
}

const LLAMA: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM"],
    model_type: "llama",
    marker: None,
    on_request: false,
    weights: Weights::Configured,
    sub_norms: None,
    inner_norm: None,
    qk_norm: false,
    gemma: false,
};

/// Every family. Rows of one architecture stand from the most to the least particular.
pub const ALL: &[Family] = &[
    // microsoft/bitnet-b1.58-2B-4T and its bf16 masters.
    Family {
        name: "bitnet",
        architectures: &["BitNetForCausalLM"],
        model_type: "bitnet",
        sub_norms: Some(["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]),
        ..LLAMA
    },
    // 1bitLLM/bitnet_b1_58-*: calls itself a llama, has norms of its own, and no quantization_config.
    Family {
        name: "bitnet-1bitllm",
        architectures: &["BitnetForCausalLM"],
        marker: Some("self_attn.inner_attn_ln.weight"),
        weights: Weights::Master(Recipe::AbsmeanF32),
        sub_norms: Some(["self_attn.inner_attn_ln", "mlp.ffn_layernorm"]),
        ..LLAMA
    },
    // HF1BitLLM/Llama3-8B-1.58, tiiuae/Falcon3-*-1.58bit, Falcon-E main; plain Llama.
    LLAMA,
    // Masters of a BitLinear Llama, as transformers' "online" mode reads them.
    Family { name: "llama-master", on_request: true, weights: Weights::Master(Recipe::AbsmeanF32), ..LLAMA },
    // tiiuae/Falcon-E-*, revision `prequantized`; the recipe that its packed weights come from.
    Family {
        name: "falcon-e-prequantized",
        on_request: true,
        weights: Weights::Master(Recipe::AbsmeanBf16),
        ..LLAMA
    },
    // microsoft/BitNet-embedding-0.6B.
    Family {
        name: "bitnet-embedding-qwen3",
        architectures: &["Qwen3Model", "Qwen3ForCausalLM"],
        model_type: "qwen3",
        marker: Some("self_attn.q_proj.norm.weight"),
        weights: Weights::Master(Recipe::AbsmeanF32),
        inner_norm: Some("norm"),
        qk_norm: true,
        ..LLAMA
    },
    // The same made ternary, in transformers' packed form.
    Family {
        name: "qwen3",
        architectures: &["Qwen3Model", "Qwen3ForCausalLM"],
        model_type: "qwen3",
        qk_norm: true,
        ..LLAMA
    },
    // microsoft/BitNet-embedding-270M.
    Family {
        name: "bitnet-embedding-gemma3",
        architectures: &["Gemma3TextModel", "Gemma3ForCausalLM"],
        model_type: "gemma3_text",
        marker: Some("self_attn.q_proj.norm.weight"),
        weights: Weights::Master(Recipe::AbsmeanF32),
        inner_norm: Some("norm"),
        qk_norm: true,
        gemma: true,
        ..LLAMA
    },
    // The same made ternary, in transformers' packed form.
    Family {
        name: "gemma3",
        architectures: &["Gemma3TextModel", "Gemma3ForCausalLM"],
        model_type: "gemma3_text",
        qk_norm: true,
        gemma: true,
        ..LLAMA
    },
];

/// The family of that name.
pub fn by_name(name: &str) -> Option<&'static Family> {
    ALL.iter().find(|f| f.name == name)
}

/// The family that an architecture, a model type and a test for tensor names tell.
pub fn detect(
    architecture: &str,
    model_type: &str,
    has_tensor_ending: impl Fn(&str) -> bool,
) -> Option<&'static Family> {
    ALL.iter().find(|f| {
        !f.on_request
            && f.architectures.contains(&architecture)
            && f.model_type == model_type
            && f.marker.is_none_or(|m| has_tensor_ending(&format!("layers.0.{m}")))
    })
}

/// Name of a matrix inside its block, without `.weight`.
pub fn linear_name(linear: Linear) -> &'static str {
    match linear {
        Linear::Q => "self_attn.q_proj",
        Linear::K => "self_attn.k_proj",
        Linear::V => "self_attn.v_proj",
        Linear::O => "self_attn.o_proj",
        Linear::Gate => "mlp.gate_proj",
        Linear::Up => "mlp.up_proj",
        Linear::Down => "mlp.down_proj",
    }
}

impl Family {
    /// Whether a tensor is a norm whose stored weight lacks one (Gemma).
    pub fn norm_lacks_one(&self, role: Role) -> bool {
        let matrix = |layer| matches!(layer, LayerRole::Linear(_) | LayerRole::Scale(_));
        self.gemma
            && match role {
                Role::TokenEmbedding | Role::Head => false,
                Role::OutputNorm => true,
                Role::Layer(_, LayerRole::InnerNorm(_)) => false,
                Role::Layer(_, layer) => !matrix(layer),
            }
    }

    /// Name of a tensor, after the prefix that all but the head share. `inner_norm` is the end of
    /// the names of norms inside a linear.
    ///
    /// Returns `None` for a role that the family does not have.
    pub fn tensor_name(&self, role: Role, inner_norm: Option<&str>) -> Option<String> {
        let (layer, role) = match role {
            Role::TokenEmbedding => return Some("embed_tokens.weight".into()),
            Role::OutputNorm => return Some("norm.weight".into()),
            Role::Head => return Some("lm_head.weight".into()),
            Role::Layer(layer, role) => (layer, role),
        };
        let name = match role {
            LayerRole::Linear(l) => format!("{}.weight", linear_name(l)),
            LayerRole::Scale(l) => format!("{}.weight_scale", linear_name(l)),
            LayerRole::InnerNorm(l) => format!("{}.{}.weight", linear_name(l), inner_norm?),
            LayerRole::AttnNorm => "input_layernorm.weight".into(),
            LayerRole::AttnSubNorm => format!("{}.weight", self.sub_norms?[0]),
            LayerRole::FfnSubNorm => format!("{}.weight", self.sub_norms?[1]),
            LayerRole::QNorm if self.qk_norm => "self_attn.q_norm.weight".into(),
            LayerRole::KNorm if self.qk_norm => "self_attn.k_norm.weight".into(),
            LayerRole::PostAttnNorm if self.gemma => "post_attention_layernorm.weight".into(),
            LayerRole::FfnNorm if self.gemma => "pre_feedforward_layernorm.weight".into(),
            LayerRole::PostFfnNorm if self.gemma => "post_feedforward_layernorm.weight".into(),
            LayerRole::FfnNorm => "post_attention_layernorm.weight".into(),
            LayerRole::QNorm | LayerRole::KNorm => return None,
            LayerRole::PostAttnNorm | LayerRole::PostFfnNorm => return None,
        };
        Some(format!("layers.{layer}.{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_family_can_be_reached() {
        for (i, family) in ALL.iter().enumerate() {
            assert!(ALL[i + 1..].iter().all(|f| f.name != family.name));
            assert_eq!(by_name(family.name), Some(family));
            if !family.on_request {
                let marker = family.marker.map(|m| format!("layers.0.{m}"));
                let found =
                    detect(family.architectures[0], family.model_type, |end| Some(end) == marker.as_deref());
                assert_eq!(found, Some(family));
            }
        }
    }

    #[test]
    fn old_bitnet_is_not_taken_for_a_llama() {
        assert_eq!(detect("BitnetForCausalLM", "llama", |_| false), None);
        let found = detect("BitnetForCausalLM", "llama", |end| end.ends_with("inner_attn_ln.weight"));
        assert_eq!(found.unwrap().name, "bitnet-1bitllm");
    }
}
