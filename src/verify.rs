//! The proofs: what a model is, byte order and container aside, and whether two are the same.

use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::checkpoint::demo;
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::gguf::quant::Quant;
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::{Checkpoint, FloatData, OpenOptions, number};
use crate::error::{Error, Result};
use crate::model::text::tokenizer_of;
use crate::model::{Head, LoadOptions, Logits, Model};
use crate::words::hex;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, Tokenizer};
use tritmark_kernels::Trits;

/// SHA-256 of the weights `[out, in]`, row-major, one byte each: `0xff`, `0x00` or `0x01`.
pub fn trits_sha256(trits: &Trits) -> [u8; 32] {
    sha256(trits.as_slice(), i8::to_le_bytes)
}

/// SHA-256 of the bytes of all values, a block at a time, which is several times as fast as value by value.
pub fn sha256<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut block = [[0; N]; 2048];
    for chunk in values.chunks(block.len()) {
        block.iter_mut().zip(chunk).for_each(|(to, &value)| *to = bytes(value));
        hasher.update(block[..chunk.len()].as_flattened());
    }
    hasher.finalize().into()
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
        return Err(Error::Bug(format!("{role} is no linear weight")));
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
    match data {
        FloatData::F32(v) => sha256(v, f32::to_le_bytes),
        FloatData::F16(v) => sha256(v, |x| x.to_f32().to_le_bytes()),
        FloatData::Bf16(v) => sha256(v, |x| x.to_f32().to_le_bytes()),
    }
}

/// How two models differ.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Comparison {
    /// Ternary matrices compared.
    pub matrices: usize,
    /// Those with equal trits.
    pub equal_trits: usize,
    /// Largest relative difference of effective scales.
    pub scale_error: f64,
    /// Largest difference of a value of an embedding, head or norm.
    pub float_error: f64,
    /// Tensors that are not equal, but no further apart than rounding to the form of one explains.
    pub rounded: Vec<Rounded>,
    /// What differs and where, in full sentences; empty if the models are the same but for rounding.
    pub differences: Vec<String>,
    /// What is odd, but no other model for it; full sentences.
    pub notes: Vec<String>,
    /// What both compute, where both could be run.
    pub probe: Option<Probe>,
}

/// A tensor, or the scale of one, that is rounded in one of two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rounded {
    /// Its name in the first model.
    pub tensor: String,
    /// Whether it is a ternary matrix whose scale is rounded.
    pub scale: bool,
    /// The form that rounds it.
    pub form: String,
    /// The largest difference.
    pub difference: f64,
    /// The value there in the first model.
    pub a: f32,
    /// The value there in the second model.
    pub b: f32,
}

impl Comparison {
    /// Whether nothing differs at all.
    pub fn exact(&self) -> bool {
        self.differences.is_empty() && self.rounded.is_empty()
    }

    /// The forms to which scales (or other tensors) were rounded, each once, and the tensor that this
    /// changed most.
    pub fn roundings(&self, scale: bool) -> Option<(String, &Rounded)> {
        let all: Vec<&Rounded> = self.rounded.iter().filter(|r| r.scale == scale).collect();
        let worst = *all.iter().max_by(|x, y| x.difference.total_cmp(&y.difference))?;
        let mut forms: Vec<&str> = all.iter().map(|r| r.form.as_str()).collect();
        forms.sort_unstable();
        forms.dedup();
        Some((forms.join(" and "), worst))
    }
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
    /// Differences of logits relative to the logits, root mean square.
    pub relative_rms: f64,
    /// Share of the tokens after which both prefer the same next one.
    pub top1_agreement: f64,
}

/// Logits of rounded models count as close up to this relative difference and from this share of
/// equal first choices.
pub const CLOSE: (f64, f64) = (0.03, 0.95);

impl Probe {
    /// Whether the logits are [`CLOSE`].
    pub fn close(&self) -> bool {
        self.relative_rms <= CLOSE.0 && self.top1_agreement >= CLOSE.1
    }
}

/// Compares two models tensor by tensor; `done` hears of each tensor.
///
/// # Errors
/// If a tensor of either is damaged.
pub fn compare(a: &Checkpoint, b: &Checkpoint, done: &(dyn Fn() + Sync)) -> Result<Comparison> {
    let mut comparison = Comparison { differences: a.config.differences(&b.config), ..Default::default() };
    if !comparison.differences.is_empty() {
        return Ok(comparison);
    }
    let ternary = a.config.linear == LinearKind::Ternary;
    let found: Vec<Difference> = a
        .config
        .roles()
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
        comparison.rounded.extend(difference.rounded);
        comparison.differences.extend(difference.sentence);
    }
    compare_tokens(a, b, &mut comparison)?;
    Ok(comparison)
}

