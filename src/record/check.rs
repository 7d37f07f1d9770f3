//! What types cannot say of records: that their figures are possible and fit each other.

use super::{
    Accuracy, Arm, Choices, Control, Divergence, MeasuredEnergy, Model, ModelledEnergy, Outcome, Proof,
    RatedEnergy, Record, SCHEMA, Speed, Test,
};
use crate::energy::MOST_WATTS;
use crate::energy::model::arithmetic;
use crate::machine::{ComputeLimit, Environment};
use crate::stats;
use std::collections::HashSet;
use tritmark_kernels::{Tier, layout};

/// What types cannot say: that the figures of a record are possible and fit each other.
///
/// # Errors
/// Names the first field that does not.
pub fn check(record: &Record) -> Result<(), String> {
    if record.schema != SCHEMA {
        return Err(format!("field `schema` must be {SCHEMA}, it is {}", record.schema));
    }
    check_frame(record).map_err(|what| format!("field `{what}"))?;
    let mut models = HashSet::new();
    for (i, model) in record.models.iter().enumerate() {
        if !models.insert(model.id.as_str()) {
            return Err(format!("field `models[{i}].id`: '{}' stands twice", model.id));
        }
        let hex =
            model.hash.len() == 64 && model.hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let at = |e: String| format!("field `models[{i}].{e}");
        // Sizes that fit, so that they can be multiplied.
        model.config.check(|field| format!("config.{field}`")).map_err(at)?;
        all(&[
            ("hash", hex, "64 small hexadecimal digits"),
            ("params", (1..=MOST_PARAMS).contains(&model.params), "at least 1, and no more than models have"),
            ("linear_params", model.linear_params <= model.params, "at most `params`"),
            (
                "linear_params",
                model.linear_params == model.config.linear_params(),
                "what follows from `config`",
            ),
        ])
        .map_err(at)?;
    }
    for (i, proof) in record.proofs.iter().enumerate() {
        if record.proofs[..i].iter().any(|p| (&p.model, &p.layout) == (&proof.model, &proof.layout)) {
            return Err(format!("field `proofs[{i}]`: '{}' in {} stands twice", proof.model, proof.layout));
        }
        match record.model(&proof.model) {
            None => {
                return Err(format!("field `proofs[{i}].model`: no model '{}' in this record", proof.model));
            }
            Some(model) if model.linear_params == 0 => {
                return Err(format!("field `proofs[{i}].model`: '{}' has no weight to prove", proof.model));
            }
            Some(model) if proof.trits_equal => {
                let bits = proof.bytes as f64 * 8.0 / model.linear_params as f64;
                same(
                    "bits_per_weight",
                    proof.bits_per_weight,
                    bits,
                    "follows from `bytes` and the model's weights",
                )
                .map_err(|e| format!("field `proofs[{i}].{e}"))?;
            }
            Some(_) => {}
        }
        check_proof(proof).map_err(|e| format!("field `proofs[{i}].{e}"))?;
    }
    let mut arms = HashSet::new();
    for (i, arm) in record.arms.iter().enumerate() {
        let at = |what: String| format!("field `arms[{i}].{what}");
        // Kernels alone run on random trits, and of foreign models a record knows no more than the name.
        let has_model = !matches!(arm.test, Test::Kernel { .. }) && arm.imported.is_none();
        if has_model && !models.contains(arm.subject.model.as_str()) {
            return Err(at(format!("subject.model`: no model '{}' in this record", arm.subject.model)));
        }
        if !arms.insert((&arm.subject, &arm.test)) {
            return Err(at(format!("subject`: this subject stands twice under {}", arm.test)));
        }
        check_arm(arm, record.protocol.rounds).map_err(at)?;
        let model = record.model(&arm.subject.model).filter(|_| has_model);
        if let (Some(modelled), Some(model)) = (&arm.energy_modelled, model) {
            check_modelled(modelled, model).map_err(at)?;
        }
    }
    let mut controls = HashSet::new();
    for (i, control) in record.controls.iter().enumerate() {
        let once = controls.insert((&control.name, control.threads, control.run));
        all(&[("name", once, "once for each number of threads")])
            .and_then(|()| check_control(control))
            .map_err(|e| format!("field `controls[{i}].{e}"))?;
    }
    Ok(())
}

/// Energy that says it was modelled as this program does, against the model it is of.
fn check_modelled(modelled: &ModelledEnergy, model: &Model) -> Result<(), String> {
    let ours = arithmetic(&model.config);
    if modelled.how != ours.how {
        return Ok(());
    }
    let equal = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
    let [nm7, nm45] = [
        equal(modelled.joules_per_token_7nm, ours.joules_per_token_7nm),
        equal(modelled.joules_per_token_45nm, ours.joules_per_token_45nm),
    ];
    all(&[
        ("energy_modelled.joules_per_token_7nm", nm7, "what `how` says"),
        ("energy_modelled.joules_per_token_45nm", nm45, "what `how` says"),
    ])
}

