//! The command line: one file a subcommand, holding its arguments, its help with an example, and its
//! printing, and what they share.

mod bench;
mod common;
mod compare;
mod completions;
mod convert;
mod doctor;
mod embed;
mod eval;
mod formats;
mod generate;
mod import;
mod inspect;
mod llama_bench;
mod logits;
mod merge;
mod ppl;
mod report;
mod run;
mod synth;
mod verify;

use crate::error::{Error, Result};
use crate::machine::tuning;
use clap::{Parser, Subcommand};

/// Convert, prove and measure ternary (1.58-bit, BitNet) language models on CPUs.
#[derive(Debug, Parser)]
#[command(name = "tritmark", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
A MODEL is a Hugging Face directory, a .safetensors, a .gguf, `demo` (a small trained BitNet
inside this program), or `demo-full` (its full-precision twin); 'MODEL --ptq absmean' is a
full-precision one made ternary. --family and --dialect may stand in the name as well.

Exit codes: 0 fine; 1 a regression or a failed proof; 2 usage; 3 inconclusive; 4 not comparable;
5 bad input file; 70 a bug of ours; 74 the system refused to read, write, or give memory or a thread;
128 + n stopped by signal n.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, in the order of the data's way.
#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Convert(convert::Args),
    Verify(verify::Args),
    Formats(formats::Args),
    Ppl(ppl::Args),
    Eval(eval::Args),
    Bench(Box<bench::Args>),
    Run(run::Args),
    Report(report::Args),
    Compare(compare::Args),
    Merge(merge::Args),
    Import(import::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Logits(logits::Args),
    Embed(embed::Args),
    Synth(synth::Args),
    Completions(completions::Args),
}

/// Runs the program with the process' arguments.
///
/// # Errors
/// Whatever the subcommand says; usage errors of clap end the process with code 2 by themselves.
pub fn run() -> Result<()> {
    let of_bench = std::env::args_os().nth(1).is_some_and(|command| command == "bench");
    let args = std::env::args_os();
    let args = if of_bench { llama_bench::ours(args) } else { args.collect() };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => usage.exit(),
        Err(help) => return help.print().map_err(|e| Error::io("standard output", e)),
    };
    if let Some(reason) = tuning::use_stored() {
        common::say(&reason);
    }
    match cli.command {
        Command::Inspect(args) => args.run(),
        Command::Convert(args) => args.run(),
        Command::Verify(args) => args.run(),
        Command::Formats(args) => args.run(),
        Command::Ppl(args) => args.run(),
        Command::Eval(args) => args.run(),
        Command::Bench(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Report(args) => args.run(),
        Command::Compare(args) => args.run(),
        Command::Merge(args) => args.run(),
        Command::Import(args) => args.run(),
        Command::Doctor(args) => args.run(),
        Command::Generate(args) => args.run(),
        Command::Logits(args) => args.run(),
        Command::Embed(args) => args.run(),
        Command::Synth(args) => args.run(),
        Command::Completions(args) => args.run(),
    }
}
