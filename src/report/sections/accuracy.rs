//! Accuracy: perplexity, whether kernels agree, and how far subjects lie from their references.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{count, percent, significant};
use super::super::plot::{Columns, Plot};
use super::super::row::{subject_name, test_name};
use super::{costs, dedup, model, plot_prefix, record_heading, slug};
use crate::record::{Accuracy, Arm, Divergence, Record, Test};
use crate::words::counted;

/// Perplexities, agreement of kernels, divergences.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        if !record.arms.iter().any(|a| a.accuracy.is_some() || a.choices.is_some()) {
            continue;
        }
        blocks.extend(record_heading(records, i));
        blocks.extend(agreement(record));
        let table = perplexities(record);
        blocks.extend((!table.rows.is_empty()).then_some(Block::Table(table)));
        blocks.extend(choices(record).map(Block::Table));
        blocks.extend(divergences(i + 1, record, &plot_prefix(records, i)));
    }
    if blocks.is_empty() {
        blocks.push(Block::text("Not measured: these records hold no test of accuracy."));
    }
    Section { id: "accuracy", title: "Accuracy", blocks }
}

/// Whether our kernels gave the same bits, test by test.
fn agreement(record: &Record) -> Vec<Block> {
    let (mut blocks, mut equal) = (Vec::new(), Vec::new());
    for group in &record.identical_groups() {
        let mut bits: Vec<&str> = group.iter().map(|(_, a)| a.nll_bits.as_str()).collect();
        dedup(&mut bits);
        let model = model(record, &group[0].0.subject.model).filter(|_| record.models.len() > 1);
        let model = model.map_or(String::new(), |m| format!("{}, ", m.name));
        let name = format!("{model}{}", test_name(&group[0].0.test));
        if bits.len() == 1 {
            equal.push(format!("{name}: {} combinations ({})", group.len(), bits[0]));
        } else {
            let of = |b: &str| {
                let names: Vec<String> = group
                    .iter()
                    .filter(|(_, a)| a.nll_bits == b)
                    .map(|(arm, _)| format!("{} on {}", subject_name(arm), arm.subject.threads))
                    .collect();
                format!("{b}: {}", names.join(", "))
            };
            let results: Vec<String> = bits.iter().map(|b| of(b)).collect();
            blocks.push(Block::warning(format!("Kernels disagree in {name}: {}.", results.join("; "))));
        }
    }
    if !equal.is_empty() {
        let others = if blocks.is_empty() { "All" } else { "In the other tests all" };
        blocks.push(Block::text(format!(
            "{others} combinations of layout, instruction set and threads gave the same negative log-likelihood, bit for bit:"
        )));
        blocks.push(Block::List { items: equal });
    }
    blocks
}

/// What arms of one line have in common.
type Key<'a> = (&'a str, &'a Test, &'a str, Option<&'a str>, &'a str);

fn key<'a>(arm: &'a Arm, accuracy: &'a Accuracy) -> Key<'a> {
    let s = &arm.subject;
    (&s.model, &arm.test, &s.engine, s.variant.as_deref(), &accuracy.nll_bits)
}

/// One line for each result; arms that agree bit for bit share one.
fn perplexities(record: &Record) -> Table {
    let headings =
        ["Subject", "Test", "Perplexity#", "Nats a token#", "Bits per byte#", "Tokens scored#", "Seconds#"];
    let mut table = Table::new("Perplexity, with its standard error", &headings);
    let scored: Vec<(&Arm, &Accuracy)> =
        record.arms.iter().filter_map(|a| Some((a, a.accuracy.as_ref()?))).collect();
    let mut keys: Vec<Key> = scored.iter().map(|(arm, a)| key(arm, a)).collect();
    dedup(&mut keys);
    for wanted in keys {
        let group: Vec<_> = scored.iter().filter(|(arm, a)| key(arm, a) == wanted).collect();
        let (arm, a) = group[0];
        let name = match group.len() {
            1 => subject_name(arm),
            n => format!(
                "{} ({n} combinations, equal)",
                arm.subject
                    .variant
                    .as_ref()
                    .map_or(arm.subject.engine.clone(), |v| format!("{}, {v}", arm.subject.engine))
            ),
        };
        let model = model(record, &arm.subject.model).filter(|_| record.models.len() > 1);
        table.row(vec![
            Cell::text(name).detail(model.map_or("", |m| m.name.as_str())),
            test_cell(&arm.test),
            Cell::figure(a.ppl, significant(a.ppl, 5)).detail(format!("± {}", significant(a.ppl_stderr, 2))),
            Cell::figure(a.nll, significant(a.nll, 6)),
            a.bits_per_byte
                .map_or(Cell::not_measured("bytes not known"), |b| Cell::figure(b, significant(b, 4))),
            Cell::figure(a.scored as f64, count(a.scored)).detail(counted(a.windows, "window")),
            Cell::figure(a.seconds, significant(a.seconds, 3)),
        ]);
    }
    table
}

