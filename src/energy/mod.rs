//! Energy: *measured* by sensors of the machine or a meter at its plug, and *modelled* from operation
//! counts or, where asked for, from rated power. These are different types and never meet.

pub mod external;
#[cfg(all(target_os = "macos", feature = "macos-energy"))]
mod macos;
pub mod model;
#[cfg(target_os = "linux")]
mod perf;
pub mod sensors;

use crate::error::{Error, Result};
use crate::record::{DomainEnergy, MeasuredEnergy, Outcome};
use crate::stats;
use crate::words::{counted, joules};
use jiff::Timestamp;
use sensors::{Scope, Sensor};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Most watts of anything that runs one model: a megawatt, which feeds a hall of machines.
pub const MOST_WATTS: f64 = 1e6;

/// How often sensors are looked at during a window, so that counters do not wrap unseen and power
/// is integrated finely.
const POLL: Duration = Duration::from_millis(50);

/// Shortest window that a figure may rest on without a warning, unless the counter was updated
/// [`ENOUGH_UPDATES`] times.
const ENOUGH_TIME: Duration = Duration::from_secs(10);

/// See [`ENOUGH_TIME`].
const ENOUGH_UPDATES: f64 = 100.0;

/// Fewest updates within a window of any length: of the first and the last one does not know when.
const FEWEST_UPDATES: f64 = 10.0;

/// Fewest updates of a counter within a time at rest that give its power.
const IDLE_UPDATES: u32 = 3;

/// Share of a net figure that it may be off by, for all that is known, without a warning.
const NET_OFF: f64 = 0.1;

/// How many of its periods, and of looks at it, a counter may show nothing new before it has stopped.
const STOPPED: f64 = 5.0;

/// Seconds under load after which a counter that counted nothing is believed not to count at all: those of
/// processors are updated many times in them.
const STOOD_STILL: f64 = 1.0;

/// How to measure energy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Windows {
    /// Shortest time under load.
    pub load: Duration,
    /// Time at rest before and after.
    pub idle: Duration,
    /// Whether both last longer where the sensor is updated too seldom for them.
    pub as_needed: bool,
}

impl Windows {
    /// Windows that suffice for a sensor that is updated every so many seconds, as far as known.
    fn for_period(self, period: Option<f64>) -> Self {
        if !self.as_needed {
            return self;
        }
        let Self { load, idle, as_needed } = match period {
            // A tenth more than is enough.
            Some(period) => Self {
                load: Duration::from_secs_f64(1.1 * ENOUGH_UPDATES * period).min(Self::default().load),
                idle: Duration::from_secs_f64(10.0 * f64::from(IDLE_UPDATES) * period),
                as_needed: true,
            },
            None => Self::default(),
        };
        Self { load: load.max(self.load), idle: idle.max(self.idle), as_needed }
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            load: ENOUGH_TIME + Duration::from_millis(500),
            idle: Duration::from_secs(3),
            as_needed: false,
        }
    }
}

/// All that this machine has to measure energy with.
#[derive(Debug)]
pub struct Meter {
    sensors: Vec<Sensor>,
    log: Option<external::Log>,
    /// Why measuring is given up: the log cannot be used any more, or the counter does not count.
    failed: Option<String>,
    lost: Vec<(String, String)>,
    /// Why other sources cannot be used, full sentences.
    pub refused: Vec<String>,
}

/// Joules of all sensors over a window, in the order of the meter's list.
#[derive(Debug)]
struct Window {
    seconds: f64,
    sources: Vec<Result<Counted, String>>,
}

/// What one sensor showed over a window.
#[derive(Debug, Clone, PartialEq)]
struct Counted {
    joules: f64,
    /// Mean time between changes of what it showed, as far as they were seen, seconds.
    period: Option<f64>,
    /// Changes that were seen.
    updates: u32,
    /// What it showed in the end, of sensors of power.
    watts: Option<f64>,
    /// What is odd about how it counted, a full sentence.
    doubt: Option<String>,
}

