//! What a run has finished, on disk, so that an interrupted one continues instead of starting over.
//!
//! One JSON value a line, each written whole, and on the disk before the run goes on. A line that a crash cut off is dropped; a
//! journal of another suite, model, text, machine or build is refused, since it may be hours of work.

use crate::error::{Error, Result};
use crate::files::{self, Lines};
use crate::record::{self, Arm, Control, Proof};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name inside a run's folder.
pub const FILE: &str = "unfinished.jsonl";

/// What the journal belongs to; all of it must agree for a run to be continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 of the suite, with what the command line changed.
    pub suite: String,
    /// Hashes of the models with all that makes their figures, in order.
    pub models: Vec<String>,
    /// SHA-256 of what else is read: texts, tasks and the model that others are held against.
    pub inputs: Vec<String>,
    /// SHA-256 of what measures energy.
    pub energy: String,
    /// Program version, revision and profile.
    pub tool: String,
    /// CPU and threads of it that may be used.
    pub cpu: String,
    /// Tuning of kernels.
    pub tuning: Option<String>,
}

impl Fingerprint {
    /// What differs from another, in words.
    fn differs(&self, other: &Self) -> &'static str {
        match self {
            _ if self.tool != other.tool => "another build of this program",
            _ if self.suite != other.suite => "another suite, or the same with other settings",
            _ if self.models != other.models => "other models",
            _ if self.inputs != other.inputs => "a text or tasks that have changed since",
            _ if self.energy != other.energy => "other sensors of energy",
            _ if self.cpu != other.cpu => "another processor, or another number of its threads",
            _ => "another tuning of kernels",
        }
    }
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
    /// Arms whose rounds are over, and the fixed loads timed in these; each arm follows when its energy is known.
    Sampled(Vec<Arm>, Vec<Control>),
    /// All arms of speed stand above; what was remarked on the way, full sentences.
    Speed(Vec<String>),
}

impl Entry {
    /// That its figures are possible and fit each other, and that it is not there yet. How many rounds there are
    /// is not known here.
    fn check(&self, before: &[Entry]) -> Result<(), String> {
        let of = |what: &str, checked: Result<(), String>| checked.map_err(|e| format!("field `{what}.{e}"));
        match self {
            Entry::Start(..) | Entry::Speed(_) => Ok(()),
            Entry::Proof(proof) => of("proof", record::check_proof(proof)),
            Entry::Arm(arm) => {
                let sampled = |a: &Arm| arm.energy_measured.is_some() && a.speed == arm.speed;
                refuse_known(arm, before, sampled)?;
                of("arm", record::check_arm(arm, u32::MAX))
            }
            Entry::Sampled(arms, controls) => {
                for (i, arm) in arms.iter().enumerate() {
                    if arm.energy_measured.is_some()
                        || arms[..i].iter().any(|a| a.is_of(&arm.subject, &arm.test))
                    {
                        return Err(format!("{} under {} cannot stand here", arm.subject, arm.test));
                    }
                    refuse_known(arm, before, |_| false)?;
                    of("sampled", record::check_arm(arm, u32::MAX))?;
                }
                controls.iter().try_for_each(|control| of("sampled", record::check_control(control)))
            }
        }
    }
}

/// That an arm does not stand there yet, but for one that was `sampled` and is finished by it.
fn refuse_known(arm: &Arm, before: &[Entry], sampled: impl Fn(&Arm) -> bool) -> Result<(), String> {
    let stands = before.iter().any(|entry| match entry {
        Entry::Arm(other) => other.is_of(&arm.subject, &arm.test),
        Entry::Sampled(others, _) => {
            others.iter().any(|other| other.is_of(&arm.subject, &arm.test) && !sampled(other))
        }
        _ => false,
    });
    if stands { Err(format!("{} under {} stands above already", arm.subject, arm.test)) } else { Ok(()) }
}

