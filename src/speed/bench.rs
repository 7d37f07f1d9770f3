//! Arms from models, kernels, threads and tests, measured together.

use super::bound::{self, Cost};
use super::control::controls;
use super::protocol::{
    ArmSpec, BoundBy, Observer, Options, QUICK_LOAD, Renew, Run, measure, measure_energy, warm_up,
};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::checkpoint::role::Linear;
use crate::energy::{self, Meter};
use crate::error::{Error, Result};
use crate::machine::{Environment, Limits, linux};
use crate::model::{Head, KvCache, LoadOptions, Logits, Model};
use crate::record::{self, Arm, Control, Load, Speed, Subject, Test};
use crate::stats;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::iter::Peekable;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::matmul::spread;
use tritmark_kernels::pool::Pool;
use tritmark_kernels::{Tier, Trits, layout};

/// Share of the memory that is free that loaded models may take.
const MEMORY_SHARE: f64 = 0.6;

/// What a set of kernels is called on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Every kernel of this CPU whose layout holds the shapes.
    All,
    /// A layout, a tier, or both; what is left out is the fastest.
    One {
        /// Layout.
        layout: Option<String>,
        /// Tier.
        tier: Option<Tier>,
    },
}

/// With so many arms in the same rounds, a further test gets rounds of its own.
const MANY: usize = 24;

/// A model to measure.
pub struct Candidate<'a> {
    /// What the record says of it.
    pub model: &'a record::Model,
    /// Its weights.
    pub checkpoint: &'a Checkpoint,
    /// Kernels to run it with.
    pub choices: &'a [Choice],
}

/// Models that are measured in the same rounds.
#[derive(Default)]
struct Group<'a> {
    sessions: Vec<(&'a Candidate<'a>, Rc<RefCell<Session>>)>,
    oracles: Vec<(&'a Candidate<'a>, Oracle)>,
}

/// A loaded model and its caches, one for each depth: all tests of a depth share what is before them.
struct Session {
    load: LoadOptions,
    model: Model,
    caches: BTreeMap<usize, KvCache>,
}

impl Session {
    fn new(checkpoint: &Checkpoint, load: LoadOptions) -> Result<Self> {
        let model = Model::load(checkpoint, &load)?;
        Ok(Self { load, model, caches: BTreeMap::new() })
    }
}

/// What all measurements of a run share.
pub struct Bench<'a> {
    /// How samples are taken.
    pub options: &'a Options,
    /// The machine, for the sizes of its caches.
    pub environment: &'a Environment,
    /// Its limits, for bounds; without them arms have none.
    pub limits: Option<&'a mut Limits>,
    /// Precision of the models' heads.
    pub head: Head,
    /// Share of the budget that what is measured next may take.
    pub part: f64,
    /// Energy sensors.
    pub meter: &'a mut Meter,
    /// Hears of progress and finished arms.
    pub observer: &'a mut dyn Observer,
    /// Arms that were measured before, which are left out; of those that were sampled only, energy is measured.
    pub known: Vec<Arm>,
    /// Arms so far.
    pub arms: Vec<Arm>,
    /// Controls so far.
    pub controls: Vec<Control>,
    /// Remarks so far, full sentences.
    pub notes: Vec<String>,
}

