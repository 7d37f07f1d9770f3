//! `tritmark bench`.

use super::common::{KernelArgs, MeterArgs, OpenArgs, command_line, print_line, progress, say, watts};
use super::llama_bench::LlamaBenchArgs;
use crate::error::{Error, Result};
use crate::files::writable;
use crate::machine::{Limits, Watch};
use crate::model::{Head, check_threads};
use crate::record::rows::{self, Format};
use crate::record::{self, Arm, Model, Outcome, Record, Test, Tool};
use crate::speed::bench::{Bench, Candidate, Choice, for_reference};
use crate::speed::lists::{List, distinct, numbers};
use crate::speed::protocol::LONGEST;
use crate::speed::{Observer, Options};
use crate::verify;
use crate::words::{counted, seconds};
use clap::builder::NonEmptyStringValueParser;
use indicatif::ProgressBar;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure speed and energy of kernels and models.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark bench -m demo
  tritmark bench -m demo -p 128,512 -n 32 -t 1-4 -k all --record bench.json
  tritmark bench -m model.gguf,other/ -p 64 -n 64 -d 0,1024 --reference -o csv
  tritmark bench --level kernel --shape 6912x2560 --batch 1,32,512 -k tm2,i2_s/avx2

Lists are numbers with commas or ranges: 1,2,4  1-8  1-8+2  '1-8*2' (in quotes for the shell).
All arms of a test are measured in turns, so that drift of the machine hits all alike. With two
numbers of threads or more it says how many are worth their while. Options of llama-bench that
mean nothing here (-b, -ub, -ngl, -fa, -mmp, ...) are accepted and named; those that would change
what the figures mean (-ctk f16, -hf, --numa, ...) are refused with the reason.")]
pub struct Args {
    /// Models [default: demo]
    #[arg(short, long, value_delimiter = ',', value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Vec<String>,
    #[command(flatten)]
    open: OpenArgs,
    /// Tokens of a prompt, read in batches; 0 for none [default: 512]
    #[arg(short = 'p', long, alias = "n-prompt", value_name = "LIST", allow_negative_numbers = true)]
    prompt: Vec<List>,
    /// Tokens generated one by one; 0 for none [default: 128]
    #[arg(short = 'n', long, alias = "n-gen", value_name = "LIST", allow_negative_numbers = true)]
    generate: Vec<List>,
    /// A prompt and then generated tokens, timed together; -pg works too
    #[arg(long, value_name = "PROMPT,GENERATE")]
    pg: Vec<String>,
    /// Tokens of context before the test, not timed [default: 0]
    #[arg(short, long, alias = "n-depth", value_name = "LIST", allow_negative_numbers = true)]
    depth: Vec<List>,
    /// Threads [default: all that this process may use]
    #[arg(short, long, value_name = "LIST", allow_negative_numbers = true)]
    threads: Vec<List>,
    /// Kernels: all, layouts (i2_s), tiers (avx2) or both (i2_s/avx2) [default: the fastest]
    #[arg(short, long, value_delimiter = ',', value_name = "KERNEL", value_parser = NonEmptyStringValueParser::new())]
    kernel: Vec<String>,
    /// Precision of the output head and a tied embedding (--level model); q6_k and q4_0 run as f32
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t)]
    head: Head,
    /// Measure whole models, or kernels alone on a matrix of random trits
    #[arg(long, default_value = "model")]
    level: Level,
    /// Rows x columns of the matrix (--level kernel) [default: 6912x2560]
    #[arg(long, value_delimiter = ',', value_name = "ROWSxCOLS", value_parser = shape)]
    shape: Vec<(u32, u32)>,
    /// Tokens at a time (--level kernel) [default: 1,32,512]
    #[arg(long, value_name = "LIST", allow_negative_numbers = true)]
    batch: Vec<List>,
    /// Measure the full-precision reference (candle) too, in tests of prompts alone, at depth 0
    #[arg(long)]
    reference: bool,
    /// A short look: fewer and shorter samples
    #[arg(long)]
    quick: bool,
    /// Rounds, in each of which every arm is sampled [default: 15, with --quick 8]; of 5 or more up to as many again
    /// for arms whose fastest runs scatter, or where a virtual machine moves between cores
    #[arg(short, long, visible_alias = "repetitions", value_name = "N", allow_negative_numbers = true)]
    rounds: Option<u32>,
    /// Shortest time of a sample in seconds [default: 0.2, with --quick 0.03]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    min_time: Option<f64>,
    /// Seconds for the rounds of all arms together: fewer rounds are made, but at least one
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    budget: Option<f64>,
    /// Seed of the order of arms, of tokens and of the bootstrap
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    meter: MeterArgs,
    #[command(flatten)]
    llama_bench: LlamaBenchArgs,
    /// Rated power of the processor: adds energy modelled as rated power times time (--level model)
    #[arg(long, value_name = "WATTS", value_parser = watts, allow_negative_numbers = true)]
    tdp: Option<f64>,
    /// Form of the output
    #[arg(short, long, default_value = "md", value_name = "FORMAT")]
    output: Format,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Write the whole record, for `report` and `compare`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Leave out host name and paths
    #[arg(long)]
    anonymise: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// Whole models.
    Model,
    /// Kernels alone, cut into tasks for the threads as in models: small products stay on one thread.
    Kernel,
}

