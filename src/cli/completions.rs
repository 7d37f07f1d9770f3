//! `tritmark completions`.

use super::common::print_line;
use crate::cli::Cli;
use crate::error::Result;
use clap::CommandFactory;

/// Print a shell completion script.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tritmark completions bash > ~/.local/share/bash-completion/completions/tritmark"
)]
pub struct Args {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

impl Args {
    /// Prints the script.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn run(self) -> Result<()> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Cli::command(), "tritmark", &mut script);
        print_line(String::from_utf8_lossy(&script).trim_end())
    }
}
