//! What each approximation costs: one line each, for the page, for Markdown and for JSON.

use super::super::document::{Cell, Table};
use super::super::number::{percent, signed, significant};
use super::super::row::subject_name;
use super::verdict::tells;
use super::{dedup, model};
use crate::checkpoint::config::LinearKind;
use crate::record::{Accuracy, Arm, Divergence, Record};
use serde::Serialize;

/// An approximation and its cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Number of the record, from 1.
    pub record: usize,
    /// Model.
    pub model: String,
    /// What was approximated.
    pub approximation: String,
    /// What was measured.
    pub subject: String,
    /// What it was held against.
    pub against: String,
    /// Whether both gave the same bits, so that it costs nothing.
    pub exact: bool,
    /// Perplexity.
    pub ppl: f64,
    /// Its standard error.
    pub ppl_stderr: f64,
    /// Change of perplexity, percent.
    pub ppl_change_percent: f64,
    /// Mean difference of negative log-likelihood, nats a token.
    pub delta_nll: f64,
    /// Its paired standard error.
    pub delta_nll_stderr: f64,
    /// Mean KL divergence, nats a token.
    pub kl_mean: f64,
    /// Its 99th percentile, where it is recorded.
    pub kl_p99: Option<f64>,
    /// Its maximum.
    pub kl_max: f64,
    /// Share of positions with the same first choice.
    pub top1: f64,
    /// Mean share of the first five choices in common.
    pub top5: f64,
    /// Greatest |Δlogit|.
    pub logit_max: f64,
}

/// Arms that were held against a reference.
pub fn divergences(record: &Record) -> impl Iterator<Item = (&Arm, &Accuracy, &Divergence)> {
    record.arms.iter().filter_map(|arm| {
        let accuracy = arm.accuracy.as_ref()?;
        Some((arm, accuracy, accuracy.against.as_ref()?))
    })
}

/// Whether an arm was held against another model, which then stands before what ran it.
pub fn of_another_model(d: &Divergence) -> bool {
    d.reference.contains(": ")
}

/// The costs of all records.
pub fn costs(records: &[Record]) -> Vec<Cost> {
    records.iter().enumerate().flat_map(|(i, r)| of(i + 1, r)).collect()
}

fn of(number: usize, record: &Record) -> Vec<Cost> {
    let mut costs: Vec<Cost> = Vec::new();
    for (arm, accuracy, layouts, arms) in exact(record) {
        costs.push(Cost {
            record: number,
            model: arm.subject.model.clone(),
            approximation: format!("any of {layouts} layouts"),
            subject: format!("{arms} combinations"),
            against: "each other".into(),
            exact: true,
            ppl: accuracy.ppl,
            ppl_stderr: accuracy.ppl_stderr,
            ppl_change_percent: 0.0,
            delta_nll: 0.0,
            delta_nll_stderr: 0.0,
            kl_mean: 0.0,
            kl_p99: Some(0.0),
            kl_max: 0.0,
            top1: 1.0,
            top5: 1.0,
            logit_max: 0.0,
        });
    }
    costs.extend(divergences(record).map(|(arm, accuracy, d)| Cost {
        record: number,
        model: arm.subject.model.clone(),
        approximation: approximation(record, arm, d),
        subject: subject_name(arm),
        against: d.reference.clone(),
        exact: false,
        ppl: accuracy.ppl,
        ppl_stderr: accuracy.ppl_stderr,
        ppl_change_percent: 100.0 * (d.delta_nll.exp() - 1.0),
        delta_nll: d.delta_nll,
        delta_nll_stderr: d.delta_nll_stderr,
        kl_mean: d.kl_mean,
        kl_p99: d.kl_percentiles.iter().find(|p| p.0 == 99.0).map(|p| p.1),
        kl_max: d.kl_max,
        top1: d.top1,
        top5: d.top5,
        logit_max: d.logit_max,
    }));
    costs
}