/// Texts on which two tokenizers must agree.
const SAMPLES: [&str; 6] = [
    "Hello, world! It's 12345 o'clock.\n\n  ",
    "naïve 東京 🙂",
    "a  b\n\nc\tx",
    "fn main() { 0x1F }",
    "",
    demo::TEXT,
];

/// The merges of a byte-level tokenizer, in their order; of those that make one token, which is first makes nothing else,
/// and programs differ in it. Those of SentencePiece are derived from its pieces, by each program in its own way.
fn merges(json: &[u8]) -> Option<Vec<(String, String)>> {
    let mut tokenizer: Value = serde_json::from_slice(json).ok()?;
    let model = tokenizer.get_mut("model")?;
    if model.get("byte_fallback") == Some(&Value::Bool(true)) {
        return None;
    }
    let pair = |merge: Value| match merge {
        Value::String(merge) => merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        merge => serde_json::from_value(merge).ok(),
    };
    let merges = std::mem::take(model.get_mut("merges")?.as_array_mut()?);
    let mut merges: Vec<(String, String)> = merges.into_iter().map(pair).collect::<Option<_>>()?;
    let made = |(a, b): &(String, String)| format!("{a}{b}");
    merges.chunk_by_mut(|x, y| made(x) == made(y)).for_each(<[_]>::sort);
    Some(merges)
}

/// Compares what text becomes and what ends it, where both models say.
fn compare_tokens(a: &Checkpoint, b: &Checkpoint, comparison: &mut Comparison) -> Result<()> {
    compare_ends(&a.config, &b.config, comparison);
    let (Some(x), Some(y)) = (&a.tokenizer, &b.tokenizer) else {
        if a.tokenizer.is_some() != b.tokenizer.is_some() {
            comparison.notes.push("Only one of the two has a tokenizer.".into());
        }
        return Ok(());
    };
    if x == y {
        return Ok(());
    }
    let (p, q) = (tokenizer_of(a)?, tokenizer_of(b)?);
    let found = [
        other_merge(x, y),
        other_text(&p, &q),
        lacking_token([(&p, &a.provenance.name), (&q, &b.provenance.name)]),
        other_id(&p, &q),
        other_piece(&p, &q),
    ];
    let found = found.into_iter().flatten();
    comparison.differences.extend(found.map(|what| format!("The tokenizers differ: {what}.")));
    Ok(())
}

/// Compares the tokens around a text.
fn compare_ends(x: &ModelConfig, y: &ModelConfig, comparison: &mut Comparison) {
    if let (Some(p), Some(q)) = (x.bos, y.bos)
        && p != q
    {
        comparison.differences.push(format!("The tokens put in front of a text differ: {p} and {q}."));
    } else if x.bos != y.bos {
        comparison.notes.push("Only one of the two puts a token in front of a text.".into());
    }
    if !x.eos.is_empty() && !y.eos.is_empty() && x.eos != y.eos {
        let sentence = format!("The tokens that end a text differ: {:?} and {:?}.", x.eos, y.eos);
        match x.eos.iter().any(|id| y.eos.contains(id)) {
            true => comparison.notes.push(sentence),
            false => comparison.differences.push(sentence),
        }
    }
}

/// The first merge that differs.
fn other_merge(a: &[u8], b: &[u8]) -> Option<String> {
    let (found, other) = (merges(a)?, merges(b)?);
    let at = found.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let name = |merges: &[(String, String)]| {
        merges.get(at).map_or_else(|| "none".to_owned(), |(a, b)| format!("{a:?} with {b:?}"))
    };
    (found != other).then(|| {
        let (count, others) = (found.len(), other.len());
        format!("merge {at} of {count} and {others} is {} and {}", name(&found), name(&other))
    })
}

