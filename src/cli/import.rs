//! `tritmark import`.

use crate::error::{Error, Result};

/// Read results of other programs as foreign rows.
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
