//! The main job: checkpoint → layouts proven → accuracy → speed and energy → record.

use super::journal::{Entry, Fingerprint, Journal};
use super::prove::prove;
use super::{Accuracy, Suite};
use crate::accuracy::{self, Convention, LanguageModel, Named, Text};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::LinearKind;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::model::{LoadOptions, Model};
use crate::record::{self, Arm, Outcome, Protocol, Record, Subject, Test, Tool};
use crate::verify;
use std::path::{Path, PathBuf};
use tritmark_kernels::kernel::{self, Kernel};
use tritmark_kernels::layout;

/// What the command line adds to a suite.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folder of the run; a new one below `reports/out` by default.
    pub output: Option<PathBuf>,
    /// The command that makes this record again.
    pub command: String,
    /// Leaves out what tells whose machine it is.
    pub anonymise: bool,
}

/// How far a run is.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// The stage, one word.
    pub stage: &'static str,
    /// Pieces of the stage that are done.
    pub done: u64,
    /// Pieces of the stage in all.
    pub total: u64,
    /// The piece in work.
    pub what: &'a str,
}

/// Runs a suite and gives its record and the folder for its report. The record may hold failed
/// proofs; see [`failures`].
///
/// # Errors
/// If a model cannot be read or run, or the folder cannot be written.
pub fn run(suite: &Suite, options: &Options, progress: &mut dyn FnMut(Step)) -> Result<(Record, PathBuf)> {
    let machine = Machine::detect();
    let checkpoints: Vec<Checkpoint> = suite.models.iter().map(|m| Checkpoint::open(m)).collect::<Result<_>>()?;
    let hashes: Vec<String> = checkpoints.iter().map(verify::model_hash).collect::<Result<_>>()?;
    let tool = Tool::current();
    let fingerprint = Fingerprint {
        suite: toml::to_string(suite).map_err(|e| Error::Bug(e.to_string()))?,
        models: hashes.clone(),
        tool: format!("{} {:?} {:?} {}", tool.version, tool.git_revision, tool.git_dirty, tool.profile),
        cpu: machine.environment().cpu,
    };
    let now = record::now();
    let dir = match &options.output {
        Some(dir) => dir.clone(),
        None => folder(Path::new("reports/out"), &suite.name, &fingerprint, &now),
    };
    let mut job = Job {
        suite,
        journal: Journal::open(&dir, fingerprint, now)?,
        progress,
        proofs: Vec::new(),
        arms: Vec::new(),
    };
    let mut models = Vec::new();
    for (checkpoint, hash) in checkpoints.iter().zip(&hashes) {
        let model = record::Model::describe(checkpoint, hash.clone());
        job.prove(checkpoint, &model.id)?;
        let kernels = job.kernels(checkpoint);
        if let Some(accuracy) = &suite.accuracy {
            job.accuracy(accuracy, checkpoint, &model.id, &kernels)?;
        }
        models.push(model);
    }
    let Job { journal, proofs, arms, .. } = job;
    let mut environment = machine.environment();
    if options.anonymise {
        environment.anonymise();
    }
    let mut notes: Vec<String> = checkpoints.iter().flat_map(|c| c.provenance.notes.clone()).collect();
    notes.extend(identity_note(&arms));
    let record = Record {
        schema: record::SCHEMA,
        tool,
        started: journal.started.clone(),
        finished: record::now(),
        command: options.command.clone(),
        suite: Some(suite.name.clone()),
        resumed: journal.resumed,
        environment,
        limits: Outcome::NotMeasured("speed was not measured".into()),
        protocol: Protocol::default(),
        models,
        proofs,
        arms,
        notes,
    };
    record::write(&record, &dir.join("record.json"))?;
    journal.finish()?;
    Ok((record, dir))
}

/// A kernel and a thread count to run a model with.
#[derive(Debug, Clone, PartialEq)]
struct Way {
    layout: &'static str,
    tier: tritmark_kernels::Tier,
    threads: usize,
}

impl Way {
    fn subject(&self, model: &str) -> Subject {
        Subject {
            model: model.into(),
            engine: "tritmark".into(),
            layout: Some(self.layout.into()),
            tier: Some(self.tier.name().into()),
            variant: None,
            threads: self.threads as u32,
        }
    }

    fn load(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let options =
            LoadOptions { layout: Some(self.layout.into()), tier: Some(self.tier), threads: self.threads };
        Model::load(checkpoint, &options)
    }
}

/// A run in progress.
struct Job<'a> {
    suite: &'a Suite,
    journal: Journal,
    progress: &'a mut dyn FnMut(Step),
    proofs: Vec<Proof>,
    arms: Vec<Arm>,
}

impl Job<'_> {
    /// Proves every layout of the suite for a model.
    fn prove(&mut self, checkpoint: &Checkpoint, model: &str) -> Result<()> {
        if checkpoint.config.linear != LinearKind::Ternary {
            return Ok(());
        }
        let layouts: Vec<_> = layout::ALL.iter().filter(|l| wanted(&self.suite.layouts, l.name())).collect();
        for (i, layout) in layouts.iter().enumerate() {
            self.step("prove", i, layouts.len(), layout.name());
            let known = self.journal.proofs.iter().find(|p| p.model == model && p.layout == layout.name());
            let proof = match known {
                Some(proof) => proof.clone(),
                None => {
                    let proof = prove(checkpoint, model, **layout)?;
                    self.journal.append(&Entry::Proof(proof.clone()))?;
                    proof
                }
            };
            self.proofs.push(proof);
        }
        self.step("prove", layouts.len(), layouts.len(), "");
        Ok(())
    }

    /// Perplexity over every way to run the model, which must agree bit for bit, and against the references.
    fn accuracy(&mut self, plan: &Accuracy, checkpoint: &Checkpoint, model: &str, ways: &[Way]) -> Result<()> {
        let text = text(plan, checkpoint)?;
        let convention = match plan.convention.as_str() {
            "hf" => Convention::parse(&format!("hf-{}", plan.n_ctx), plan.n_ctx, None)?,
            name => Convention::parse(name, plan.n_ctx, None)?,
        };
        let identity = test(plan, convention, &text, Some(plan.identity_windows));
        let main = test(plan, convention, &text, plan.windows);
        let total = ways.len() + 1 + plan.references.len();
        for (i, way) in ways.iter().enumerate() {
            let subject = way.subject(model);
            self.step("identity", i, total, &subject.to_string());
            self.arm(subject.clone(), &identity, || {
                let mut loaded = way.load(checkpoint)?;
                measure(&subject, &mut loaded, None, &text, convention, Some(plan.identity_windows))
            })?;
        }
        Ok(())
    }

    /// Takes an arm from the journal, or measures and writes it down.
    fn arm(&mut self, subject: Subject, test: &Test, run: impl FnOnce() -> Result<record::Accuracy>) -> Result<()> {
        let known = self.journal.arms.iter().find(|a| a.subject == subject && a.test == *test);
        let arm = match known {
            Some(arm) => arm.clone(),
            None => {
                let arm = Arm::accuracy(subject, test.clone(), run()?);
                self.journal.append(&Entry::Arm(Box::new(arm.clone())))?;
                arm
            }
        };
        self.arms.push(arm);
        Ok(())
    }

    fn step(&mut self, stage: &'static str, done: usize, total: usize, what: &str) {
        (self.progress)(Step { stage, done: done as u64, total: total as u64, what });
    }
}
