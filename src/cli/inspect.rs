//! `tritmark inspect`.

use super::common::{OpenArgs, print_json, print_line, progress};
use crate::checkpoint::write::start_threads;
use crate::checkpoint::{Checkpoint, OpenOptions, number};
use crate::error::Result;
use crate::inspect::{Inspection, inspect};

/// Show what a checkpoint is, tensor by tensor, and who can run it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tritmark inspect model.gguf")]
pub struct Args {
    /// Model
    model: String,
    #[command(flatten)]
    open: OpenArgs,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Inspects.
    ///
    /// # Errors
    /// If the model cannot be opened.
    pub fn run(self) -> Result<()> {
        let options = OpenOptions { assume: true, ..self.open.options() };
        let checkpoint = Checkpoint::open_with(&self.model, &options)?;
        start_threads()?;
        let bar = progress(checkpoint.tensors().len() as u64, "inspecting");
        let inspection = inspect(&checkpoint, &|| bar.inc(1))?;
        bar.finish_and_clear();
        if self.json { print_json(&inspection) } else { print(&inspection) }
    }
}

fn print(i: &Inspection) -> Result<()> {
    let (p, c) = (&i.provenance, &i.config);
    let row = |key: &str, value: String| print_line(&format!("{key:<12} {value}"));
    row("model", p.name.clone())?;
    row("family", p.family.clone())?;
    row("dialect", p.dialect.clone())?;
    row("scales", p.scale_rule.clone())?;
    row(
        "shape",
        format!(
            "{} blocks, width {}, feed-forward {}, heads {}/{} of {}, vocabulary {}{}",
            c.layers,
            c.hidden,
            c.ffn,
            c.heads,
            c.kv_heads,
            c.head_dim,
            c.vocab,
            if c.tied { ", tied" } else { "" }
        ),
    )?;
    row("activation", format!("{:?}", c.activation).to_lowercase())?;
    row("bytes", format!("{} in all, {} in ternary matrices", i.bytes, i.ternary_bytes))?;
    if let (Some(bits), Some(zero)) = (i.bits_per_weight, i.zero_fraction) {
        row(
            "ternary",
            format!("{} weights, {bits:.3} bits each, {:.2} % zeros", i.ternary_weights, zero * 100.0),
        )?;
    }
    let unknown = if p.choices.is_empty() { "a weight is damaged" } else { "the dialect is ambiguous" };
    row("hash", i.hash.clone().unwrap_or_else(|| format!("not computed: {unknown}")))?;
    for r in &i.runtimes {
        let cpu = r.cpu.as_ref().map(|cpu| format!(", on {cpu} only")).unwrap_or_default();
        let condition = r.condition.as_ref().map(|how| format!(", {how}")).unwrap_or_default();
        row("runtime", r.verdict.sentence(&r.runtime) + &cpu + &condition)?;
    }
    for text in p.notes.iter().chain(&i.flags) {
        row("note", text.clone())?;
    }
    print_line("")?;
    let names = i.tensors.iter().map(|t| t.info.name.len()).max().unwrap_or(0);
    let forms = i.tensors.iter().map(|t| t.info.form.len()).max().unwrap_or(0);
    print_line(&format!(
        "{:<names$} {:<forms$} {:>16} {:>7} {:>8} {:>13}",
        "tensor", "form", "shape", "bits", "zeros", "scale"
    ))?;
    for t in &i.tensors {
        let zeros = t.zero_fraction.map(|z| format!("{:.2} %", z * 100.0)).unwrap_or_default();
        let scale = t.scale.map(number).unwrap_or_default();
        let shape = format!("{:?}", t.info.shape);
        print_line(&format!(
            "{:<names$} {:<forms$} {shape:>16} {:>7.3} {zeros:>8} {scale:>13}  {}",
            t.info.name,
            t.info.form,
            t.bits_per_weight,
            t.flags.join("; ")
        ))?;
    }
    Ok(())
}
