//! The machine, the method, and how to measure it again.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{bytes, percent, significant};
use super::{dedup, record_heading};
use crate::accuracy::Convention;
use crate::machine::Environment;
use crate::record::{Control, Outcome, Record, Test};
use crate::words::counted;
use serde::Serialize;
use std::collections::BTreeMap;

/// Machines side by side, and their measured limits.
pub fn environment(records: &[Record]) -> Section {
    let titles: Vec<String> = (1..=records.len())
        .map(|i| if records.len() > 1 { format!("Record {i}") } else { "Value".into() })
        .collect();
    let headings: Vec<&str> = std::iter::once("Property").chain(titles.iter().map(String::as_str)).collect();
    let mut table = Table::new("The machine while it was measured", &headings);
    let sheets: Vec<Vec<(&str, Option<String>)>> = records.iter().map(properties).collect();
    for (i, (name, _)) in sheets.first().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let values: Vec<&Option<String>> = sheets.iter().map(|s| &s[i].1).collect();
        let differs = values.iter().any(|v| *v != values[0]);
        let mut cells = vec![Cell::text(*name).detail(if differs { "differs" } else { "" })];
        cells.extend(values.iter().zip(records).map(|(value, record)| {
            let silent = if only_imported(record) { "the imported file" } else { "this system" };
            value.as_ref().map_or(Cell::not_measured(&format!("{silent} does not tell")), Cell::text)
        }));
        table.row(cells);
    }
    let mut blocks = vec![Block::Table(table)];
    let loads = loads(records);
    for (i, record) in records.iter().enumerate() {
        blocks.extend(record_heading(records, i));
        blocks.push(limits(record));
        let own: Vec<&Load> = loads.iter().filter(|l| l.record == i + 1).collect();
        blocks.extend(load_table(&own).map(Block::Table));
    }
    Section { id: "environment", title: "Environment", blocks }
}

/// Whether another program measured all that a record holds.
fn only_imported(record: &Record) -> bool {
    !record.arms.is_empty() && record.arms.iter().all(|arm| arm.imported.is_some())
}

fn properties(record: &Record) -> Vec<(&'static str, Option<String>)> {
    let e: &Environment = &record.environment;
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let list = |l: &[String]| text(&l.join(" "));
    let pair = |p: [f64; 2], unit: &str| {
        format!("{} {unit} at the start, {} {unit} at the end", significant(p[0], 4), significant(p[1], 4))
    };
    let caches: Vec<String> =
        e.caches.iter().map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
    let kinds: Vec<String> = e.core_kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    // Nothing is nothing only where one knows.
    let known = |l: &[String]| (!l.is_empty() || !only_imported(record)).then(|| l.join(" "));
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    vec![
        ("CPU", text(&e.cpu)),
        ("Family, model, stepping, microcode", e.cpu_id.clone()),
        ("Architecture", text(&e.arch)),
        ("Host", e.host.clone()),
        ("Features usable", list(&e.features)),
        (
            "Features switched off",
            known(&e.features_off).map(|f| if f.is_empty() { "none".into() } else { f }),
        ),
        (
            "Features compiled in",
            known(&e.compiled_features)
                .map(|f| if f.is_empty() { "none beyond the baseline".into() } else { f }),
        ),
        ("Caches", text(&caches.join(", "))),
        ("Sockets", e.sockets.map(|n| n.to_string())),
        (
            "Cores",
            e.cores.map(
                |n| if kinds.is_empty() { n.to_string() } else { format!("{n} ({})", kinds.join(", ")) },
            ),
        ),
        ("Threads available", Some(e.threads.to_string())),
        ("Several threads a core", e.smt.map(yes)),
        ("NUMA nodes", e.numa_nodes.map(|n| n.to_string())),
        ("Memory", e.memory.map(bytes)),
        ("Huge pages", e.huge_pages.clone()),
        ("Governor", e.governor.clone()),
        ("Turbo", e.turbo.map(yes)),
        ("Clock", e.mhz.map(|m| pair(m, "MHz"))),
        ("Temperature", e.celsius.map(|c| pair(c, "°C"))),
        ("Throttling events", e.throttle_events.map(|n| n.to_string())),
        ("Load at the start", e.load.map(|l| significant(l, 3))),
        ("Time stolen by the hypervisor", e.steal.map(percent)),
        ("CPU quota", e.quota().map(|q| q.map_or("none".into(), |c| format!("{} CPUs", significant(c, 3))))),
        ("Container or hypervisor", e.virtualisation.clone()),
        ("System", text(&e.os)),
        ("Tuning of kernels", e.tuning.clone()),
        (
            "Program",
            Some(format!("{} {}, {} build", record.tool.name, record.tool.version, record.tool.profile)),
        ),
        (
            "Revision",
            record.tool.git_revision.as_ref().map(|r| {
                let state = match record.tool.git_dirty {
                    Some(true) => " with changes",
                    Some(false) => "",
                    None => ", unknown whether changed",
                };
                format!("{r}{state}")
            }),
        ),
        ("Compiler", text(&record.tool.rustc)),
        ("Target", text(&record.tool.target)),
    ]
}

