//! What a report says: each section made from the records, and nothing but the records.

mod accuracy;
mod costs;
mod energy;
mod machine;
mod many;
mod overview;
mod scaling;
mod size;
mod speed;
mod table;
pub(super) mod verdict;

use super::document::{Block, Document, Section};
use super::number;
use super::row::subject_name;
use crate::checkpoint::config::LinearKind;
use crate::record::{Arm, Model, Record, Test};
use crate::speed::lists::distinct;
use std::collections::HashSet;

pub use costs::{Cost, costs};
pub use machine::{Load, loads};
pub use many::{Trend, trends};

/// Everything that some records have to say.
pub fn document(records: &[Record]) -> Document {
    let mut sections = vec![overview::section(records)];
    if records.len() > 1 {
        sections.extend(many::section(records));
    }
    sections.push(speed::section(records));
    sections.push(accuracy::section(records));
    sections.push(energy::section(records));
    sections.push(size::section(records));
    sections.extend(scaling::trade_off(records));
    sections.extend(scaling::threads(records));
    sections.extend(scaling::roofline(records));
    sections.push(table::section(records));
    sections.push(machine::environment(records));
    sections.push(machine::method(records));
    sections.push(machine::reproduce(records));
    // Names of models and texts that are long or not of ASCII may leave nothing that tells their plots apart.
    let mut names = HashSet::new();
    for block in sections.iter_mut().flat_map(|section| &mut section.blocks) {
        if let Block::Figure(plot) = block {
            let numbered = (2..).map(|n| format!("{}-{n}", plot.name));
            let mut names_of_it = std::iter::once(plot.name.clone()).chain(numbered);
            plot.name = names_of_it.find(|name| names.insert(name.clone())).expect("numbers do not end");
        }
    }
    Document {
        title: title(records),
        subtitle: subtitle(records),
        facts: verdict::facts(records),
        verdict: verdict::sentences(records),
        sections,
    }
}

fn title(records: &[Record]) -> String {
    let mut names: Vec<&str> = records
        .iter()
        .flat_map(|r| {
            let described = r.models.iter().map(|m| m.name.as_str());
            described.chain(r.arms.iter().map(|a| model_name(r, &a.subject.model)))
        })
        .collect();
    dedup(&mut names);
    let kernels =
        |r: &Record| !r.arms.is_empty() && r.arms.iter().all(|a| matches!(a.test, Test::Kernel { .. }));
    // What others measured may have been on a GPU.
    let imported = records.iter().flat_map(|r| &r.arms).any(|arm| arm.imported.is_some());
    let inference = if imported { "ternary inference" } else { "ternary inference on CPUs" };
    match names.as_slice() {
        [] => "A record without measurements".into(),
        _ if records.iter().all(kernels) => "Ternary kernels by themselves on CPUs".into(),
        [one] => format!("{one}: {inference}"),
        [first, second] => format!("{first} and {second}: {inference}"),
        [first, rest @ ..] => format!("{first} and {} more models: {inference}", rest.len()),
    }
}

fn subtitle(records: &[Record]) -> String {
    match records {
        [record] => {
            let suite = record.suite.as_ref().map(|s| format!("suite {s}, ")).unwrap_or_default();
            let quick = if record.protocol.quick {
                ", a short look rather than a measurement to publish"
            } else {
                ""
            };
            let resumed = if record.resumed { ", resumed after an interruption" } else { "" };
            format!(
                "{suite}{} on {}, {} {}{quick}{resumed}",
                record.started,
                cpu(record),
                record.tool.name,
                record.tool.version
            )
        }
        _ => {
            let mut cpus: Vec<&str> = records.iter().map(cpu).collect();
            dedup(&mut cpus);
            let kinds = if cpus.len() == 1 { "one kind".into() } else { format!("{} kinds", cpus.len()) };
            format!("{} records from {kinds} of CPU: {}", records.len(), cpus.join("; "))
        }
    }
}

/// The record's CPU, or that it is not known.
fn cpu(record: &Record) -> &str {
    if record.environment.cpu.is_empty() { "an unknown CPU" } else { &record.environment.cpu }
}

/// Removes values that occurred before; keeps the order.
fn dedup<T: PartialEq>(values: &mut Vec<T>) {
    *values = distinct(std::mem::take(values));
}

/// A model of a record by its id. Kernels by themselves have none, and of the models of other
/// programs a record knows no more than the name.
fn model<'a>(record: &'a Record, id: &str) -> Option<&'a Model> {
    record.models.iter().find(|m| m.id == id)
}

/// Name of the model that arms call `id`.
fn model_name<'a>(record: &'a Record, id: &'a str) -> &'a str {
    model(record, id).map_or(id, |m| m.name.as_str())
}

/// Name of the arm's model, where the record has figures of several; else nothing.
fn model_of_several<'a>(record: &'a Record, arm: &'a Arm) -> &'a str {
    let several = record.arms.iter().any(|a| a.subject.model != arm.subject.model);
    if several { model_name(record, &arm.subject.model) } else { "" }
}

/// What an arm measures, in a sentence: its subject, and of which model where there are several.
fn subject_words(record: &Record, arm: &Arm) -> String {
    match model_of_several(record, arm) {
        "" => subject_name(arm),
        model => format!("{model}, {}", subject_name(arm)),
    }
}