impl Meter {
    /// Looks for sensors under `root` (normally `/`), and takes the log of an external meter if the
    /// user names one.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn open(root: &Path, log: Option<&Path>) -> Result<Self> {
        let log = log.map(external::Log::open).transpose()?;
        if !root.is_dir() {
            return Err(Error::Usage(format!("--energy-root: {} is no folder", root.display())));
        }
        let found = sensors::find(root);
        let mut refused = found.refused;
        if found.sensors.is_empty() && refused.is_empty() {
            refused.push(
                "this system shows no energy sensor (powercap, perf, hwmon, INA3221 or battery); \
                 virtual machines rarely do, and elsewhere an external meter's log can be given with --meter"
                    .into(),
            );
        }
        Ok(Self { sensors: found.sensors, log, failed: None, lost: found.lost, refused })
    }

    /// What can be read: source, what it covers, and whether the figure of a measurement rests on it.
    pub fn sources(&self) -> Vec<(String, String, bool)> {
        let of_log = |log: &external::Log| {
            let yet = if log.is_empty() { ", which holds no sample yet" } else { "" };
            (log_source(log) + yet, "plug".into(), true)
        };
        let mut sources: Vec<_> = self.log.iter().map(of_log).collect();
        let main = if self.unusable().is_some() { Vec::new() } else { self.main() };
        sources.extend(
            self.sensors
                .iter()
                .enumerate()
                .map(|(i, s)| (s.source.clone(), s.domain.clone(), main.contains(&i))),
        );
        sources
    }

    /// Sensors whose sum is the figure: all of the first scope, driver and kind, unless a meter is at the
    /// plug. A chip that counts energy may show the power of the same things, which must not count twice.
    fn main(&self) -> Vec<usize> {
        let candidates = self.sensors.iter().filter(|s| s.scope != Scope::Part && !self.is_rail_beside(s));
        // What shows the whole goes before what shows a part of it and before what nobody knows.
        let kind = |s: &Sensor| (s.scope == Scope::Unnamed, self.lost_of(s).is_some(), s.scope);
        let first = candidates.min_by_key(|s| (kind(s), s.shows_power()));
        let Some(first) = first.filter(|_| self.log.is_none()) else {
            return Vec::new();
        };
        let alike = |s: &Sensor| {
            (s.scope, &s.driver, s.shows_power()) == (first.scope, &first.driver, first.shows_power())
        };
        let all = (0..self.sensors.len()).filter(|&i| alike(&self.sensors[i]));
        // Packages and batteries are known to lie beside each other; of others one may hold another.
        let beside = first.scope == Scope::Processor || first.driver == sensors::BATTERY;
        if beside { all.collect() } else { all.take(1).collect() }
    }

    /// Whether it is a rail of a name that is not known, on a board with rails that are parts of the processor: another
    /// part then, or nothing.
    fn is_rail_beside(&self, sensor: &Sensor) -> bool {
        let rail = |s: &Sensor| s.driver.contains("ina3221");
        sensor.scope == Scope::Unnamed
            && rail(sensor)
            && self.sensors.iter().any(|s| rail(s) && s.scope == Scope::Part)
    }

    /// Why what lies beside a sensor, and makes the whole with it, cannot be read.
    fn lost_of(&self, sensor: &Sensor) -> Option<&str> {
        let summed = sensor.scope == Scope::Processor || sensor.driver == sensors::BATTERY;
        let lost = self.lost.iter().find(|(driver, _)| summed && *driver == sensor.driver);
        lost.map(|(_, reason)| reason.as_str())
    }

    /// Why nothing can be measured, where that is so.
    pub fn unusable(&self) -> Option<String> {
        if let Some(reason) = &self.failed {
            return Some(reason.clone());
        }
        let main = self.main();
        let first = main.first().map(|&i| &self.sensors[i]);
        if let Some((first, reason)) = first.and_then(|first| Some((first, self.lost_of(first)?))) {
            let what = if first.scope == Scope::Processor { "processor" } else { "machine" };
            return Some(format!(
                "a part of the {what} cannot be read, and the rest is not the whole: {reason}"
            ));
        }
        let usable = self.log.is_some() || !main.is_empty();
        (!usable).then(|| {
            let mut reasons = self.refused.clone();
            if !self.sensors.is_empty() {
                reasons.push("the sensors that can be read cover only parts of the processor".into());
            }
            reasons.join("; ")
        })
    }

    /// Runs `load`, which does the work of `tokens` tokens, over and over for a window, with a time at
    /// rest before and after.
    ///
    /// # Errors
    /// If the load fails. Sensors that fail make the outcome [`Outcome::NotMeasured`].
    pub fn measure(
        &mut self,
        windows: Windows,
        tokens: u64,
        load: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Outcome<MeasuredEnergy>> {
        if let Some(reason) = self.unusable() {
            return Ok(Outcome::NotMeasured(reason));
        }
        let fast = self.fast_periods();
        let windows = windows.for_period(fast.iter().flatten().copied().reduce(f64::max));
        let rest = || {
            std::thread::sleep(windows.idle);
            Ok(0)
        };
        let (before, _) = self.window(rest)?;
        // What does not cover the time before will hardly cover the load, which may take long.
        if self.log.is_some()
            && let Some(Err(reason)) = before.sources.last()
        {
            self.failed = Some(reason.clone());
            return Ok(Outcome::NotMeasured(reason.clone()));
        }
        let (loaded, runs) = self.window(|| {
            let start = Instant::now();
            let mut runs = 0;
            while start.elapsed() < windows.load || runs == 0 {
                load()?;
                runs += 1;
            }
            Ok(runs)
        })?;
        let (after, _) = self.window(rest)?;
        let figure = self.figure([&before, &loaded, &after], &fast, runs * tokens);
        if let Err(reason) = &figure
            && self.does_not_count(&loaded)
        {
            self.failed = Some(reason.clone());
        }
        Ok(match figure {
            Ok(energy) => Outcome::Measured(energy),
            Err(reason) => Outcome::NotMeasured(reason),
        })
    }

    /// Whether none of the counters that the figure rests on counted anything under a load that was long enough to
    /// believe it, as in some virtual machines: further tries, of seconds each, would find the same. Batteries are
    /// not such: they rest while a charger is plugged in.
    fn does_not_count(&self, loaded: &Window) -> bool {
        let main = self.main();
        let counter = |s: &Sensor| !s.shows_power() && s.driver != sensors::BATTERY;
        let rests = |&i: &usize| {
            counter(&self.sensors[i]) && loaded.sources[i].as_ref().is_ok_and(|c| c.joules <= 0.0)
        };
        loaded.seconds >= STOOD_STILL && !main.is_empty() && main.iter().all(rests)
    }

    /// How often counters change that do so too often for [`POLL`] to see it.
    fn fast_periods(&mut self) -> Vec<Option<f64>> {
        let main = self.main();
        let period = |(i, sensor): (usize, &mut Sensor)| main.contains(&i).then(|| sensor.fast_period())?;
        self.sensors.iter_mut().enumerate().map(period).collect()
    }

    /// Watches all sensors while `body` runs.
    fn window<T>(&mut self, body: impl FnOnce() -> Result<T>) -> Result<(Window, T)> {
        let (stop, stopped) = mpsc::channel();
        let sensors = &mut self.sensors;
        let first = Instant::now();
        let seen = first_look(sensors);
        let (result, [start, end], of_body, (last, mut sources)) = std::thread::scope(|scope| {
            let watcher = scope.spawn(move || watch(sensors, seen, &stopped));
            let (start, clock) = (Timestamp::now(), Instant::now());
            let result = body();
            let (of_body, end) = (clock.elapsed(), Timestamp::now());
            // The watcher takes a last look when it hears of the end.
            drop(stop);
            let looks = watcher.join().expect("the watcher does not panic");
            (result, [start, end], of_body, looks)
        });
        let result = result?;
        // What sensors counted is of the time between both looks, which go through them in one order.
        let mut seconds = (last - first).as_secs_f64();
        if let Some(log) = &self.log {
            seconds = of_body.as_secs_f64();
            let counted = log.joules(start, end, Duration::from_secs(10));
            sources.push(counted.map(|(joules, period)| {
                let updates = (seconds / period) as u32;
                Counted { joules, period: Some(period), updates, watts: Some(joules / seconds), doubt: None }
            }));
        }
        Ok((Window { seconds, sources }, result))
    }

    /// Puts the figure together, or says why there is none. `fast` are periods of updates that are known
    /// from elsewhere.
    fn figure(
        &self,
        [before, loaded, after]: [&Window; 3],
        fast: &[Option<f64>],
        tokens: u64,
    ) -> Result<MeasuredEnergy, String> {
        let main = match &self.log {
            Some(_) => vec![self.sensors.len()],
            None => self.main(),
        };
        let taken = Taken { meter: self, main, fast, before, loaded, after };
        let gross_joules = taken.sum(loaded)?;
        taken.refuse_stopped()?;
        let update_period_s = taken.update_period();
        let mut warnings = taken.doubts_of_counters();
        let idle_watts = match taken.idle() {
            Ok((watts, doubt)) => {
                warnings.extend(doubt);
                Some(watts)
            }
            Err(reason) => {
                warnings.push(format!("Idle power was not measured: {reason}."));
                None
            }
        };
        let net_joules = idle_watts.map(|watts| gross_joules - watts * loaded.seconds);
        if let (Some(net), Some(watts)) = (net_joules, idle_watts) {
            warnings.extend(taken.doubts_of_net(gross_joules, net, watts));
        }
        warnings.extend(taken.too_short());
        warnings.extend(taken.unnamed());
        Ok(MeasuredEnergy {
            domains: taken.domains(),
            source: taken.source(),
            domain: taken.names(|s| &s.domain, "plug".into()),
            gross_joules,
            net_joules,
            idle_watts,
            seconds: loaded.seconds,
            tokens,
            joules_per_token: gross_joules / tokens as f64,
            update_period_s,
            warnings,
        })
    }
}

