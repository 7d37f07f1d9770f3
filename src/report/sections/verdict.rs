//! The verdict: a sentence each on exactness, speed and cost, generated from the figures; and the
//! headline figures. What the figures do not allow to say is said as such.

use super::super::document::Fact;
use super::super::number::{joules, percent, signed, significant};
use super::super::row::subject_name;
use super::costs::{FLOAT_ORDER, INT8, approximation, change, divergences, of_another_model};
use super::{
    Ranked, dedup, headline, main_model, median, model, model_name, ranking, speed_tests, speed_text,
};
use crate::checkpoint::config::LinearKind;
use crate::record::state::ENOUGH_ROUNDS;
use crate::record::{Accuracy, Arm, Divergence, Model, Outcome, Record, Test};
use crate::stats;
use crate::words::counted;

/// Two-sided 95 % of a normal distribution.
const Z: f64 = 1.96;

/// The newest record, which the verdict is about; of equally old ones the last. What was only imported tells when that
/// was, not when it was measured.
fn newest(records: &[Record]) -> Option<&Record> {
    let ours = |r: &Record| r.arms.is_empty() || r.arms.iter().any(|arm| arm.imported.is_none());
    records.iter().max_by_key(|r| (ours(r), r.begun()))
}

/// The verdict, of the newest record in detail.
pub fn sentences(records: &[Record]) -> Vec<String> {
    let Some(record) = newest(records) else { return vec!["Cannot tell: there is no record.".into()] };
    let mut sentences = vec![exactness(records), speed(record), cost(record)];
    if records.len() > 1 {
        sentences[1] = format!(
            "In the newest record ({}, {}): {}",
            super::cpu(record),
            record.started.chars().take(10).collect::<String>(),
            sentences[1]
        );
        sentences[2] = format!("In that record: {}", sentences[2]);
    }
    sentences
}

/// Whether the conversions kept the model and the kernels agree.
fn exactness(records: &[Record]) -> String {
    let (proofs, failed): (Vec<_>, Vec<_>) =
        records.iter().flat_map(|r| &r.proofs).partition(|p| p.failure.is_none());
    let mut broken: Vec<_> = failed.iter().filter(|p| p.changed).map(|p| p.layout.as_str()).collect();
    dedup(&mut broken);
    let layouts = if !broken.is_empty() {
        format!("Conversion to {} CHANGED weights", broken.join(", "))
    } else if proofs.is_empty() {
        "Cannot tell whether conversions keep the model: none was proven".into()
    } else {
        let mut names: Vec<&str> = proofs.iter().map(|p| p.layout.as_str()).collect();
        dedup(&mut names);
        let lossy = proofs.iter().filter(|p| p.scale_error > 0.0).map(|p| p.scale_error).fold(0.0, f64::max);
        let mut exceptions: Vec<String> =
            failed.iter().map(|p| format!("{} cannot hold {}", p.layout, p.model)).collect();
        dedup(&mut exceptions);
        if exceptions.len() > 3 {
            exceptions = vec![format!("{} pairs of layout and model do not fit", exceptions.len())];
        }
        if lossy > 0.0 {
            let scale = format!("a file's scale may differ by up to {} of its value", significant(lossy, 2));
            exceptions.insert(0, scale);
        }
        let exceptions =
            if exceptions.is_empty() { String::new() } else { format!(" ({})", exceptions.join("; ")) };
        let layouts = match names.as_slice() {
            [one] => (*one).to_owned(),
            all => format!("each of {} layouts", all.len()),
        };
        format!("Conversion to {layouts} kept every ternary weight{exceptions}")
    };
    let kernels = match identity(records) {
        (_, 0 | 1) => "whether kernels agree was not measured".to_owned(),
        (1, arms) => {
            format!("perplexity is equal bit for bit over {arms} combinations of kernel and threads")
        }
        (results, arms) => format!(
            "perplexity is not equal: {results} results over {arms} combinations of kernel and threads"
        ),
    };
    format!("{layouts}, and {kernels}.")
}

/// The greatest number of different results that kernels of one machine gave under one test, and how many
/// combinations of kernel and threads were held against each other under it, at most.
fn identity(records: &[Record]) -> (usize, usize) {
    let groups = records.iter().flat_map(Record::identical_groups);
    let counts = groups.map(|group| {
        let mut bits: Vec<&str> = group.iter().map(|(_, a)| a.nll_bits.as_str()).collect();
        dedup(&mut bits);
        (bits.len(), group.len())
    });
    counts.max().unwrap_or_default()
}

