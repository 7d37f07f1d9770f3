//! Arms as flat rows, with llama-bench's field names where the meaning is the same.

use super::{Arm, MeasuredEnergy, Outcome, Record, Test};
use crate::words::csv_cell;
use crate::words::{joules, seconds, table_cell};
use serde_json::{Map, Value};
use std::fmt::Write;
use tritmark_kernels::layout;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people, as Markdown.
    Md,
    /// Comma-separated values.
    Csv,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// SQL statements.
    Sql,
    /// Nothing.
    None,
}

/// One row of an arm with a speed; absent figures are null.
///
/// Of llama-bench: `build_commit`, `cpu_info`, `model_filename`, `model_type`, `model_size`,
/// `model_n_params`, `n_threads`, `type_k`, `type_v`, `n_prompt`, `n_gen`, `n_depth`, `test_time`,
/// `avg_ns`, `stddev_ns`, `avg_ts`, `stddev_ts`, `samples_ns`, `samples_ts`. The others are ours; `load_s` is for loading the model with that kernel and
/// these threads, from files of `load_bytes` bytes of tensors.
#[derive(serde::Serialize)]
struct Row<'a> {
    build_commit: Option<&'a str>,
    cpu_info: &'a str,
    tuning: Option<&'a str>,
    model_filename: Option<&'a str>,
    model_type: Option<String>,
    model_size: Option<u64>,
    model_n_params: Option<u64>,
    engine: &'a str,
    layout: Option<&'a str>,
    tier: Option<&'a str>,
    variant: Option<&'a str>,
    n_threads: u32,
    type_k: Option<&'static str>,
    type_v: Option<&'static str>,
    test: String,
    n_prompt: Option<u32>,
    n_gen: Option<u32>,
    n_depth: Option<u32>,
    rows: Option<u32>,
    cols: Option<u32>,
    batch: Option<u32>,
    weights_gb_per_s: Option<f64>,
    test_time: &'a str,
    avg_ns: Option<u64>,
    stddev_ns: Option<u64>,
    avg_ts: Option<f64>,
    stddev_ts: Option<f64>,
    samples_ns: Option<Vec<u64>>,
    samples_ts: Option<&'a [f64]>,
    unit: &'a str,
    median: f64,
    mad: f64,
    ci95_low: Option<f64>,
    ci95_high: Option<f64>,
    samples: &'a [f64],
    bound: Option<f64>,
    bound_how: Option<&'a str>,
    latency_p50_ms: Option<f64>,
    latency_p95_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
    first_token_ms: Option<f64>,
    load_s: Option<f64>,
    load_bytes: Option<u64>,
    measured_joules: Option<f64>,
    measured_net_joules: Option<f64>,
    measured_idle_watts: Option<f64>,
    measured_joules_per_token: Option<f64>,
    measured_net_joules_per_token: Option<f64>,
    energy_tokens: Option<u64>,
    energy_source: Option<String>,
    energy_window_s: Option<f64>,
    energy_update_period_s: Option<f64>,
    energy_warnings: Option<&'a [String]>,
    energy_not_measured: Option<&'a str>,
    modelled_joules_per_token_7nm: Option<f64>,
    modelled_joules_per_token_45nm: Option<f64>,
    modelled_joules_per_token_tdp: Option<f64>,
    imported: Option<&'a str>,
    /// `quiet`, or what may be wrong with the samples and what to do about it.
    noise: String,
    warmup_settled: Option<bool>,
    warnings: &'a [String],
}

