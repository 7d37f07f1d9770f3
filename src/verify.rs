//! The proofs: what a model is, byte order and container aside, and whether two are the same.

use crate::checkpoint::config::LinearKind;
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::{Checkpoint, FloatData};
use crate::error::{Error, Result};
use crate::model::{Head, LoadOptions, Logits, Model};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tritmark_kernels::Trits;

/// SHA-256 of the weights `[out, in]`, row-major, one byte each: `0xff`, `0x00` or `0x01`.
pub fn trits_sha256(trits: &Trits) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut bytes = [0u8; 8192];
    for chunk in trits.as_slice().chunks(bytes.len()) {
        for (byte, trit) in bytes.iter_mut().zip(chunk) {
            *byte = trit.cast_unsigned();
        }
        hasher.update(&bytes[..chunk.len()]);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal digits of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Names a model by its weights, whatever container and layout hold them.
///
/// SHA-256 over the linear weights of all blocks, block by block in the order
/// [`Linear::ALL`](crate::checkpoint::role::Linear::ALL). Each contributes: outputs and inputs as
/// u64, the SHA-256 of its trits ([`trits_sha256`]), the bits of its effective scale as u32. A
/// full-precision model has no trits: the hash of its values as f32 and the scale 1 stand in.
/// All numbers are little-endian. Embeddings and norms do not count, so that a model keeps its
/// name where only their precision changes.
///
/// # Errors
/// If a weight is missing or damaged.
pub fn model_hash(checkpoint: &Checkpoint) -> Result<String> {
    let roles: Vec<Role> = checkpoint.config.linear_roles().collect();
    let parts: Vec<[u8; 52]> =
        roles.par_iter().map(|&role| weight_identity(checkpoint, role)).collect::<Result<_>>()?;
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    Ok(hex(&hasher.finalize()))
}

/// What one weight contributes to [`model_hash`].
fn weight_identity(checkpoint: &Checkpoint, role: Role) -> Result<[u8; 52]> {
    let Role::Layer(_, LayerRole::Linear(linear)) = role else {
        return Err(Error::Bug(format!("{role:?} is no linear weight")));
    };
    let (hash, scale) = match checkpoint.config.linear {
        LinearKind::Ternary => {
            let ternary = checkpoint.ternary(role)?;
            (trits_sha256(&ternary.trits), ternary.scale)
        }
        LinearKind::Float => (floats_sha256(&checkpoint.float(role)?.data), 1.0f32),
    };
    let (rows, cols) = checkpoint.config.linear_shape(linear);
    let mut part = [0; 52];
    part[..8].copy_from_slice(&(rows as u64).to_le_bytes());
    part[8..16].copy_from_slice(&(cols as u64).to_le_bytes());
    part[16..48].copy_from_slice(&hash);
    part[48..].copy_from_slice(&scale.to_bits().to_le_bytes());
    Ok(part)
}

/// SHA-256 of the values as little-endian f32.
fn floats_sha256(data: &FloatData) -> [u8; 32] {
    let mut hasher = Sha256::new();
    match data {
        FloatData::F32(v) => v.iter().for_each(|x| hasher.update(x.to_le_bytes())),
        FloatData::F16(v) => v.iter().for_each(|x| hasher.update(x.to_f32().to_le_bytes())),
        FloatData::Bf16(v) => v.iter().for_each(|x| hasher.update(x.to_f32().to_le_bytes())),
    }
    hasher.finalize().into()
}

/// How two models differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Ternary matrices compared.
    pub matrices: usize,
    /// Those with equal trits.
    pub equal_trits: usize,
    /// Largest relative difference of effective scales.
    pub scale_error: f64,
    /// Largest difference of an embedding, head or norm, as a share of what its form allows; at most
    /// 1 where all are within the precision of the coarser of the two forms.
    pub float_error: f64,
    /// What differs and where, in full sentences; empty if the models are the same.
    pub differences: Vec<String>,
    /// What both compute, where both could be run.
    pub probe: Option<Probe>,
}

/// Logits of both models on a few tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    /// Number of tokens.
    pub tokens: usize,
    /// Whether all logits are equal bit for bit.
    pub identical: bool,
    /// Largest difference of a logit.
    pub max_difference: f32,
    /// Share of the tokens after which both prefer the same next one.
    pub top1_agreement: f64,
}

