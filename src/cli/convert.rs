//! `tritmark convert`.

use super::common::{OpenArgs, print_json, print_line, progress, say};
use crate::checkpoint::config::LinearKind;
use crate::checkpoint::gguf::runtime::Runtime;
use crate::checkpoint::role::Role;
use crate::checkpoint::write::gguf::TL2_IDS;
use crate::checkpoint::write::{FilePlan, Inexact, Item, Plan, start_threads};
use crate::convert::{self, Container};
use crate::error::Result;
use crate::files::left_behind;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Convert a model to another form, and prove every tensor on the way.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark convert bitnet-b1.58-2B-4T model.gguf --to i2_s --for bitnet.cpp
  tritmark convert model.gguf packed-hf --to hf
  tritmark convert demo demo.safetensors --to tm2

OUT ending in .gguf is a GGUF file, in .safetensors one of our own files; anything else is a Hugging
Face directory. A file of that name is replaced when the new one is whole, a directory is not.
`tritmark formats` lists what converts to what.")]
pub struct Args {
    /// Model to read
    input: String,
    /// File or directory to write
    out: PathBuf,
    /// Layout of the matrices, or hf, bf16, f16, f32 [default: i2_s for .gguf, tm2 for .safetensors, hf for a directory]
    #[arg(long, value_name = "FORM")]
    to: Option<String>,
    /// Program that shall run the file (.gguf only) [default: the first that runs it rightly]
    #[arg(long = "for", value_name = "RUNTIME")]
    runtime: Option<Runtime>,
    /// Embedding and head: f32, f16, bf16, and in .gguf q8_0, q6_k, q4_0 [default: exact]
    #[arg(long, value_name = "TYPE")]
    embedding: Option<String>,
    /// Largest file of a Hugging Face directory, e.g. 2GB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shard_size: Option<u64>,
    /// Keep scales in tensors of their own, exact (.gguf of architecture bitnet only)
    #[arg(long)]
    scale_tensors: bool,
    /// Type id of tl2 (.gguf only): 39 as in bitnet.cpp's first fork of llama.cpp, 42 as in its later one
    #[arg(long, value_name = "ID", value_parser = tl2_id)]
    tl2_id: Option<u32>,
    /// List what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write also what the runtime does not run rightly
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Converts.
    ///
    /// # Errors
    /// As the parts say.
    pub fn run(self) -> Result<()> {
        let checkpoint = self.open.open_quietly(&self.input)?;
        start_threads()?;
        let options = convert::Options {
            to: self.to,
            runtime: self.runtime,
            embedding: self.embedding,
            shard_size: self.shard_size,
            scale_tensors: self.scale_tensors,
            tl2_id: self.tl2_id,
            force: self.force,
        };
        let plan = convert::plan(&checkpoint, &self.out, &options)?;
        let gguf = Container::of(&self.out) == Container::Gguf;
        let full = checkpoint.config.linear == LinearKind::Float;
        let notes = checkpoint.provenance.notes.iter().chain(&plan.warnings).cloned();
        let notes = notes.chain(narrowed(&plan).filter(|_| full));
        if self.dry_run {
            let notes = notes.chain(rounding(&plan.inexact(&checkpoint)?, gguf));
            return dry_run(&plan, &self.out, &notes.collect::<Vec<_>>(), self.json);
        }
        let left_behind = left_behind(&self.out).into_iter().map(|path| {
            format!(
                "{} was left by a conversion that was killed, or belongs to one that still runs.",
                path.display()
            )
        });
        let notes: Vec<String> = notes.chain(left_behind).collect();
        let start = Instant::now();
        let bar = progress(plan.bytes(), "converting");
        let written = plan.write(&checkpoint, &self.out, &|bytes| bar.inc(bytes))?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let inexact = written.inexact;
        let warnings: Vec<String> =
            notes.into_iter().chain(written.odd).chain(rounding(&inexact, gguf)).collect();
        if self.json {
            return print_json(&json!({
                "out": self.out, "target": plan.target, "bytes": plan.bytes(), "seconds": seconds,
                "warnings": warnings, "inexact_scales": inexact,
            }));
        }
        warnings.iter().for_each(|warning| say(warning));
        let exact = match (full, inexact.is_empty()) {
            (true, _) => "full precision, no trits to prove",
            (_, true) => "trits and scales proven equal",
            (_, false) => "trits proven equal",
        };
        print_line(&format!(
            "wrote {}: {}, {} bytes in {seconds:.1} s; {exact}",
            self.out.display(),
            plan.target,
            plan.bytes()
        ))
    }
}

