//! Files and directories that appear under their name only when they are complete.

use crate::error::{Error, Result};
use crate::files::{self, Unfinished};
use crate::interrupt::{self, Guard};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file or directory in the making, beside the place where it will stand.
pub struct Output {
    target: PathBuf,
    made: Made,
}

enum Made {
    File(Unfinished),
    Dir(TempDir, Guard),
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
        // A link to a folder is something that is there already.
        let there = if directory { target.symlink_metadata() } else { target.metadata() };
        if there.is_ok_and(|kind| directory || !kind.is_file()) {
            return Err(Error::Usage(format!("{} exists already; choose another name", target.display())));
        }
        let made = if directory {
            let dir = files::temporary_folder(target)?;
            let guard = interrupt::guard(dir.path());
            Made::Dir(dir, guard)
        } else {
            Made::File(Unfinished::create(target)?)
        };
        Ok(Self { target: target.into(), made })
    }

    /// Opens a file of `len` bytes; in a single-file output it is the one.
    pub fn file(&mut self, name: &str, len: u64) -> Result<OutputFile> {
        let (path, file) = match &mut self.made {
            Made::File(file) => (self.target.clone(), file.file().try_clone()),
            Made::Dir(dir, _) => {
                let path = dir.path().join(name);
                let file = File::create_new(&path);
                (path, file)
            }
        };
        let file = file.and_then(|file| file.set_len(len).map(|()| file)).map_err(|e| Error::io(&path, e))?;
        Ok(OutputFile { path, file })
    }

    /// Writes a small file beside those with tensors.
    pub fn side(&self, name: &str, content: &[u8]) -> Result<()> {
        let Made::Dir(dir, _) = &self.made else {
            return Err(Error::Bug(format!("no place for {name} beside a single file")));
        };
        let path = dir.path().join(name);
        if let Some(parent) = path.parent() {
            files::make_folder(parent)?;
        }
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        written.map_err(|e| Error::io(&path, e))
    }

    /// Gives the output its name; its files are finished.
    pub fn finish(self) -> Result<()> {
        match self.made {
            Made::File(file) => file.finish(),
            Made::Dir(dir, _guard) => {
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

    /// Brings it to the disk, before a name says that it is whole.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }
}
