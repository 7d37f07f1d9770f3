//! Records of many machines and of shards of one run, put together.

use super::{Arm, Control, Outcome, Protocol, Record, arm_name};
use crate::error::{Error, Result};
use crate::machine::{Environment, Limits};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// How far the same limit may differ between shards of a machine without a name, as a share.
const ALIKE: f64 = 0.1;

/// Puts records together, each with the name of its file: those of one machine, program and protocol become one record,
/// the others stand beside it in their order. What could be of several, since it has no limits or no tests of speed to
/// tell it by, stands alone.
///
/// # Errors
/// If two records hold the same arm with different results, or the same model's name for different
/// models; it names the file of the later one.
pub fn merge(records: Vec<(String, Record)>) -> Result<Vec<Record>> {
    type Group = Vec<(usize, Record)>;
    let (files, records): (Vec<String>, Vec<Record>) = records.into_iter().unzip();
    let untimed = |r: &Record| r.protocol == Protocol::untimed();
    let open = |r: &Record| !named(&r.environment) && !matches!(r.limits, Outcome::Measured(_));
    let mut records: Group = records.into_iter().enumerate().collect();
    records.sort_by_key(|(_, r)| (untimed(r), open(r)));
    let mut groups: Vec<Group> = Vec::new();
    for (at, record) in records {
        let fits = |group: &Group| {
            group.iter().all(|(_, other)| is_shard(other, &record))
                && group.iter().any(|(_, other)| alike(other, &record))
        };
        let (fitting, mut others): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(fits);
        if fitting.len() > 1 && (untimed(&record) || open(&record)) {
            others.extend(fitting);
            others.push(vec![(at, record)]);
        } else {
            // A machine whose limits move has shards at both ends of them, which those between tell to be of it.
            let mut group = fitting.concat();
            group.push((at, record));
            others.push(group);
        }
        groups = others;
    }
    groups.iter_mut().for_each(|group| group.sort_by_key(|(at, _)| *at));
    groups.sort_by_key(|group| group[0].0);
    let whole = |group: Group| {
        let mut shards = group.into_iter();
        let (_, whole) = shards.next().ok_or_else(|| Error::Bug("a group without a record".into()))?;
        shards.try_fold(whole, |mut whole, (at, shard)| match join(&mut whole, shard) {
            Err(Error::NotComparable(what)) => Err(Error::NotComparable(format!("{}: {what}", files[at]))),
            joined => joined.map(|()| whole),
        })
    };
    groups.into_iter().map(whole).collect()
}

/// Whether two records could be of one run: what does not change on a machine is the same.
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
    // A record without tests of speed contradicts no protocol of them.
    let untimed = [a, b].iter().any(|r| r.protocol == Protocol::untimed());
    machine(a) == machine(b) && a.tool == b.tool && (untimed || protocol(a) == protocol(b))
}

/// Whether a machine has a name of its own.
fn named(environment: &Environment) -> bool {
    environment.host.as_ref().is_some_and(|host| host != "localhost")
}

/// Whether nothing speaks against one machine: where nothing names it, its limits tell it from others of its kind; they
/// move with other load too. What has none vouches for nothing that has.
fn alike(a: &Record, b: &Record) -> bool {
    match (&a.limits, &b.limits) {
        _ if named(&a.environment) => true,
        (Outcome::Measured(x), Outcome::Measured(y)) => about_the_same(x, y),
        // Of those without limits, which come last.
        (_, Outcome::NotMeasured(_)) => true,
        (Outcome::NotMeasured(_), Outcome::Measured(_)) => false,
    }
}

