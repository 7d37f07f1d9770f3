//! Logits of all scored positions as safetensors, written while they come.

use super::model::Rows;
use crate::error::{Error, Result};
use crate::files::{temporary, write_whole};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Bytes of the header with its length field; the format lets it end in spaces.
const HEADER: usize = 512;

/// A file of logits under a temporary name until [`LogitsFile::finish`].
pub struct LogitsFile {
    path: PathBuf,
    device: bool,
    file: NamedTempFile,
    /// Positions in the end.
    positions: usize,
    /// Logits a position; known with the first rows.
    vocab: usize,
    /// Names of the tensors of logits and positions written to each.
    written: Vec<(&'static str, usize)>,
    targets: Vec<u32>,
}

impl LogitsFile {
    /// Starts a file for so many positions.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn create(path: &Path, positions: usize) -> Result<Self> {
        // What is no file, a device or pipe, is given all at the end.
        let device = std::fs::metadata(path).is_ok_and(|kind| !kind.is_file());
        let file =
            if device { NamedTempFile::new().map_err(|e| Error::io(path, e))? } else { temporary(path)? };
        Ok(Self {
            path: path.into(),
            device,
            file,
            positions,
            vocab: 0,
            written: Vec::new(),
            targets: Vec::new(),
        })
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
        let mut header = serde_json::Map::new();
        for (i, (name, _)) in self.written.iter().enumerate() {
            let entry = serde_json::json!({"dtype": "F32", "shape": [self.positions, self.vocab], "data_offsets": [i * size, (i + 1) * size]});
            header.insert((*name).into(), entry);
        }
        let end = self.written.len() * size;
        let entry = serde_json::json!({"dtype": "U32", "shape": [self.positions], "data_offsets": [end, end + self.positions * 4]});
        header.insert("targets".into(), entry);
        let mut json = serde_json::Value::from(header).to_string().into_bytes();
        json.resize(HEADER - 8, b' ');
        let targets: Vec<u8> = self.targets.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.write_at(0, &(json.len() as u64).to_le_bytes())?;
        self.write_at(8, &json)?;
        self.write_at(HEADER + end, &targets)?;
        if self.device {
            let mut whole = self.file.reopen().map_err(|e| Error::io(&self.path, e))?;
            return write_whole(&self.path, |out| std::io::copy(&mut whole, out).map(drop));
        }
        self.file.persist(&self.path).map_err(|e| Error::io(&self.path, e.error))?;
        Ok(())
    }

    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(at as u64))
            .and_then(|_| file.write_all(bytes))
            .map_err(|e| Error::io(&self.path, e))
    }
}
