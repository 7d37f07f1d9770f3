//! Speed: the fastest kernel of each layout, every kernel, latencies.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{percent, significant};
use super::super::plot::{Bar, Bars, Plot};
use super::super::row::{subject_name, test_name};
use super::{
    Ranked, dedup, median, model_name, model_of_several, plot_prefix, ranking, record_heading, several_timed,
    slug, speed_tests, subject_words,
};
use crate::record::{Arm, Record, Test};
use crate::words::counted;

/// Bars, tables and latencies of every test of speed.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let tests = speed_tests(record);
        if tests.is_empty() {
            continue;
        }
        blocks.extend(record_heading(records, i));
        let several = several_timed(record);
        for &(model, test) in &tests {
            let name = match several {
                true => format!("{}: {}", model_name(record, model), test_name(test)),
                false => test_name(test),
            };
            // A model's name keeps its own spelling.
            blocks.push(Block::heading(if several { name.clone() } else { capital(&name) }));
            let ranking = ranking(record, model, test);
            let file =
                format!("{}speed-{}-{}", plot_prefix(records, i), slug(model), slug(&test.to_string()));
            blocks.push(Block::Figure(figure(file, &ranking)));
            blocks.push(Block::Table(table(&ranking, &name)));
            blocks.extend(matrix(record, model, test).map(Block::Table));
        }
        let mut models: Vec<&str> = tests.iter().map(|(model, _)| *model).collect();
        dedup(&mut models);
        blocks.extend(models.iter().filter_map(|m| latencies(record, m)).map(Block::Table));
        blocks.extend(limits(record));
        blocks.extend(warnings(record));
    }
    if blocks.is_empty() {
        blocks.push(Block::text("Not measured: these records hold no test of speed."));
    }
    Section { id: "speed", title: "Speed", blocks }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

fn figure(file: String, ranking: &[Ranked]) -> Plot {
    let most = ranking.iter().map(|r| r.best().subject.threads).max().unwrap_or(0);
    let unit = ranking[0].best().speed.as_ref().map_or(String::new(), |s| s.unit.clone());
    let bars = ranking.iter().map(|r| {
        let best = r.best();
        let speed = best.speed.as_ref().expect("ranked arms have a speed");
        let tier = best.subject.tier.clone().unwrap_or_else(|| "own kernels".into());
        let detail = if best.subject.threads == most {
            tier
        } else {
            format!("{tier}, {}", counted(best.subject.threads, "thread"))
        };
        Bar {
            label: r.family.name(),
            detail,
            value: speed.median,
            interval: speed.interval,
            limit: speed.bound.as_ref().map(|b| b.value),
            others: r.arms[1..].iter().map(|a| median(a)).collect(),
            note: speed.bound.as_ref().map_or("limit not measured".into(), |b| {
                format!("{} of limit", percent(speed.median / b.value))
            }),
            series: usize::from(r.family.engine != "tritmark") * 7,
        }
    });
    let chart = Bars { unit: format!("{unit}, {}", counted(most, "thread")), bars: bars.collect() };
    let best = ranking[0].best();
    let alt = format!(
        "Bar chart of {} subjects; the fastest is {} at {} {unit}. The table below has every figure.",
        ranking.len(),
        subject_name(best),
        significant(median(best), 3)
    );
    let caption = "Bars: the fastest instruction set of each layout, with bootstrap 95 % interval; dots: its other instruction sets; red: the measured limit of this machine for these bytes or operations, where it is within the picture.";
    Plot::new(file, "Median speed".into(), caption.into(), alt, &chart)
}

