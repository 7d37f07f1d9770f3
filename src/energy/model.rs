//! Arithmetic energy from operation counts: a model of the arithmetic alone, after the technical
//! report of BitNet b1.58 2B4T (arXiv 2504.12285, appendix). No memory, no leakage, no measurement.

use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::record::ModelledEnergy;

/// Tokens of the pass that is counted, as in the report.
const TOKENS: f64 = 512.0;

/// Picojoules of one operation in one process (Horowitz, ISSCC 2014, for 45 nm; Zhang et al.,
/// "PokeBNN", for 7 nm).
struct Process {
    f16_add: f64,
    f16_mul: f64,
    int8_add: f64,
}

const NM7: Process = Process { f16_add: 0.16, f16_mul: 0.34, int8_add: 0.007 };
const NM45: Process = Process { f16_add: 0.4, f16_mul: 1.1, int8_add: 0.03 };

/// Arithmetic energy of a token, mean over a pass of 512: each weight of the blocks' matrices costs
/// an int8 addition if ternary and an f16 multiplication and addition if not; attention costs two
/// f16 multiply-adds for each pair of positions and channel of the heads.
pub fn arithmetic(config: &ModelConfig) -> ModelledEnergy {
    let of = |process| joules(process, config) / TOKENS;
    let weight = match config.linear {
        LinearKind::Ternary => "one int8 addition (ternary)",
        LinearKind::Float => "one f16 multiplication and addition",
    };
    ModelledEnergy {
        joules_per_token_7nm: of(&NM7),
        joules_per_token_45nm: of(&NM45),
        how: format!(
            "arithmetic only, mean over one pass of {TOKENS} tokens: E = S·P·e + L·2·S²·H·D·m with S = {TOKENS}, \
             P = {} linear weights at e = {weight}, L = {} layers, H = {} heads of D = {}, \
             m = f16 multiplication and addition; 7 nm: f16 add {} mul {}, int8 add {} pJ; \
             45 nm: {}, {}, {} pJ",
            config.linear_params(),
            config.layers,
            config.heads,
            config.head_dim,
            NM7.f16_add,
            NM7.f16_mul,
            NM7.int8_add,
            NM45.f16_add,
            NM45.f16_mul,
            NM45.int8_add,
        ),
    }
}

/// Joules of the whole pass.
fn joules(process: &Process, config: &ModelConfig) -> f64 {
    pass(
        process,
        config.linear,
        config.layers as f64,
        config.linear_params() as f64,
        (config.heads * config.head_dim) as f64,
    )
}

fn pass(process: &Process, linear: LinearKind, layers: f64, weights: f64, channels: f64) -> f64 {
    let multiply_add = process.f16_mul + process.f16_add;
    let weight = match linear {
        LinearKind::Ternary => process.int8_add,
        LinearKind::Float => multiply_add,
    };
    let picojoules = TOKENS * weights * weight + layers * 2.0 * TOKENS * TOKENS * channels * multiply_add;
    picojoules * 1e-12
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::Activation;

    #[test]
    fn the_published_figures_come_out() {
        use LinearKind::{Float, Ternary};
        // Name, linear kind, layers, linear weights in 10⁹, heads, head width, published joules.
        let table = [
            ("LLaMA 3.2 1B", Float, 16.0, 0.973, 32.0, 64.0, 0.258),
            ("Gemma-3 1B", Float, 26.0, 0.698, 4.0, 256.0, 0.186),
            ("Qwen2.5 1.5B", Float, 28.0, 1.310, 12.0, 128.0, 0.347),
            ("SmolLM2 1.7B", Float, 24.0, 1.611, 32.0, 64.0, 0.425),
            ("MiniCPM 2B", Float, 40.0, 2.442, 36.0, 64.0, 0.649),
            ("BitNet b1.58 2B4T", Ternary, 30.0, 2.084, 20.0, 128.0, 0.028),
        ];
        for (name, linear, layers, billions, heads, width, published) in table {
            let joules = pass(&NM7, linear, layers, billions * 1e9, heads * width);
            // The report prints three decimals.
            assert_eq!(format!("{joules:.3}"), format!("{published:.3}"), "{name}");
        }
    }

    #[test]
    fn a_configuration_of_the_2b4t_shape_gives_the_published_figure() {
        let config = ModelConfig {
            vocab: 128_256,
            hidden: 2560,
            ffn: 6912,
            layers: 30,
            heads: 20,
            kv_heads: 5,
            head_dim: 128,
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
            bos: None,
            eos: Vec::new(),
        };
        let energy = arithmetic(&config);
        assert_eq!(format!("{:.3}", energy.joules_per_token_7nm * 512.0), "0.028");
        // By hand: 512 · 2 083 522 560 · 0.03 pJ + 30 · 2 · 512² · 2560 · 1.5 pJ = 92.4 mJ.
        assert_eq!(format!("{:.4}", energy.joules_per_token_45nm * 512.0), "0.0924");
    }
}