/// Most arms of a kernel: tests, or shapes and batches, times numbers of threads.
const MAX_ARMS: usize = 10_000;

/// That no more arms of each kernel are asked for than can be measured.
fn few(arms: usize) -> Result<()> {
    if arms <= MAX_ARMS {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the lists make {arms} arms of each kernel, which would take days: ask for {MAX_ARMS} at most"
    )))
}

/// That products of so many tokens have some, and no more than memory holds.
fn fit(batches: &[u32], shapes: &[(u32, u32)]) -> Result<()> {
    for &batch in batches {
        let widest = shapes.iter().map(|&(rows, cols)| rows.max(cols)).max().unwrap_or(1);
        if batch == 0 {
            return Err(Error::Usage("--batch: a product has a token at least".into()));
        }
        if u64::from(batch) * u64::from(widest) > MAX_VALUES {
            return Err(Error::Usage(format!(
                "--batch {batch}: tokens of {widest} numbers each are more than memory is asked for; at most {} with \
                 this --shape",
                MAX_VALUES / u64::from(widest)
            )));
        }
    }
    Ok(())
}

/// Most weights of a matrix of `--shape`.
const MAX_WEIGHTS: u64 = 1 << 30;

/// Most rows and columns of such a matrix.
const MAX_SIDE: u32 = 1 << 20;

/// Most numbers that `--batch` tokens have, as wide as a matrix or its results.
const MAX_VALUES: u64 = 1 << 28;

fn shape(text: &str) -> Result<(u32, u32), String> {
    let parse = |n: &str| n.parse().ok().filter(|n| (1..=MAX_SIDE).contains(n));
    let shape = text.split_once('x').and_then(|(rows, cols)| Some((parse(rows)?, parse(cols)?)));
    let (rows, cols) = shape.ok_or_else(|| {
        format!("'{text}' is no shape; expected ROWSxCOLS, each 1 to {MAX_SIDE}, e.g. 6912x2560")
    })?;
    if u64::from(rows) * u64::from(cols) > MAX_WEIGHTS {
        return Err(format!(
            "'{text}' has more than {MAX_WEIGHTS} weights, which is more than any model's matrix"
        ));
    }
    Ok((rows, cols))
}

/// Shows progress, and keeps what is finished on the screen only.
struct Bar(ProgressBar);

