//! How samples are taken: after a warm-up, all arms once a round in an order drawn anew, so that
//! drift of the machine hits all alike.

use super::control::handoff;
use super::warnings::Warning;
use crate::energy::{Meter, Windows};
use crate::error::{Error, Result};
use crate::machine::{self, CpuTimes, Limits};
use crate::record::state::{ENOUGH_ROUNDS, FASTEST, of_fastest_state};
use crate::record::{
    Arm, Bound, Control, Load, ModelledEnergy, Outcome, Protocol, RatedEnergy, Speed, Subject, Test, arm_name,
};
use crate::stats;
use crate::words::seconds;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};
use tritmark_kernels::pool::at_depth;

/// Warm-up runs that must agree.
const SETTLED_RUNS: usize = 4;
/// Variation of the last warm-up runs below which an arm counts as settled.
const SETTLED: f64 = 0.02;

/// Greatest upper over lower end of that quantile's interval with which an arm has rounds enough: two such arms
/// are told apart by a few per cent.
const NARROW: f64 = 1.1;

/// Pages by which stacks are lower for some samples than for others, one less at most.
const DEPTHS: usize = 128;

/// Seconds within which a model must load to be loaded anew for each sample.
pub const QUICK_LOAD: f64 = 0.02;

/// The most seconds that may be asked for: a day.
pub const LONGEST: f64 = 86_400.0;

/// How to take samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Seed of the order of arms and of the bootstrap.
    pub seed: u64,
    /// Rounds, in each of which an arm is sampled; where [`ENOUGH_ROUNDS`] or more are asked for, up to as many
    /// again of an arm whose fastest runs scatter, or that met the machine's fastest state in fewer than that.
    pub rounds: u32,
    /// Shortest time of one sample; shorter runs are repeated within it.
    pub min_time: Duration,
    /// Longest warm-up of an arm.
    pub warmup: Duration,
    /// Time for the rounds of all arms of a call; fewer rounds are made if it does not suffice for
    /// all, but at least one.
    pub budget: Option<Duration>,
    /// Windows of the energy measurement.
    pub energy: Windows,
    /// Rated power of the processor in watts, for a modelled energy; only if the user asks for it.
    pub rated_watts: Option<f64>,
    /// Whether this is a short look rather than a measurement to publish.
    pub quick: bool,
}

impl Options {
    /// A measurement to publish.
    pub fn full() -> Self {
        Self {
            seed: 0,
            rounds: 15,
            min_time: Duration::from_millis(200),
            warmup: Duration::from_secs(3),
            budget: None,
            energy: Windows::default(),
            rated_watts: None,
            quick: false,
        }
    }

    /// A short look.
    pub fn quick() -> Self {
        Self {
            // So many that comparisons may leave some out.
            rounds: 8,
            min_time: Duration::from_millis(30),
            warmup: Duration::from_millis(300),
            energy: Windows {
                load: Duration::from_secs(2),
                idle: Duration::from_millis(500),
                as_needed: false,
            },
            quick: true,
            ..Self::full()
        }
    }