/// The row of an arm, if it has a speed.
fn row(record: &Record, arm: &Arm) -> Option<Map<String, Value>> {
    let speed = arm.speed.as_ref()?;
    let model = record.model(&arm.subject.model);
    let tokens = arm.test.tokens().map(|tokens| tokens as f64);
    // Nanoseconds of one run of the test, as there.
    let ns: Option<Vec<f64>> = tokens.map(|t| speed.samples.iter().map(|s| t / s * 1e9).collect());
    let ts = tokens.map(|_| speed.samples.as_slice());
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let deviation = |v: &[f64]| crate::stats::variation(v) * mean(v);
    let (prompt, generate, depth) = match arm.test {
        Test::Model { prompt, generate, depth } => (Some(prompt), Some(generate), Some(depth)),
        _ => (None, None, None),
    };
    let shape = match arm.test {
        Test::Kernel { rows, cols, batch } => Some([rows, cols, batch]),
        _ => None,
    };
    let (energy, unmeasured) = match &arm.energy_measured {
        Some(Outcome::Measured(energy)) => (Some(energy), None),
        Some(Outcome::NotMeasured(reason)) => (None, Some(reason.as_str())),
        None => (None, None),
    };
    let modelled = arm.energy_modelled.as_ref();
    let subject = &arm.subject;
    let row = Row {
        build_commit: record.tool.git_revision.as_deref(),
        cpu_info: &record.environment.cpu,
        tuning: record.environment.tuning.as_deref(),
        model_filename: model.map(|m| m.name.as_str()),
        model_type: model.map(|m| format!("{} {}", m.family, m.dialect)),
        model_size: model.map(|m| m.file_bytes),
        model_n_params: model.map(|m| m.params),
        engine: &subject.engine,
        layout: subject.layout.as_deref(),
        tier: subject.tier.as_deref(),
        variant: subject.variant.as_deref(),
        n_threads: subject.threads,
        type_k: tokens.map(|_| "f32"),
        type_v: tokens.map(|_| "f32"),
        test: arm.test.to_string(),
        n_prompt: prompt,
        n_gen: generate,
        n_depth: depth,
        rows: shape.map(|s| s[0]),
        cols: shape.map(|s| s[1]),
        batch: shape.map(|s| s[2]),
        weights_gb_per_s: weights_gb_per_s(arm),
        test_time: &record.started,
        avg_ns: ns.as_deref().map(|ns| mean(ns).round() as u64),
        stddev_ns: ns.as_deref().map(|ns| deviation(ns).round() as u64),
        avg_ts: ts.map(mean),
        stddev_ts: ts.map(deviation),
        samples_ns: ns.map(|ns| ns.iter().map(|t| t.round() as u64).collect()),
        samples_ts: ts,
        unit: &speed.unit,
        median: speed.median,
        mad: speed.mad,
        ci95_low: speed.known_interval().map(|[low, _]| low),
        ci95_high: speed.known_interval().map(|[_, high]| high),
        samples: &speed.samples,
        bound: speed.bound.as_ref().map(|b| b.value),
        bound_how: speed.bound.as_ref().map(|b| b.how.as_str()),
        latency_p50_ms: speed.latency_ms.map(|l| l[0]),
        latency_p95_ms: speed.latency_ms.map(|l| l[1]),
        latency_p99_ms: speed.latency_ms.map(|l| l[2]),
        first_token_ms: speed.first_token_ms,
        load_s: speed.load.as_ref().map(|l| l.seconds),
        load_bytes: speed.load.as_ref().map(|l| l.bytes),
        measured_joules: energy.map(|e| e.gross_joules),
        measured_net_joules: energy.and_then(|e| e.net_joules),
        measured_idle_watts: energy.and_then(|e| e.idle_watts),
        measured_joules_per_token: energy.map(|e| e.joules_per_token),
        measured_net_joules_per_token: energy.and_then(MeasuredEnergy::net_joules_per_token),
        energy_tokens: energy.map(|e| e.tokens),
        energy_source: energy.map(|e| format!("{} ({})", e.source, e.domain)),
        energy_window_s: energy.map(|e| e.seconds),
        energy_update_period_s: energy.and_then(|e| e.update_period_s),
        energy_warnings: energy.map(|e| e.warnings.as_slice()),
        energy_not_measured: unmeasured,
        modelled_joules_per_token_7nm: modelled.map(|m| m.joules_per_token_7nm),
        modelled_joules_per_token_45nm: modelled.map(|m| m.joules_per_token_45nm),
        modelled_joules_per_token_tdp: arm.energy_rated.as_ref().map(|e| e.joules_per_token),
        imported: arm.imported.as_deref(),
        noise: if speed.warnings.is_empty() { "quiet".into() } else { speed.warnings.join(" ") },
        warmup_settled: speed.settled,
        warnings: &speed.warnings,
    };
    match serde_json::to_value(row) {
        Ok(Value::Object(row)) => Some(row),
        _ => None,
    }
}

