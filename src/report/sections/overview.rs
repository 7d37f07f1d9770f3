//! What was compared.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number;
use super::{dedup, record_heading};
use crate::checkpoint::config::LinearKind;
use crate::record::Record;

/// The models, what was measured on them, and what the record itself remarks.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    let headings = ["Model", "Family", "Parameters#", "In blocks#", "Files#", "Hash of weights"];
    let mut table = Table::new("Models", &headings);
    let mut shown = Vec::new();
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
        table.row(vec![
            Cell::text(&model.name).detail(kind),
            Cell::text(&model.family).detail(&model.dialect),
            Cell::figure(model.params as f64, number::params(model.params)),
            Cell::figure(model.linear_params as f64, number::params(model.linear_params)),
            Cell::figure(model.file_bytes as f64, number::bytes(model.file_bytes)),
            Cell::text(model.hash.chars().take(12).collect::<String>()),
        ]);
    }
    blocks.push(Block::Table(table));
    for (i, record) in records.iter().enumerate() {
        blocks.extend(record_heading(records, i));
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

fn contents(record: &Record) -> String {
    let ours = record.arms.iter().filter(|a| a.imported.is_none());
    let mut kernels: Vec<_> =
        ours.filter(|a| a.subject.layout.is_some()).map(|a| (&a.subject.layout, &a.subject.tier)).collect();
    dedup(&mut kernels);
    let mut engines: Vec<&str> = record.arms.iter().map(|a| a.subject.engine.as_str()).collect();
    dedup(&mut engines);
    let mut threads: Vec<u32> = record.arms.iter().map(|a| a.subject.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let threads: Vec<String> = threads.iter().map(u32::to_string).collect();
    let mut tests: Vec<String> = record.arms.iter().map(|a| a.test.to_string()).collect();
    dedup(&mut tests);
    format!(
        "{} arms: {} kernels (layout and instruction set) of {}, on {} threads, under {} tests: {}.",
        record.arms.len(),
        kernels.len(),
        engines.join(", "),
        threads.join(", "),
        tests.len(),
        tests.join("; ")
    )
}