    /// What a record says of it.
    pub fn describe(&self) -> Protocol {
        let mut method = vec![
            format!(
                "Each arm was warmed up until {SETTLED_RUNS} runs agreed within {} % (standard deviation over mean) \
                 or {} s had passed.",
                100.0 * SETTLED,
                self.warmup.as_secs_f64()
            ),
            format!(
                "Then all arms (of every model, kernel, number of threads and test; where they are many, those of a \
                 few tests at a time) ran once a round in an order drawn anew for each round (seed {}), {} rounds{}; \
                 a sample repeats its run until {} ms have passed.",
                self.seed,
                self.rounds,
                self.budget.map_or_else(String::new, |b| format!(" or as many as fit into {}", seconds(b.as_secs_f64()))),
                1e3 * self.min_time.as_secs_f64()
            ),
            format!(
                "Models that load within {:.0} ms were loaded anew before each sample, because where in memory their \
                 data lies changes their speed, and ran once untimed where a run is shorter than a sample.",
                1e3 * QUICK_LOAD
            ),
            "Each sample was taken at a place of the stack drawn anew, because where stacks lie changes the speed of \
             short functions too."
                .into(),
            "The fastest run within each sample is kept beside it; comparisons rest on these, because other load \
             disturbs them least."
                .into(),
            "Figures are medians; the interval is the 95 % percentile bootstrap of the median with 10 000 \
             resamples; outliers (modified z-score above 3.5) are marked and kept."
                .into(),
            "In each round a fixed load (memory reading, integer arithmetic) was timed too; comparisons use it \
             to tell a slower program from a slower machine."
                .into(),
            "Just before and after each sample of two threads or more, it was timed how fast as many threads hand \
             each other a cache line; comparisons hold only such samples against each other around which that was \
             about as fast."
                .into(),
        ];
        if self.rounds as usize >= ENOUGH_ROUNDS {
            method.push(format!(
                "Where that was about the fastest around some samples of an arm, but fewer than {ENOUGH_ROUNDS}, as on a \
                 virtual machine that moves between cores, or where the 95 % interval of an arm's fastest runs (their \
                 {:.0} % quantile over the rounds) was wider than {:.0} %, further rounds of such arms followed, as \
                 far as time allowed and at most as many again.",
                100.0 * FASTEST,
                100.0 * (NARROW - 1.0)
            ));
        }
        if self.quick {
            method.push("This was a short look, not a measurement to publish.".into());
        }
        Protocol {
            seed: self.seed,
            rounds: self.rounds,
            min_time_s: self.min_time.as_secs_f64(),
            quick: self.quick,
            method,
        }
    }
}

/// Times the parts of a run that count.
#[derive(Debug, Default)]
pub struct Clock {
    seconds: f64,
    prompts: Vec<f64>,
    tokens: Vec<f64>,
}

impl Clock {
    /// Runs something that counts.
    pub fn time<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        self.seconds += start.elapsed().as_secs_f64();
        result
    }

    /// Runs something that counts and ends with the first token after a prompt.
    pub fn prompt<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let before = self.seconds;
        let result = self.time(f);
        self.prompts.push(self.seconds - before);
        result
    }

    /// Runs something that counts and ends with one further token.
    pub fn token<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let before = self.seconds;
        let result = self.time(f);
        self.tokens.push(self.seconds - before);
        result
    }
}

/// A run of an arm. Only what it does inside of the clock counts.
pub type Run<'a> = Box<dyn FnMut(&mut Clock) -> Result<()> + 'a>;

/// What limits allow an arm.
pub type BoundBy<'a> = Box<dyn Fn(&Limits) -> Option<Bound> + 'a>;

/// Puts the data of an arm elsewhere in memory.
pub type Renew<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// An arm to be measured.
pub struct ArmSpec<'a> {
    /// What is measured.
    pub subject: Subject,
    /// Under which test.
    pub test: Test,
    /// Unit of the speed.
    pub unit: &'static str,
    /// Work of one run in that unit times seconds: tokens, or 10⁹ multiply-accumulates.
    pub work: f64,
    /// What the machine's limits allow, in that unit.
    pub bound: BoundBy<'a>,
    /// Loading the model for it.
    pub load: Option<Load>,
    /// Modelled energy of one token.
    pub energy_modelled: Option<ModelledEnergy>,
    /// Done before each sample, where it is quick: where data lies changes the speed by some per cent, for
    /// as long as it lies there.
    pub renew: Option<Renew<'a>>,
    /// One run.
    pub run: Run<'a>,
}

/// A fixed load, timed once a round; see [`Control`].
pub struct ControlSpec<'a> {
    /// See [`Control::name`].
    pub name: &'static str,
    /// Threads.
    pub threads: u32,
    /// Runs it for a moment and gives its speed, over all of that time and at its fastest.
    pub run: Box<dyn FnMut() -> [f64; 2] + 'a>,
}

/// Hears how far a measurement is.
pub trait Observer {
    /// `done` of `total` steps, about to do `what`.
    fn step(&mut self, _done: u64, _total: u64, _what: &str) {}

