//! `tritmark embed`.

use super::common::{KernelArgs, OpenArgs, print_json};
use crate::error::Result;
use crate::model::text::Text;
use serde_json::json;

/// Print the embedding of a text.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tritmark embed bitnet-embedding-0.6b -p \"What is a trit?\"

The embedding is the hidden state of the last token after the last norm, scaled to length 1.")]
pub struct Args {
    /// Model: directory, .safetensors, .gguf, `demo` or `demo-full`
    model: String,
    /// Text
    #[arg(short, long)]
    prompt: String,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Print an object with tokens and kernel instead of the bare array
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model cannot be loaded or has no tokenizer, or the text is too long for it.
    pub fn run(self) -> Result<()> {
        let checkpoint = self.open.open(&self.model)?;
        let ids = Text::new(&checkpoint)?.encode(&self.prompt)?;
        let mut model = self.kernel.load(&checkpoint)?;
        let embedding = model.embed(&ids)?;
        if self.json {
            return print_json(&json!({
                "model": self.model, "kernel": model.kernel(), "ids": ids, "embedding": embedding,
            }));
        }
        print_json(&embedding)
    }
}
