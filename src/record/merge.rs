//! Records of many machines and of shards of one run, put together.

use super::{Arm, Control, Outcome, Record};
use crate::error::{Error, Result};
use crate::machine::{Environment, Limits};

/// How far the same limit may differ between shards of a machine without a name, as a share.
const ALIKE: f64 = 0.1;

/// Puts records together: those of one machine, program and protocol become one record, the others stand beside it in
/// their order.
///
/// # Errors
/// If two records hold the same arm with different results, or the same model's name for different
/// models.
pub fn merge(records: Vec<Record>) -> Result<Vec<Record>> {
    let mut merged: Vec<Record> = Vec::new();
    for record in records {
        match merged.iter_mut().find(|m| is_shard(m, &record)) {
            Some(whole) => join(whole, record)?,
            None => merged.push(record),
        }
    }
    Ok(merged)
}

/// Whether two records could be of one run: what does not change on a machine is the same. Where nothing names it,
/// its limits tell it from others of its kind; they move with other load too.
fn is_shard(a: &Record, b: &Record) -> bool {
    let machine = |r: &Record| {
        // What changes while a machine runs; see `join`.
        Environment {
            mhz: None,
            celsius: None,
            throttle_events: None,
            steal: None,
            load: None,
            absent: Default::default(),
            ..r.environment.clone()
        }
    };
    let protocol = |r: &Record| (r.protocol.seed, r.protocol.rounds, r.protocol.min_time_s, r.protocol.quick);
    let limits = match (&a.limits, &b.limits) {
        (Outcome::Measured(a), Outcome::Measured(b)) => alike(a, b),
        _ => true,
    };
    (limits || named(&a.environment))
        && machine(a) == machine(b)
        && a.tool == b.tool
        && protocol(a) == protocol(b)
        && (&a.suite, &a.suite_text) == (&b.suite, &b.suite_text)
}

/// Whether a machine has a name of its own.
fn named(environment: &Environment) -> bool {
    environment.host.as_ref().is_some_and(|host| host != "localhost")
}

/// Whether the limits that both hold are about the same.
fn alike(a: &Limits, b: &Limits) -> bool {
    let near = |x: f64, y: f64| (x / y - 1.0).abs() <= ALIKE;
    let read = a.read.iter().all(|x| {
        let same = b.read.iter().find(|y| (&x.level, x.threads) == (&y.level, y.threads));
        same.is_none_or(|y| near(x.gb_per_s, y.gb_per_s))
    });
    let pairs = [(&a.int8, &b.int8), (&a.f32, &b.f32)];
    let peaks = pairs.into_iter().all(|(a, b)| {
        a.iter().all(|x| {
            let same = b.iter().find(|y| (&x.tier, x.threads) == (&y.tier, y.threads));
            same.is_none_or(|y| near(x.gmac_per_s, y.gmac_per_s))
        })
    });
    read && peaks
}

