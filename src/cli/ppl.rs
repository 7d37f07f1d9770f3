//! `tritmark ppl`.

use super::common::{KernelArgs, TextArgs, print_json, print_line, progress, record_accuracy};
use crate::accuracy::{self, Convention, LanguageModel, Named, Options};
use crate::checkpoint::{Checkpoint, demo};
use crate::error::{Error, Result};
use crate::files::writable;
use crate::machine::Watch;
use crate::model::{Head, Model};
use crate::record::{self, Accuracy, Arm, Divergence, Subject};
use crate::words::{counted, hex};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Measure perplexity, and how far two subjects lie apart.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tritmark ppl demo --limit 16
  tritmark ppl models/2b4t wiki.test.raw --n-ctx 512 --state wiki.state
  tritmark ppl models/2b4t wiki.test.raw --convention hf-2048 --stride 512
  tritmark ppl demo --limit 16 --against reference:full
  tritmark ppl demo --head q6_k --against head:as-is
  tritmark ppl ternary/ test.txt --against full-precision/

Conventions:
  llama.cpp  windows of --n-ctx tokens, each begun with BOS, their second half scored
  hf-N       windows of N tokens that do not overlap, every prediction inside a window scored;
             with --stride each token is scored once with the longest context at hand

--against gives the divergence KL(reference‖subject) over the whole vocabulary, paired differences
of log-likelihood, how often both have the same first choice, and the mean share of the
reference's first five choices that are among the subject's first five.")]
pub struct Args {
    /// Model
    model: String,
    /// Texts: files, directories (the .txt, .raw and .md files in and below them), or - [default for the
    /// demos: their test text]
    texts: Vec<PathBuf>,
    /// Convention: llama.cpp or hf-N
    #[arg(long, default_value = "llama.cpp")]
    convention: String,
    /// Window length of the llama.cpp convention, in tokens [default: 512]
    #[arg(short = 'c', long, value_name = "N")]
    n_ctx: Option<usize>,
    /// Distance of the windows' starts (hf-N only) [default: N]
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Only so many windows from the start
    #[arg(long, value_name = "WINDOWS")]
    limit: Option<usize>,
    /// Compare with reference:int8 or reference:full (candle, f32), kernel:NAME, layout:NAME, head:PRECISION,
    /// or another MODEL
    #[arg(long, value_name = "REF")]
    against: Option<String>,
    /// Measure the candle reference instead of our kernels: with int8 activations, or with full ones by
    /// --reference=full; not with --kernel or --head
    #[arg(long, value_name = "ACTIVATIONS", num_args = 0..=1, require_equals = true, default_missing_value = "int8")]
    #[arg(value_parser = ["int8", "full"], conflicts_with_all = ["kernel", "head"])]
    reference: Option<String>,
    /// Keep finished windows in this file, and go on from it if it exists
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write the logits of all scored positions as safetensors; not with --state, since windows that are
    /// done already would be missing in it
    #[arg(long, value_name = "FILE")]
    save_logits: Option<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    open: TextArgs,
    /// Write the whole record, for `report`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Leave host names and folders out of the record (needs --record)
    #[arg(long, requires = "record")]
    anonymise: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A model, what tells it apart from others, and what it is in a record.
struct Loaded {
    name: String,
    /// What records call it where another one is held against it, as those of `run` do.
    recorded: String,
    files: String,
    subject: Subject,
    model: Box<dyn LanguageModel>,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model or text cannot be read, the options do not fit each other, or scoring fails.
    pub fn run(self) -> Result<()> {
        let outputs = self.record.iter().chain(&self.save_logits).chain(&self.state).map(PathBuf::as_path);
        let models = [&self.model].into_iter().chain(&self.against).map(Path::new);
        let texts = self.texts.iter().map(PathBuf::as_path).chain(self.open.inputs());
        let inputs: Vec<&Path> = texts.chain(models).collect();
        writable(&outputs.collect::<Vec<_>>(), &inputs)?;
        let (watch, started) = (Watch::start(), record::now());
        let convention = Convention::parse(&self.convention, self.n_ctx.unwrap_or(512), self.stride)?;
        if let (Convention::Hf { len, .. }, Some(n)) = (convention, self.n_ctx) {
            return Err(Error::Usage(format!(
                "--n-ctx {n} is of the convention llama.cpp; windows of hf-{len} are {len} tokens long: leave it out, \
                 or use --convention hf-{n}"
            )));
        }
        let checkpoint = self.open.open(&self.model)?;
        let (text_name, source) = self.source()?;
        let text = convention.tokenise(&text_name, source.clone(), &checkpoint)?;

        let Loaded { name, files, subject, mut model, .. } = match &self.reference {
            Some(mode) => self.load_reference(&checkpoint, mode)?,
            None => self.load(&checkpoint, &self.kernel)?,
        };
        let mut reference = match &self.against {
            Some(reference) => Some(self.load_against(&checkpoint, reference, &|other| {
                convention.tokenise(&text_name, source.clone(), other).map(|t| t.ids == text.ids)
            })?),
            None => None,
        };

        let options = Options {
            limit: self.limit,
            state: self.state.clone(),
            files: reference.iter().fold(format!("; {files}"), |all, r| format!("{all}, {}", r.files)),
            save_logits: self.save_logits.clone(),
        };
        let bar = progress(0, "perplexity");
        let result = accuracy::measure(
            Named { name: name.clone(), model: model.as_mut() },
            reference.as_mut().map(|r| Named { name: r.name.clone(), model: r.model.as_mut() }),
            &text,
            convention,
            &options,
            &mut |now| {
                bar.set_length(now.total as u64);
                bar.set_position(now.done as u64);
                bar.set_message(format!("{:.4} ± {:.4}", now.ppl, now.stderr));
            },
        )?;
        bar.finish_and_clear();

        if let Some(path) = &self.record {
            let test = convention.test(&text.name, self.limit);
            let mut accuracy = result.clone();
            if let (Some(against), Some(reference)) = (&mut accuracy.against, &reference) {
                against.reference = reference.recorded.clone();
            }
            let arm = Arm { accuracy: Some(accuracy), ..Arm::new(subject, test) };
            record_accuracy(path, &watch, started, &checkpoint, vec![arm], self.anonymise)?;
        }
        if self.json {
            return print_json(&serde_json::json!({
                "model": self.model, "subject": name, "text": text.name,
                "text_tokens": text.ids.len(), "convention": convention.to_string(), "n_ctx": convention.n_ctx(),
                "method": convention.describe(), "accuracy": result,
            }));
        }
        print_line(&format!("subject        {name}"))?;
        print_line(&format!("text           {} ({} tokens with BOS)", text.name, text.ids.len()))?;
        print_line(&format!("convention     {}", convention.describe()))?;
        print_result(&result)
    }