fn table(ranking: &[Ranked], name: &str) -> Table {
    let headings = ["Subject", "Threads#", "Speed#", "Limit#", "Of limit#", "Samples#"];
    let mut table = Table::new(format!("Fastest of each layout: {name}"), &headings);
    let best = median(ranking[0].best());
    for ranked in ranking {
        let arm = ranked.best();
        let speed = arm.speed.as_ref().expect("ranked arms have a speed");
        let bound = speed.bound.as_ref();
        table.row(vec![
            Cell::text(subject_name(arm))
                .detail(arm.imported.as_ref().map(|i| format!("taken over from {i}")).unwrap_or_default()),
            Cell::figure(f64::from(arm.subject.threads), arm.subject.threads.to_string()),
            speed_cell(arm).bar(speed.median / best),
            bound.map_or(Cell::not_measured("no limit"), |b| Cell::figure(b.value, significant(b.value, 3))),
            bound.map_or(Cell::none(), |b| {
                Cell::figure(100.0 * speed.median / b.value, percent(speed.median / b.value))
            }),
            Cell::figure(speed.samples.len() as f64, speed.samples.len().to_string()),
        ]);
    }
    table
}

/// A median with its interval and unit.
pub fn speed_cell(arm: &Arm) -> Cell {
    arm.speed.as_ref().map_or_else(Cell::none, |s| {
        let interval = s.known_interval().map_or("1 sample".into(), |[low, high]| {
            format!("{}–{}", significant(low, 3), significant(high, 3))
        });
        Cell::figure(s.median, format!("{} {}", significant(s.median, 3), s.unit)).detail(interval)
    })
}

/// Layouts by instruction sets at the greatest number of threads.
fn matrix(record: &Record, model: &str, test: &Test) -> Option<Table> {
    let arms: Vec<&Arm> = record
        .arms
        .iter()
        .filter(|a| {
            a.subject.model == model && a.test == *test && a.subject.variant.is_none() && a.imported.is_none()
        })
        .filter(|a| a.speed.is_some() && a.subject.layout.is_some() && a.subject.tier.is_some())
        .collect();
    let most = arms.iter().map(|a| a.subject.threads).max()?;
    let arms: Vec<&Arm> = arms.into_iter().filter(|a| a.subject.threads == most).collect();
    let mut layouts: Vec<_> = arms.iter().map(|a| a.subject.layout.as_deref()).collect();
    let mut tiers: Vec<_> = arms.iter().map(|a| a.subject.tier.as_deref()).collect();
    dedup(&mut layouts);
    dedup(&mut tiers);
    // With one instruction set for each layout, the table of the fastest has them all.
    if arms.len() == layouts.len() {
        return None;
    }
    let unit = arms[0].speed.as_ref().map_or("", |s| s.unit.as_str());
    let titles: Vec<String> = tiers.iter().map(|t| format!("{}#", t.unwrap_or_default())).collect();
    let headings: Vec<&str> = std::iter::once("Layout").chain(titles.iter().map(String::as_str)).collect();
    let mut table =
        Table::new(format!("Every kernel: {test}, {}, {unit}", counted(most, "thread")), &headings);
    let best = arms.iter().map(|a| median(a)).fold(0.0, f64::max);
    for layout in layouts {
        let mut cells = vec![Cell::text(layout.unwrap_or_default())];
        for tier in &tiers {
            let arm = arms
                .iter()
                .find(|a| a.subject.layout.as_deref() == layout && a.subject.tier.as_deref() == *tier);
            cells.push(arm.map_or_else(Cell::none, |a| {
                Cell::figure(median(a), significant(median(a), 3)).bar(median(a) / best)
            }));
        }
        table.row(cells);
    }
    Some(table)
}