/// The first sample of text that becomes other tokens.
fn other_text(p: &Tokenizer, q: &Tokenizer) -> Option<String> {
    SAMPLES.iter().find_map(|sample| {
        let ids =
            |t: &Tokenizer| t.encode(*sample, true).map(|found| found.get_ids().to_vec()).unwrap_or_default();
        let (found, other) = (ids(p), ids(q));
        let shown = |ids: &[u32]| {
            format!("{:?}{}", &ids[..ids.len().min(40)], if ids.len() > 40 { " …" } else { "" })
        };
        let sample: String = sample.chars().take(80).collect();
        (found != other).then(|| format!("{sample:?} becomes {} and {}", shown(&found), shown(&other)))
    })
}

/// Text of an added token: a space is written in two ways.
fn added_text(token: &AddedToken) -> String {
    token.content.replace('▁', " ")
}

/// The first added token that only one of them has.
fn lacking_token(sides: [(&Tokenizer, &String); 2]) -> Option<String> {
    let [p, q] = sides;
    [(p, q), (q, p)].into_iter().find_map(|((one, name), (other, _))| {
        let those = other.get_added_tokens_decoder();
        let these = one.get_added_tokens_decoder();
        // What only fills up a vocabulary is no text's token.
        let lacks = |(id, token): &(&u32, &AddedToken)| {
            token.content != format!("[PAD{id}]")
                && !those.values().any(|t| added_text(t) == added_text(token))
                && other.token_to_id(&token.content) != Some(**id)
        };
        let (id, token) = these.iter().filter(lacks).min_by_key(|(id, _)| **id)?;
        Some(format!("only {name} takes {:?} for one token ({id}) wherever it stands", token.content))
    })
}

/// An added token that has another id.
fn other_id(p: &Tokenizer, q: &Tokenizer) -> Option<String> {
    let (these, others) = (p.get_added_tokens_decoder(), q.get_added_tokens_decoder());
    let moved = these.iter().filter_map(|(id, token)| {
        let (other, _) = others.iter().find(|(_, t)| added_text(t) == added_text(token))?;
        (other != id).then_some((id, other, token))
    });
    let (id, other, token) = moved.min_by_key(|(id, ..)| **id)?;
    Some(format!("{:?} is token {id} and {other}", token.content))
}

/// The first id that stands for another piece, but for added tokens, which are compared by what they stand for.
fn other_piece(p: &Tokenizer, q: &Tokenizer) -> Option<String> {
    let (added, others) = (p.get_added_tokens_decoder(), q.get_added_tokens_decoder());
    (0..p.get_vocab_size(true).min(q.get_vocab_size(true)) as u32).find_map(|id| {
        let (found, other) = (p.id_to_token(id)?, q.id_to_token(id)?);
        let differ = found != other && !added.contains_key(&id) && !others.contains_key(&id);
        differ.then(|| format!("token {id} is {found:?} and {other:?}"))
    })
}

/// Says which of the dialects that `open`, opened with `options`, leaves open has the trits of `known`, if one has.
///
/// # Errors
/// If a tensor of either is damaged.
pub fn told_by(open: &Checkpoint, options: &OpenOptions, known: &Checkpoint) -> Result<Option<Checkpoint>> {
    let roles: Vec<Role> = open.config.linear_roles().collect();
    for dialect in &open.provenance.choices {
        let options = OpenOptions { dialect: Some(dialect.clone()), assume: false, ..options.clone() };
        let tried = Checkpoint::open_with(&open.provenance.name, &options)?;
        let mut equal =
            tried.config.linear == known.config.linear && tried.config.layers == known.config.layers;
        for &role in &roles {
            if !equal || tried.config.shape(role) != known.config.shape(role) {
                equal = false;
                break;
            }
            equal = tried.ternary(role)?.trits == known.ternary(role)?.trits;
        }
        if equal {
            return Ok(Some(tried));
        }
    }
    Ok(None)
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
    let squares = |of: &mut dyn Iterator<Item = f32>| of.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let apart = squares(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    let agree = a.chunks(vocab).zip(b.chunks(vocab)).filter(|(a, b)| best(a) == best(b)).count();
    Ok(Probe {
        tokens,
        identical: a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()),
        max_difference: a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max),
        relative_rms: (apart / squares(&mut a.iter().copied()).max(f64::MIN_POSITIVE)).sqrt(),
        top1_agreement: agree as f64 / tokens as f64,
    })
}

/// How far apart, relative, the means of one matrix may be that two programs take in f32: each adds up
/// in its own order.
const MEANS_APART: f64 = 5e-7;

