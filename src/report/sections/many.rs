//! Several records: machines side by side, and each arm over time.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{signed, significant};
use super::super::plot::{Axis, Plot, Series, Xy};
use super::super::row::subject_name;
use super::{cpu, dedup, median, model, slug};
use crate::record::compare::{Options, Verdict, obstacles, speeds};
use crate::record::{Arm, Model, Record, Test};
use crate::words::counted;
use serde::Serialize;
use std::collections::HashMap;

/// How many arms one picture of a trend holds.
const LINES: usize = 8;

/// The matrix of machines and the trend, as far as the records allow.
pub fn section(records: &[Record]) -> Option<Section> {
    let mut blocks = matrix(records);
    blocks.extend(trend(records));
    super::section("records", "Records compared", blocks)
}

/// What tells machines apart: all that an update of its software does not change. Two of the same kind
/// whose records were anonymised look like one.
#[derive(Debug, Clone, PartialEq)]
struct Machine {
    host: Option<String>,
    cpu: String,
    cpu_id: Option<String>,
    threads: u32,
    memory: Option<u64>,
}

impl Machine {
    fn of(record: &Record) -> Self {
        let e = &record.environment;
        // Microcode stands last and is updated like software.
        let id =
            |id: &String| id.split(" microcode").next().unwrap_or(id).trim_end_matches([',', ';']).to_owned();
        Self {
            host: e.host.clone(),
            cpu: cpu(record).to_owned(),
            cpu_id: e.cpu_id.as_ref().map(id),
            threads: e.threads,
            // Kernels keep a few megabytes more or less to themselves.
            memory: e.memory.map(|m| m.div_ceil(1 << 30)),
        }
    }

    fn name(&self) -> String {
        let host = self.host.as_ref().map(|h| format!("{h}: ")).unwrap_or_default();
        format!("{host}{}, {}", self.cpu, counted(self.threads, "thread"))
    }
}

/// The machines of some records, in their order.
fn machines(records: &[Record]) -> Vec<Machine> {
    let mut machines: Vec<Machine> = records.iter().map(Machine::of).collect();
    dedup(&mut machines);
    machines
}

/// Names of machines; those of the same name get a number.
fn names(machines: &[Machine]) -> Vec<String> {
    let plain: Vec<String> = machines.iter().map(Machine::name).collect();
    let twice = |name: &String| plain.iter().filter(|n| *n == name).count() > 1;
    let named = |(i, name): (usize, &String)| {
        if twice(name) { format!("{name} (machine {})", i + 1) } else { name.clone() }
    };
    plain.iter().enumerate().map(named).collect()
}

/// Name of the arm's model; weights that another record has under the same name are told from them.
fn model_of(records: &[Record], record: &Record, arm: &Arm) -> String {
    match model(record, &arm.subject.model) {
        Some(Model { name, hash, .. }) => {
            let mut all = records.iter().flat_map(|r| &r.models);
            let shared = all.any(|other| other.name == *name && other.hash != *hash);
            if shared { format!("{name} ({hash:.12})") } else { name.clone() }
        }
        None => arm.subject.model.clone(),
    }
}

/// For each model and test: kernels by machines, each at its greatest number of threads, from the
/// newest record of that machine.
fn matrix(records: &[Record]) -> Vec<Block> {
    let machines = machines(records);
    if machines.len() < 2 {
        return Vec::new();
    }
    let newest = |m: &Machine| records.iter().filter(|r| Machine::of(r) == *m).max_by_key(|r| r.begun());
    let chosen: Vec<&Record> = machines.iter().filter_map(newest).collect();
    let mut tests: Vec<(String, &Test)> = Vec::new();
    for record in &chosen {
        for arm in record.arms.iter().filter(|a| a.speed.is_some()) {
            tests.push((model_of(records, record, arm), &arm.test));
        }
    }
    dedup(&mut tests);
    let mut blocks = Vec::new();
    for (name, test) in tests {
        let mine = |record: &'_ Record, arm: &Arm| {
            arm.speed.is_some() && arm.test == *test && model_of(records, record, arm) == name
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
        let titles: Vec<String> = names(&machines).iter().map(|n| format!("{n}#")).collect();
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
                        .detail(counted(a.subject.threads, "thread"))
                        .bar(median(a) / best)
                })
            }));
            table.row(cells);
        }
        blocks.push(Block::Table(table));
    }
    blocks
}

