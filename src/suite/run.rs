//! The main job: checkpoint → layouts proven → accuracy → speed and energy → record.

use super::journal::{Entry, Fingerprint, Journal};
use super::prove::prove;
use super::{Accuracy, Speed, Suite};
use crate::accuracy::tasks::{Encoder, Task, evaluate};
use crate::accuracy::{self, Convention, LanguageModel, Named, Text};
use crate::checkpoint::config::LinearKind;
use crate::checkpoint::{Checkpoint, demo, file};
use crate::energy::{Meter, Windows};
use crate::error::{Error, Result};
use crate::files::make_folder;
use crate::machine::{Environment, Limits, Watch};
use crate::model::{Head, LoadOptions, Model, check_threads};
use crate::record::{self, Arm, Control, Outcome, Proof, Record, Subject, Test, Tool};
use crate::speed::bench::{Bench, Candidate, Choice};
use crate::speed::{self, Observer};
use crate::verify;
use crate::words::{counted, hex};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tritmark_kernels::kernel::{self, Kernel};
use tritmark_kernels::layout;
use tritmark_kernels::pool::cpus;

/// What the command line adds to a suite.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folder of the run; a new one below `reports/out` by default.
    pub output: Option<PathBuf>,
    /// Log of an external power meter.
    pub meter: Option<PathBuf>,
    /// Where to look for energy sensors; `/` by default.
    pub energy_root: Option<PathBuf>,
    /// Rated power of the processor in watts, for a modelled energy.
    pub rated_watts: Option<f64>,
    /// The command that makes this record again.
    pub command: String,
    /// Leaves out what tells whose machine it is.
    pub anonymise: bool,
    /// Puts the record in the place of a finished one in the same folder.
    pub overwrite: bool,
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

/// A run whose record is written.
pub struct Finished {
    /// The record.
    pub record: Record,
    /// Its folder.
    pub dir: PathBuf,
    journal: Journal,
}

impl Finished {
    /// Drops the journal, when the reports are written too.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn done(self) -> Result<Record> {
        self.journal.finish()?;
        Ok(self.record)
    }
}

