//! Files: read up to a limit, written so that nobody ever sees half of one, or a line at a time.

use crate::error::{Error, Result};
use crate::interrupt::{self, Guard};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// Writes a file under a temporary name in its folder and renames it once `write` is through and all of it is on the
/// disk. What a link leads to is replaced, not the link.
///
/// # Errors
/// If the folder cannot be written to, or `write` fails; there is no new file then.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<()> {
    let io = |e| Error::io(path, e);
    // A device or pipe is written to; a file in its place would take it away from everybody.
    if std::fs::metadata(path).is_ok_and(|kind| !kind.is_file() && !kind.is_dir()) {
        let mut file = File::options().write(true).open(path).map_err(io)?;
        let mut buffered = BufWriter::new(&mut file);
        return write(&mut buffered).and_then(|()| buffered.flush()).map_err(io);
    }
    let mut file = Unfinished::create(path)?;
    let mut buffered = BufWriter::new(file.file());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(io)?;
    drop(buffered);
    file.finish()
}

/// Reads a file of at most `most` bytes; a device may never end.
///
/// # Errors
/// If it is missing or larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_from(path, File::open(path).map_err(|e| Error::io(path, e))?, most)
}

/// As [`read`], from what was opened; `path` is for messages.
///
/// # Errors
/// As there.
pub fn read_from(path: &Path, source: impl Read, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > most {
        return Err(Error::input(path, format!("expected at most {most} bytes, found more")));
    }
    Ok(bytes)
}

/// As [`read`], of a file of text.
///
/// # Errors
/// As there, and if it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    text(path, read(path, most)?)
}

/// The text that bytes of a file are.
///
/// # Errors
/// If they are not UTF-8.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::input(path, format!("expected text in UTF-8, found an invalid byte at {at}"))
    })
}

/// A file under a temporary name in its folder, which an interrupt removes, until it is whole.
pub struct Unfinished {
    target: PathBuf,
    file: NamedTempFile,
    _guard: Guard,
}

impl Unfinished {
    /// Starts the file `path`. What a link leads to will be replaced, not the link.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let target = target(path);
        let file = temporary(&target)?;
        let guard = interrupt::guard(file.path());
        Ok(Self { target, file, _guard: guard })
    }

    /// The file to write to.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Gives it its name once all of it is on the disk.
    ///
    /// # Errors
    /// If the system refuses; there is no new file then.
    pub fn finish(self) -> Result<()> {
        let io = |e| Error::io(&self.target, e);
        self.file.as_file().sync_all().map_err(io)?;
        self.file.persist(&self.target).map(drop).map_err(|e| io(e.error))
    }
}

/// What a path leads to, through links.
fn target(path: &Path) -> PathBuf {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    path.canonicalize().unwrap_or_else(|_| {
        // They may lead to what is not there yet.
        let next = |link: &PathBuf| Some(parent(link).join(link.read_link().ok()?));
        std::iter::successors(Some(path.to_owned()), next)
            .take(LINKS)
            .last()
            .unwrap_or_else(|| path.to_owned())
    })
}

/// Whether two paths lead to one file, by whatever names.
pub fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).ok();
        id(a).is_some() && id(a) == id(b)
    }
    #[cfg(not(unix))]
    {
        a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
    }
}

/// Checks that files of these names can be written, before hours of work rest on it, and replace neither what is read
/// nor each other. Of a folder that is read, the files in it that models and texts are read from count.
///
/// # Errors
/// If one names a folder, its folder is not there or cannot be written to, or it would replace another.
pub fn writable(outputs: &[&Path], inputs: &[&Path]) -> Result<()> {
    let refuse = |output: &Path, why: String| {
        Err(Error::Usage(format!("{}: {why}; choose another name", output.display())))
    };
    let place =
        |output: &Path| (parent(output).canonicalize().ok(), output.file_name().map(ToOwned::to_owned));
    for (i, output) in outputs.iter().enumerate() {
        match std::fs::metadata(output) {
            Ok(kind) if kind.is_dir() => {
                return Err(Error::Usage(format!("{} is a folder; name a file to write", output.display())));
            }
            // A device or pipe takes what it is given.
            Ok(kind) if !kind.is_file() => continue,
            _ => drop(temporary(&target(output))?),
        }
        if outputs[..i].iter().any(|other| same_file(other, output) || place(other) == place(output)) {
            return refuse(output, "two outputs cannot be one file".into());
        }
        for input in inputs {
            let inside = std::fs::read_dir(input).into_iter().flatten().flatten().map(|entry| entry.path());
            let inside = inside.filter(|file| may_be_read(file));
            let replaced = inside.chain([input.to_path_buf()]).find(|file| same_file(file, output));
            if let Some(file) = replaced {
                return refuse(output, format!("the output would replace {}, which is read", file.display()));
            }
        }
    }
    Ok(())
}

