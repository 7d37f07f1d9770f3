//! `tritmark report`.

use crate::error::{Error, Result};

/// Render records as HTML, Markdown, CSV and JSON.
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
