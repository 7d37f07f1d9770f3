//! `tritmark logits`.

use super::common::{KernelArgs, OpenArgs, print_json, print_line};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::safetensors;
use crate::error::{Error, Result};
use crate::files::{self, writable, write_whole};
use crate::model::Logits;
use crate::model::sample::greatest;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write the logits of token ids, to compare with other software.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark logits demo --ids 0,17,42 -o logits.safetensors
  tritmark logits demo --ids ids.txt -o reference.safetensors --reference=full

The file holds one tensor `logits`, f32 [tokens, vocab], and in its metadata the model and what
computed it.")]
pub struct Args {
    /// Model: directory, .safetensors, .gguf, `demo` or `demo-full`
    model: String,
    /// Token ids separated by commas, or a file of ids separated by commas or white space
    #[arg(long, value_name = "IDS|FILE")]
    ids: String,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Compute with the f32 reference instead of our kernels; its activations are quantised to int8 as
    /// in training, or left in full precision
    #[arg(long, value_name = "ACTIVATIONS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "int8", value_parser = ["int8", "full"], conflicts_with_all = ["kernel", "head"])]
    reference: Option<String>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Summary {
    model: String,
    kernel: String,
    file: PathBuf,
    tokens: usize,
    vocab: usize,
    /// The likeliest token after each.
    greatest: Vec<u32>,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the ids cannot be read or are not in the vocabulary, the model cannot be loaded, or the file
    /// cannot be written.
    pub fn run(self) -> Result<()> {
        writable(&[&self.output], &[Path::new(&self.model), Path::new(&self.ids)])?;
        let ids = read_ids(&self.ids)?;
        let checkpoint = self.open.open(&self.model)?;
        let vocab = checkpoint.config.vocab;
        let (logits, kernel) = match &self.reference {
            Some(mode) => (reference(&checkpoint, &ids, mode)?, format!("candle/{mode}")),
            None => {
                let mut model = self.kernel.load(&checkpoint)?;
                let mut cache = model.new_cache(ids.len());
                let logits = model.forward(&mut cache, &ids, Logits::From(0))?.to_vec();
                (logits, format!("{}, head {}", model.kernel(), model.head_precision()))
            }
        };
        write(&self.output, &logits, vocab, &self.model, &kernel)?;
        let summary = Summary {
            model: self.model,
            kernel,
            file: self.output,
            tokens: ids.len(),
            vocab,
            greatest: logits.chunks_exact(vocab).map(greatest).collect(),
        };
        if self.json {
            return print_json(&summary);
        }
        let Summary { tokens, kernel, file, .. } = &summary;
        print_line(&format!("{tokens} x {vocab} logits of {kernel} written to {}", file.display()))
    }
}

/// Ids from the command line, or from a file of that name.
fn read_ids(given: &str) -> Result<Vec<u32>> {
    let parse = |text: &str| -> Result<Vec<u32>, String> {
        // Between commas stands something.
        let words = text.split(',').flat_map(|part| match part.trim() {
            "" => vec![""],
            part => part.split_whitespace().collect(),
        });
        let wrong = |w: &str| if w.is_empty() { "nothing".to_owned() } else { format!("'{w}'") };
        words.map(|w| w.parse().map_err(|_| wrong(w))).collect()
    };
    if Path::new(given).is_file() {
        let text = files::read_text(Path::new(given), MAX_IDS)?;
        parse(&text).map_err(|w| Error::input(given, format!("expected token ids, found {w}")))
    } else {
        parse(given).map_err(|w| {
            Error::Usage(format!(
                "--ids: expected token ids or a file of them, found {w}, and there is no file '{given}'"
            ))
        })
    }
}

#[cfg(feature = "reference")]
fn reference(checkpoint: &Checkpoint, ids: &[u32], mode: &str) -> Result<Vec<f32>> {
    use crate::reference::{ActivationMode, Reference};
    let mode = if mode == "full" { ActivationMode::Full } else { ActivationMode::Int8 };
    Reference::load(checkpoint, mode)?.logits(ids)
}

#[cfg(not(feature = "reference"))]
fn reference(_: &Checkpoint, _: &[u32], _: &str) -> Result<Vec<f32>> {
    Err(Error::Usage(
        "this build has no reference: build it with the default features for --reference".into(),
    ))
}

/// Most bytes of a file of token ids.
const MAX_IDS: u64 = 64 << 20;

/// Writes logits as a tensor `[tokens, vocab]`, to the same bytes each time.
fn write(path: &Path, logits: &[f32], vocab: usize, model: &str, kernel: &str) -> Result<()> {
    let tool = concat!("tritmark ", env!("CARGO_PKG_VERSION"));
    let metadata = serde_json::json!({ "kernel": kernel, "model": model, "tool": tool });
    let shape = [logits.len() / vocab, vocab];
    let tensor = ("logits", "F32", &shape[..], size_of_val(logits) as u64);
    let mut bytes = safetensors::header(Some(metadata), [tensor], 0);
    bytes.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
    write_whole(path, |file| std::io::Write::write_all(file, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_line_or_from_a_file() {
        assert_eq!(read_ids("1,2, 3").unwrap(), [1, 2, 3]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ids.txt");
        std::fs::write(&file, "4 5\n6,7\n").unwrap();
        assert_eq!(read_ids(file.to_str().unwrap()).unwrap(), [4, 5, 6, 7]);
        std::fs::write(&file, "4 five").unwrap();
        assert_eq!(read_ids(file.to_str().unwrap()).unwrap_err().exit_code(), 5);
        for bad in ["", ",", "1,,2", "1,", "1,-2", "1,x", "99999999999", "no/such/file"] {
            assert_eq!(read_ids(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