/// A proof on its own.
///
/// # Errors
/// Names the first field that cannot be; its closing backtick is there, the opening one is the caller's.
pub fn check_proof(proof: &Proof) -> Result<(), String> {
    // Of what a layout could not hold, nothing was written.
    let least = if proof.trits_equal { 0.1 } else { 0.0 };
    all(&[
        ("layout", layout::by_name(&proof.layout).is_some(), "a layout of `tritmark doctor`"),
        ("bytes", proof.bytes > 0 || !proof.trits_equal, "at least 1"),
        ("tensors", proof.tensors > 0 || !proof.trits_equal, "at least 1"),
        (
            "bits_per_weight",
            (least..=64.0).contains(&proof.bits_per_weight),
            "a size of one weight, at most 64",
        ),
        ("scale_error", proof.scale_error >= 0.0 && proof.scale_error.is_finite(), "at least 0"),
        ("failure", proof.trits_equal == proof.failure.is_none(), "there where `trits_equal` is false"),
        ("changed", !(proof.changed && proof.trits_equal), "false where `trits_equal` is true"),
    ])
}

/// A fixed load on its own.
///
/// # Errors
/// As of [`check_proof`].
pub fn check_control(control: &Control) -> Result<(), String> {
    all(&[
        ("name", ["read", "compute"].contains(&control.name.as_str()), "`read` or `compute`"),
        ("threads", control.threads > 0, "at least 1"),
    ])?;
    positive("samples", &control.samples)?;
    fastest("best", &control.samples, &control.best)
}

/// The machine, the times and the protocol.
fn check_frame(record: &Record) -> Result<(), String> {
    let time = |name: &str, text: &str| {
        let parsed = text.parse::<jiff::Timestamp>();
        parsed.map_err(|_| format!("{name}`: '{text}' is no time in RFC 3339"))
    };
    let (started, finished) = (time("started", &record.started)?, time("finished", &record.finished)?);
    if finished < started {
        return Err(format!("finished`: {} is before the start, {}", record.finished, record.started));
    }
    let env = &record.environment;
    let Environment { threads, cgroup_cpus, steal, load, mhz, caches, .. } = env;
    let counts = [
        ("sockets", env.sockets.map(u64::from)),
        ("cores", env.cores.map(u64::from)),
        ("numa_nodes", env.numa_nodes.map(u64::from)),
        ("memory", env.memory),
    ];
    for (name, count) in counts {
        at_least(&format!("environment.{name}"), 1.0, count.map(|n| n as f64))?;
    }
    at_least("environment.celsius", -273.15, env.celsius.into_iter().flatten())?;
    if !env.absent.is_empty() {
        let unknown = env.unknown();
        let given = |name: &&str| env.absent.get(*name).is_some_and(|r| !r.trim().is_empty());
        let no_reason = unknown.iter().copied().find(|name| !given(name));
        let no_field = || env.absent.keys().map(|name| &name[..]).find(|name| !unknown.contains(name));
        if let Some(name) = no_reason.or_else(no_field) {
            return Err(format!(
                "environment.absent`: a reason for each field that is null is expected, and no other; see `{name}`"
            ));
        }
    }
    at_least("environment.threads", 1.0, [f64::from(*threads)])?;
    at_least("environment.load", 0.0, *load)?;
    at_most("environment.load", MOST, *load)?;
    at_least("environment.steal", 0.0, *steal)?;
    at_most("environment.steal", 1.0, *steal)?;
    positive("environment.cgroup_cpus", cgroup_cpus.as_slice())?;
    positive("environment.mhz", mhz.as_ref().map_or(&[], |m| m))?;
    at_least("environment.caches", 1.0, caches.iter().map(|c| c.1 as f64))?;
    at_least("protocol.rounds", 1.0, [f64::from(record.protocol.rounds)])?;
    at_least("protocol.min_time_s", 0.0, [record.protocol.min_time_s])?;
    at_most("protocol.min_time_s", MOST, [record.protocol.min_time_s])?;
    if let Outcome::Measured(limits) = &record.limits {
        let figures = |list: &[ComputeLimit]| list.iter().map(|l| l.gmac_per_s).collect::<Vec<_>>();
        positive("limits.measured.read", &limits.read.iter().map(|r| r.gb_per_s).collect::<Vec<_>>())?;
        positive("limits.measured.int8", &figures(&limits.int8))?;
        positive("limits.measured.f32", &figures(&limits.f32))?;
        let threads = |list: &[ComputeLimit]| list.iter().all(|l| l.threads > 0);
        let read = limits.read.iter().all(|r| r.threads > 0 && r.bytes > 0);
        all(&[
            ("limits.measured.read", read, "of at least 1 thread and byte"),
            ("limits.measured.int8", threads(&limits.int8), "of at least 1 thread"),
            ("limits.measured.f32", threads(&limits.f32), "of at least 1 thread"),
        ])?;
    }
    reason("limits.not_measured", &record.limits)
}

