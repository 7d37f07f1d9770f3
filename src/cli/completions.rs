//! `tritmark completions`.

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
    /// Never.
    pub fn run(self) -> Result<()> {
        clap_complete::generate(self.shell, &mut Cli::command(), "tritmark", &mut std::io::stdout());
        Ok(())
    }
}