/// Heading of a part of a section that is repeated for each record, where there are several.
fn record_heading(records: &[Record], index: usize) -> Option<Block> {
    (records.len() > 1).then(|| {
        let record = &records[index];
        let models = match several_models(records) {
            true => record.models.iter().map(|m| format!(", {}", m.name)).collect(),
            false => String::new(),
        };
        // Where processors of one name are in several machines.
        let host = |r: &Record| r.environment.host.clone().filter(|_| cpu(r) == cpu(record));
        let mut hosts: Vec<String> = records.iter().filter_map(host).collect();
        dedup(&mut hosts);
        let host =
            host(record).filter(|_| hosts.len() > 1).map_or_else(String::new, |host| format!(", {host}"));
        Block::heading(format!("Record {}: {}{host}, {}{models}", index + 1, cpu(record), record.started))
    })
}

/// Whether records hold figures of several models together.
fn several_models(records: &[Record]) -> bool {
    let mut names = records.iter().flat_map(|r| r.arms.iter().map(|a| model_name(r, &a.subject.model)));
    names.next().is_some_and(|first| names.any(|name| name != first))
}

/// Start of file and figure names of a record's plots.
fn plot_prefix(records: &[Record], index: usize) -> String {
    if records.len() > 1 { format!("record{}-", index + 1) } else { String::new() }
}

/// A file name of letters, digits and hyphens.
fn slug(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    while out.contains("--") {
        out = out.replace("--", "-");
    }
    out.trim_matches('-').chars().take(60).collect()
}

/// A subject apart from its tier and threads: what has one bar.
#[derive(Debug, Clone, PartialEq)]
struct Family<'a> {
    engine: &'a str,
    layout: Option<&'a str>,
    variant: Option<&'a str>,
}

impl<'a> Family<'a> {
    fn of(arm: &'a Arm) -> Self {
        let s = &arm.subject;
        Self { engine: &s.engine, layout: s.layout.as_deref(), variant: s.variant.as_deref() }
    }

    fn name(&self) -> String {
        let name = match self.layout {
            Some(layout) if self.engine == "tritmark" => layout.to_owned(),
            Some(layout) => format!("{} {layout}", self.engine),
            None => self.engine.to_owned(),
        };
        self.variant.map_or(name.clone(), |v| format!("{name}, {v}"))
    }
}

/// The arms of one family under one test at the number of threads of its fastest, fastest first.
struct Ranked<'a> {
    family: Family<'a>,
    arms: Vec<&'a Arm>,
}

impl<'a> Ranked<'a> {
    fn best(&self) -> &'a Arm {
        self.arms[0]
    }
}

/// All families under one test, the fastest first.
fn ranking<'a>(record: &'a Record, model: &str, test: &Test) -> Vec<Ranked<'a>> {
    let of_test =
        || record.arms.iter().filter(|a| a.speed.is_some() && a.subject.model == model && a.test == *test);
    let mut families: Vec<Family> = of_test().map(Family::of).collect();
    dedup(&mut families);
    let mut ranking: Vec<Ranked> = families
        .into_iter()
        .map(|family| {
            let mine = || of_test().filter(|a| Family::of(a) == family);
            let mut arms: Vec<&Arm> = mine().collect();
            arms.sort_by(|a, b| median(b).total_cmp(&median(a)));
            let threads = arms[0].subject.threads;
            arms.retain(|a| a.subject.threads == threads);
            Ranked { family, arms }
        })
        .collect();
    ranking.sort_by(|a, b| median(b.best()).total_cmp(&median(a.best())));
    ranking
}

/// Median speed, 0 for arms without.
fn median(arm: &Arm) -> f64 {
    arm.speed.as_ref().map_or(0.0, |s| s.median)
}

/// The model that a record is about: the first that was trained ternary, else any ternary one, else
/// the first.
fn main_model(record: &Record) -> Option<&Model> {
    let ternary = || record.models.iter().filter(|m| m.config.linear == LinearKind::Ternary);
    ternary().find(|m| !m.post_training).or(ternary().next()).or(record.models.first())
}

/// Id of the main model, else of the fastest, under the first test of decoding, or of reading a
/// prompt; where there are no such tests, `None`.
fn headline(record: &Record, decode: bool) -> Option<(&str, &Test)> {
    let wanted = |t: &Test| matches!(t, Test::Model { prompt, generate, .. } if (*prompt == 0) == decode && (*generate == 0) != decode);
    let tests = speed_tests(record);
    let (_, first) = tests.iter().find(|(_, t)| wanted(t))?;
    let speed = |model: &str, test: &Test| median(ranking(record, model, test)[0].best());
    let same = || tests.iter().filter(|(_, t)| t == first);
    let main = same().find(|(id, _)| main_model(record).is_some_and(|m| m.id == *id));
    main.or(same().max_by(|a, b| speed(a.0, a.1).total_cmp(&speed(b.0, b.1)))).copied()
}

/// Id of the model and test of every test of speed, in the record's order.
fn speed_tests(record: &Record) -> Vec<(&str, &Test)> {
    let timed = record.arms.iter().filter(|a| a.speed.is_some());
    let mut tests: Vec<(&str, &Test)> = timed.map(|a| (a.subject.model.as_str(), &a.test)).collect();
    dedup(&mut tests);
    tests
}

/// Whether the tests of speed are of more than one model, so that each is named.
fn several_timed(record: &Record) -> bool {
    let tests = speed_tests(record);
    record.models.len() > 1 || tests.iter().any(|(id, _)| *id != tests[0].0)
}

/// A speed with its unit.
fn speed_text(arm: &Arm) -> String {
    arm.speed
        .as_ref()
        .map_or_else(|| "not measured".into(), |s| format!("{} {}", number::significant(s.median, 3), s.unit))
}

/// A section that has something to say.
fn section(id: &'static str, title: &'static str, blocks: Vec<Block>) -> Option<Section> {
    (!blocks.is_empty()).then_some(Section { id, title, blocks })
}