/// For each model the test over most tokens under which several layouts gave the same bits: an arm
/// of it, the number of layouts and of arms.
fn exact(record: &Record) -> Vec<(&Arm, &Accuracy, usize, usize)> {
    let groups = record.identical_groups();
    let mut found: Vec<(&Arm, &Accuracy, usize, usize)> = Vec::new();
    for group in groups.iter().filter(|g| g.iter().all(|(_, a)| a.nll_bits == g[0].1.nll_bits)) {
        let mut layouts: Vec<_> = group.iter().map(|(arm, _)| &arm.subject.layout).collect();
        dedup(&mut layouts);
        let (arm, accuracy) = group[0];
        let new = (arm, accuracy, layouts.len(), group.len());
        if layouts.len() < 2 {
            continue;
        }
        match found.iter_mut().find(|f| f.0.subject.model == arm.subject.model) {
            Some(known) if known.1.scored < accuracy.scored => *known = new,
            Some(_) => {}
            None => found.push(new),
        }
    }
    found
}

/// Activations rounded to int8, as the kernels take them.
pub const INT8: &str = "int8 activations";
/// The same mathematics, summed in another order.
pub const FLOAT_ORDER: &str = "order of float operations";

/// What a subject approximates, in a few words.
pub fn approximation(record: &Record, arm: &Arm, d: &Divergence) -> String {
    if let Some(head) = arm.subject.head() {
        return format!("output head at {head}");
    }
    if of_another_model(d) {
        return match model(record, &arm.subject.model) {
            Some(m) if m.post_training => "made ternary after training".into(),
            Some(m) if m.config.linear == LinearKind::Ternary => "trained ternary".into(),
            _ => "another model".into(),
        };
    }
    match arm.subject.engine.as_str() {
        "candle" => INT8.into(),
        _ if d.reference.starts_with("candle") => FLOAT_ORDER.into(),
        _ => "another subject".into(),
    }
}

/// A change of perplexity in percent, or as a factor where it is large.
pub fn change(delta_nll: f64) -> String {
    let factor = delta_nll.exp();
    if factor >= 2.0 {
        format!("× {}", significant(factor, 3))
    } else {
        format!("{} %", signed(100.0 * (factor - 1.0), 2))
    }
}

/// The table of a record's costs; `None` if there are none.
pub fn table(number: usize, record: &Record) -> Option<Table> {
    let headings = [
        "Approximation",
        "Held against",
        "Perplexity#",
        "Its change#",
        "KL mean#",
        "KL 99 %#",
        "First choice#",
        "Max |Δ logit|#",
    ];
    let caption = "Perplexity, and the distance of the predicted distributions (KL divergence in nats a token), \
                   paired by token; choices are those that both prefer";
    let mut table = Table::new(caption, &headings);
    let several = record.models.len() > 1;
    for c in of(number, record) {
        let name = if several { format!("{}, {}", c.model, c.subject) } else { c.subject.clone() };
        let changed = if c.exact {
            Cell::figure(0.0, "none").detail("equal bits")
        } else {
            let told = tells(c.delta_nll, c.delta_nll_stderr);
            let text = if told { change(c.delta_nll) } else { "cannot tell".into() };
            Cell::figure(c.ppl_change_percent, text).detail(format!(
                "{} ± {} nats",
                signed(c.delta_nll, 2),
                significant(c.delta_nll_stderr, 2)
            ))
        };
        let figure = |v: f64| Cell::figure(v, significant(v, 3));
        table.row(vec![
            Cell::text(&c.approximation).detail(name),
            Cell::text(&c.against),
            Cell::figure(c.ppl, significant(c.ppl, 5)).detail(format!("± {}", significant(c.ppl_stderr, 2))),
            changed,
            figure(c.kl_mean).detail(format!("max {}", significant(c.kl_max, 3))),
            c.kl_p99.map_or_else(Cell::none, figure),
            Cell::figure(c.top1, percent(c.top1)).detail(format!("five {}", percent(c.top5))),
            figure(c.logit_max),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}