impl Observer for Bar {
    fn step(&mut self, done: u64, total: u64, what: &str) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(what.to_owned());
    }

    fn arm(&mut self, arm: &Arm) -> Result<()> {
        if let Some(speed) = &arm.speed {
            let (model, subject) = (&arm.subject.model, &arm.subject);
            self.0
                .println(format!("{:>12.2} {:9} {model}: {subject}: {}", speed.median, speed.unit, arm.test));
        }
        Ok(())
    }
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the arguments contradict each other, a model cannot be read or run, or a file cannot be
    /// written.
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = self.record.iter().map(PathBuf::as_path).collect();
        let inputs = self.model.iter().map(Path::new).chain(self.meter.meter.as_deref());
        writable(&outputs, &inputs.collect::<Vec<_>>())?;
        let options = self.options()?;
        if let Some(note) = self.llama_bench.check()? {
            say(&note);
        }
        let all = tritmark_kernels::pool::cpus() as u32;
        let threads = numbers(&self.threads, &[all]);
        threads.iter().try_for_each(|n| check_threads(*n as usize))?;
        let batches = numbers(&self.batch, &[1, 32, 512]);
        let shapes = distinct(if self.shape.is_empty() { vec![(6912, 2560)] } else { self.shape.clone() });
        let tests = match self.level {
            Level::Model => self.tests(threads.len())?,
            Level::Kernel => {
                few(batches.len() * shapes.len() * threads.len())?;
                fit(&batches, &shapes)?;
                Vec::new()
            }
        };
        if self.reference && !tests.iter().any(for_reference) {
            return Err(Error::Usage(
                "--reference is measured in tests of prompts alone, at depth 0: give -p a number above 0 and -d a 0, \
                 or leave it out"
                    .into(),
            ));
        }
        let choices = self.choices()?;
        let names = if self.model.is_empty() { vec!["demo".to_owned()] } else { self.model.clone() };
        let mut meter = self.meter.open()?;
        let started = record::now();
        let watch = Watch::start();
        let environment = watch.environment();

        let mut bar = Bar(progress(1, "limits"));
        let each = Duration::from_millis(if self.quick { 30 } else { 150 });
        let mut limits = Limits::measure(&environment, &threads, each, &mut |done, total, what| {
            bar.step(done as u64, total as u64, what);
        });
        bar.0.set_prefix("bench");
        let mut bench = Bench::new(&options, &environment, Some(&mut limits), &mut meter, &mut bar);
        bench.head = self.head;
        let mut models: Vec<Model> = Vec::new();
        match self.level {
            Level::Model => {
                let mut checkpoints = Vec::new();
                for name in &names {
                    let checkpoint = self.open.open(name)?;
                    let model = Model::describe(&checkpoint, verify::model_hash(&checkpoint)?);
                    models.push(model.named_beside(&models));
                    checkpoints.push(checkpoint);
                }
                let candidates: Vec<Candidate> = models
                    .iter()
                    .zip(&checkpoints)
                    .map(|(model, checkpoint)| Candidate { model, checkpoint, choices: &choices })
                    .collect();
                bench.models(&candidates, &threads, &tests, self.reference)?;
            }
            Level::Kernel => {
                bench.part = 1.0 / shapes.len() as f64;
                for shape in shapes {
                    bench.kernel(&choices, &threads, shape, &batches)?;
                }
            }
        }
        let mut notes = bench.knees();
        notes.append(&mut bench.notes);
        let (arms, controls) = (std::mem::take(&mut bench.arms), std::mem::take(&mut bench.controls));
        bar.0.finish_and_clear();
        notes.extend(limits.unsteady());

        let mut record = Record {
            limits: Outcome::Measured(limits),
            protocol: options.describe(),
            models,
            arms,
            controls,
            notes,
            ..Record::new(Tool::current(), started, command_line(), watch.environment())
        };
        if self.anonymise {
            record.anonymise(&self.meter.energy_root);
        }
        // Whichever of the two fails, the other still shows what was measured.
        let written =
            self.record.as_ref().map_or(Ok(()), |path| record::write(path, std::slice::from_ref(&record)));
        let printed = self.print(&record);
        written.and(printed)
    }

    fn options(&self) -> Result<Options> {
        let base = if self.quick { Options::quick() } else { Options::full() };
        let seconds = |name: &str, value: f64| {
            if (0.0..=LONGEST).contains(&value) {
                Ok(Duration::from_secs_f64(value))
            } else {
                Err(Error::Usage(format!("--{name} must be 0 to {LONGEST} seconds, not {value}")))
            }
        };
        let of_models = [
            ("-m", !self.model.is_empty()),
            ("-p", !self.prompt.is_empty()),
            ("-n", !self.generate.is_empty()),
            ("--pg", !self.pg.is_empty()),
            ("-d", !self.depth.is_empty()),
            ("--head", self.head != Head::default()),
            ("--reference", self.reference),
            ("--tdp", self.tdp.is_some()),
            ("--family", self.open.family.is_some()),
            ("--dialect", self.open.dialect.is_some()),
            ("--ptq", self.open.ptq.is_some()),
        ];
        let of_kernels = [("--shape", !self.shape.is_empty()), ("--batch", !self.batch.is_empty())];
        let (foreign, here, there) = match self.level {
            Level::Kernel => (&of_models[..], "--level kernel", "whole models"),
            Level::Model => (&of_kernels[..], "--level model", "kernels alone"),
        };
        if let Some((option, _)) = foreign.iter().find(|(_, given)| *given) {
            return Err(Error::Usage(format!("{option} is of {there}: leave it out with {here}")));
        }
        if self.rounds == Some(0) {
            return Err(Error::Usage("--rounds must be at least 1".into()));
        }
        Ok(Options {
            seed: self.seed,
            rounds: self.rounds.unwrap_or(base.rounds),
            min_time: self.min_time.map_or(Ok(base.min_time), |s| seconds("min-time", s))?,
            rated_watts: self.tdp,
            budget: self.budget.map(|s| seconds("budget", s)).transpose()?,
            ..base
        })
    }

    /// The tests of models, which so many numbers of threads run.
    fn tests(&self, threads: usize) -> Result<Vec<Test>> {
        let mut pairs: Vec<(u32, u32)> = numbers(&self.prompt, &[512]).into_iter().map(|p| (p, 0)).collect();
        pairs.extend(numbers(&self.generate, &[128]).into_iter().map(|n| (0, n)));
        for text in &self.pg {
            let pair = text
                .split_once(',')
                .and_then(|(p, n)| Some((p.trim().parse().ok()?, n.trim().parse().ok()?)));
            pairs.push(pair.filter(|pair| *pair != (0, 0)).ok_or_else(|| {
                Error::Usage(format!("--pg '{text}': expected PROMPT,GENERATE, not both 0, e.g. 512,128"))
            })?);
        }
        pairs.retain(|&pair| pair != (0, 0));
        // `-n 4 -pg 0,4` names one test twice.
        let pairs = distinct(pairs);
        if pairs.is_empty() {
            return Err(Error::Usage(
                "there is nothing to measure: give -p, -n or -pg a number above 0".into(),
            ));
        }
        let depths = numbers(&self.depth, &[0]);
        few(pairs.len() * depths.len() * threads)?;
        let of_depth = |depth: u32| {
            pairs
                .iter()
                .map(move |&(prompt, generate)| Test::Model { prompt, generate, depth })
                .collect::<Vec<_>>()
        };
        Ok(depths.into_iter().flat_map(of_depth).collect())
    }

    fn choices(&self) -> Result<Vec<Choice>> {
        if self.kernel.is_empty() {
            return Ok(vec![Choice::One { layout: None, tier: None }]);
        }
        let choice = |name: &String| {
            let name = name.trim();
            if name == "all" {
                return Ok(Choice::All);
            }
            let (layout, tier) =
                KernelArgs { kernel: Some(name.into()), ..KernelArgs::default() }.layout_and_tier()?;
            Ok(Choice::One { layout, tier })
        };
        self.kernel.iter().map(choice).collect()
    }

    fn print(&self, record: &Record) -> Result<()> {
        let format = if self.json { Format::Json } else { self.output };
        let text = rows::write(std::slice::from_ref(record), format);
        if format != Format::None {
            print_line(text.trim_end_matches('\n'))?;
        }
        if let Some(format) = self.llama_bench.output_err {
            let text = rows::write(std::slice::from_ref(record), format);
            std::io::stderr().write_all(text.as_bytes()).map_err(|e| Error::io("standard error", e))?;
        }
        if format != Format::Md {
            record.notes.iter().for_each(|note| say(note));
            return Ok(());
        }
        let warned = record.arms.iter().flat_map(|arm| {
            let of_energy = match &arm.energy_measured {
                Some(Outcome::Measured(energy)) => energy.warnings.clone(),
                Some(Outcome::NotMeasured(reason)) => vec![format!("Energy was not measured: {reason}.")],
                None => Vec::new(),
            };
            let warnings = arm.speed.iter().flat_map(|s| s.warnings.clone()).chain(of_energy);
            let several = record.arms.iter().any(|a| a.subject.model != arm.subject.model);
            let model = if several { format!("{}: ", arm.subject.model) } else { String::new() };
            warnings.map(move |w| (w, format!("{model}{}: {}", arm.subject, arm.test)))
        });
        // The same sentence with other figures is said once.
        let kind = |w: &str| w.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect::<String>();
        let mut kinds: Vec<(String, String, u64)> = Vec::new();
        for (warning, arm) in warned {
            match kinds.iter_mut().find(|k| k.0 == kind(&warning)) {
                Some(known) => known.2 += 1,
                None => kinds.push((kind(&warning), format!("{arm}: {warning}"), 0)),
            }
        }
        let more =
            |n: u64| if n == 0 { String::new() } else { format!(" (And {}.)", counted(n, "more arm")) };
        let warnings = kinds.into_iter().map(|(_, first, others)| first + &more(others));
        let tuning = record.environment.tuning.iter().map(|tuning| format!("Tuning: {tuning}."));
        let mut sources: Vec<String> = Vec::new();
        for energy in record.arms.iter().filter_map(|arm| arm.energy_measured.as_ref()) {
            let Outcome::Measured(energy) = energy else { continue };
            let source = format!("Measured energy is of {} ({})", energy.domain, energy.source);
            let period = energy.update_period_s.map(|s| format!(", with an update every {}", seconds(s)));
            if !sources.iter().any(|known| known.starts_with(&source)) {
                let window = seconds(energy.seconds);
                sources
                    .push(format!("{source}, in windows of about {window}{}.", period.unwrap_or_default()));
            }
        }
        let remarks: Vec<String> =
            tuning.chain(sources).chain(record.notes.iter().cloned()).chain(warnings).collect();
        print_line("")?;
        for remark in remarks {
            print_line(&format!("- {remark}"))?;
        }
        Ok(())
    }
}