/// Whether a file of this name in a folder may be part of a model or a text; what was measured of either may lie
/// beside it, and be written anew.
fn may_be_read(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let weights = name.starts_with("model") && name.contains(".safetensors");
    let ends = |end: &&str| name.ends_with(end);
    weights
        || name == "added_tokens.json"
        || [".txt", ".raw", ".md", ".model", "config.json", "tokenizer.json"].iter().any(ends)
}

/// Makes a folder for output, and those around it.
///
/// # Errors
/// If the system does not allow it.
pub fn make_folder(path: &Path) -> Result<()> {
    // That something is not there is no fault of an input here.
    std::fs::create_dir_all(path).map_err(|source| Error::Io { path: path.into(), source })
}

/// The folder that a file of this name would stand in, whether it is there or not.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder that a file of this name would stand in.
///
/// # Errors
/// If there is none.
pub fn folder(path: &Path) -> Result<&Path> {
    let folder = parent(path);
    match std::fs::metadata(folder) {
        Ok(kind) if kind.is_dir() => Ok(folder),
        Ok(_) => Err(Error::Usage(format!("{}: {} is no folder", path.display(), folder.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::Usage(format!("{}: there is no folder {}", path.display(), folder.display())))
        }
        Err(e) => Err(Error::io(folder, e)),
    }
}

/// How temporary names begin and end.
const PREFIX: &str = ".tritmark-";
const SUFFIX: &str = ".tmp";

/// Temporary files and folders beside `path` that a killed process left behind, or another one still writes.
pub fn left_behind(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent(path)).into_iter().flatten().flatten();
    let ours = entries.map(|e| e.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    });
    ours.collect()
}

/// A file under a temporary name in the folder of `path`; readable by whom the user's mask allows, unlike temporary
/// files that stay private.
///
/// # Errors
/// If the folder cannot be written to.
fn temporary(path: &Path) -> Result<NamedTempFile> {
    made(path, 0o666, |builder, folder| builder.tempfile_in(folder))
}

/// As [`temporary`], a folder.
///
/// # Errors
/// As there.
pub fn temporary_folder(path: &Path) -> Result<TempDir> {
    made(path, 0o777, |builder, folder| builder.tempdir_in(folder))
}

fn made<T>(
    path: &Path,
    mode: u32,
    make: impl FnOnce(&mut tempfile::Builder, &Path) -> std::io::Result<T>,
) -> Result<T> {
    let folder = folder(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    // The system's own words without the temporary name, which nobody asked for.
    make(&mut builder, folder).map_err(|e| Error::Io { path: path.into(), source: e.kind().into() })
}

/// A file of lines, one JSON value each, every one whole and on the disk before anything rests on it.
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Ok(Self { file: file.map_err(|e| Error::io(path, e))?, path: path.into() })
    }

    /// The file, to be locked.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The whole lines that stand in it; what a crash cut off is not among them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes));
        read.map_err(|e| Error::io(&self.path, e))?;
        bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        Ok(bytes)
    }

    /// Keeps the first `bytes` bytes alone; what is added stands after them.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn keep(&mut self, bytes: u64) -> Result<()> {
        let cut = self.file.set_len(bytes).and_then(|()| self.file.seek(SeekFrom::Start(bytes)));
        cut.map(drop).map_err(|e| Error::io(&self.path, e))
    }

    /// Adds a value.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).map_err(|e| Error::Bug(e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(|e| Error::io(&self.path, e))
    }
}