/// That what was not measured says why.
fn reason<T>(field: &str, outcome: &Outcome<T>) -> Result<(), String> {
    let given = !matches!(outcome, Outcome::NotMeasured(reason) if reason.trim().is_empty());
    all(&[(field, given, "a reason in words")])
}

/// What must hold of fields: name, whether it does, and what is expected.
fn all(rules: &[(&str, bool, &str)]) -> Result<(), String> {
    match rules.iter().find(|(_, holds, _)| !holds) {
        Some((field, _, expected)) => Err(format!("{field}`: expected {expected}")),
        None => Ok(()),
    }
}

/// What an arm holds must be what its test measures.
fn check_kind(arm: &Arm) -> Result<(), String> {
    let of_speed = matches!(arm.test, Test::Model { .. } | Test::Kernel { .. });
    let of_text = matches!(arm.test, Test::Perplexity { .. });
    let of_choices = matches!(arm.test, Test::Choices { .. });
    let energy = arm.energy_measured.is_some() || arm.energy_modelled.is_some() || arm.energy_rated.is_some();
    let ours = arm.subject.engine == "tritmark";
    let layout = arm.subject.layout.as_deref().is_none_or(|l| !ours || layout::by_name(l).is_some());
    let tier = arm.subject.tier.as_deref().is_none_or(|t| !ours || t.parse::<Tier>().is_ok());
    all(&[
        ("speed", arm.speed.is_some() == of_speed, "with tests of speed, and with no other"),
        ("accuracy", arm.accuracy.is_some() == of_text, "with tests of perplexity, and with no other"),
        ("choices", arm.choices.is_some() == of_choices, "with tests of multiple choice, and with no other"),
        ("energy_measured", of_speed || !energy, "energy with tests of speed only"),
        ("imported", arm.imported.is_none() || !ours, "with other engines than tritmark only"),
        ("subject.engine", !arm.subject.engine.trim().is_empty(), "a name"),
        ("subject.layout", layout, "a layout of `tritmark doctor`"),
        ("subject.tier", tier, "a tier of `tritmark doctor`"),
    ])
}

/// An arm on its own, of a test with that many rounds.
///
/// # Errors
/// As of [`check_proof`].
pub fn check_arm(arm: &Arm, rounds: u32) -> Result<(), String> {
    check_kind(arm)?;
    at_least("subject.threads", 1.0, [f64::from(arm.subject.threads)])?;
    let unit = match arm.test {
        Test::Model { prompt: 0, generate: 0, .. } => return Err("test`: it has no token".into()),
        Test::Kernel { rows, cols, batch } if [rows, cols, batch].contains(&0) => {
            return Err("test`: a matrix has a row, a column and a token at least".into());
        }
        Test::Perplexity { n_ctx: 0, .. } => return Err("test`: a window has a token at least".into()),
        Test::Kernel { .. } => "GMAC/s",
        _ => "tokens/s",
    };
    if let Some(speed) = &arm.speed {
        if speed.unit != unit {
            return Err(format!("speed.unit`: this test is measured in {unit}, not '{}'", speed.unit));
        }
        check_speed(speed, rounds)?;
    }
    check_speed_of(arm)?;
    arm.accuracy.as_ref().map_or(Ok(()), |accuracy| check_accuracy(accuracy, &arm.test))?;
    arm.choices.as_ref().map_or(Ok(()), |choices| check_choices(choices, &arm.test))?;
    if let Some(modelled) = &arm.energy_modelled {
        positive("energy_modelled.joules_per_token_7nm", &[modelled.joules_per_token_7nm])?;
        positive("energy_modelled.joules_per_token_45nm", &[modelled.joules_per_token_45nm])?;
        let rises = modelled.joules_per_token_7nm <= modelled.joules_per_token_45nm;
        all(&[("energy_modelled.joules_per_token_45nm", rises, "no less than at 7 nm")])?;
    }
    if let Some(rated) = &arm.energy_rated {
        check_rated(rated, arm.speed.as_ref().map_or(f64::NAN, |speed| speed.median))?;
    }
    match &arm.energy_measured {
        Some(Outcome::Measured(energy)) => check_energy(energy),
        Some(outcome) => reason("energy_measured.not_measured", outcome),
        None => Ok(()),
    }
}

/// That times between tokens and to the first one are of tests that have them.
fn check_speed_of(arm: &Arm) -> Result<(), String> {
    let Some(speed) = &arm.speed else { return Ok(()) };
    let (prompt, generate) = match arm.test {
        Test::Model { prompt, generate, .. } => (prompt, generate),
        _ => (0, 0),
    };
    all(&[
        ("speed.latency_ms", speed.latency_ms.is_none() || generate > 0, "with tests that generate only"),
        ("speed.first_token_ms", speed.first_token_ms.is_none() || prompt > 0, "with tests of prompts only"),
    ])
}