/// Whether the limits that both hold are about the same.
fn about_the_same(a: &Limits, b: &Limits) -> bool {
    let near = |x: f64, y: f64| x.max(y) <= (1.0 + ALIKE) * x.min(y);
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

/// An arm without what differs from run to run although its figures are the same.
fn figures(arm: &Arm) -> Arm {
    let mut arm = Arm { run: 0, ..arm.clone() };
    arm.accuracy.iter_mut().for_each(|accuracy| accuracy.seconds = 0.0);
    arm.choices.iter_mut().for_each(|choices| choices.seconds = 0.0);
    arm
}

/// Puts the suites of two records together: their names, and the texts of those that are no part of the program.
fn join_suites(whole: &mut Record, part: &Record) {
    for (known, new, between) in
        [(&mut whole.suite, &part.suite, " + "), (&mut whole.suite_text, &part.suite_text, "\n")]
    {
        let Some(new) = new else { continue };
        match known {
            Some(known)
                if format!("{between}{known}{between}").contains(&format!("{between}{new}{between}")) => {}
            Some(known) => *known = format!("{known}{between}{new}"),
            None => *known = Some(new.clone()),
        }
    }
}

fn join(whole: &mut Record, part: Record) -> Result<()> {
    join_suites(whole, &part);
    if whole.protocol == Protocol::untimed() {
        whole.protocol = part.protocol;
    }
    for model in part.models {
        match whole.model(&model.id) {
            Some(known)
                if known.hash != model.hash || !known.config.differences(&model.config).is_empty() =>
            {
                return Err(Error::NotComparable(format!(
                    "two different models are called '{}', this and one of a record before it (hashes {} and {}); measure \
                     again with different names{}",
                    model.id,
                    known.hash,
                    model.hash,
                    known
                        .config
                        .differences(&model.config)
                        .iter()
                        .map(|d| format!("\n  {d}"))
                        .collect::<String>()
                )));
            }
            Some(_) => {}
            None => whole.models.push(model),
        }
    }
    for proof in part.proofs {
        let known = whole.proofs.iter().find(|p| (&p.model, &p.layout) == (&proof.model, &proof.layout));
        match known {
            None => whole.proofs.push(proof),
            Some(known) if *known == proof => {}
            Some(_) => {
                return Err(Error::NotComparable(format!(
                    "conversion of {} to {} was proven in a record before it, with another result",
                    proof.model, proof.layout
                )));
            }
        }
    }
    // Records that share an arm share its run; other runs are others, whatever their figures.
    let same = |whole: &[Arm], arm: &Arm| whole.iter().find(|a| a.is_of(&arm.subject, &arm.test)).cloned();
    let mut runs: BTreeMap<u32, u32> = BTreeMap::new();
    for arm in &part.arms {
        let known = same(&whole.arms, arm).filter(|known| *arm == Arm { run: arm.run, ..known.clone() });
        runs.extend(known.map(|known| (arm.run, known.run)));
    }
    let numbers = |arms: &[Arm], controls: &[Control]| {
        let timed = arms.iter().filter(|arm| arm.speed.is_some()).map(|arm| arm.run);
        timed.chain(controls.iter().map(|control| control.run)).collect::<BTreeSet<_>>()
    };
    // The lowest that are free, since a record may hold any.
    let taken = numbers(&whole.arms, &whole.controls);
    let free = (0..=u32::MAX).filter(|run| !taken.contains(run));
    let shared = runs.clone();
    let further = numbers(&part.arms, &part.controls).into_iter().filter(|run| !shared.contains_key(run));
    runs.extend(further.zip(free));
    let number = |run: u32| runs.get(&run).copied().unwrap_or_default();
    for arm in part.arms {
        let arm = Arm { run: number(arm.run), ..arm };
        match same(&whole.arms, &arm) {
            Some(known) if figures(&known) == figures(&arm) => {}
            Some(_) => {
                return Err(Error::NotComparable(format!(
                    "{} was measured in a record before it, with different results; `compare` shows the \
                     difference, and merging would hide it",
                    arm_name(&arm.subject, &arm.test)
                )));
            }
            None => whole.arms.push(arm),
        }
    }
    for control in part.controls {
        let known = shared.contains_key(&control.run);
        let control = Control { run: number(control.run), ..control };
        let further = if known { without(control, &whole.controls) } else { control };
        Control::gather(&mut whole.controls, vec![further]);
    }
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
    for command in commands(&part.command) {
        if !commands(&whole.command).contains(&command) {
            whole.command = format!("{}; {command}", whole.command);
        }
    }
    // They may be of different zones.
    let instant = |time: &String| time.parse::<Timestamp>().ok();
    whole.started = [whole.started.clone(), part.started].into_iter().min_by_key(instant).unwrap_or_default();
    whole.finished =
        [whole.finished.clone(), part.finished].into_iter().max_by_key(instant).unwrap_or_default();
    Ok(())
}

/// A control without the rounds that the same one in `known` has, by their figures: hardly two rounds ever take the
/// same time to the nanosecond.
fn without(control: Control, known: &[Control]) -> Control {
    let Some(known) = known.iter().find(|k| k.is_of(&control)) else { return control };
    let best = !known.best.is_empty() && !control.best.is_empty();
    let round = |c: &Control, i: usize| (c.samples[i], c.best.get(i).copied().filter(|_| best));
    let mut known: Vec<_> = (0..known.samples.len()).map(|i| round(known, i)).collect();
    let new: Vec<usize> = (0..control.samples.len())
        .filter(|&i| {
            let at = known.iter().position(|k| *k == round(&control, i));
            at.map(|at| known.swap_remove(at)).is_none()
        })
        .collect();
    let of = |values: &[f64]| new.iter().filter_map(|&i| values.get(i).copied()).collect();
    Control { samples: of(&control.samples), best: of(&control.best), ..control }
}

/// The commands of a record that several were merged into. Their arguments may hold semicolons.
fn commands(text: &str) -> Vec<String> {
    text.replace("; tritmark ", "\0tritmark ").split('\0').map(str::to_owned).collect()
}

fn note(notes: &mut Vec<String>, sentence: &str) {
    if !notes.iter().any(|n| n == sentence) {
        notes.push(sentence.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::ReadLimit;
    use crate::record::example;

    /// As [`super::merge`], of one file.
    fn merge(records: Vec<Record>) -> Result<Vec<Record>> {
        super::merge(records.into_iter().map(|record| ("f.json".into(), record)).collect())
    }

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
        // The machine may have been another way in each.
        assert_eq!(merged[0].arms.iter().map(|arm| arm.run).collect::<Vec<_>>(), [0, 1, 1]);
        let arms = merged[0].arms.iter().map(|arm| Arm { run: 0, ..arm.clone() }).collect::<Vec<_>>();
        assert_eq!(arms, example().arms);
        let controls = merged[0].controls.iter().map(|c| (c.name.as_str(), c.run, c.samples.len()));
        assert_eq!(controls.collect::<Vec<_>>(), [("read", 0, 10), ("read", 1, 1)]);
        assert_eq!((merged[0].models.len(), merged[0].finished.as_str()), (1, "2026-01-01T00:05:00Z"));
        assert_eq!(merged[1], other);
        // What is there already is not there twice.
        assert_eq!(merge(vec![example(), example()]).unwrap(), [example()]);
    }

    #[test]
    fn shards_are_told_in_any_order() {
        let shard = |arm: usize, factor: f64| {
            let mut shard = example();
            shard.environment.host = None;
            shard.arms = vec![shard.arms[arm].clone()];
            shard.controls.clear();
            let read = ReadLimit { level: "RAM".into(), bytes: 1 << 26, threads: 1, gb_per_s: 10.0 * factor };
            shard.limits = Outcome::Measured(Limits { read: vec![read], ..Default::default() });
            shard
        };
        let shards = [shard(0, 1.0), shard(1, 1.08), shard(2, 1.16)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let merged = merge(order.map(|i| shards[i].clone()).to_vec()).unwrap();
            assert_eq!(merged.len(), 1, "{order:?}");
        }
        // One without limits could be of either, where there are two.
        let mut open = shards[1].clone();
        open.limits = Outcome::NotMeasured("quick".into());
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let three = [&shards[0], &shards[2], &open];
            assert_eq!(merge(order.map(|i| three[i].clone()).to_vec()).unwrap().len(), 3, "{order:?}");
        }
        assert_eq!(merge(vec![open.clone(), shards[0].clone()]).unwrap().len(), 1);
    }

    #[test]
    fn shards_of_several_suites_keep_both() {
        let (mut first, mut second) = (example(), example());
        first.arms.truncate(1);
        second.arms.drain(..1);
        let of = |record: &mut Record, name: &str| {
            record.suite = Some(name.into());
            record.suite_text = Some(format!("# {name}"));
        };
        of(&mut first, "a");
        of(&mut second, "b");
        let merged = merge(vec![first.clone(), second.clone(), first, second]).unwrap();
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].suite.as_deref(), Some("a + b"));
        assert_eq!(merged[0].suite_text.as_deref(), Some("# a\n# b"));
    }

    #[test]
    fn the_same_figures_may_have_taken_another_time() {
        let mut again = example();
        let accuracy = again.arms.iter_mut().find_map(|arm| arm.accuracy.as_mut()).unwrap();
        accuracy.seconds *= 2.0;
        assert_eq!(merge(vec![example(), again]).unwrap().len(), 1);
    }

    #[test]
    fn accuracy_joins_speed_whatever_its_protocol() {
        let (mut speed, mut accuracy) = (example(), example());
        speed.protocol.quick = true;
        accuracy.arms.retain(|arm| arm.speed.is_none());
        accuracy.protocol = Protocol::untimed();
        speed.arms.retain(|arm| arm.speed.is_some());
        assert!(!speed.arms.is_empty() && !accuracy.arms.is_empty());
        for records in [[&speed, &accuracy], [&accuracy, &speed]] {
            let merged = merge(records.map(Record::clone).into()).unwrap();
            assert_eq!(merged.len(), 1);
            assert_eq!((merged[0].arms.len(), &merged[0].protocol), (example().arms.len(), &speed.protocol));
        }
    }

    #[test]
    fn what_is_merged_again_changes_nothing_in_any_order() {
        let shard = |number: usize, first: f64| {
            let mut record = example();
            record.arms = vec![record.arms.swap_remove(number)];
            // Shards may share a figure, and a shard may hold one twice.
            record.controls[0].samples = vec![first, 40.0, first + 0.1, first + 0.1];
            record.controls[0].best = record.controls[0].samples.iter().map(|s| s + first).collect();
            record.command = format!("tritmark bench -m '{number}; x'");
            record
        };
        let [p1, p2, p3] = [shard(0, 41.0), shard(1, 42.0), shard(2, 43.0)];
        let merged = |records: &[&Record]| {
            let mut merged = merge(records.iter().copied().cloned().collect()).unwrap();
            assert_eq!(merged.len(), 1);
            merged.remove(0)
        };
        let held = |record: &Record| {
            let mut rounds: Vec<(f64, f64)> = Vec::new();
            for control in &record.controls {
                assert!(record.arms.iter().any(|arm| arm.run == control.run));
                rounds.extend(control.samples.iter().copied().zip(control.best.iter().copied()));
            }
            rounds.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let mut commands = commands(&record.command);
            commands.sort();
            (rounds.len(), rounds, commands, record.arms.len())
        };
        let m1 = merged(&[&p1, &p2]);
        let two = held(&m1);
        assert_eq!((two.0, two.1.len(), two.2.len(), two.3), (8, 8, 2, 2));
        for again in [&[&m1, &p2][..], &[&p2, &m1], &[&m1, &p1], &[&p1, &p2, &p2, &p1], &[&p1, &m1, &p2, &m1]]
        {
            assert_eq!(held(&merged(again)), two);
        }
        let three = held(&merged(&[&p1, &p2, &p3]));
        assert_eq!((three.0, three.2.len()), (12, 3));
        let m2 = merged(&[&p2, &p3]);
        for again in [&[&m1, &m2][..], &[&m2, &m1], &[&m1, &p3], &[&m2, &p2, &p1]] {
            assert_eq!(held(&merged(again)), three);
        }
        // Another shard that happened to meet the same figures is one all the same.
        let mut alike = p3;
        alike.controls = p1.controls.clone();
        assert_eq!(held(&merged(&[&p1, &alike])).0, 8);
    }

    #[test]
    fn numbers_of_runs_have_room() {
        let (mut first, mut second) = (example(), example());
        first.arms.truncate(1);
        second.arms.drain(..1);
        first.arms.iter_mut().for_each(|arm| arm.run = u32::MAX);
        first.controls.iter_mut().for_each(|control| control.run = u32::MAX);
        let merged = merge(vec![first, second]).unwrap();
        assert_eq!(merged[0].arms.iter().map(|arm| arm.run).collect::<Vec<_>>(), [u32::MAX, 0, 0]);
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