impl<'a> Bench<'a> {
    /// Nothing measured so far.
    pub fn new(
        options: &'a Options,
        environment: &'a Environment,
        limits: Option<&'a mut Limits>,
        meter: &'a mut Meter,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self {
            options,
            environment,
            limits,
            head: Head::AsIs,
            part: 1.0,
            meter,
            observer,
            known: Vec::new(),
            arms: Vec::new(),
            controls: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Measures models: all of them, their kernels, thread counts and tests in the same rounds, as far
    /// as they fit into memory together.
    ///
    /// With `reference`, the full-precision reference of each takes part in tests of prompts alone (it
    /// has no cache to generate with).
    ///
    /// # Errors
    /// If a kernel cannot run a model, or a model holds fewer positions than a test has.
    pub fn models(
        &mut self,
        candidates: &[Candidate<'_>],
        threads: &[u32],
        tests: &[Test],
        reference: bool,
    ) -> Result<()> {
        let mut loads = Vec::new();
        for candidate in candidates {
            let config = &candidate.checkpoint.config;
            fit(tests, &candidate.model.id, config)?;
            let options = self.loads(config, candidate.choices, threads)?;
            let last = options.len();
            loads.extend(options.into_iter().enumerate().map(|(i, o)| (candidate, o, i + 1 == last)));
        }
        let free = linux::available_memory(Path::new("/")).map(|free| MEMORY_SHARE * free as f64);
        let reference = reference && tests.iter().any(for_reference);
        let (mut held, mut group) = (0, Group::default());
        let total = loads.len();
        for (i, (candidate, load, last_of_model)) in loads.iter().enumerate() {
            let id = &candidate.model.id;
            let what =
                format!("loading {id}: {} {}T", load.layout.as_deref().unwrap_or("model"), load.threads);
            self.observer.step(i as u64, total as u64, &what);
            let session = Session::new(candidate.checkpoint, load.clone())?;
            let caches = capacities(tests).into_values().map(|n| session.model.cache_bytes(n));
            let bytes = session.model.memory() + caches.sum::<u64>();
            held += bytes;
            group.sessions.push((candidate, Rc::new(RefCell::new(session))));
            if reference && *last_of_model {
                held += size_of::<f32>() as u64 * candidate.model.params;
                group.oracles.push((candidate, load_oracle(candidate.checkpoint)?));
            }
            let next = loads.get(i + 1).map(|(next, ..)| {
                let alike = std::ptr::eq(*next, *candidate);
                if alike { bytes } else { bytes.max(next.model.file_bytes) }
            });
            let full = free.zip(next).is_some_and(|(free, next)| (held + next) as f64 > free);
            if full {
                let note = "The models and kernels do not fit into memory together, so they were measured in \
                            several groups one after the other; drift between the groups does not cancel.";
                if !self.notes.iter().any(|n| n == note) {
                    self.notes.push(note.into());
                }
            }
            if full || i + 1 == total {
                self.part = group.sessions.len() as f64 / total as f64;
                self.tests(std::mem::take(&mut group), tests)?;
                held = 0;
            }
        }
        Ok(())
    }

    /// Kernels and threads to load a model for.
    fn loads(
        &mut self,
        config: &ModelConfig,
        choices: &[Choice],
        threads: &[u32],
    ) -> Result<Vec<LoadOptions>> {
        let mut kernels: Vec<(Option<String>, Option<Tier>)> = Vec::new();
        if config.linear == LinearKind::Float {
            kernels.push((None, None));
        } else {
            let shapes: Vec<_> = Linear::ALL.iter().map(|&l| config.linear_shape(l)).collect();
            for kernel in self.kernels(choices, &shapes)? {
                kernels.push((Some(kernel.layout().name().to_owned()), Some(kernel.tier())));
            }
        }
        let head = self.head;
        let all = kernels.into_iter().flat_map(|(layout, tier)| {
            threads.iter().map(move |&n| LoadOptions {
                layout: layout.clone(),
                tier,
                threads: n as usize,
                head,
            })
        });
        Ok(all.collect())
    }

    /// The kernels that choices name, each once.
    fn kernels(&mut self, choices: &[Choice], shapes: &[(usize, usize)]) -> Result<Vec<&'static dyn Kernel>> {
        let mut found: Vec<&'static dyn Kernel> = Vec::new();
        for choice in choices {
            let named = match choice {
                Choice::All => {
                    let refused =
                        |l: &dyn layout::Layout| shapes.iter().find_map(|&(r, c)| l.packed_len(r, c).err());
                    for layout in layout::ALL {
                        if let Some(error) = refused(*layout) {
                            self.notes.push(format!("Left out: {error}."));
                        }
                    }
                    kernel::available().filter(|k| refused(k.layout()).is_none()).collect()
                }
                Choice::One { layout, tier } => {
                    let options =
                        LoadOptions { layout: layout.clone(), tier: *tier, threads: 1, head: self.head };
                    vec![crate::model::choose_kernel(&options)?]
                }
            };
            for kernel in named {
                if !found.iter().any(|k| k.name() == kernel.name()) {
                    found.push(kernel);
                }
            }
        }
        Ok(found)
    }

    /// Measures a group of loaded models in the same rounds.
    fn tests(&mut self, group: Group<'_>, tests: &[Test]) -> Result<()> {
        let counts = |sessions: &[(&Candidate<'_>, Rc<RefCell<Session>>)]| {
            let counts: BTreeSet<u32> =
                sessions.iter().map(|(_, s)| s.borrow().model.threads() as u32).collect();
            counts.into_iter().collect::<Vec<_>>()
        };
        let capacities = capacities(tests);
        let longest = capacities.values().copied().max().unwrap_or(0);
        let mut specs = Vec::new();
        for sessions in group.sessions.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
            let candidate = sessions[0].0;
            let (id, config) = (&candidate.model.id, &candidate.checkpoint.config);
            let modelled = energy::model::arithmetic(config);
            let ids: Rc<[u32]> = tokens(self.options.seed, config.vocab, longest).into();
            for test in tests {
                let &Test::Model { prompt, generate, depth } = test else { continue };
                for (_, session) in sessions {
                    let (subject, bytes) = {
                        let model = &session.borrow().model;
                        (Subject::of(id, model), model.bytes().1)
                    };
                    let threads = subject.threads;
                    let cost = Cost::new(config, bytes, subject.layout.is_none());
                    let load = Load {
                        seconds: session.borrow().model.load_seconds(),
                        bytes: candidate.model.file_bytes,
                        threads,
                    };
                    specs.push(ArmSpec {
                        subject,
                        test: test.clone(),
                        unit: "tokens/s",
                        work: f64::from(prompt) + f64::from(generate),
                        bound: model_bound(cost, test, threads),
                        load: Some(load),
                        energy_modelled: Some(modelled.clone()),
                        renew: (session.borrow().model.load_seconds() <= QUICK_LOAD)
                            .then(|| renewal(session.clone(), candidate.checkpoint)),
                        run: model_run(
                            session.clone(),
                            ids.clone(),
                            [depth, prompt, generate].map(|n| n as usize),
                            capacities[&depth],
                        ),
                    });
                }
                let oracle = group.oracles.iter().find(|o| std::ptr::eq(o.0, candidate));
                if let Some((_, oracle)) = oracle.filter(|_| for_reference(test)) {
                    let ids = &ids[..prompt as usize];
                    specs.extend(self.reference_arms(id, config, oracle, test, ids, &counts(sessions))?);
                }
            }
        }
        self.measure(specs, &counts(&group.sessions))
    }

    #[cfg(feature = "reference")]
    fn reference_arms<'r>(
        &self,
        id: &str,
        config: &ModelConfig,
        oracle: &Oracle,
        test: &Test,
        ids: &[u32],
        threads: &[u32],
    ) -> Result<Vec<ArmSpec<'r>>> {
        let cost = Cost::new(config, 0, true);
        let arms = threads.iter().map(|&threads| {
            let (oracle, ids) = (oracle.clone(), ids.to_vec());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build();
            let pool = pool.map_err(|e| Error::Bug(format!("cannot start {threads} threads: {e}")))?;
            Ok(ArmSpec {
                subject: Subject { threads, ..Subject::candle(id, crate::reference::ActivationMode::Full) },
                test: test.clone(),
                unit: "tokens/s",
                work: ids.len() as f64,
                bound: model_bound(cost.clone(), test, threads),
                load: None,
                energy_modelled: None,
                renew: None,
                run: Box::new(move |clock| {
                    let oracle: &crate::reference::Reference = &oracle;
                    clock.prompt(|| pool.install(|| oracle.last_logits(&ids)))?;
                    Ok(())
                }),
            })
        });
        arms.collect()
    }

    #[cfg(not(feature = "reference"))]
    fn reference_arms<'r>(
        &self,
        _: &str,
        _: &ModelConfig,
        oracle: &Oracle,
        _: &Test,
        _: &[u32],
        _: &[u32],
    ) -> Result<Vec<ArmSpec<'r>>> {
        match *oracle {}
    }

    /// Measures kernels alone on a matrix of random trits: exact integer products, without scaling.
    ///
    /// Weights come from copies of the matrix that together exceed every cache, as in a model whose
    /// layers follow each other.
    ///
    /// # Errors
    /// If a kernel that was named cannot run here or its layout cannot hold the shape.
    pub fn kernel(
        &mut self,
        choices: &[Choice],
        threads: &[u32],
        (rows, cols): (u32, u32),
        batches: &[u32],
    ) -> Result<()> {
        let kernels = self.kernels(choices, &[(rows as usize, cols as usize)])?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.options.seed);
        let data = (0..rows as usize * cols as usize).map(|_| rng.random_range(-1..=1)).collect();
        let trits = Trits::new(rows as usize, cols as usize, data).map_err(|e| Error::Bug(e.to_string()))?;
        let beyond = self.environment.beyond_caches() / 2;
        let mut packed: Vec<Rc<Vec<Packed>>> = Vec::new();
        for kernel in &kernels {
            let layout = kernel.layout();
            if packed.iter().any(|p| p[0].layout().name() == layout.name()) {
                continue;
            }
            let first = Packed::pack(layout, &trits).map_err(|e| Error::Usage(e.to_string()))?;
            let copies = beyond.div_ceil(first.bytes().len() as u64) as usize;
            let copy = || Packed::from_bytes(layout, rows as usize, cols as usize, first.bytes());
            let mut all: Vec<_> = (1..copies)
                .map(|_| copy())
                .collect::<Result<_, _>>()
                .map_err(|e| Error::Bug(e.to_string()))?;
            all.push(first);
            packed.push(Rc::new(all));
        }
        let pools: Vec<Arc<Pool>> = threads.iter().map(|&n| Pool::shared(n as usize)).collect();
        let mut specs = Vec::new();
        for &batch in batches {
            let values: Vec<i8> =
                (0..batch as usize * cols as usize).map(|_| rng.random_range(-127..=127)).collect();
            let mut acts = Activations::new();
            acts.set_i8(batch as usize, cols as usize, &values);
            let acts = Rc::new(acts);
            for kernel in &kernels {
                let copies = packed.iter().find(|p| p[0].layout().name() == kernel.layout().name());
                let copies = copies.expect("every layout was packed").clone();
                for (pool, &threads) in pools.iter().zip(threads) {
                    let bytes = copies[0].bytes().len() as u64;
                    let set = bytes * copies.len() as u64;
                    specs.push(ArmSpec {
                        subject: Subject {
                            model: "random trits".into(),
                            engine: "tritmark".into(),
                            layout: Some(kernel.layout().name().into()),
                            tier: Some(kernel.tier().to_string()),
                            variant: None,
                            threads,
                        },
                        test: Test::Kernel { rows, cols, batch },
                        unit: "GMAC/s",
                        work: f64::from(rows) * f64::from(cols) * f64::from(batch) / 1e9,
                        bound: Box::new(move |l| {
                            bound::of_kernel(l, (rows, cols, batch), bytes, set, threads)
                        }),
                        load: None,
                        energy_modelled: None,
                        renew: None,
                        run: kernel_run(*kernel, copies.clone(), acts.clone(), pool.clone()),
                    });
                }
            }
        }
        self.measure(specs, threads)
    }

    fn measure(&mut self, all: Vec<ArmSpec<'_>>, threads: &[u32]) -> Result<()> {
        let (mut specs, mut sampled) = (Vec::new(), Vec::new());
        for spec in all {
            match self.known.iter().find(|arm| arm.is_of(&spec.subject, &spec.test)) {
                None => specs.push(spec),
                Some(arm) if arm.energy_measured.is_none() => sampled.push((spec, arm.clone())),
                Some(_) => {}
            }
        }
        let total = sampled.len() as u64;
        for (i, (mut spec, mut arm)) in sampled.into_iter().enumerate() {
            let at = (i as u64, total);
            // As its rounds have done in the run that was interrupted.
            warm_up(&mut spec, self.options)?;
            measure_energy(&mut spec, &mut arm, at, self.options, self.meter, self.observer)?;
            self.arms.push(arm);
        }
        if specs.is_empty() {
            return Ok(());
        }
        let memory = Arc::new(vec![1; self.environment.beyond_caches() as usize / 16]);
        let mut controls: Vec<_> = threads.iter().flat_map(|&n| controls(n, memory.clone())).collect();
        let total = specs.len();
        let mut specs = specs.into_iter().peekable();
        while specs.peek().is_some() {
            let part = part(&mut specs);
            let share = self.part * part.len() as f64 / total as f64;
            let budget = self.options.budget.map(|b| b.mul_f64(share));
            let options = Options { budget, ..self.options.clone() };
            let (arms, controls) = measure(
                part,
                &mut controls,
                self.limits.as_deref_mut(),
                &options,
                self.meter,
                self.observer,
            )?;
            self.arms.extend(arms);
            Control::gather(&mut self.controls, controls);
        }
        Ok(())
    }

    /// A sentence for each subject and test that was measured with two numbers of threads or more:
    /// how many are worth their while.
    pub fn knees(&self) -> Vec<String> {
        let mut seen: Vec<(Subject, &Test)> = Vec::new();
        let mut sentences = Vec::new();
        for arm in &self.arms {
            let key = (Subject { threads: 0, ..arm.subject.clone() }, &arm.test);
            if seen.contains(&key) {
                continue;
            }
            let alike = self
                .arms
                .iter()
                .filter(|a| a.test == arm.test && Subject { threads: 0, ..a.subject.clone() } == key.0);
            let speeds: Vec<(u32, &Speed)> =
                alike.filter_map(|a| Some((a.subject.threads, a.speed.as_ref()?))).collect();
            let sweep: Vec<(u32, f64)> =
                speeds.iter().map(|(threads, speed)| (*threads, speed.median)).collect();
            if let Some((threads, speed)) = stats::knee(&sweep)
                && let Some((most, best)) = speeds.iter().max_by(|a, b| a.1.median.total_cmp(&b.1.median))
            {
                sentences.push(format!(
                    "{}: {} {}: {threads} of {} threads {} {:.0} % of the best speed ({:.2} {} with {most}).",
                    arm.subject.model,
                    key.0.kernel(),
                    arm.test,
                    sweep.iter().map(|s| s.0).max().unwrap_or(threads),
                    if threads == 1 { "reaches" } else { "reach" },
                    100.0 * speed / best.median,
                    best.median,
                    best.unit,
                ));
            }
            seen.push(key);
        }
        sentences
    }
}

