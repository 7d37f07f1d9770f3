//! The result record: the one thing that measuring produces and that reports and comparisons read.
//!
//! A record holds *arms*: one subject (model, engine, kernel, threads) under one test, with what
//! came out. Figures that are measured and figures that are modelled are different types and stand
//! in different fields. What is unknown is a reason, never a zero.

mod check;
pub mod compare;
pub mod compare_output;
mod describe;
mod file;
pub mod gate;
pub mod import;
pub mod merge;
pub mod rows;
pub mod state;

pub use check::{check, check_arm, check_control, check_proof};
pub use describe::arm_name;
pub(crate) use describe::shorten_paths;
pub use file::{now, read, write};

use crate::checkpoint::config::ModelConfig;
use crate::machine::{Environment, Limits};
use crate::words::counted;
use serde::{Deserialize, Serialize};

/// Version of the schema that this program writes. Records of a newer one are refused.
pub const SCHEMA: u32 = 1;

/// A figure, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// It was measured.
    Measured(T),
    /// It was not, for this reason (a full sentence fit for a report).
    NotMeasured(String),
}

/// Everything that one run of the tool found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program that measured.
    pub tool: Tool,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    /// End, RFC 3339 in UTC.
    pub finished: String,
    /// The command that makes this record again.
    pub command: String,
    /// Name of the suite, where one was run.
    pub suite: Option<String>,
    /// Its text, TOML, where it is not one of those in the program.
    #[serde(default)]
    pub suite_text: Option<String>,
    /// Whether it was put together from an interrupted run and its continuation.
    pub resumed: bool,
    /// The machine, at start and end.
    pub environment: Environment,
    /// Its measured limits.
    pub limits: Outcome<Limits>,
    /// How samples were taken.
    pub protocol: Protocol,
    /// The models under test, referred to by [`Model::id`].
    pub models: Vec<Model>,
    /// Conversions that were proven, or failed to be.
    pub proofs: Vec<Proof>,
    /// The measurements.
    pub arms: Vec<Arm>,
    /// A fixed load timed in the same rounds as the arms: what the machine itself did meanwhile.
    #[serde(default)]
    pub controls: Vec<Control>,
    /// Warnings and remarks, full sentences.
    pub notes: Vec<String>,
}

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `tritmark`, or the foreign program of imported rows.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Git revision that it was built from, where known.
    pub git_revision: Option<String>,
    /// Whether the tree differed from that revision.
    pub git_dirty: Option<bool>,
    /// Compiler.
    pub rustc: String,
    /// Target triple.
    pub target: String,
    /// `release` or `debug`.
    pub profile: String,
}

/// A fixed load (no code of ours under test) timed once a round, so that two records can tell a
/// slower program from a slower machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `read` (memory bandwidth, GB/s) or `compute` (integer multiply-adds, 10⁹ a second).
    pub name: String,
    /// Threads.
    pub threads: u32,
    /// One value a round, in the order taken.
    pub samples: Vec<f64>,
    /// The same at the fastest part of each round; empty in records of before it was kept.
    #[serde(default)]
    pub best: Vec<f64>,
    /// [`Arm::run`] of the arms between which it was timed.
    #[serde(default, skip_serializing_if = "first_run")]
    pub run: u32,
}

/// Whether it is the number of the first run, or of the only one.
fn first_run(run: &u32) -> bool {
    *run == 0
}

impl Control {
    /// Whether both are one load of one run.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.name, self.threads, self.run) == (&other.name, other.threads, other.run)
    }

    /// Puts the values of further rounds to those of the same control.
    pub fn gather(all: &mut Vec<Self>, further: Vec<Self>) {
        for new in further {
            match all.iter_mut().find(|c| c.is_of(&new)) {
                // Only where every round has both can they be told apart by round.
                Some(known) => {
                    let whole = |c: &Self| c.best.len() == c.samples.len();
                    if whole(known) && whole(&new) {
                        known.best.extend(new.best);
                    } else {
                        known.best.clear();
                    }
                    known.samples.extend(new.samples);
                }
                None => all.push(new),
            }
        }
    }
}