/// The windows of a measurement, and the sources that its figure rests on.
struct Taken<'a> {
    meter: &'a Meter,
    /// Indices into the sources of a window.
    main: Vec<usize>,
    /// Periods of updates that are known from elsewhere, seconds.
    fast: &'a [Option<f64>],
    before: &'a Window,
    loaded: &'a Window,
    after: &'a Window,
}

impl Taken<'_> {
    fn sum(&self, window: &Window) -> Result<f64, String> {
        self.main.iter().map(|&i| window.sources[i].clone().map(|c| c.joules)).sum()
    }

    /// Names of the sources, or that of the meter at the plug.
    fn names(&self, of: fn(&Sensor) -> &str, external: String) -> String {
        if self.meter.log.is_some() {
            return external;
        }
        let mut names: Vec<&str> = self.main.iter().map(|&i| of(&self.meter.sensors[i])).collect();
        // Two batteries cover one machine.
        names.dedup();
        names.join(" + ")
    }

    fn source(&self) -> String {
        self.names(|s| &s.source, self.meter.log.as_ref().map(log_source).unwrap_or_default())
    }

    fn fast(&self, i: usize) -> Option<f64> {
        self.fast.get(i).copied().flatten()
    }

    /// That no source stood still under load, or stopped at rest.
    fn refuse_stopped(&self) -> Result<(), String> {
        let Self { meter, main, before, loaded, after, .. } = self;
        let shows_one_power = |i: usize| {
            let shown =
                [before, loaded, after].map(|w| w.sources[i].as_ref().ok().map(|c| (c.watts, c.updates)));
            let moves = meter.sensors.get(i).is_some_and(Sensor::moves);
            let same = moves && shown.iter().all(|s| s.is_some_and(|(watts, n)| watts.is_some() && n == 0));
            same && shown.iter().all(|s| *s == shown[0])
        };
        let stood_still =
            |i: &&usize| shows_one_power(**i) || loaded.sources[**i].as_ref().is_ok_and(|c| c.joules <= 0.0);
        let still: Vec<_> = main.iter().filter(stood_still).collect();
        // Of batteries one may rest; a package never does.
        let packages =
            main.iter().any(|&i| meter.sensors.get(i).is_some_and(|s| s.scope == Scope::Processor));
        if let Some(&&first) = still.first()
            && (packages || still.len() == main.len())
        {
            let Some(sensor) = meter.sensors.get(first) else {
                return Err(format!(
                    "{} shows 0 W over {:.1} s under load; is this machine plugged into it?",
                    self.source(),
                    loaded.seconds
                ));
            };
            return Err(format!(
                "{} stood still over {:.1} s under load, so it does not measure this machine now; an external meter's log \
                 can be given with --meter",
                sensor.source, loaded.seconds
            ));
        }
        for (window, &i) in [before, after].into_iter().flat_map(|w| main.iter().map(move |i| (w, i))) {
            let period = self.fast(i).filter(|p| window.seconds > STOPPED * p);
            if let (Some(period), Ok(Counted { updates: 0, watts: None, .. })) = (period, &window.sources[i])
            {
                return Err(format!(
                    "{} stopped: it showed nothing new in {:.1} s at rest, after a change every {period:.4} s",
                    meter.sensors[i].source, window.seconds
                ));
            }
        }
        Ok(())
    }

    /// Mean time between updates of the slowest source, seconds; `None` where one may change at any time.
    fn update_period(&self) -> Option<f64> {
        let of_load = |i: usize| self.loaded.sources[i].as_ref().ok();
        let period = |i: usize| self.fast(i).or(of_load(i)?.period);
        let counter = |i: usize| of_load(i).is_some_and(|c| c.watts.is_none());
        // One that changed less than twice may do so at any time.
        let unknown = self.main.iter().any(|&i| counter(i) && period(i).is_none());
        self.main.iter().filter_map(|&i| period(i)).reduce(f64::max).filter(|_| !unknown)
    }

    /// What is odd about how the sources counted under load.
    fn doubts_of_counters(&self) -> Vec<String> {
        self.main.iter().filter_map(|&i| self.loaded.sources[i].as_ref().ok()?.doubt.clone()).collect()
    }

    /// Power at rest, watts, and a doubt about it.
    fn idle(&self) -> Result<(f64, Option<String>), String> {
        let Self { before, loaded, after, .. } = self;
        // Power of the moment is known from one look; a counter must have been updated some times.
        let slow = self.main.iter().filter(|&&i| self.fast(i).is_none());
        let looks = slow.flat_map(|&i| [before, after].map(|w| w.sources[i].as_ref()));
        let fewest = looks.flatten().filter(|c| c.watts.is_none()).map(|c| c.updates).min();
        if let Some(n) = fewest.filter(|n| *n < IDLE_UPDATES) {
            return Err(format!(
                "a time at rest of {:.1} s saw {} of the counter, too few for a power",
                before.seconds,
                counted(n, "update")
            ));
        }
        let [first, last] = [self.sum(before)? / before.seconds, self.sum(after)? / after.seconds];
        let (low, high) = (first.min(last), first.max(last));
        // A meter's sample reaches from the load into a time at rest.
        let blur = self.update_period().filter(|_| self.meter.log.is_some()).unwrap_or(0.0);
        let blur = blur * self.sum(loaded)? / loaded.seconds / before.seconds.min(after.seconds);
        let doubt = (high > 1.2 * low && high - low > blur).then(|| {
            format!(
                "Idle power was {first:.2} W before and {last:.2} W after: the machine was not at rest, \
                 so the net figure is uncertain. Stop other programs and repeat."
            )
        });
        // A sensor may show somewhat less than nothing where there is nothing.
        Ok((((first + last) / 2.0).max(0.0), doubt))
    }

    /// Why the net figure may be wrong.
    fn doubts_of_net(&self, gross: f64, net: f64, idle_watts: f64) -> Vec<String> {
        let mut doubts = Vec::new();
        if net <= 0.0 {
            doubts.push(format!(
                "By {} the load took no more power than the machine at rest: other programs ran at rest, or \
                 what it shows changes too late or too little.",
                self.source()
            ));
        }
        // Sensors of power are looked at all the while; a meter writes its samples when it does.
        let counts = |&i: &usize| self.meter.sensors.get(i).is_none_or(|s| !s.shows_power());
        if let Some(period) = self.update_period()
            && self.main.iter().all(counts)
        {
            let (seconds, rest) = (self.loaded.seconds, self.before.seconds.min(self.after.seconds));
            let off = period * (idle_watts * seconds / rest + gross / seconds);
            if off > NET_OFF * net.abs() {
                doubts.push(format!(
                    "The net figure of {} may be off by {}: what {} shows is up to one update ({period:.3} s) \
                     old, and {rest:.1} s at rest stand for {seconds:.1} s.",
                    joules(net),
                    joules(off),
                    if self.meter.log.is_some() { "the meter" } else { "a counter" },
                ));
            }
        }
        doubts
    }

    /// That the window saw too few updates, where it did.
    fn too_short(&self) -> Option<String> {
        let (period, seconds) = (self.update_period(), self.loaded.seconds);
        let updates = period.map_or(0.0, |period| seconds / period);
        let enough_time = seconds >= ENOUGH_TIME.as_secs_f64();
        if updates >= FEWEST_UPDATES && (enough_time || updates >= ENOUGH_UPDATES) {
            return None;
        }
        let seen = match period {
            // What changed at nearly every look may change more often than that.
            Some(period)
                if self.meter.log.is_none()
                    && period < 1.5 * POLL.as_secs_f64()
                    && self.fast.iter().all(Option::is_none) =>
            {
                format!("at least {updates:.0} updates, at a look every {} ms,", POLL.as_millis())
            }
            Some(_) => format!("about {updates:.0} updates"),
            None => "no two updates".into(),
        };
        Some(format!(
            "Too short: the window of {seconds:.1} s saw {seen} of what {} shows; 10 s with \
             {FEWEST_UPDATES} updates, or {ENOUGH_UPDATES} updates are needed.",
            self.source()
        ))
    }

    /// That nobody says what the sensor covers, where that is so.
    fn unnamed(&self) -> Option<String> {
        let sensors = &self.meter.sensors;
        let first = sensors.get(*self.main.first()?).filter(|first| first.scope == Scope::Unnamed)?;
        let like_it = |s: &&Sensor| s.scope == Scope::Unnamed && s.driver == first.driver;
        let beside = match sensors.iter().filter(like_it).count() as u64 - 1 {
            0 => String::new(),
            n => format!(
                " Neither does it of {} beside it, which the figure does not hold.",
                counted(n, "sensor")
            ),
        };
        Some(format!("The driver of {} does not say what the sensor covers.{beside}", self.source()))
    }

    /// What sensors beside those of the figure counted under load.
    fn domains(&self) -> Vec<DomainEnergy> {
        let beside = self.meter.sensors.iter().enumerate().filter(|(i, _)| !self.main.contains(i));
        let domains = beside.filter_map(|(i, Sensor { source, domain, .. })| {
            // A counter that shows nothing under load measures something else, or nothing.
            let counted = self.loaded.sources[i].as_ref().ok().filter(|counted| counted.joules > 0.0)?;
            Some(DomainEnergy {
                source: source.clone(),
                domain: domain.clone(),
                gross_joules: counted.joules,
            })
        });
        domains.collect()
    }
}