/// The next arms that are measured in the same rounds: whole tests of a model until they are many, so that an
/// interrupted run keeps those before.
fn part<'s>(specs: &mut Peekable<impl Iterator<Item = ArmSpec<'s>>>) -> Vec<ArmSpec<'s>> {
    let mut part: Vec<ArmSpec<'s>> = Vec::new();
    loop {
        let Some(next) = specs.peek() else { return part };
        let alike =
            |other: &ArmSpec<'_>| (&other.subject.model, &other.test) == (&next.subject.model, &next.test);
        if part.len() >= MANY && !part.last().is_some_and(alike) {
            return part;
        }
        part.extend(specs.next());
    }
}

/// The reference, loaded once for all tests of a model.
#[cfg(feature = "reference")]
type Oracle = Rc<crate::reference::Reference>;
#[cfg(not(feature = "reference"))]
type Oracle = std::convert::Infallible;

#[cfg(feature = "reference")]
fn load_oracle(checkpoint: &Checkpoint) -> Result<Oracle> {
    use crate::reference::{ActivationMode, Reference};
    Reference::load(checkpoint, ActivationMode::Full).map(Rc::new)
}

#[cfg(not(feature = "reference"))]
fn load_oracle(_: &Checkpoint) -> Result<Oracle> {
    let message = "this program was built without the reference; build it with the feature `reference`";
    Err(Error::Usage(message.into()))
}