/// How samples were taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Seed of the order of arms and of the bootstrap.
    pub seed: u64,
    /// Rounds over all arms; up to as many again where the machine changed its state.
    pub rounds: u32,
    /// Shortest time of one sample, seconds.
    pub min_time_s: f64,
    /// Whether it was a short look (`--quick`) rather than a measurement to publish.
    #[serde(default)]
    pub quick: bool,
    /// Sentences that say how, for the report's method section.
    pub method: Vec<String>,
}

impl Protocol {
    /// That of a record without tests of speed.
    pub fn untimed() -> Self {
        Self { seed: 0, rounds: 1, min_time_s: 0.0, quick: false, method: Vec::new() }
    }
}

/// A model under test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What arms refer to; unique in the record.
    pub id: String,
    /// What the user named.
    pub name: String,
    /// Family, dialect and scale rule.
    pub family: String,
    /// How it is written.
    pub dialect: String,
    /// SHA-256 over all trits and scales in role order, hex: equal for equal ternary models.
    pub hash: String,
    /// Hyperparameters.
    pub config: ModelConfig,
    /// All parameters.
    pub params: u64,
    /// Linear parameters of the blocks.
    pub linear_params: u64,
    /// Bytes of the files that hold tensors.
    pub file_bytes: u64,
    /// Whether it was made ternary after training.
    pub post_training: bool,
}

/// A conversion and what the proof of it said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Model.
    pub model: String,
    /// Layout it was converted to.
    pub layout: String,
    /// Whether every trit came back equal.
    pub trits_equal: bool,
    /// Whether a trit came back as another, which no shape excuses; records of before do not say.
    #[serde(default)]
    pub changed: bool,
    /// Greatest relative error of a scale in that layout's file form; 0 where it is exact.
    pub scale_error: f64,
    /// Number of matrices compared.
    pub tensors: u64,
    /// Bytes of all matrices in that layout.
    pub bytes: u64,
    /// Bits per ternary weight.
    pub bits_per_weight: f64,
    /// What is wrong, where something is; also shapes the layout cannot hold.
    pub failure: Option<String>,
}

impl Record {
    /// Its model of that id.
    pub fn model(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// When it was begun; nothing for a time that [`file`] would refuse.
    pub fn begun(&self) -> Option<jiff::Timestamp> {
        self.started.parse().ok()
    }
}

/// One subject under one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// What is measured.
    pub subject: Subject,
    /// Under which test.
    pub test: Test,
    /// For figures taken over from another program: which, and from what file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<String>,
    /// Speed, for tests of speed.
    pub speed: Option<Speed>,
    /// Accuracy, for tests of accuracy.
    pub accuracy: Option<Accuracy>,
    /// Answers, for tests of multiple choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Choices>,
    /// Measured energy, for tests of speed.
    pub energy_measured: Option<Outcome<MeasuredEnergy>>,
    /// Modelled energy: arithmetic only, never a measurement.
    pub energy_modelled: Option<ModelledEnergy>,
    /// Rated power times time, where the user stated a rated power; never a measurement either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_rated: Option<RatedEnergy>,
    /// Which of the runs that the record was merged from measured it, counted from 0: the machine may have been
    /// another way in each.
    #[serde(default, skip_serializing_if = "first_run")]
    pub run: u32,
}

