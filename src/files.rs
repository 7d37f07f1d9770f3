//! Writing files so that nobody ever sees half of one.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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
    let path = &target(path);
    let mut file = temporary(path)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(io)?;
    drop(buffered);
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

/// What a path leads to, if it is there.
fn target(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
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