/// Whether the reference takes part in a test: it has no cache to generate with.
pub fn for_reference(test: &Test) -> bool {
    matches!(test, Test::Model { generate: 0, depth: 0, .. })
}

/// Tokens of a text that means nothing, the same for every arm.
fn tokens(seed: u64, vocab: usize, count: usize) -> Vec<u32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..vocab as u32)).collect()
}

/// That a model has the positions of all tests.
///
/// # Errors
/// Names the first test that is too long.
pub fn fit(tests: &[Test], model: &str, config: &ModelConfig) -> Result<()> {
    let long = tests.iter().find_map(|test| Some((test, positions(test).filter(|p| *p > config.context)?)));
    match long {
        None => Ok(()),
        Some((test, positions)) => Err(Error::Usage(format!(
            "{test} has {positions} positions, but {model} was made for {}; ask for fewer tokens",
            config.context
        ))),
    }
}

/// Positions that a test of a model takes.
fn positions(test: &Test) -> Option<usize> {
    let &Test::Model { prompt, generate, depth } = test else { return None };
    Some(prompt as usize + generate as usize + depth as usize)
}

/// Positions that the cache of each depth needs.
fn capacities(tests: &[Test]) -> BTreeMap<u32, usize> {
    let mut capacities = BTreeMap::new();
    for test in tests {
        if let (Test::Model { depth, .. }, Some(positions)) = (test, positions(test)) {
            let capacity = capacities.entry(*depth).or_insert(0);
            *capacity = positions.max(*capacity);
        }
    }
    capacities
}

