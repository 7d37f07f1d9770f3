//! Arms from models, kernels, threads and tests, measured test by test.

use super::bound::{self, Cost};
use super::control::controls;
use super::protocol::{ArmSpec, ControlSpec, Observer, Options, Run, measure};
use super::stats;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::checkpoint::role::Linear;
use crate::energy::{self, Meter};
use crate::error::{Error, Result};
use crate::machine::{Environment, Limits, linux};
use crate::model::{Head, LoadOptions, Logits, Model};
use crate::record::{Arm, Control, Subject, Test};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
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

/// What all measurements of a run share.
pub struct Bench<'a> {
    /// How samples are taken.
    pub options: &'a Options,
    /// The machine, for the sizes of its caches.
    pub environment: &'a Environment,
    /// Its limits, for bounds; without them arms have none.
    pub limits: Option<&'a Limits>,
    /// Precision of the models' heads.
    pub head: Head,
    /// Energy sensors.
    pub meter: &'a mut Meter,
    /// Hears of progress and finished arms.
    pub observer: &'a mut dyn Observer,
    /// Arms that were measured before, which are left out.
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
        limits: Option<&'a Limits>,
        meter: &'a mut Meter,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self {
            options,
            environment,
            limits,
            head: Head::AsIs,
            meter,
            observer,
            known: Vec::new(),
            arms: Vec::new(),
            controls: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Measures a model: all kernels and thread counts of one test against each other, test by test.
    ///
    /// `id` is [`crate::record::Model::id`]. With `reference`, the full-precision reference takes part
    /// in tests of prompts alone (it has no cache to generate with).
    ///
    /// # Errors
    /// If a kernel cannot run the model, or the model holds fewer positions than a test has.
    pub fn model(
        &mut self,
        id: &str,
        checkpoint: &Checkpoint,
        choices: &[Choice],
        threads: &[u32],
        tests: &[Test],
        reference: bool,
    ) -> Result<()> {
        let config = &checkpoint.config;
        for test in tests {
            let Test::Model { prompt, generate, depth } = test else { continue };
            let positions = *prompt as usize + *generate as usize + *depth as usize;
            if positions > config.context {
                return Err(Error::Usage(format!(
                    "{test} has {positions} positions, but {id} was made for {}; lower -p, -n or -d",
                    config.context
                )));
            }
        }
        let loads = self.loads(config, choices, threads)?;
        let free = linux::available_memory(Path::new("/"));
        let mut held = 0;
        let mut models = Vec::new();
        let mut took: Vec<(f64, String)> = Vec::new();
        let last = loads.len().saturating_sub(1);
        for (i, load) in loads.into_iter().enumerate() {
            let what = format!("loading {} {}T", load.layout.as_deref().unwrap_or("model"), load.threads);
            self.observer.step(i as u64, last as u64 + 1, &what);
            let model = Model::load(checkpoint, &load)?;
            took.push((model.load_seconds(), Subject::of(id, &model).to_string()));
            let bytes = model.bytes().1;
            held += bytes;
            models.push(Rc::new(RefCell::new(model)));
            let full = free.is_some_and(|free| (held + bytes) as f64 > MEMORY_SHARE * free as f64);
            if full && i < last {
                self.notes.push(format!(
                    "The arms of {id} do not fit into memory together, so they were measured in several \
                     groups one after the other; drift between the groups does not cancel."
                ));
            }
            if full || i == last {
                self.tests(
                    id,
                    config,
                    std::mem::take(&mut models),
                    tests,
                    checkpoint,
                    reference && i == last,
                )?;
                held = 0;
            }
        }
        took.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some((least, shortest)), Some((most, longest))) = (took.first(), took.last()) {
            let time = |s: f64| if s < 1.0 { format!("{:.1} ms", s * 1e3) } else { format!("{s:.2} s") };
            let range =
                if took.len() > 1 { format!(", and {} for {longest}", time(*most)) } else { String::new() };
            self.notes.push(format!(
                "Loading {id} (reading, checking and repacking) took {} for {shortest}{range}.",
                time(*least)
            ));
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

    fn tests(
        &mut self,
        id: &str,
        config: &ModelConfig,
        models: Vec<Rc<RefCell<Model>>>,
        tests: &[Test],
        checkpoint: &Checkpoint,
        reference: bool,
    ) -> Result<()> {
        let mut threads: Vec<u32> = models.iter().map(|m| m.borrow().threads() as u32).collect();
        threads.sort();
        threads.dedup();
        let mut controls = self.control_specs(&threads);
        let modelled = energy::model::arithmetic(config);
        let wanted = reference && tests.iter().any(for_reference);
        let oracle = wanted.then(|| load_oracle(checkpoint)).transpose()?;
        for test in tests {
            let &Test::Model { prompt, generate, depth } = test else { continue };
            let ids = tokens(self.options.seed, config.vocab, (prompt + generate + depth) as usize);
            let mut specs = Vec::new();
            for model in &models {
                let (kernel, variant, threads, bytes) = {
                    let model = model.borrow();
                    (model.kernel(), model.variant(), model.threads() as u32, model.bytes().1)
                };
                let (layout, tier) =
                    kernel.split_once('/').map_or((None, None), |(l, t)| (Some(l.into()), Some(t.into())));
                let float = layout.is_none();
                let cost = Cost::new(config, bytes, float);
                specs.push(ArmSpec {
                    subject: Subject {
                        model: id.into(),
                        engine: "tritmark".into(),
                        layout,
                        tier,
                        variant,
                        threads,
                    },
                    test: test.clone(),
                    unit: "tokens/s",
                    work: f64::from(prompt + generate),
                    bound: self.limits.and_then(|l| bound::of_model(l, &cost, test, threads)),
                    energy_modelled: Some(modelled.clone()),
                    run: model_run(model.clone(), &ids, prompt as usize, generate as usize),
                });
            }
            if let Some(oracle) = oracle.as_ref().filter(|_| for_reference(test)) {
                specs.extend(self.reference_arms(id, config, oracle, test, &ids, &threads)?);
            }
            self.measure(specs, &mut controls)?;
        }
        Ok(())
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
        let cost = Cost { float: true, ..Cost::new(config, 0, true) };
        let arms = threads.iter().map(|&threads| {
            let (oracle, ids) = (oracle.clone(), ids.to_vec());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build();
            let pool = pool.map_err(|e| Error::Bug(format!("cannot start {threads} threads: {e}")))?;
            Ok(ArmSpec {
                subject: Subject {
                    model: id.into(),
                    engine: "candle".into(),
                    layout: None,
                    tier: None,
                    variant: Some("full activations".into()),
                    threads,
                },
                test: test.clone(),
                unit: "tokens/s",
                work: ids.len() as f64,
                bound: self.limits.and_then(|l| bound::of_model(l, &cost, test, threads)),
                energy_modelled: None,
                run: Box::new(move |clock| {
                    let oracle: &crate::reference::Reference = &oracle;
                    clock.prompt(|| pool.install(|| oracle.hidden(&ids)))?;
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
        let pools: Vec<Rc<Pool>> = threads.iter().map(|&n| Rc::new(Pool::new(n as usize))).collect();
        let mut controls = self.control_specs(threads);
        for &batch in batches {
            let values: Vec<i8> =
                (0..batch as usize * cols as usize).map(|_| rng.random_range(-127..=127)).collect();
            let mut acts = Activations::new();
            acts.set_i8(batch as usize, cols as usize, &values);
            let acts = Rc::new(acts);
            let mut specs = Vec::new();
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
                        bound: self
                            .limits
                            .and_then(|l| bound::of_kernel(l, (rows, cols, batch), bytes, set, threads)),
                        energy_modelled: None,
                        run: kernel_run(*kernel, copies.clone(), acts.clone(), pool.clone()),
                    });
                }
            }
            self.measure(specs, &mut controls)?;
        }
        Ok(())
    }

    fn control_specs(&self, threads: &[u32]) -> Vec<ControlSpec<'static>> {
        let bytes = self.environment.beyond_caches() / 2;
        threads.iter().flat_map(|&n| controls(n, bytes)).collect()
    }

    fn measure(&mut self, mut specs: Vec<ArmSpec<'_>>, controls: &mut [ControlSpec<'_>]) -> Result<()> {
        specs.retain(|s| !self.known.iter().any(|a| a.subject == s.subject && a.test == s.test));
        if specs.is_empty() {
            return Ok(());
        }
        let (arms, controls) = measure(specs, controls, self.options, self.meter, self.observer)?;
        self.arms.extend(arms);
        Control::gather(&mut self.controls, controls);
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
            let sweep: Vec<(u32, f64)> =
                alike.filter_map(|a| Some((a.subject.threads, a.speed.as_ref()?.median))).collect();
            if sweep.len() > 1
                && let Some((threads, speed)) = stats::knee(&sweep)
            {
                let (most, best) = sweep.iter().copied().fold((0, 0.0), |b, s| if s.1 > b.1 { s } else { b });
                sentences.push(format!(
                    "{}: {} {}: {threads} of {} threads {} {:.0} % of the best speed ({best:.4} with {most}).",
                    arm.subject.model,
                    key.0.kernel(),
                    arm.test,
                    sweep.iter().map(|s| s.0).max().unwrap_or(threads),
                    if threads == 1 { "reaches" } else { "reach" },
                    100.0 * speed / best,
                ));
            }
            seen.push(key);
        }
        sentences
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
fn for_reference(test: &Test) -> bool {
    matches!(test, Test::Model { generate: 0, depth: 0, .. })
}

/// Tokens of a text that means nothing, the same for every arm.
fn tokens(seed: u64, vocab: usize, count: usize) -> Vec<u32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..vocab as u32)).collect()
}

