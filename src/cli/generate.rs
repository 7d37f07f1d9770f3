//! `tritmark generate`.

use super::common::{KernelArgs, TextArgs, print_json};
use crate::error::{Error, Result};
use crate::model::generate::generate;
use crate::model::sample::Sampling;
use crate::model::text::Text;
use crate::words::{counted, printable};
use std::io::{IsTerminal, Write};

/// Continue a text.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark generate demo -p \"My fellow citizens,\" -n 100
  tritmark generate demo -p \"The state of the Union\" --temp 0.8 --top-p 0.95 --seed 7

Equal options give equal texts, on any kernel and any number of threads.")]
pub struct Args {
    /// Model: directory, .safetensors, .gguf, `demo` or `demo-full`
    model: String,
    /// Text to continue
    #[arg(short, long)]
    prompt: String,
    /// Tokens to add at most
    #[arg(short, long, value_name = "TOKENS", default_value_t = 128)]
    n: usize,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temp: f32,
    /// Choose among so many likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Seed of the random choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    open: TextArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Print the text, its tokens and the times as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If an option is out of range, the model cannot be loaded or has no tokenizer, or the prompt is
    /// too long for it.
    pub fn run(self) -> Result<()> {
        if !(self.temp >= 0.0 && self.temp.is_finite()) {
            return Err(Error::Usage(format!(
                "--temp must be a finite number of 0 or more, found {}",
                self.temp
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::Usage(format!("--top-p must be above 0 and at most 1, found {}", self.top_p)));
        }
        let checkpoint = self.open.open(&self.model)?;
        let text = Text::new(&checkpoint)?;
        let prompt = text.encode(&self.prompt)?;
        let mut model = self.kernel.load(&checkpoint)?;
        let sampling =
            Sampling { temperature: self.temp, top_k: self.top_k, top_p: self.top_p, seed: self.seed };
        let mut out = std::io::stdout();
        let mut show = |part: &str| {
            if self.json {
                return Ok(());
            }
            // A file takes what it is given.
            let shown = if out.is_terminal() { printable(part) } else { part.into() };
            write!(out, "{shown}").and_then(|()| out.flush()).map_err(|e| Error::io("standard output", e))
        };
        show(&self.prompt)?;
        let done = generate(&mut model, &text, &prompt, self.n, sampling, &mut show)?;
        if self.json {
            let mut value = serde_json::to_value(&done).map_err(|e| Error::Bug(e.to_string()))?;
            value["model"] = self.model.into();
            value["kernel"] = model.kernel().into();
            value["head"] = model.head_precision().into();
            value["threads"] = model.threads().into();
            value["decode_tokens_per_second"] = done.decode_speed().into();
            return print_json(&value);
        }
        show("\n")?;
        if std::io::stderr().is_terminal()
            && let Some(speed) = done.decode_speed()
        {
            eprintln!(
                "{} of prompt in {:.2} s, then {speed:.1} tokens/s ({}, {}; one run, not a benchmark)",
                counted(done.prompt_tokens as u64, "token"),
                done.prompt_seconds,
                model.kernel(),
                counted(model.threads() as u64, "thread")
            );
        }
        Ok(())
    }
}
