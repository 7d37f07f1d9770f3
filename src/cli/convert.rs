//! `tritmark convert`.

use crate::error::{Error, Result};

/// Convert a checkpoint to another layout or container, losslessly.
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
