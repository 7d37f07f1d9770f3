//! Options of llama-bench that people paste: what means nothing here is accepted and named, what would
//! change the meaning of the figures is refused with the reason.

use crate::error::{Error, Result};
use crate::model::BATCH;
use crate::record::rows::Format;
use std::ffi::OsString;

/// What follows an option.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    Value,
    /// A value, or nothing.
    Perhaps,
}
use Takes::{Nothing, Perhaps, Value};

/// Of an option that is not without effect the values with which it says what is so here anyway, and why no other.
type Refused = Option<(&'static [&'static str], &'static str)>;

/// An option that is none of ours: its short name or nothing, its long name, and what follows it.
type Known = (&'static str, &'static str, Takes, Refused);

/// Options of ours by their names there.
const OURS: [(&str, &str); 2] = [("-pg", "--pg"), ("-oe", "--output-err")];

const KNOWN: [Known; 49] = [
    ("-b", "--batch-size", Value, None),
    ("-ub", "--ubatch-size", Value, None),
    ("-ngl", "--n-gpu-layers", Value, None),
    ("-fa", "--flash-attn", Value, None),
    ("-fitt", "--fit-target", Value, None),
    ("-fitc", "--fit-ctx", Value, None),
    ("-ctk", "--cache-type-k", Value, Some((&["f32"], "the cache of keys holds f32 here"))),
    ("-ctv", "--cache-type-v", Value, Some((&["f32"], "the cache of values holds f32 here"))),
    ("-mmp", "--mmap", Value, None),
    ("-nkvo", "--no-kv-offload", Value, None),
    ("-sm", "--split-mode", Value, None),
    ("-mg", "--main-gpu", Value, None),
    ("-ts", "--tensor-split", Value, None),
    ("-ot", "--override-tensor", Value, None),
    ("-ncmoe", "--n-cpu-moe", Value, None),
    ("-nopo", "--no-op-offload", Value, None),
    ("-dio", "--direct-io", Value, None),
    ("-lm", "--load-mode", Value, None),
    ("-rpc", "--rpc", Value, Some((&[], "tritmark measures this machine alone"))),
    ("-dev", "--device", Value, Some((&["none"], "tritmark measures the CPU"))),
    ("-embd", "--embeddings", Value, Some((&["0"], "what is measured is text"))),
    ("-hf", "--hf-repo", Value, Some((&[], DOWNLOAD))),
    ("-hfr", "--hf-repo", Value, Some((&[], DOWNLOAD))),
    ("-hff", "--hf-file", Value, Some((&[], DOWNLOAD))),
    ("-hft", "--hf-token", Value, None),
    ("", "--delay", Value, None),
    ("", "--prio", Value, Some((&["0"], "set the priority from outside, e.g. with `nice`"))),
    ("", "--poll", Value, None),
    ("", "--numa", Value, Some((&[], "place the process from outside, e.g. with `numactl`"))),
    ("-C", "--cpu-mask", Value, Some((&["0x0"], "choose the CPUs from outside, e.g. with `taskset`"))),
    ("", "--cpu-strict", Value, Some((&["0"], "choose the CPUs from outside, e.g. with `taskset`"))),
    ("", "--no-host", Value, None),
    ("", "--progress", Nothing, None),
    ("-v", "--verbose", Nothing, None),
    ("", "--no-warmup", Nothing, None),
    ("", "--offline", Nothing, None),
    (
        "",
        "--list-devices",
        Nothing,
        Some((&[], "there is one device, this CPU; `tritmark doctor` tells what it can run")),
    ),
    // Of ik_llama.cpp.
    ("-gp", "--gp", Value, Some((&[], "generation after a prompt is asked for with -n and the depth -d"))),
    ("-rtr", "--run-time-repack", Value, None),
    ("-thp", "--transparent-huge-pages", Value, None),
    (
        "-tgb",
        "--threads-gen-batch",
        Value,
        Some((&[], "one number of threads reads prompts and generates: -t")),
    ),
    ("-mla", "--mla-attn", Value, None),
    ("-mmq", "--mul-mat-q", Value, None),
    ("-fmoe", "--fused-moe", Value, None),
    ("-ser", "--smart-expert-reduction", Value, None),
    ("-amb", "--attn-max-batch", Value, None),
    ("-nr", "--no-repack", Perhaps, None),
    ("", "--repack", Perhaps, None),
    ("-lzm", "--lazy-mode", Value, None),
];