struct Difference {
    kind: Kind,
    rounded: Option<Rounded>,
    sentence: Option<String>,
}

enum Kind {
    Ternary { equal: bool, scale: f64 },
    Float(f64),
}

/// The tensor's name in a checkpoint.
fn name(checkpoint: &Checkpoint, role: Role) -> String {
    checkpoint.info(role).map_or_else(|| format!("{role}"), |info| info.name.clone())
}

fn compare_ternary(a: &Checkpoint, b: &Checkpoint, role: Role) -> Result<Difference> {
    let (x, y) = (a.ternary(role)?, b.ternary(role)?);
    let at = name(a, role);
    let equal = trits_sha256(&x.trits) == trits_sha256(&y.trits);
    let zero = x.trits.as_slice().iter().all(|&t| t == 0);
    let same = zero && equal || x.scale == y.scale;
    let scale = if same { 0.0 } else { (f64::from(x.scale) / f64::from(y.scale) - 1.0).abs() };
    let (round_a, round_b) = (scale_rounding(a, b, role), scale_rounding(b, a, role));
    let of_master = [a, b].iter().any(|c| c.provenance.scale_rule.contains("absmean"));
    let rounding = match same {
        true => None,
        false => explained(x.scale, round_a, y.scale, round_b)
            .or((of_master && scale <= MEANS_APART).then_some(Form::F32)),
    };
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
    } else if !same && rounding.is_none() {
        let form = |rounding: Option<Form>| rounding.map_or("exact".to_owned(), |form| form.name());
        Some(format!(
            "{at}: the scales differ by {:.2e} (relative): {} ({}) and {} ({}).",
            scale,
            number(x.scale),
            form(round_a),
            number(y.scale),
            form(round_b)
        ))
    } else {
        None
    };
    let rounded = rounding.filter(|_| equal).map(|form| Rounded {
        tensor: at,
        scale: true,
        form: form.name(),
        difference: scale,
        a: x.scale,
        b: y.scale,
    });
    Ok(Difference { kind: Kind::Ternary { equal, scale }, rounded, sentence })
}

/// The form that rounded a scale of `c`. A scale tensor in bf16 states what the model is; it is a
/// rounded one next to master weights, of which it was made, or where we rounded it.
fn scale_rounding(c: &Checkpoint, other: &Checkpoint, role: Role) -> Option<Form> {
    if let Some(own) = c.scale_rounding(role) {
        return Some(own);
    }
    if !(c.kept.rounded || other.provenance.scale_rule.contains("absmean")) {
        return None;
    }
    Form::float(&c.info(role.scale()?)?.form).filter(|form| *form != Form::F32)
}

/// The form whose rounding makes `x` of `y` or `y` of `x`, where one does. `None` for a form stands for
/// one that holds every value.
fn explained(x: f32, round_x: Option<Form>, y: f32, round_y: Option<Form>) -> Option<Form> {
    let gives = |from: f32, form: Option<Form>, to: f32| form.filter(|form| form.round(from) == Some(to));
    gives(x, round_y, y).or_else(|| gives(y, round_x, x)).or_else(|| {
        // Both are rounded: of something between.
        let (form_x, form_y) = (round_x?, round_y?);
        let both = half_step(x, form_x) + half_step(y, form_y);
        let coarser = if half_step(x, form_x) > half_step(y, form_y) { form_x } else { form_y };
        (form_x != form_y && (x - y).abs() <= both).then_some(coarser)
    })
}