/// Loads a model anew, beside the one that was there, so that its data comes to lie elsewhere.
fn renewal(session: Rc<RefCell<Session>>, checkpoint: &Checkpoint) -> Renew<'_> {
    Box::new(move || {
        let session = &mut *session.borrow_mut();
        *session = Session::new(checkpoint, session.load.clone())?;
        Ok(())
    })
}

/// A run of `prompt` tokens of `ids` in batches and then `generate` one by one, after `depth` of them,
/// which go into the cache once and are not timed.
fn model_run<'a>(
    session: Rc<RefCell<Session>>,
    ids: Rc<[u32]>,
    [depth, prompt, generate]: [usize; 3],
    capacity: usize,
) -> Run<'a> {
    Box::new(move |clock| {
        let Session { model, caches, .. } = &mut *session.borrow_mut();
        let cache = match caches.entry(depth) {
            Entry::Occupied(cache) => cache.into_mut(),
            Entry::Vacant(place) => {
                let mut cache = model.new_cache(capacity);
                if depth > 0 {
                    model.forward(&mut cache, &ids[..depth], Logits::None)?;
                }
                place.insert(cache)
            }
        };
        cache.truncate(depth);
        if prompt > 0 {
            clock.prompt(|| {
                model.forward(cache, &ids[depth..depth + prompt], Logits::Last).map(|l| black_box(l[0]))
            })?;
        }
        for id in &ids[depth + prompt..depth + prompt + generate] {
            clock.token(|| model.forward(cache, &[*id], Logits::Last).map(|l| black_box(l[0])))?;
        }
        Ok(())
    })
}

