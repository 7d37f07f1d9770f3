//! What other programs do with a GGUF file: which load it, and which compute the right thing from it.
//!
//! The tables say what was seen when each program ran; what was not tried is not claimed.
//!
//! llama.cpp (commit 0c1e57098, in llama-cpp-python 0.3.36) and ik_llama.cpp (in ik-llama-cpp-python
//! 0.1.5) ran one model of each family that GGUF holds, in every form below, as this program writes
//! it. Next to the f32 reference, in full precision, logits of llama.cpp from files all in f32 were off
//! by less than 1e-5 (relative, RMS) and those of ik_llama.cpp by at most 4e-4, for its cache is f16.
//! Packed forms differ by 1 to 4 %, because these programs round activations by blocks, not by
//! tokens.
//!
//! bitnet.cpp ran from the source of its first release (in the crate bitnet-cpp-sys 0.0.5), built by
//! clang 19 with and without its lookup kernels for x86-64. That release knows the architectures
//! `llama` and `bitnet` only; `bitnet-25` and `bitnet-b1.58`, which its later fork of llama.cpp knows,
//! ran under a patch that adds their names and ReLU². Families and shapes (those of 700M, 2B and 8B
//! models, and small ones) ran token by token and in batches, at one thread and two:
//!
//! - I2_S: with its key-value cache in f32, logits equal those of the f32 reference within 5e-7
//!   (relative, RMS), save for tokens whose activations fall on a rounding tie, 1 in 100 or so. With
//!   its usual f16 cache they differ by 1 to 6 %: the cache moves activations over ties. The head may
//!   be f32, f16, bf16, Q8_0, Q6_K or Q4_0. It adds 32 blocks of 128 columns in 16 bits, which by
//!   arithmetic overflow if activations near ±127 fill 17 of them under weights of one sign.
//! - TL2: as I2_S for one token at a time, so the tiles and the scale lie where its kernels look. In
//!   batches of 8 and more they write all tokens to the place of the first. The ready-made kernels in
//!   its folder `preset_kernels` look for the scale behind the matrix; those that it generates do not.
//!   Its own `run_inference.py` reads prompts token by token, its other programs in batches of 512.
//! - TQ1_0, TQ2_0 and floats: right, activations being rounded by blocks or not at all.
//! - What its quantiser makes of an f32 file of ours (I2_S, one thread) has our trits and scales. With
//!   two threads it writes bytes that hold no trits, which are refused.
//!
//! The same source, built for ARM (armv8.2-a with dotprod) with its lookup kernels for the published
//! shapes and a few small ones, ran under qemu:
//!
//! - I2_S: the first release reads the arrangement of x86-64 on ARM too, within 5e-7 as above, and not
//!   that of ARM. Later releases have another kernel there, for 64 columns in 16 bytes; in the place of
//!   the first one it reads the arrangement of ARM within 5e-7, and not that of x86-64.
//! - TL1: within 5e-7 for one token at a time, with small tiles and with those of all published shapes.
//!   In batches of two and more it has no kernel and takes the bytes for floats: no logit is finite.
//!   As it stands it also writes its tables past its working memory, for which it counts 15 bytes a
//!   column and fills 16, and hangs or aborts on most models; the agreement above is with 16.

use crate::checkpoint::config::{Activation, LinearKind, ModelConfig};
use crate::checkpoint::role::Linear;
use serde::Serialize;
use std::fmt;
use tritmark_kernels::layout::tile;

/// A program that runs GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum Runtime {
    /// microsoft/BitNet.
    #[value(name = "bitnet.cpp")]
    #[serde(rename = "bitnet.cpp")]
    BitnetCpp,
    /// ggml-org/llama.cpp.
    #[value(name = "llama.cpp")]
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// ikawrakow/ik_llama.cpp.
    #[value(name = "ik_llama", alias = "ik_llama.cpp")]
    #[serde(rename = "ik_llama")]
    IkLlama,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::BitnetCpp => "bitnet.cpp",
            Runtime::LlamaCpp => "llama.cpp",
            Runtime::IkLlama => "ik_llama",
        })
    }
}

/// What a program does with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// It loads the file and computes what the model is.
    Right,
    /// It loads the file and computes something else.
    Wrong(String),
    /// It refuses the file or crashes.
    Refused(String),
    /// Whatever it does, the weights in the file are not those of a model.
    Damaged(String),
    /// Nobody tried.
    Unknown(String),
}

