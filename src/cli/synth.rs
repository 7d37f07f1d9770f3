//! `tritmark synth`.

use crate::error::{Error, Result};

/// Make a checkpoint of any shape with random trits.
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
