//! Every arm in one table that a reader may sort and filter.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{bytes, joules, percent, significant};
use super::super::row::{subject_name, weight_bits};
use super::speed::speed_cell;
use super::{model_name, several_models};
use crate::record::{Arm, Outcome, Record};
use crate::words::seconds;

/// All arms of all records.
pub fn section(records: &[Record]) -> Section {
    // Columns that would say the same in every row are left out.
    let (several, models) = (records.len() > 1, several_models(records));
    let choices = records.iter().any(|r| r.arms.iter().any(|a| a.choices.is_some()));
    let load = |arm: &Arm| arm.speed.as_ref()?.load.clone();
    let loads = records.iter().any(|r| r.arms.iter().any(|a| load(a).is_some()));
    let headings = [
        several.then_some("Record#"),
        Some("Subject"),
        models.then_some("Model"),
        Some("Test"),
        Some("Threads#"),
        Some("Speed#"),
        Some("Of limit#"),
        loads.then_some("Loading#"),
        Some("Perplexity#"),
        Some("KL mean#"),
        choices.then_some("acc#"),
        Some("Measured J a token#"),
        Some("Modelled J a token (7 nm)#"),
        Some("Bits a weight#"),
    ];
    let headings: Vec<&str> = headings.into_iter().flatten().collect();
    let mut table = Table::new("Every arm", &headings);
    table.interactive = true;
    for (i, record) in records.iter().enumerate() {
        for arm in &record.arms {
            let mut cells = Vec::new();
            if several {
                cells.push(Cell::figure(i as f64 + 1.0, (i + 1).to_string()));
            }
            let accuracy = arm.accuracy.as_ref();
            let against = accuracy.and_then(|a| a.against.as_ref());
            let bound = arm.speed.as_ref().and_then(|s| Some(100.0 * s.median / s.bound.as_ref()?.value));
            let bits = weight_bits(record, arm);
            cells.push(
                Cell::text(subject_name(arm)).detail(
                    arm.imported.as_ref().map(|f| format!("taken over from {f}")).unwrap_or_default(),
                ),
            );
            if models {
                cells.push(Cell::text(model_name(record, &arm.subject.model)));
            }
            cells.extend([
                Cell::text(arm.test.to_string()),
                Cell::figure(f64::from(arm.subject.threads), arm.subject.threads.to_string()),
                speed_cell(arm),
                bound.map_or_else(Cell::none, |b| Cell::figure(b, percent(b / 100.0))),
            ]);
            if loads {
                cells.push(load(arm).map_or_else(Cell::none, |l| {
                    Cell::figure(l.seconds, seconds(l.seconds)).detail(format!("for {}", bytes(l.bytes)))
                }));
            }
            cells.extend([
                accuracy.map_or_else(Cell::none, |a| {
                    Cell::figure(a.ppl, significant(a.ppl, 5))
                        .detail(format!("± {}", significant(a.ppl_stderr, 2)))
                }),
                against.map_or_else(Cell::none, |d| Cell::figure(d.kl_mean, significant(d.kl_mean, 3))),
            ]);
            if choices {
                cells.push(
                    arm.choices.as_ref().map_or_else(Cell::none, |c| Cell::figure(c.acc, percent(c.acc))),
                );
            }
            cells.extend([
                match &arm.energy_measured {
                    Some(Outcome::Measured(e)) => {
                        Cell::figure(e.joules_per_token, joules(e.joules_per_token))
                    }
                    // The reason stands in the section on energy; repeated here it would hide the figures.
                    Some(Outcome::NotMeasured(_)) => {
                        Cell { text: "not measured".into(), missing: true, ..Cell::default() }
                    }
                    None => Cell::none(),
                },
                arm.energy_modelled.as_ref().map_or_else(Cell::none, |e| {
                    Cell::figure(e.joules_per_token_7nm, joules(e.joules_per_token_7nm))
                }),
                bits.map_or_else(Cell::none, |b| Cell::figure(b, significant(b, 3))),
            ]);
            table.row(cells);
        }
    }
    let note = "A dash is a figure that the test does not give. Loading is reading, checking and packing anew with the threads of the row, timed once. Raw samples are in the data at the end.";
    Section { id: "arms", title: "Every arm", blocks: vec![Block::text(note), Block::Table(table)] }
}
