//! Results of other programs as rows marked foreign.

mod llama_bench;
mod perplexity;

use super::{Arm, Outcome, Protocol, Record, Tool, now};
use crate::error::{Error, Result};
use crate::files;
use crate::machine::Environment;
use llama_bench::{bench, rows};
use perplexity::perplexity;
use std::collections::BTreeSet;
use std::path::Path;

/// Greatest size of a file to import.
const MAX_BYTES: u64 = 64 << 20;

/// The name of a text that nobody named.
pub const UNSTATED: &str = "text not stated";

/// What a record says in place of words that the file does not hold.
pub(super) const NOT_STATED: &str = "not stated";

/// Greatest error of a perplexity in a log, which has four decimals.
pub(super) const ROUNDING: f64 = 0.5e-4;

/// What an import has to be told, because files do not say it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that wrote the file: llama.cpp or a relative of it.
    pub program: String,
    /// Name of the text whose perplexity a log holds.
    pub text: String,
    /// The model of a log that does not name it.
    pub model: Option<String>,
}

/// Reads output of llama-bench (JSON, JSONL, CSV, SQL, Markdown) or a log of llama-perplexity; which of them it is
/// shows in the content.
///
/// # Errors
/// If it is none of these, or a row lacks what a record needs; the message names row and field.
pub fn import(path: &Path, options: &Options) -> Result<Record> {
    let text = decode(&files::read(path, MAX_BYTES)?);
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let record = if ["KL divergence statistics", "Mean    KLD"].iter().any(|line| text.contains(line)) {
        Err("holds statistics of --kl-divergence, which are not imported: measure them with `tritmark ppl --against`, \
             or import the log of a run without that option"
            .into())
    } else if text.contains("Final estimate: PPL") || text.contains("calculating perplexity") {
        perplexity(&text, &file, options)
    } else {
        rows(&text).and_then(|rows| bench(&rows, &file, options))
    };
    let record = record.and_then(|record| match super::check(&record) {
        Ok(()) => Ok(record),
        Err(wrong) => Err(format!("would make a record that is wrong: {wrong}")),
    });
    record.map_err(|message| {
        Error::input(path, message).hint(
            "expected output of `llama-bench` (best `-o json`, which alone has the samples), or a log of \
             `llama-perplexity … 2>&1`",
        )
    })
}

/// Text without its byte order mark, carriage returns and colours; in UTF-16 where that mark says so, as some shells
/// write what is redirected to a file.
fn decode(bytes: &[u8]) -> String {
    let words = |word: fn([u8; 2]) -> u16| {
        let words: Vec<u16> = bytes[2..].as_chunks().0.iter().map(|pair| word(*pair)).collect();
        String::from_utf16_lossy(&words)
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => words(u16::from_le_bytes),
        [0xfe, 0xff, ..] => words(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, text @ ..] | text => String::from_utf8_lossy(text).into_owned(),
    };
    anstream::adapter::strip_str(&text.replace("\r\n", "\n")).to_string()
}

/// The file's name in a path of any system.
fn base_name(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
}

fn foreign(
    options: &Options,
    (version, git_revision): (String, Option<String>),
    cpu: String,
    times: Option<(String, String)>,
    method: &str,
    arms: Vec<Arm>,
) -> Record {
    let unknown = || NOT_STATED.to_owned();
    let threads: BTreeSet<u32> = arms.iter().map(|a| a.subject.threads).collect();
    let rounds = arms.iter().filter_map(|a| Some(a.speed.as_ref()?.samples.len() as u32)).max();
    let mut environment = Environment {
        cpu,
        arch: unknown(),
        os: unknown(),
        threads: threads.last().copied().unwrap_or(1),
        ..Environment::default()
    };
    environment.explain(|_| "the imported file does not tell");
    let mut notes = vec![
        "These rows were imported: nothing of them was measured by tritmark.".to_owned(),
        "The imported file does not tell how many CPUs could be used: at least as many as the most threads of a row, \
         which stand in place of them."
            .into(),
    ];
    let (started, finished) = times.unwrap_or_else(|| {
        notes.push(
            "The imported file does not tell when it was measured: start and end are the time of the import."
                .into(),
        );
        (now(), now())
    });
    let tool = Tool {
        name: options.program.clone(),
        version,
        git_revision,
        git_dirty: None,
        rustc: unknown(),
        target: unknown(),
        profile: unknown(),
    };
    Record {
        finished,
        limits: Outcome::NotMeasured("the rows were imported from another program".into()),
        protocol: Protocol {
            seed: 0,
            rounds: rounds.unwrap_or(1),
            min_time_s: 0.0,
            quick: false,
            method: vec![method.into()],
        },
        arms,
        notes,
        ..Record::new(tool, started, unknown(), environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn options() -> Options {
        Options { program: "llama.cpp".into(), text: "wiki".into(), model: None }
    }

    pub(super) const ROW: &str = r#"{"build_commit": "5dc9dd71", "build_number": 3960, "cpu_info": "AMD EPYC", "model_filename": "/m/a.gguf",
        "model_type": "bitnet 2B I2_S", "model_size": 1187000000, "model_n_params": 2410000000, "n_batch": 2048,
        "n_threads": 2, "type_k": "f16", "n_prompt": 0, "n_gen": 128, "test_time": "2026-01-01T00:00:00Z",
        "avg_ns": 4500000000, "stddev_ns": 1, "avg_ts": 28.5, "stddev_ts": 0.1,
        "samples_ns": [4507042254, 4491228070, 4459930314], "samples_ts": [28.4, 28.5, 28.7]}"#;

    #[test]
    fn byte_order_marks_and_colours_are_read() {
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| {
            ("\u{feff}é\r\n[".encode_utf16()).flat_map(to_bytes).collect::<Vec<u8>>()
        };
        for bytes in
            [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes), "\u{feff}é\n[".into(), "é\r\n[".into()]
        {
            assert_eq!(decode(&bytes), "é\n[");
        }
        assert_eq!(decode(b"\x1b[34m0.01\x1b[0m PPL = 6.1\x1b[0m\n"), "0.01 PPL = 6.1\n");
    }

    #[test]
    fn what_makes_no_record_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.json");
        let texts = [
            format!("[{ROW}, {ROW}]"),
            format!("[{}]", ROW.replace("2026-01-01T00:00:00Z", "yesterday")),
            format!("[{}]", ROW.replace("\"n_threads\": 2", "\"n_threads\": 0")),
        ];
        for text in texts {
            std::fs::write(&file, text).unwrap();
            let error = import(&file, &options()).unwrap_err();
            assert!(matches!(&error, Error::Input { .. }), "{error:?}");
            assert!(error.to_string().contains("rows.json"), "{error}");
        }
    }
}
