//! `tritmark eval`.

use super::common::{KernelArgs, TextArgs, print_json, print_line, progress, record_accuracy};
use crate::accuracy::tasks::{Answer, Encoder, Format, Task, evaluate};
use crate::error::Result;
use crate::files::{writable, write_whole};
use crate::machine::Watch;
use crate::record::{self, Arm, Subject};
use crate::words::counted;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Score multiple-choice tasks by log-likelihood.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark eval demo
  tritmark eval models/2b4t hellaswag_val.jsonl --limit 400
  tritmark eval models/2b4t winogrande.csv piqa.jsonl --json

Prompts and scoring are those of lm-evaluation-harness, zero-shot: acc is the likeliest choice,
acc_norm the likeliest for its length in characters. Files of JSON lines are told apart by their
fields; .txt is llama-perplexity's HellaSwag form, .csv its WinoGrande form, .bin its multiple
choice. llama-perplexity itself divides by tokens instead of characters, so that its acc_norm is
another figure.")]
pub struct Args {
    /// Model
    model: String,
    /// Files of questions, or `sotu`: endings of sentences of the demo's test text [default: sotu]
    tasks: Vec<String>,
    /// Format of JSON lines [default: by their fields]
    #[arg(long, value_enum)]
    task: Option<Format>,
    /// Only so many questions of each file
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    open: TextArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Write every question's log-likelihoods, lengths and choices, a JSON line each
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write the whole record, for `report`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Leave host names and folders out of the record (needs --record)
    #[arg(long, requires = "record")]
    anonymise: bool,
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
        let outputs: Vec<&Path> = self.record.iter().chain(&self.save).map(PathBuf::as_path).collect();
        let named = self.tasks.iter().chain([&self.model]).map(Path::new);
        let inputs: Vec<&Path> = named.chain(self.open.inputs()).collect();
        writable(&outputs, &inputs)?;
        let builtin = [Task::BUILTIN.to_owned()];
        let names = if self.tasks.is_empty() { &builtin } else { self.tasks.as_slice() };
        let mut tasks = Task::open_all(names, self.task)?;
        let (watch, started) = (Watch::start(), record::now());
        let checkpoint = self.open.open(&self.model)?;
        let encoder = Encoder::new(&checkpoint)?;
        let mut model = self.kernel.load(&checkpoint)?;
        let subject = Subject::of(&record::Model::id_of(&checkpoint), &model);

        let (mut results, mut arms, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for task in &mut tasks {
            task.questions.truncate(self.limit.unwrap_or(usize::MAX));
            let bar = progress(task.questions.len() as u64, "questions");
            let (mut right, mut answers): (usize, Vec<Answer>) = (0, Vec::new());
            let score = evaluate(&mut model, &encoder, &task.questions, &mut |done, answer| {
                right += usize::from(answer.choice == answer.gold);
                answers.push(answer.clone());
                bar.set_position(done as u64);
                bar.set_message(format!("acc {:.1} %", 100.0 * right as f64 / done as f64));
            })?;
            bar.finish_and_clear();
            if !self.json {
                let share = |share: f64, stderr: Option<f64>| match stderr {
                    Some(stderr) => format!("{:.2} ± {:.2} %", 100.0 * share, 100.0 * stderr),
                    None => format!("{:.2} %", 100.0 * share),
                };
                let norm =
                    score.acc_norm.map(|acc| format!(", acc_norm {}", share(acc, score.acc_norm_stderr)));
                print_line(&format!(
                    "{}: acc {}{} ({}, chance {:.1} %)",
                    task.name,
                    share(score.acc, score.acc_stderr),
                    norm.unwrap_or_default(),
                    counted(score.questions, "question"),
                    100.0 * score.chance
                ))?;
            }
            for (i, answer) in answers.iter().enumerate() {
                lines.push(
                    serde_json::json!({ "task": task.name, "question": i, "answer": answer }).to_string(),
                );
            }
            results.push(serde_json::json!({
                "task": task.name, "format": task.format.name(), "score": score, "answers": answers,
            }));
            arms.push(Arm { choices: Some(score), ..Arm::new(subject.clone(), task.test()) });
        }
        if let Some(path) = &self.save {
            write_whole(path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))?;
        }
        if let Some(path) = &self.record {
            record_accuracy(path, &watch, started, &checkpoint, arms, self.anonymise)?;
        }
        if self.json {
            print_json(&serde_json::json!({
                "model": self.model, "kernel": model.kernel(), "head": model.head_precision(),
                "method": "zero-shot, prompts and scoring of lm-evaluation-harness", "tasks": results,
            }))?;
        }
        Ok(())
    }
}
