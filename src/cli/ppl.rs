//! `tritmark ppl`.

use crate::error::{Error, Result};

/// Measure perplexity, and how far two subjects lie apart.
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