/// Runs a suite and writes its record, into the folder for its report. The record may hold failed
/// proofs; see [`failures`]. Interrupted until [`Finished::done`], the run can be continued.
///
/// # Errors
/// If a model cannot be read or run, or the folder cannot be written.
pub fn run(suite: &Suite, options: &Options, progress: &mut dyn FnMut(Step)) -> Result<Finished> {
    suite.check()?;
    let machine = Watch::start();
    let checkpoints: Vec<Checkpoint> =
        suite.models.iter().map(|m| Checkpoint::open(m)).collect::<Result<_>>()?;
    can_run(suite, &checkpoints)?;
    let kernels = checkpoints.iter().any(|c| c.config.linear == LinearKind::Ternary)
        && (suite.accuracy.is_some() || suite.speed.is_some());
    let lacking = if kernels { lacking(suite)? } else { Vec::new() };
    let hashes: Vec<String> = checkpoints.iter().map(verify::model_hash).collect::<Result<_>>()?;
    let tool = Tool::current();
    let fingerprint = Fingerprint {
        // Hashes, as both hold paths and an interrupted run may be of somebody who leaves such out.
        suite: hash(toml::to_string(suite).map_err(|e| Error::Bug(e.to_string()))?),
        models: checkpoints.iter().zip(&hashes).map(|(c, hash)| all_of(c, hash)).collect::<Result<_>>()?,
        inputs: suite.accuracy.as_ref().map_or(Ok(Vec::new()), inputs)?,
        energy: hash(format!("{:?} {:?} {:?}", options.meter, options.energy_root, options.rated_watts)),
        tool: format!("{} {:?} {:?} {}", tool.version, tool.git_revision, tool.git_dirty, tool.profile),
        cpu: format!("{}, {} threads", machine.environment().cpu, machine.environment().threads),
        tuning: machine.environment().tuning,
    };
    let now = record::now();
    let dir = match &options.output {
        Some(dir) => dir.clone(),
        None => folder(Path::new("reports/out"), &suite.name, &fingerprint, &now),
    };
    let finished = dir.join("record.json");
    if finished.exists() && !options.overwrite && !Journal::continues(&dir, &fingerprint) {
        return Err(Error::Usage(format!(
            "{} is of a finished run: choose another folder with --output, put this run in its place with \
             --overwrite, or write its report again with `tritmark report {} --output {}`",
            finished.display(),
            dir.display(),
            dir.display()
        )));
    }
    let root = options.energy_root.as_deref().unwrap_or(Path::new("/"));
    let protocol = suite.speed.as_ref().map_or_else(speed::Options::quick, Speed::options);
    let mut job = Job {
        suite,
        meter: Meter::open(root, options.meter.as_deref())?,
        protocol: speed::Options { rated_watts: options.rated_watts, ..protocol },
        journal: Journal::open(&dir, fingerprint, now)?,
        progress,
        proofs: Vec::new(),
        arms: Vec::new(),
        controls: Vec::new(),
        notes: lacking,
    };
    job.journal.anonymise = options.anonymise.then(|| root.to_owned());
    job.controls = std::mem::take(&mut job.journal.controls);
    let mut models: Vec<record::Model> = Vec::new();
    for (checkpoint, hash) in checkpoints.iter().zip(&hashes) {
        models.push(record::Model::describe(checkpoint, hash.clone()).named_beside(&models));
    }
    job.refuse_foreign(&models)?;
    for (checkpoint, model) in checkpoints.iter().zip(&models) {
        job.prove(checkpoint, &model.id)?;
        if let Some(accuracy) = &suite.accuracy {
            job.accuracy(accuracy, checkpoint, &model.id)?;
        }
    }
    let limits = match &suite.speed {
        Some(plan) => {
            let mut limits = job.limits(plan, &machine.environment())?;
            let models: Vec<_> = models.iter().zip(&checkpoints).collect();
            job.speed(plan, &models, &machine.environment(), &mut limits)?;
            Outcome::Measured(limits)
        }
        None => Outcome::NotMeasured("this suite has no tests of speed".into()),
    };
    let Job { journal, protocol, proofs, arms, controls, notes, .. } = job;
    let mut notes: Vec<String> =
        checkpoints.iter().flat_map(|c| c.provenance.notes.clone()).chain(notes).collect();
    if let Outcome::Measured(limits) = &limits {
        notes.extend(limits.unsteady());
    }
    let mut record = Record {
        suite: Some(suite.name.clone()),
        suite_text: suite.text.clone(),
        resumed: journal.resumed,
        limits,
        protocol: if suite.speed.is_some() { protocol.describe() } else { record::Protocol::untimed() },
        models,
        proofs,
        arms,
        controls,
        notes,
        ..Record::new(tool, journal.started.clone(), options.command.clone(), machine.environment())
    };
    let agreement: Vec<String> = identity(&record).into_iter().map(|(_, sentence)| sentence).collect();
    record.notes.extend(agreement);
    if options.anonymise {
        record.anonymise(root);
    }
    // Hours may have passed, in which somebody may have cleaned up.
    make_folder(&dir)?;
    record::write(&finished, std::slice::from_ref(&record))?;
    Ok(Finished { record, dir, journal })
}

