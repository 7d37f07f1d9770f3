//! `tritmark run`.

use crate::cli::common::{MeterArgs, command_line, print_json, print_line, progress, watts};
use crate::error::{Error, Result};
use crate::record::rows;
use crate::report;
use crate::suite::{self, Options, Step, Suite};
use indicatif::ProgressBar;
use std::path::PathBuf;

/// Run a suite: convert, prove, measure, report.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark run                          # the suite `quick` on the demo model
  tritmark run ci -o reports/out/ci
  tritmark run native-vs-ptq            # full precision, made ternary after training, trained so
  tritmark run quick -m path/to/model

Suites: quick, full, ci, native-vs-ptq, or a .toml file. An interrupted run continues
where it stopped: start it again with the same --output, or without one in the same folder.
What was finished is kept: each proof and perplexity, the rounds of arms that are timed together
(whole tests, at least two dozen arms if there are so many) when the last round is over, and then
the energy of each.")]
pub struct Args {
    /// Suite
    #[arg(default_value = "quick")]
    suite: String,
    /// Model to use instead of the suite's; may be given several times
    #[arg(short, long, value_name = "MODEL")]
    model: Vec<String>,
    /// Text for perplexity instead of the suite's
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    /// Rounds of each test of speed instead of the suite's
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    #[command(flatten)]
    meter: MeterArgs,
    /// Rated power of the processor: adds energy modelled as rated power times time
    #[arg(long, value_name = "WATTS", value_parser = watts)]
    tdp: Option<f64>,
    /// Folder for record and report [default: a new reports/out/SUITE-TIME, or that of an
    /// interrupted run]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Put this run in the place of a finished one in --output
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Leave out host name and paths
    #[arg(long)]
    anonymise: bool,
    /// Print the record as JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the suite and writes its report.
    ///
    /// # Errors
    /// If a model cannot be read or run, the folder cannot be written, or a proof failed.
    pub fn run(self) -> Result<()> {
        let mut suite = Suite::open(&self.suite)?;
        if !self.model.is_empty() {
            suite.models = self.model;
        }
        let none = |option: &str, tests: &str| {
            Err(Error::Usage(format!(
                "{option}: suite {} has no tests of {tests}; leave {option} out",
                suite.name
            )))
        };
        match (&mut suite.accuracy, self.text) {
            (Some(accuracy), Some(text)) => accuracy.text = Some(text),
            (None, Some(_)) => return none("--text", "accuracy"),
            (_, None) => {}
        }
        match (&mut suite.speed, self.rounds, self.tdp) {
            (Some(speed), Some(rounds), _) => speed.rounds = rounds,
            (None, Some(_), _) => return none("--rounds", "speed"),
            (None, None, Some(_)) => return none("--tdp", "speed"),
            (_, None, _) => {}
        }
        let options = Options {
            meter: self.meter.meter,
            energy_root: Some(self.meter.energy_root),
            rated_watts: self.tdp,
            output: self.output,
            command: command_line(),
            anonymise: self.anonymise,
            overwrite: self.overwrite,
        };
        let mut bar: Option<(&str, ProgressBar)> = None;
        let finished = suite::run(&suite, &options, &mut |step: Step| {
            if bar.as_ref().is_none_or(|(stage, _)| *stage != step.stage) {
                if let Some((_, old)) = bar.take() {
                    old.finish();
                }
                bar = Some((step.stage, progress(step.total, step.stage)));
            }
            if let Some((_, bar)) = &bar {
                bar.set_length(step.total);
                bar.set_position(step.done);
                bar.set_message(step.what.to_owned());
            }
        })?;
        let files = report::write_all(std::slice::from_ref(&finished.record), &finished.dir)?;
        let record = finished.done()?;
        let shown = if self.json {
            print_json(&record)
        } else {
            let table = rows::write(std::slice::from_ref(&record), rows::Format::Md);
            let files = files.iter().map(|file| file.display().to_string());
            let mut lines =
                std::iter::once(table).chain(report::verdict(std::slice::from_ref(&record))).chain(files);
            lines.try_for_each(|line| print_line(&line))
        };
        // Whoever reads no further, as `| head`, still gets the verdict.
        let failures = suite::failures(&record);
        if failures.is_empty() { shown } else { Err(Error::Proof(failures.join("\n"))) }
    }
}
