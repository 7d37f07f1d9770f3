//! Which records are held against each other, and what stands in the way of it.

use crate::machine::Environment;
use crate::record::import::NOT_STATED;
use crate::record::{Model, Record};

/// For each record of B the one of A that it is held against, each at most once: first those between
/// which the least stands, then those of one host, then those in the same place.
pub(super) fn partners(a: &[Record], b: &[Record]) -> Vec<Option<usize>> {
    let mut pairs = Vec::new();
    for (i, before) in a.iter().enumerate() {
        for (j, after) in b.iter().enumerate() {
            let (x, y) = (&before.environment, &after.environment);
            let Differences { refused, noted } = differences(before, after);
            let apart = (x.cpu != y.cpu, refused.len(), x.host != y.host, noted.len(), i.abs_diff(j));
            pairs.push((apart, j, i));
        }
    }
    pairs.sort();
    let mut partners = vec![None; b.len()];
    for (_, j, i) in pairs {
        if partners[j].is_none() && !partners.contains(&Some(i)) {
            partners[j] = Some(i);
        }
    }
    partners
}

/// What tells the machines of several records apart: the processor, the host where processors have
/// one name, and a number where hosts do too.
pub(in crate::record) fn machine_names(records: &[Record]) -> Vec<Option<String>> {
    if records.len() < 2 {
        return vec![None; records.len()];
    }
    let cpu = |r: &Record| stated(&r.environment.cpu).unwrap_or_else(|| "an unknown CPU".into());
    let with_host = |r: &Record| {
        let alike = records.iter().filter(|other| cpu(other) == cpu(r)).count();
        let host = r.environment.host.as_ref().filter(|_| alike > 1);
        host.map_or_else(|| cpu(r), |host| format!("{}, {host}", cpu(r)))
    };
    let names: Vec<String> = records.iter().map(with_host).collect();
    let numbered = names.iter().enumerate().map(|(i, name)| {
        let before = names[..i].iter().filter(|other| *other == name).count();
        Some(if before == 0 { name.clone() } else { format!("{name} ({})", before + 1) })
    });
    numbered.collect()
}

/// What stands in the way of a comparison, and what does not but may explain a difference.
pub(super) struct Differences {
    pub(super) refused: Vec<String>,
    pub(super) noted: Vec<String>,
}

/// The processor of a record, so that two of one name are told apart.
pub(super) fn processor(record: &Record) -> String {
    let Environment { cpu, cpu_id, arch, .. } = &record.environment;
    let cpu = stated(cpu).unwrap_or_else(|| NOT_STATED.into());
    format!("{cpu} ({}{arch})", cpu_id.as_ref().map(|id| format!("{id}, ")).unwrap_or_default())
}

/// Words of a record, unless they stand for some that an imported file did not hold.
fn stated(words: &str) -> Option<String> {
    (!words.is_empty() && words != NOT_STATED).then(|| words.to_owned())
}

pub(super) fn differences(a: &Record, b: &Record) -> Differences {
    let mut found = Differences { refused: Vec::new(), noted: Vec::new() };
    of_processors(a, b, &mut found);
    of_machines(a, b, &mut found);
    of_models(a, b, &mut found);
    of_protocols(a, b, &mut found);
    found
}

fn of_processors(a: &Record, b: &Record, found: &mut Differences) {
    let (x, y) = (&a.environment, &b.environment);
    // Microcode is no part of what a processor is.
    fn model(e: &Environment) -> Option<&str> {
        e.cpu_id.as_deref()?.split(" microcode ").next()
    }
    let models = model(x).zip(model(y));
    let unlike = |x: &str, y: &str| stated(x).zip(stated(y)).is_some_and(|(x, y)| x != y);
    let processors = || format!("different processors: {} and {}", processor(a), processor(b));
    if unlike(&x.cpu, &y.cpu) || unlike(&x.arch, &y.arch) || models.is_some_and(|(x, y)| x != y) {
        found.refused.push(processors());
    } else if (&x.cpu, &x.arch, &x.cpu_id) != (&y.cpu, &y.arch, &y.cpu_id) {
        found.noted.push(processors());
    }
}

/// Whether figures of a record are our own: what is imported tells less of its machine.
fn ours(record: &Record) -> bool {
    record.arms.iter().any(|arm| arm.imported.is_none())
}

