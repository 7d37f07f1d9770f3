//! Suites: sets of arms as data, and the main job that runs one from checkpoint to report.

mod journal;
mod prove;
mod run;

pub use run::{Options, Step, failures, run};

use crate::accuracy::Convention;
use crate::error::{Error, Result};
use crate::model::Head;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Suites built into the program: name and TOML text.
pub const BUILTIN: [(&str, &str); 4] = [
    ("quick", include_str!("../../bench-suites/quick.toml")),
    ("full", include_str!("../../bench-suites/full.toml")),
    ("ci", include_str!("../../bench-suites/ci.toml")),
    ("native-vs-ptq", include_str!("../../bench-suites/native-vs-ptq.toml")),
];

/// What to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Its name: of the built-in one, or of the file.
    #[serde(skip)]
    pub name: String,
    /// Its text, where it is not one of those in the program.
    #[serde(skip)]
    pub text: Option<String>,
    /// One line for people.
    pub description: String,
    /// Models, as on the command line.
    pub models: Vec<String>,
    /// Layout names, or `all`.
    pub layouts: Vec<String>,
    /// Tier names, `all` that this CPU has, or `best`.
    pub tiers: Vec<String>,
    /// Thread counts: numbers, `max`, or `sweep` (1, 2, 4, … and all).
    pub threads: Vec<String>,
    /// Accuracy tests, where wanted.
    pub accuracy: Option<Accuracy>,
    /// Speed and energy tests, where wanted.
    pub speed: Option<Speed>,
}

/// Accuracy tests of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// `llama.cpp` or `hf`.
    pub convention: String,
    /// Window length in tokens.
    pub n_ctx: usize,
    /// Windows of the main figure; all of the text where absent.
    pub windows: Option<usize>,
    /// Windows over which every kernel and thread count must agree bit for bit.
    pub identity_windows: usize,
    /// Modes of the candle reference to hold the model against: `int8`, `full`.
    pub references: Vec<String>,
    /// A model with the same tokenizer that all others are held against, in place of the references.
    pub against: Option<String>,
    /// Precisions to round the output head to, each held against the head as it is.
    #[serde(default)]
    pub heads: Vec<Head>,
    /// Multiple choice: files of questions, or `sotu`, the task in the program.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// A file to use instead of the demo's test text; relative to the working directory.
    pub text: Option<String>,
}

/// Speed and energy tests of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Thread counts, as [`Suite::threads`].
    pub threads: Vec<String>,
    /// Tokens of prompts, a test each: `pp512`.
    pub prompts: Vec<u32>,
    /// Tokens to generate, a test each: `tg128`.
    pub generate: Vec<u32>,
    /// Rounds over all arms of a test.
    pub rounds: u32,
    /// Shortest time of a sample, seconds.
    pub min_time_s: f64,
    /// Longest warm-up of an arm, seconds.
    pub warmup_s: f64,
    /// Shortest window of an energy measurement, seconds, where there is a sensor; it lasts as long as
    /// that sensor needs.
    pub energy_s: f64,
    /// Whether the candle reference is an arm too.
    pub reference: bool,
}

impl Suite {
    /// A built-in suite by name, or one from a `.toml` file.
    ///
    /// # Errors
    /// If there is none of that name, or the file is not a suite.
    pub fn open(name: &str) -> Result<Self> {
        let builtin = BUILTIN.iter().find(|(n, _)| *n == name);
        let text = match builtin {
            Some((_, text)) => (*text).to_owned(),
            None if name.ends_with(".toml") => {
                std::fs::read_to_string(name).map_err(|e| Error::io(name, e))?
            }
            None => {
                let known = BUILTIN.map(|(n, _)| n).join(", ");
                return Err(Error::Usage(format!(
                    "unknown suite '{name}': expected one of {known}, or a .toml file"
                )));
            }
        };
        let mut suite: Suite = toml::from_str(&text).map_err(|e| Error::input(name, e.to_string()))?;
        suite.text = builtin.is_none().then_some(text);
        suite.name = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(suite)
    }
}

impl Accuracy {
    /// The convention of its perplexity.
    fn convention(&self) -> Result<Convention> {
        match self.convention.as_str() {
            "hf" => Convention::parse(&format!("hf-{}", self.n_ctx), self.n_ctx, None),
            name => Convention::parse(name, self.n_ctx, None),
        }
    }

    /// Whether the reference of that mode is wanted.
    #[cfg(feature = "reference")]
    fn wants(&self, mode: &str) -> Result<bool> {
        if let Some(odd) = self.references.iter().find(|r| !["int8", "full"].contains(&r.as_str())) {
            return Err(Error::Usage(format!("unknown reference '{odd}': expected int8 or full")));
        }
        Ok(self.references.iter().any(|r| r == mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_suites_are_valid() {
        for (name, _) in BUILTIN {
            assert_eq!(Suite::open(name).expect("valid").name, name);
        }
    }

    #[test]
    fn unknown_names_and_keys_are_refused() {
        assert!(matches!(Suite::open("quik"), Err(Error::Usage(_))));
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, format!("{}\nroundz = 3\n", BUILTIN[0].1)).expect("written");
        let error = Suite::open(file.to_str().expect("UTF-8")).expect_err("roundz is no key");
        assert!(error.to_string().contains("roundz"), "{error}");
    }
}