fn limits(record: &Record) -> Block {
    let limits = match &record.limits {
        Outcome::NotMeasured(reason) => return Block::text(format!("Limits not measured: {reason}")),
        Outcome::Measured(limits) => limits,
    };
    let mut table = Table::new("Measured limits of the machine", &["Limit", "Threads#", "Rate#"]);
    for l in &limits.read {
        table.row(vec![
            Cell::text(format!("Reading from {}", l.level)).detail(format!("working set {}", bytes(l.bytes))),
            Cell::figure(f64::from(l.threads), l.threads.to_string()),
            Cell::figure(l.gb_per_s, format!("{} GB/s", significant(l.gb_per_s, 3))),
        ]);
    }
    for (what, limits) in [("int8 multiply-accumulate", &limits.int8), ("f32 multiply-add", &limits.f32)] {
        for l in limits {
            table.row(vec![
                Cell::text(what).detail(&l.tier),
                Cell::figure(f64::from(l.threads), l.threads.to_string()),
                Cell::figure(l.gmac_per_s, format!("{} GMAC/s", significant(l.gmac_per_s, 3))),
            ]);
        }
    }
    Block::Table(table)
}

/// What the machine itself did while the arms ran: speed of a fixed load over the rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// Number of the record, from 1.
    pub record: usize,
    /// `read`, `compute` or `handoff`.
    pub name: String,
    /// Threads.
    pub threads: u32,
    /// Slowest round.
    pub lowest: f64,
    /// Median round.
    pub median: f64,
    /// Fastest round.
    pub highest: f64,
}

/// The fixed loads of all records.
pub fn loads(records: &[Record]) -> Vec<Load> {
    let mut loads = Vec::new();
    for (i, record) in records.iter().enumerate() {
        // Of a record that was merged from several runs, those of each.
        let several = record.controls.iter().any(|c| c.run > 0);
        let name = |c: &Control| match several {
            true => format!("{} in run {}", c.name, u64::from(c.run) + 1),
            false => c.name.clone(),
        };
        let controls = record.controls.iter().map(|c| (name(c), c.threads, c.samples.clone()));
        let mut handoffs: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for arm in &record.arms {
            let handoff = arm.speed.iter().flat_map(|s| s.handoff.iter().flatten().flatten());
            handoffs.entry(arm.subject.threads).or_default().extend(handoff);
        }
        let handoffs =
            handoffs.into_iter().map(|(threads, samples)| ("handoff".to_owned(), threads, samples));
        for (name, threads, mut sorted) in controls.chain(handoffs).filter(|c| !c.2.is_empty()) {
            sorted.sort_by(f64::total_cmp);
            loads.push(Load {
                record: i + 1,
                name,
                threads,
                lowest: sorted[0],
                median: crate::stats::median(&sorted),
                highest: sorted[sorted.len() - 1],
            });
        }
    }
    loads
}

