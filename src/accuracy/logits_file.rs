//! Logits of all scored positions as safetensors, written while they come.

use super::model::Rows;
use crate::checkpoint::safetensors;
use crate::error::{Error, Result};
use crate::files::{Unfinished, write_whole};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of the header with its length field; the format lets it end in spaces.
const HEADER: usize = 512;

/// A file of logits under a temporary name until [`LogitsFile::finish`].
pub struct LogitsFile {
    path: PathBuf,
    file: Made,
    /// Positions in the end.
    positions: usize,
    /// Logits a position; known with the first rows.
    vocab: usize,
    /// Names of the tensors of logits and positions written to each.
    written: Vec<(&'static str, usize)>,
    targets: Vec<u32>,
}

enum Made {
    File(Unfinished),
    Device(File),
}

impl LogitsFile {
    /// Starts a file for so many positions.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn create(path: &Path, positions: usize) -> Result<Self> {
        // What is no file, a device or pipe, is given all at the end.
        let file = match std::fs::metadata(path).is_ok_and(|kind| !kind.is_file()) {
            true => Made::Device(tempfile::tempfile().map_err(|e| Error::io(path, e))?),
            false => Made::File(Unfinished::create(path)?),
        };
        Ok(Self { path: path.into(), file, positions, vocab: 0, written: Vec::new(), targets: Vec::new() })
    }

    /// Appends rows to a tensor; `targets[i]` follows position i of the window.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn push(&mut self, tensor: &'static str, rows: &Rows, targets: &[u32]) -> Result<()> {
        self.vocab = rows.vocab;
        let index = self.written.iter().position(|w| w.0 == tensor).unwrap_or_else(|| {
            self.written.push((tensor, 0));
            self.written.len() - 1
        });
        let count = rows.logits.len() / rows.vocab;
        if index == 0 {
            self.targets.extend_from_slice(&targets[rows.first..rows.first + count]);
        }
        let at = HEADER + (index * self.positions + self.written[index].1) * self.vocab * 4;
        self.written[index].1 += count;
        let bytes: Vec<u8> = rows.logits.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write_at(at, &bytes)
    }

    /// Writes what is left and gives the file its name.
    ///
    /// # Errors
    /// If that fails.
    pub fn finish(mut self) -> Result<()> {
        let size = self.positions * self.vocab * 4;
        let shape = [self.positions, self.vocab];
        let logits = self.written.iter().map(|(name, _)| (*name, "F32", &shape[..], size as u64));
        let targets = ("targets", "U32", &shape[..1], 4 * self.positions as u64);
        let header = safetensors::header(None, logits.chain([targets]), HEADER);
        if header.len() != HEADER {
            return Err(Error::Bug(format!(
                "the header of {} takes {} bytes",
                self.path.display(),
                header.len()
            )));
        }
        self.write_at(0, &header)?;
        let targets: Vec<u8> = self.targets.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.write_at(HEADER + self.written.len() * size, &targets)?;
        match self.file {
            Made::File(file) => file.finish(),
            Made::Device(mut file) => {
                file.rewind().map_err(|e| Error::io(&self.path, e))?;
                write_whole(&self.path, |out| std::io::copy(&mut file, out).map(drop))
            }
        }
    }

    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let file = match &mut self.file {
            Made::File(file) => file.file(),
            Made::Device(file) => file,
        };
        file.seek(SeekFrom::Start(at as u64))
            .and_then(|_| file.write_all(bytes))
            .map_err(|e| Error::io(&self.path, e))
    }
}
