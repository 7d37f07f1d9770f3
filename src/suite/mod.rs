//! Suites: sets of arms as data, and the main job that runs one from checkpoint to report.

mod journal;
mod prove;
mod run;

pub use run::{Finished, Options, Step, failures, run};

use crate::accuracy::Convention;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Head;
use crate::speed::protocol::LONGEST;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tritmark_kernels::{Tier, layout};

/// Most bytes of a suite's file.
const MAX_BYTES: u64 = 1 << 20;

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
            None if name.ends_with(".toml") => files::read_text(Path::new(name), MAX_BYTES)?,
            None => {
                let known = BUILTIN.map(|(n, _)| n).join(", ");
                return Err(Error::Usage(format!(
                    "unknown suite '{name}': expected one of {known}, or a .toml file"
                )));
            }
        };
        let mut suite: Suite = toml::from_str(&text).map_err(|e| Error::input(name, e.to_string()))?;
        suite.text = builtin.is_none().then_some(text);
        let (path, of_file) = (Path::new(name), builtin.is_none());
        let stem = path.file_stem().unwrap_or_default();
        // One that is called as one in the program is not that.
        let whole = of_file && BUILTIN.iter().any(|(builtin, _)| stem == *builtin);
        let shown = if whole { path.file_name().unwrap_or_default() } else { stem };
        suite.name = shown.to_string_lossy().into_owned();
        Ok(suite)
    }
}

impl Suite {
    /// Whether all of it can be measured.
    ///
    /// # Errors
    /// If a list is empty, holds what is not known or the same twice, or a number makes no sense; the message
    /// names the field.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Usage(format!("suite {}: {what}", self.name)));
        let layouts: Vec<&str> = layout::ALL.iter().map(|l| l.name()).chain(["all"]).collect();
        let tiers: Vec<&str> = Tier::ALL.iter().map(|t| t.name()).chain(["all", "best"]).collect();
        let threads = self.speed.iter().map(|s| ("speed.threads", &s.threads, None));
        for (field, list, known) in [
            ("models", &self.models, None),
            ("layouts", &self.layouts, Some(layouts)),
            ("tiers", &self.tiers, Some(tiers)),
            ("threads", &self.threads, None),
        ]
        .into_iter()
        .chain(threads)
        {
            if list.is_empty() {
                return wrong(format!("`{field}` is empty, so nothing would be measured"));
            }
            if let Some(twice) = twice(list) {
                return wrong(format!("`{field}` holds '{twice}' twice"));
            }
            if list.iter().any(|name| name.trim().is_empty()) {
                return wrong(format!("`{field}` holds an empty name"));
            }
            let odd =
                known.as_ref().and_then(|known| list.iter().find(|name| !known.contains(&name.as_str())));
            if let (Some(odd), Some(known)) = (odd, known) {
                return wrong(format!("`{field}` holds '{odd}': expected {}", known.join(", ")));
            }
        }
        let threads = [&self.threads].into_iter().chain(self.speed.iter().map(|s| &s.threads));
        for list in threads {
            run::threads(list).map(drop).or_else(|error| wrong(error.message()))?;
        }
        if let Some(accuracy) = &self.accuracy {
            let convention = accuracy.convention();
            convention.map(drop).or_else(|error| wrong(format!("`accuracy`: {}", error.message())))?;
            if accuracy.windows == Some(0) || accuracy.identity_windows == 0 {
                return wrong("`accuracy.windows` and `accuracy.identity_windows` must be at least 1".into());
            }
            if accuracy.windows == Some(accuracy.identity_windows) {
                return wrong(format!(
                    "`accuracy.windows` and `accuracy.identity_windows` are both {}, one test twice: choose fewer for \
                     the latter, which all kernels run",
                    accuracy.identity_windows
                ));
            }
            let heads: Vec<String> = accuracy.heads.iter().map(|head| head.name().to_owned()).collect();
            for (field, list) in
                [("references", &accuracy.references), ("heads", &heads), ("tasks", &accuracy.tasks)]
            {
                if let Some(twice) = twice(list) {
                    return wrong(format!("`accuracy.{field}` holds '{twice}' twice"));
                }
            }
            if accuracy.heads.contains(&Head::AsIs) {
                return wrong(
                    "`accuracy.heads` holds 'as-is', which the others are held against anyway".into(),
                );
            }
            if let Some(odd) = accuracy.references.iter().find(|r| !["int8", "full"].contains(&r.as_str())) {
                return wrong(format!("`accuracy.references` holds '{odd}': expected int8 or full"));
            }
        }
        let Some(speed) = &self.speed else { return Ok(()) };
        if speed.tests().next().is_none() {
            return wrong(
                "`speed.prompts` and `speed.generate` are empty, so nothing would be measured; leave [speed] out".into(),
            );
        }
        for (field, list) in [("prompts", &speed.prompts), ("generate", &speed.generate)] {
            if list.contains(&0) {
                return wrong(format!("`speed.{field}` holds 0 tokens, which take no time"));
            }
            if let Some(twice) = twice(list) {
                return wrong(format!("`speed.{field}` holds {twice} twice"));
            }
        }
        if speed.rounds == 0 {
            return wrong("`speed.rounds` must be at least 1".into());
        }
        for (field, seconds) in
            [("min_time_s", speed.min_time_s), ("warmup_s", speed.warmup_s), ("energy_s", speed.energy_s)]
        {
            if !(0.0..=LONGEST).contains(&seconds) {
                return wrong(format!("`speed.{field}` must be 0 to {LONGEST} seconds, it is {seconds}"));
            }
        }
        Ok(())
    }
}

