//! Records on disk: reading with every figure checked, writing whole files or nothing.

use super::check::check;
use super::{Record, SCHEMA, Tool};
use crate::error::{Error, Result};
use crate::files::{self, write_whole};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// Greatest size of a record file; thousands of times what a suite leaves.
const MAX_BYTES: u64 = 256 << 20;

/// A file of several records, as `merge` writes it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Collection {
    schema: u32,
    records: Vec<Record>,
}

/// What a file may hold.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the schema of it is wanted")]
pub(super) enum Content {
    /// A record.
    One(Box<Record>),
    /// Several.
    Many(Collection),
}

/// Reads the record of a file or of the folder of a run, or all of them if it is a merged one.
///
/// # Errors
/// If it is no record, of another schema version, or holds figures that cannot be; the message
/// names the field.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    // The folder of a run is what it names.
    let of_run = Some(path.join("record.json")).filter(|path| path.is_file());
    let path = of_run.as_deref().unwrap_or(path);
    let text = files::read(path, MAX_BYTES)?;
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    parse(text).map_err(|message| {
        Error::input(path, message).hint(
            "records are written by `tritmark bench --record FILE` and `tritmark run`; where one was cut or \
                 changed since, copy or measure it again",
        )
    })
}

pub(super) fn parse(text: &[u8]) -> Result<Vec<Record>, String> {
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
    if records.is_empty() {
        return Err("field `records`: it holds no record".into());
    }
    for record in &records {
        check(record)?;
    }
    Ok(records)
}

fn deserialise<T: for<'a> Deserialize<'a>>(text: &[u8]) -> Result<T, String> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(|e| {
        match e.path().to_string().as_str() {
            // The record itself.
            "." => e.inner().to_string(),
            path => format!("field `{path}`: {}", e.inner()),
        }
    })
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
    use crate::record::{broken, example};

    #[test]
    fn what_is_written_is_read_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut record = example();
        record.environment.load = Some(0.1 + 0.2);
        for records in [vec![record.clone()], vec![record.clone(), example()]] {
            write(&path, &records).unwrap();
            assert_eq!(read(&path).unwrap(), records);
        }
        record.arms[0].speed.as_mut().unwrap().samples[0] = f64::NAN;
        assert!(matches!(write(&path, &[record]), Err(Error::Bug(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
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
