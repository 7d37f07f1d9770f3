//! What several subcommands share: printing JSON, progress bars, the arguments that choose kernels.

use crate::checkpoint::{Checkpoint, OpenOptions, Ptq, file};
use crate::energy::{MOST_WATTS, Meter};
use crate::error::{Error, Result};
use crate::machine::Watch;
use crate::model::{Head, LoadOptions, Model};
use crate::record::{self, Arm, Record, Tool};
use crate::verify;
use crate::words::printable;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use tritmark_kernels::Tier;

/// What the user states about a model because its files leave it open.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OpenArgs {
    /// Family of the model, where its files leave it open, e.g. llama-master
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// Layout of a GGUF's ternary tensors, where the file leaves it open, e.g. i2_s_arm
    #[arg(long, value_name = "LAYOUT")]
    pub dialect: Option<String>,
    /// Make a full-precision model ternary although it was not trained so
    #[arg(long, value_name = "RULE")]
    pub ptq: Option<Ptq>,
}

impl OpenArgs {
    /// Opens a model and says on standard error what could not be proven about it.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn open(&self, model: &str) -> Result<Checkpoint> {
        let checkpoint = self.open_quietly(model)?;
        for note in &checkpoint.provenance.notes {
            say(&format!("{model}: {note}"));
        }
        Ok(checkpoint)
    }

    /// As [`open`](Self::open), for commands that print the notes themselves.
    ///
    /// # Errors
    /// As there.
    pub fn open_quietly(&self, model: &str) -> Result<Checkpoint> {
        Checkpoint::open_with(model, &self.options())
    }

    /// As options of [`Checkpoint::open_with`].
    pub fn options(&self) -> OpenOptions {
        let OpenArgs { family, dialect, ptq } = self.clone();
        OpenOptions { family, dialect, ptq, assume: false }
    }
}

/// A model that is to read texts, and where its tokenizer is if not with it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TextArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// Tokenizer (tokenizer.json, or a folder that holds one) in place of the model's own
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
}

impl TextArgs {
    /// What is read beside the model.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.tokenizer.iter().map(PathBuf::as_path)
    }

    /// Opens a model as [`OpenArgs::open`] does, with the tokenizer that was named.
    ///
    /// # Errors
    /// As there, or if the tokenizer cannot be read.
    pub fn open(&self, model: &str) -> Result<Checkpoint> {
        let mut checkpoint = self.open.open(model)?;
        self.give_tokenizer(&mut checkpoint)?;
        Ok(checkpoint)
    }

    /// Puts the tokenizer that was named in place of a model's own.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn give_tokenizer(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        if let Some(path) = &self.tokenizer {
            let path = if path.is_dir() { path.join("tokenizer.json") } else { path.clone() };
            checkpoint.tokenizer = Some(file::read(&path, file::TOKENIZER_LIMIT)?);
        }
        Ok(())
    }
}

/// What measures energy.
#[derive(Debug, Clone, clap::Args)]
pub struct MeterArgs {
    /// Log of an external power meter: CSV of time and watts, or with names that say the column and unit (power_mW)
    #[arg(long, value_name = "FILE")]
    pub meter: Option<PathBuf>,
    /// Where to look for energy sensors, e.g. where a container has the host's /sys: DIR/sys
    #[arg(long, default_value = "/", value_name = "DIR")]
    pub energy_root: PathBuf,
}

impl MeterArgs {
    /// Looks for sensors.
    ///
    /// # Errors
    /// As [`Meter::open`].
    pub fn open(&self) -> Result<Meter> {
        Meter::open(&self.energy_root, self.meter.as_deref())
    }
}

/// A power in watts of the command line.
pub fn watts(text: &str) -> Result<f64, String> {
    let watts = text.parse().ok().filter(|w: &f64| *w > 0.0 && *w <= MOST_WATTS);
    watts.ok_or_else(|| format!("'{text}' is no number of watts above 0, up to {MOST_WATTS}"))
}