fn join(whole: &mut Record, part: Record) -> Result<()> {
    for model in part.models {
        match whole.models.iter().find(|m| m.id == model.id) {
            Some(known) if known.hash != model.hash => {
                return Err(Error::NotComparable(format!(
                    "two different models are called '{}', this and one of a record before it (hashes {} and {}); measure \
                     again with different names",
                    model.id, known.hash, model.hash
                )));
            }
            Some(_) => {}
            None => whole.models.push(model),
        }
    }
    for proof in part.proofs {
        if !whole.proofs.contains(&proof) {
            whole.proofs.push(proof);
        }
    }
    for arm in part.arms {
        let same = |a: &&Arm| a.subject == arm.subject && a.test == arm.test;
        match whole.arms.iter().find(same) {
            Some(known) if *known == arm => {}
            Some(_) => {
                return Err(Error::NotComparable(format!(
                    "{}: {}: {} was measured in a record before it, with different results; `compare` shows the \
                     difference, and merging would hide it",
                    arm.subject.model, arm.subject, arm.test
                )));
            }
            None => whole.arms.push(arm),
        }
    }
    let new = |c: &Control| !whole.controls.iter().any(|known| known == c);
    let further = part.controls.into_iter().filter(new).collect();
    Control::gather(&mut whole.controls, further);
    for note in part.notes {
        if !whole.notes.contains(&note) {
            whole.notes.push(note);
        }
    }
    if let (Outcome::NotMeasured(_), Outcome::Measured(_)) = (&whole.limits, &part.limits) {
        whole.limits = part.limits;
    } else if whole.limits != part.limits {
        note(
            &mut whole.notes,
            "The limits are those of the first shard; bounds of arms are by those of their own.",
        );
    }
    let (known, new) = (&mut whole.environment, part.environment);
    if *known != new {
        note(
            &mut whole.notes,
            "Clock and temperature are those of the first shard; load, stolen time and throttling the worst of all.",
        );
    }
    known.load = known.load.into_iter().chain(new.load).reduce(f64::max);
    known.steal = known.steal.into_iter().chain(new.steal).reduce(f64::max);
    known.throttle_events = known.throttle_events.into_iter().chain(new.throttle_events).max();
    // What one shard knows needs no reason.
    let unknown = known.unknown();
    known.absent.retain(|name, _| unknown.contains(&name.as_str()));
    whole.resumed |= part.resumed;
    if part.command != whole.command {
        whole.command = format!("{}; {}", whole.command, part.command);
    }
    // RFC 3339 in UTC with seconds sorts as text.
    whole.started = whole.started.clone().min(part.started);
    whole.finished = whole.finished.clone().max(part.finished);
    Ok(())
}

fn note(notes: &mut Vec<String>, sentence: &str) {
    if !notes.iter().any(|n| n == sentence) {
        notes.push(sentence.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::example;

    #[test]
    fn shards_become_one_and_machines_stay_apart() {
        let (mut first, mut second, mut other) = (example(), example(), example());
        first.arms.truncate(1);
        second.arms.drain(..1);
        second.controls[0].samples = vec![41.0];
        second.finished = "2026-01-01T00:05:00Z".into();
        other.environment.cpu = "Other".into();
        let merged = merge(vec![first, other.clone(), second]).unwrap();
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].arms, example().arms);
        assert_eq!(merged[0].controls[0].samples.len(), 11);
        assert_eq!((merged[0].models.len(), merged[0].finished.as_str()), (1, "2026-01-01T00:05:00Z"));
        assert_eq!(merged[1], other);
        // What is there already is not there twice.
        assert_eq!(merge(vec![example(), example()]).unwrap(), [example()]);
    }

    #[test]
    fn a_machine_in_another_state_is_another() {
        let (mut first, mut second) = (example(), example());
        first.arms.truncate(1);
        second.arms.drain(..1);
        let limits = |gb_per_s| {
            let read = crate::machine::ReadLimit { level: "RAM".into(), bytes: 1, threads: 1, gb_per_s };
            Outcome::Measured(Limits { read: vec![read], ..Limits::default() })
        };
        (first.limits, second.limits) = (limits(40.0), limits(41.0));
        second.environment.load = Some(5.5);
        let merged = merge(vec![first.clone(), second.clone()]).unwrap();
        assert_eq!((merged.len(), merged[0].environment.load), (1, Some(5.5)));
        assert_eq!(merged[0].notes.len(), example().notes.len() + 2, "{:?}", merged[0].notes);
        second.limits = limits(50.0);
        assert_eq!(merge(vec![first.clone(), second.clone()]).unwrap().len(), 1);
        let nameless = [&first, &second].map(|record| {
            let mut record = record.clone();
            record.environment.host = None;
            record
        });
        assert_eq!(merge(nameless.into()).unwrap().len(), 2);
        second.limits = limits(40.0);
        second.environment.governor = Some("powersave".into());
        assert_eq!(merge(vec![first, second]).unwrap().len(), 2);
    }

    #[test]
    fn contradictions_are_refused() {
        let mut other = example();
        other.models[0].hash = "cd".repeat(32);
        assert!(merge(vec![example(), other]).unwrap_err().to_string().contains("different models"));
        let mut other = example();
        other.arms[1].speed.as_mut().unwrap().warmup = 9;
        assert!(merge(vec![example(), other]).unwrap_err().to_string().contains("with different results"));
    }
}