/// The fastest kernel for decoding, or for whatever was measured, beside its limit and the reference.
fn speed(record: &Record) -> String {
    let tests = speed_tests(record);
    let Some((model, test)) = headline(record, true).or(tests.first().copied()) else {
        return "Cannot tell how fast it is: speed was not measured.".into();
    };
    let ranking = ranking(record, model, test);
    let best = ranking[0].best();
    let speed = best.speed.as_ref().expect("ranked arms have a speed");
    let what = match test {
        Test::Model { prompt: 0, .. } => "decode",
        Test::Model { generate: 0, .. } => "prefill",
        _ => "run",
    };
    let limit = speed.bound.as_ref().map_or_else(
        || ", its limit not measured".into(),
        |b| format!(", {} of the measured limit", percent(speed.median / b.value)),
    );
    let several = tests.iter().any(|(m, t)| *t == test && *m != model);
    let first = format!(
        "{}{} is the fastest to {what} ({test}) at {}{} on {}{limit}",
        if several { format!("For {}, ", model_name(record, model)) } else { String::new() },
        subject_name(best),
        speed_text(best),
        speed.known_interval().map_or(" (1 sample)".to_owned(), |[low, high]| {
            format!(" [{}–{}]", significant(low, 3), significant(high, 3))
        }),
        counted(best.subject.threads, "thread")
    );
    let tied: Vec<String> =
        ranking[1..].iter().filter(|r| !slower(record, r.best(), best)).map(|r| r.family.name()).collect();
    let tie =
        if tied.is_empty() { String::new() } else { format!("; cannot tell it from {}", tied.join(", ")) };
    let candle =
        ranking.iter().find(|r: &&Ranked| r.family.engine == "candle" && r.best().subject != best.subject);
    let against = candle.map_or_else(String::new, |c| {
        let other = c.best();
        let name = format!("the candle reference on {}", counted(other.subject.threads, "thread"));
        times(record, best, other, &name)
    });
    let others: Vec<String> = tests
        .iter()
        .filter(|(m, t)| *t == test && *m != model)
        .map(|(m, t)| times(record, best, super::ranking(record, m, t)[0].best(), model_name(record, m)))
        .collect();
    format!("{first}{tie}{against}{}.", others.concat())
}

/// How many times as fast as `other` an arm is, or that one cannot tell.
fn times(record: &Record, best: &Arm, other: &Arm, name: &str) -> String {
    let Some([low, high]) = ratio(record, other, best) else {
        return format!("; cannot tell it from {name}: fewer than {ENOUGH_ROUNDS} samples");
    };
    if low <= 1.0 && 1.0 <= high {
        return format!("; cannot tell it from {name} [{}–{}]", significant(low, 3), significant(high, 3));
    }
    let ratio = significant(median(best) / median(other), 3);
    format!("; {ratio} times [{}–{}] as fast as {name}", significant(low, 3), significant(high, 3))
}

/// The interval of the ratio of two speeds, where there are samples enough to have one.
fn ratio(record: &Record, base: &Arm, other: &Arm) -> Option<[f64; 2]> {
    let [base, other] = [base, other].map(|arm| arm.speed.as_ref().map_or(&[][..], |s| &s.samples));
    let enough = base.len().min(other.len()) >= ENOUGH_ROUNDS;
    enough.then(|| stats::quantile_ratio_interval(base, other, 0.5, record.protocol.seed))
}

/// Whether `arm` is slower than `best` beyond doubt: the interval of their ratio is below 1.
fn slower(record: &Record, arm: &Arm, best: &Arm) -> bool {
    ratio(record, best, arm).is_some_and(|[_, high]| high < 1.0)
}