/// The journal of a run.
pub struct Journal {
    path: PathBuf,
    lines: Lines,
    /// When the run began, RFC 3339.
    pub started: String,
    /// What was finished before this process.
    pub proofs: Vec<Proof>,
    /// What was measured before this process; of speed arms that were sampled only, no energy is known.
    pub arms: Vec<Arm>,
    /// The fixed loads that were timed before this process.
    pub controls: Vec<Control>,
    /// What was remarked on tests of speed, if they were finished before this process.
    pub speed_notes: Option<Vec<String>>,
    /// Whether it continues an interrupted run.
    pub resumed: bool,
    /// Where sensors were looked for, if paths are left out of what is added; see [`record::Record::anonymise`].
    pub anonymise: Option<PathBuf>,
}

impl Journal {
    /// Continues the journal in `dir`, or begins one where there is none.
    ///
    /// # Errors
    /// If the folder cannot be made or written, or holds a journal of another fingerprint.
    pub fn open(dir: &Path, fingerprint: Fingerprint, now: String) -> Result<Self> {
        files::make_folder(dir)?;
        let path = dir.join(FILE);
        let mut lines = Lines::open(&path)?;
        // Where the file system has no locks, two runs at once are the user's to avoid.
        // One that was killed holds its lock until the system has done away with it, which takes a moment.
        let pauses = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(20))).take(50);
        if !lock(lines.file(), &path, pauses) {
            return Err(Error::Usage(format!(
                "{} is written by a run that goes on: choose another folder with --output",
                path.display()
            )));
        }
        let (entries, bytes) = match read(&lines.read()?) {
            None => (Vec::new(), 0),
            Some(Read { entries, bytes, damage }) => match entries.first() {
                Some(Entry::Start(found, _)) if *found == fingerprint => match damage {
                    None => (entries, bytes),
                    Some(what) => {
                        let message = format!("line {} is damaged: {what}", entries.len() + 1);
                        return Err(Error::input(&path, message).hint(
                            "cut the file before that line to keep what stands above it, or delete it to start over",
                        ));
                    }
                },
                // Of another run that finished nothing.
                Some(Entry::Start(..)) if entries.len() == 1 && damage.is_none() => (Vec::new(), 0),
                first => {
                    let what = match first {
                        Some(Entry::Start(found, _)) => fingerprint.differs(found),
                        _ => "another version of this program, or is damaged",
                    };
                    return Err(Error::Usage(format!(
                        "{} is of an interrupted run with {what}: repeat that run to finish it, choose another folder \
                         with --output, or delete the file to drop what it measured",
                        path.display()
                    )));
                }
            },
        };
        // What stands in the file stays there; only a line that was cut off goes.
        lines.keep(bytes)?;
        let mut journal = Self {
            lines,
            path,
            started: now,
            proofs: Vec::new(),
            arms: Vec::new(),
            controls: Vec::new(),
            speed_notes: None,
            resumed: !entries.is_empty(),
            anonymise: None,
        };
        if !journal.resumed {
            journal.append(&Entry::Start(fingerprint, journal.started.clone()))?;
        }
        for entry in entries {
            match entry {
                Entry::Start(_, started) => journal.started = started,
                Entry::Proof(proof) => journal.proofs.push(proof),
                Entry::Arm(arm) => {
                    match journal.arms.iter_mut().find(|sampled| sampled.is_of(&arm.subject, &arm.test)) {
                        Some(sampled) => *sampled = *arm,
                        None => journal.arms.push(*arm),
                    }
                }
                Entry::Sampled(arms, controls) => {
                    journal.arms.extend(arms);
                    Control::gather(&mut journal.controls, controls);
                }
                Entry::Speed(notes) => journal.speed_notes = Some(notes),
            }
        }
        Ok(journal)
    }

    /// Whether `dir` holds an interrupted run of that fingerprint.
    pub fn continues(dir: &Path, fingerprint: &Fingerprint) -> bool {
        let read = std::fs::read(dir.join(FILE)).ok().and_then(|lines| read(&lines));
        let first = read.and_then(|read| read.entries.into_iter().next());
        matches!(first, Some(Entry::Start(found, _)) if found == *fingerprint)
    }

    /// That it holds an arm which its run does not measure.
    pub fn foreign(&self, arm: &Arm) -> Error {
        let what =
            format!("holds {}, which this run does not measure", record::arm_name(&arm.subject, &arm.test));
        Error::input(&self.path, what).hint(
            "it was changed since: take that arm out of every line to keep the others, or delete the file to start over",
        )
    }

    /// Adds a finished piece.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut entry = entry.clone();
        match (&mut entry, &self.anonymise) {
            (Entry::Arm(arm), Some(root)) => arm.anonymise(root),
            (Entry::Speed(notes), Some(root)) => {
                notes.iter_mut().for_each(|note| record::shorten_paths(note, root));
            }
            _ => {}
        }
        self.lines.push(&entry)
    }

    /// Removes the journal of a run that is finished and written.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn finish(self) -> Result<()> {
        drop(self.lines);
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(&self.path, e)),
            _ => Ok(()),
        }
    }
}

