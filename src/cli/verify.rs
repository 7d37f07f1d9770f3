//! `tritmark verify`.

use super::common::{OpenArgs, print_json, print_line, progress};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::inspect::inspect;
use crate::verify::{Comparison, compare, model_hash, probe};
use serde_json::json;

/// Prove that two models are the same, whatever their forms; or that one is sound.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark verify bitnet-b1.58-2B-4T model.gguf
  tritmark verify model.gguf

Exit code 1 says that the proof failed, and standard error what differs.")]
pub struct Args {
    /// Model
    a: String,
    /// Model that must be the same
    b: Option<String>,
    /// Do not run the two models on a few tokens
    #[arg(long)]
    no_probe: bool,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Verifies.
    ///
    /// # Errors
    /// [`Error::Proof`] if the models differ or the one is damaged.
    pub fn run(self) -> Result<()> {
        let a = self.open.open(&self.a)?;
        match &self.b {
            None => one(&a, self.json),
            Some(b) => two(&a, &self.open.open(b)?, !self.no_probe, self.json),
        }
    }
}

fn one(a: &Checkpoint, json: bool) -> Result<()> {
    let bar = progress(a.tensors().len() as u64, "verifying");
    let inspection = inspect(a, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let flagged = inspection.tensors.iter().filter(|t| t.info.role.is_some() && !t.flags.is_empty());
    let faults: Vec<String> = flagged.map(|t| format!("{}: {}", t.info.name, t.flags.join("; "))).collect();
    if json {
        print_json(
            &json!({ "hash": inspection.hash, "tensors": inspection.tensors.len(), "faults": faults }),
        )?;
    }
    match (faults.is_empty(), inspection.hash) {
        (true, Some(hash)) if !json => {
            print_line(&format!("sound: {} tensors, hash {hash}", inspection.tensors.len()))
        }
        (true, Some(_)) => Ok(()),
        _ => Err(Error::Proof(format!("{} is damaged:\n  {}", a.provenance.name, faults.join("\n  ")))),
    }
}

fn two(a: &Checkpoint, b: &Checkpoint, run: bool, json: bool) -> Result<()> {
    let bar = progress(a.config.roles().len() as u64, "verifying");
    let mut comparison = compare(a, b, &|| bar.inc(1))?;
    bar.finish_and_clear();
    if run && comparison.differences.is_empty() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let probe = probe(a, b, threads)?;
        let exact = comparison.scale_error == 0.0 && comparison.float_error == 0.0;
        if exact && !probe.identical {
            comparison.differences.push(format!(
                "All tensors are equal, but the logits of {} tokens differ by up to {}.",
                probe.tokens, probe.max_difference
            ));
        }
        comparison.probe = Some(probe);
    }
    if json {
        print_json(&json!({
            "equal": comparison.differences.is_empty(),
            "hashes": [model_hash(a)?, model_hash(b)?],
            "comparison": comparison,
        }))?;
    }
    if !comparison.differences.is_empty() {
        return Err(Error::Proof(format!(
            "{} and {} are not the same model:\n  {}",
            a.provenance.name,
            b.provenance.name,
            comparison.differences.join("\n  ")
        )));
    }
    if json { Ok(()) } else { print(&comparison) }
}

fn print(c: &Comparison) -> Result<()> {
    print_line(&format!("the same model: {} ternary matrices with equal trits", c.equal_trits))?;
    print_line(&match c.scale_error {
        0.0 => "scales: equal".into(),
        error => format!("scales: equal within {error:.1e} (relative)"),
    })?;
    print_line(&match c.float_error {
        0.0 => "embeddings and norms: equal".into(),
        error => format!("embeddings and norms: off by at most {error:.2} of what their forms allow"),
    })?;
    match &c.probe {
        None => print_line("logits: not compared"),
        Some(p) if p.identical => print_line(&format!("logits of {} tokens: equal, bit for bit", p.tokens)),
        Some(p) => print_line(&format!(
            "logits of {} tokens: differ by up to {:.2e}, same first choice for {:.0} %",
            p.tokens,
            p.max_difference,
            p.top1_agreement * 100.0
        )),
    }
}
