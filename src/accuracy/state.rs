//! What one window gave, and the file that lets an interrupted run go on where it stopped.

use super::divergence::Pair;
use crate::error::{Error, Result};
use crate::files::Lines;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Scores of one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowScore {
    /// Its place in the text's windows.
    pub index: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// Negative log-likelihood of each scored token, nats.
    pub nll: Vec<f64>,
    /// Comparison with the reference, where there is one.
    pub pair: Option<Pair>,
}

/// Finished windows on disk, every f64 exactly: a line of JSON that says what is measured, then a line for each window.
/// Only complete lines count, so the file is valid whenever the program is stopped.
pub struct State {
    lines: Lines,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Header {
    ppl_state: u32,
    measurement: String,
}

impl State {
    /// Opens or creates the file for the measurement named `key` and returns the windows it holds.
    ///
    /// # Errors
    /// If it belongs to another measurement, is damaged, or cannot be read or written.
    pub fn open(path: &Path, key: &str) -> Result<(Self, Vec<WindowScore>)> {
        if std::fs::metadata(path).is_ok_and(|kind| !kind.is_file()) {
            return Err(Error::input(
                path,
                "expected a regular file to keep the state in, found a directory, device or pipe; name another one",
            ));
        }
        let mut lines = Lines::open(path)?;
        let text = lines.read()?;
        let header = Header { ppl_state: 1, measurement: key.into() };
        let mut windows = Vec::new();
        for (number, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
            let damaged = |e| {
                Error::input(
                    path,
                    format!("line {}: expected the state of a perplexity run: {e}", number + 1),
                )
                .hint("delete the file to start anew")
            };
            if number == 0 {
                let found: Header = serde_json::from_slice(line).map_err(damaged)?;
                if found != header {
                    return Err(Error::Usage(format!(
                        "{}: this state belongs to another measurement\n  found    {}\n  expected {key}\n  delete the file or name another one",
                        path.display(),
                        found.measurement
                    )));
                }
            } else {
                windows.push(serde_json::from_slice(line).map_err(damaged)?);
            }
        }
        // What an interrupted write left behind is cut off.
        lines.keep(text.len() as u64)?;
        if text.is_empty() {
            lines.push(&header)?;
        }
        Ok((Self { lines }, windows))
    }

    /// Appends a finished window.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, window: &WindowScore) -> Result<()> {
        self.lines.push(window)
    }
}