impl Verdict {
    /// As a sentence about `runtime`.
    pub fn sentence(&self, runtime: impl fmt::Display) -> String {
        match self {
            Verdict::Right => format!("{runtime} runs it rightly"),
            Verdict::Wrong(reason) => format!("{runtime} loads it but computes something else: it {reason}"),
            Verdict::Refused(reason) => format!("{runtime} does not load it: it {reason}"),
            Verdict::Damaged(reason) => {
                format!("{runtime} cannot run it rightly: the file is damaged: {reason}")
            }
            Verdict::Unknown(reason) => format!("{runtime} is not known to run it: {reason}"),
        }
    }
}

impl Runtime {
    /// All of them, in the order in which a target is looked for.
    pub const ALL: [Runtime; 3] = [Runtime::BitnetCpp, Runtime::LlamaCpp, Runtime::IkLlama];
}

use Activation::{Relu2, Silu};
use Runtime::{BitnetCpp, IkLlama, LlamaCpp};

/// Architectures: who loads each, and the activation function that it then computes.
const ARCHITECTURES: &[(&str, &[Runtime], Activation)] = &[
    ("bitnet-b1.58", &[BitnetCpp, IkLlama], Relu2),
    ("bitnet-25", &[BitnetCpp, IkLlama], Relu2),
    ("bitnet", &[BitnetCpp, LlamaCpp, IkLlama], Silu),
    ("llama", &[BitnetCpp, LlamaCpp, IkLlama], Silu),
    ("qwen3", &[LlamaCpp, IkLlama], Silu),
];

/// Layouts (and `f16` for dequantised weights): what each program does with them.
const LAYOUTS: &[(&str, Runtime, Result<(), &str>)] = &[
    ("f32", BitnetCpp, Ok(())),
    ("f16", BitnetCpp, Ok(())),
    ("bf16", BitnetCpp, Ok(())),
    ("f16", LlamaCpp, Ok(())),
    ("f16", IkLlama, Ok(())),
    ("f32", LlamaCpp, Ok(())),
    ("f32", IkLlama, Ok(())),
    ("bf16", LlamaCpp, Ok(())),
    ("bf16", IkLlama, Ok(())),
    ("i2_s", BitnetCpp, Ok(())),
    ("i2_s", LlamaCpp, Err("does not know I2_S")),
    (
        "i2_s",
        IkLlama,
        Err("reads I2_S as garbage or aborts; requantise a float file with its llama-quantize"),
    ),
    ("i2_s_arm", BitnetCpp, Ok(())),
    ("i2_s_arm", LlamaCpp, Err("does not know I2_S")),
    ("i2_s_arm", IkLlama, Err("reads I2_S as garbage or aborts")),
    ("i2_s_4row", LlamaCpp, Err("does not know I2_S")),
    ("i2_s_4row", IkLlama, Err("reads I2_S as garbage or aborts")),
    ("tl1", BitnetCpp, Ok(())),
    ("tl1", LlamaCpp, Err("does not know TL1")),
    ("tl1", IkLlama, Err("does not know TL1")),
    ("tl2", BitnetCpp, Ok(())),
    ("tl2", LlamaCpp, Err("does not know TL2")),
    ("tl2", IkLlama, Err("does not know TL2")),
    ("tq1_0", BitnetCpp, Ok(())),
    ("tq1_0", LlamaCpp, Ok(())),
    ("tq1_0", IkLlama, Err("crashes on TQ1_0")),
    ("tq2_0", BitnetCpp, Ok(())),
    ("tq2_0", LlamaCpp, Ok(())),
    ("tq2_0", IkLlama, Err("crashes on TQ2_0")),
    ("q2_0", BitnetCpp, Err("fails an assertion on Q2_0")),
    ("q2_0", LlamaCpp, Ok(())),
    ("q2_0", IkLlama, Err("crashes on Q2_0")),
    ("q2_0_g128", BitnetCpp, Err("fails an assertion on Q2_0")),
    ("q2_0_g128", LlamaCpp, Err("takes the type for groups of 64, and the sizes do not fit")),
    ("q2_0_g128", IkLlama, Err("crashes on Q2_0")),
    ("iq1_bn", BitnetCpp, Err("does not know IQ1_BN")),
    ("iq1_bn", LlamaCpp, Err("does not know IQ1_BN")),
    ("iq1_bn", IkLlama, Ok(())),
    ("iq2_bn", BitnetCpp, Err("does not know IQ2_BN")),
    ("iq2_bn", LlamaCpp, Err("does not know IQ2_BN")),
    ("iq2_bn", IkLlama, Ok(())),
];