/// What an arm measures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// [`Model::id`]; of imported arms the name of the model's file, of kernels alone `random trits`.
    pub model: String,
    /// `tritmark`, `candle`, or a foreign program.
    pub engine: String,
    /// Layout of the ternary weights; absent for engines without one.
    pub layout: Option<String>,
    /// Tier of the kernels.
    pub tier: Option<String>,
    /// What else distinguishes it, e.g. `activations int8`.
    pub variant: Option<String>,
    /// Threads.
    pub threads: u32,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Test {
    /// A prompt of `prompt` tokens and then `generate` tokens, after `depth` tokens of context:
    /// `pp512`, `tg128`, `pp512+tg128 @ d4096`.
    Model {
        /// Tokens in one batch.
        prompt: u32,
        /// Tokens one by one.
        generate: u32,
        /// Tokens in the cache before.
        depth: u32,
    },
    /// One matrix by a batch of tokens.
    Kernel {
        /// Outputs.
        rows: u32,
        /// Inputs.
        cols: u32,
        /// Tokens.
        batch: u32,
    },
    /// Perplexity of a text.
    Perplexity {
        /// `llama.cpp` or `hf-N`.
        convention: String,
        /// Window length in tokens.
        n_ctx: u32,
        /// Name of the text.
        text: String,
    },
    /// Multiple choice by log-likelihood, zero-shot.
    Choices {
        /// Name of the task.
        task: String,
        /// How its questions are asked, e.g. `hellaswag`.
        format: String,
        /// Number of questions.
        questions: u32,
    },
}

impl Test {
    /// Tokens that a run of a whole model reads and makes; those of the depth are not timed.
    pub fn tokens(&self) -> Option<u64> {
        match self {
            Test::Model { prompt, generate, .. } => Some(u64::from(*prompt) + u64::from(*generate)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Test::Model { prompt, generate, depth } => {
                match (prompt, generate) {
                    (p, 0) => write!(f, "pp{p}")?,
                    (0, g) => write!(f, "tg{g}")?,
                    (p, g) => write!(f, "pp{p}+tg{g}")?,
                }
                if *depth > 0 { write!(f, " @ d{depth}") } else { Ok(()) }
            }
            Test::Kernel { rows, cols, batch } => write!(f, "{rows}x{cols} n{batch}"),
            Test::Perplexity { convention, n_ctx, text } => {
                write!(f, "ppl {convention} n_ctx {n_ctx} {text}")
            }
            Test::Choices { task, questions, .. } => {
                write!(f, "choice {task}, {}", counted(*questions, "question"))
            }
        }
    }
}

/// Measured speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Unit of all figures below: `tokens/s` or `GMAC/s`.
    pub unit: String,
    /// One value a round, in the order taken.
    pub samples: Vec<f64>,
    /// The fastest run within each sample: what other load, which can only slow a run down, disturbed
    /// least. Empty where it is not known.
    #[serde(default)]
    pub best: Vec<f64>,
    /// How fast as many threads handed each other a cache line just before and just after each sample,
    /// 10⁶ hand-overs a second, the third fixed load beside those of [`Record::controls`]: it tells
    /// cores that share a cache from cores that do not. Null where other programs held the CPUs so that it
    /// could not be timed; empty for one thread, for more threads than CPUs, and where it is not known.
    #[serde(default)]
    pub handoff: Vec<Option<[f64; 2]>>,
    /// Share of all CPUs' time that other programs and the hypervisor took during the samples.
    #[serde(default)]
    pub disturbance: Option<f64>,
    /// Seconds of each sample.
    pub seconds: Vec<f64>,
    /// Runs before the first sample, not counted.
    #[serde(default)]
    pub warmup: u32,
    /// Whether these agreed in the end, or reached the cap of their time; absent where not known.
    #[serde(default)]
    pub settled: Option<bool>,
    /// Median of the samples.
    pub median: f64,
    /// Median absolute deviation.
    pub mad: f64,
    /// Bootstrap 95 % interval of the median; of one sample that sample, which says nothing.
    pub interval: [f64; 2],
    /// Indices of outliers in `samples` (kept, named).
    pub outliers: Vec<usize>,
    /// The machine's bound for this test, same unit, and how it was computed.
    pub bound: Option<Bound>,
    /// Latencies between tokens in milliseconds: p50, p95, p99, where tokens were timed one by one.
    pub latency_ms: Option<[f64; 3]>,
    /// Time to the first token, milliseconds.
    pub first_token_ms: Option<f64>,
    /// Loading the model for it, where that was timed.
    #[serde(default)]
    pub load: Option<Load>,
    /// What may be wrong with it, full sentences with advice; empty when quiet.
    pub warnings: Vec<String>,
}

