//! Comparisons written for people and for other programs.

use super::compare::{Comparison, Metric, Row, Verdict, machine_names, names, on};
use super::gate::{Gate, Held};
use super::{Outcome, Record, arm_name};
use crate::words;
use serde_json::{Value, json};
use std::fmt::Write;

/// How comparisons are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for the terminal.
    Table,
    /// Markdown, for a pull request.
    Md,
    /// Everything, as JSON.
    Json,
    /// A JUnit report: a test case a figure, failed where it got worse.
    Junit,
    /// Speeds and accuracies of the last record, as github-action-benchmark reads them (`customBiggerIsBetter`).
    Github,
    /// The last record as Bencher reads it (Bencher Metric Format).
    Bencher,
}

/// Writes comparisons; `last` are the records of the last file. With limits, a JUnit report fails
/// where one is passed, else where a figure got worse.
pub fn write(comparisons: &[Comparison], last: &[Record], gates: &[Gate], format: Format) -> String {
    match format {
        Format::Table => tables(comparisons, false),
        Format::Md => tables(comparisons, true),
        Format::Json => format!("{:#}\n", json!(comparisons)),
        Format::Junit => junit(comparisons, gates),
        Format::Github => format!("{:#}\n", github(last)),
        Format::Bencher => format!("{:#}\n", bencher(last)),
    }
}