    /// The text and its name.
    fn source(&self) -> Result<(String, String)> {
        Ok(match self.texts.as_slice() {
            [] if demo::is(&self.model) => ("demo test text".to_owned(), demo::TEXT.to_owned()),
            [] => {
                return Err(Error::Usage(
                    "no text given: name files, directories, or - for standard input\n  only `demo` and `demo-full` bring a text of their own".into(),
                ));
            }
            texts => {
                let names: Vec<_> =
                    texts.iter().map(|t| t.file_name().unwrap_or(t.as_os_str()).to_string_lossy()).collect();
                texts.iter().filter(|t| t.is_dir()).try_for_each(|t| name_skipped(t))?;
                (names.join("+"), accuracy::read_text(texts)?)
            }
        })
    }

    fn load(&self, checkpoint: &Checkpoint, kernel: &KernelArgs) -> Result<Loaded> {
        let model = kernel.load(checkpoint)?;
        let (kernel, head) = (model.kernel(), model.head_precision());
        let name = format!(
            "{}, kernel {kernel}, {} activations, head {head}",
            title(checkpoint),
            activations(&model)
        );
        let subject = Subject::of(&record::Model::id_of(checkpoint), &model);
        let recorded = match subject.head() {
            Some(_) => subject.to_string(),
            None => format!("{subject}, head {head}"),
        };
        Ok(Loaded { name, recorded, files: files(checkpoint), subject, model: Box::new(model) })
    }