/// Locks the file at `path`, trying again after each pause while another process holds it. Whether none does in the
/// end, and none has finished meanwhile and removed it.
fn lock(file: &File, path: &Path, mut pauses: impl Iterator<Item = ()>) -> bool {
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if pauses.next().is_none() {
            return false;
        }
    }
    path.exists()
}

/// A journal up to its first damaged line.
struct Read {
    entries: Vec<Entry>,
    /// What the entries take.
    bytes: u64,
    /// What is wrong with the line after them, if that is a whole one.
    damage: Option<String>,
}

/// What a journal holds; `None` where that is no whole line.
fn read(text: &[u8]) -> Option<Read> {
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).collect();
    let (mut entries, mut bytes, mut damage) = (Vec::new(), 0, None);
    for line in &lines {
        let entry = serde_json::from_slice::<Entry>(line).map_err(|e| e.to_string());
        match entry.and_then(|entry| entry.check(&entries).map(|()| entry)) {
            Ok(entry) => entries.push(entry),
            Err(what) => {
                damage = Some(what);
                break;
            }
        }
        bytes += line.len() as u64;
    }
    (!lines.is_empty()).then_some(Read { entries, bytes, damage })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(suite: &str) -> Fingerprint {
        Fingerprint {
            suite: suite.into(),
            models: vec!["h".into()],
            inputs: Vec::new(),
            energy: String::new(),
            tool: "t".into(),
            cpu: "c".into(),
            tuning: None,
        }
    }

    fn proof(layout: &str) -> Proof {
        Proof {
            model: "m".into(),
            layout: layout.into(),
            trits_equal: true,
            changed: false,
            scale_error: 0.0,
            tensors: 1,
            bytes: 2,
            bits_per_weight: 2.0,
            failure: None,
        }
    }

    #[test]
    fn paths_are_left_out_where_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(dir.path(), fingerprint("a"), "then".into()).expect("new");
        let mut arm = record::example().arms.remove(0);
        let reason = "/home/me/root/sys/class/x may be read by root only";
        arm.energy_measured = Some(record::Outcome::NotMeasured(reason.into()));
        let entries = [Entry::Arm(Box::new(arm)), Entry::Speed(vec![reason.into()])];
        for anonymise in [None, Some(PathBuf::from("/home/me/root"))] {
            journal.anonymise = anonymise.clone();
            entries.iter().for_each(|entry| journal.append(entry).expect("written"));
            let text = std::fs::read_to_string(dir.path().join(FILE)).expect("written");
            let hidden: Vec<bool> =
                text.lines().rev().take(2).map(|line| !line.contains("/home/me")).collect();
            assert_eq!(hidden, [anonymise.is_some(); 2], "{text}");
            assert!(text.lines().rev().take(2).all(|line| line.contains("/sys/class/x may")), "{text}");
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
    fn damage_and_a_second_run_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(dir.path(), fingerprint("a"), "then".into()).expect("new");
        journal.append(&Entry::Proof(proof("i2_s"))).expect("written");
        journal.append(&Entry::Proof(proof("tq2_0"))).expect("written");
        let again = || Journal::open(dir.path(), fingerprint("a"), "now".into()).map(|_| ());
        let error = again().expect_err("the other goes on");
        assert!(matches!(&error, Error::Usage(m) if m.contains("goes on")), "{error}");
        drop(journal);
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("written");
        // No JSON, and figures that cannot be.
        for (from, to, said) in [("i2_s", "i2_s\"", "expected"), (":0.0,", ":-1.0,", "`proof.scale_error`")] {
            std::fs::write(&path, text.replace(from, to)).expect("damaged");
            let error = again().expect_err("damaged").to_string();
            assert!(error.contains("line 2 is damaged") && error.contains(said), "{error}");
        }
        let arm =
            serde_json::to_string(&Entry::Arm(Box::new(record::example().arms.remove(0)))).expect("JSON");
        std::fs::write(&path, format!("{text}{arm}\n{arm}\n")).expect("an arm twice");
        let error = again().expect_err("twice").to_string();
        assert!(error.contains("line 5 is damaged") && error.contains("stands above already"), "{error}");
        // What another build cannot read is not damage.
        let other = Fingerprint { tool: "u".into(), ..fingerprint("a") };
        let error = Journal::open(dir.path(), other, "now".into()).map(|_| ()).expect_err("another build");
        assert!(error.to_string().contains("another build"), "{error}");
        std::fs::write(&path, text).expect("mended");
        again().expect("continued");
    }

    #[test]
    fn a_lock_that_is_given_back_meanwhile_is_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE);
        let open = || File::options().create(true).append(true).open(&path).expect("opened");
        let (killed, next, last) = (open(), open(), open());
        assert!(lock(&killed, &path, std::iter::empty()));
        assert!(!lock(&next, &path, std::iter::repeat_n((), 3)));
        assert!(lock(&next, &path, std::iter::once_with(|| drop(killed))));
        // What a run removes when it has finished is not continued.
        let finish = || {
            drop(next);
            std::fs::remove_file(&path).expect("removed");
        };
        assert!(!lock(&last, &path, std::iter::once_with(finish)));
    }

    #[test]
    fn another_fingerprint_is_refused_and_nothing_is_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(dir.path(), fingerprint("a"), "then".into()).expect("new");
        journal.append(&Entry::Proof(proof("i2_s"))).expect("written");
        drop(journal);
        let changed = Fingerprint { inputs: vec!["text".into()], ..fingerprint("a") };
        for (other, said) in [(fingerprint("b"), "another suite"), (changed, "a text")] {
            let error = Journal::open(dir.path(), other, "now".into()).map(|_| ()).expect_err("refused");
            assert!(matches!(&error, Error::Usage(m) if m.contains(said)), "{error}");
        }
        let journal = Journal::open(dir.path(), fingerprint("a"), "now".into()).expect("continued");
        assert_eq!(journal.proofs, [proof("i2_s")]);
        drop(journal);
        // Nothing is lost of a journal without a finished piece, nor of one whose first line was never finished.
        let empty = tempfile::tempdir().expect("a folder");
        drop(Journal::open(empty.path(), fingerprint("a"), "then".into()).expect("new"));
        assert!(!Journal::open(empty.path(), fingerprint("b"), "now".into()).expect("new").resumed);
        std::fs::write(dir.path().join(FILE), "{\"start\"").expect("cut");
        assert!(!Journal::open(dir.path(), fingerprint("b"), "now".into()).expect("new").resumed);
    }
}