/// Speed of an arm over the records of one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// The machine.
    pub machine: String,
    /// Model.
    pub model: String,
    /// Kernel or engine.
    pub subject: String,
    /// Threads.
    pub threads: u32,
    /// Test in short.
    pub test: String,
    /// Unit of the speeds.
    pub unit: String,
    /// Records that have the arm.
    pub records: usize,
    /// Start of the oldest of them.
    pub first_started: String,
    /// Median speed in it.
    pub first: f64,
    /// Start of the newest of them.
    pub last_started: String,
    /// Median speed in it.
    pub last: f64,
    /// Change from the first to the last, percent, of what [`compare`](mod@crate::record::compare) holds against each other; `None` where it
    /// holds nothing.
    pub change_percent: Option<f64>,
    /// Lower end of its bootstrap 95 % interval.
    pub change_low: Option<f64>,
    /// Upper end of it.
    pub change_high: Option<f64>,
    /// What `compare` says of the first and the last record; `None` where it does not compare them.
    pub verdict: Option<Verdict>,
    /// Why, where the figures alone do not show it.
    pub reason: Option<String>,
}

/// The records of one machine by time, where there are several.
fn history<'a>(records: &'a [Record], machine: &Machine) -> Option<Vec<&'a Record>> {
    // Of what other programs wrote nobody knows whether it is of one machine, or of when.
    let ours = |r: &&Record| r.arms.iter().any(|arm| arm.imported.is_none());
    let mut mine: Vec<&Record> = records.iter().filter(|r| Machine::of(r) == *machine).filter(ours).collect();
    mine.sort_by_key(|r| r.begun());
    (mine.len() > 1).then_some(mine)
}

/// Every arm that a machine measured more than once.
pub fn trends(records: &[Record]) -> Vec<Trend> {
    let machines = machines(records);
    machines
        .iter()
        .zip(names(&machines))
        .filter_map(|(machine, name)| Some(of_machine(records, &history(records, machine)?, &name)))
        .flatten()
        .collect()
}

/// What makes an arm the same in another record: its subject but for what records call the model.
type Key<'a> = (String, &'a Test, String, u32);

fn key<'a>(records: &[Record], record: &Record, arm: &'a Arm) -> Key<'a> {
    (model_of(records, record, arm), &arm.test, subject_name(arm), arm.subject.threads)
}

fn of_machine(records: &[Record], history: &[&Record], machine: &str) -> Vec<Trend> {
    let mut arms: HashMap<Key, Vec<(&Record, &Arm)>> = HashMap::new();
    let mut order = Vec::new();
    for record in history {
        for arm in record.arms.iter().filter(|arm| arm.speed.is_some()) {
            let found = arms.entry(key(records, record, arm)).or_default();
            if found.is_empty() {
                order.push(key(records, record, arm));
            }
            found.push((record, arm));
        }
    }
    let mut trends = Vec::new();
    for key in order {
        let [(before, first), .., (after, last)] = arms[&key].as_slice() else { continue };
        let obstacles = obstacles(before, after);
        let row =
            obstacles.is_empty().then(|| speeds([*before, *after], [*first, *last], &Options::default()));
        let row = row.flatten();
        let reason = match &row {
            Some(row) => row.reason.clone(),
            None if obstacles.is_empty() => Some("not compared: different units".into()),
            None => Some(format!("not compared: {}", obstacles.join("; "))),
        };
        let percent = |ratio: f64| 100.0 * (ratio - 1.0);
        let interval = row.as_ref().and_then(|row| row.interval);
        let records = arms[&key].len();
        let (model, test, subject, threads) = key;
        trends.push(Trend {
            machine: machine.into(),
            model,
            subject,
            threads,
            test: test.to_string(),
            unit: last.speed.as_ref().map_or_else(String::new, |s| s.unit.clone()),
            records,
            first_started: before.started.clone(),
            first: median(first),
            last_started: after.started.clone(),
            last: median(last),
            change_percent: row.as_ref().map(|row| percent(row.ratio)),
            change_low: interval.map(|[low, _]| percent(low)),
            change_high: interval.map(|[_, high]| percent(high)),
            verdict: row.map(|row| row.verdict),
            reason,
        });
    }
    trends
}

