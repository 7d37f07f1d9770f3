//! `tritmark formats`.

use super::common::{print_json, print_line};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{Activation, Gemma, ModelConfig};
use crate::checkpoint::families::{self, Family};
use crate::checkpoint::gguf::runtime::{Runtime, architecture, cpu, runs};
use crate::checkpoint::write::hf;
use crate::convert::Container;
use crate::error::Result;
use serde_json::json;
use std::collections::BTreeSet;
use tritmark_kernels::layout;

/// List what can be read, and what it converts to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tritmark formats")]
pub struct Args {
    /// Print the matrix as JSON
    #[arg(long)]
    json: bool,
}

/// The containers of an output, and what their names must be.
const CONTAINERS: [(&str, Container); 3] = [
    ("Hugging Face", Container::Directory),
    (".gguf", Container::Gguf),
    (".safetensors", Container::Safetensors),
];

/// What models of a family can become.
struct Row {
    family: &'static str,
    directory: bool,
    gguf: Option<String>,
}

/// Whether a class of transformers and an architecture of GGUF hold a family, asked of a model of it.
fn rows() -> Result<Vec<Row>> {
    let shape = Checkpoint::open("demo")?.config;
    let row = |family: &'static Family| {
        // The activation function is stated by each model; the family's usual one is among these.
        let models =
            [Activation::Relu2, Activation::Silu, Activation::GeluTanh].map(|activation| ModelConfig {
                activation,
                sub_norms: family.sub_norms.is_some(),
                qk_norm: family.qk_norm,
                inner_norm_eps: family.inner_norm.map(|_| 1e-6),
                gemma: family.gemma.then(|| Gemma {
                    query_pre_attn_scalar: 1.0,
                    local_rope_theta: 1e4,
                    window: 1,
                    windowed: vec![true; shape.layers],
                }),
                ..shape.clone()
            });
        let architectures: BTreeSet<_> = models
            .iter()
            .flat_map(|model| Runtime::ALL.map(|runtime| architecture(model, runtime)))
            .flatten()
            .collect();
        let gguf = architectures.into_iter().collect::<Vec<_>>().join(", ");
        Row {
            family: family.name,
            directory: models.iter().any(|model| hf::class(model).is_ok()),
            gguf: Some(gguf).filter(|names| !names.is_empty()),
        }
    };
    Ok(families::ALL.iter().map(row).collect())
}

impl Args {
    /// Lists.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn run(self) -> Result<()> {
        let mut forms: Vec<String> = layout::ALL.iter().map(|l| l.name().to_owned()).collect();
        forms.extend(["bf16", "f16", "f32"].map(str::to_owned));
        let outputs: Vec<_> = forms
            .iter()
            .map(|form| {
                let held = CONTAINERS.map(|(_, container)| container.forms().contains(form));
                let runners: Vec<_> = Runtime::ALL
                    .into_iter()
                    .filter(|&r| held[1] && runs(r, form))
                    .map(|r| r.to_string() + &cpu(form).map(|cpu| format!(" on {cpu}")).unwrap_or_default())
                    .collect();
                (form, held, runners)
            })
            .collect();
        let families = rows()?;
        if self.json {
            let outputs: Vec<_> = outputs
                .iter()
                .map(|(form, held, runners)| {
                    json!({
                        "form": form, "hugging_face": held[0], "gguf": held[1], "safetensors": held[2],
                        "gguf_runtimes": runners,
                    })
                })
                .collect();
            let families: Vec<_> = families
                .iter()
                .map(|row| {
                    json!({
                        "family": row.family, "hugging_face": row.directory,
                        "gguf_architectures": row.gguf, "safetensors": true,
                    })
                })
                .collect();
            return print_json(&json!({ "families": families, "outputs": outputs }));
        }
        let [a, b, c] = CONTAINERS.map(|(name, _)| name);
        let yes = |held: bool| if held { "yes" } else { "-" };
        print_line("Inputs, from Hugging Face files, .gguf or our own .safetensors, and what holds them:\n")?;
        print_line(&format!("{:<24} {a:<13} {c:<13} {b} architecture", "family"))?;
        for row in &families {
            print_line(&format!(
                "{:<24} {:<13} {:<13} {}",
                row.family,
                yes(row.directory),
                yes(true),
                row.gguf.as_deref().unwrap_or("-")
            ))?;
        }
        print_line(
            "\nA model in full precision becomes bf16 in a directory, or bf16, f16, f32 in a .gguf; with --ptq absmean\nit becomes a ternary one. A llama with norms inside its linear layers has no .gguf.\nLayouts need shapes that are multiples of their blocks: `convert --dry-run` says.\n",
        )?;
        print_line(&format!("{:<10} {a:<13} {b:<6} {c:<13} GGUF runs in", "--to"))?;
        for (form, held, runners) in outputs {
            let [x, y, z] = held.map(yes);
            print_line(&format!("{form:<10} {x:<13} {y:<6} {z:<13} {}", runners.join(", ")))?;
        }
        Ok(())
    }
}