/// A scale may be off by this much: half the last place of f16, in which some layouts keep it.
const SCALE_TOLERANCE: f64 = 1.0 / 2048.0;

/// Compares two models tensor by tensor; `done` hears of each tensor.
///
/// # Errors
/// If a tensor of either is damaged.
pub fn compare(a: &Checkpoint, b: &Checkpoint, done: &(dyn Fn() + Sync)) -> Result<Comparison> {
    let mut differences = config_differences(a, b);
    let mut comparison = Comparison {
        matrices: 0,
        equal_trits: 0,
        scale_error: 0.0,
        float_error: 0.0,
        differences: vec![],
        probe: None,
    };
    if differences.is_empty() {
        let roles = a.config.roles();
        let ternary = a.config.linear == LinearKind::Ternary;
        let found: Vec<Difference> = roles
            .par_iter()
            .map(|&role| {
                let difference = match role {
                    Role::Layer(_, LayerRole::Linear(_)) if ternary => compare_ternary(a, b, role),
                    _ => compare_floats(a, b, role),
                };
                done();
                difference
            })
            .collect::<Result<_>>()?;
        for difference in found {
            match difference.kind {
                Kind::Ternary { equal, scale } => {
                    comparison.matrices += 1;
                    comparison.equal_trits += usize::from(equal);
                    comparison.scale_error = comparison.scale_error.max(scale);
                }
                Kind::Float(error) => comparison.float_error = comparison.float_error.max(error),
            }
            differences.extend(difference.sentence);
        }
    }
    comparison.differences = differences;
    Ok(comparison)
}

/// Tokens of the probe, spread over the vocabulary.
const PROBE_TOKENS: usize = 16;

/// Runs both models on the same tokens, one after the other.
///
/// # Errors
/// If one cannot be loaded or run.
pub fn probe(a: &Checkpoint, b: &Checkpoint, threads: usize) -> Result<Probe> {
    let tokens = PROBE_TOKENS.min(a.config.context);
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % a.config.vocab) as u32).collect();
    let run = |checkpoint: &Checkpoint| -> Result<Vec<f32>> {
        let mut model =
            Model::load(checkpoint, &LoadOptions { layout: None, tier: None, threads, head: Head::AsIs })?;
        let mut cache = model.new_cache(tokens);
        Ok(model.forward(&mut cache, &ids, Logits::From(0))?.to_vec())
    };
    let (a, vocab) = (run(a)?, a.config.vocab);
    let b = run(b)?;
    let best = |row: &[f32]| (0..vocab).max_by(|&i, &j| row[i].total_cmp(&row[j]));
    let agree = a.chunks(vocab).zip(b.chunks(vocab)).filter(|(a, b)| best(a) == best(b)).count();
    Ok(Probe {
        tokens,
        identical: a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()),
        max_difference: a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max),
        top1_agreement: agree as f64 / tokens as f64,
    })
}

/// What of the two configurations makes them different models.
fn config_differences(a: &Checkpoint, b: &Checkpoint) -> Vec<String> {
    let fields = |checkpoint: &Checkpoint| {
        let mut value = serde_json::to_value(&checkpoint.config).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            // How text becomes tokens and when generation ends is no part of what is computed.
            object.remove("bos");
            object.remove("eos");
        }
        value
    };
    let (x, y) = (fields(a), fields(b));
    let object = |value: &serde_json::Value| value.as_object().cloned().unwrap_or_default();
    let (x, y) = (object(&x), object(&y));
    x.iter()
        .filter(|(key, value)| y.get(*key) != Some(*value))
        .map(|(key, value)| {
            format!("The configurations differ in {key}: {value} and {}.", y.get(key).unwrap_or_default())
        })
        .collect()
}

struct Difference {
    kind: Kind,
    sentence: Option<String>,
}

enum Kind {
    Ternary { equal: bool, scale: f64 },
    Float(f64),
}

/// The tensor's name in a checkpoint.
fn name(checkpoint: &Checkpoint, role: Role) -> String {
    let info = checkpoint.tensors().iter().find(|t| t.role == Some(role));
    info.map_or_else(|| format!("{role:?}"), |info| info.name.clone())
}