/// Convention and text of a perplexity.
fn test_cell(test: &Test) -> Cell {
    match test {
        Test::Perplexity { convention, n_ctx, text } => {
            Cell::text(format!("{convention} n_ctx {n_ctx}")).detail(text)
        }
        other => Cell::text(other.to_string()),
    }
}

/// Subjects against their references: the table of costs, histograms, worst tokens.
fn divergences(number: usize, record: &Record, prefix: &str) -> Vec<Block> {
    let Some(table) = costs::table(number, record) else { return Vec::new() };
    let mut blocks = vec![Block::heading("What each approximation costs"), Block::Table(table)];
    for (i, (arm, _, d)) in costs::divergences(record).enumerate() {
        let several = record.models.len() > 1;
        let name =
            if several { format!("{}, {}", arm.subject.model, subject_name(arm)) } else { subject_name(arm) };
        if !d.kl_histogram.is_empty() {
            blocks.push(Block::Figure(histogram(&format!("{prefix}kl-{}-{}", i + 1, slug(&name)), &name, d)));
        }
        // Rounded heads differ in the same places; the figures of all are in the data.
        if !d.worst.is_empty() && d.kl_max > 0.0 && arm.subject.head().is_none() {
            blocks.push(Block::Table(worst(&name, d)));
        }
    }
    blocks
}

/// Multiple choice.
fn choices(record: &Record) -> Option<Table> {
    let headings = ["Subject", "Task", "acc#", "acc_norm#", "By guessing#", "Questions#", "Seconds#"];
    let caption = "Multiple choice by log-likelihood, zero-shot, with standard errors: acc is the share of \
                   questions whose likeliest choice is right, acc_norm that of the likeliest for its length";
    let mut table = Table::new(caption, &headings);
    for (arm, c) in record.arms.iter().filter_map(|a| Some((a, a.choices.as_ref()?))) {
        let model = model(record, &arm.subject.model).filter(|_| record.models.len() > 1);
        let share = |share: f64, stderr: Option<f64>| {
            let stderr = stderr.map_or_else(String::new, |e| format!("± {}", percent(e)));
            Cell::figure(share, percent(share)).detail(stderr)
        };
        table.row(vec![
            Cell::text(subject_name(arm)).detail(model.map_or("", |m| m.name.as_str())),
            Cell::text(test_name(&arm.test)),
            share(c.acc, c.acc_stderr),
            c.acc_norm.map_or_else(Cell::none, |acc| share(acc, c.acc_norm_stderr)),
            Cell::figure(c.chance, percent(c.chance)),
            Cell::figure(c.questions as f64, count(c.questions)),
            Cell::figure(c.seconds, significant(c.seconds, 3)),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn histogram(file: &str, subject: &str, d: &Divergence) -> Plot {
    let bins = d.kl_histogram.iter().map(|(edge, n)| (significant(*edge, 1), *n as f64)).collect();
    let chart = Columns { x: "KL divergence up to, nats".into(), y: "positions".into(), bins };
    let title = format!("KL divergence of {subject} from {}", d.reference);
    let alt = format!(
        "Histogram over {} positions: mean {}, maximum {} nats.",
        count(d.positions),
        significant(d.kl_mean, 3),
        significant(d.kl_max, 3)
    );
    Plot::new(file.into(), title, "Positions of the text by the distance of the two predicted distributions; two columns for each factor of ten.".into(), alt, &chart)
}

fn worst(subject: &str, d: &Divergence) -> Table {
    let caption = format!("Where {subject} and {} differ most", d.reference);
    let mut table =
        Table::new(caption, &["Text so far", "Next token", "KL#", "Nats, subject#", "Nats, reference#"]);
    for w in &d.worst {
        table.row(vec![
            Cell::text(format!("…{}", w.context.replace('\n', "↵"))),
            // A space at either end is part of the token, and would not be seen.
            Cell::text(w.token.replace('\n', "↵").replace(' ', "␣")),
            Cell::figure(w.kl, significant(w.kl, 3)),
            Cell::figure(w.nll, significant(w.nll, 3)),
            Cell::figure(w.reference_nll, significant(w.reference_nll, 3)),
        ]);
    }
    table
}