/// A run of `prompt` tokens in batches and then `generate` one by one, after the rest of `ids`, which
/// goes into the cache once and is not timed.
fn model_run<'a>(model: Rc<RefCell<Model>>, ids: &[u32], prompt: usize, generate: usize) -> Run<'a> {
    let ids = ids.to_vec();
    let depth = ids.len() - prompt - generate;
    let mut cache = None;
    Box::new(move |clock| {
        let model = &mut *model.borrow_mut();
        let cache = match &mut cache {
            Some(cache) => cache,
            None => {
                let mut new = model.new_cache(ids.len());
                if depth > 0 {
                    model.forward(&mut new, &ids[..depth], Logits::None)?;
                }
                cache.insert(new)
            }
        };
        cache.truncate(depth);
        if prompt > 0 {
            clock.prompt(|| {
                model.forward(cache, &ids[depth..depth + prompt], Logits::Last).map(|l| black_box(l[0]))
            })?;
        }
        for id in &ids[depth + prompt..] {
            clock.token(|| model.forward(cache, &[*id], Logits::Last).map(|l| black_box(l[0])))?;
        }
        Ok(())
    })
}

/// A product with the next copy of the weights.
fn kernel_run<'a>(
    kernel: &'static dyn Kernel,
    copies: Rc<Vec<Packed>>,
    acts: Rc<Activations>,
    pool: Rc<Pool>,
) -> Run<'a> {
    let mut next = 0;
    let ranges = if pool.threads() == 1 { 1 } else { 4 * pool.threads() };
    let rows = copies[0].rows();
    let each = rows.div_ceil(ranges).next_multiple_of(kernel.row_step());
    Box::new(move |clock| {
        let (weights, acts): (&Packed, &Activations) = (&copies[next % copies.len()], &acts);
        next += 1;
        clock.time(|| {
            pool.tasks(rows.div_ceil(each), |_, task| {
                let range = task * each..((task + 1) * each).min(rows);
                kernel.run(weights, acts, 0..acts.tokens(), range, &mut |_, _, sums| {
                    black_box(sums);
                });
            });
        });
        Ok(())
    })
}