/// Speed of the same arm in several records of one machine, by time.
fn trend(records: &[Record]) -> Vec<Block> {
    let machines = machines(records);
    let mut blocks = Vec::new();
    for (index, (wanted, name)) in machines.iter().zip(names(&machines)).enumerate() {
        let Some(mine) = history(records, wanted) else { continue };
        let mut keys: Vec<(String, &Test)> = Vec::new();
        for record in &mine {
            for arm in record.arms.iter().filter(|a| a.speed.is_some()) {
                keys.push((model_of(records, record, arm), &arm.test));
            }
        }
        dedup(&mut keys);
        for (model, test) in keys {
            blocks.extend(trend_plot(records, &mine, (&model, test), &name, index).map(Block::Figure));
        }
        let table = trend_table(&of_machine(records, &mine, &name), &name);
        blocks.extend((!table.rows.is_empty()).then_some(Block::Table(table)));
    }
    blocks
}

fn trend_table(trends: &[Trend], machine: &str) -> Table {
    let headings = ["Arm", "Test", "Threads#", "Records#", "First#", "Last#", "Change#"];
    let mut table = Table::new(
        format!("Over time, from the first to the last record of each arm, as compare judges it: {machine}"),
        &headings,
    );
    let several = trends.iter().any(|t| t.model != trends[0].model);
    for t in trends {
        let same_day = date(&t.first_started, false) == date(&t.last_started, false);
        let speed = |v: f64, at: &str| {
            Cell::figure(v, format!("{} {}", significant(v, 3), t.unit)).detail(date(at, same_day))
        };
        let interval = t.change_low.zip(t.change_high);
        let interval = interval.map(|(low, high)| format!("{}–{} %", signed(low, 2), signed(high, 2)));
        let change = match (t.verdict, t.change_percent) {
            (Some(Verdict::Faster | Verdict::Slower), Some(percent)) => {
                Cell::figure(percent, format!("{} %", signed(percent, 2)))
            }
            (Some(verdict), _) => Cell::text(verdict.to_string()),
            (None, _) => Cell::text(t.reason.as_deref().unwrap_or_default()),
        };
        table.row(vec![
            Cell::text(&t.subject).detail(if several { t.model.as_str() } else { "" }),
            Cell::text(&t.test),
            Cell::figure(f64::from(t.threads), t.threads.to_string()),
            Cell::figure(t.records as f64, t.records.to_string()),
            speed(t.first, &t.first_started),
            speed(t.last, &t.last_started),
            change.detail(interval.unwrap_or_default()),
        ]);
    }
    table
}

/// The day of an RFC 3339 time, with hour and minute where several are of one day.
fn date(started: &str, same_day: bool) -> String {
    let chars = if same_day { "2026-01-01T00:00".len() } else { "2026-01-01".len() };
    started.chars().take(chars).collect::<String>().replace('T', " ")
}

fn trend_plot(
    all: &[Record],
    records: &[&Record],
    (name, test): (&str, &Test),
    machine: &str,
    index: usize,
) -> Option<Plot> {
    let named = |arm: &Arm| format!("{} on {}", subject_name(arm), counted(arm.subject.threads, "thread"));
    let of = |record: &&Record| -> Vec<(String, f64, [f64; 2])> {
        let arms = record.arms.iter().filter(|a| a.test == *test && model_of(all, record, a) == name);
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
    let same_day =
        records.windows(2).any(|pair| date(&pair[0].started, false) == date(&pair[1].started, false));
    let date = |r: &&Record| date(&r.started, same_day);
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
    let title = format!("Over time: {test} of {name} on {machine}");
    let alt = format!("Line chart over {} records; the table below has every arm.", records.len());
    let file = format!("trend-{}-{}-{}", index + 1, slug(name), slug(&test.to_string()));
    let caption =
        format!("The {LINES} fastest arms of the newest record; whiskers: bootstrap 95 % interval.");
    Some(Plot::new(file, title, caption, alt, &chart))
}