/// Half a unit in the last place; below the normal range of f16, half its smallest step.
fn half_step(x: f32, form: Form) -> f32 {
    match form {
        Form::F16 => (x.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
        Form::Bf16 => x.abs() * 2f32.powi(-8),
        _ => 0.0,
    }
}

/// Rows of a float matrix that are compared at once.
const ROWS: usize = 256;

fn compare_floats(a: &Checkpoint, b: &Checkpoint, role: Role) -> Result<Difference> {
    let form = |c: &Checkpoint| c.info(role).and_then(|info| Form::float(&info.form)).unwrap_or(Form::F32);
    let (form_a, form_b) = (form(a), form(b));
    let exact = |form: Form| if form == Form::F32 { None } else { Some(form) };
    let (round_a, round_b) = (exact(form_a), exact(form_b));
    let quantised = [form_a, form_b].into_iter().find(|form| matches!(form, Form::Quant(_)));
    let shape = a.config.shape(role);
    let rows = if shape.len() == 2 { shape[0] } else { 1 };
    // The largest difference, where it is and the values there; the first that no form explains.
    let (mut worst, mut wrong) = (None::<(f64, f32, f32)>, None);
    // Of values that differ: the first, and how many there are, of how many.
    let (mut first, mut differ, mut all) = (None, 0usize, 0usize);
    let block = if [form_a, form_b].contains(&Form::Quant(Quant::Q6K)) { 256 } else { 32 };
    for start in (0..rows).step_by(ROWS) {
        let read = |c: &Checkpoint| match shape.len() {
            2 => c.float_rows(role, start..rows.min(start + ROWS)),
            _ => c.float(role),
        };
        let (x, y) = (read(a)?.to_f32(), read(b)?.to_f32());
        all += x.len();
        for (i, (bx, by)) in x.chunks(block).zip(y.chunks(block)).enumerate() {
            let largest = bx.iter().chain(by).fold(0f32, |m, v| m.max(v.abs()));
            for (j, (&x, &y)) in bx.iter().zip(by).enumerate() {
                if x.to_bits() == y.to_bits() {
                    continue;
                }
                let fine = match quantised {
                    Some(_) => {
                        let allowed = grid(form_a, x, largest) + grid(form_b, y, largest);
                        // A value that is no number is further away than any.
                        (x - y).abs() <= allowed
                    }
                    None => form_a != form_b && explained(x, round_a, y, round_b).is_some(),
                };
                let index = start * (shape.iter().product::<usize>() / rows) + i * block + j;
                differ += 1;
                first = first.or(Some((index, x, y)));
                if !fine && wrong.is_none() {
                    wrong = Some((index, x, y));
                }
                let error = f64::from((x - y).abs());
                if worst.is_none_or(|(most, ..)| error > most) {
                    worst = Some((error, x, y));
                }
            }
        }
    }
    // Values that are off by less than a step are another program's choice of grids if they are many, and damage if they
    // are few: what rounds alike may still differ in a few ties, which cannot be told from it.
    if quantised.is_some() && form_a == form_b && differ * FEW < all {
        wrong = wrong.or(first);
    }
    let cols = shape.last().copied().unwrap_or(1);
    let sentence = wrong.map(|(index, x, y)| {
        let place = match shape.len() {
            1 => format!("value {index}"),
            _ => format!("row {}, column {}", index / cols, index % cols),
        };
        let why = match form_a == form_b {
            true => format!("and both are {}", form_a.name()),
            false => format!("which {} and {} do not explain", form_a.name(), form_b.name()),
        };
        format!(
            "{}: {place} is {} and {}, {:.2e} apart, {why}.",
            name(a, role),
            number(x),
            number(y),
            (x - y).abs()
        )
    });
    let rounded = worst.filter(|_| sentence.is_none()).map(|(difference, x, y)| {
        let coarser = quantised.or_else(|| explained(x, round_a, y, round_b)).unwrap_or(form_b);
        Rounded { tensor: name(a, role), scale: false, form: coarser.name(), difference, a: x, b: y }
    });
    let error = worst.map_or(0.0, |(error, ..)| if error.is_nan() { f64::INFINITY } else { error });
    Ok(Difference { kind: Kind::Float(error), rounded, sentence })
}

/// One in so many values: where fewer of two tensors in one quantised form differ, one was not quantised anew.
const FEW: usize = 50;

/// How far a form may put a value off, among neighbours of which `largest` is the largest.
fn grid(form: Form, x: f32, largest: f32) -> f32 {
    match form {
        // Half a step of the block's grid and the rounding of its scale; a whole step for Q4_0, which
        // clips one side, and for Q6_K, which chooses the grid by least squares.
        Form::Quant(Quant::Q8_0) => largest / 127.0 * 0.6,
        Form::Quant(Quant::Q6K) => largest / 32.0 * 1.1,
        Form::Quant(Quant::Q4_0) => largest / 8.0 * 1.1,
        _ => half_step(x, form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_many_values_is_that_of_all_their_bytes() {
        let values: Vec<u32> = (0..5000).map(|i| i * i).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        for n in [0, 1, 2048, 5000] {
            assert_eq!(
                sha256(&values[..n], u32::to_le_bytes)[..],
                Sha256::digest(&bytes[..4 * n])[..],
                "{n}"
            );
        }
    }
}
