//! What a checkpoint is, tensor by tensor, and who can run it.

use crate::checkpoint::PLAUSIBLE_SCALES;
use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::checkpoint::gguf::runtime::{self, Held, Runtime, Verdict};
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::write::packed::COMPANIONS;
use crate::checkpoint::{Checkpoint, Provenance, TensorInfo, number};
use crate::error::Result;
use crate::verify::{model_hash, trits_sha256};
use crate::words::hex;
use rayon::prelude::*;
use serde::Serialize;

/// Everything there is to say about a checkpoint.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Where it comes from and how it is written.
    pub provenance: Provenance,
    /// Its hyperparameters.
    pub config: ModelConfig,
    /// Its name by its weights ([`model_hash`]); absent where a weight is damaged or the dialect is
    /// ambiguous.
    pub hash: Option<String>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes of the tensors that hold ternary matrices.
    pub ternary_bytes: u64,
    /// Number of ternary weights.
    pub ternary_weights: u64,
    /// Stored bits for each ternary weight.
    pub bits_per_weight: Option<f64>,
    /// Share of zeros among the ternary weights.
    pub zero_fraction: Option<f64>,
    /// Tokens of the tokenizer, where there is one.
    pub tokenizer_tokens: Option<usize>,
    /// Why the tokenizer cannot be used, where it cannot.
    pub tokenizer_fault: Option<String>,
    /// What is wrong or odd with the whole, in full sentences.
    pub flags: Vec<String>,
    /// Every tensor, in file order.
    pub tensors: Vec<Tensor>,
    /// Who loads the file as it stands, and computes the right thing.
    pub runtimes: Vec<RuntimeVerdict>,
}

/// One tensor.
#[derive(Debug, Serialize)]
pub struct Tensor {
    /// As the file lists it.
    #[serde(flatten)]
    pub info: TensorInfo,
    /// Stored bits for each weight.
    pub bits_per_weight: f64,
    /// Share of zeros, for ternary matrices.
    pub zero_fraction: Option<f64>,
    /// Effective scale, for ternary matrices.
    pub scale: Option<f32>,
    /// SHA-256 of the trits ([`trits_sha256`]), for ternary matrices.
    pub sha256: Option<String>,
    /// What is wrong or odd with it.
    pub flags: Vec<String>,
    /// Whether one of them says that no program can compute the right thing from it.
    pub damaged: bool,
}

