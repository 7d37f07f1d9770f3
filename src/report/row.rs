//! One flat row for each arm: what the CSV and JSON files hold, under the same names.

use crate::checkpoint::role::Linear;
use crate::record::{Arm, MeasuredEnergy, Outcome, Record, Test};
use serde::Serialize;
use tritmark_kernels::layout;

/// An arm as a row. Empty fields are figures that the arm does not have; a reason stands beside
/// those that it could have had.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Number of the record, from 1.
    pub record: usize,
    /// Start of the record.
    pub started: String,
    /// CPU.
    pub cpu: String,
    /// Program and version.
    pub tool: String,
    /// Model.
    pub model: String,
    /// Its hash.
    pub model_hash: String,
    /// Whether it was made ternary after training.
    pub post_training: bool,
    /// Engine.
    pub engine: String,
    /// Layout.
    pub layout: Option<String>,
    /// Tier.
    pub tier: Option<String>,
    /// What else distinguishes the subject.
    pub variant: Option<String>,
    /// Threads.
    pub threads: u32,
    /// Test in short.
    pub test: String,
    /// Where the figure was taken over from, for foreign ones.
    pub imported: Option<String>,
    /// Unit of the speeds.
    pub speed_unit: Option<String>,
    /// Median.
    pub speed: Option<f64>,
    /// Lower end of the 95 % interval.
    pub speed_low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub speed_high: Option<f64>,
    /// Median absolute deviation.
    pub speed_mad: Option<f64>,
    /// Number of samples.
    pub speed_samples: Option<usize>,
    /// The machine's limit for it.
    pub speed_limit: Option<f64>,
    /// Median as percent of the limit.
    pub speed_percent_of_limit: Option<f64>,
    /// Median time between tokens, milliseconds.
    pub token_ms_p50: Option<f64>,
    /// 95th percentile of it.
    pub token_ms_p95: Option<f64>,
    /// 99th percentile of it.
    pub token_ms_p99: Option<f64>,
    /// Time to the first token, milliseconds.
    pub first_token_ms: Option<f64>,
    /// Seconds that loading the model took, with these threads.
    pub load_s: Option<f64>,
    /// Bytes of its tensors that were read.
    pub load_bytes: Option<u64>,
    /// Perplexity.
    pub ppl: Option<f64>,
    /// Its standard error.
    pub ppl_stderr: Option<f64>,
    /// Mean negative log-likelihood, nats a token.
    pub nll: Option<f64>,
    /// Its bits.
    pub nll_bits: Option<String>,
    /// Bits per byte.
    pub bits_per_byte: Option<f64>,
    /// Tokens scored.
    pub tokens_scored: Option<u64>,
    /// What it was compared with.
    pub reference: Option<String>,
    /// Mean KL divergence, nats.
    pub kl_mean: Option<f64>,
    /// Its maximum.
    pub kl_max: Option<f64>,
    /// Share of positions with the same first choice.
    pub top1: Option<f64>,
    /// Mean share of the first five choices in common.
    pub top5: Option<f64>,
    /// Mean difference of negative log-likelihood.
    pub delta_nll: Option<f64>,
    /// Its paired standard error.
    pub delta_nll_stderr: Option<f64>,
    /// Share of questions answered rightly.
    pub acc: Option<f64>,
    /// Its standard error.
    pub acc_stderr: Option<f64>,
    /// The same by likelihood for each character.
    pub acc_norm: Option<f64>,
    /// Its standard error.
    pub acc_norm_stderr: Option<f64>,
    /// Questions asked.
    pub questions: Option<u64>,
    /// Measured energy, gross joules a token.
    pub measured_j_per_token: Option<f64>,
    /// Measured energy less idle, joules a token.
    pub measured_net_j_per_token: Option<f64>,
    /// What the meter covers, and which meter.
    pub measured_domain: Option<String>,
    /// Why no energy was measured.
    pub energy_not_measured: Option<String>,
    /// Modelled arithmetic energy at 7 nm, joules a token.
    pub modelled_j_per_token_7nm: Option<f64>,
    /// Modelled arithmetic energy at 45 nm, joules a token.
    pub modelled_j_per_token_45nm: Option<f64>,
    /// Power as the user stated it times the time of a token, joules: modelled by that, not measured.
    pub modelled_j_per_token_tdp: Option<f64>,
    /// Bits of a weight of the blocks' matrices.
    pub bits_per_weight: Option<f64>,
    /// Bytes of all of them.
    pub weight_bytes: Option<u64>,
    /// Multiply-accumulates of those matrices for each of these bytes.
    pub mac_per_byte: Option<f64>,
    /// The same a second at the median speed, 10⁹.
    pub gmac_per_s: Option<f64>,
    /// What may be wrong with it.
    pub warnings: String,
}

