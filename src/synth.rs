//! Checkpoints of any shape with random trits: for sizes whose weights are not at hand.
//!
//! Speed and memory of a ternary model depend on its shape alone, so a synthetic checkpoint stands in
//! for a trained one in benchmarks. Its text is noise. The form is that of packed Hugging Face BitNet
//! checkpoints (`autobitlinear`, `offline`).

use crate::checkpoint::config::{Activation, LinearKind, ModelConfig};
use crate::checkpoint::role::Linear;
use crate::checkpoint::safetensors;
use crate::checkpoint::write::Output;
use crate::error::{Error, Result};
use half::bf16;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::path::Path;

/// Named shapes of published models: name and hyperparameters (source: their `config.json`).
pub fn preset(name: &str) -> Option<ModelConfig> {
    // (hidden, ffn, layers, heads, kv_heads, vocab)
    let (hidden, ffn, layers, heads, kv_heads, vocab) = match name {
        "tiny" => (256, 768, 2, 4, 2, 1024),
        "0.7b" => (1536, 4096, 24, 16, 16, 32002),
        "2b4t" => (2560, 6912, 30, 20, 5, 128256),
        "3b" => (3200, 8640, 26, 32, 32, 32002),
        "8b" => (4096, 14336, 32, 32, 8, 128256),
        _ => return None,
    };
    Some(ModelConfig {
        vocab,
        hidden,
        ffn,
        layers,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        context: 4096,
        rope_theta: 500_000.0,
        norm_eps: 1e-5,
        activation: Activation::Relu2,
        tied: true,
        linear: LinearKind::Ternary,
        sub_norms: true,
        inner_norm_eps: None,
        qk_norm: false,
        gemma: None,
        bos: Some(0),
        eos: vec![1],
    })
}

/// Names that [`preset`] knows.
pub const PRESETS: [&str; 5] = ["tiny", "0.7b", "2b4t", "3b", "8b"];

/// Most blocks of a model that is made.
const MAX_LAYERS: usize = 4096;

/// Writes a checkpoint directory `out` of the shape `config`, its trits drawn independently with
/// `zeros` as the share of 0 and the rest split evenly, from `seed`.
///
/// # Errors
/// If the shape does not fit the packed form, `out` exists, or writing fails.
pub fn write(config: &ModelConfig, zeros: f64, seed: u64, out: &Path) -> Result<()> {
    if !(0.0..=1.0).contains(&zeros) {
        return Err(Error::Usage(format!("the share of zeros must be between 0 and 1, found {zeros}")));
    }
    config.check(|field| format!("--{}", field.replace('_', "-"))).map_err(Error::Usage)?;
    if config.layers > MAX_LAYERS {
        return Err(Error::Usage(format!(
            "--layers: {} are more than any model has; at most {MAX_LAYERS}",
            config.layers
        )));
    }
    for linear in Linear::ALL {
        let (rows, cols) = config.linear_shape(linear);
        if rows % 4 != 0 {
            return Err(Error::Usage(format!(
                "{linear:?} would be {rows}x{cols}: the packed form needs rows that are a multiple of 4"
            )));
        }
    }
    let mut output = Output::create(out, true)?;
    let mut json = config_json(config);
    json["tritmark_synthetic"] = json!({ "zeros": zeros, "seed": seed });
    output.side("config.json", format!("{json:#}\n").as_bytes())?;
    let tensors = tensors(config, zeros, seed);
    let entries = tensors.iter().map(|(name, t)| (&name[..], t.dtype, &t.shape[..], t.bytes() as u64));
    let header = safetensors::header(Some(json!({ "format": "pt" })), entries, 0);
    let mut at = header.len() as u64;
    let file =
        output.file("model.safetensors", at + tensors.iter().map(|(_, t)| t.bytes() as u64).sum::<u64>())?;
    file.write_at(&header, 0)?;
    // One at a time, so that memory stays at one tensor.
    for (_, tensor) in &tensors {
        file.write_at(&tensor.data(), at)?;
        at += tensor.bytes() as u64;
    }
    file.finish()?;
    output.finish()
}

fn config_json(c: &ModelConfig) -> serde_json::Value {
    json!({
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "relu2",
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
        "attention_bias": false,
        "bos_token_id": c.bos,
        "eos_token_id": c.eos[0],
        "torch_dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
        },
    })
}

/// A tensor whose bytes are drawn when they are written.
struct Synthetic {
    dtype: &'static str,
    shape: Vec<usize>,
    seed: u64,
    fill: Fill,
}

enum Fill {
    /// bf16 values, all the same.
    Constant(f32),
    /// bf16 values, uniform in ± this.
    Uniform(f32),
    /// Four random trits a byte with this share of zeros.
    Trits(f64),
}

impl Synthetic {
    fn bytes(&self) -> usize {
        let size = if matches!(self.fill, Fill::Trits(_)) { 1 } else { size_of::<bf16>() };
        self.shape.iter().product::<usize>() * size
    }