/// What one program does with the file.
#[derive(Debug, Serialize)]
pub struct RuntimeVerdict {
    /// The program.
    pub runtime: String,
    /// The CPUs that it does this on, where the form is for some only.
    pub cpu: Option<String>,
    /// How it must be run to do this, where not any way will do.
    pub condition: Option<String>,
    /// What it does.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Looks at every tensor; `done` hears of each. Damaged tensors are flagged, not fatal.
///
/// # Errors
/// If a tensor that is stored twice cannot be read.
pub fn inspect(checkpoint: &Checkpoint, done: &(dyn Fn() + Sync)) -> Result<Inspection> {
    let tensors: Vec<Tensor> = checkpoint
        .tensors()
        .par_iter()
        .map(|info| {
            let tensor = tensor(checkpoint, info);
            done();
            tensor
        })
        .collect();
    let linear = |t: &&Tensor| t.info.role.is_some_and(Role::is_matrix);
    let ternary = checkpoint.config.linear == LinearKind::Ternary;
    let matrices: Vec<&Tensor> = tensors.iter().filter(|t| ternary && linear(t)).collect();
    let weights = |t: &Tensor| t.info.shape.iter().product::<usize>() as u64;
    let ternary_bytes: u64 = matrices.iter().map(|t| t.info.bytes).sum();
    let ternary_weights: u64 = matrices.iter().map(|t| weights(t)).sum();
    let zeros: Option<f64> = matrices.iter().map(|t| t.zero_fraction.map(|z| z * weights(t) as f64)).sum();
    let some = (ternary_weights > 0).then_some(ternary_weights as f64);
    let tokenizer_fault = checkpoint.tokenizer.as_ref().and_then(|json| {
        let fault = tokenizers::Tokenizer::from_bytes(json).err()?;
        Some(format!("The tokenizer is damaged: {fault}."))
    });
    let tokenizer_tokens = checkpoint.tokenizer.as_deref().and_then(token_count);
    let mut flags = vec![];
    if let Some(fault) = &tokenizer_fault {
        flags.push(fault.clone());
    } else if let Some(tokens) = tokenizer_tokens {
        let vocab = checkpoint.config.vocab;
        if tokens < vocab {
            flags.push(format!(
                "The vocabulary of the model ({vocab}) is larger than the tokenizer's ({tokens})."
            ));
        } else if tokens > vocab {
            flags.push(format!(
                "The tokenizer has {tokens} tokens, more than the model's vocabulary ({vocab})."
            ));
        }
    } else {
        flags.push("There is no tokenizer: only token ids can be used.".into());
    }
    if stored_twice(checkpoint)? {
        flags.push("The head is a stored copy of the token embedding.".into());
    }
    match tensors.iter().filter(|t| !t.flags.is_empty()).count() {
        0 => {}
        1 => flags.push("1 tensor is flagged.".into()),
        n => flags.push(format!("{n} tensors are flagged.")),
    }
    Ok(Inspection {
        provenance: checkpoint.provenance.clone(),
        config: checkpoint.config.clone(),
        hash: if known(checkpoint) { model_hash(checkpoint).ok() } else { None },
        bytes: tensors.iter().map(|t| t.info.bytes).sum(),
        ternary_bytes,
        ternary_weights,
        bits_per_weight: some.map(|n| ternary_bytes as f64 * 8.0 / n),
        zero_fraction: zeros.zip(some).map(|(zeros, n)| zeros / n),
        tokenizer_tokens,
        tokenizer_fault,
        flags,
        runtimes: runtimes(checkpoint, &tensors),
        tensors,
    })
}

/// Whether the order of the weights is known.
fn known(checkpoint: &Checkpoint) -> bool {
    checkpoint.provenance.choices.is_empty()
}

fn tensor(checkpoint: &Checkpoint, info: &TensorInfo) -> Tensor {
    let count = info.shape.iter().product::<usize>().max(1);
    let mut tensor = Tensor {
        bits_per_weight: info.bytes as f64 * 8.0 / count as f64,
        zero_fraction: None,
        scale: None,
        sha256: None,
        flags: vec![],
        damaged: false,
        info: info.clone(),
    };
    let ternary = checkpoint.config.linear == LinearKind::Ternary;
    match info.role {
        None if info.name == "tokenizer.json" || COMPANIONS.contains(&&info.name[..]) => {}
        None => tensor.flags.push("unknown: not used".into()),
        Some(role) if ternary && role.is_matrix() => match checkpoint.ternary(role) {
            Ok(found) => {
                let zero = found.trits.zero_fraction();
                if zero == 1.0 {
                    tensor.flags.push("all zero".into());
                }
                if !PLAUSIBLE_SCALES.contains(&found.scale) {
                    tensor.damage(format!("the scale {} is not plausible", number(found.scale)));
                }
                tensor.zero_fraction = Some(zero);
                tensor.scale = Some(found.scale);
                tensor.sha256 = known(checkpoint).then(|| hex(&trits_sha256(&found.trits)));
            }
            Err(e) => tensor.damage(e.message()),
        },
        Some(Role::Layer(_, LayerRole::Scale(_))) => {}
        Some(role) => match float_flag(checkpoint, role, &info.shape) {
            Ok(Some(Flag::NotFinite)) => tensor.damage("values that are not finite".into()),
            Ok(Some(Flag::Zero)) => tensor.flags.push("all zero".into()),
            Ok(None) => {}
            Err(e) => tensor.damage(e.message()),
        },
    }
    tensor
}

/// Rows of a matrix that are looked at together.
const ROWS: usize = 256;

/// Slices of a tensor of floats, as f32.
fn slices<'a>(
    checkpoint: &'a Checkpoint,
    role: Role,
    shape: &'a [usize],
) -> impl Iterator<Item = Result<Vec<f32>>> + 'a {
    let rows = if shape.len() == 2 { shape[0] } else { 1 };
    (0..rows).step_by(ROWS).map(move |start| {
        let float = match shape.len() {
            2 => checkpoint.float_rows(role, start..rows.min(start + ROWS)),
            _ => checkpoint.float(role),
        };
        float.map(|float| float.to_f32())
    })
}

impl Tensor {
    fn damage(&mut self, flag: String) {
        self.damaged = true;
        self.flags.push(flag);
    }
}

/// What is odd with a tensor of floats.
enum Flag {
    NotFinite,
    Zero,
}

fn float_flag(checkpoint: &Checkpoint, role: Role, shape: &[usize]) -> Result<Option<Flag>> {
    let mut zero = true;
    for slice in slices(checkpoint, role, shape) {
        let slice = slice?;
        if slice.iter().any(|x| !x.is_finite()) {
            return Ok(Some(Flag::NotFinite));
        }
        zero &= slice.iter().all(|&x| x == 0.0);
    }
    Ok(zero.then_some(Flag::Zero))
}

