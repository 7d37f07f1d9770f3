//! `tritmark verify`.

use super::common::{OpenArgs, print_json, print_line, progress, say};
use crate::checkpoint::config::LinearKind;
use crate::checkpoint::write::start_threads;
use crate::checkpoint::{Checkpoint, OpenOptions, number};
use crate::error::{Error, Result};
use crate::inspect::inspect;
use crate::verify::{Comparison, compare, model_hash, probe, told_by};
use serde_json::json;

/// Prove that two models are the same, whatever their forms; or that one is sound.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark verify bitnet-b1.58-2B-4T model.gguf
  tritmark verify model.gguf

Exit code 0: trits are equal, and all else is equal or rounded by a form that one of the files
has; the first line says which (\"the same model\", \"the same ternary weights\", or of full
precision \"the same shapes\", and what is rounded). Logits of rounded models are called close where
they differ by at most 3 % (relative, RMS) and 95 % of the first choices are the same; that they
are not is told and changes no exit code. Exit code 1: something else differs, or weights of a file
are damaged; standard error says what and where. Exit code 5: a file is cut short or no model.
--family, --dialect and --ptq apply to the model that needs them. Of a file whose arrangement is
ambiguous, the other model tells which it is.")]
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
        let Some(b) = &self.b else { return one(&self.open.open(&self.a)?, self.json) };
        let (a, b) = self.sides(b)?;
        for c in [&a, &b] {
            for note in &c.provenance.notes {
                say(&format!("{}: {note}", c.provenance.name));
            }
        }
        two(&a, &b, !self.no_probe, self.json)
    }

    /// Opens both models, each with those of the options that it takes; one of the two must take each.
    fn sides(&self, b: &str) -> Result<(Checkpoint, Checkpoint)> {
        let all = OpenOptions { assume: true, ..self.open.options() };
        let open = |model: &str| -> Result<(Checkpoint, OpenOptions)> {
            let mut first = None;
            // All of them first.
            for left_out in 0..8 {
                let takes = |option: u8| left_out & option == 0;
                let options = OpenOptions {
                    family: all.family.clone().filter(|_| takes(4)),
                    ptq: all.ptq.filter(|_| takes(1)),
                    dialect: all.dialect.clone().filter(|_| takes(2)),
                    ..all
                };
                match Checkpoint::open_with(model, &options) {
                    Ok(checkpoint) => return Ok((checkpoint, options)),
                    Err(e) => first = first.or(Some(e)),
                }
            }
            Err(first.unwrap_or_else(|| Error::Bug("nothing was opened".into())))
        };
        let ((a, with_a), (b, with_b)) = (open(&self.a)?, open(b)?);
        let untaken = [
            ("--family", all.family.is_some() && with_a.family.is_none() && with_b.family.is_none()),
            ("--ptq", all.ptq.is_some() && with_a.ptq.is_none() && with_b.ptq.is_none()),
            ("--dialect", all.dialect.is_some() && with_a.dialect.is_none() && with_b.dialect.is_none()),
        ];
        if let Some((option, _)) = untaken.iter().find(|(_, untaken)| *untaken) {
            // The model's own words are the better reason.
            let reason = Checkpoint::open_with(&self.a, &all).err();
            let reason = reason.map(|e| format!("\n  {e}")).unwrap_or_default();
            return Err(Error::Usage(format!("{option} fits neither of the two models{reason}")));
        }
        match (a.provenance.choices.is_empty(), b.provenance.choices.is_empty()) {
            (true, true) => Ok((a, b)),
            (false, true) => Ok((settled(a, &with_a, &b)?, b)),
            (true, false) => {
                let b = settled(b, &with_b, &a)?;
                Ok((a, b))
            }
            // Nothing tells either: the error says what to do.
            (false, false) => {
                Checkpoint::open_with(&self.a, &OpenOptions { assume: false, ..all }).map(|a| (a, b))
            }
        }
    }
}

/// A model whose dialect is open, as the one that has the trits of another.
fn settled(open: Checkpoint, options: &OpenOptions, known: &Checkpoint) -> Result<Checkpoint> {
    match told_by(&open, options, known)? {
        Some(mut told) => {
            let what = told.provenance.dialect.rsplit(' ').next().unwrap_or_default();
            told.provenance.notes.push(format!(
                "The file leaves the arrangement of its weights open; as {what} its trits are those of {}.",
                known.provenance.name
            ));
            Ok(told)
        }
        None => Err(Error::Proof(format!(
            "{} and {} are not the same model:\n  in none of the arrangements that the file could have ({}) are the trits equal",
            open.provenance.name,
            known.provenance.name,
            open.provenance.choices.join(", ")
        ))),
    }
}