/// Which kernel runs the ternary matrices, on how many threads, and the precision of the head.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KernelArgs {
    /// Kernel: a layout (`i2_s`), a tier (`avx2`), or both (`i2_s/avx2`); default: the fastest
    #[arg(short, long, value_name = "KERNEL")]
    pub kernel: Option<String>,
    /// Threads [default: all that this process may use]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Precision of the output head and a tied embedding; any but that of the file changes the logits, and q6_k and
    /// q4_0 run as f32
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t)]
    pub head: Head,
}

impl KernelArgs {
    /// Loads a model as asked for.
    ///
    /// # Errors
    /// If the kernel or the head's precision cannot be used, or a tensor is damaged.
    pub fn load(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let (layout, tier) = self.layout_and_tier()?;
        let all = || tritmark_kernels::pool::cpus();
        let threads = self.threads.unwrap_or_else(all);
        Model::load(checkpoint, &LoadOptions { layout, tier, threads, head: self.head })
    }

    /// Layout and tier asked for.
    ///
    /// # Errors
    /// If the name is neither a layout nor a tier.
    pub fn layout_and_tier(&self) -> Result<(Option<String>, Option<Tier>)> {
        let Some(name) = &self.kernel else { return Ok((None, None)) };
        let (layout, tier) = match name.split_once('/') {
            Some((l, t)) => (Some(l), Some(t)),
            None if name.parse::<Tier>().is_ok() => (None, Some(name.as_str())),
            None => (Some(name.as_str()), None),
        };
        if let Some(l) = layout
            && tritmark_kernels::layout::by_name(l).is_none()
        {
            let known: Vec<_> = tritmark_kernels::layout::ALL.iter().map(|l| l.name()).collect();
            return Err(Error::Usage(format!(
                "unknown kernel '{name}': expected LAYOUT, TIER or LAYOUT/TIER; layouts: {}; tiers: {}\n  `tritmark doctor` lists the kernels that this CPU can run",
                known.join(", "),
                Tier::ALL.map(Tier::name).join(", ")
            )));
        }
        let tier = tier.map(str::parse).transpose().map_err(Error::Usage)?;
        Ok((layout.map(str::to_owned), tier))
    }
}

/// The command that this process was started with.
pub fn command_line() -> String {
    let quote = |arg: String| match arg.contains(|c: char| c.is_whitespace() || "\"'\\$*".contains(c)) {
        true => format!("'{}'", arg.replace('\'', r"'\''")),
        false => arg,
    };
    let args = std::env::args_os().skip(1).map(|arg| quote(arg.to_string_lossy().into_owned()));
    std::iter::once("tritmark".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

/// Writes a record of one model's accuracy, without tests of speed.
///
/// # Errors
/// If the model cannot be read or the file not be written.
pub fn record_accuracy(
    path: &Path,
    watch: &Watch,
    started: String,
    checkpoint: &Checkpoint,
    arms: Vec<Arm>,
    anonymise: bool,
) -> Result<()> {
    let mut record = Record {
        models: vec![record::Model::describe(checkpoint, verify::model_hash(checkpoint)?)],
        arms,
        notes: checkpoint.provenance.notes.clone(),
        ..Record::new(Tool::current(), started, command_line(), watch.environment())
    };
    if anonymise {
        record.anonymise(Path::new("/"));
    }
    record::write(path, &[record])
}

/// Tells what the user should know on standard error.
pub fn say(note: &str) {
    let _ = writeln!(std::io::stderr(), "note: {}", printable(note));
}

/// Prints a value as indented JSON on standard output.
///
/// # Errors
/// If standard output is closed.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Bug(e.to_string()))?;
    print_line(&text)
}

/// Prints a line on standard output, without control characters; unlike `println!` a closed pipe is an
/// error, not a panic.
///
/// # Errors
/// If standard output is closed.
pub fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", printable(text)).map_err(|e| Error::io("standard output", e))
}

/// A progress bar on standard error, hidden where that is no terminal.
pub fn progress(len: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{prefix:>12} {bar:30} {pos}/{len} {elapsed} gone, {eta} left {msg}")
            .expect("the template is valid");
    ProgressBar::new(len).with_style(style).with_prefix(what)
}