fn check_accuracy(accuracy: &Accuracy, test: &Test) -> Result<(), String> {
    if accuracy.nll_bits != format!("{:016x}", accuracy.nll.to_bits()) {
        return Err(format!(
            "accuracy.nll_bits`: {} are not the bits of {}",
            accuracy.nll_bits, accuracy.nll
        ));
    }
    same("accuracy.ppl", accuracy.ppl, accuracy.nll.exp(), "follows from nll")?;
    at_least("accuracy.ppl_stderr", 0.0, [accuracy.ppl_stderr])?;
    at_least("accuracy.scored", 1.0, [accuracy.scored as f64])?;
    at_least("accuracy.windows", 1.0, [accuracy.windows as f64])?;
    check_digest("accuracy.tokens_sha256", accuracy.tokens_sha256.as_deref())?;
    at_least("accuracy.seconds", 0.0, [accuracy.seconds])?;
    positive("accuracy.bits_per_byte", accuracy.bits_per_byte.as_slice())?;
    at_least("accuracy.nll", 0.0, [accuracy.nll])?;
    if let Test::Perplexity { n_ctx, .. } = test {
        at_most("accuracy.scored", accuracy.windows as f64 * f64::from(*n_ctx), [accuracy.scored as f64])?;
    }
    accuracy.against.as_ref().map_or(Ok(()), check_divergence)
}

fn check_choices(choices: &Choices, test: &Test) -> Result<(), String> {
    let n = choices.questions as f64;
    let asked =
        !matches!(test, Test::Choices { questions, .. } if choices.questions != u64::from(*questions));
    let share = |share: f64| (0.0..=1.0).contains(&share);
    // So many of all, and an error that zeros and ones can have.
    let right = |p: f64| share(p) && (p * n - (p * n).round()).abs() <= SLACK * n;
    let error = |p: Option<f64>, stderr: Option<f64>| {
        let most = if n > 1.0 { 0.5 / (n - 1.0).sqrt() + SLACK } else { 0.0 };
        stderr.is_none_or(|stderr| p.is_some() && (0.0..=most).contains(&stderr))
    };
    let [acc, acc_norm] = [Some(choices.acc), choices.acc_norm];
    all(&[
        ("choices.questions", asked, "as many as the test has"),
        ("choices.questions", choices.questions > 0, "at least 1"),
        ("choices.acc", right(choices.acc), "a share of the questions"),
        ("choices.acc_norm", acc_norm.is_none_or(right), "a share of the questions"),
        ("choices.chance", share(choices.chance), "a share of 0 to 1"),
        ("choices.acc_stderr", error(acc, choices.acc_stderr), "what so many answers can have"),
        (
            "choices.acc_norm_stderr",
            error(acc_norm, choices.acc_norm_stderr),
            "what so many answers can have",
        ),
    ])?;
    at_least("choices.seconds", 0.0, [choices.seconds])?;
    check_digest("choices.questions_sha256", choices.questions_sha256.as_deref())
}

fn check_rated(rated: &RatedEnergy, speed: f64) -> Result<(), String> {
    positive("energy_rated.watts", &[rated.watts])?;
    at_most("energy_rated.watts", MOST_WATTS, [rated.watts])?;
    positive("energy_rated.joules_per_token", &[rated.joules_per_token])?;
    let field = "energy_rated.joules_per_token";
    same(field, rated.joules_per_token, rated.watts / speed, "follows from watts and speed")
}

fn check_energy(energy: &MeasuredEnergy) -> Result<(), String> {
    positive("energy_measured.measured.seconds", &[energy.seconds])?;
    positive("energy_measured.measured.gross_joules", &[energy.gross_joules])?;
    at_least("energy_measured.measured.tokens", 1.0, [energy.tokens as f64])?;
    let per_token = energy.gross_joules / energy.tokens as f64;
    let field = "energy_measured.measured.joules_per_token";
    same(field, energy.joules_per_token, per_token, "follows from joules and tokens")?;
    at_least("energy_measured.measured.idle_watts", 0.0, energy.idle_watts)?;
    at_most("energy_measured.measured.idle_watts", MOST_WATTS, energy.idle_watts)?;
    let (gross, most) = (energy.gross_joules, MOST_WATTS * energy.seconds);
    at_most("energy_measured.measured.gross_joules", most, [gross])?;
    positive("energy_measured.measured.update_period_s", energy.update_period_s.as_slice())?;
    let beside = energy.domains.iter().map(|d| d.gross_joules);
    at_least("energy_measured.measured.domains", 0.0, beside.clone())?;
    at_most("energy_measured.measured.domains", most, beside)?;
    let net = energy.net_joules.is_none_or(|net| {
        // Where one was taken from the other, what is left is as exact as they are.
        let rest = energy.idle_watts.map(|idle| idle * energy.seconds);
        rest.is_some_and(|rest| (gross - rest - net).abs() <= SLACK * gross.max(rest))
    });
    all(&[
        ("energy_measured.measured.net_joules", net, "gross joules less those at rest"),
        ("energy_measured.measured.source", !energy.source.trim().is_empty(), "a name"),
    ])
}

