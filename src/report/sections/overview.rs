//! What was compared.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{self, joules, significant};
use super::super::row::weight_bytes;
use super::speed::speed_cell;
use super::verdict::by_model;
use super::{dedup, headline, ranking, record_heading};
use crate::checkpoint::config::LinearKind;
use crate::record::{Arm, Outcome, Record, Test};
use crate::words::counted;

/// The models, what was measured on them, and what the record itself remarks.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    let headings = ["Model", "Family", "Parameters#", "In blocks#", "Files#", "Hash of weights"];
    let mut table = Table::new("Models", &headings);
    let mut shown = Vec::new();
    let several = records.iter().any(|record| record.models.len() > 1);
    for model in records.iter().flat_map(|r| &r.models) {
        if shown.contains(&(&model.name, &model.hash)) {
            continue;
        }
        shown.push((&model.name, &model.hash));
        let kind = match (model.config.linear, model.post_training) {
            (LinearKind::Float, _) => "full precision",
            (LinearKind::Ternary, true) => "made ternary after training",
            (LinearKind::Ternary, false) => "trained ternary",
        };
        // Notes, which were made with the record, name models as its arms do.
        let called = match several && model.id != model.name {
            true => format!("{kind}; in notes {}", model.id),
            false => kind.to_owned(),
        };
        table.row(vec![
            Cell::text(&model.name).detail(called),
            Cell::text(&model.family).detail(&model.dialect),
            Cell::figure(model.params as f64, number::params(model.params)),
            Cell::figure(model.linear_params as f64, number::params(model.linear_params)),
            Cell::figure(model.file_bytes as f64, number::bytes(model.file_bytes)),
            Cell::text(model.hash.chars().take(12).collect::<String>()),
        ]);
    }
    blocks.extend((!table.rows.is_empty()).then_some(Block::Table(table)));
    for (i, record) in records.iter().enumerate() {
        blocks.extend(record_heading(records, i));
        blocks.extend(side_by_side(record).map(Block::Table));
        blocks.push(Block::text(contents(record)));
        if !record.notes.is_empty() {
            blocks.push(Block::List { items: record.notes.clone() });
        }
        if record.tool.profile == "debug" {
            blocks
                .push(Block::warning("The program was built without optimisation: its speeds say nothing."));
        }
    }
    Section { id: "compared", title: "What was compared", blocks }
}

/// What several models cost and give, a line each.
fn side_by_side(record: &Record) -> Option<Table> {
    let tests = [headline(record, true), headline(record, false)].map(|t| t.map(|(_, test)| test));
    let perplexities = by_model(record);
    if record.models.len() < 2 || perplexities.len() < 2 && tests == [None, None] {
        return None;
    }
    let title =
        |what: &str, test: Option<&Test>| test.map_or(format!("{what}#"), |t| format!("{what}, {t}#"));
    let (decode, prefill) = (title("Decode", tests[0]), title("Prefill", tests[1]));
    let headings = [
        "Model",
        "Perplexity#",
        "Bits per byte#",
        "Blocks' weights#",
        &decode,
        &prefill,
        "Energy a token, measured#",
        "modelled, 7 nm#",
    ];
    let mut table = Table::new("Models side by side, each on its fastest kernel", &headings);
    for model in &record.models {
        let accuracy = perplexities.iter().find(|(m, _)| m.id == model.id).map(|(_, a)| *a);
        let fastest = tests.map(|t| {
            let ranking = t.map(|t| ranking(record, &model.id, t)).unwrap_or_default();
            ranking.first().map(|r| r.best())
        });
        let speed = |arm: Option<&Arm>| arm.map_or_else(Cell::none, speed_cell);
        let ours =
            record.arms.iter().filter(|a| a.subject.model == model.id && a.subject.engine == "tritmark");
        let shown = fastest[0].or(fastest[1]).into_iter().chain(ours);
        let size = shown.filter_map(|a| weight_bytes(record, a)).next();
        let energy = fastest[0].or(fastest[1]);
        table.row(vec![
            Cell::text(&model.name),
            accuracy.map_or_else(Cell::none, |a| {
                Cell::figure(a.ppl, significant(a.ppl, 5))
                    .detail(format!("± {}", significant(a.ppl_stderr, 2)))
            }),
            accuracy
                .and_then(|a| a.bits_per_byte)
                .map_or_else(Cell::none, |b| Cell::figure(b, significant(b, 4))),
            size.map_or_else(Cell::none, |n| Cell::figure(n as f64, number::bytes(n))),
            speed(fastest[0]),
            speed(fastest[1]),
            match energy.and_then(|a| a.energy_measured.as_ref()) {
                Some(Outcome::Measured(e)) => Cell::figure(e.joules_per_token, joules(e.joules_per_token)),
                Some(Outcome::NotMeasured(_)) => {
                    Cell { text: "not measured".into(), missing: true, ..Cell::default() }
                }
                None => Cell::none(),
            },
            energy.and_then(|a| a.energy_modelled.as_ref()).map_or_else(Cell::none, |e| {
                Cell::figure(e.joules_per_token_7nm, joules(e.joules_per_token_7nm))
            }),
        ]);
    }
    Some(table)
}

fn contents(record: &Record) -> String {
    if record.arms.is_empty() {
        return "No arm: neither speed nor accuracy was measured.".into();
    }
    let ours = record.arms.iter().filter(|a| a.imported.is_none());
    let mut kernels: Vec<_> =
        ours.filter(|a| a.subject.layout.is_some()).map(|a| (&a.subject.layout, &a.subject.tier)).collect();
    dedup(&mut kernels);
    let mut engines: Vec<&str> = record.arms.iter().map(|a| a.subject.engine.as_str()).collect();
    dedup(&mut engines);
    let mut threads: Vec<u32> = record.arms.iter().map(|a| a.subject.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut tests: Vec<String> = record.arms.iter().map(|a| a.test.to_string()).collect();
    dedup(&mut tests);
    let kernels = match kernels.len() {
        0 => String::new(),
        n => format!("{} (layout and instruction set) of ", counted(n as u64, "kernel")),
    };
    let threads = match threads[..] {
        [one] => counted(one, "thread"),
        _ => format!("{} threads", threads.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    };
    format!(
        "{}: {kernels}{}, on {threads}, under {}: {}.",
        counted(record.arms.len() as u64, "arm"),
        engines.join(", "),
        counted(tests.len() as u64, "test"),
        tests.join("; ")
    )
}