/// The bound of a test of a model, once the limits are known.
fn model_bound<'a>(cost: Cost, test: &Test, threads: u32) -> BoundBy<'a> {
    let test = test.clone();
    Box::new(move |limits| bound::of_model(limits, &cost, &test, threads))
}

/// A product with the next copy of the weights.
fn kernel_run<'a>(
    kernel: &'static dyn Kernel,
    copies: Rc<Vec<Packed>>,
    acts: Rc<Activations>,
    pool: Arc<Pool>,
) -> Run<'a> {
    let mut next = 0;
    Box::new(move |clock| {
        let weights = &copies[next % copies.len()];
        next += 1;
        clock.time(|| {
            let matrix = std::iter::once((kernel, weights));
            spread(&pool, matrix, &acts, |_, _, _, sums| {
                black_box(sums);
            });
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Watch;
    use crate::record::Model as Described;
    use std::time::Duration;

    /// Keeps the names of the arms in the order in which their samples are taken.
    #[derive(Default)]
    struct Order(Vec<String>);

    impl Observer for Order {
        fn step(&mut self, _: u64, _: u64, what: &str) {
            let other = ["loading", "warm-up", "energy"].iter().any(|w| what.starts_with(w));
            self.0.extend((!other).then(|| what.to_owned()));
        }
    }

    #[test]
    fn models_and_tests_take_turns_in_every_round() {
        let checkpoint = Checkpoint::open("demo").unwrap();
        let models = ["one", "two"]
            .map(|id| Described { id: id.into(), ..Described::describe(&checkpoint, "00".into()) });
        let choices = [Choice::One { layout: Some("i2_s".into()), tier: Some(Tier::Scalar) }];
        let candidates =
            models.each_ref().map(|model| Candidate { model, checkpoint: &checkpoint, choices: &choices });
        let test = |prompt, generate, depth| Test::Model { prompt, generate, depth };
        let tests = [test(4, 0, 0), test(0, 2, 0), test(2, 1, 8)];
        // So few that no further ones follow.
        let options = Options {
            rounds: 4,
            min_time: Duration::ZERO,
            warmup: Duration::ZERO,
            seed: 3,
            ..Options::quick()
        };
        let environment = Watch::start().environment();
        let mut meter = Meter::open(tempfile::tempdir().unwrap().path(), None).unwrap();
        let mut order = Order::default();
        let mut bench = Bench::new(&options, &environment, None, &mut meter, &mut order);
        bench.models(&candidates, &[1], &tests, false).unwrap();
        assert_eq!(bench.arms.len(), 6);
        assert!(bench.arms.iter().all(|a| a.speed.as_ref().is_some_and(|s| s.samples.len() == 4)));
        let rounds: Vec<&[String]> = order.0.chunks(6).collect();
        assert_eq!(rounds.len(), 4);
        for round in &rounds {
            let distinct: BTreeSet<&String> = round.iter().collect();
            assert_eq!(distinct.len(), 6, "{round:?}");
        }
        assert!(rounds.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn tests_of_one_depth_share_a_cache_that_holds_the_longest() {
        let test = |prompt, generate, depth| Test::Model { prompt, generate, depth };
        let capacities = capacities(&[test(512, 0, 0), test(0, 128, 0), test(16, 8, 100)]);
        assert_eq!(capacities, BTreeMap::from([(0, 512), (100, 124)]));
    }
}