    fn data(&self) -> Vec<u8> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let len = self.bytes();
        match self.fill {
            Fill::Constant(v) => bf16::from_f32(v).to_le_bytes().repeat(len / 2),
            Fill::Uniform(a) => {
                let draw = |bits: u64| (bits as u32 as f32 / u32::MAX as f32 * 2.0 - 1.0) * a;
                (0..len / 2).flat_map(|_| bf16::from_f32(draw(rng.next_u64())).to_le_bytes()).collect()
            }
            Fill::Trits(zeros) => {
                // 16 bits decide a trit: below `minus` is -1, below `plus` +1, above 0.
                let minus = ((1.0 - zeros) / 2.0 * 65536.0).round() as u64;
                let code = |draw: u64| match draw & 0xffff {
                    d if d < minus => 0,
                    d if d < 2 * minus => 2,
                    _ => 1u8,
                };
                let byte = |d: u64| code(d) | code(d >> 16) << 2 | code(d >> 32) << 4 | code(d >> 48) << 6;
                (0..len).map(|_| byte(rng.next_u64())).collect()
            }
        }
    }
}

fn tensors(c: &ModelConfig, zeros: f64, seed: u64) -> Vec<(String, Synthetic)> {
    let mut list = Vec::new();
    let mut push = |name: String, dtype, shape: Vec<usize>, fill| {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(list.len() as u64);
        list.push((name, Synthetic { dtype, shape, seed, fill }));
    };
    let norm = |width: usize| ("BF16", vec![width], Fill::Constant(1.0));
    let (d, s, f) = ("BF16", vec![c.vocab, c.hidden], Fill::Uniform(0.05));
    push("model.embed_tokens.weight".into(), d, s, f);
    for layer in 0..c.layers {
        let block = format!("model.layers.{layer}");
        let norms = [
            ("input_layernorm", c.hidden),
            ("post_attention_layernorm", c.hidden),
            ("self_attn.attn_sub_norm", c.heads * c.head_dim),
            ("mlp.ffn_sub_norm", c.ffn),
        ];
        for (name, width) in norms {
            let (d, s, f) = norm(width);
            push(format!("{block}.{name}.weight"), d, s, f);
        }
        for linear in Linear::ALL {
            let name = match linear {
                Linear::Q => "self_attn.q_proj",
                Linear::K => "self_attn.k_proj",
                Linear::V => "self_attn.v_proj",
                Linear::O => "self_attn.o_proj",
                Linear::Gate => "mlp.gate_proj",
                Linear::Up => "mlp.up_proj",
                Linear::Down => "mlp.down_proj",
            };
            let (rows, cols) = c.linear_shape(linear);
            push(format!("{block}.{name}.weight"), "U8", vec![rows / 4, cols], Fill::Trits(zeros));
            // Keeps the output's variance at the input's, so that activations neither vanish nor grow.
            let scale = 1.0 / (cols as f64 * (1.0 - zeros).max(1e-3)).sqrt() as f32;
            push(format!("{block}.{name}.weight_scale"), "BF16", vec![1], Fill::Constant(scale));
        }
    }
    let (d, s, f) = norm(c.hidden);
    push("model.norm.weight".into(), d, s, f);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_known_and_published_sizes_hold() {
        for name in PRESETS {
            assert!(preset(name).is_some(), "{name}");
        }
        // The technical report of BitNet b1.58 2B4T: 2.084 B linear weights.
        assert_eq!(preset("2b4t").expect("known").linear_params(), 2_084_044_800);
    }

    #[test]
    fn trits_have_the_asked_share_of_zeros_and_no_unused_code() {
        let t = Synthetic { dtype: "U8", shape: vec![64, 1024], seed: 7, fill: Fill::Trits(0.42) };
        let codes: Vec<u8> = t.data().iter().flat_map(|b| [0, 2, 4, 6].map(|s| b >> s & 3)).collect();
        assert!(codes.iter().all(|c| *c < 3));
        let share = |code| codes.iter().filter(|c| **c == code).count() as f64 / codes.len() as f64;
        assert!((share(1) - 0.42).abs() < 0.01, "{}", share(1));
        assert!((share(0) - share(2)).abs() < 0.01);
    }

    #[test]
    fn the_same_seed_gives_the_same_files_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = preset("tiny").expect("known");
        let read = |p: &Path| std::fs::read(p.join("model.safetensors")).expect("written");
        let [a, b, c] = ["a", "b", "c"].map(|n| dir.path().join(n));
        write(&config, 0.4, 1, &a).expect("written");
        write(&config, 0.4, 1, &b).expect("written");
        write(&config, 0.4, 2, &c).expect("written");
        assert!(read(&a) == read(&b) && read(&a) != read(&c));
        assert!(matches!(write(&config, 0.4, 1, &a), Err(Error::Usage(_))));
        let odd = ModelConfig { head_dim: 63, ..config };
        let error = write(&odd, 0.4, 1, &dir.path().join("odd")).expect_err("our reader refuses it");
        assert!(error.to_string().starts_with("--head-dim: the width of a head is 63"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 3, "no temporary left");
    }
}
