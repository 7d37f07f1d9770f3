//! `tritmark verify`.

use crate::error::{Error, Result};

/// Prove that two checkpoints are the same model, or one self-consistent.
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