fn of_machines(a: &Record, b: &Record, found: &mut Differences) {
    let (x, y) = (&a.environment, &b.environment);
    let cpus = |n: Option<f64>| n.map_or("all CPUs".into(), |n| format!("{n} CPUs"));
    // An imported file does not tell how large its machine was.
    let size = |r: &Record| ours(r).then(|| format!("{} threads", r.environment.threads));
    let pairs = [
        ("CPU quotas", x.quota().map(cpus), y.quota().map(cpus)),
        ("sizes of the machine", size(a), size(b)),
        ("virtual machines", x.hypervisor(), y.hypervisor()),
        ("frequency governors", x.governor.clone(), y.governor.clone()),
        ("build profiles", stated(&a.tool.profile), stated(&b.tool.profile)),
    ];
    for (what, x, y) in pairs {
        if let (Some(x), Some(y)) = (&x, &y) {
            found.refused.extend((x != y).then(|| format!("different {what}: {x} and {y}")));
        } else if x != y {
            found.noted.push(different(what, &x, &y));
        }
    }
    let list = |words: &[String]| (!words.is_empty()).then(|| words.join(", "));
    let gib =
        |e: &Environment| e.memory.map(|bytes| format!("{:.0} GiB", bytes as f64 / (1u64 << 30) as f64));
    let caches = |e: &Environment| {
        let caches: Vec<_> =
            e.caches.iter().map(|(level, bytes)| format!("{level} {} KiB", bytes >> 10)).collect();
        list(&caches)
    };
    let parts = [
        ("numbers of cores", x.cores.map(|n| n.to_string()), y.cores.map(|n| n.to_string())),
        ("NUMA nodes", x.numa_nodes.map(|n| n.to_string()), y.numa_nodes.map(|n| n.to_string())),
        ("hyper-threading", x.smt.map(|on| on.to_string()), y.smt.map(|on| on.to_string())),
        ("caches", caches(x), caches(y)),
        ("sizes of memory", gib(x), gib(y)),
        ("instruction sets", list(&x.features), list(&y.features)),
    ];
    // What an imported file does not tell is no difference.
    let both = parts.into_iter().filter(|(_, x, y)| x.is_some() && y.is_some() && x != y);
    found.noted.extend(both.map(|(what, x, y)| different(what, &x, &y)));
    let settings = [
        ("tunings of the kernels", &x.tuning, &y.tuning),
        ("huge pages", &x.huge_pages, &y.huge_pages),
        ("systems", &stated(&x.os), &stated(&y.os)),
    ];
    found
        .noted
        .extend(settings.into_iter().filter(|(_, x, y)| x != y).map(|(what, x, y)| different(what, x, y)));
    if x.turbo != y.turbo {
        found.noted.push(different(
            "turbo",
            &x.turbo.map(|t| t.to_string()),
            &y.turbo.map(|t| t.to_string()),
        ));
    }
}

fn of_models(a: &Record, b: &Record, found: &mut Differences) {
    let known = |m: &&Model| a.models.iter().any(|o| o.hash == m.hash);
    // Of an imported one it is not known which it is.
    if !a.models.is_empty() && !b.models.is_empty() && !b.models.iter().any(|m| known(&m)) {
        let names = |r: &Record| {
            let names = r.models.iter().map(|m| format!("{} ({:.12})", m.name, m.hash));
            names.collect::<Vec<_>>().join(", ")
        };
        found.refused.push(format!("different models: {} and {}", names(a), names(b)));
    }
    for after in &b.models {
        let same: Vec<&Model> = a.models.iter().filter(|before| before.hash == after.hash).collect();
        let differ = |before: &&Model| before.config.differences(&after.config);
        // Several may have the same weights.
        if let Some(nearest) = same.iter().map(differ).min_by_key(Vec::len).filter(|d| !d.is_empty()) {
            let sentence = nearest.join(" ");
            found
                .refused
                .push(format!("different models of the same weights: {}", sentence.trim_end_matches('.')));
        } else if !same.is_empty()
            && same.iter().all(|m| (m.config.bos, &m.config.eos) != (after.config.bos, &after.config.eos))
        {
            found.noted.push(format!("different tokens before or after a text in {}", after.id));
        }
    }
}

fn of_protocols(a: &Record, b: &Record, found: &mut Differences) {
    // Figures of accuracy do not depend on how speeds are sampled.
    let timed = [a, b].iter().all(|r| r.arms.iter().any(|arm| arm.speed.is_some()));
    let time = |r: &Record| (timed && ours(r)).then_some(r.protocol.min_time_s);
    let protocol = |r: &Record| (r.tool.name.clone(), time(r), timed && r.protocol.quick);
    let (pa, pb) = (protocol(a), protocol(b));
    if pa != pb {
        let words = |(name, time, quick): (String, Option<f64>, bool)| {
            if !timed {
                return name;
            }
            let time = time.map_or_else(|| "a time not stated".into(), |s| format!("{s} s"));
            format!("{name}, samples of {time}{}", if quick { ", --quick" } else { "" })
        };
        found.refused.push(format!("different protocols: {} and {}", words(pa), words(pb)));
    }
}

fn different(what: &str, a: &Option<String>, b: &Option<String>) -> String {
    let word = |value: &Option<String>| value.clone().unwrap_or_else(|| NOT_STATED.into());
    format!("different {what}: {} and {}", word(a), word(b))
}
