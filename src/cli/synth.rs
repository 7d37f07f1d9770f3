//! `tritmark synth`.

use crate::cli::common::{print_json, print_line};
use crate::error::{Error, Result};
use crate::synth;
use std::path::PathBuf;

/// Make a checkpoint of any shape with random trits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark synth 2b4t -o 2b4t-random
  tritmark synth 2b4t --layers 2 --zeros 0.5 -o two-blocks

Speed and memory depend on the shape alone, so this stands in for weights that are not at hand. It
has no tokenizer: what reads text needs --tokenizer.")]
pub struct Args {
    /// Shape to start from: tiny, 0.7b, 2b4t, 3b, 8b
    shape: String,
    /// Directory to write; must not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Width of the residual stream
    #[arg(long)]
    hidden: Option<usize>,
    /// Width of the feed-forward part
    #[arg(long)]
    ffn: Option<usize>,
    /// Number of blocks
    #[arg(long)]
    layers: Option<usize>,
    /// Query heads
    #[arg(long)]
    heads: Option<usize>,
    /// Key and value heads
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Width of a head
    #[arg(long)]
    head_dim: Option<usize>,
    /// Vocabulary
    #[arg(long)]
    vocab: Option<usize>,
    /// Share of zero weights
    #[arg(long, default_value_t = 0.42)]
    zeros: f64,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Writes the checkpoint.
    ///
    /// # Errors
    /// If the shape is unknown or impossible, or writing fails.
    pub fn run(self) -> Result<()> {
        let mut config = synth::preset(&self.shape).ok_or_else(|| {
            Error::Usage(format!(
                "unknown shape '{}': expected one of {}",
                self.shape,
                synth::PRESETS.join(", ")
            ))
        })?;
        let overrides = [
            (self.hidden, &mut config.hidden),
            (self.ffn, &mut config.ffn),
            (self.layers, &mut config.layers),
            (self.heads, &mut config.heads),
            (self.kv_heads, &mut config.kv_heads),
            (self.head_dim, &mut config.head_dim),
            (self.vocab, &mut config.vocab),
        ];
        for (value, field) in overrides {
            if let Some(value) = value {
                *field = value;
            }
        }
        synth::write(&config, self.zeros, self.seed, &self.output)?;
        if self.json {
            print_json(&serde_json::json!({ "path": self.output, "config": config }))
        } else {
            print_line(&format!(
                "wrote {} ({} ternary weights)",
                self.output.display(),
                config.linear_params()
            ))
        }
    }
}