/// 10⁹ bytes of weights a second that a kernel's arm read.
fn weights_gb_per_s(arm: &Arm) -> Option<f64> {
    let Test::Kernel { rows, cols, batch } = arm.test else { return None };
    let layout = layout::by_name(arm.subject.layout.as_deref()?)?;
    let bytes = layout.packed_len(rows as usize, cols as usize).ok()?;
    let macs = f64::from(rows) * f64::from(cols) * f64::from(batch);
    Some(arm.speed.as_ref()?.median * bytes as f64 / macs)
}

/// All arms of records that have a speed, written out.
pub fn write(records: &[Record], format: Format) -> String {
    let rows: Vec<_> = records.iter().flat_map(|r| r.arms.iter().filter_map(move |a| row(r, a))).collect();
    match format {
        Format::Md => table(records),
        Format::Json => format!("{:#}\n", Value::Array(rows.into_iter().map(Value::Object).collect())),
        Format::Jsonl => rows.into_iter().map(|row| format!("{}\n", Value::Object(row))).collect(),
        Format::Csv => csv(&rows),
        Format::Sql => sql(&rows),
        Format::None => String::new(),
    }
}

/// A value in a cell: text as it is, lists as JSON, nothing for null.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv(rows: &[Map<String, Value>]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut put = |cells: Vec<String>| writer.write_record(cells).expect("writing to memory does not fail");
    if let Some(first) = rows.first() {
        put(first.keys().cloned().collect());
    }
    for row in rows {
        put(row.values().map(csv_cell).collect());
    }
    let bytes = writer.into_inner().expect("writing to memory does not fail");
    String::from_utf8(bytes).expect("cells are UTF-8")
}

/// Columns that hold whole numbers, or whether something is so; a table is the same whatever is in it.
const INTEGERS: [&str; 14] = [
    "model_size",
    "model_n_params",
    "n_threads",
    "n_prompt",
    "n_gen",
    "n_depth",
    "rows",
    "cols",
    "batch",
    "avg_ns",
    "stddev_ns",
    "load_bytes",
    "energy_tokens",
    "warmup_settled",
];

/// Columns that hold no numbers.
const TEXTS: [&str; 24] = [
    "build_commit",
    "cpu_info",
    "tuning",
    "model_filename",
    "model_type",
    "engine",
    "layout",
    "tier",
    "variant",
    "type_k",
    "type_v",
    "test",
    "test_time",
    "samples_ns",
    "samples_ts",
    "unit",
    "samples",
    "bound_how",
    "energy_source",
    "energy_warnings",
    "energy_not_measured",
    "imported",
    "noise",
    "warnings",
];

fn sql(rows: &[Map<String, Value>]) -> String {
    let mut out = String::new();
    let Some(first) = rows.first() else { return out };
    let kind = |name: &str| match name {
        name if TEXTS.contains(&name) => "TEXT",
        name if INTEGERS.contains(&name) => "INTEGER",
        _ => "REAL",
    };
    let columns: Vec<String> = first.keys().map(|name| format!("  \"{name}\" {}", kind(name))).collect();
    let _ = writeln!(out, "CREATE TABLE IF NOT EXISTS tritmark_bench (\n{}\n);\n", columns.join(",\n"));
    let names: Vec<String> = first.keys().map(|name| format!("\"{name}\"")).collect();
    for row in rows {
        let values = row.values().map(|value| match value {
            Value::Null => "NULL".into(),
            Value::Bool(truth) => u8::from(*truth).to_string(),
            Value::Number(number) => number.to_string(),
            other => format!("'{}'", cell(other).replace('\'', "''")),
        });
        let values: Vec<String> = values.collect();
        let _ = writeln!(
            out,
            "INSERT INTO tritmark_bench ({}) VALUES ({});",
            names.join(", "),
            values.join(", ")
        );
    }
    out
}