/// A figure with the digits that its kind deserves.
pub(super) fn figure(row: &Row, value: f64) -> String {
    match row.metric {
        Metric::Speed => format!("{value:.2}"),
        // Of figures that differ it shows that they do.
        Metric::Perplexity if row.a != row.b && (row.a - row.b).abs() < 1e-4 => {
            let digits = format!("{value:.12}");
            // An imported one has no more of them than its log.
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Metric::Perplexity => format!("{value:.4}"),
        Metric::Energy => words::joules(value),
        Metric::Accuracy => format!("{value:.4}"),
    }
}

fn metric(row: &Row) -> String {
    match row.metric {
        Metric::Speed => row.unit.clone(),
        Metric::Perplexity => "perplexity".into(),
        Metric::Energy => "energy a token, measured".into(),
        Metric::Accuracy => "accuracy".into(),
    }
}

/// What the columns of speeds hold.
const RATIOS: &str = "Before and after are medians. Ratio, interval and p are of what `of` says: of the fastest \
                      runs of each round, which other load disturbs least, where the records hold them. `sees` is \
                      the change that would have been noticed.";

fn tables(comparisons: &[Comparison], markdown: bool) -> String {
    let mut out = String::new();
    for comparison in comparisons {
        // Names come from outside.
        let text =
            |text: &str| if markdown { words::markdown(text) } else { text.replace(['\n', '\r'], " ") };
        let (a, b) = (text(&comparison.a), text(&comparison.b));
        let _ = writeln!(out, "{}{a} → {b}\n", if markdown { "### " } else { "" });
        let mut lines = vec![
            ["arm", "figure", "before", "after", "ratio", "of", "95 % interval", "p", "sees", "verdict"]
                .map(str::to_owned),
        ];
        for row in &comparison.rows {
            let verdict = match (&row.reason, row.verdict) {
                (Some(reason), verdict) => format!("{verdict} ({})", text(reason)),
                (None, verdict) if markdown && matches!(verdict, Verdict::Slower | Verdict::Worse) => {
                    format!("**{verdict}**")
                }
                (None, verdict) => verdict.to_string(),
            };
            lines.push([
                text(&row.name()),
                metric(row),
                figure(row, row.a),
                figure(row, row.b),
                row.ratio_in_words(),
                row.ratio_of.to_owned(),
                row.interval.map(|[low, high]| format!("{low:.3}–{high:.3}")).unwrap_or_default(),
                row.p
                    .map(|p| if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") })
                    .unwrap_or_default(),
                row.seen_above.map(|s| format!("> {:.1} %", 100.0 * s)).unwrap_or_default(),
                verdict,
            ]);
        }
        let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..10).map(width).collect();
        for (i, line) in lines.iter().enumerate() {
            let padded = line.iter().zip(&widths).map(|(text, width)| {
                format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
            });
            let padded: Vec<String> = padded.collect();
            if markdown {
                let _ = writeln!(out, "| {} |", padded.join(" | "));
            } else {
                let _ = writeln!(out, "{}", padded.join("  ").trim_end());
            }
            if i == 0 && markdown {
                let dashes: Vec<String> = widths.iter().map(|w| "-".repeat((*w).max(3))).collect();
                let _ = writeln!(out, "| {} |", dashes.join(" | "));
            }
        }
        let mut remarks = comparison.notes.clone();
        if comparison.rows.iter().any(|r| r.metric == Metric::Speed) {
            remarks.push(RATIOS.into());
        }
        if comparison.speed_mean.is_some() {
            remarks.insert(0, format!("Geometric mean of the ratios of speed: {}.", mean(comparison)));
        }
        for row in &comparison.rows {
            remarks.extend(row.rounds.iter().map(|rounds| format!("{}: {rounds}.", row.name())));
        }
        for (name, arms) in [(&comparison.a, &comparison.only_a), (&comparison.b, &comparison.only_b)] {
            if !arms.is_empty() {
                remarks.push(format!("Only in {name}: {}.", names(arms)));
            }
        }
        out.push('\n');
        for remark in remarks {
            let _ = writeln!(out, "- {}", text(&remark));
        }
        out.push('\n');
    }
    if comparisons.len() > 1 {
        out.push_str(if markdown {
            "### Geometric means of the ratios of speed\n\n"
        } else {
            "Geometric means of the ratios of speed\n\n"
        });
        for comparison in comparisons {
            let name = if markdown {
                words::markdown(&comparison.b)
            } else {
                comparison.b.replace(['\n', '\r'], " ")
            };
            let _ = writeln!(out, "- {name}: {}", mean(comparison));
        }
    }
    out
}

/// The geometric mean of the ratios of speed, of how many arms it is, and of how many of them nothing can be told.
fn mean(comparison: &Comparison) -> String {
    let Some(mean) = comparison.speed_mean else { return "no speed in common".into() };
    let of_speed = || comparison.rows.iter().filter(|row| row.metric == Metric::Speed);
    let open = of_speed().filter(|row| row.verdict == Verdict::CannotTell).count();
    let open = if open > 0 { format!(", of {open} of which nothing can be told") } else { String::new() };
    format!("{mean:.4} over {}{open}", words::counted(of_speed().count() as u64, "arm"))
}

/// Text that may stand in XML, also within quotes.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Two code points that are no characters may not stand there either.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn junit(comparisons: &[Comparison], gates: &[Gate]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for comparison in comparisons {
        // Of each figure, what stands in the way of success.
        let of_row = |row: &Row| {
            let interval = row.interval.map(|[low, high]| format!(" ({low:.4} to {high:.4})"));
            let words = format!(
                "{} → {}, ratio {} of {}{}: {}{}{}",
                figure(row, row.a),
                figure(row, row.b),
                row.ratio_in_words(),
                row.ratio_of,
                interval.unwrap_or_default(),
                row.verdict,
                row.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default(),
                row.rounds.as_ref().map(|r| format!("; {r}")).unwrap_or_default()
            );
            let held: Vec<_> = gates.iter().filter_map(|gate| Some((gate, gate.judge(row)?))).collect();
            let by = |what: Held| held.iter().find(|(_, held)| *held == what).map(|(gate, _)| gate);
            match row.verdict {
                _ if let Some(gate) = by(Held::Passed) => Case::Failed(format!("{gate}: {words}")),
                _ if let Some(gate) = by(Held::Open) => {
                    Case::Skipped(format!("{gate} cannot be checked: {words}"))
                }
                Verdict::Slower | Verdict::Worse if gates.is_empty() => Case::Failed(words),
                Verdict::CannotTell if gates.is_empty() => Case::Skipped(words),
                _ => Case::Fine(words),
            }
        };
        let rows = comparison.rows.iter().map(|row| (metric(row), row.name(), row.seconds, of_row(row)));
        let without = gates.iter().flat_map(|gate| {
            let cases = gate.without(comparison).into_iter();
            cases.map(move |(what, why)| {
                ("limit".to_owned(), format!("{gate}: {what}"), 0.0, Case::Skipped(why))
            })
        });
        // Without limits, what was lost is told too.
        let gone = comparison.only_a.iter().filter(|_| gates.is_empty()).map(|arm| {
            let why = format!("it is in {} but not in {}", comparison.a, comparison.b);
            ("lost".to_owned(), arm.name.clone(), 0.0, Case::Skipped(why))
        });
        let cases: Vec<_> = rows.chain(without).chain(gone).collect();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            xml(&format!("{} → {}", comparison.a, comparison.b)),
            cases.len(),
            cases.iter().filter(|c| matches!(c.3, Case::Failed(_))).count(),
            cases.iter().filter(|c| matches!(c.3, Case::Skipped(_))).count(),
            cases.iter().map(|c| c.2).sum::<f64>(),
        );
        for (class, name, seconds, case) in &cases {
            let _ = write!(
                out,
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{seconds:.3}\">",
                xml(class),
                xml(name)
            );
            let _ = match case {
                Case::Failed(words) => write!(out, "<failure message=\"{}\"/>", xml(words)),
                Case::Skipped(words) => write!(out, "<skipped message=\"{}\"/>", xml(words)),
                Case::Fine(words) => write!(out, "<system-out>{}</system-out>", xml(words)),
            };
            out.push_str("</testcase>\n");
        }
        if !comparison.notes.is_empty() {
            let _ = writeln!(out, "    <system-out>{}</system-out>", xml(&comparison.notes.join(" ")));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// What a test case of a JUnit report says.
enum Case {
    Failed(String),
    Skipped(String),
    Fine(String),
}

/// Names of arms that are the same from run to run, with their figures.
fn arms(records: &[Record]) -> impl Iterator<Item = (String, &super::Arm)> {
    records.iter().zip(machine_names(records)).flat_map(|(record, machine)| {
        let on = on(machine.as_deref());
        record.arms.iter().map(move |arm| (arm_name(&arm.subject, &arm.test) + &on, arm))
    })
}

fn github(records: &[Record]) -> Value {
    let entries = arms(records).filter_map(|(name, arm)| {
        if let Some(choices) = &arm.choices {
            return Some(json!({ "name": name, "unit": "accuracy", "value": choices.acc }));
        }
        let speed = arm.speed.as_ref()?;
        let mut entry = json!({
            "name": name,
            "unit": speed.unit,
            "value": speed.median,
            "extra": speed.warnings.join("\n"),
        });
        if let Some([low, high]) = speed.known_interval() {
            entry["range"] = format!("± {:.4}", (high - low) / 2.0).into();
        }
        Some(entry)
    });
    Value::Array(entries.collect())
}

fn bencher(records: &[Record]) -> Value {
    let mut out = serde_json::Map::new();
    for (name, arm) in arms(records) {
        let mut measures = serde_json::Map::new();
        if let Some(speed) = &arm.speed {
            let measure = if speed.unit == "tokens/s" { "tokens-per-second" } else { "gmac-per-second" };
            measures.insert(
                measure.into(),
                match speed.known_interval() {
                    Some([low, high]) => {
                        json!({ "value": speed.median, "lower_value": low, "upper_value": high })
                    }
                    None => json!({ "value": speed.median }),
                },
            );
        }
        if let Some(accuracy) = &arm.accuracy {
            measures.insert("perplexity".into(), json!({ "value": accuracy.ppl }));
        }
        if let Some(choices) = &arm.choices {
            measures.insert("accuracy".into(), json!({ "value": choices.acc }));
        }
        if let Some(Outcome::Measured(energy)) = &arm.energy_measured {
            measures.insert("joules-per-token".into(), json!({ "value": energy.joules_per_token }));
        }
        if !measures.is_empty() {
            out.insert(name, Value::Object(measures));
        }
    }
    Value::Object(out)
}