fn log_source(log: &external::Log) -> String {
    // Records may travel: a path would tell whose machine it was.
    format!("external meter, {}", log.path().file_name().unwrap_or_default().to_string_lossy())
}

/// What was seen of a sensor so far in a window.
struct Seen {
    joules: f64,
    shown: Option<f64>,
    /// When the value shown changed first and last, and how many times after the first.
    changes: Option<(Instant, Instant, u32)>,
    /// Of a counter: joules of each change after the first, and seconds since the change before.
    rises: Vec<(f64, f64)>,
}

/// What is odd about how a counter rose.
fn doubt(sensor: &Sensor, rises: &[(f64, f64)]) -> Option<String> {
    /// How many times its usual power a load that goes on in one way does not take for a moment.
    const LEAP: f64 = 8.0;
    /// Share of all from which on it matters.
    const MATTERS: f64 = 0.02;
    /// Fewest rises that tell what is usual.
    const TELLING: usize = 8;
    let most = rises.iter().copied().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    if let Some(range) = sensor.range().filter(|range| most.0 > range / 2.0) {
        return Some(format!(
            "The counter of {} rose by {} of the {} to which it counts from one look to the next: it may have started again \
             unseen, so the figure may be too low.",
            sensor.source,
            joules(most.0),
            joules(range)
        ));
    }
    let watts: Vec<f64> = rises.iter().map(|(joules, seconds)| joules / seconds).collect();
    let usual = stats::median(&watts);
    let all: f64 = rises.iter().map(|rise| rise.0).sum();
    let leap = rises
        .iter()
        .copied()
        .filter(|(joules, seconds)| joules / seconds > LEAP * usual && *joules > MATTERS * all);
    let (most, seconds) =
        leap.reduce(|a, b| if b.0 > a.0 { b } else { a }).filter(|_| rises.len() >= TELLING)?;
    Some(format!(
        "The counter of {} rose by {} within {seconds:.3} s, {:.0} times its usual {usual:.1} W: where the load does not do \
         that, it was set to another value, and the figure is too high by as much. Measure again.",
        sensor.source,
        joules(most),
        most / seconds / usual
    ))
}

