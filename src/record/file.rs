//! Records on disk: reading with every figure checked, writing whole files or nothing.

use super::{Arm, Record, SCHEMA, Test, Tool};
use crate::error::{Error, Result};
use crate::files::write_whole;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

/// Greatest size of a record file; thousands of times what a suite leaves.
const MAX_BYTES: u64 = 256 << 20;

/// A file of several records, as `merge` writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collection {
    schema: u32,
    records: Vec<Record>,
}

/// Reads the record of a file, or all of them if it is a merged one.
///
/// # Errors
/// If it is no record, of another schema version, or holds figures that cannot be; the message
/// names the field.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if bytes > MAX_BYTES {
        return Err(Error::input(
            path,
            format!("a record has at most {MAX_BYTES} bytes, this file has {bytes}"),
        ));
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    parse(&text).map_err(|message| {
        Error::input(path, message)
            .hint("records are written by `tritmark bench --record FILE` and `tritmark run`")
    })
}

fn parse(text: &[u8]) -> Result<Vec<Record>, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| format!("is no JSON: {e}"))?;
    let schema = value.get("schema").ok_or("is no record: it has no field `schema`")?;
    let schema = schema.as_u64().ok_or_else(|| format!("field `schema` must be a number, it is {schema}"))?;
    if schema > u64::from(SCHEMA) {
        return Err(format!(
            "is of schema version {schema}, this program knows up to {SCHEMA}; update tritmark"
        ));
    }
    if schema < u64::from(SCHEMA) {
        return Err(format!("is of schema version {schema}, which no released program wrote"));
    }
    let records = if value.get("records").is_some() {
        deserialise::<Collection>(text)?.records
    } else {
        vec![deserialise::<Record>(text)?]
    };
    for record in &records {
        check(record)?;
    }
    Ok(records)
}

fn deserialise<T: for<'a> Deserialize<'a>>(text: &[u8]) -> Result<T, String> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text))
        .map_err(|e| format!("field `{}`: {}", e.path(), e.inner()))
}

/// Writes one record, or several as a collection, to a file that appears whole or not at all.
///
/// # Errors
/// If the file cannot be written, or a record is one that [`read`] would refuse.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    for record in records {
        check(record).map_err(|message| Error::Bug(format!("a record to be written is wrong: {message}")))?;
    }
    let json = match records {
        [record] => serde_json::to_vec_pretty(record),
        _ => serde_json::to_vec_pretty(&Collection { schema: SCHEMA, records: records.to_vec() }),
    };
    let json = json.map_err(|e| Error::Bug(e.to_string()))?;
    write_whole(path, |file| file.write_all(&json).and_then(|()| file.write_all(b"\n")))
}

/// What types cannot say: that the figures of a record are possible and fit each other.
///
/// # Errors
/// Names the first field that does not.
pub fn check(record: &Record) -> Result<(), String> {
    if record.schema != SCHEMA {
        return Err(format!("field `schema` must be {SCHEMA}, it is {}", record.schema));
    }
    let mut models = HashSet::new();
    for (i, model) in record.models.iter().enumerate() {
        if !models.insert(model.id.as_str()) {
            return Err(format!("field `models[{i}].id`: '{}' stands twice", model.id));
        }
    }
    for (i, proof) in record.proofs.iter().enumerate() {
        if !models.contains(proof.model.as_str()) {
            return Err(format!("field `proofs[{i}].model`: no model '{}' in this record", proof.model));
        }
    }
    let mut arms = HashSet::new();
    for (i, arm) in record.arms.iter().enumerate() {
        let at = |what: String| format!("field `arms[{i}].{what}");
        // Kernels alone run on random trits, and of foreign models a record knows no more than the name.
        let has_model = !matches!(arm.test, Test::Kernel { .. }) && arm.imported.is_none();
        if has_model && !models.contains(arm.subject.model.as_str()) {
            return Err(at(format!("subject.model`: no model '{}' in this record", arm.subject.model)));
        }
        if !arms.insert((&arm.subject, &arm.test)) {
            return Err(at(format!("subject`: this subject stands twice under {}", arm.test)));
        }
        check_arm(arm).map_err(at)?;
    }
    for (i, control) in record.controls.iter().enumerate() {
        positive(&format!("controls[{i}].samples"), &control.samples).map_err(|e| format!("field `{e}"))?;
    }
    Ok(())
}

fn check_arm(arm: &Arm) -> Result<(), String> {
    if let Some(speed) = &arm.speed {
        let n = speed.samples.len();
        positive("speed.samples", &speed.samples)?;
        positive("speed.seconds", &speed.seconds)?;
        if n == 0 || speed.seconds.len() != n {
            return Err(format!(
                "speed.seconds`: as many as samples are expected and at least one, found {} and {n}",
                speed.seconds.len()
            ));
        }
        positive("speed.median", &[speed.median])?;
        let (low, high) = speed.samples.iter().fold((f64::MAX, 0.0f64), |(l, h), &s| (l.min(s), h.max(s)));
        // Decimal text of a mean of two samples may round past the samples themselves.
        let slack = 1e-9 * high;
        if !(low - slack..=high + slack).contains(&speed.median) {
            return Err(format!("speed.median`: {} is outside of the samples {low} to {high}", speed.median));
        }
        if speed.interval[0].partial_cmp(&speed.interval[1]).is_none_or(|order| order.is_gt()) {
            return Err(format!("speed.interval`: {:?} is no interval", speed.interval));
        }
        if let Some(&outlier) = speed.outliers.iter().find(|&&o| o >= n) {
            return Err(format!("speed.outliers`: there is no sample {outlier}"));
        }
    }
    if let Some(accuracy) = &arm.accuracy
        && accuracy.nll_bits != format!("{:016x}", accuracy.nll.to_bits())
    {
        return Err(format!(
            "accuracy.nll_bits`: {} are not the bits of {}",
            accuracy.nll_bits, accuracy.nll
        ));
    }
    if let Some(super::Outcome::Measured(energy)) = &arm.energy_measured {
        positive("energy_measured.measured.seconds", &[energy.seconds])?;
        if energy.gross_joules < 0.0 || energy.tokens == 0 {
            return Err(format!(
                "energy_measured.measured`: {} J over {} tokens cannot be",
                energy.gross_joules, energy.tokens
            ));
        }
    }
    Ok(())
}