/// The CPUs for which bitnet.cpp's kernels of a layout are; on others they read it as something else, or
/// there are none. `None` for layouts that are the same everywhere.
pub fn cpu(layout: &str) -> Option<&'static str> {
    match family(layout) {
        "i2_s" | "tl2" => Some("x86-64"),
        "i2_s_arm" | "tl1" => Some("ARM"),
        _ => None,
    }
}

/// Whether `runtime` has what it needs for a layout, whatever the model.
pub fn runs(runtime: Runtime, layout: &str) -> bool {
    LAYOUTS.iter().any(|(name, r, known)| *name == family(layout) && *r == runtime && known.is_ok())
}

/// `tl1` of `tl1_BM64_BK64_bm32`.
fn family(layout: &str) -> &str {
    layout.split_once("_BM").map_or(layout, |(family, _)| family)
}

/// The architecture string under which `runtime` is to find a model.
///
/// # Errors
/// What of the model no architecture of GGUF has, in words.
pub fn architecture(config: &ModelConfig, runtime: Runtime) -> Result<&'static str, String> {
    if config.inner_norm_eps.is_some() {
        return Err("no GGUF architecture has norms inside the linear layers".into());
    }
    if config.gemma.is_some() {
        return Err("no GGUF architecture for ternary Gemma 3 is known".into());
    }
    match (config.sub_norms, config.qk_norm, config.activation) {
        (true, false, Relu2) if runtime != LlamaCpp => Ok("bitnet-b1.58"),
        (true, false, Relu2 | Silu) => Ok("bitnet"),
        (false, true, Silu) => Ok("qwen3"),
        (false, false, Silu) => Ok("llama"),
        _ => Err(format!(
            "no GGUF architecture has {} with {:?}",
            if config.sub_norms { "sub-norms" } else { "a plain block" },
            config.activation
        )),
    }
}

/// What of a file programs differ about.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The architecture string.
    pub architecture: &'a str,
    /// The layout of the matrices; `f16` and the like for floats.
    pub layout: &'a str,
    /// Whether the embedding or the head is Q4_0.
    pub q4_0: bool,
}

/// How `runtime` must be run for the [`verdict`] to hold, where not any way will do.
pub fn condition(runtime: Runtime, held: Held) -> Option<&'static str> {
    match (runtime, family(held.layout)) {
        (BitnetCpp, "i2_s_arm") => {
            Some("in releases after its first, which reads the arrangement of x86-64 (--to i2_s) on ARM too")
        }
        (BitnetCpp, "tl1") => Some(
            "with -b 1, as its run_inference.py does: in batches of two tokens and more its first release takes the bytes for floats; that release also reserves 15 bytes a column of working memory and fills 16 (mend ggml_bitnet_mul_mat_get_wsize, else it hangs or aborts)",
        ),
        (BitnetCpp, "tl2") => Some(
            "with -b 1, as its run_inference.py does, or --ubatch-size 7 at most: of each batch of 8 and more tokens its TL2 kernels keep the last only",
        ),
        (BitnetCpp, _) if held.q4_0 => Some(
            "if built without its lookup kernels (BITNET_X86_TL2, BITNET_ARM_TL1), which take Q4_0 for theirs and crash",
        ),
        _ => None,
    }
}

