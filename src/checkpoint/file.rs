//! Files as bytes: mapped when they hold tensors, read whole when they are small.

use crate::error::{Error, Result};
use crate::files;
use std::fs::{File, Metadata};
use std::ops::Deref;
use std::path::Path;

/// The bytes of a model file.
#[derive(Debug)]
pub enum Bytes {
    /// A file mapped read-only.
    Mapped(memmap2::Mmap),
    /// Bytes inside the program.
    Embedded(&'static [u8]),
    /// Bytes in memory.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Gives back the memory that a mapping takes; it is read again from the file when it is needed. So a
    /// file larger than memory can be gone through without pushing out everything else.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            // SAFETY: "don't need" loses what was written to a mapping. This one is read-only and has a
            // file behind it, so the same bytes come back at the next access.
            let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Only advice: nothing is wrong where the system does not take it.
            drop(advised);
        }
    }
}

/// What stands at a path.
///
/// # Errors
/// If there is nothing, or the system refuses to tell.
pub fn metadata(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|e| Error::io(path, e))
}

/// Largest index or tokenizer file that is read.
pub const TOKENIZER_LIMIT: u64 = 256 << 20;

/// Opens what must be a regular file and returns it with its length.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    // Asked before opening: to open a pipe would wait for its writer.
    let kind = metadata(path)?;
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "a device or pipe" };
        return Err(Error::input(path, format!("expected a regular file, found {found}")));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    Ok((file, kind.len()))
}

/// Maps a whole file read-only.
///
/// The file must not be shortened while it is in use: as with any mapping, the system then ends
/// the program.
///
/// # Errors
/// If it is missing, empty, or no regular file.
pub fn map(path: &Path) -> Result<Bytes> {
    let (file, len) = open_regular(path)?;
    if len == 0 {
        return Err(Error::input(path, "the file is empty").hint("Download it again."));
    }
    // SAFETY: the mapping is private and read-only and lives as long as the `Mmap` that owns it. That
    // another process changes the file meanwhile cannot be excluded: every length and offset is
    // checked against the mapping's own fixed length, and tensor bytes are only ever copied out as
    // integers or floats, for which any bit pattern is valid.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Bytes::Mapped(map))
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// If it is missing, larger, or no regular file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    files::read_from(path, open_regular(path)?.0, limit)
}