impl Speed {
    /// The 95 % interval; there is none of one sample.
    pub fn known_interval(&self) -> Option<[f64; 2]> {
        (self.samples.len() > 1).then_some(self.interval)
    }
}

/// Loading a model: reading its files, checking them, and packing its weights anew for a kernel. It is
/// timed once, and what was read before comes from memory rather than from the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Seconds, measured.
    pub seconds: f64,
    /// Bytes of the tensors that were read.
    pub bytes: u64,
    /// Threads that packed them.
    pub threads: u32,
}

/// What the machine allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// In the speed's unit.
    pub value: f64,
    /// How it follows from which measured limits.
    pub how: String,
    /// Whether it is that of reading from memory beyond the caches.
    #[serde(default)]
    pub memory: bool,
}

/// Accuracy over a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Mean negative log-likelihood, nats a token.
    pub nll: f64,
    /// `exp(nll)`.
    pub ppl: f64,
    /// Its standard error.
    pub ppl_stderr: f64,
    /// Tokens scored.
    pub scored: u64,
    /// Windows run.
    pub windows: u64,
    /// SHA-256 of the text's tokens up to the end of the last window, each as four bytes in little-endian order:
    /// texts of one name need not be one text. Null where it is not known.
    #[serde(default)]
    pub tokens_sha256: Option<String>,
    /// Bits per byte of the scored text, independent of the tokenizer.
    pub bits_per_byte: Option<f64>,
    /// The f64 bits of `nll`, hex: equality of this is equality of the result.
    pub nll_bits: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// Against another subject, where asked for.
    pub against: Option<Divergence>,
}

/// Answers to questions of multiple choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// Questions asked.
    pub questions: u64,
    /// Share answered rightly: the choice whose tokens are the likeliest in sum.
    pub acc: f64,
    /// Its standard error; one question has none.
    pub acc_stderr: Option<f64>,
    /// Share answered rightly by likelihood for each character; absent where choices share the scored
    /// text, so that length says nothing.
    pub acc_norm: Option<f64>,
    /// Its standard error.
    pub acc_norm_stderr: Option<f64>,
    /// Mean share of a guesser.
    pub chance: f64,
    /// SHA-256 of the questions, each its right answer's index and of each choice the context and what follows it, as
    /// JSON: files of one name need not hold the same. Null where it is not known.
    #[serde(default)]
    pub questions_sha256: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How far the distributions of two subjects lie apart on the same text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// The other subject, in words.
    pub reference: String,
    /// Mean KL divergence KL(reference ‖ subject), nats a token.
    pub kl_mean: f64,
    /// Its percentiles: (percent, value).
    pub kl_percentiles: Vec<(f64, f64)>,
    /// Its maximum.
    pub kl_max: f64,
    /// Its histogram: (upper edge in nats, positions up to it and above the edge before). The first
    /// edge takes all below, the last takes all above.
    pub kl_histogram: Vec<(f64, u64)>,
    /// Greatest |Δlogit|.
    pub logit_max: f64,
    /// Mean |Δlogit|.
    pub logit_mean: f64,
    /// Share of positions with the same first choice.
    pub top1: f64,
    /// Mean share of the reference's first five choices that are among the subject's first five.
    pub top5: f64,
    /// Mean difference of negative log-likelihood, nats a token (subject − reference): above 0 the
    /// subject predicts the text worse.
    pub delta_nll: f64,
    /// Its paired standard error.
    pub delta_nll_stderr: f64,
    /// Positions compared.
    pub positions: u64,
    /// The positions that differ most, worst first.
    pub worst: Vec<WorstToken>,
}

