//! `tritmark doctor`.

use crate::error::{Error, Result};

/// Show what this machine is, which kernels it runs, and its limits.
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
