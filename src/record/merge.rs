//! Records of many machines and of shards of one run, put together.

use super::{Arm, Control, Record};
use crate::error::{Error, Result};

/// Puts records together: those of one machine, program and protocol become one record, the others
/// stand beside it in their order.
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

/// Whether two records could be of one run: what does not change on a machine is the same.
fn is_shard(a: &Record, b: &Record) -> bool {
    let machine = |r: &Record| {
        let e = &r.environment;
        (e.host.clone(), e.cpu.clone(), e.cpu_id.clone(), e.features.clone(), e.os.clone(), e.threads)
    };
    let protocol = |r: &Record| (r.protocol.seed, r.protocol.rounds, r.protocol.min_time_s, r.protocol.quick);
    machine(a) == machine(b) && a.tool == b.tool && protocol(a) == protocol(b) && a.suite == b.suite
}

fn join(whole: &mut Record, part: Record) -> Result<()> {
    for model in part.models {
        match whole.models.iter().find(|m| m.id == model.id) {
            Some(known) if known.hash != model.hash => {
                return Err(Error::NotComparable(format!(
                    "two different models are called '{}' (hashes {} and {}); measure again with different names",
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
                    "{}: {}: {} was measured twice with different results; `compare` shows the difference, and \
                     merging would hide it",
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
    whole.resumed |= part.resumed;
    if part.command != whole.command {
        whole.command = format!("{}; {}", whole.command, part.command);
    }
    // RFC 3339 in UTC with seconds sorts as text.
    whole.started = whole.started.clone().min(part.started);
    whole.finished = whole.finished.clone().max(part.finished);
    Ok(())
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
    fn contradictions_are_refused() {
        let mut other = example();
        other.models[0].hash = "cd".repeat(32);
        assert!(merge(vec![example(), other]).unwrap_err().to_string().contains("different models"));
        let mut other = example();
        other.arms[1].speed.as_mut().unwrap().warmup = 9;
        assert!(merge(vec![example(), other]).unwrap_err().to_string().contains("measured twice"));
    }
}
