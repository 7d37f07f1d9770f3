//! `tritmark eval`.

use crate::error::{Error, Result};

/// Score multiple-choice tasks by log-likelihood.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// As the parts say.
    pub fn run(self) -> Result<()> {
        Err(Error::Bug("not written yet".into()))
    }
}