const DOWNLOAD: &str = "nothing is downloaded here: name a model that is here with -m";

/// Arguments as this program has them. llama-bench also takes options of several letters behind a single dash, and
/// names with underscores; those that are none of ours go to [`LlamaBenchArgs`] as they were given.
pub fn ours(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.peekable();
    let mut all = Vec::new();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str().filter(|arg| arg.starts_with('-')) else {
            all.push(arg);
            continue;
        };
        let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
        let long = if name.starts_with("--") { name.replace('_', "-") } else { name.to_owned() };
        if let Some((_, takes, _)) = known(&long) {
            let value = match value.strip_prefix('=') {
                Some(value) => value.to_owned(),
                None if takes == Nothing => String::new(),
                None => args
                    .next_if(|next| {
                        let next = next.to_string_lossy();
                        // A negative number is a value.
                        !next.starts_with('-') || next[1..].starts_with(|c: char| c.is_ascii_digit())
                    })
                    .map(|value| value.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            };
            all.push(format!("--{LLAMA_BENCH}={name}={value}").into());
            continue;
        }
        let ours = OURS.iter().find(|(short, _)| *short == name).map_or(long, |(_, long)| (*long).to_owned());
        all.push(format!("{ours}{value}").into());
    }
    all
}

/// Our one option that holds those of llama-bench, each as `NAME=VALUE`.
const LLAMA_BENCH: &str = "llama-bench";

/// The long name of an option, if it is one of [`KNOWN`], what follows it, and why it is refused with which values.
fn known(name: &str) -> Option<(&'static str, Takes, Refused)> {
    let known = KNOWN.iter().find(|(short, long, ..)| *short == name || *long == name)?;
    Some((known.1, known.2, known.3))
}

/// See the module.
#[derive(Debug, clap::Args)]
pub struct LlamaBenchArgs {
    #[arg(long, hide = true, value_name = "NAME=VALUE")]
    llama_bench: Vec<String>,
    /// Write the rows to standard error too, in this form
    #[arg(long, hide = true, value_name = "FORMAT")]
    pub output_err: Option<Format>,
}

impl LlamaBenchArgs {
    /// A sentence that names the options given that have no effect here.
    ///
    /// # Errors
    /// If one was given that would change what the figures mean, or without its value.
    pub fn check(&self) -> Result<Option<String>> {
        let mut names: Vec<(&str, &str)> = Vec::new();
        for given in &self.llama_bench {
            let (name, value) = given.split_once('=').unwrap_or((given, ""));
            let Some((long, takes, refused)) = known(&name.replace('_', "-")) else {
                return Err(Error::Usage(format!(
                    "{name} is no option of llama-bench; see `tritmark bench --help`"
                )));
            };
            if takes == Value && value.is_empty() {
                return Err(Error::Usage(format!("{name}: a value is missing")));
            }
            if let Some((_, why)) = refused.filter(|(fine, _)| value.split(',').any(|v| !fine.contains(&v))) {
                let shown = if value.is_empty() { name.to_owned() } else { format!("{name} {value}") };
                return Err(Error::Usage(format!("{shown}: {why}; leave it out")));
            }
            if names.iter().all(|(known, _)| *known != long) {
                names.push((long, name));
            }
        }
        Ok((!names.is_empty()).then(|| {
            format!(
                "without effect here: {} (a prompt is read in batches of {BATCH}, all arms are warmed up, and nothing leaves the CPU)",
                names.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
            )
        }))
    }
}