/// That what later stages need is there, before hours of work of earlier ones.
fn can_run(suite: &Suite, checkpoints: &[Checkpoint]) -> Result<()> {
    if let Some(plan) = &suite.accuracy {
        let path = plan.text.iter().filter(|text| *text != "-").map(Path::new).next();
        let kind = path.map(|path| std::fs::metadata(path).map_err(|e| Error::io(path, e))).transpose()?;
        // A pipe gives its text but once.
        if checkpoints.len() > 1
            && (plan.text.as_deref() == Some("-")
                || kind.as_ref().is_some_and(|kind| !kind.is_file() && !kind.is_dir()))
        {
            return Err(Error::Usage(format!(
                "suite {}: `accuracy.text` is a pipe, which can be read once, for one model; name a file for several",
                suite.name
            )));
        }
        if plan.text.is_none() || kind.is_some_and(|kind| kind.is_file() || kind.is_dir()) {
            let long_enough = |checkpoint| plan.convention()?.windows(&text(plan, checkpoint)?).map(drop);
            checkpoints.iter().try_for_each(long_enough)?;
        }
        Task::open_all(&plan.tasks, None).map_err(|e| match e {
            Error::Usage(what) => Error::Usage(format!("suite {}: `accuracy.tasks`: {what}", suite.name)),
            other => other,
        })?;
        let convention = plan.convention()?;
        checkpoints.iter().try_for_each(|checkpoint| convention.fits(checkpoint))?;
    }
    if let Some(plan) = &suite.speed {
        let tests: Vec<Test> = plan.tests().collect();
        checkpoints
            .iter()
            .try_for_each(|c| speed::bench::fit(&tests, &record::Model::id_of(c), &c.config))?;
    }
    Ok(())
}

/// A sentence for each tier of the suite that this CPU or build lacks.
///
/// # Errors
/// If it has none of them.
fn lacking(suite: &Suite) -> Result<Vec<String>> {
    let here = |tier: &&String| {
        ["all", "best"].contains(&tier.as_str()) || kernel::available().any(|k| k.tier().name() == **tier)
    };
    let (here, lacking): (Vec<&String>, Vec<&String>) = suite.tiers.iter().partition(here);
    if here.is_empty() {
        let names: Vec<&str> = suite.tiers.iter().map(String::as_str).collect();
        return Err(Error::Usage(format!(
            "suite {}: `tiers` holds {}, of which this CPU has none; `tritmark doctor` tells what it has",
            suite.name,
            names.join(", ")
        )));
    }
    Ok(lacking.iter().map(|tier| format!("Not measured: {tier}, which this CPU lacks.")).collect())
}

/// A kernel and a thread count to run a model with.
struct Way {
    kernel: &'static dyn Kernel,
    threads: usize,
}

impl Way {
    fn load(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let layout = Some(self.kernel.layout().name().to_owned());
        let options =
            LoadOptions { layout, tier: Some(self.kernel.tier()), threads: self.threads, head: Head::AsIs };
        Model::load(checkpoint, &options)
    }

    /// What it is in a record, of a ternary model: [`Subject::of`] what [`load`](Self::load) gives, before it is loaded.
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

    fn name(&self) -> String {
        format!("{} on {}", self.kernel.name(), counted(self.threads as u64, "thread"))
    }
}