/// What `runtime` does with a model of this configuration in such a file.
pub fn verdict(runtime: Runtime, held: Held, config: &ModelConfig) -> Verdict {
    let Held { architecture, layout, q4_0 } = held;
    let ternary = config.linear == LinearKind::Ternary;
    let Some((_, loads, computes)) = ARCHITECTURES.iter().find(|(name, ..)| *name == architecture) else {
        return Verdict::Unknown(format!("nobody tried the architecture {architecture}"));
    };
    if !loads.contains(&runtime) {
        return match architecture {
            "qwen3" => Verdict::Unknown("nobody tried qwen3".into()),
            _ => Verdict::Refused(format!("does not know the architecture {architecture}")),
        };
    }
    match LAYOUTS.iter().find(|(name, r, _)| *name == family(layout) && *r == runtime) {
        Some((.., Err(reason))) => return Verdict::Refused((*reason).into()),
        None if ternary => return Verdict::Unknown(format!("nobody tried {layout}")),
        _ => {}
    }
    if *computes != config.activation {
        return Verdict::Wrong(format!(
            "computes {computes:?} for the architecture {architecture}, but the model has {:?}",
            config.activation
        ));
    }
    if architecture.starts_with("bitnet") && config.heads * config.head_dim != config.hidden {
        return Verdict::Refused(format!(
            "expects heads as wide together as the model for the architecture {architecture}, but {} heads of {} stand beside a width of {}",
            config.heads, config.head_dim, config.hidden
        ));
    }
    if architecture == "bitnet" && !config.tied {
        return Verdict::Refused("knows no output head for the architecture bitnet".into());
    }
    if q4_0 && runtime == BitnetCpp && tiled(layout) {
        return Verdict::Refused("takes Q4_0 for one of the forms of its lookup kernels, and crashes".into());
    }
    if let Some((rows, cols)) = without_kernel(layout, config) {
        return Verdict::Refused(format!(
            "has {} kernels for the shapes of three models only, and none for {rows}x{cols} with this tile",
            family(layout)
        ));
    }
    let narrow = |columns: usize| Linear::ALL.iter().any(|&l| config.linear_shape(l).1 < columns);
    let uneven =
        |columns: usize| Linear::ALL.iter().any(|&l| !config.linear_shape(l).1.is_multiple_of(columns));
    match family(layout) {
        "i2_s" | "i2_s_arm" if uneven(128) => {
            Verdict::Wrong("drops the last columns of rows that are no multiple of 128 wide".into())
        }
        "iq1_bn" | "iq2_bn" if narrow(512) => Verdict::Refused("needs at least 512 columns".into()),
        "bf16" if runtime == IkLlama && uneven(8) => {
            Verdict::Wrong("drops the last columns of bf16 rows that are no multiple of 8 wide".into())
        }
        _ => Verdict::Right,
    }
}

/// Whether lookup kernels of bitnet.cpp read a layout.
fn tiled(layout: &str) -> bool {
    matches!(family(layout), "tl1" | "tl2")
}