    /// The rounds of these arms are over, and with them those of the fixed loads; their energy is not measured yet.
    ///
    /// # Errors
    /// If the observer cannot keep them; the measurement ends.
    fn sampled(&mut self, _arms: &[Arm], _controls: &[Control]) -> Result<()> {
        Ok(())
    }

    /// An arm is finished.
    ///
    /// # Errors
    /// If the observer cannot keep it; the measurement ends.
    fn arm(&mut self, _arm: &Arm) -> Result<()> {
        Ok(())
    }
}

/// Hears nothing.
impl Observer for () {}

/// What is collected of an arm.
#[derive(Default)]
pub(super) struct Samples {
    speeds: Vec<f64>,
    best: Vec<f64>,
    handoff: Vec<Option<[f64; 2]>>,
    seconds: Vec<f64>,
    prompts: Vec<f64>,
    tokens: Vec<f64>,
    warmup: Vec<f64>,
    settled: bool,
    times: CpuTimes,
}

impl Samples {
    /// Whether further rounds would make comparisons of the arm more certain.
    fn need_more(&self, seed: u64) -> bool {
        let [low, high] = stats::quantile_interval(&self.best, FASTEST, seed);
        high > NARROW * low || !of_fastest_state(&self.handoff)
    }
}

/// Measures arms against each other, and then their energy one after the other.
///
/// Gives the arms in the order of `specs`, and the controls. Arms have bounds where there are `limits`, which
/// are looked at again in each round.
///
/// # Errors
/// If a run or the observer fails.
pub fn measure(
    mut specs: Vec<ArmSpec<'_>>,
    controls: &mut [ControlSpec<'_>],
    mut limits: Option<&mut Limits>,
    options: &Options,
    meter: &mut Meter,
    observer: &mut dyn Observer,
) -> Result<(Vec<Arm>, Vec<Control>)> {
    let root = Path::new("/");
    let mut samples: Vec<Samples> = Vec::new();
    let arms = specs.len() as u64;
    for (i, spec) in specs.iter_mut().enumerate() {
        observer.step(i as u64, arms, &format!("warm-up {}", name(spec)));
        samples.push(warm_up(spec, options)?);
    }

    let throttled = machine::linux::throttle_events(root);
    let mut clocks: Vec<f64> = Vec::new();
    let mut control_samples = vec![(Vec::new(), Vec::new()); controls.len()];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    // Controls stand in the order behind the arms.
    let mut order: Vec<usize> = (0..specs.len() + controls.len()).collect();
    let mut memory = None;
    let (start, total) = (Instant::now(), u64::from(options.rounds) * arms);
    let most = if options.rounds as usize >= ENOUGH_ROUNDS {
        options.rounds.saturating_mul(2)
    } else {
        options.rounds
    };
    let mut sampled = vec![true; specs.len()];
    for round in 0..most {
        if round >= options.rounds {
            for (sampled, samples) in sampled.iter_mut().zip(&samples).filter(|(sampled, _)| **sampled) {
                *sampled = samples.need_more(options.seed);
            }
            if !sampled.contains(&true) {
                break;
            }
        }
        // The time of a further round is the mean of those so far.
        let used = start.elapsed();
        if round > 0 && options.budget.is_some_and(|budget| used + used / round > budget) {
            break;
        }
        if let Some(limits) = &mut limits {
            limits.look_again(&mut memory);
        }
        order.shuffle(&mut rng);
        for &i in &order {
            if let Some(control) = i.checked_sub(specs.len()) {
                let [speed, best] = (controls[control].run)();
                control_samples[control].0.push(speed);
                control_samples[control].1.push(best);
                continue;
            }
            if !sampled[i] {
                continue;
            }
            let done = samples.iter().map(|s| s.speeds.len() as u64).sum();
            observer.step(done, total.max(done), &name(&specs[i]));
            let mut done = Ok(());
            at_depth(rng.random_range(0..DEPTHS), &mut || {
                done = sample(&mut specs[i], &mut samples[i], options, root)
            });
            done?;
        }
        clocks.extend(machine::linux::mhz(root));
    }
    at_depth(0, &mut || {});
    let throttled =
        machine::linux::throttle_events(root).zip(throttled).map(|(end, start)| end.saturating_sub(start));

    let mut common = Vec::new();
    common.extend(throttled.filter(|&events| events > 0).map(|events| Warning::Throttled { events }));
    let low = clocks.iter().copied().reduce(f64::min);
    if let Some((low, high)) = low.zip(clocks.iter().copied().reduce(f64::max))
        && high > 1.1 * low
    {
        common.push(Warning::UnstableClock { mhz: [low, high] });
    }

    let controls = controls.iter().zip(control_samples).map(|(spec, (samples, best))| Control {
        run: 0,
        name: spec.name.into(),
        threads: spec.threads,
        samples,
        best,
    });
    let controls: Vec<Control> = controls.collect();
    let mut arms = Vec::new();
    for (spec, samples) in specs.iter_mut().zip(samples) {
        let bound = limits.as_ref().and_then(|limits| (spec.bound)(limits));
        let speed = evaluate(spec, samples, bound, &common, options.seed)?;
        // Work of kernels alone is not in tokens.
        let rated = options.rated_watts.filter(|_| matches!(spec.test, Test::Model { .. }));
        let energy_rated = rated.map(|watts| RatedEnergy { watts, joules_per_token: watts / speed.median });
        arms.push(Arm {
            speed: Some(speed),
            energy_modelled: spec.energy_modelled.take(),
            energy_rated,
            ..Arm::new(spec.subject.clone(), spec.test.clone())
        });
    }
    observer.sampled(&arms, &controls)?;
    let count = arms.len() as u64;
    for (i, (spec, arm)) in specs.iter_mut().zip(&mut arms).enumerate() {
        measure_energy(spec, arm, (i as u64, count), options, meter, observer)?;
    }
    Ok((arms, controls))
}

/// Measures the energy of an arm whose rounds are over, which finishes it; it is the one after so many of all.
///
/// # Errors
/// If a run or the observer fails.
pub fn measure_energy(
    spec: &mut ArmSpec<'_>,
    arm: &mut Arm,
    (done, total): (u64, u64),
    options: &Options,
    meter: &mut Meter,
    observer: &mut dyn Observer,
) -> Result<()> {
    observer.step(done, total, &format!("energy {}", name(spec)));
    arm.energy_measured = Some(energy(spec, options, meter)?);
    observer.arm(arm)
}

fn name(spec: &ArmSpec<'_>) -> String {
    arm_name(&spec.subject, &spec.test)
}

/// Seconds of one run.
fn run(spec: &mut ArmSpec<'_>, clock: &mut Clock) -> Result<f64> {
    let before = clock.seconds;
    (spec.run)(clock)?;
    let seconds = clock.seconds - before;
    if seconds > 0.0 {
        Ok(seconds)
    } else {
        Err(Error::Bug(format!("a run of {} timed nothing", name(spec))))
    }
}

/// Runs an arm until its runs agree or it has had its time.
///
/// # Errors
/// If a run fails.
pub(super) fn warm_up(spec: &mut ArmSpec<'_>, options: &Options) -> Result<Samples> {
    let start = Instant::now();
    let mut samples = Samples::default();
    loop {
        samples.warmup.push(run(spec, &mut Clock::default())?);
        samples.settled = samples.warmup.len() >= SETTLED_RUNS && last_variation(&samples.warmup) <= SETTLED;
        if samples.settled || start.elapsed() >= options.warmup {
            return Ok(samples);
        }
    }
}

fn last_variation(runs: &[f64]) -> f64 {
    stats::variation(&runs[runs.len().saturating_sub(SETTLED_RUNS)..])
}

fn sample(spec: &mut ArmSpec<'_>, samples: &mut Samples, options: &Options, root: &Path) -> Result<()> {
    if let Some(renew) = &mut spec.renew {
        renew()?;
        // In a run that makes up a sample, reading the data from memory once is lost.
        if samples.warmup.last().is_some_and(|seconds| *seconds < options.min_time.as_secs_f64()) {
            run(spec, &mut Clock::default())?;
        }
    }
    let handoff_before = handoff(spec.subject.threads);
    let before = CpuTimes::read(root);
    let mut clock = Clock::default();
    let (mut runs, mut fastest) = (0, f64::INFINITY);
    while clock.seconds < options.min_time.as_secs_f64() || runs == 0 {
        fastest = run(spec, &mut clock)?.min(fastest);
        runs += 1;
    }
    if let Some((after, before)) = CpuTimes::read(root).zip(before) {
        samples.times += after.since(&before);
    }
    samples.handoff.push(handoff_before.zip(handoff(spec.subject.threads)).map(<[f64; 2]>::from));
    samples.speeds.push(spec.work * f64::from(runs) / clock.seconds);
    samples.best.push(spec.work / fastest);
    samples.seconds.push(clock.seconds);
    samples.prompts.extend(clock.prompts);
    samples.tokens.extend(clock.tokens);
    Ok(())
}

fn energy(
    spec: &mut ArmSpec<'_>,
    options: &Options,
    meter: &mut Meter,
) -> Result<Outcome<crate::record::MeasuredEnergy>> {
    let tokens = match spec.test {
        Test::Kernel { batch, .. } => batch.into(),
        _ => spec.test.tokens().unwrap_or(1),
    };
    if meter.unusable().is_none() {
        // What a first run does beside is not to count, as filling a cache up to the depth.
        run(spec, &mut Clock::default())?;
    }
    meter.measure(options.energy, tokens, &mut || run(spec, &mut Clock::default()).map(drop))
}

fn evaluate(
    spec: &ArmSpec<'_>,
    samples: Samples,
    bound: Option<Bound>,
    common: &[Warning],
    seed: u64,
) -> Result<Speed> {
    let speeds = samples.speeds;
    if speeds.is_empty() {
        return Err(Error::Usage("--rounds must be at least 1".into()));
    }
    let median = stats::median(&speeds);
    let outliers = stats::outliers(&speeds);
    let mut warnings = Vec::new();
    if !samples.settled {
        let (runs, variation) = (samples.warmup.len(), last_variation(&samples.warmup));
        warnings.push(Warning::NotSettled { runs, enough: SETTLED_RUNS, variation });
    }
    warnings.extend(of_samples(&speeds, &outliers));
    let seconds = stats::median(&samples.seconds);
    warnings.extend((seconds < 0.01).then_some(Warning::TooShort { seconds }));
    let share = |share: Option<f64>| share.filter(|s| *s > 0.05);
    warnings.extend(share(samples.times.others()).map(|share| Warning::OtherLoad { share }));
    warnings.extend(samples.times.steal().filter(|s| *s > 0.01).map(|share| Warning::Stolen { share }));
    let cpus = std::thread::available_parallelism().map_or(u32::MAX, |n| n.get() as u32);
    let threads = spec.subject.threads;
    warnings.extend((threads > cpus).then_some(Warning::Oversubscribed { threads, cpus }));
    let above = bound.as_ref().map(|b| (median / b.value, b.memory)).filter(|(ratio, _)| *ratio > 1.0);
    warnings.extend(above.map(|(ratio, memory)| Warning::AboveBound { ratio, memory }));
    warnings.extend(common.iter().cloned());

    let taken = |t: &CpuTimes| Some(t.others()? + t.steal()?);
    let milliseconds = |seconds: &[f64], q| 1e3 * stats::quantile(seconds, q);
    let latency = |tokens: &[f64]| [0.5, 0.95, 0.99].map(|q| milliseconds(tokens, q));
    Ok(Speed {
        unit: spec.unit.into(),
        median,
        mad: stats::mad(&speeds),
        interval: stats::median_interval(&speeds, seed),
        samples: speeds,
        best: samples.best,
        handoff: if samples.handoff.iter().any(Option::is_some) { samples.handoff } else { Vec::new() },
        disturbance: taken(&samples.times),
        seconds: samples.seconds,
        warmup: samples.warmup.len() as u32,
        settled: Some(samples.settled),
        outliers,
        bound,
        load: spec.load.clone(),
        latency_ms: (!samples.tokens.is_empty()).then(|| latency(&samples.tokens)),
        first_token_ms: (!samples.prompts.is_empty()).then(|| milliseconds(&samples.prompts, 0.5)),
        warnings: warnings.iter().map(Warning::to_string).collect(),
    })
}

/// What the samples themselves say.
fn of_samples(speeds: &[f64], outliers: &[usize]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if speeds.len() < 5 {
        warnings.push(Warning::FewRounds(speeds.len()));
    }
    let median = stats::median(speeds);
    let first = speeds[0];
    if outliers.contains(&0) && first < median {
        warnings.push(Warning::SlowFirstRound { by: median / first - 1.0 });
    }
    let (early, late) = speeds.split_at(speeds.len() / 2);
    if early.len() >= 5 {
        let by = stats::median(late) / stats::median(early) - 1.0;
        if by.abs() > 0.02 && stats::mann_whitney(early, late) < 0.01 {
            warnings.push(Warning::Drift { by });
        }
    }
    let spread = stats::mad(speeds) / median;
    if spread > 0.05 {
        warnings.push(Warning::Noisy { spread });
    }
    let count = outliers.iter().filter(|&&o| o != 0 || first > median).count();
    if count > 0 {
        warnings.push(Warning::Outliers { count, of: speeds.len() });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn spec<'a>(threads: u32, run: impl FnMut(&mut Clock) -> Result<()> + 'a) -> ArmSpec<'a> {
        ArmSpec {
            renew: None,
            subject: Subject {
                model: "m".into(),
                engine: "tritmark".into(),
                layout: Some("i2_s".into()),
                tier: Some("scalar".into()),
                variant: None,
                threads,
            },
            test: Test::Model { prompt: 2, generate: 3, depth: 0 },
            unit: "tokens/s",
            work: 5.0,
            bound: Box::new(|_| None),
            load: None,
            energy_modelled: None,
            run: Box::new(run),
        }
    }

    fn no_meter() -> Meter {
        Meter::open(tempfile::tempdir().unwrap().path(), None).unwrap()
    }

    fn spin(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    fn options() -> Options {
        Options { rounds: 6, min_time: Duration::ZERO, warmup: Duration::ZERO, ..Options::quick() }
    }

    #[test]
    fn arms_alternate_in_an_order_that_the_seed_alone_gives() {
        let orders = [3, 3, 4].map(|seed| {
            let order = Rc::new(RefCell::new(Vec::new()));
            let arm = |threads| {
                let order = order.clone();
                spec(threads, move |clock| {
                    order.borrow_mut().push(threads);
                    clock.time(|| spin(Duration::from_micros(20)));
                    Ok(())
                })
            };
            // So few that no further ones follow.
            let options = Options { rounds: 4, ..options() };
            let specs = vec![arm(1), arm(2), arm(3)];
            measure(specs, &mut [], None, &Options { seed, ..options }, &mut no_meter(), &mut ()).unwrap();
            order.take()
        });
        assert_eq!(orders[0], orders[1]);
        assert_ne!(orders[0], orders[2]);
        // One warm-up run each, then each arm once in every round.
        let rounds: Vec<_> = orders[0][3..].chunks(3).collect();
        assert_eq!(rounds.len(), 4);
        for round in &rounds {
            let mut sorted = round.to_vec();
            sorted.sort();
            assert_eq!(sorted, [1, 2, 3]);
        }
        assert!(rounds.iter().any(|r| r != &rounds[0]), "the order is drawn anew each round");
    }

    #[test]
    fn arms_that_scatter_get_further_rounds() {
        let quiet = Samples { best: vec![1.0; 6], ..Samples::default() };
        let busy = Samples { best: vec![1.0, 1.2, 0.9, 1.0, 0.8, 1.1], ..Samples::default() };
        let moved =
            |fast: usize| [[Some([30.0; 2]); 6], [Some([6.0; 2]); 6]].concat()[6 - fast..][..6].to_vec();
        let moving =
            |fast| Samples { handoff: moved(fast), ..Samples { best: vec![1.0; 6], ..Samples::default() } };
        assert!(!quiet.need_more(0) && busy.need_more(0));
        assert!(moving(2).need_more(0) && !moving(5).need_more(0));

        // Each round takes longer than the one before.
        let counts = [4, 6].map(|rounds| {
            let mut millis = 1.0;
            let arm = spec(1, |clock| {
                millis *= 1.3;
                clock.time(|| spin(Duration::from_secs_f64(millis / 1e3)));
                Ok(())
            });
            let options = Options { rounds, ..options() };
            let (arms, _) = measure(vec![arm], &mut [], None, &options, &mut no_meter(), &mut ()).unwrap();
            arms[0].speed.as_ref().unwrap().samples.len()
        });
        assert_eq!(counts, [4, 12]);
    }

    #[test]
    fn only_what_the_clock_times_counts() {
        let arm = spec(1, |clock| {
            spin(Duration::from_millis(2));
            clock.prompt(|| std::thread::sleep(Duration::from_millis(1)));
            for _ in 0..3 {
                clock.token(|| std::thread::sleep(Duration::from_millis(2)));
            }
            Ok(())
        });
        // So few that no further ones follow.
        let options = Options { rounds: 4, ..options() };
        let (arms, _) = measure(vec![arm], &mut [], None, &options, &mut no_meter(), &mut ()).unwrap();
        let speed = arms[0].speed.as_ref().unwrap();
        assert_eq!((speed.samples.len(), speed.seconds.len(), speed.warmup), (4, 4, 1));
        for (sample, seconds) in speed.samples.iter().zip(&speed.seconds) {
            assert!((sample * seconds - 5.0).abs() < 1e-9 && *seconds >= 0.007, "{sample} {seconds}");
        }
        let [p50, p95, p99] = speed.latency_ms.unwrap();
        assert!(2.0 <= p50 && p50 <= p95 && p95 <= p99, "{p50} {p95} {p99}");
        assert!(speed.first_token_ms.unwrap() >= 1.0);
        assert!(
            matches!(&arms[0].energy_measured, Some(Outcome::NotMeasured(r)) if r.contains("no energy sensor"))
        );
    }

    #[test]
    fn data_moves_before_each_sample_and_the_first_run_on_it_does_not_count() {
        // Runs since the data moved.
        let since = Rc::new(RefCell::new(0));
        let moved = Rc::new(RefCell::new(0));
        let mut arm = spec(1, |clock| {
            let first = since.replace_with(|runs| *runs + 1) == 0;
            clock.time(|| spin(Duration::from_micros(if first { 20_000 } else { 100 })));
            Ok(())
        });
        arm.renew = Some(Box::new(|| {
            (*since.borrow_mut(), *moved.borrow_mut()) = (0, *moved.borrow() + 1);
            Ok(())
        }));
        let millis = Duration::from_millis;
        let options = Options { min_time: millis(1), warmup: millis(50), ..options() };
        let (arms, _) = measure(vec![arm], &mut [], None, &options, &mut no_meter(), &mut ()).unwrap();
        let speed = arms[0].speed.as_ref().unwrap();
        assert_eq!(moved.take(), speed.samples.len());
        // What disturbed a sample has to reach 20 ms to be taken for a first run.
        assert!(speed.seconds.iter().filter(|s| **s < 0.02).count() > speed.seconds.len() / 2);
    }

    #[test]
    fn short_runs_repeat_until_the_shortest_time() {
        let arm = spec(1, |clock| {
            clock.time(|| spin(Duration::from_millis(1)));
            Ok(())
        });
        let options = Options { min_time: Duration::from_millis(12), ..options() };
        let (arms, _) = measure(vec![arm], &mut [], None, &options, &mut no_meter(), &mut ()).unwrap();
        assert!(arms[0].speed.as_ref().unwrap().seconds.iter().all(|s| *s >= 0.012));
    }

    #[test]
    fn the_budget_ends_the_rounds_and_too_few_are_told() {
        let arm = spec(1, |clock| {
            clock.time(|| std::thread::sleep(Duration::from_millis(20)));
            Ok(())
        });
        let options = Options { rounds: 100, budget: Some(Duration::from_millis(70)), ..options() };
        let (arms, _) = measure(vec![arm], &mut [], None, &options, &mut no_meter(), &mut ()).unwrap();
        let speed = arms[0].speed.as_ref().unwrap();
        assert!((1..=4).contains(&speed.samples.len()), "{}", speed.samples.len());
        assert!(speed.warnings.iter().any(|w| w.starts_with("Only ")), "{:?}", speed.warnings);
    }

    #[test]
    fn controls_run_once_a_round_and_arms_are_handed_out() {
        struct Order(Vec<&'static str>);
        impl Observer for Order {
            fn arm(&mut self, _: &Arm) -> Result<()> {
                self.0.push("arm");
                Ok(())
            }
            fn sampled(&mut self, arms: &[Arm], controls: &[Control]) -> Result<()> {
                assert!(arms.iter().all(|arm| arm.speed.is_some() && arm.energy_measured.is_none()));
                assert_eq!((arms.len(), controls.len()), (2, 1));
                self.0.push("sampled");
                Ok(())
            }
        }
        let arms = (1..=2).map(|threads| {
            spec(threads, |clock| {
                clock.time(|| spin(Duration::from_micros(50)));
                Ok(())
            })
        });
        let mut value = 0.0;
        let run = Box::new(|| {
            value += 1.0;
            [value, 2.0 * value]
        });
        let control = ControlSpec { name: "read", threads: 2, run };
        // So few that no further ones follow.
        let options = Options { rounds: 4, ..options() };
        let mut order = Order(Vec::new());
        let (_, controls) =
            measure(arms.collect(), &mut [control], None, &options, &mut no_meter(), &mut order).unwrap();
        assert_eq!(controls[0].samples, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(controls[0].best, [2.0, 4.0, 6.0, 8.0]);
        // What was sampled is handed out before energy is measured.
        assert_eq!(order.0, ["sampled", "arm", "arm"]);
    }

    #[test]
    fn a_failing_run_ends_the_measurement() {
        let arm = spec(1, |_| Err(Error::Usage("no".into())));
        assert!(measure(vec![arm], &mut [], None, &options(), &mut no_meter(), &mut ()).is_err());
        let arm = spec(1, |_| Ok(()));
        let error = measure(vec![arm], &mut [], None, &options(), &mut no_meter(), &mut ()).err().unwrap();
        assert!(error.to_string().contains("timed nothing"));
    }

    #[test]
    fn samples_are_judged() {
        let judge = |speeds: &[f64]| of_samples(speeds, &stats::outliers(speeds));
        let quiet = [100.0, 100.5, 99.8, 100.1, 99.9, 100.3, 99.7, 100.2, 100.0, 99.6];
        assert_eq!(judge(&quiet), []);
        let mut slow_first = quiet;
        slow_first[0] = 80.0;
        assert_eq!(judge(&slow_first), [Warning::SlowFirstRound { by: 99.95 / 80.0 - 1.0 }]);
        let mut outlier = quiet;
        outlier[4] = 80.0;
        assert_eq!(judge(&outlier), [Warning::Outliers { count: 1, of: 10 }]);
        let drifting: Vec<f64> = (0..20).map(|i| 100.0 - f64::from(i) / 2.0).collect();
        assert!(matches!(judge(&drifting)[..], [Warning::Drift { by }] if (-0.06..-0.04).contains(&by)));
        let noisy = [80.0, 110.0, 95.0, 120.0, 100.0, 85.0, 105.0];
        assert!(matches!(judge(&noisy)[..], [Warning::Noisy { .. }]));
        assert_eq!(judge(&[1.0, 1.0]), [Warning::FewRounds(2)]);
    }
}