fn compare_ternary(a: &Checkpoint, b: &Checkpoint, role: Role) -> Result<Difference> {
    let (x, y) = (a.ternary(role)?, b.ternary(role)?);
    let at = name(a, role);
    let equal = trits_sha256(&x.trits) == trits_sha256(&y.trits);
    let zero = x.trits.as_slice().iter().all(|&t| t == 0);
    let scale = if zero && equal { 0.0 } else { (f64::from(x.scale) / f64::from(y.scale) - 1.0).abs() };
    let sentence = if !equal {
        let (xs, ys) = (x.trits.as_slice(), y.trits.as_slice());
        let differ = |(x, y): (&i8, &i8)| x != y;
        let count = xs.iter().zip(ys).filter(|&pair| differ(pair)).count();
        let first = xs.iter().zip(ys).position(differ).unwrap_or(0);
        let (row, col) = (first / x.trits.cols(), first % x.trits.cols());
        Some(format!(
            "{at}: {count} of {} trits differ, the first at row {row}, column {col}: {} and {}.",
            xs.len(),
            xs[first],
            ys[first]
        ))
    } else if scale > SCALE_TOLERANCE {
        Some(format!("{at}: the scales differ by {:.3} %: {} and {}.", scale * 100.0, x.scale, y.scale))
    } else {
        None
    };
    Ok(Difference { kind: Kind::Ternary { equal, scale }, sentence })
}

/// Rows of a float matrix that are compared at once.
const ROWS: usize = 256;

fn compare_floats(a: &Checkpoint, b: &Checkpoint, role: Role) -> Result<Difference> {
    let form = |c: &Checkpoint| {
        let info = c.tensors().iter().find(|t| t.role == Some(role));
        info.map_or_else(|| "f32".to_owned(), |info| info.form.clone())
    };
    let (form_a, form_b) = (form(a), form(b));
    let shape = a.config.shape(role);
    let rows = if shape.len() == 2 { shape[0] } else { 1 };
    let (mut worst, mut at) = (0f64, None);
    for start in (0..rows).step_by(ROWS) {
        let read = |c: &Checkpoint| match shape.len() {
            2 => c.float_rows(role, start..rows.min(start + ROWS)),
            _ => c.float(role),
        };
        let (x, y) = (read(a)?.to_f32(), read(b)?.to_f32());
        for (i, (bx, by)) in x.chunks(256).zip(y.chunks(256)).enumerate() {
            let largest = bx.iter().chain(by).fold(0f32, |m, v| m.max(v.abs()));
            for (j, (&x, &y)) in bx.iter().zip(by).enumerate() {
                if x.to_bits() == y.to_bits() {
                    continue;
                }
                let allowed = allowed(&form_a, x, largest) + allowed(&form_b, y, largest);
                let error = f64::from((x - y).abs()) / f64::from(allowed).max(f64::MIN_POSITIVE);
                // A value that is no number is further away than any.
                let error = if error.is_nan() { f64::INFINITY } else { error };
                if error > worst {
                    worst = error;
                    let index = start * (shape.iter().product::<usize>() / rows) + i * 256 + j;
                    at = Some((index, x, y));
                }
            }
        }
    }
    let sentence = at.filter(|_| worst > 1.0).map(|(index, x, y)| {
        format!(
            "{}: value {index} is {x} and {y}, further apart than {form_a} and {form_b} explain.",
            name(a, role)
        )
    });
    Ok(Difference { kind: Kind::Float(worst), sentence })
}

/// How far a form may put a value off, among neighbours of which `largest` is the largest.
fn allowed(form: &str, x: f32, largest: f32) -> f32 {
    match form {
        // Half a unit in the last place; below the normal range of f16, half its smallest step.
        "f16" => (x.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
        "bf16" => x.abs() * 2f32.powi(-8),
        // Half a step of the block's grid and the rounding of its scale; a whole step for Q4_0, which
        // clips one side, and for Q6_K, which chooses the grid by least squares.
        "q8_0" => largest / 127.0 * 0.6,
        "q6_k" => largest / 32.0 * 1.1,
        "q4_0" => largest / 8.0 * 1.1,
        _ => 0.0,
    }
}