/// Times between tokens and to the first one, for the fastest of each layout in each test that has them.
fn latencies(record: &Record, model: &str) -> Option<Table> {
    let of = if several_timed(record) { format!(", {}", model_name(record, model)) } else { String::new() };
    let headings = ["Subject", "Test", "Threads#", "First token#", "Median#", "95 %#", "99 %#"];
    let mut table = Table::new(format!("Milliseconds to the first token and between tokens{of}"), &headings);
    let cell = |value: Option<f64>| value.map_or_else(Cell::none, |v| Cell::figure(v, significant(v, 3)));
    for (_, test) in speed_tests(record).into_iter().filter(|(m, _)| *m == model) {
        for ranked in ranking(record, model, test) {
            let arm = ranked.best();
            let speed = arm.speed.as_ref().expect("ranked arms have a speed");
            if speed.latency_ms.is_none() && speed.first_token_ms.is_none() {
                continue;
            }
            let between = |i: usize| cell(speed.latency_ms.map(|l| l[i]));
            table.row(vec![
                Cell::text(subject_name(arm)),
                Cell::text(test.to_string()),
                Cell::figure(f64::from(arm.subject.threads), arm.subject.threads.to_string()),
                cell(speed.first_token_ms),
                between(0),
                between(1),
                between(2),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// How the limits follow from what was measured.
fn limits(record: &Record) -> Option<Block> {
    let of = |a: &Arm| match model_of_several(record, a) {
        "" => a.test.to_string(),
        model => format!("{model}, {}", a.test),
    };
    let mut bounds: Vec<(String, &str, f64, &str)> = record
        .arms
        .iter()
        .filter_map(|a| {
            let speed = a.speed.as_ref()?;
            Some((of(a), a.subject.engine.as_str(), speed.median, speed.bound.as_ref()?.how.as_str()))
        })
        .collect();
    bounds.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)).then(b.2.total_cmp(&a.2)));
    // That of the fastest of each engine is enough to see how; all are in the data.
    bounds.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
    let several = |of: &String| bounds.iter().filter(|b| b.0 == *of).count() > 1;
    let words = |(of, engine, _, how): &(String, &str, f64, &str)| {
        if several(of) { format!("{of}, {engine}: {how}") } else { format!("{of}: {how}") }
    };
    let mut items: Vec<String> = bounds.iter().map(words).collect();
    let over = record
        .arms
        .iter()
        .filter(|a| a.speed.as_ref().is_some_and(|s| s.bound.as_ref().is_some_and(|b| s.median > b.value)));
    let over: Vec<String> = over.map(|a| format!("{} in {}", subject_words(record, a), a.test)).collect();
    if !over.is_empty() {
        items.push(format!("Above its limit, which then is not the one that binds (tables stand for several multiply-adds, a cache holds the weights, or the limit was measured low): {}", over.join("; ")));
    }
    (!items.is_empty()).then_some(Block::List { items })
}

/// What arms say about themselves. Sentences that differ in their figures only are shown once, with the largest and the
/// number of arms they were said of.
fn warnings(record: &Record) -> Vec<Block> {
    let mut kinds: Vec<(String, f64, String, usize)> = Vec::new();
    for arm in record.arms.iter().filter(|a| a.speed.is_some()) {
        for warning in arm.speed.iter().flat_map(|s| &s.warnings) {
            let is_digit = |c: char| c.is_ascii_digit() || c == '.';
            let kind: String = warning.chars().filter(|c| !is_digit(*c)).collect();
            let figure = warning.split(|c| !is_digit(c)).find_map(|n| n.parse().ok()).unwrap_or(0.0);
            let text = format!(
                "{} of {} on {}: {warning}",
                arm.test,
                subject_words(record, arm),
                counted(arm.subject.threads, "thread")
            );
            match kinds.iter_mut().find(|k| k.0 == kind) {
                Some(known) => {
                    known.3 += 1;
                    if figure > known.1 {
                        (known.1, known.2) = (figure, text);
                    }
                }
                None => kinds.push((kind, figure, text, 1)),
            }
        }
    }
    let arms = record.arms.iter().filter(|a| a.speed.is_some()).count();
    let text = |(_, _, text, said): (String, f64, String, usize)| match said {
        1 => text,
        n => {
            format!("{text} (Said of {n} of {arms} arms, here with its largest figure; all are in the data.)")
        }
    };
    kinds.into_iter().map(|kind| Block::warning(text(kind))).collect()
}