    #[cfg(feature = "reference")]
    fn load_reference(&self, checkpoint: &Checkpoint, mode: &str) -> Result<Loaded> {
        use crate::reference::{ActivationMode, Reference};
        let mode = match mode {
            "int8" => ActivationMode::Int8,
            "full" => ActivationMode::Full,
            _ => return Err(Error::Usage(format!("unknown activations '{mode}': expected int8 or full"))),
        };
        let words = if mode == ActivationMode::Int8 { "int8" } else { "full-precision" };
        let model = Reference::load(checkpoint, mode)?;
        let subject = Subject::candle(&record::Model::id_of(checkpoint), mode);
        Ok(Loaded {
            name: format!("{}, candle f32, {words} activations", title(checkpoint)),
            recorded: subject.to_string(),
            files: files(checkpoint),
            subject,
            model: Box::new(model),
        })
    }

    #[cfg(not(feature = "reference"))]
    fn load_reference(&self, _: &Checkpoint, _: &str) -> Result<Loaded> {
        Err(Error::Usage("this program was built without the candle reference (feature `reference`)".into()))
    }

    fn load_against(
        &self,
        checkpoint: &Checkpoint,
        reference: &str,
        same_tokens: &dyn Fn(&Checkpoint) -> Result<bool>,
    ) -> Result<Loaded> {
        match reference.split_once(':') {
            Some(("reference", mode)) => self.load_reference(checkpoint, mode),
            None if reference == "reference" => self.load_reference(checkpoint, "int8"),
            Some(("kernel" | "layout", name)) => {
                self.load(checkpoint, &KernelArgs { kernel: Some(name.into()), ..self.kernel.clone() })
            }
            Some(("head", name)) => {
                let head = <Head as clap::ValueEnum>::from_str(name, false).map_err(|_| {
                    let known = <Head as clap::ValueEnum>::value_variants().iter().map(|h| h.name());
                    let known: Vec<_> = known.collect();
                    Error::Usage(format!("unknown head '{name}': expected one of {}", known.join(", ")))
                })?;
                self.load(checkpoint, &KernelArgs { head, ..self.kernel.clone() })
            }
            Some((prefix, _))
                if !Path::new(reference).exists() && prefix.chars().all(char::is_alphabetic) =>
            {
                Err(Error::Usage(format!(
                    "unknown reference '{reference}': expected reference:int8, reference:full, kernel:NAME, layout:NAME, \
                     head:PRECISION, or a model"
                )))
            }
            _ => {
                let mut other = Checkpoint::open(reference)?;
                self.open.give_tokenizer(&mut other)?;
                if !same_tokens(&other)? {
                    return Err(Error::NotComparable(format!(
                        "{} and {reference} split this text into different tokens: their distributions cannot be compared; compare bits per byte instead",
                        self.model
                    )));
                }
                let loaded = self.load(&other, &self.kernel)?;
                let recorded = format!("{}: {}", record::Model::id_of(&other), loaded.subject);
                Ok(Loaded { recorded, ..loaded })
            }
        }
    }
}

/// Says on standard error which files of a directory of texts are left out.
fn name_skipped(directory: &Path) -> Result<()> {
    let (texts, skipped) = accuracy::text_files(directory)?;
    let shown: Vec<_> = skipped.iter().take(3).map(|p| p.display().to_string()).collect();
    if !shown.is_empty() {
        let more = if skipped.len() > shown.len() { ", …" } else { "" };
        let _ = writeln!(
            std::io::stderr(),
            "note: {}: {}; left out {} not called .txt, .raw or .md: {}{more}",
            directory.display(),
            counted(texts.len() as u64, "text"),
            counted(skipped.len() as u64, "file"),
            shown.join(", ")
        );
    }
    Ok(())
}

/// How a model takes the activations of its matrices.
fn activations(model: &Model) -> &'static str {
    // Only ternary matrices have kernels, and all of those multiply int8.
    if model.kernel().contains('/') { "int8" } else { "full-precision" }
}