fn load_table(loads: &[&Load]) -> Option<Table> {
    let mut table = Table::new(
        "What the machine did meanwhile, by fixed loads of no model: reading (GB/s) and arithmetic (10⁹ operations/s), timed once in each round between the arms, and hand-overs of a cache line between threads (10⁶/s), timed before and after each sample",
        &["Load", "Threads#", "Lowest#", "Median#", "Highest#"],
    );
    for load in loads {
        let cell = |v: f64| Cell::figure(v, significant(v, 3));
        table.row(vec![
            Cell::text(&load.name),
            Cell::figure(f64::from(load.threads), load.threads.to_string()),
            cell(load.lowest),
            cell(load.median),
            cell(load.highest),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// How the figures came about.
pub fn method(records: &[Record]) -> Section {
    let mut items: Vec<String> = Vec::new();
    for record in records {
        let p = &record.protocol;
        let rounds = || record.arms.iter().filter_map(|a| Some(a.speed.as_ref()?.samples.len()));
        // What was asked for may have been cut short by a budget, or lengthened where the machine changed.
        if let (Some(least), Some(most)) = (rounds().min(), rounds().max()) {
            let rounds = format!(
                "{}{} of each arm",
                if least < most { format!("{least} to ") } else { String::new() },
                counted(most as u64, "round")
            );
            items.push(match only_imported(record) {
                true => format!("{rounds}, as the other program made them."),
                false => format!(
                    "{rounds}, samples of at least {} s, order and bootstrap seeded with {}.",
                    significant(p.min_time_s, 3),
                    p.seed
                ),
            });
            items.extend(p.method.iter().cloned());
        }
        if record.arms.iter().any(|a| a.choices.is_some()) {
            items.push("Multiple choice: zero-shot, prompts and scoring of lm-evaluation-harness; the likeliest choice counts, by length the likeliest for its number of characters.".into());
        }
        if record.arms.iter().any(|a| a.subject.head().is_some_and(|h| h.starts_with('q'))) {
            items.push("Heads at q6_k and q4_0 were encoded as a GGUF file holds them and decoded again to f32: their accuracy is that of the form, their speed would be that of f32.".into());
        }
        if let Outcome::Measured(limits) = &record.limits {
            items.extend(limits.method.iter().cloned());
        }
        for arm in &record.arms {
            if let Test::Perplexity { convention, n_ctx, .. } = &arm.test {
                let described = Convention::parse(convention, *n_ctx as usize, None).map(|c| c.describe());
                items.push(format!(
                    "Perplexity {}.",
                    described.unwrap_or_else(|_| format!("{convention}, windows of {n_ctx}"))
                ));
            }
        }
    }
    items.push("Speeds are medians; intervals are percentile-bootstrap 95 % intervals of the median; ratios resample both sides. Raw samples are in the data.".into());
    items.push("The standard error of a perplexity is that of the mean negative log-likelihood over tokens, times the perplexity; it takes tokens as independent. Differences against a reference are paired by token.".into());
    items.push("KL divergence is KL(reference ‖ subject) over the whole vocabulary at every scored position, in f64.".into());
    dedup(&mut items);
    Section { id: "method", title: "Method", blocks: vec![Block::List { items }] }
}

/// The exact commands.
pub fn reproduce(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        blocks.extend(record_heading(records, i));
        blocks.push(Block::Code { text: record.command.clone() });
        if let (Some(suite), Some(text)) = (&record.suite, &record.suite_text) {
            let title = format!("The suite {suite}.toml, a file to be made first");
            blocks.push(Block::Details { title, text: text.clone() });
        }
        blocks.push(Block::text(format!("Begun {}, finished {}.", record.started, record.finished)));
    }
    blocks.push(Block::text("The figures of another machine will differ in speed and energy; weights and perplexity will not, as long as the mathematics library of the system gives the same logarithms."));
    Section { id: "reproduce", title: "How to reproduce", blocks }
}