/// The rows of some records.
pub fn rows(records: &[Record]) -> Vec<Row> {
    records.iter().enumerate().flat_map(|(i, r)| r.arms.iter().map(move |a| row(i + 1, r, a))).collect()
}

fn row(number: usize, record: &Record, arm: &Arm) -> Row {
    let (subject, speed, accuracy) = (&arm.subject, arm.speed.as_ref(), arm.accuracy.as_ref());
    let model = record.model(&subject.model);
    let against = accuracy.and_then(|a| a.against.as_ref());
    let (measured, reason) = match &arm.energy_measured {
        Some(Outcome::Measured(energy)) => (Some(energy), None),
        Some(Outcome::NotMeasured(reason)) => (None, Some(reason.clone())),
        None => (None, None),
    };
    let work = work(record, arm);
    let latency = |i: usize| speed.and_then(|s| s.latency_ms).map(|l| l[i]);
    let mut warnings = speed.map(|s| s.warnings.clone()).unwrap_or_default();
    warnings.extend(measured.map(|m| m.warnings.clone()).unwrap_or_default());
    Row {
        record: number,
        started: record.started.clone(),
        cpu: record.environment.cpu.clone(),
        tool: format!("{} {}", record.tool.name, record.tool.version),
        model: subject.model.clone(),
        model_hash: model.map(|m| m.hash.clone()).unwrap_or_default(),
        post_training: model.is_some_and(|m| m.post_training),
        engine: subject.engine.clone(),
        layout: subject.layout.clone(),
        tier: subject.tier.clone(),
        variant: subject.variant.clone(),
        threads: subject.threads,
        test: arm.test.to_string(),
        imported: arm.imported.clone(),
        speed_unit: speed.map(|s| s.unit.clone()),
        speed: speed.map(|s| s.median),
        speed_low: speed.and_then(|s| s.known_interval()).map(|[low, _]| low),
        speed_high: speed.and_then(|s| s.known_interval()).map(|[_, high]| high),
        speed_mad: speed.map(|s| s.mad),
        speed_samples: speed.map(|s| s.samples.len()),
        speed_limit: speed.and_then(|s| s.bound.as_ref()).map(|b| b.value),
        speed_percent_of_limit: speed.and_then(|s| s.bound.as_ref().map(|b| 100.0 * s.median / b.value)),
        token_ms_p50: latency(0),
        token_ms_p95: latency(1),
        token_ms_p99: latency(2),
        first_token_ms: speed.and_then(|s| s.first_token_ms),
        load_s: speed.and_then(|s| s.load.as_ref()).map(|l| l.seconds),
        load_bytes: speed.and_then(|s| s.load.as_ref()).map(|l| l.bytes),
        ppl: accuracy.map(|a| a.ppl),
        ppl_stderr: accuracy.map(|a| a.ppl_stderr),
        nll: accuracy.map(|a| a.nll),
        nll_bits: accuracy.map(|a| a.nll_bits.clone()),
        bits_per_byte: accuracy.and_then(|a| a.bits_per_byte),
        tokens_scored: accuracy.map(|a| a.scored),
        reference: against.map(|d| d.reference.clone()),
        kl_mean: against.map(|d| d.kl_mean),
        kl_max: against.map(|d| d.kl_max),
        top1: against.map(|d| d.top1),
        top5: against.map(|d| d.top5),
        delta_nll: against.map(|d| d.delta_nll),
        delta_nll_stderr: against.map(|d| d.delta_nll_stderr),
        acc: arm.choices.as_ref().map(|c| c.acc),
        acc_stderr: arm.choices.as_ref().and_then(|c| c.acc_stderr),
        acc_norm: arm.choices.as_ref().and_then(|c| c.acc_norm),
        acc_norm_stderr: arm.choices.as_ref().and_then(|c| c.acc_norm_stderr),
        questions: arm.choices.as_ref().map(|c| c.questions),
        measured_j_per_token: measured.map(|m| m.joules_per_token),
        measured_net_j_per_token: measured.and_then(MeasuredEnergy::net_joules_per_token),
        measured_domain: measured.map(|m| format!("{} ({})", m.domain, m.source)),
        energy_not_measured: reason,
        modelled_j_per_token_7nm: arm.energy_modelled.as_ref().map(|m| m.joules_per_token_7nm),
        modelled_j_per_token_45nm: arm.energy_modelled.as_ref().map(|m| m.joules_per_token_45nm),
        modelled_j_per_token_tdp: arm.energy_rated.as_ref().map(|e| e.joules_per_token),
        bits_per_weight: weight_bits(record, arm),
        weight_bytes: weight_bytes(record, arm),
        mac_per_byte: work.map(|w| w.0),
        gmac_per_s: work.map(|w| w.1),
        warnings: warnings.join(" "),
    }
}

