//! Energy: measured, modelled and rated, apart from each other.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{joules, significant};
use super::super::row::subject_name;
use super::{dedup, model_name, model_of_several, record_heading, subject_words};
use crate::record::{MeasuredEnergy, Outcome, Record};
use crate::words::counted;

/// What meters said, and what a model of the arithmetic says.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        blocks.extend(record_heading(records, i));
        blocks.push(Block::heading("Measured"));
        blocks.extend(measured(record));
        blocks.push(Block::heading("Modelled: arithmetic only"));
        blocks.extend(modelled(record));
        let rated = rated(record);
        if !rated.rows.is_empty() {
            blocks.push(Block::heading("Rated: stated power times time"));
            blocks.push(Block::Table(rated));
        }
    }
    Section { id: "energy", title: "Energy", blocks }
}

/// Further domains over the same window: parts of the first or beside it.
fn domains(e: &MeasuredEnergy) -> String {
    let each = e.domains.iter().map(|d| format!("{} {}", d.domain, joules(d.gross_joules / e.tokens as f64)));
    format!("{} a token", each.collect::<Vec<_>>().join(", "))
}

fn measured(record: &Record) -> Vec<Block> {
    let headings = [
        "Subject",
        "Test",
        "Threads#",
        "Gross a token#",
        "Net a token#",
        "Idle power#",
        "Window#",
        "Meter's step#",
        "Meter",
        "Other domains, never added",
    ];
    let mut table = Table::new("Energy read from a meter while the test ran", &headings);
    let (mut reasons, mut warnings) = (Vec::new(), Vec::new());
    for arm in &record.arms {
        match &arm.energy_measured {
            Some(Outcome::Measured(e)) => {
                let net = e.net_joules.map(|n| n / e.tokens as f64);
                table.row(vec![
                    Cell::text(subject_name(arm)).detail(model_of_several(record, arm)),
                    Cell::text(arm.test.to_string()),
                    Cell::figure(f64::from(arm.subject.threads), arm.subject.threads.to_string()),
                    Cell::figure(e.joules_per_token, joules(e.joules_per_token)),
                    net.map_or(Cell::not_measured("no idle baseline"), |n| Cell::figure(n, joules(n))),
                    e.idle_watts.map_or(Cell::not_measured("no idle baseline"), |w| {
                        Cell::figure(w, format!("{} W", significant(w, 3)))
                    }),
                    Cell::figure(e.seconds, format!("{} s", significant(e.seconds, 3))),
                    e.update_period_s.map_or(Cell::not_measured("too few steps seen"), |s| {
                        Cell::figure(s, format!("{} ms", significant(1e3 * s, 3)))
                    }),
                    Cell::text(&e.domain).detail(&e.source),
                    if e.domains.is_empty() { Cell::none() } else { Cell::text(domains(e)) },
                ]);
                let of = format!(
                    "{} of {} on {}",
                    arm.test,
                    subject_words(record, arm),
                    counted(arm.subject.threads, "thread")
                );
                warnings.extend(e.warnings.iter().map(|w| format!("{of}: {w}")));
            }
            Some(Outcome::NotMeasured(reason)) => reasons.push(reason.clone()),
            None => {}
        }
    }
    let count = reasons.len();
    dedup(&mut reasons);
    let mut blocks = Vec::new();
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    blocks.extend(reasons.iter().map(|r| Block::text(format!("Not measured: {r}"))));
    if blocks.is_empty() && count == 0 {
        blocks.push(Block::text("Not measured: this record holds no test of speed with energy."));
    }
    blocks.extend(warnings.into_iter().map(Block::warning));
    blocks
}

/// What a processor would have taken at its rated power; a statement of the user's times a measured
/// time, so neither a measurement of energy nor a model of the arithmetic.
fn rated(record: &Record) -> Table {
    let mut table = Table::new(
        "Rated power as stated by the user, times the time of a token: no measurement of energy, and no more than a bound for a processor that keeps to its rating",
        &["Subject", "Test", "Threads#", "Rated power#", "Rated, a token#"],
    );
    for arm in &record.arms {
        let Some(e) = &arm.energy_rated else { continue };
        table.row(vec![
            Cell::text(subject_name(arm)).detail(model_of_several(record, arm)),
            Cell::text(arm.test.to_string()),
            Cell::figure(f64::from(arm.subject.threads), arm.subject.threads.to_string()),
            Cell::figure(e.watts, format!("{} W", significant(e.watts, 3))),
            Cell::figure(e.joules_per_token, joules(e.joules_per_token)),
        ]);
    }
    table
}

fn modelled(record: &Record) -> Vec<Block> {
    let headings = ["Model", "Test", "At 7 nm, a token#", "At 45 nm, a token#"];
    let mut table = Table::new(
        "Operations counted, times published energies of an operation; no memory, no leakage, no measurement",
        &headings,
    );
    let mut seen = Vec::new();
    let mut how = Vec::new();
    for arm in &record.arms {
        let Some(e) = &arm.energy_modelled else { continue };
        let key = (&arm.subject.model, &arm.test, e.joules_per_token_7nm.to_bits());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        table.row(vec![
            Cell::text(model_name(record, &arm.subject.model)),
            Cell::text(arm.test.to_string()),
            Cell::figure(e.joules_per_token_7nm, joules(e.joules_per_token_7nm)),
            Cell::figure(e.joules_per_token_45nm, joules(e.joules_per_token_45nm)),
        ]);
        how.push(e.how.clone());
    }
    if table.rows.is_empty() {
        return vec![Block::text("Not computed for this record.")];
    }
    dedup(&mut how);
    vec![Block::Table(table), Block::List { items: how }]
}
