//! `tritmark import`.

use super::common::{print_json, print_line};
use crate::error::Result;
use crate::files::writable;
use crate::record;
use crate::record::import::{self, Options};
use crate::words::counted;
use clap::builder::NonEmptyStringValueParser;
use std::path::PathBuf;

/// Take over results of llama-bench or llama-perplexity as a record, marked as imported.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llama-bench -m model.gguf -o json > bench.json
  tritmark import bench.json -o llama.json
  tritmark compare llama.json ours.json --force
  llama-perplexity -m model.gguf -f wiki.test.raw > ppl.log 2>&1
  tritmark import ppl.log --text wikitext-2 --model model.gguf -o llama-ppl.json")]
pub struct Args {
    /// Output of llama-bench (JSON, JSONL, CSV, SQL or its table) or a log of llama-perplexity
    file: PathBuf,
    /// Where to write the record
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The program that wrote it, if it was a relative of llama.cpp
    #[arg(long, default_value = "llama.cpp", value_parser = NonEmptyStringValueParser::new())]
    program: String,
    /// Name of the text whose perplexity was measured
    #[arg(long, default_value = import::UNSTATED, value_parser = NonEmptyStringValueParser::new())]
    text: String,
    /// The model, for a log of llama-perplexity that does not name it (one made without -v)
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the file is neither of these, or the record cannot be written.
    pub fn run(self) -> Result<()> {
        writable(&[&self.output], &[&self.file])?;
        let record = import::import(
            &self.file,
            &Options { program: self.program, text: self.text, model: self.model },
        )?;
        record::write(&self.output, std::slice::from_ref(&record))?;
        if self.json {
            return print_json(&record);
        }
        print_line(&format!(
            "{}: {} imported",
            self.output.display(),
            counted(record.arms.len() as u64, "arm")
        ))
    }
}