/// A run in progress.
struct Job<'a> {
    suite: &'a Suite,
    meter: Meter,
    protocol: speed::Options,
    journal: Journal,
    progress: &'a mut dyn FnMut(Step),
    proofs: Vec<Proof>,
    arms: Vec<Arm>,
    controls: Vec<Control>,
    notes: Vec<String>,
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
        let best = |k: &dyn Kernel| kernel::best(k.layout(), None).is_some_and(|b| b.tier() == k.tier());
        let tier =
            |k: &&dyn Kernel| chosen(tiers, k.tier().name()) || tiers.iter().any(|t| t == "best") && best(*k);
        kernel::available().filter(held).filter(tier).collect()
    }

    /// Perplexity over every kernel and thread count, which must agree bit for bit; then, over more
    /// of the text, of the fastest kernel and the references.
    fn accuracy(&mut self, plan: &Accuracy, checkpoint: &Checkpoint, model: &str) -> Result<()> {
        let text = text(plan, checkpoint)?;
        let convention = plan.convention()?;
        let counts = threads(&self.suite.threads)?;
        let kernels = self.kernels(model);
        let ways: Vec<Way> = kernels
            .iter()
            .flat_map(|&kernel| counts.iter().map(move |&threads| Way { kernel, threads }))
            .collect();
        let all = convention.windows(&text)?.len();
        // No more than there are, since a test is called by its windows.
        let some = |windows: usize| Some(windows).filter(|&n| n < all);
        // Not all of a short text, which is another test.
        let short = plan.identity_windows.min(all.saturating_sub(1).max(1));
        let short = Pass { convention, text: &text, limit: Some(short) };
        for (i, way) in ways.iter().enumerate() {
            self.step("perplexity", i, ways.len(), &way.name());
            self.scored(way.subject(model), &short, |s| short.run(s, &mut way.load(checkpoint)?, None))?;
        }
        self.step("perplexity", ways.len(), ways.len(), "");

        let long = Pass { convention, text: &text, limit: plan.windows.and_then(some) };
        match &plan.against {
            Some(other) if *other != checkpoint.provenance.name => {
                self.against(other, checkpoint, model, &long)?;
            }
            _ => self.references(plan, checkpoint, model, &long)?,
        }
        self.heads(&plan.heads, checkpoint, model, &long)?;
        self.tasks(&plan.tasks, checkpoint, model)?;
        // Over more of the text one kernel stands for its layout: all give the same bits.
        let threads = cpus();
        let best = |k: &&&dyn Kernel| kernel::best(k.layout(), None).is_some_and(|b| b.tier() == k.tier());
        let layouts: Vec<Way> = kernels.iter().filter(best).map(|&kernel| Way { kernel, threads }).collect();
        for (i, way) in layouts.iter().enumerate() {
            self.step("layouts", i, layouts.len(), &way.name());
            let subject = way.subject(model);
            if !self.arms.iter().any(|a| a.is_of(&subject, &long.test())) {
                self.scored(subject, &long, |s| long.run(s, &mut way.load(checkpoint)?, None))?;
            }
        }
        self.step("layouts", layouts.len(), layouts.len(), "");
        Ok(())
    }

    /// The model against candle with the same activations, and candle against itself with full ones. A
    /// full-precision model has but one kind of activations.
    #[cfg(feature = "reference")]
    fn references(
        &mut self,
        plan: &Accuracy,
        checkpoint: &Checkpoint,
        model: &str,
        pass: &Pass,
    ) -> Result<()> {
        use crate::reference::{ActivationMode, Reference};
        let candle = |mode: ActivationMode| Subject::candle(model, mode);
        let (int8, full) = (ActivationMode::Int8, ActivationMode::Full);
        let ternary = checkpoint.config.linear == LinearKind::Ternary;
        let (want_int8, want_full) = (plan.wants("int8") && ternary, plan.wants("full"));
        let nearest = if want_int8 { Some(int8) } else { (want_full && !ternary).then_some(full) };

        self.step("reference", 0, 3, "tritmark");
        let mut fastest = fastest(checkpoint)?;
        self.scored(Subject::of(model, &fastest), pass, |s| {
            let mut reference = nearest.map(|mode| Reference::load(checkpoint, mode)).transpose()?;
            let reference = reference.as_mut().zip(nearest);
            pass.run(s, &mut fastest, reference.map(|(r, mode)| (candle(mode).to_string(), r as _)))
        })?;
        if want_int8 {
            self.step("reference", 1, 3, "candle, int8 activations");
            self.scored(candle(int8), pass, |s| {
                let mut reference = want_full.then(|| Reference::load(checkpoint, full)).transpose()?;
                let reference = reference.as_mut().map(|r| (candle(full).to_string(), r as _));
                pass.run(s, &mut Reference::load(checkpoint, int8)?, reference)
            })?;
        }
        if want_full {
            self.step("reference", 2, 3, "candle, full activations");
            self.scored(candle(full), pass, |s| pass.run(s, &mut Reference::load(checkpoint, full)?, None))?;
        }
        self.step("reference", 3, 3, "");
        Ok(())
    }

    /// The model alone: this build has no references.
    #[cfg(not(feature = "reference"))]
    fn references(&mut self, _: &Accuracy, checkpoint: &Checkpoint, model: &str, pass: &Pass) -> Result<()> {
        let mut fastest = fastest(checkpoint)?;
        self.scored(Subject::of(model, &fastest), pass, |s| pass.run(s, &mut fastest, None))
    }

    /// The model against another one that splits texts into the same tokens.
    fn against(&mut self, other: &str, checkpoint: &Checkpoint, model: &str, pass: &Pass) -> Result<()> {
        self.step("against", 0, 1, other);
        let baseline = Checkpoint::open(other)?;
        let id = record::Model::id_of(&baseline);
        if pass.convention.tokenise(&pass.text.name, pass.text.source().into(), &baseline)?.ids
            != pass.text.ids
        {
            return Err(Error::NotComparable(format!(
                "{model} and {other} split {} into different tokens: leave `against` out and compare bits per byte",
                pass.text.name
            )));
        }
        let mut fast = fastest(checkpoint)?;
        self.scored(Subject::of(model, &fast), pass, |s| {
            let mut baseline = fastest(&baseline)?;
            let name = format!("{id}: {}", Subject::of(&id, &baseline));
            pass.run(s, &mut fast, Some((name, &mut baseline)))
        })?;
        self.step("against", 1, 1, "");
        Ok(())
    }

    /// The model with its head rounded, against itself with the head as it is.
    fn heads(&mut self, heads: &[Head], checkpoint: &Checkpoint, model: &str, pass: &Pass) -> Result<()> {
        for (i, head) in heads.iter().enumerate() {
            self.step("heads", i, heads.len(), head.name());
            let mut exact = fastest(checkpoint)?;
            let mut rounded = match fastest_with(checkpoint, *head) {
                Err(Error::Usage(reason)) => {
                    self.notes.push(format!("{model}: left out: {reason}."));
                    continue;
                }
                loaded => loaded?,
            };
            self.scored(Subject::of(model, &rounded), pass, |s| {
                let name = format!("{}, head {}", Subject::of(model, &exact), exact.head_precision());
                pass.run(s, &mut rounded, Some((name, &mut exact)))
            })?;
        }
        self.step("heads", heads.len(), heads.len(), "");
        Ok(())
    }

    /// Multiple choice with the fastest kernel.
    fn tasks(&mut self, tasks: &[String], checkpoint: &Checkpoint, model: &str) -> Result<()> {
        for name in tasks {
            let task = Task::open(name, None)?;
            let mut fastest = fastest(checkpoint)?;
            let test = task.test();
            self.measured(Subject::of(model, &fastest), test, |arm, progress| {
                let total = task.questions.len();
                let encoder = Encoder::new(checkpoint)?;
                arm.choices = Some(evaluate(&mut fastest, &encoder, &task.questions, &mut |done, _| {
                    progress(Step { stage: "questions", done: done as u64, total: total as u64, what: name });
                })?);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// That the journal holds no arm that this run would not measure.
    fn refuse_foreign(&self, models: &[record::Model]) -> Result<()> {
        let (counts, tests) = match &self.suite.speed {
            Some(plan) => (threads(&plan.threads)?, plan.tests().collect()),
            None => (Vec::new(), Vec::new()),
        };
        let ours = |arm: &&Arm| {
            let speed = || counts.contains(&(arm.subject.threads as usize)) && tests.contains(&arm.test);
            models.iter().any(|m| m.id == arm.subject.model) && (arm.speed.is_none() || speed())
        };
        match self.journal.arms.iter().find(|arm| !ours(arm)) {
            Some(odd) => Err(self.journal.foreign(odd)),
            None => Ok(()),
        }
    }

    /// What the machine allows.
    fn limits(&mut self, plan: &Speed, environment: &Environment) -> Result<Limits> {
        let counts: Vec<u32> = threads(&plan.threads)?.into_iter().map(|n| n as u32).collect();
        let each = Duration::from_millis(100);
        Ok(Limits::measure(environment, &counts, each, &mut |done, total, what| {
            self.step("limits", done, total, what);
        }))
    }

    /// Speed and energy of every model and kernel; what the journal has is taken from it.
    fn speed(
        &mut self,
        plan: &Speed,
        models: &[(&record::Model, &Checkpoint)],
        environment: &Environment,
        limits: &mut Limits,
    ) -> Result<()> {
        let known: Vec<Arm> = self.journal.arms.iter().filter(|a| a.speed.is_some()).cloned().collect();
        // Those that were sampled only come back from the benchmark, with their energy.
        let (finished, sampled): (Vec<Arm>, Vec<Arm>) =
            known.iter().cloned().partition(|arm| arm.energy_measured.is_some());
        let before = known.clone();
        self.arms.extend(finished);
        let mut notes = match &self.journal.speed_notes {
            Some(notes) => notes.clone(),
            None => {
                let counts: Vec<u32> = threads(&plan.threads)?.into_iter().map(|n| n as u32).collect();
                let choice = |k: &&dyn Kernel| Choice::One {
                    layout: Some(k.layout().name().to_owned()),
                    tier: Some(k.tier()),
                };
                let choices: Vec<Vec<Choice>> = models
                    .iter()
                    .map(|(model, _)| self.kernels(&model.id).iter().map(choice).collect())
                    .collect();
                let candidates: Vec<Candidate> = models
                    .iter()
                    .zip(&choices)
                    .map(|((model, checkpoint), choices)| Candidate { model, checkpoint, choices })
                    .collect();
                let tests: Vec<Test> = plan.tests().collect();
                let mut observer = Watcher { journal: &mut self.journal, progress: self.progress };
                let mut bench =
                    Bench::new(&self.protocol, environment, Some(limits), &mut self.meter, &mut observer);
                bench.known = known;
                bench.models(&candidates, &counts, &tests, plan.reference)?;
                let Bench { mut arms, controls, mut notes, .. } = bench;
                let same = |a: &Arm, b: &Arm| a.is_of(&b.subject, &b.test);
                if !before.is_empty() {
                    let after =
                        arms.iter().filter(|arm| !before.iter().any(|known| same(known, arm))).count();
                    let others = if after == 0 { "perhaps not all at once" } else { "the others after it" };
                    notes.push(format!(
                        "{} of {} arms of speed were measured before the run was interrupted, {others}; \
                         drift between such parts does not cancel.",
                        before.len(),
                        before.len() + after
                    ));
                }
                if !sampled.is_empty() {
                    let arms = counted(sampled.len() as u64, "arm");
                    notes.push(format!(
                        "The run was interrupted between the rounds and the energy of {arms} or more, which followed later."
                    ));
                }
                // With less memory the models are measured in other groups, in which an arm may be missing.
                for mut arm in sampled {
                    if !arms.iter().any(|other| same(other, &arm)) {
                        let reason = "the run was interrupted before it, and did not come back to this arm";
                        arm.energy_measured = Some(Outcome::NotMeasured(reason.into()));
                        self.journal.append(&Entry::Arm(Box::new(arm.clone())))?;
                        arms.push(arm);
                    }
                }
                self.journal.append(&Entry::Speed(notes.clone()))?;
                self.arms.extend(arms);
                Control::gather(&mut self.controls, controls);
                notes
            }
        };
        notes.retain(|n| !self.notes.contains(n));
        self.notes.append(&mut notes);
        Ok(())
    }

    /// An arm of a perplexity test.
    fn scored(
        &mut self,
        subject: Subject,
        pass: &Pass,
        run: impl FnOnce(&Subject) -> Result<record::Accuracy>,
    ) -> Result<()> {
        self.measured(subject, pass.test(), |arm, _| {
            arm.accuracy = Some(run(&arm.subject)?);
            Ok(())
        })
    }

    /// Takes an arm from the journal, or measures it and writes it down.
    fn measured(
        &mut self,
        subject: Subject,
        test: Test,
        run: impl FnOnce(&mut Arm, &mut dyn FnMut(Step)) -> Result<()>,
    ) -> Result<()> {
        if self.arms.iter().any(|a| a.is_of(&subject, &test)) {
            return Err(Error::Usage(format!(
                "suite {}: {} would be measured twice; take out what asks for it again",
                self.suite.name,
                record::arm_name(&subject, &test)
            )));
        }
        let known = self.journal.arms.iter().find(|a| a.is_of(&subject, &test));
        let arm = match known {
            Some(arm) => arm.clone(),
            None => {
                let mut arm = Arm::new(subject, test);
                run(&mut arm, self.progress)?;
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

/// A model on the fastest kernel and all threads.
fn fastest(checkpoint: &Checkpoint) -> Result<Model> {
    fastest_with(checkpoint, Head::AsIs)
}

/// As [`fastest`], with the head in some precision.
fn fastest_with(checkpoint: &Checkpoint, head: Head) -> Result<Model> {
    Model::load(checkpoint, &LoadOptions { layout: None, tier: None, threads: cpus(), head })
}

/// Whether a list of names holds `name` or `all`.
fn chosen(list: &[String], name: &str) -> bool {
    list.iter().any(|l| l == "all" || l == name)
}

/// Thread counts of a suite, each once, ascending.
pub(super) fn threads(list: &[String]) -> Result<Vec<usize>> {
    let max = cpus();
    let mut counts = Vec::new();
    for word in list {
        match word.as_str() {
            "max" => counts.push(max),
            "sweep" => counts.extend((0..).map(|i| 1 << i).take_while(|n| *n < max).chain([max])),
            number => match number.parse() {
                Ok(n) => {
                    check_threads(n)?;
                    counts.push(n);
                }
                Err(_) => {
                    return Err(Error::Usage(format!(
                        "threads '{number}': expected a number, `max` or `sweep`"
                    )));
                }
            },
        }
    }
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

/// Hashes of what tests of accuracy read beside the models. Of what is in the program the version tells.
fn inputs(plan: &Accuracy) -> Result<Vec<String>> {
    let files = plan.text.iter().chain(&plan.tasks).map(Path::new).filter(|path| path.is_file());
    let of_file = |path: &Path| std::fs::read(path).map(hash).map_err(|e| Error::io(path, e));
    let against = plan.against.iter().map(|model| {
        let checkpoint = Checkpoint::open(model)?;
        all_of(&checkpoint, &verify::model_hash(&checkpoint)?)
    });
    files.map(of_file).chain(against).collect()
}

/// A hash of all that makes the figures of a model, of which its own hash tells the weights of blocks alone.
fn all_of(checkpoint: &Checkpoint, model_hash: &str) -> Result<String> {
    let mut all = Sha256::new();
    all.update(format!("{model_hash} {:?}", checkpoint.config));
    all.update(checkpoint.tokenizer.as_deref().unwrap_or_default());
    // Of what is in the program the version tells.
    for path in &checkpoint.provenance.files {
        let bytes = file::map(path)?;
        all.update(&*bytes);
        bytes.release();
    }
    Ok(hex(&all.finalize()))
}

/// SHA-256 in hexadecimal digits.
fn hash(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// The text of an accuracy test: the suite's, or the demo's own for the demo.
fn text(plan: &Accuracy, checkpoint: &Checkpoint) -> Result<Text> {
    let (name, source) = match &plan.text {
        Some(file) => {
            let name = Path::new(file).file_name().unwrap_or(file.as_ref()).to_string_lossy();
            (name, accuracy::read_text(&[file.into()])?)
        }
        None => ("demo test text".into(), demo::TEXT.to_owned()),
    };
    plan.convention()?.tokenise(&name, source, checkpoint)
}

/// Where a run without `--output` goes: the folder of an interrupted run of the same, else a new one.
fn folder(root: &Path, suite: &str, fingerprint: &Fingerprint, now: &str) -> PathBuf {
    let prefix = format!("{suite}-");
    let old = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()).find(|path| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
            && Journal::continues(path, fingerprint)
    });
    // Colons cannot stand in file names everywhere.
    old.unwrap_or_else(|| root.join(format!("{prefix}{}", now.replace(':', "-"))))
}

/// For each model and test whether perplexity was equal bit for bit over kernels and thread counts, and a sentence that
/// says it.
fn identity(record: &Record) -> Vec<(bool, String)> {
    let sentence = |group: Vec<(&Arm, &record::Accuracy)>| {
        let (first, accuracy) = group[0];
        let (model, test) = (&first.subject.model, &first.test);
        match group.iter().find(|(_, a)| a.nll_bits != accuracy.nll_bits) {
            None => {
                let all = group.len();
                let sentence = format!(
                    "{model}: {test} is equal bit for bit over all {all} combinations of layout, tier and threads."
                );
                (true, sentence)
            }
            Some((odd, _)) => {
                let [a, b] = [&first.subject, &odd.subject];
                (false, format!("{model}: {test} DIFFERS between {a} and {b}: this is a bug."))
            }
        }
    };
    record.identical_groups().into_iter().map(sentence).collect()
}

/// What a record proves wrong: failed conversions and perplexities that differ, full sentences.
pub fn failures(record: &Record) -> Vec<String> {
    let differ = identity(record).into_iter().filter(|(equal, _)| !equal).map(|(_, sentence)| sentence);
    let proofs = record.proofs.iter().filter(|p| p.changed);
    let proofs = proofs.filter_map(|p| p.failure.as_ref().map(|f| format!("{}: {f}", p.model)));
    proofs.chain(differ).collect()
}

/// Writes finished arms down and passes progress on.
struct Watcher<'a> {
    journal: &'a mut Journal,
    progress: &'a mut dyn FnMut(Step),
}

impl Observer for Watcher<'_> {
    fn step(&mut self, done: u64, total: u64, what: &str) {
        (self.progress)(Step { stage: "speed", done, total, what });
    }

    fn sampled(&mut self, arms: &[Arm], controls: &[Control]) -> Result<()> {
        self.journal.append(&Entry::Sampled(arms.to_vec(), controls.to_vec()))
    }

    fn arm(&mut self, arm: &Arm) -> Result<()> {
        self.journal.append(&Entry::Arm(Box::new(arm.clone())))
    }
}

impl Speed {
    fn options(&self) -> speed::Options {
        speed::Options {
            rounds: self.rounds,
            min_time: Duration::from_secs_f64(self.min_time_s),
            warmup: Duration::from_secs_f64(self.warmup_s),
            energy: Windows {
                load: Duration::from_secs_f64(self.energy_s),
                idle: Duration::from_secs_f64(self.energy_s / 2.0),
                as_needed: true,
            },
            ..speed::Options::full()
        }
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = Test> {
        let prompts = self.prompts.iter().map(|&prompt| Test::Model { prompt, generate: 0, depth: 0 });
        let generate = self.generate.iter().map(|&generate| Test::Model { prompt: 0, generate, depth: 0 });
        prompts.chain(generate)
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
        reference: Option<(String, &mut dyn LanguageModel)>,
    ) -> Result<record::Accuracy> {
        let subject = Named { name: subject.to_string(), model };
        let reference = reference.map(|(name, model)| Named { name, model });
        let options = accuracy::Options { limit: self.limit, ..Default::default() };
        accuracy::measure(subject, reference, self.text, self.convention, &options, &mut |_| ())
    }

    fn test(&self) -> Test {
        self.convention.test(&self.text.name, self.limit)
    }
}