/// What stands in a list a second time.
fn twice<T: PartialEq>(list: &[T]) -> Option<&T> {
    list.iter().enumerate().find(|(i, item)| list[..*i].contains(item)).map(|(_, item)| item)
}

impl Accuracy {
    /// The convention of its perplexity.
    fn convention(&self) -> Result<Convention> {
        match self.convention.as_str() {
            "hf" => Convention::parse(&format!("hf-{}", self.n_ctx), self.n_ctx, None),
            name => match Convention::parse(name, self.n_ctx, None)? {
                Convention::Hf { len, .. } if len != self.n_ctx => Err(Error::Usage(format!(
                    "convention '{name}' and n_ctx = {} contradict each other; write hf for windows of n_ctx",
                    self.n_ctx
                ))),
                convention => Ok(convention),
            },
        }
    }

    /// Whether the reference of that mode is wanted.
    #[cfg(feature = "reference")]
    fn wants(&self, mode: &str) -> bool {
        self.references.iter().any(|r| r == mode)
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
        // Others that are called so are told apart.
        let dir = tempfile::tempdir().expect("a folder");
        for (file, shown) in [("full.toml", "full.toml"), ("mine.toml", "mine")] {
            let path = dir.path().join(file);
            std::fs::write(&path, BUILTIN[0].1).expect("written");
            assert_eq!(Suite::open(&path.to_string_lossy()).expect("valid").name, shown);
        }
    }

    #[test]
    fn suites_that_measure_nothing_or_nonsense_are_refused() {
        let with = |change: &dyn Fn(&mut Suite, &mut Speed)| {
            let mut suite = Suite::open("quick").expect("built in");
            let mut speed = suite.speed.take().expect("it measures speed");
            change(&mut suite, &mut speed);
            suite.speed = Some(speed);
            suite.check().map_err(|e| e.to_string())
        };
        assert_eq!(with(&|_, _| {}), Ok(()));
        let refused = |field: &str, change: &dyn Fn(&mut Suite, &mut Speed)| {
            let error = with(change).expect_err(field);
            assert!(error.contains(field), "{error}");
        };
        refused("`models` is empty", &|s, _| s.models.clear());
        refused("`models` holds 'demo' twice", &|s, _| s.models = vec!["demo".into(); 2]);
        refused("`layouts` holds 'nope'", &|s, _| s.layouts.push("nope".into()));
        refused("`tiers` holds 'nope'", &|s, _| s.tiers = vec!["nope".into()]);
        refused("`threads` is empty", &|s, _| s.threads.clear());
        refused("`speed.threads` is empty", &|_, s| s.threads.clear());
        refused("`speed.prompts` holds 0", &|_, s| s.prompts.push(0));
        refused("`speed.generate` holds 32 twice", &|_, s| s.generate = vec![32, 32]);
        refused("`speed.prompts` and", &|_, s| (s.prompts, s.generate) = (Vec::new(), Vec::new()));
        refused("`speed.rounds`", &|_, s| s.rounds = 0);
        refused("threads 'many'", &|_, s| s.threads = vec!["many".into()]);
        let accuracy = |change: fn(&mut Accuracy)| {
            move |s: &mut Suite, _: &mut Speed| change(s.accuracy.as_mut().expect("it measures accuracy"))
        };
        refused("`accuracy.windows`", &accuracy(|a| a.windows = Some(0)));
        refused("`accuracy.identity_windows`", &accuracy(|a| a.identity_windows = 0));
        refused("are both 7", &accuracy(|a| (a.identity_windows, a.windows) = (7, Some(7))));
        refused("contradict each other", &accuracy(|a| (a.convention, a.n_ctx) = ("hf-256".into(), 128)));
        refused("`accuracy.references` holds 'half'", &accuracy(|a| a.references = vec!["half".into()]));
        refused(
            "`accuracy.references` holds 'full' twice",
            &accuracy(|a| a.references = vec!["full".into(); 2]),
        );
        refused("`accuracy.heads` holds 'int8' twice", &accuracy(|a| a.heads = vec![Head::Int8; 2]));
        refused("`accuracy.heads` holds 'as-is'", &accuracy(|a| a.heads = vec![Head::AsIs]));
        refused("`accuracy.tasks` holds 'sotu' twice", &accuracy(|a| a.tasks = vec!["sotu".into(); 2]));
        refused("convention", &accuracy(|a| a.convention = "mine".into()));
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            refused("`speed.min_time_s`", &|_, s| s.min_time_s = odd);
            refused("`speed.warmup_s`", &|_, s| s.warmup_s = odd);
            refused("`speed.energy_s`", &|_, s| s.energy_s = odd);
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
