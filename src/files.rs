//! Writing files so that nobody ever sees half of one.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file under a temporary name in its folder and renames it once `write` is through.
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
    let mut file = temporary(path)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(io)?;
    drop(buffered);
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

/// That files of these names can be written, before hours of work rest on it.
///
/// # Errors
/// If one names a folder, or its folder is not there or cannot be written to.
pub fn writable<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    paths.into_iter().try_for_each(|path| match std::fs::metadata(path) {
        Ok(kind) if kind.is_dir() => {
            Err(Error::Usage(format!("{} is a folder; name a file to write", path.display())))
        }
        Ok(kind) if !kind.is_file() => Ok(()),
        _ => temporary(path).map(drop),
    })
}

/// Makes a folder for output, and those around it.
///
/// # Errors
/// If the system does not allow it.
pub fn make_folder(path: &Path) -> Result<()> {
    // That something is not there is no fault of an input here.
    std::fs::create_dir_all(path).map_err(|source| Error::Io { path: path.into(), source })
}

/// The folder that a file of this name would stand in.
///
/// # Errors
/// If there is none.
pub fn folder(path: &Path) -> Result<&Path> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::metadata(folder) {
        Ok(kind) if kind.is_dir() => Ok(folder),
        Ok(_) => Err(Error::Usage(format!("{}: {} is no folder", path.display(), folder.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::Usage(format!("{}: there is no folder {}", path.display(), folder.display())))
        }
        Err(e) => Err(Error::io(folder, e)),
    }
}

/// A file under a temporary name in the folder of `path`, to be persisted there; readable by whom the
/// user's mask allows, unlike temporary files that stay private.
///
/// # Errors
/// If the folder cannot be written to.
pub fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = folder(path)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The system's own words without the temporary name, which nobody asked for.
    builder.tempfile_in(folder).map_err(|e| Error::Io { path: path.into(), source: e.kind().into() })
}