/// Bytes of the blocks' matrices of an arm of ours in its layout, which follow from their shapes.
fn packed_bytes(record: &Record, arm: &Arm) -> Option<u64> {
    let layout =
        layout::by_name(arm.subject.layout.as_deref()?).filter(|_| arm.subject.engine == "tritmark")?;
    let config = &record.model(&arm.subject.model)?.config;
    let of_block = Linear::ALL.map(|linear| {
        let (rows, cols) = config.linear_shape(linear);
        layout.packed_len(rows, cols).ok().map(|bytes| bytes as u64)
    });
    of_block.into_iter().sum::<Option<u64>>()?.checked_mul(config.layers as u64)
}

/// Bits of a weight of the blocks' matrices; the reference computes in f32.
pub fn weight_bits(record: &Record, arm: &Arm) -> Option<f64> {
    let model = record.model(&arm.subject.model);
    let packed = packed_bytes(record, arm).zip(model).filter(|(_, model)| model.linear_params > 0);
    let float = || if arm.subject.engine == "candle" { Some(32) } else { arm.subject.float_bits() };
    let packed = packed.map(|(bytes, model)| 8.0 * bytes as f64 / model.linear_params as f64);
    packed.or_else(|| float().map(f64::from))
}

/// Bytes of the blocks' matrices as a subject holds them.
pub fn weight_bytes(record: &Record, arm: &Arm) -> Option<u64> {
    let model = record.model(&arm.subject.model)?;
    let float = || Some((model.linear_params as f64 * weight_bits(record, arm)? / 8.0) as u64);
    packed_bytes(record, arm).or_else(float)
}

/// Work of a test of speed in packed weights: multiply-accumulates for each byte of them, and 10⁹ a
/// second. Only those of the blocks' matrices are counted.
pub fn work(record: &Record, arm: &Arm) -> Option<(f64, f64)> {
    let batch = match arm.test {
        Test::Model { prompt, generate: 0, .. } => prompt,
        Test::Model { prompt: 0, .. } => 1,
        _ => return None,
    };
    let macs = record.model(&arm.subject.model)?.linear_params as f64;
    let bytes = packed_bytes(record, arm)? as f64;
    Some((macs * f64::from(batch) / bytes, arm.speed.as_ref()?.median * macs / 1e9))
}

/// Short name of what an arm measures: kernel or engine, and what else distinguishes it.
pub fn subject_name(arm: &Arm) -> String {
    let s = &arm.subject;
    let name = match (&s.layout, &s.tier) {
        (Some(layout), Some(tier)) => format!("{layout}/{tier}"),
        (Some(layout), None) => layout.clone(),
        (None, Some(tier)) => format!("{} {tier}", s.engine),
        (None, None) => s.engine.clone(),
    };
    let name =
        if s.layout.is_some() && s.engine != "tritmark" { format!("{} {name}", s.engine) } else { name };
    match &s.variant {
        Some(variant) => format!("{name}, {variant}"),
        None => name,
    }
}

/// A test in words for a heading: `decode, 128 tokens`.
pub fn test_name(test: &Test) -> String {
    let depth = |d: u32| if d > 0 { format!(" after {d}") } else { String::new() };
    match test {
        Test::Model { prompt, generate: 0, depth: d } => {
            format!("prefill, {prompt} tokens{} ({test})", depth(*d))
        }
        Test::Model { prompt: 0, generate, depth: d } => {
            format!("decode, {generate} tokens{} ({test})", depth(*d))
        }
        Test::Model { .. } => format!("prefill and decode ({test})"),
        Test::Kernel { rows, cols, batch } => format!("one matrix {rows}×{cols}, batch {batch}"),
        Test::Perplexity { convention, n_ctx, text } => {
            format!("perplexity of {text}, convention {convention}, windows of {n_ctx}")
        }
        Test::Choices { task, questions, .. } => format!("{questions} questions of {task}"),
    }
}
