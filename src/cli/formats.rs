//! `tritmark formats`.

use super::common::{print_json, print_line};
use crate::checkpoint::families;
use crate::checkpoint::gguf::runtime::{Runtime, runs};
use crate::convert::Container;
use crate::error::Result;
use serde_json::json;
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

impl Args {
    /// Lists.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn run(self) -> Result<()> {
        let mut forms: Vec<String> = layout::ALL.iter().map(|l| l.name().to_owned()).collect();
        forms.extend(["bf16", "f16", "f32"].map(str::to_owned));
        let rows: Vec<_> = forms
            .iter()
            .map(|form| {
                let held = CONTAINERS.map(|(_, container)| container.forms().contains(form));
                let runners: Vec<_> = Runtime::ALL
                    .into_iter()
                    .filter(|&r| held[1] && runs(r, form))
                    .map(|r| r.to_string())
                    .collect();
                (form, held, runners)
            })
            .collect();
        let families: Vec<_> = families::ALL.iter().map(|f| f.name).collect();
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(form, held, runners)| {
                    json!({
                        "form": form, "hugging_face": held[0], "gguf": held[1], "safetensors": held[2],
                        "gguf_runtimes": runners,
                    })
                })
                .collect();
            return print_json(&json!({ "families": families, "outputs": rows }));
        }
        print_line("Every input converts to every output whose layout can hold its shapes.\n")?;
        print_line(&format!(
            "inputs: Hugging Face directories and .safetensors of {};",
            families.join(", ")
        ))?;
        print_line("        .gguf of bitnet, bitnet-25, bitnet-b1.58, llama, qwen3 in every form below;")?;
        print_line("        our own .safetensors; demo\n")?;
        let [a, b, c] = CONTAINERS.map(|(name, _)| name);
        print_line(&format!("{:<10} {a:<13} {b:<6} {c:<13} GGUF runs in", "--to"))?;
        for (form, held, runners) in rows {
            let [x, y, z] = held.map(|held| if held { "yes" } else { "-" });
            print_line(&format!("{form:<10} {x:<13} {y:<6} {z:<13} {}", runners.join(", ")))?;
        }
        Ok(())
    }
}
