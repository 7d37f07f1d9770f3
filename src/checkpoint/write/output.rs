//! Files and directories that appear under their name only when they are complete.

use super::interrupt::{self, Guard};
use crate::error::{Error, Result};
use crate::files;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// A file or directory in the making, beside the place where it will stand.
pub struct Output {
    target: PathBuf,
    made: Made,
    _temporary: Guard,
}

/// How temporary names begin and end.
const PREFIX: &str = ".tritmark-";
const SUFFIX: &str = ".tmp";

/// Temporary files and directories beside `target` that a killed process left behind, or another one
/// still writes.
pub fn left_behind(target: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(files::parent(target)).into_iter().flatten().flatten();
    let ours = entries.map(|e| e.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    });
    ours.collect()
}

enum Made {
    File(NamedTempFile),
    Dir(TempDir),
}

/// A file in the making.
pub struct OutputFile {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Starts one. A file may replace an older one, a directory may not. What a link leads to is
    /// replaced, not the link.
    pub fn create(target: &Path, directory: bool) -> Result<Self> {
        let there = target.symlink_metadata().ok();
        let link = there.as_ref().is_some_and(|kind| kind.is_symlink());
        let target = &match link && !directory {
            true => target.canonicalize().map_err(|e| Error::io(target, e))?,
            false => target.to_owned(),
        };
        let there = there.and_then(|_| target.symlink_metadata().ok());
        if there.is_some_and(|kind| directory || !kind.is_file()) {
            return Err(Error::Usage(format!("{} exists already; choose another name", target.display())));
        }
        let parent = files::folder(target)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        // The modes that any new file or directory has; the process' mask still applies.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = if directory { 0o777 } else { 0o666 };
            builder.permissions(std::fs::Permissions::from_mode(mode));
        }
        let made = match directory {
            true => builder.tempdir_in(parent).map(Made::Dir),
            false => builder.tempfile_in(parent).map(Made::File),
        };
        let made = made.map_err(|e| Error::Io { path: target.into(), source: e.kind().into() })?;
        let temporary = interrupt::guard(match &made {
            Made::File(file) => file.path(),
            Made::Dir(dir) => dir.path(),
        })?;
        Ok(Self { target: target.into(), made, _temporary: temporary })
    }

    /// Opens a file of `len` bytes; in a single-file output it is the one.
    pub fn file(&self, name: &str, len: u64) -> Result<OutputFile> {
        let (path, file) = match &self.made {
            Made::File(temp) => (self.target.clone(), temp.as_file().try_clone()),
            Made::Dir(dir) => {
                let path = dir.path().join(name);
                let file = File::create_new(&path);
                (path, file)
            }
        };
        let file = file.and_then(|file| file.set_len(len).map(|()| file)).map_err(|e| Error::io(&path, e))?;
        Ok(OutputFile { path, file })
    }

    /// Where a file of a directory output stands for now.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.made {
            Made::File(temp) => temp.path().into(),
            Made::Dir(dir) => dir.path().join(name),
        }
    }

    /// Writes a small file beside those with tensors.
    pub fn side(&self, name: &str, content: &[u8]) -> Result<()> {
        let Made::Dir(dir) = &self.made else {
            return Err(Error::Bug(format!("no place for {name} beside a single file")));
        };
        let path = dir.path().join(name);
        if let Some(parent) = path.parent() {
            files::make_folder(parent)?;
        }
        std::fs::write(&path, content).map_err(|e| Error::io(&path, e))
    }

    /// Gives the output its name.
    pub fn finish(self) -> Result<()> {
        match self.made {
            Made::File(temp) => {
                // On the disk before the name says that it is whole.
                temp.as_file().sync_all().map_err(|e| Error::io(&self.target, e))?;
                temp.persist(&self.target).map(drop).map_err(|e| Error::io(&self.target, e.error))
            }
            Made::Dir(dir) => {
                for entry in std::fs::read_dir(dir.path()).map_err(|e| Error::io(dir.path(), e))?.flatten() {
                    let path = entry.path();
                    let synced = File::open(&path).and_then(|file| file.sync_all());
                    synced.map_err(|e| Error::io(&path, e))?;
                }
                std::fs::rename(dir.path(), &self.target).map_err(|e| Error::io(&self.target, e))?;
                // Nothing stands under the temporary name any more, so there is nothing to remove.
                let _ = dir.keep();
                Ok(())
            }
        }
    }
}

impl OutputFile {
    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        #[cfg(unix)]
        let result = std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset);
        #[cfg(windows)]
        let result = (|| {
            let mut done = 0;
            while done < bytes.len() {
                let at = offset + done as u64;
                done += std::os::windows::fs::FileExt::seek_write(&self.file, &bytes[done..], at)?;
            }
            Ok(())
        })();
        result.map_err(|e| Error::io(&self.path, e))
    }
}