fn one(a: &Checkpoint, json: bool) -> Result<()> {
    start_threads()?;
    let bar = progress(a.tensors().len() as u64, "verifying");
    let inspection = inspect(a, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let flagged = inspection.tensors.iter().filter(|t| t.info.role.is_some() && !t.flags.is_empty());
    let mut faults: Vec<String> =
        flagged.map(|t| format!("{}: {}", t.info.name, t.flags.join("; "))).collect();
    faults.extend(inspection.tokenizer_fault.clone());
    let shown = match &inspection.hash {
        _ if json => print_json(
            &json!({ "hash": inspection.hash, "tensors": inspection.tensors.len(), "faults": faults }),
        ),
        Some(hash) if faults.is_empty() => {
            print_line(&format!("sound: {} tensors, hash {hash}", inspection.tensors.len()))
        }
        _ => Ok(()),
    };
    match (faults.is_empty(), inspection.hash) {
        (true, Some(_)) => shown,
        _ => Err(Error::Proof(format!("{} is damaged:\n  {}", a.provenance.name, faults.join("\n  ")))),
    }
}

fn two(a: &Checkpoint, b: &Checkpoint, run: bool, json: bool) -> Result<()> {
    start_threads()?;
    let bar = progress(a.config.roles().len() as u64, "verifying");
    // What is damaged is not proven to be the same model.
    let damaged = |e: Error| match e.exit_code() {
        5 => Error::Proof(format!(
            "{} and {} cannot be compared, as one of them is damaged:\n  {e}",
            a.provenance.name, b.provenance.name
        )),
        _ => e,
    };
    let mut comparison = compare(a, b, &|| bar.inc(1)).map_err(damaged)?;
    bar.finish_and_clear();
    if run && comparison.differences.is_empty() {
        let threads = tritmark_kernels::pool::cpus();
        let probe = probe(a, b, threads).map_err(damaged)?;
        if comparison.exact() && !probe.identical {
            comparison.differences.push(format!(
                "All tensors are equal, but the logits of {} tokens differ by up to {:.2e}.",
                probe.tokens, probe.max_difference
            ));
        }
        comparison.probe = Some(probe);
    }
    // Whoever reads no further, as `| head`, still gets the verdict.
    let shown = match json {
        false => Ok(()),
        true => print_json(&json!({
            "equal": comparison.exact(),
            "verdict": match (comparison.exact(), comparison.differences.is_empty()) {
                (true, _) => "equal",
                (false, true) => "rounded",
                (false, false) => "different",
            },
            "hashes": [model_hash(a)?, model_hash(b)?],
            "comparison": comparison,
        })),
    };
    if !comparison.differences.is_empty() {
        return Err(Error::Proof(format!(
            "{} and {} are not the same model:\n  {}",
            a.provenance.name,
            b.provenance.name,
            comparison.differences.join("\n  ")
        )));
    }
    if json { shown } else { print(&comparison, b) }
}

fn print(c: &Comparison, b: &Checkpoint) -> Result<()> {
    let (scales, floats) = (c.roundings(true), c.roundings(false));
    let matrices = match b.config.linear {
        LinearKind::Ternary => format!("{} ternary matrices with equal trits", c.equal_trits),
        LinearKind::Float => "full-precision matrices".into(),
    };
    let logits = match &c.probe {
        None => "logits not compared".to_owned(),
        Some(p) if p.identical => format!("logits of {} tokens equal, bit for bit", p.tokens),
        Some(p) => format!(
            "logits of {} tokens {}: they differ by up to {:.2e} ({:.2} % RMS), same first choice for {:.0} %",
            p.tokens,
            if p.close() { "close" } else { "NOT close" },
            p.max_difference,
            p.relative_rms * 100.0,
            p.top1_agreement * 100.0
        ),
    };
    if c.exact() {
        print_line(&format!("the same model: {matrices}; {logits}"))?;
    } else {
        let scaled = scales.as_ref().map(|(form, _)| format!("scales rounded to {form}"));
        let others = floats.as_ref().map(|(form, _)| format!("other tensors rounded to {form}"));
        let what: Vec<_> = scaled.into_iter().chain(others).collect();
        let weights = if b.config.linear == LinearKind::Ternary { "ternary weights" } else { "shapes" };
        print_line(&format!("the same {weights}, {}; {logits}", what.join(", ")))?;
    }
    print_line(&match scales {
        None => "scales: equal".into(),
        Some((form, worst)) => format!(
            "scales: rounded to {form}, most in {}: {} and {}, {:.1e} apart (relative)",
            worst.tensor,
            number(worst.a),
            number(worst.b),
            worst.difference
        ),
    })?;
    print_line(&match floats {
        None => "embeddings and norms: equal".into(),
        Some((form, worst)) => format!(
            "embeddings and norms: rounded to {form}, most in {}: {} and {}, {:.1e} apart",
            worst.tensor,
            number(worst.a),
            number(worst.b),
            worst.difference
        ),
    })?;
    c.notes.iter().try_for_each(|note| print_line(&format!("note: {note}")))
}