/// A SHA-256, where there is one.
fn check_digest(field: &str, digest: Option<&str>) -> Result<(), String> {
    match digest {
        Some(d) if d.len() != 64 || !d.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Err(format!("{field}`: it must be 64 hexadecimal digits"))
        }
        _ => Ok(()),
    }
}

/// How far two subjects lie apart. A divergence of nothing may round to just below 0.
fn check_divergence(d: &Divergence) -> Result<(), String> {
    const ZERO: f64 = -1e-6;
    let counted = d.kl_histogram.iter().try_fold(0u64, |sum, bin| sum.checked_add(bin.1));
    let share = |share: f64| (0.0..=1.0).contains(&share);
    all(&[
        ("accuracy.against.positions", d.positions > 0, "at least 1"),
        ("accuracy.against.kl_mean", d.kl_mean >= ZERO && d.kl_mean.is_finite(), "at least 0"),
        (
            "accuracy.against.kl_max",
            d.kl_max >= d.kl_mean - SLACK && d.kl_max.is_finite(),
            "no less than the mean",
        ),
        (
            "accuracy.against.kl_percentiles",
            d.kl_percentiles.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
                && d.kl_percentiles.iter().all(|p| (0.0..=100.0).contains(&p.0) && p.1 <= d.kl_max + SLACK),
            "in rising order up to the maximum",
        ),
        ("accuracy.against.kl_histogram", d.kl_histogram.is_sorted_by(|a, b| a.0 < b.0), "edges that rise"),
        ("accuracy.against.worst", d.worst.is_sorted_by(|a, b| a.kl >= b.kl), "the worst first"),
        (
            "accuracy.against.kl_histogram",
            counted == Some(d.positions),
            "as many positions in sum as there are",
        ),
        ("accuracy.against.logit_mean", d.logit_mean >= 0.0 && d.logit_mean.is_finite(), "at least 0"),
        (
            "accuracy.against.logit_max",
            d.logit_max >= d.logit_mean - SLACK && d.logit_max.is_finite(),
            "no less than the mean",
        ),
        ("accuracy.against.delta_nll", d.delta_nll.is_finite(), "a number"),
        (
            "accuracy.against.delta_nll_stderr",
            d.delta_nll_stderr >= 0.0 && d.delta_nll_stderr.is_finite(),
            "at least 0",
        ),
        ("accuracy.against.top1", share(d.top1), "a share of 0 to 1"),
        ("accuracy.against.top5", share(d.top5), "a share of 0 to 1"),
    ])
}

/// A speed, whose centre and spread must follow from its samples.
fn check_speed(speed: &Speed, rounds: u32) -> Result<(), String> {
    let n = speed.samples.len();
    positive("speed.samples", &speed.samples)?;
    positive("speed.seconds", &speed.seconds)?;
    fastest("speed.best", &speed.samples, &speed.best)?;
    if let Some(load) = &speed.load {
        positive("speed.load.seconds", &[load.seconds])?;
        at_least("speed.load.bytes", 1.0, [load.bytes as f64])?;
        at_least("speed.load.threads", 1.0, [f64::from(load.threads)])?;
    }
    let rates: Vec<[f64; 2]> = speed.handoff.iter().copied().flatten().collect();
    positive("speed.handoff", rates.as_flattened())?;
    let paired = speed.handoff.is_empty() || speed.handoff.len() == speed.samples.len();
    all(&[("speed.handoff", paired, "none, or one for each sample")])?;
    if n == 0 || speed.seconds.len() != n {
        return Err(format!(
            "speed.seconds`: as many as samples are expected and at least one, found {} and {n}",
            speed.seconds.len()
        ));
    }
    same("speed.median", speed.median, stats::median(&speed.samples), "follows from the samples")?;
    let spread = stats::mad(&speed.samples);
    let [low, high] = speed.interval;
    let least = speed.samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = speed.samples.iter().copied().fold(0.0, f64::max);
    all(&[
        ("speed.mad", (speed.mad - spread).abs() <= SLACK * speed.median, "that of the samples"),
        ("speed.samples", n as u64 <= 2 * u64::from(rounds), "at most two for each of `protocol.rounds`"),
        ("speed.interval", (low..=high).contains(&speed.median), "around the median"),
        (
            "speed.interval",
            low >= least * (1.0 - SLACK) && high <= most * (1.0 + SLACK),
            "within the samples",
        ),
        ("speed.outliers", speed.outliers == stats::outliers(&speed.samples), "those of the samples"),
    ])?;
    at_most("speed.disturbance", 1.0, speed.disturbance)?;
    positive("speed.bound.value", &speed.bound.iter().map(|b| b.value).collect::<Vec<_>>())?;
    positive("speed.first_token_ms", speed.first_token_ms.as_slice())?;
    at_least("speed.disturbance", 0.0, speed.disturbance)?;
    if let Some(latencies) = &speed.latency_ms {
        positive("speed.latency_ms", latencies)?;
        if !latencies.is_sorted() {
            return Err(format!("speed.latency_ms`: {latencies:?} do not rise"));
        }
    }
    Ok(())
}