/// A first look at every sensor, at the start of a window.
fn first_look(sensors: &mut [Sensor]) -> Vec<Result<Seen, String>> {
    let look = |sensor: &mut Sensor| {
        sensor.reset();
        let joules = sensor.joules()?;
        Ok(Seen { joules, shown: sensor.shown(), changes: None, rises: Vec::new() })
    };
    sensors.iter_mut().map(look).collect()
}

/// Looks at the sensors until `stopped` hangs up; gives when the last look began too.
fn watch(
    sensors: &mut [Sensor],
    mut all: Vec<Result<Seen, String>>,
    stopped: &mpsc::Receiver<()>,
) -> (Instant, Vec<Result<Counted, String>>) {
    let end = loop {
        let last = stopped.recv_timeout(POLL) != Err(mpsc::RecvTimeoutError::Timeout);
        let now = Instant::now();
        for (sensor, seen) in sensors.iter_mut().zip(&mut all) {
            let Ok(so_far) = seen else { continue };
            match sensor.joules() {
                Err(reason) => *seen = Err(reason),
                Ok(joules) => {
                    if sensor.shown() != so_far.shown {
                        if let Some((_, last, _)) = so_far.changes.filter(|_| !sensor.shows_power()) {
                            so_far.rises.push((joules - so_far.joules, (now - last).as_secs_f64()));
                        }
                        let (first, count) = so_far.changes.map_or((now, 0), |(f, _, count)| (f, count + 1));
                        so_far.changes = Some((first, now, count));
                    }
                    (so_far.joules, so_far.shown) = (joules, sensor.shown());
                }
            }
        }
        if last {
            break now;
        }
    };
    let counted = |(sensor, seen): (&mut Sensor, Result<Seen, String>)| {
        let seen = seen?;
        let period = seen.changes.and_then(|(first, last, count)| {
            (count > 0).then(|| (last - first).as_secs_f64() / f64::from(count))
        });
        if let (Some(period), Some((_, last, _)), false) = (period, seen.changes, sensor.shows_power()) {
            let silent = (end - last).as_secs_f64();
            if silent > STOPPED * period.max(POLL.as_secs_f64()) {
                return Err(format!(
                    "{} stopped: it showed nothing new for the last {silent:.1} s, after a change every {period:.2} s",
                    sensor.source
                ));
            }
        }
        Ok(Counted {
            joules: seen.joules,
            period,
            updates: seen.changes.map_or(0, |(_, _, count)| count + 1),
            watts: seen.shown.filter(|_| sensor.shows_power()),
            doubt: doubt(sensor, &seen.rises),
        })
    };
    (end, sensors.iter_mut().zip(all).map(counted).collect())
}

// Names of zones hold colons, which other systems' files cannot.
#[cfg(all(test, unix))]
mod tests;