fn positive(field: &str, values: &[f64]) -> Result<(), String> {
    match values.iter().position(|v| !(v.is_finite() && *v > 0.0)) {
        Some(at) => Err(format!("{field}`: value {at} is {}, it must be above 0", values[at])),
        None => Ok(()),
    }
}

impl Tool {
    /// This program.
    pub fn current() -> Self {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            git_revision: known(env!("TRITMARK_GIT_REVISION")),
            git_dirty: known(env!("TRITMARK_GIT_DIRTY")).map(|dirty| dirty == "true"),
            rustc: env!("TRITMARK_RUSTC_VERSION").into(),
            target: env!("TRITMARK_TARGET").into(),
            profile: env!("TRITMARK_PROFILE").into(),
        }
    }
}

/// The time, as RFC 3339 in UTC with seconds.
pub fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::example;
    use serde_json::Value;

    fn broken(change: impl FnOnce(&mut Value)) -> String {
        let mut value = serde_json::to_value(example()).unwrap();
        change(&mut value);
        parse(value.to_string().as_bytes()).expect_err("the record is broken")
    }

    #[test]
    fn what_is_written_is_read_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut record = example();
        record.arms[0].speed.as_mut().unwrap().mad = 0.1 + 0.2;
        for records in [vec![record.clone()], vec![record.clone(), example()], Vec::new()] {
            write(&path, &records).unwrap();
            assert_eq!(read(&path).unwrap(), records);
        }
        record.arms[0].speed.as_mut().unwrap().samples[0] = f64::NAN;
        assert!(matches!(write(&path, &[record]), Err(Error::Bug(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn errors_name_the_field() {
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 12] = [
            (|v| v["arms"][1]["speed"]["samples"][3] = (-1.0).into(), "arms[1].speed.samples"),
            (|v| v["arms"][1]["speed"]["median"] = Value::Null, "arms[1].speed.median"),
            (|v| v["arms"][1]["speed"]["median"] = 500.0.into(), "arms[1].speed.median"),
            (|v| v["arms"][1]["speed"]["outliers"] = vec![99].into(), "arms[1].speed.outliers"),
            (|v| v["arms"][1]["speed"]["interval"] = vec![2.0, 1.0].into(), "arms[1].speed.interval"),
            (|v| v["arms"][0]["subject"]["model"] = "gone".into(), "arms[0].subject.model"),
            (|v| v["arms"][0]["subject"]["threads"] = "two".into(), "arms[0].subject.threads"),
            (|v| v["arms"][0]["test"]["kind"] = "guess".into(), "arms[0].test"),
            (|v| v["arms"][2]["accuracy"]["nll_bits"] = "00".into(), "arms[2].accuracy.nll_bits"),
            (|v| v["environment"]["cpuu"] = 1.into(), "environment.cpuu"),
            (|v| drop(v.as_object_mut().unwrap().remove("tool")), "tool"),
            (|v| v["controls"][0]["samples"][0] = 0.into(), "controls[0].samples"),
        ];
        for (change, field) in cases {
            let message = broken(change);
            assert!(message.contains(field), "{field}: {message}");
        }
        let twice = broken(|v| {
            let arm = v["arms"][0].clone();
            v["arms"].as_array_mut().unwrap().push(arm);
        });
        assert!(twice.contains("arms[3].subject") && twice.contains("twice"), "{twice}");
    }

    #[test]
    fn other_versions_and_other_files_are_refused() {
        assert!(broken(|v| v["schema"] = 2.into()).contains("update tritmark"));
        assert!(broken(|v| v["schema"] = 0.into()).contains("version 0"));
        assert!(broken(|v| v["schema"] = "1".into()).contains("must be a number"));
        assert!(parse(b"{}").unwrap_err().contains("no field `schema`"));
        assert!(parse(b"[1]").unwrap_err().contains("no field `schema`"));
        assert!(parse(b"{\"schema\": 1").unwrap_err().contains("no JSON"));
        // A newer record is refused for its version, not for fields that we do not know.
        let newer = broken(|v| {
            v["schema"] = 2.into();
            v["new"] = 1.into();
        });
        assert!(newer.contains("update tritmark"));
    }

    #[test]
    fn time_is_rfc_3339_in_utc() {
        let now = now();
        assert!(now.len() == 20 && now.ends_with('Z') && now.parse::<jiff::Timestamp>().is_ok(), "{now}");
    }
}