/// More weights than a model has.
const MOST_PARAMS: u64 = 1_000_000_000_000_000;

/// Greatest figure of what has no limit of its own: programs that wait for a CPU, seconds of a sample.
const MOST: f64 = 1e9;

/// Greatest relative difference of a figure written down from the same computed again.
const SLACK: f64 = 1e-9;

fn same(field: &str, found: f64, expected: f64, why: &str) -> Result<(), String> {
    if (found - expected).abs() <= SLACK * expected.abs() {
        return Ok(());
    }
    Err(format!("{field}`: it is {found}, but {expected} {why}"))
}

fn at_least(field: &str, least: f64, values: impl IntoIterator<Item = f64>) -> Result<(), String> {
    match values.into_iter().find(|v| !(v.is_finite() && *v >= least)) {
        Some(value) => Err(format!("{field}`: it is {value}, it must be at least {least}")),
        None => Ok(()),
    }
}

fn at_most(field: &str, most: f64, values: impl IntoIterator<Item = f64>) -> Result<(), String> {
    match values.into_iter().find(|v| *v > most) {
        Some(value) => Err(format!("{field}`: it is {value}, it must be at most {most}")),
        None => Ok(()),
    }
}

/// That the fastest of each sample, where it is known, is not slower than the sample.
fn fastest(field: &str, samples: &[f64], best: &[f64]) -> Result<(), String> {
    positive(field, best)?;
    if !best.is_empty() && best.len() != samples.len() {
        return Err(format!(
            "{field}`: one for each of {} samples is expected, found {}",
            samples.len(),
            best.len()
        ));
    }
    // Sums of seconds round.
    match best.iter().zip(samples).position(|(best, sample)| *best < sample * (1.0 - SLACK)) {
        Some(at) => Err(format!("{field}`: value {at} is {}, below its sample {}", best[at], samples[at])),
        None => Ok(()),
    }
}