/// The shape of a matrix in `tl1` or `tl2` for which bitnet.cpp generates no kernel, or one with
/// another tile; a program built so divides by zero when it loads the matrix.
fn without_kernel(layout: &str, config: &ModelConfig) -> Option<(usize, usize)> {
    let published = |rows: usize, cols: usize| {
        let known = tile::PUBLISHED.iter().find(|p| (p.0, p.1) == (rows, cols))?;
        Some(if family(layout) == "tl1" { known.2 } else { known.3 })
    };
    let explicit = layout.split_once('_').map(|(_, tile)| tile);
    let fits = |&(rows, cols): &(usize, usize)| {
        published(rows, cols).is_some_and(|tile| explicit.is_none_or(|name| name == tile.to_string()))
    };
    Linear::ALL.iter().map(|&linear| config.linear_shape(linear)).find(|shape| tiled(layout) && !fits(shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    /// The demo model's configuration, with what is asked changed.
    fn config(change: impl Fn(&mut ModelConfig)) -> ModelConfig {
        let mut config = Checkpoint::open("demo").unwrap().config;
        // Wide enough for every layout.
        (config.hidden, config.heads, config.ffn) = (512, 8, 1024);
        change(&mut config);
        config
    }

    fn judge(runtime: Runtime, architecture: &str, layout: &str, config: &ModelConfig) -> Verdict {
        verdict(runtime, Held { architecture, layout, q4_0: false }, config)
    }

    #[test]
    fn each_runtime_runs_what_it_was_seen_to_run() {
        let relu2 = config(|_| {});
        let silu = config(|c| c.activation = Silu);
        let plain = config(|c| (c.activation, c.sub_norms) = (Silu, false));
        let right = |runtime, layout: &str, config: &ModelConfig| {
            let architecture = architecture(config, runtime).unwrap();
            judge(runtime, architecture, layout, config) == Verdict::Right
        };
        for (runtime, layout, expected) in [
            (BitnetCpp, "i2_s", [true, true, true]),
            (BitnetCpp, "tq1_0", [true, true, true]),
            (BitnetCpp, "q2_0", [false, false, false]),
            (BitnetCpp, "iq2_bn", [false, false, false]),
            (LlamaCpp, "tq2_0", [false, true, true]),
            (LlamaCpp, "q2_0", [false, true, true]),
            (LlamaCpp, "i2_s", [false, false, false]),
            (IkLlama, "iq1_bn", [true, true, true]),
            (IkLlama, "tq2_0", [false, false, false]),
            (IkLlama, "i2_s", [false, false, false]),
        ] {
            let found = [&relu2, &silu, &plain].map(|config| right(runtime, layout, config));
            assert_eq!(found, expected, "{runtime} {layout}");
        }
    }

    #[test]
    fn narrow_and_uneven_shapes_are_not_called_right() {
        let uneven = config(|c| c.ffn = 1088);
        assert!(matches!(judge(BitnetCpp, "bitnet-b1.58", "i2_s", &uneven), Verdict::Wrong(_)));
        let odd = config(|c| c.ffn = 1028);
        assert!(matches!(judge(IkLlama, "bitnet-b1.58", "bf16", &odd), Verdict::Wrong(_)));
        assert_eq!(
            judge(
                LlamaCpp,
                "llama",
                "bf16",
                &config(|c| (c.activation, c.sub_norms, c.ffn) = (Silu, false, 1028))
            ),
            Verdict::Right
        );
        let narrow = config(|c| (c.hidden, c.heads) = (256, 4));
        assert!(matches!(judge(IkLlama, "bitnet-b1.58", "iq2_bn", &narrow), Verdict::Refused(_)));
    }

    #[test]
    fn bitnet_cpp_has_lookup_kernels_for_published_shapes_only() {
        let large = config(|c| (c.hidden, c.ffn, c.heads, c.kv_heads, c.head_dim) = (1536, 4096, 16, 16, 96));
        let tiled = |layout: &str, config: &ModelConfig| judge(BitnetCpp, "bitnet-b1.58", layout, config);
        for layout in ["tl1", "tl2"] {
            assert_eq!(tiled(layout, &large), Verdict::Right);
            assert!(matches!(tiled(layout, &config(|_| {})), Verdict::Refused(_)));
        }
        assert!(matches!(tiled("tl2_BM64_BK96_bm32", &large), Verdict::Refused(_)));
        let held = |layout, q4_0| Held { architecture: "bitnet-b1.58", layout, q4_0 };
        for layout in ["tl1", "tl2"] {
            assert!(matches!(verdict(BitnetCpp, held(layout, true), &large), Verdict::Refused(_)));
            assert!(condition(BitnetCpp, held(layout, false)).unwrap().contains("-b 1"));
        }
        assert_eq!(verdict(BitnetCpp, held("i2_s", true), &large), Verdict::Right);
        assert!(condition(BitnetCpp, held("i2_s", true)).unwrap().contains("lookup kernels"));
        assert!(condition(BitnetCpp, held("i2_s_arm", false)).unwrap().contains("after its first"));
        assert_eq!(condition(BitnetCpp, held("i2_s", false)), None);
        assert_eq!(condition(LlamaCpp, held("tq2_0", true)), None);
    }

    #[test]
    fn what_an_architecture_has_no_tensors_for_is_not_called_right() {
        let untied = config(|c| (c.activation, c.tied) = (Silu, false));
        assert!(matches!(judge(LlamaCpp, "bitnet", "f16", &untied), Verdict::Refused(_)));
        let untied = config(|c| c.tied = false);
        assert_eq!(judge(IkLlama, "bitnet-b1.58", "f16", &untied), Verdict::Right);
        let wide_heads = config(|c| c.head_dim = 128);
        assert!(matches!(judge(IkLlama, "bitnet-b1.58", "f16", &wide_heads), Verdict::Refused(_)));
        let plain = config(|c| (c.activation, c.sub_norms, c.head_dim) = (Silu, false, 128));
        assert_eq!(judge(IkLlama, "llama", "f16", &plain), Verdict::Right);
    }

    #[test]
    fn models_that_gguf_cannot_say_have_no_architecture() {
        for change in [(|c: &mut ModelConfig| c.inner_norm_eps = Some(1e-6)) as fn(&mut ModelConfig), |c| {
            (c.activation, c.sub_norms) = (Relu2, false)
        }] {
            assert!(architecture(&config(change), BitnetCpp).is_err());
        }
    }
}