/// What to say of a full-precision model's matrices in a form that may not hold them.
fn narrowed(plan: &Plan) -> Option<String> {
    let items = plan.files.iter().flat_map(|f| &f.tensors);
    let matrices = items.filter(|item| item.role.is_some_and(Role::is_matrix));
    // Any other form holds less than f32, or other numbers.
    let mut narrowed = matrices.filter(|item| item.from != item.to && item.to != "f32");
    narrowed.next().map(|item| {
        format!(
            "Matrices that are {} in the source are rounded to {}, so the conversion may not be lossless; `tritmark verify` \
             tells by how much.",
            item.from, item.to
        )
    })
}

/// What to say of scales that the output rounds; a GGUF keeps the exact ones beside them.
fn rounding(inexact: &[Inexact], gguf: bool) -> Option<String> {
    let worst = convert::worst(inexact)?;
    let scales = match inexact.len() {
        1 => "1 scale is".to_owned(),
        n => format!("{n} scales are"),
    };
    let then = match gguf {
        true => {
            "programs that run it compute with these, but the metadata keeps the exact ones, which tritmark reads"
        }
        false => "the conversion is not lossless",
    };
    Some(format!(
        "{scales} rounded by this form, by at most {:.1e} (relative, {}): {then}.",
        worst.relative_error(),
        worst.tensor
    ))
}

fn dry_run(plan: &Plan, out: &Path, notes: &[String], json: bool) -> Result<()> {
    // A single file is the output itself.
    let name = |file: &FilePlan| match out.file_name() {
        Some(name) if !plan.directory => name.to_string_lossy().into_owned(),
        _ => file.name.clone(),
    };
    if json {
        let files: Vec<_> = plan
            .files
            .iter()
            .map(|f| json!({ "name": name(f), "bytes": f.len, "tensors": f.tensors }))
            .collect();
        let side: Vec<_> = plan.side.iter().map(|(name, _)| name).collect();
        return print_json(
            &json!({ "target": plan.target, "files": files, "side": side, "warnings": notes }),
        );
    }
    print_line(&format!("{}, {} bytes", plan.target, plan.bytes()))?;
    let all = || plan.files.iter().flat_map(|f| &f.tensors);
    let role = |t: &Item| t.role.map_or_else(|| "-".to_owned(), |role| role.to_string());
    let names = all().map(|t| t.name.len()).max().unwrap_or(0);
    let roles = all().map(|t| role(t).len()).max().unwrap_or(0);
    for file in &plan.files {
        print_line(&format!("{} ({} bytes)", name(file), file.len))?;
        for t in &file.tensors {
            let shape = format!("{:?}", t.shape);
            print_line(&format!(
                "  {:<names$} {:<roles$} {shape:>16} {} -> {}",
                t.name,
                role(t),
                t.from,
                t.to
            ))?;
        }
    }
    plan.side.iter().try_for_each(|(name, _)| print_line(name))?;
    notes.iter().for_each(|note| say(note));
    Ok(())
}

fn tl2_id(text: &str) -> Result<u32, String> {
    TL2_IDS.into_iter().find(|id| id.to_string() == text).ok_or_else(|| "expected 39 or 42".into())
}

/// Bytes from `500MB`, `2GB`, `2GiB` or a plain number.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let (prefix, base) = match unit.strip_suffix("IB") {
        Some(prefix) => (prefix, 1024u64),
        None => (unit.strip_suffix('B').unwrap_or(&unit), 1000),
    };
    let power = match prefix {
        "" if base == 1000 => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err("expected a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number".to_owned())?;
    number.checked_mul(base.pow(power)).filter(|&n| n > 0).ok_or_else(|| "out of range".into())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_decimal_or_binary() {
        for (text, bytes) in [
            ("7", 7),
            ("7B", 7),
            ("500MB", 500_000_000),
            ("1TB", 1_000_000_000_000),
            ("2GiB", 2 << 30),
            ("3kib", 3 << 10),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "0", "-1GB", "1.5GB", "1XB", "1iB", "99999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
