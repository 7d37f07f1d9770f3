//! `tritmark logits`.

use crate::error::{Error, Result};

/// Write the logits of token ids, to compare with other software.
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