/// That values are above 0, and none that no machine of any time could show.
fn positive(field: &str, values: &[f64]) -> Result<(), String> {
    const POSSIBLE: std::ops::RangeInclusive<f64> = 1e-15..=1e15;
    match values.iter().position(|v| !POSSIBLE.contains(v)) {
        Some(at) if values[at] > 0.0 => {
            Err(format!("{field}`: value {at} is {:e}, which cannot be", values[at]))
        }
        Some(at) => Err(format!("{field}`: value {at} is {}, it must be above 0", values[at])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::file::parse;
    use crate::record::{broken, example};
    use serde_json::Value;

    #[test]
    fn modelled_energy_is_that_of_the_model() {
        let mut record = example();
        record.arms[1].energy_modelled = Some(arithmetic(&record.models[0].config));
        assert_eq!(check(&record), Ok(()));
        record.models[0].config.heads *= 2;
        record.models[0].linear_params = record.models[0].config.linear_params();
        record.models[0].params *= 2;
        record.arms[1].energy_modelled.as_mut().unwrap().how = arithmetic(&record.models[0].config).how;
        let error = check(&record).unwrap_err();
        assert!(error.contains("arms[1].energy_modelled.joules_per_token_7nm"), "{error}");
    }

    /// Makes the last arm one of ten questions, with a field changed.
    fn choices(v: &mut Value, field: &str, value: impl Into<Value>) {
        let p: f64 = 0.3;
        v["arms"][2]["accuracy"].take();
        v["arms"][2]["test"] =
            serde_json::json!({ "kind": "choices", "task": "t", "format": "hellaswag", "questions": 10 });
        v["arms"][2]["choices"] = serde_json::json!({
            "questions": 10, "acc": p, "acc_stderr": (p * (1.0 - p) / 9.0).sqrt(), "acc_norm": null,
            "acc_norm_stderr": null, "chance": 0.25, "seconds": 1.0,
        });
        v["arms"][2]["choices"][field] = value.into();
    }

    /// Adds a proof with a field changed.
    fn proof(v: &mut Value, field: &str, value: impl Into<Value>) {
        let mut proof = serde_json::json!({
            "model": v["models"][0]["id"], "layout": "tm2", "trits_equal": true, "scale_error": 0.0, "tensors": 14,
            "bytes": 4608, "bits_per_weight": 2.0, "failure": null,
        });
        proof[field] = value.into();
        v["proofs"] = vec![proof].into();
    }

    #[test]
    fn errors_name_the_field() {
        type Case = (fn(&mut Value), &'static str);
        let measured = |v: &mut Value| {
            v["arms"][1]["energy_measured"] = serde_json::json!({ "measured": {
                "source": "s", "domain": "d", "gross_joules": 20.0, "net_joules": 10.0, "idle_watts": 1.0,
                "seconds": 10.0, "tokens": 10, "joules_per_token": 2.0, "warnings": [],
            }});
        };
        let mut whole = serde_json::to_value(example()).unwrap();
        measured(&mut whole);
        parse(whole.to_string().as_bytes()).expect("the energy is right");
        for change in [|v: &mut Value| choices(v, "questions", 10), |v: &mut Value| proof(v, "bytes", 4608)] {
            let mut right = serde_json::to_value(example()).unwrap();
            change(&mut right);
            parse(right.to_string().as_bytes()).expect("what is not changed is right");
        }
        for (field, value) in [
            ("net_joules", 30.0),
            ("net_joules", 11.0),
            ("idle_watts", -1.0),
            ("idle_watts", 1e7),
            ("seconds", 0.0),
        ] {
            let message = broken(|v| {
                measured(v);
                v["arms"][1]["energy_measured"]["measured"][field] = value.into();
            });
            assert!(message.contains("arms[1].energy_measured.measured"), "{field}: {message}");
        }
        let cases: [Case; 66] = [
            (|v| v["arms"][1]["speed"]["mad"] = 9.0.into(), "arms[1].speed.mad"),
            (|v| v["models"][0]["hash"] = "abab".into(), "models[0].hash"),
            (|v| v["models"][0]["linear_params"] = 5.into(), "models[0].linear_params"),
            (|v| v["models"][0]["config"]["hidden"] = u64::MAX.into(), "models[0].config.hidden"),
            (|v| v["models"][0]["params"] = u64::MAX.into(), "models[0].params"),
            (|v| v["arms"][2]["accuracy"]["scored"] = 1281.into(), "arms[2].accuracy.scored"),
            (
                |v| v["arms"][0]["speed"]["latency_ms"] = vec![1.0, 2.0, 3.0].into(),
                "arms[0].speed.latency_ms",
            ),
            (|v| v["arms"][1]["speed"]["first_token_ms"] = 3.0.into(), "arms[1].speed.first_token_ms"),
            (|v| choices(v, "acc", 0.37), "arms[2].choices.acc"),
            (|v| choices(v, "acc_stderr", 0.4), "arms[2].choices.acc_stderr"),
            (|v| choices(v, "questions", 9), "arms[2].choices.questions"),
            (|v| proof(v, "tensors", 0), "proofs[0].tensors"),
            (|v| proof(v, "bits_per_weight", 1.0), "proofs[0].bits_per_weight"),
            (|v| v["arms"][1]["speed"]["interval"] = vec![1.0, 2.0].into(), "arms[1].speed.interval"),
            (|v| v["arms"][1]["speed"]["outliers"] = vec![1, 1].into(), "arms[1].speed.outliers"),
            (|v| v["protocol"]["rounds"] = 3.into(), "arms[0].speed.samples"),
            (|v| v["arms"][1]["speed"] = Value::Null, "arms[1].speed"),
            (|v| v["arms"][1]["accuracy"] = v["arms"][2]["accuracy"].clone(), "arms[1].accuracy"),
            (|v| v["arms"][2]["energy_modelled"] = v["arms"][1]["energy_modelled"].clone(), "arms[2].energy"),
            (
                |v| v["arms"][1]["energy_modelled"]["joules_per_token_45nm"] = 1e-30.into(),
                "arms[1].energy_modelled",
            ),
            (|v| v["arms"][1]["energy_measured"]["not_measured"] = "".into(), "energy_measured.not_measured"),
            (|v| v["arms"][1]["imported"] = "x".into(), "arms[1].imported"),
            (|v| v["arms"][1]["subject"]["layout"] = "zzz".into(), "arms[1].subject.layout"),
            (|v| v["arms"][1]["test"]["more"] = 1.into(), "arms[1].test"),
            (|v| v["models"][0]["hash"] = "zz".into(), "models[0].hash"),
            (|v| v["models"][0]["linear_params"] = 20481.into(), "models[0].linear_params"),
            (|v| v["models"][0]["config"]["more"] = 1.into(), "models[0].config"),
            (|v| v["models"][0]["config"]["layers"] = 0.into(), "models[0].config.layers"),
            (|v| v["models"][0]["config"]["rope_theta"] = (-1).into(), "models[0].config.rope_theta"),
            (|v| v["models"][0]["config"]["norm_eps"] = (-1).into(), "models[0].config.norm_eps"),
            (|v| v["environment"]["load"] = 1e300.into(), "environment.load"),
            (|v| v["protocol"]["min_time_s"] = 1e300.into(), "protocol.min_time_s"),
            (|v| v["arms"][2]["test"]["n_ctx"] = 0.into(), "arms[2].test"),
            (
                |v| v["arms"][1]["energy_rated"] = serde_json::json!({"watts": 1e7, "joules_per_token": 1e7}),
                "arms[1].energy_rated.watts",
            ),
            (|v| v["environment"]["cores"] = 0.into(), "environment.cores"),
            (|v| drop(v["environment"].as_object_mut().unwrap().remove("governor")), "environment"),
            (|v| v["controls"][0]["name"] = "luck".into(), "controls[0].name"),
            (|v| v["arms"][1]["speed"]["samples"][3] = (-1.0).into(), "arms[1].speed.samples"),
            (|v| v["arms"][1]["speed"]["median"] = Value::Null, "arms[1].speed.median"),
            (|v| v["arms"][1]["speed"]["median"] = 500.0.into(), "arms[1].speed.median"),
            (|v| v["arms"][1]["speed"]["outliers"] = vec![99].into(), "arms[1].speed.outliers"),
            (|v| v["arms"][1]["speed"]["interval"] = vec![2.0, 1.0].into(), "arms[1].speed.interval"),
            (|v| v["arms"][1]["speed"]["interval"][1] = 1e9.into(), "arms[1].speed.interval"),
            (|v| v["arms"][0]["subject"]["model"] = "gone".into(), "arms[0].subject.model"),
            (|v| v["arms"][0]["subject"]["threads"] = "two".into(), "arms[0].subject.threads"),
            (|v| v["arms"][0]["test"]["kind"] = "guess".into(), "arms[0].test"),
            (|v| v["arms"][2]["accuracy"]["nll_bits"] = "00".into(), "arms[2].accuracy.nll_bits"),
            (|v| v["environment"]["cpuu"] = 1.into(), "environment.cpuu"),
            (|v| drop(v.as_object_mut().unwrap().remove("tool")), "tool"),
            (|v| v["controls"][0]["samples"][0] = 0.into(), "controls[0].samples"),
            (|v| v["controls"][0]["best"] = vec![1.0].into(), "controls[0].best"),
            (|v| v["arms"][1]["speed"]["best"] = vec![1.0; 10].into(), "arms[1].speed.best"),
            (
                |v| {
                    v["arms"][1]["speed"]["load"] =
                        serde_json::json!({"seconds": 0, "bytes": 1, "threads": 1})
                },
                "arms[1].speed.load.seconds",
            ),
            (|v| v["arms"][1]["speed"]["handoff"] = vec![vec![1.0; 2]].into(), "arms[1].speed.handoff"),
            (|v| v["arms"][1]["speed"]["samples"][3] = 1e9.into(), "arms[1].speed"),
            (|v| v["arms"][1]["speed"]["mad"] = (-1).into(), "arms[1].speed.mad"),
            (|v| v["arms"][1]["speed"]["interval"][0] = 0.into(), "arms[1].speed.interval"),
            (|v| v["arms"][1]["speed"]["unit"] = "GMAC/s".into(), "arms[1].speed.unit"),
            (|v| v["arms"][1]["subject"]["threads"] = 0.into(), "arms[1].subject.threads"),
            (|v| v["arms"][1]["test"]["generate"] = 0.into(), "arms[1].test"),
            (|v| v["arms"][2]["accuracy"]["ppl"] = 12.into(), "arms[2].accuracy.ppl"),
            (|v| v["environment"]["steal"] = 2.into(), "environment.steal"),
            (|v| v["environment"]["threads"] = 0.into(), "environment.threads"),
            (|v| v["protocol"]["rounds"] = 0.into(), "protocol.rounds"),
            (|v| v["started"] = "yesterday".into(), "started"),
            (|v| v["finished"] = "2001-01-01T00:00:00Z".into(), "finished"),
        ];
        for (change, field) in cases {
            let message = broken(change);
            assert!(message.contains(field), "{field}: {message}");
        }
        let overflow = broken(|v| {
            v["arms"][2]["accuracy"]["against"] = serde_json::json!({
                "reference": "r", "kl_mean": 0.1, "kl_percentiles": [], "kl_max": 0.1,
                "kl_histogram": [[0.1, u64::MAX], [0.2, 2]], "logit_max": 0.1, "logit_mean": 0.1, "top1": 1.0, "top5": 1.0,
                "delta_nll": 0.0, "delta_nll_stderr": 0.0, "positions": 1, "worst": [],
            });
        });
        assert!(overflow.contains("accuracy.against.kl_histogram"), "{overflow}");
        let twice = broken(|v| {
            let arm = v["arms"][0].clone();
            v["arms"].as_array_mut().unwrap().push(arm);
        });
        assert!(twice.contains("arms[3].subject") && twice.contains("twice"), "{twice}");
    }
}
