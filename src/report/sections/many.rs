//! Several records: machines side by side, and each arm over time.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::significant;
use super::super::plot::{Axis, Plot, Series, Xy};
use super::super::row::subject_name;
use super::{cpu, dedup, median, model, slug};
use crate::record::{Arm, Record, Test};

/// How many arms one picture of a trend holds.
const LINES: usize = 8;

/// The matrix of machines and the trend, as far as the records allow.
pub fn section(records: &[Record]) -> Option<Section> {
    let mut blocks = matrix(records);
    blocks.extend(trend(records));
    super::section("records", "Records compared", blocks)
}

/// A machine: CPU and how many threads it gave.
fn machine(record: &Record) -> (&str, u32) {
    (cpu(record), record.environment.threads)
}

/// For each model and test: kernels by machines, each at its greatest number of threads, from the
/// newest record of that machine.
fn matrix(records: &[Record]) -> Vec<Block> {
    let mut machines: Vec<_> = records.iter().map(machine).collect();
    dedup(&mut machines);
    if machines.len() < 2 {
        return Vec::new();
    }
    let newest = |m: &(&str, u32)| {
        records.iter().filter(|r| machine(r) == *m).max_by(|a, b| a.started.cmp(&b.started))
    };
    let chosen: Vec<&Record> = machines.iter().filter_map(newest).collect();
    let mut tests: Vec<(String, &Test)> = Vec::new();
    for record in &chosen {
        for arm in record.arms.iter().filter(|a| a.speed.is_some()) {
            tests.extend(model(record, &arm.subject.model).map(|m| (m.name.clone(), &arm.test)));
        }
    }
    dedup(&mut tests);
    let mut blocks = Vec::new();
    for (name, test) in tests {
        let mine = |record: &'_ Record, arm: &Arm| {
            arm.speed.is_some()
                && arm.test == *test
                && model(record, &arm.subject.model).is_some_and(|m| m.name == name)
        };
        let mut subjects: Vec<String> =
            chosen.iter().flat_map(|r| r.arms.iter().filter(|a| mine(r, a)).map(subject_name)).collect();
        dedup(&mut subjects);
        let unit = chosen
            .iter()
            .flat_map(|r| &r.arms)
            .find(|a| a.test == *test)
            .and_then(|a| a.speed.as_ref())
            .map_or("", |s| &s.unit);
        let titles: Vec<String> =
            machines.iter().map(|(cpu, n)| format!("{cpu}, {}#", super::threads(*n))).collect();
        let headings: Vec<&str> =
            std::iter::once("Kernel").chain(titles.iter().map(String::as_str)).collect();
        let mut table = Table::new(
            format!("{name}, {test}, {unit}: each machine at its greatest number of threads"),
            &headings,
        );
        for subject in subjects {
            let found: Vec<Option<&Arm>> = chosen
                .iter()
                .map(|r| {
                    r.arms
                        .iter()
                        .filter(|a| mine(r, a) && subject_name(a) == subject)
                        .max_by_key(|a| a.subject.threads)
                })
                .collect();
            let best = found.iter().flatten().map(|a| median(a)).fold(0.0, f64::max);
            let mut cells = vec![Cell::text(&subject)];
            cells.extend(found.iter().map(|arm| {
                arm.map_or_else(Cell::none, |a| {
                    Cell::figure(median(a), significant(median(a), 3))
                        .detail(super::threads(a.subject.threads))
                        .bar(median(a) / best)
                })
            }));
            table.row(cells);
        }
        blocks.push(Block::Table(table));
    }
    blocks
}

/// Speed of the same arm in several records of one machine, by time.
fn trend(records: &[Record]) -> Vec<Block> {
    let mut machines: Vec<_> = records.iter().map(machine).collect();
    dedup(&mut machines);
    let mut blocks = Vec::new();
    for (index, wanted) in machines.iter().enumerate() {
        let mut mine: Vec<&Record> = records.iter().filter(|r| machine(r) == *wanted).collect();
        mine.sort_by(|a, b| a.started.cmp(&b.started));
        mine.dedup_by(|a, b| a.started == b.started);
        if mine.len() < 2 {
            continue;
        }
        let mut keys: Vec<(String, &Test)> = Vec::new();
        for record in &mine {
            for arm in record.arms.iter().filter(|a| a.speed.is_some()) {
                keys.extend(model(record, &arm.subject.model).map(|m| (m.name.clone(), &arm.test)));
            }
        }
        dedup(&mut keys);
        for (name, test) in keys {
            let plot = trend_plot(&mine, &name, test, wanted.0, index);
            blocks.extend(plot.map(Block::Figure));
        }
    }
    blocks
}

fn trend_plot(records: &[&Record], name: &str, test: &Test, cpu: &str, index: usize) -> Option<Plot> {
    let named = |arm: &Arm| format!("{} on {}", subject_name(arm), super::threads(arm.subject.threads));
    let of = |record: &&Record| -> Vec<(String, f64, [f64; 2])> {
        let arms = record
            .arms
            .iter()
            .filter(|a| a.test == *test && model(record, &a.subject.model).is_some_and(|m| m.name == name));
        arms.filter_map(|a| Some((named(a), median(a), a.speed.as_ref()?.interval))).collect()
    };
    let columns: Vec<_> = records.iter().map(of).collect();
    let mut subjects: Vec<(String, f64)> = columns.last()?.iter().map(|c| (c.0.clone(), c.1)).collect();
    subjects.sort_by(|a, b| b.1.total_cmp(&a.1));
    subjects.truncate(LINES);
    let mut series = Vec::new();
    for (style, (subject, _)) in subjects.iter().enumerate() {
        let found: Vec<_> = columns
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, c.iter().find(|s| s.0 == *subject)?)))
            .collect();
        if found.len() < 2 {
            continue;
        }
        series.push(Series {
            name: subject.clone(),
            style: Some(style),
            line: true,
            points: found.iter().map(|(i, s)| (*i as f64 + 1.0, s.1)).collect(),
            intervals: found.iter().map(|(_, s)| s.2).collect(),
            ..Series::default()
        });
    }
    if series.is_empty() {
        return None;
    }
    let date = |r: &&Record| r.started.chars().take(10).collect::<String>();
    let unit = records[0]
        .arms
        .iter()
        .find(|a| a.test == *test)
        .and_then(|a| a.speed.as_ref())
        .map_or("", |s| &s.unit);
    let chart = Xy {
        x: Axis {
            label: "record, by date".into(),
            ticks: records.iter().enumerate().map(|(i, r)| (i as f64 + 1.0, date(r))).collect(),
            ..Axis::default()
        },
        y: Axis { label: unit.into(), ..Axis::default() },
        series,
    };
    let title = format!("Over time: {test} of {name} on {cpu}");
    let alt =
        format!("Line chart over {} records; the figures stand in the table of every arm.", records.len());
    let file = format!("trend-{}-{}-{}", index + 1, slug(name), slug(&test.to_string()));
    let caption =
        format!("The {LINES} fastest arms of the newest record; whiskers: bootstrap 95 % interval.");
    Some(Plot::new(file, title, caption, alt, &chart))
}