fn title(checkpoint: &Checkpoint) -> String {
    format!("{} ({})", checkpoint.provenance.name, checkpoint.provenance.dialect)
}

/// What tells a checkpoint from a changed one: its configuration, the size of its files and when they were written.
fn files(checkpoint: &Checkpoint) -> String {
    let origin = &checkpoint.provenance;
    let (mut bytes, mut changed) = (0, 0);
    for meta in origin.files.iter().filter_map(|f| f.metadata().ok()) {
        bytes += meta.len();
        let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        changed = modified.map_or(changed, |t| changed.max(t.as_secs()));
    }
    let config = hex(&Sha256::digest(format!("{:?}", checkpoint.config)));
    format!("{bytes} bytes written at {changed}, configuration {config:.12}")
}

fn print_result(a: &Accuracy) -> Result<()> {
    print_line(&format!("perplexity     {:.4} ± {:.4}", a.ppl, a.ppl_stderr))?;
    print_line(&format!("nll            {:.6} nats a token (bits {})", a.nll, a.nll_bits))?;
    match a.bits_per_byte {
        Some(bits) => {
            print_line(&format!("bits per byte  {bits:.4} (of the bytes that the scored tokens stand for)"))?
        }
        None => print_line("bits per byte  not measured: the text's bytes are not known")?,
    }
    print_line(&format!(
        "scored         {} in {}",
        counted(a.scored, "token"),
        counted(a.windows, "window")
    ))?;
    print_line(&format!(
        "time           {:.1} s ({:.0} tokens scored a second)",
        a.seconds,
        a.scored as f64 / a.seconds
    ))?;
    a.against.as_ref().map_or(Ok(()), print_divergence)
}

fn print_divergence(d: &Divergence) -> Result<()> {
    print_line(&format!("\nagainst        {}", d.reference))?;
    // No logit differs at all, so that no token is worse than another.
    if d.logit_max == 0.0 {
        return print_line(&format!("equal          bit for bit: every logit at {} positions", d.positions));
    }
    print_line(&format!("KL(reference‖subject)  mean {:.3e}, max {:.3e} nats a token", d.kl_mean, d.kl_max))?;
    let percentiles: Vec<_> = d.kl_percentiles.iter().map(|(p, v)| format!("{p} %: {v:.3e}")).collect();
    print_line(&format!("  percentiles  {}", percentiles.join(", ")))?;
    print_line(&format!(
        "Δ nll          {:+.6} ± {:.6} nats a token (paired)",
        d.delta_nll, d.delta_nll_stderr
    ))?;
    print_line(&format!("|Δ logit|      mean {:.3e}, max {:.3e}", d.logit_mean, d.logit_max))?;
    print_line(&format!(
        "agreement      same first choice {:.3} %, mean overlap of the first five {:.3} % ({} positions)",
        100.0 * d.top1,
        100.0 * d.top5,
        d.positions
    ))?;
    print_line("worst tokens   KL, nll, reference nll, token in context")?;
    for w in &d.worst {
        print_line(&format!(
            "  {:>9.2e} {:>7.3} {:>7.3}  …{:?} → {:?}",
            w.kl, w.nll, w.reference_nll, w.context, w.token
        ))?;
    }
    Ok(())
}