/// Whether head and embedding are both there and equal.
fn stored_twice(checkpoint: &Checkpoint) -> Result<bool> {
    let infos = checkpoint.info(Role::Head).zip(checkpoint.info(Role::TokenEmbedding));
    let Some((head, embedding)) = infos else { return Ok(false) };
    if head.shape != embedding.shape {
        return Ok(false);
    }
    let pairs = slices(checkpoint, Role::Head, &head.shape).zip(slices(
        checkpoint,
        Role::TokenEmbedding,
        &embedding.shape,
    ));
    for (a, b) in pairs {
        if a? != b? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One more than the largest id of a tokenizer.
fn token_count(tokenizer: &[u8]) -> Option<usize> {
    let json: serde_json::Value = serde_json::from_slice(tokenizer).ok()?;
    let vocab = &json["model"]["vocab"];
    let own = match vocab {
        serde_json::Value::Object(map) => map.values().filter_map(|id| id.as_u64()).max(),
        serde_json::Value::Array(pieces) => (pieces.len() as u64).checked_sub(1),
        _ => None,
    };
    let added = json["added_tokens"].as_array().into_iter().flatten().filter_map(|t| t["id"].as_u64()).max();
    usize::try_from(own.into_iter().chain(added).max()?).ok()?.checked_add(1)
}

/// What each known program does with the file as it stands.
fn runtimes(checkpoint: &Checkpoint, tensors: &[Tensor]) -> Vec<RuntimeVerdict> {
    let (c, p) = (&checkpoint.config, &checkpoint.provenance);
    let mut words = p.dialect.split(' ');
    let gguf = match (words.next(), words.next(), words.next()) {
        (Some("gguf"), Some(architecture), Some(layout)) => Some(Held {
            architecture,
            layout: p.choices.first().map_or(layout, String::as_str),
            q4_0: tensors.iter().any(|t| t.info.form == "q4_0"),
        }),
        _ => None,
    };
    let mut all: Vec<_> = Runtime::ALL
        .iter()
        .map(|&runtime| RuntimeVerdict {
            runtime: runtime.to_string(),
            cpu: None,
            condition: None,
            verdict: match gguf {
                Some(held) => runtime::verdict(runtime, held, c),
                None => Verdict::Refused("reads GGUF only: convert first".into()),
            },
        })
        .collect();
    let transformers = match (p.dialect.starts_with("hf"), p.family.as_str()) {
        (false, _) => Verdict::Refused("reads Hugging Face directories only: convert first".into()),
        (true, "bitnet") if c.heads * c.head_dim != c.hidden => {
            Verdict::Refused("expects heads as wide together as the model".into())
        }
        (true, "bitnet" | "llama" | "qwen3" | "gemma3") if !p.post_training => Verdict::Right,
        (true, "bitnet-embedding-qwen3" | "bitnet-embedding-gemma3") => Verdict::Wrong(
            "takes the model for a plain one, without ternary weights and the norms before them".into(),
        ),
        (true, "bitnet-1bitllm") => Verdict::Wrong(
            "takes the model for a plain Llama, without its sub-norms and ternary weights".into(),
        ),
        (true, family) => Verdict::Unknown(format!("nobody tried the family {family} as it stands")),
    };
    let runtime = "transformers".to_owned();
    all.push(RuntimeVerdict { runtime, cpu: None, condition: None, verdict: transformers });
    let damaged: Vec<&Tensor> = tensors.iter().filter(|t| t.damaged).collect();
    for RuntimeVerdict { verdict, .. } in &mut all {
        match damaged.as_slice() {
            _ if matches!(verdict, Verdict::Refused(_)) => {}
            [first, others @ ..] => {
                let more = match others.len() {
                    0 => String::new(),
                    n => format!(" (and {n} more)"),
                };
                *verdict = Verdict::Damaged(format!("{}: {}{more}", first.info.name, first.flags.join("; ")));
            }
            [] if !p.choices.is_empty() => {
                *verdict = Verdict::Unknown(format!(
                    "the arrangement of its weights could be any of {} (--dialect)",
                    p.choices.join(", ")
                ));
            }
            [] => {}
        }
    }
    if let Some(held) = gguf {
        for (&runtime, found) in Runtime::ALL.iter().zip(&mut all) {
            if found.verdict == Verdict::Right {
                found.cpu = runtime::cpu(held.layout).map(str::to_owned);
                found.condition = runtime::condition(runtime, held).map(str::to_owned);
            }
        }
    }
    all
}
