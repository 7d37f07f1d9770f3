//! What one window gave, and the file that lets an interrupted run go on where it stopped.

use super::divergence::Pair;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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
    path: PathBuf,
    file: File,
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
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io(path, e))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
        let header = Header { ppl_state: 1, measurement: key.into() };
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let mut windows = Vec::new();
        for (number, line) in text[..complete].lines().enumerate() {
            let damaged = |e| {
                Error::input(
                    path,
                    format!("line {}: expected the state of a perplexity run: {e}", number + 1),
                )
                .hint("delete the file to start anew")
            };
            if number == 0 {
                let found: Header = serde_json::from_str(line).map_err(damaged)?;
                if found != header {
                    return Err(Error::Usage(format!(
                        "{}: this state belongs to another measurement\n  found    {}\n  expected {key}\n  delete the file or name another one",
                        path.display(),
                        found.measurement
                    )));
                }
            } else {
                windows.push(serde_json::from_str(line).map_err(damaged)?);
            }
        }
        // What an interrupted write left behind is cut off.
        file.set_len(complete as u64)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|e| Error::io(path, e))?;
        let mut state = Self { path: path.into(), file };
        if complete == 0 {
            state.line(&header)?;
        }
        Ok((state, windows))
    }

    /// Appends a finished window.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, window: &WindowScore) -> Result<()> {
        self.line(window)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).map_err(|e| Error::Bug(e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }
}