/// A position at which two subjects differ much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorstToken {
    /// The text before it, shortened.
    pub context: String,
    /// The token that the text has there.
    pub token: String,
    /// KL divergence, nats.
    pub kl: f64,
    /// Its negative log-likelihood by the subject, nats.
    pub nll: f64,
    /// Its negative log-likelihood by the reference, nats.
    pub reference_nll: f64,
}

/// Measured energy of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MeasuredEnergy {
    /// What was read, e.g. `powercap intel-rapl:0`.
    pub source: String,
    /// What it covers, e.g. `package-0`.
    pub domain: String,
    /// Joules over the window.
    pub gross_joules: f64,
    /// Less the idle power measured before and after, times the window.
    pub net_joules: Option<f64>,
    /// Idle power, watts.
    pub idle_watts: Option<f64>,
    /// Window, seconds.
    pub seconds: f64,
    /// Tokens in the window; of kernels alone those of the batches.
    pub tokens: u64,
    /// Gross joules a token.
    pub joules_per_token: f64,
    /// Mean time between changes of the counter as far as they were seen, seconds.
    #[serde(default)]
    pub update_period_s: Option<f64>,
    /// Other domains read beside it. They overlap with it and each other, so they are never added.
    #[serde(default)]
    pub domains: Vec<DomainEnergy>,
    /// Why the figure is weak, where it is, e.g. a window too short for the counter.
    pub warnings: Vec<String>,
}

impl MeasuredEnergy {
    /// Net joules a token.
    pub fn net_joules_per_token(&self) -> Option<f64> {
        Some(self.net_joules? / self.tokens as f64)
    }
}

/// Energy of a further domain over the same window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DomainEnergy {
    /// What was read.
    pub source: String,
    /// What it covers, e.g. `core`, `dram`.
    pub domain: String,
    /// Joules over the window.
    pub gross_joules: f64,
}

/// Arithmetic energy of one token from operation counts and published energies an operation. A model
/// of the arithmetic alone: no memory, no leakage, no measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelledEnergy {
    /// Joules a token at 7 nm.
    pub joules_per_token_7nm: f64,
    /// Joules a token at 45 nm.
    pub joules_per_token_45nm: f64,
    /// The formula and its inputs, in words.
    pub how: String,
}

/// Energy of one token if the processor took its rated power (TDP) all the time. It does not: idle
/// cores take less, boosting ones more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RatedEnergy {
    /// Rated power as the user stated it, watts.
    pub watts: f64,
    /// That times the seconds of a token at the median speed.
    pub joules_per_token: f64,
}

/// A record of three arms.
#[cfg(test)]
pub(crate) fn example() -> Record {
    serde_json::from_str(include_str!("../../tests/fixtures/record.json")).expect("the fixture is a record")
}

/// Why that record is refused once it is changed.
#[cfg(test)]
pub(crate) fn broken(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut value = serde_json::to_value(example()).expect("a record has a JSON form");
    change(&mut value);
    file::parse(value.to_string().as_bytes()).expect_err("the record is broken")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_schema_in_the_repository_is_that_of_the_types() {
        let mut schema = serde_json::to_value(schemars::schema_for!(file::Content)).unwrap();
        schema["$id"] = "https://github.com/tritmark/tritmark/reports/record.schema.json".into();
        for of in ["Record", "Collection"] {
            schema["$defs"][of]["properties"]["schema"]["const"] = SCHEMA.into();
        }
        // What may be null may still not be left out, unless it came later.
        let environment = schema["$defs"]["Environment"].as_object_mut().unwrap();
        let fields = environment["properties"].as_object().unwrap().iter();
        let required: Value =
            fields.filter(|(_, f)| f.get("default").is_none()).map(|(name, _)| name.clone()).collect();
        environment["required"] = required;
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/reports/record.schema.json");
        if std::env::var_os("TRITMARK_BLESS").is_some() {
            std::fs::write(path, format!("{schema:#}\n")).unwrap();
        }
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(
            file == schema,
            "{path} is out of date: run this test with TRITMARK_BLESS=1 and commit the file"
        );
    }
}
