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
    kernel: &'static dyn Kernel,
    threads: usize,
}

impl Way {
    fn subject(&self, model: &str) -> Subject {
        Subject {
            model: model.into(),
            engine: "tritmark".into(),
            layout: Some(self.kernel.layout().name().into()),
            tier: Some(self.kernel.tier().name().into()),
            variant: None,
            threads: self.threads as u32,
        }
    }

    fn load(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let layout = Some(self.kernel.layout().name().to_owned());
        let options = LoadOptions { layout, tier: Some(self.kernel.tier()), threads: self.threads };
        Model::load(checkpoint, &options)
    }

    fn name(&self) -> String {
        format!("{} on {} threads", self.kernel.name(), self.threads)
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
        let layouts: Vec<_> =
            layout::ALL.iter().copied().filter(|l| chosen(&self.suite.layouts, l.name())).collect();
        for (i, layout) in layouts.iter().enumerate() {
            self.step("prove", i, layouts.len(), layout.name());
            let known = self.journal.proofs.iter().find(|p| p.model == model && p.layout == layout.name());
            let proof = match known {
                Some(proof) => proof.clone(),
                None => {
                    let proof = prove(checkpoint, model, *layout)?;
                    self.journal.append(&Entry::Proof(proof.clone()))?;
                    proof
                }
            };
            self.proofs.push(proof);
        }
        self.step("prove", layouts.len(), layouts.len(), "");
        Ok(())
    }

    /// The kernels of the suite that this CPU has and that hold the model.
    fn kernels(&self, model: &str) -> Vec<&'static dyn Kernel> {
        let held = |k: &&dyn Kernel| {
            self.proofs
                .iter()
                .any(|p| p.model == model && p.layout == k.layout().name() && p.failure.is_none())
        };
        let tiers = &self.suite.tiers;
        let tier = |k: &&dyn Kernel| match kernel::best(k.layout(), None) {
            Some(best) if tiers.iter().any(|t| t == "best") => best.tier() == k.tier(),
            _ => chosen(tiers, k.tier().name()),
        };
        kernel::available().filter(held).filter(tier).collect()
    }

    /// Perplexity over every kernel and thread count, which must agree bit for bit; then, over more
    /// of the text, of the fastest kernel and the references.
    fn accuracy(&mut self, plan: &Accuracy, checkpoint: &Checkpoint, model: &str) -> Result<()> {
        let text = text(plan, checkpoint)?;
        let convention = plan.convention()?;
        let counts = threads(&self.suite.threads)?;
        let kernels = self.kernels(model);
        let ways: Vec<Way> =
            kernels.iter().flat_map(|&kernel| counts.iter().map(move |&threads| Way { kernel, threads })).collect();
        let short = Pass { convention, text: &text, limit: Some(plan.identity_windows) };
        for (i, way) in ways.iter().enumerate() {
            self.step("perplexity", i, ways.len(), &way.name());
            let subject = way.subject(model);
            self.measured(subject, &short, |s| short.run(s, &mut way.load(checkpoint)?, None))?;
        }
        self.step("perplexity", ways.len(), ways.len(), "");

        let long = Pass { convention, text: &text, limit: plan.windows };
        self.references(plan, checkpoint, model, &long)
    }

    /// The model against candle with the same activations, and candle against itself with full ones.
    #[cfg(feature = "reference")]
    fn references(
        &mut self,
        plan: &Accuracy,
        checkpoint: &Checkpoint,
        model: &str,
        pass: &Pass,
    ) -> Result<()> {
        use crate::reference::{ActivationMode, Reference};
        let threads = available_threads();
        let candle = |variant: &str| Subject {
            model: model.into(),
            engine: "candle".into(),
            layout: None,
            tier: None,
            variant: Some(variant.into()),
            threads: threads as u32,
        };
        let int8 = || Reference::load(checkpoint, ActivationMode::Int8);
        let full = || Reference::load(checkpoint, ActivationMode::Full);
        let (want_int8, want_full) = (plan.wants("int8")?, plan.wants("full")?);

        self.step("reference", 0, 3, "tritmark");
        let way = Way::fastest(checkpoint, threads)?;
        self.measured(way.subject(model), pass, |s| {
            let mut reference = want_int8.then(int8).transpose()?;
            let reference = reference.as_mut().map(|r| (candle("int8 activations"), r as &mut dyn LanguageModel));
            pass.run(s, &mut way.load(checkpoint)?, reference)
        })?;
        if want_int8 {
            self.step("reference", 1, 3, "candle, int8 activations");
            self.measured(candle("int8 activations"), pass, |s| {
                let mut reference = want_full.then(full).transpose()?;
                let reference =
                    reference.as_mut().map(|r| (candle("full activations"), r as &mut dyn LanguageModel));
                pass.run(s, &mut int8()?, reference)
            })?;
        }
        if want_full {
            self.step("reference", 2, 3, "candle, full activations");
            self.measured(candle("full activations"), pass, |s| pass.run(s, &mut full()?, None))?;
        }
        self.step("reference", 3, 3, "");
        Ok(())
    }

    /// Takes an arm from the journal, or measures it and writes it down.
    fn measured(
        &mut self,
        subject: Subject,
        pass: &Pass,
        run: impl FnOnce(&Subject) -> Result<record::Accuracy>,
    ) -> Result<()> {
        let test = pass.test();
        let known = self.journal.arms.iter().find(|a| a.subject == subject && a.test == test);
        let arm = match known {
            Some(arm) => arm.clone(),
            None => {
                let accuracy = run(&subject)?;
                let arm = Arm {
                    subject,
                    test,
                    imported: None,
                    speed: None,
                    accuracy: Some(accuracy),
                    energy_measured: None,
                    energy_modelled: None,
                };
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

/// One perplexity test.
struct Pass<'a> {
    convention: Convention,
    text: &'a Text,
    limit: Option<usize>,
}

impl Pass<'_> {
    fn run(
        &self,
        subject: &Subject,
        model: &mut dyn LanguageModel,
        reference: Option<(Subject, &mut dyn LanguageModel)>,
    ) -> Result<record::Accuracy> {
        let subject = Named { name: subject.to_string(), model };
        let reference = reference.map(|(s, model)| Named { name: s.to_string(), model });
        let options = accuracy::Options { limit: self.limit, ..Default::default() };
        accuracy::measure(subject, reference, self.text, self.convention, &options, &mut |_| ())
    }

    fn test(&self) -> Test {
        let n_ctx = match self.convention {
            Convention::LlamaCpp { n_ctx } | Convention::Hf { len: n_ctx, .. } => n_ctx as u32,
        };
        let part = self.limit.map(|n| format!(", first {n} windows")).unwrap_or_default();
        let text = format!("{}{part}", self.text.name);
        Test::Perplexity { convention: self.convention.to_string(), n_ctx, text }
    }
}