/// What quantising activations costs, how models differ, and energy.
fn cost(record: &Record) -> String {
    let mut parts = Vec::new();
    let others = || divergences(record).filter(|(_, _, d)| of_another_model(d));
    let own = divergences(record).filter(|(arm, _, d)| arm.subject.head().is_none() && !of_another_model(d));
    if others().next().is_none()
        && let Some((arm, _, d)) = own.max_by(|a, b| a.2.kl_mean.total_cmp(&b.2.kl_mean))
    {
        parts.push(approximated(record, arm, d));
    }
    parts.extend(by_kind(record));
    parts.extend(heads(record));
    let perplexities = by_model(record);
    if perplexities.len() > 1 && others().next().is_none() {
        let list: Vec<String> = perplexities
            .iter()
            .map(|(model, a)| {
                format!("{} {} ± {}", model.name, significant(a.ppl, 4), significant(a.ppl_stderr, 2))
            })
            .collect();
        parts.push(format!("by model, perplexity is {}", list.join(", ")));
    }
    if parts.is_empty() {
        parts.push("cannot tell what accuracy it costs: nothing was compared with a reference".into());
    }
    parts.push(match energy(record) {
        Some(Ok((arm, measured))) => {
            format!(
                "measured energy is {} a token in {} of {} ({})",
                joules(measured.joules_per_token),
                arm.test,
                subject_name(arm),
                measured.domain
            )
        }
        Some(Err(reason)) => format!("energy was not measured: {}", gist(reason)),
        None => "energy was not measured".into(),
    });
    let text = parts.join("; ");
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

/// What rounding the output head costs.
fn heads(record: &Record) -> Option<String> {
    let main = main_model(record).map(|m| m.id.as_str());
    let mine = || divergences(record).filter(|(arm, ..)| Some(arm.subject.model.as_str()) == main);
    let rounded = || mine().filter_map(|(arm, _, d)| Some((arm.subject.head()?, d)));
    let told = |d: &Divergence| tells(d.delta_nll, d.delta_nll_stderr);
    let costly: Vec<String> = rounded()
        .filter(|(_, d)| told(d))
        .map(|(head, d)| format!("at {head} {}", change(d.delta_nll)))
        .collect();
    let free: Vec<&str> = rounded().filter(|(_, d)| !told(d)).map(|(head, _)| head).collect();
    let free = match free.as_slice() {
        [] => String::new(),
        all => format!("at {} nothing that one can tell", all.join(", ")),
    };
    let parts: Vec<String> = costly.into_iter().chain((!free.is_empty()).then_some(free)).collect();
    (!parts.is_empty()).then(|| format!("an output head costs in perplexity {}", parts.join(", ")))
}

/// Whether a difference is told from none at 95 %.
pub fn tells(delta: f64, stderr: f64) -> bool {
    delta.abs() > Z * stderr
}

/// What an approximation costs, or that nothing is to be seen of it.
fn approximated(record: &Record, arm: &Arm, d: &Divergence) -> String {
    let what = approximation(record, arm, d);
    let (subject, cost) = match what.as_str() {
        INT8 => ("int8 activations".to_owned(), "cost"),
        FLOAT_ORDER => (format!("another order of float operations than that of {}", d.reference), "costs"),
        _ => (format!("{} against {}", subject_name(arm), d.reference), "costs"),
    };
    let change = match tells(d.delta_nll, d.delta_nll_stderr) {
        false => "nothing in perplexity that one can tell".to_owned(),
        true => format!("{} in perplexity", change(d.delta_nll)),
    };
    format!(
        "{subject} {cost} {change} ({} ± {} nats a token, the same first choice at {} of positions)",
        signed(d.delta_nll, 2),
        significant(d.delta_nll_stderr, 2),
        percent(d.top1)
    )
}

/// The perplexity of models that were held against another one, and of that one: by kind where kinds
/// tell them apart, with the change that pairing by token allows to tell.
fn by_kind(record: &Record) -> Option<String> {
    let held: Vec<_> = divergences(record).filter(|(_, _, d)| of_another_model(d)).collect();
    let (first, _, d) = held.first()?;
    let baseline = d.reference.split(": ").next().unwrap_or_default();
    let mut all: Vec<(&str, f64, f64, String)> = Vec::new();
    let plain = |a: &&Arm| a.subject.model == baseline && a.test == first.test && a.subject.head().is_none();
    let own = record
        .arms
        .iter()
        .filter(plain)
        .filter_map(|a| Some((a.subject.engine == "tritmark", a.accuracy.as_ref()?)));
    all.extend(
        own.max_by_key(|(ours, _)| *ours).map(|(_, a)| (baseline, a.ppl, a.ppl_stderr, String::new())),
    );
    for (arm, a, d) in &held {
        let told = tells(d.delta_nll, d.delta_nll_stderr);
        let change = if told { change(d.delta_nll) } else { "cannot tell the difference".into() };
        all.push((&arm.subject.model, a.ppl, a.ppl_stderr, format!(" ({change})")));
    }
    let kinds: Vec<String> = all.iter().map(|(id, ..)| kind(record, id).to_owned()).collect();
    let mut distinct = kinds.clone();
    dedup(&mut distinct);
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let list: Vec<String> = all
        .iter()
        .map(|(id, ppl, stderr, change)| {
            let kind = kind(record, id);
            let name = if distinct.len() == kinds.len() { kind.to_owned() } else { format!("{id} ({kind})") };
            format!("{name} {} ± {}{change}", significant(*ppl, 4), significant(*stderr, 2))
        })
        .collect();
    Some(format!("perplexity: {}", list.join(", ")))
}

/// How a model came about.
fn kind(record: &Record, id: &str) -> &'static str {
    match model(record, id) {
        Some(m) if m.post_training => "made ternary afterwards",
        Some(m) if m.config.linear == LinearKind::Ternary => "trained ternary",
        Some(_) => "full precision",
        None => "unknown",
    }
}

