//! `tritmark eval`.

use super::common::{KernelArgs, OpenArgs, print_json, print_line, progress};
use crate::accuracy::tasks::{Encoder, Format, SOTU, evaluate, read};
use crate::accuracy::{read_text, tokenizer_of};
use crate::error::Result;
use crate::model::{LoadOptions, Model};
use std::path::PathBuf;

/// Score multiple-choice tasks by log-likelihood.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark eval demo
  tritmark eval models/2b4t hellaswag_val.jsonl --limit 400
  tritmark eval models/2b4t winogrande.csv piqa.jsonl --json

Prompts and scoring are those of lm-evaluation-harness, zero-shot: acc is the likeliest choice,
acc_norm the likeliest for its length in characters. Files of JSON lines are told apart by their
fields; .txt is llama-perplexity's HellaSwag form and .csv its WinoGrande form.")]
pub struct Args {
    /// Model
    model: String,
    /// Files of questions [default: endings of sentences of the demo's test text]
    tasks: Vec<PathBuf>,
    /// Format of JSON lines [default: by their fields]
    #[arg(long, value_enum)]
    task: Option<Format>,
    /// Only so many questions of each file
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model or a task cannot be read, or scoring fails.
    pub fn run(self) -> Result<()> {
        let mut tasks = Vec::new();
        if self.tasks.is_empty() {
            tasks.push(("sotu".to_owned(), read("sotu.jsonl".as_ref(), SOTU, None)?));
        }
        for path in &self.tasks {
            let text = read_text(std::slice::from_ref(path))?;
            tasks.push((path.display().to_string(), read(path, &text, self.task)?));
        }

        let checkpoint = self.open.open(&self.model)?;
        let tokenizer = tokenizer_of(&checkpoint)?;
        let config = &checkpoint.config;
        let encoder = Encoder { tokenizer: &tokenizer, bos: config.bos, context: config.context };
        let (layout, tier) = self.kernel.layout_and_tier()?;
        let mut model =
            Model::load(&checkpoint, &LoadOptions { layout, tier, threads: self.kernel.threads()? })?;

        let mut results = Vec::new();
        for (name, (format, mut questions)) in tasks {
            questions.truncate(self.limit.unwrap_or(usize::MAX));
            let bar = progress(questions.len() as u64, "questions");
            let score = evaluate(&mut model, &encoder, &questions, &mut |done, right| {
                bar.set_position(done as u64);
                bar.set_message(format!("acc {:.1} %", 100.0 * right as f64 / done as f64));
            })?;
            bar.finish_and_clear();
            if !self.json {
                let norm =
                    score.acc_norm.zip(score.acc_norm_stderr).map_or(String::new(), |(acc, stderr)| {
                        format!(", acc_norm {:.2} ± {:.2} %", 100.0 * acc, 100.0 * stderr)
                    });
                print_line(&format!(
                    "{name}: acc {:.2} ± {:.2} %{norm} ({} questions, chance {:.1} %)",
                    100.0 * score.acc,
                    100.0 * score.acc_stderr,
                    score.questions,
                    100.0 * score.chance
                ))?;
            }
            results.push(serde_json::json!({ "task": name, "format": format!("{format:?}").to_lowercase(), "score": score }));
        }
        if self.json {
            let report = serde_json::json!({ "model": self.model, "kernel": model.kernel(), "method": "zero-shot, prompts and scoring of lm-evaluation-harness", "tasks": results });
            print_json(&report)?;
        }
        Ok(())
    }
}
