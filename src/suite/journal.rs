//! What a run has finished, on disk, so that an interrupted one continues instead of starting over.
//!
//! One JSON value a line, each written whole and flushed. A line that a crash cut off is dropped; a
//! journal of another suite, model, machine or build is ignored.

use crate::error::{Error, Result};
use crate::record::{Arm, Control, Proof};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file's name inside a run's folder.
pub const FILE: &str = "unfinished.jsonl";

/// What the journal belongs to; all of it must agree for a run to be continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The suite, with what the command line changed.
    pub suite: String,
    /// Hashes of the models, in order.
    pub models: Vec<String>,
    /// Program version, revision and profile.
    pub tool: String,
    /// CPU.
    pub cpu: String,
}

/// A finished piece.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// First line: what the journal belongs to, and when the run began.
    Start(Fingerprint, String),
    /// A proven layout.
    Proof(Proof),
    /// A measured arm.
    Arm(Box<Arm>),
    /// The fixed loads of a finished test.
    Controls(Vec<Control>),
}

/// The journal of a run.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// When the run began, RFC 3339.
    pub started: String,
    /// What was finished before this process.
    pub proofs: Vec<Proof>,
    /// What was measured before this process.
    pub arms: Vec<Arm>,
    /// The fixed loads of tests that were finished before this process.
    pub controls: Vec<Control>,
    /// Whether it continues an interrupted run.
    pub resumed: bool,
}

impl Journal {
    /// Continues the journal in `dir` if it has the same fingerprint, else begins a new one.
    ///
    /// # Errors
    /// If the folder cannot be made or written.
    pub fn open(dir: &Path, fingerprint: Fingerprint, now: String) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let path = dir.join(FILE);
        let entries = read(&path, &fingerprint);
        let resumed = entries.is_some();
        let mut journal = Self {
            file: File::create(&path).map_err(|e| Error::io(&path, e))?,
            path,
            started: now,
            proofs: Vec::new(),
            arms: Vec::new(),
            controls: Vec::new(),
            resumed,
        };
        let mut entries = entries.unwrap_or_default().into_iter();
        if let Some(Entry::Start(_, started)) = entries.next() {
            journal.started = started;
        }
        journal.append(&Entry::Start(fingerprint, journal.started.clone()))?;
        for entry in entries {
            journal.append(&entry)?;
            match entry {
                Entry::Start(..) => {}
                Entry::Proof(proof) => journal.proofs.push(proof),
                Entry::Arm(arm) => journal.arms.push(*arm),
                Entry::Controls(controls) => Control::gather(&mut journal.controls, controls),
            }
        }
        Ok(journal)
    }

    /// Whether `dir` holds an interrupted run of that fingerprint.
    pub fn continues(dir: &Path, fingerprint: &Fingerprint) -> bool {
        read(&dir.join(FILE), fingerprint).is_some()
    }

    /// Adds a finished piece.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(|e| Error::Bug(e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }

    /// Removes the journal of a run that is finished and written.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn finish(self) -> Result<()> {
        drop(self.file);
        std::fs::remove_file(&self.path).map_err(|e| Error::io(&self.path, e))
    }
}

/// The entries of a journal that belongs to `fingerprint`, up to the first damaged line.
fn read(path: &Path, fingerprint: &Fingerprint) -> Option<Vec<Entry>> {
    let text = std::fs::read(path).ok()?;
    let lines = text.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n"));
    let entries: Vec<Entry> = lines.map_while(|l| serde_json::from_slice(l).ok()).collect();
    match entries.first() {
        Some(Entry::Start(found, _)) if found == fingerprint => Some(entries),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(suite: &str) -> Fingerprint {
        Fingerprint { suite: suite.into(), models: vec!["h".into()], tool: "t".into(), cpu: "c".into() }
    }

    fn proof(layout: &str) -> Proof {
        Proof {
            model: "m".into(),
            layout: layout.into(),
            trits_equal: true,
            scale_error: 0.0,
            tensors: 1,
            bytes: 2,
            bits_per_weight: 2.0,
            failure: None,
        }
    }

    #[test]
    fn a_cut_line_is_dropped_and_the_rest_continues() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(dir.path(), fingerprint("a"), "then".into()).expect("new");
        assert!(!journal.resumed);
        for layout in ["i2_s", "tq2_0"] {
            journal.append(&Entry::Proof(proof(layout))).expect("written");
        }
        drop(journal);
        let path = dir.path().join(FILE);
        let text = std::fs::read(&path).expect("written");
        std::fs::write(&path, &text[..text.len() - 5]).expect("cut");
        let journal = Journal::open(dir.path(), fingerprint("a"), "now".into()).expect("continued");
        assert!(journal.resumed);
        assert_eq!((journal.started.as_str(), &journal.proofs), ("then", &vec![proof("i2_s")]));
        journal.finish().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn another_fingerprint_starts_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(dir.path(), fingerprint("a"), "then".into()).expect("new");
        journal.append(&Entry::Proof(proof("i2_s"))).expect("written");
        drop(journal);
        let journal = Journal::open(dir.path(), fingerprint("b"), "now".into()).expect("new");
        assert!(!journal.resumed && journal.proofs.is_empty());
    }
}