/// The main perplexity of each model: that over most tokens, of our own engine where it ran.
pub fn by_model(record: &Record) -> Vec<(&Model, &Accuracy)> {
    let mut ids: Vec<&str> =
        record.arms.iter().filter(|a| a.accuracy.is_some()).map(|a| a.subject.model.as_str()).collect();
    dedup(&mut ids);
    ids.iter()
        .filter_map(|id| {
            let arms = record.arms.iter().filter(|a| a.subject.model == *id);
            let as_is = arms.filter(|a| a.subject.head().is_none());
            let all = as_is.filter_map(|a| Some((a.subject.engine == "tritmark", a.accuracy.as_ref()?)));
            let (_, accuracy) = all.max_by_key(|(ours, a)| (a.scored, *ours))?;
            Some((model(record, id)?, accuracy))
        })
        .collect()
}

type Energy<'a> = Result<(&'a Arm, &'a crate::record::MeasuredEnergy), &'a str>;

/// The lowest measured energy of decoding with the main model, or the reason why there is none.
fn energy(record: &Record) -> Option<Energy<'_>> {
    let outcomes = || record.arms.iter().filter_map(|a| Some((a, a.energy_measured.as_ref()?)));
    let measured = outcomes().filter_map(|(a, e)| match e {
        Outcome::Measured(e) => Some((a, e)),
        Outcome::NotMeasured(_) => None,
    });
    let decode = |a: &Arm| matches!(a.test, Test::Model { prompt: 0, .. });
    let other = |a: &Arm| main_model(record).is_some_and(|m| m.id != a.subject.model);
    let best = measured.min_by(|a, b| {
        let order = |a: &Arm| (other(a), !decode(a));
        order(a.0).cmp(&order(b.0)).then(a.1.joules_per_token.total_cmp(&b.1.joules_per_token))
    });
    best.map(Ok).or_else(|| {
        outcomes().find_map(|(_, e)| match e {
            Outcome::NotMeasured(reason) => Some(Err(reason.as_str())),
            Outcome::Measured(_) => None,
        })
    })
}

/// A reason up to its first explanation; the section on energy has all of it.
fn gist(reason: &str) -> String {
    reason.split([';', '(']).next().unwrap_or(reason).trim().to_owned()
}

/// Headline figures of the newest record, of the model that it is about.
pub fn facts(records: &[Record]) -> Vec<Fact> {
    let Some(record) = newest(records) else { return Vec::new() };
    let several = record.models.len() > 1;
    let mut facts = Vec::new();
    let mut fact =
        |label: &str, value: String, detail: String| facts.push(Fact { label: label.into(), value, detail });
    for (label, decode) in [("Decode", true), ("Prefill", false)] {
        match headline(record, decode) {
            Some((model, test)) => {
                let ranking = ranking(record, model, test);
                let best = ranking[0].best();
                let of = if several { format!("{}, ", model_name(record, model)) } else { String::new() };
                fact(
                    label,
                    speed_text(best),
                    format!("{of}{}, {}", subject_name(best), counted(best.subject.threads, "thread")),
                );
            }
            None => fact(label, "not measured".into(), "no such test in this record".into()),
        }
    }
    let perplexities = by_model(record);
    let main = perplexities.iter().find(|(m, _)| main_model(record).is_some_and(|main| main.id == m.id));
    match main.or(perplexities.first()) {
        Some((model, a)) => fact(
            "Perplexity",
            format!("{} ± {}", significant(a.ppl, 4), significant(a.ppl_stderr, 2)),
            format!("{}, {} tokens scored", model.name, super::number::count(a.scored)),
        ),
        None => fact("Perplexity", "not measured".into(), "no text was scored".into()),
    }
    match energy(record) {
        Some(Ok((arm, e))) => {
            let of =
                if several { format!(", {}", model_name(record, &arm.subject.model)) } else { String::new() };
            fact(
                "Energy a token",
                joules(e.joules_per_token),
                format!("measured, {}, {}{of}", e.domain, arm.test),
            );
        }
        Some(Err(reason)) => fact("Energy a token", "not measured".into(), gist(reason)),
        None => fact("Energy a token", "not measured".into(), "no test of speed in this record".into()),
    }
    let smallest = record
        .proofs
        .iter()
        .filter(|p| p.failure.is_none())
        .min_by(|a, b| a.bits_per_weight.total_cmp(&b.bits_per_weight));
    match smallest {
        Some(p) => fact(
            "Smallest layout",
            format!("{} bits", significant(p.bits_per_weight, 3)),
            format!("a ternary weight, {}", p.layout),
        ),
        None => fact("Smallest layout", "not measured".into(), "no conversion was proven".into()),
    }
    facts
}
