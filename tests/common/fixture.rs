//! Checkpoints with what is expected of them.

use super::folders::folders;
use std::fmt;
use std::path::{Path, PathBuf};
use tritmark::checkpoint::config::LinearKind;
use tritmark::checkpoint::{Checkpoint, OpenOptions};

/// A checkpoint with what is expected of it.
pub struct Fixture(PathBuf);

impl fmt::Display for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Fixture {
    /// Every checkpoint in the [`folders`].
    pub fn all() -> Vec<Fixture> {
        let mut found = vec![];
        for folder in folders() {
            let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let paths = entries.map(|e| e.unwrap().path()).chain([folder]);
            found
                .extend(paths.filter(|p| {
                    p.join("config.json").is_file() && p.join("expected_ternary.json").is_file()
                }));
        }
        found.sort();
        found.into_iter().map(Fixture).collect()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Opens a fixture. All of them are ternary: one that does not say so holds masters, which must be
/// stated.
pub fn open(fixture: &Fixture) -> Checkpoint {
    let name = fixture.path().to_str().unwrap();
    let checkpoint = Checkpoint::open(name).unwrap();
    if checkpoint.config.linear == LinearKind::Ternary {
        return checkpoint;
    }
    assert!(!checkpoint.provenance.notes.is_empty(), "{fixture}: read as full precision without a word");
    let options = OpenOptions { family: Some("llama-master".into()), ..Default::default() };
    Checkpoint::open_with(name, &options).unwrap()
}