fn table(records: &[Record]) -> String {
    let loaded =
        records.iter().flat_map(|r| &r.arms).any(|a| a.speed.as_ref().is_some_and(|s| s.load.is_some()));
    let rated = records.iter().flat_map(|r| &r.arms).any(|arm| arm.energy_rated.is_some());
    let mut header = vec![
        "model",
        "size",
        "params",
        "kernel",
        "threads",
        "test",
        "speed",
        "95 % interval",
        "of bound",
        "measured energy/token",
    ];
    header.extend(loaded.then_some("loading"));
    header.extend(rated.then_some("modelled energy/token (TDP × time)"));
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(|&h| h.to_owned()).collect()];
    for record in records {
        for arm in &record.arms {
            let Some(speed) = &arm.speed else { continue };
            let model = record.model(&arm.subject.model);
            let subject = &arm.subject;
            let variant = subject.variant.as_ref().map(|v| format!(" ({v})")).unwrap_or_default();
            let energy = match &arm.energy_measured {
                Some(Outcome::Measured(energy)) => {
                    let net = energy.net_joules.map(|net| net / energy.tokens as f64);
                    let net = net.map(|net| format!(" (net {})", joules(net)));
                    joules(energy.joules_per_token) + &net.unwrap_or_default()
                }
                _ => "not measured".into(),
            };
            let mut line = vec![
                table_cell(&subject.model),
                model.map(|m| format!("{:.2} MB", m.file_bytes as f64 / 1e6)).unwrap_or_default(),
                model.map(|m| format!("{:.2} M", m.params as f64 / 1e6)).unwrap_or_default(),
                subject.kernel() + &table_cell(&variant),
                subject.threads.to_string(),
                arm.test.to_string(),
                format!("{:.2} {}", speed.median, speed.unit)
                    + &weights_gb_per_s(arm).map(|gb| format!(", {gb:.2} GB/s")).unwrap_or_default(),
                speed.known_interval().map_or("1 sample".into(), |[low, high]| format!("{low:.2}–{high:.2}")),
                speed
                    .bound
                    .as_ref()
                    .map(|b| format!("{:.0} %", 100.0 * speed.median / b.value))
                    .unwrap_or_default(),
                energy,
            ];
            if loaded {
                line.push(speed.load.as_ref().map(|l| seconds(l.seconds)).unwrap_or_default());
            }
            if rated {
                let rated = arm.energy_rated.as_ref().map(|e| joules(e.joules_per_token));
                line.push(rated.unwrap_or_default());
            }
            lines.push(line);
        }
    }
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        // Figures stand right, names left.
        let right = |column: usize| !matches!(column, 0 | 3 | 5);
        for (column, text) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column] - text.chars().count());
            let _ = if right(column) { write!(out, "| {pad}{text} ") } else { write!(out, "| {text}{pad} ") };
        }
        out.push_str("|\n");
        if i == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let _ = if right(column) { write!(out, "|{dashes}:") } else { write!(out, "|:{dashes}") };
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MeasuredEnergy, example};

    #[test]
    fn texts_are_told_from_numbers_by_their_columns() {
        let mut record = example();
        let energy = MeasuredEnergy {
            source: "s".into(),
            domain: "d".into(),
            gross_joules: 3.0,
            net_joules: Some(2.0),
            idle_watts: Some(0.1),
            seconds: 10.0,
            tokens: 4,
            joules_per_token: 0.75,
            update_period_s: Some(0.001),
            domains: Vec::new(),
            warnings: Vec::new(),
        };
        record.arms[0].energy_measured = Some(Outcome::Measured(energy));
        for arm in &record.arms {
            for (name, value) in row(&record, arm).into_iter().flatten().filter(|(_, value)| !value.is_null())
            {
                let text = value.is_string() || value.is_array();
                assert_eq!(text, TEXTS.contains(&name.as_str()), "{name} is {value}");
                let whole = value.is_u64() || value.is_boolean();
                assert_eq!(whole, INTEGERS.contains(&name.as_str()), "{name} is {value}");
            }
        }
        let row = row(&record, &record.arms[0]).unwrap();
        assert_eq!(
            (&row["measured_joules"], &row["measured_net_joules_per_token"]),
            (&3.0.into(), &0.5.into())
        );
        let mut once = example();
        once.arms.iter_mut().filter_map(|arm| arm.speed.as_mut()).for_each(|speed| speed.samples.truncate(1));
        let text = write(std::slice::from_ref(&once), Format::Md);
        assert!(text.contains("1 sample") && !text.contains('–'), "{text}");
        assert!(self::row(&once, &once.arms[0]).unwrap()["ci95_low"].is_null());
        let table = write(&[example()], Format::Sql);
        assert!(
            table.contains("\"n_threads\" INTEGER")
                && table.contains("\"tuning\" TEXT")
                && table.contains("\"measured_joules\" REAL")
                && table.contains("\"imported\" TEXT"),
            "{table}"
        );
    }
}
