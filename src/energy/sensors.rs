//! What a machine offers to read energy or power from: on Linux found under `/sys`, on macOS through
//! a library (feature `macos-energy`).

use crate::machine::linux::{number, numbered, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a counter is read without a pause to see how often it changes.
const BURST: Duration = Duration::from_millis(50);
/// The same where a counter changes more seldom.
const LONG_BURST: Duration = Duration::from_millis(250);

/// What a sensor covers. Of all sensors found, the first class here that has one gives the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A whole processor package; several of them add up.
    Processor,
    /// The whole board or machine.
    Machine,
    /// Something that the sensor's driver does not name.
    Unnamed,
    /// A part of one of the others (cores, graphics, memory); never added to anything.
    Part,
}

/// One thing to read.
#[derive(Debug)]
pub struct Sensor {
    /// Where the figure comes from, e.g. `powercap intel-rapl:0`.
    pub source: String,
    /// What it covers, e.g. `package-0`.
    pub domain: String,
    /// What kind of thing that is.
    pub scope: Scope,
    /// Sensors of one driver may be added to each other, those of different ones may overlap.
    pub driver: String,
    reading: Reading,
    state: Option<State>,
    /// When it was last seen to show something new; kept from window to window.
    changed: Option<Instant>,
}

/// How a sensor is read.
#[derive(Debug)]
pub(super) enum Reading {
    /// A counter of microjoules that starts again at 0 above `range`.
    Counter { path: PathBuf, range: Option<u64> },
    /// Power, in watts after multiplying by `unit`.
    Power { path: PathBuf, unit: f64 },
    /// Volts and amperes, in watts after multiplying both and `unit`.
    Product { paths: [PathBuf; 2], unit: f64 },
    /// A counter of the kernel's perf subsystem, in microjoules after multiplying by `unit`.
    #[cfg(target_os = "linux")]
    Perf { counter: perf_event::Counter, unit: f64 },
    /// Microjoules that another thread counts, or why it stopped.
    #[cfg(all(target_os = "macos", feature = "macos-energy"))]
    Counted(super::macos::Counted),
}

/// What the last look at a sensor gave.
#[derive(Debug, Clone, Copy)]
struct State {
    at: Instant,
    raw: f64,
    joules: f64,
}

/// Sensors, and full sentences on why others cannot be used.
#[derive(Debug, Default)]
pub struct Found {
    /// Readable ones.
    pub sensors: Vec<Sensor>,
    /// Reasons.
    pub refused: Vec<String>,
    /// Drivers of processor packages and batteries that are there but cannot be read, each with the reason: what the
    /// others of that driver show is not the whole.
    pub lost: Vec<(String, String)>,
}

impl Sensor {
    pub(super) fn new(driver: &str, place: &str, domain: String, scope: Scope, reading: Reading) -> Self {
        Self {
            source: format!("{driver} {place}"),
            domain,
            scope,
            driver: driver.into(),
            reading,
            state: None,
            changed: None,
        }
    }

    /// Joules since the first call, which returns 0. Power is integrated by trapezoids from call to
    /// call, so such sensors want to be looked at often.
    ///
    /// # Errors
    /// If the file is gone or holds no number, or a counter fell without a stated range.
    pub fn joules(&mut self) -> Result<f64, String> {
        let (at, raw) = (Instant::now(), self.raw()?);
        let joules = match self.state {
            None => 0.0,
            Some(last) => last.joules + self.since(&last, at, raw)?,
        };
        if self.state.is_some_and(|last| last.raw != raw) {
            self.changed = Some(at);
        }
        self.state = Some(State { at, raw, joules });
        Ok(joules)
    }

    /// Joules from the last look to this one.
    fn since(&self, last: &State, at: Instant, raw: f64) -> Result<f64, String> {
        let range = match &self.reading {
            Reading::Power { .. } | Reading::Product { .. } => {
                return Ok((last.raw + raw) / 2.0 * (at - last.at).as_secs_f64());
            }
            Reading::Counter { range, .. } => *range,
            // These are 64 bits wide.
            #[cfg(target_os = "linux")]
            Reading::Perf { .. } => None,
            #[cfg(all(target_os = "macos", feature = "macos-energy"))]
            Reading::Counted(_) => None,
        };
        let joules = match range {
            _ if raw >= last.raw => (raw - last.raw) * 1e-6,
            Some(range) if range as f64 >= last.raw => (range as f64 - last.raw + raw) * 1e-6,
            _ => {
                let range = range.map_or("and states no range".into(), |r| format!("but counts to {r} µJ"));
                return Err(format!(
                    "the counter of {} fell from {} to {raw} µJ {range}",
                    self.source, last.raw
                ));
            }
        };
        // What it rises by is of the time since it last did, which before the first rise is not known.
        let seconds = match self.changed {
            Some(changed) => (at - changed).as_secs_f64() + SLACK,
            None => (at - last.at).as_secs_f64() + 1.0,
        };
        if joules > MOST * seconds {
            return Err(format!(
                "the counter of {} went from {} to {raw} µJ within {seconds:.1} s, which would be {joules:.0} J: it was \
                 set to another value, as when a machine wakes up; measure again",
                self.source, last.raw
            ));
        }
        Ok(joules)
    }

    /// What the sensor shows now: microjoules of a counter, else watts.
    fn raw(&mut self) -> Result<f64, String> {
        let watts = |file: &Path, watts: f64| {
            if self.driver == BATTERY {
                discharging(file.parent().unwrap_or(file))?;
            }
            if (LEAST..=MOST).contains(&watts) {
                Ok(watts)
            } else {
                Err(format!("{} shows {watts} W, which is no power that a machine takes", file.display()))
            }
        };
        match &mut self.reading {
            Reading::Counter { path, .. } => read(path).map(|microjoules: u64| microjoules as f64),
            Reading::Power { path, unit } => watts(path, read::<f64>(path)? * *unit),
            Reading::Product { paths: [volts, amperes], unit } => {
                watts(amperes, read::<f64>(volts)? * read::<f64>(amperes)? * *unit)
            }
            #[cfg(target_os = "linux")]
            Reading::Perf { counter, unit } => match counter.read() {
                Ok(count) => Ok(count as f64 * *unit),
                Err(e) => Err(format!("{} cannot be read: {e}", self.source)),
            },
            #[cfg(all(target_os = "macos", feature = "macos-energy"))]
            Reading::Counted(counted) => counted.microjoules(),
        }
    }

    /// Joules after which a counter starts again, where that is stated.
    pub fn range(&self) -> Option<f64> {
        match &self.reading {
            Reading::Counter { range, .. } => range.map(|microjoules| microjoules as f64 * 1e-6),
            _ => None,
        }
    }

    /// What the sensor showed at the last call of [`joules`](Self::joules), microjoules or watts.
    pub fn shown(&self) -> Option<f64> {
        self.state.map(|state| state.raw)
    }

    /// Whether it shows a power of the moment rather than a sum that rises.
    pub fn shows_power(&self) -> bool {
        matches!(self.reading, Reading::Power { .. } | Reading::Product { .. })
    }

    /// Whether it is a power that a chip measures anew time and again, so that its last digits move.
    /// A battery's stands for a minute, and what is worked out of volts and amperes is coarse.
    pub fn moves(&self) -> bool {
        matches!(self.reading, Reading::Power { .. }) && self.driver.starts_with("hwmon ")
    }

    /// Mean time between changes of a counter that is updated often, found by reading it without a
    /// pause for a moment; `None` where it changed too seldom for that.
    pub fn fast_period(&mut self) -> Option<f64> {
        if self.shows_power() {
            return None;
        }
        let (start, mut last) = (Instant::now(), self.raw().ok()?);
        let mut changes: Vec<Instant> = Vec::new();
        while start.elapsed() < BURST || changes.len() < 4 && start.elapsed() < LONG_BURST {
            let raw = self.raw().ok()?;
            if raw != last {
                changes.push(Instant::now());
                last = raw;
            }
        }
        let (first, end) = (changes.first()?, changes.last()?);
        let count = changes.len() - 1;
        (count >= 3).then(|| (*end - *first).as_secs_f64() / count as f64)
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        self.state = None;
    }
}

/// The driver of batteries.
pub(super) const BATTERY: &str = "battery";

/// The most watts that a machine takes: twice what the largest do that sensors are built into.
const MOST: f64 = 20_000.0;

/// Seconds by which the time between two rises of a counter may be off.
const SLACK: f64 = 0.1;

/// Sensors of power show somewhat less than nothing where there is nothing, watts.
pub(super) const LEAST: f64 = -0.5;

/// That a battery is discharging: only then does it show the machine's power.
fn discharging(battery: &Path) -> Result<(), String> {
    let status = text(battery.join("status")).unwrap_or_else(|| "unknown".into());
    if status == "Discharging" {
        let others = fs::read_dir(battery.parent().unwrap_or(battery)).into_iter().flatten().flatten();
        let feeds = |supply: PathBuf| {
            let is = |file: &str, what: &str| text(supply.join(file)).as_deref() == Some(what);
            if is("scope", "Device") || supply == battery {
                None
            } else if is("type", "Battery") {
                is("status", "Charging").then_some("is charged meanwhile")
            } else {
                is("online", "1").then_some("feeds it too")
            }
            .map(|why| format!("{} {why}", supply.file_name().unwrap_or_default().to_string_lossy()))
        };
        return match others.map(|entry| entry.path()).find_map(feeds) {
            Some(why) => Err(format!(
                "the battery {} does not show the machine's power: {why}; unplug the charger",
                battery.file_name().unwrap_or_default().to_string_lossy()
            )),
            None => Ok(()),
        };
    }
    let advice = if status.eq_ignore_ascii_case("unknown") { "" } else { "; unplug the charger" };
    Err(format!(
        "the battery {} shows the machine's power only while it is discharging, and its status is \"{status}\"{advice}",
        battery.file_name().unwrap_or_default().to_string_lossy()
    ))
}

/// Reads a number that must be there.
fn read<T: std::str::FromStr>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|e| explain(path, e.kind()))?;
    text.trim().parse().map_err(|_| format!("{} holds '{}', which is no number", path.display(), text.trim()))
}

/// Why a file cannot be read, and what to do about it.
fn explain(path: &Path, error: ErrorKind) -> String {
    let file = path.display();
    match error {
        ErrorKind::PermissionDenied => {
            let name = path.file_name().unwrap_or_default();
            let all = path.ancestors().nth(2).unwrap_or(path).join("*").join(name);
            let all = all.display();
            format!(
                "{all} may be read by root only; allow it until the next start of the system with \
                 `sudo chmod a+r {all}`, or run as root"
            )
        }
        ErrorKind::NotFound => format!("{file} is not there"),
        other => format!("{file} cannot be read: {other}"),
    }
}

/// Everything under `root` (normally `/`) that can be read.
pub fn find(root: &Path) -> Found {
    let mut found = Found::default();
    let class = root.join("sys/class");
    powercap(&class.join("powercap"), &mut found);
    for (_, chip) in numbered(class.join("hwmon"), "hwmon") {
        hwmon(&chip, &mut found);
    }
    // Of several meters each shows a part of the machine, or one what another shows too.
    let meter = |s: &Sensor| s.driver == "hwmon power_meter";
    if found.sensors.iter().filter(|s| meter(s)).count() > 1 {
        found.sensors.iter_mut().filter(|s| meter(s)).for_each(|s| s.scope = Scope::Unnamed);
    }
    ina3221_iio(&root.join("sys/bus/i2c/drivers/ina3221x"), &mut found);
    batteries(&class.join("power_supply"), &mut found);
    // The perf events show the same registers as powercap, so they stand in for it only.
    #[cfg(target_os = "linux")]
    let whole = |s: &Sensor| s.driver == "powercap" && s.scope == Scope::Processor;
    if !found.sensors.iter().any(whole) || found.lost.iter().any(|(driver, _)| driver == "powercap") {
        super::perf::find(root, &mut found);
    }
    #[cfg(all(target_os = "macos", feature = "macos-energy"))]
    super::macos::find(&mut found);
    found
}

impl Found {
    /// Takes a sensor if it can be read now.
    pub(super) fn add(&mut self, mut sensor: Sensor) {
        match sensor.raw() {
            Ok(_) => self.sensors.push(sensor),
            Err(reason) => self.refuse(&sensor.driver, sensor.scope, reason),
        }
    }

    /// Notes that a part of what a driver shows cannot be used.
    fn lose(&mut self, driver: &str, reason: String) {
        self.lost.push((driver.into(), reason.clone()));
        if !self.refused.contains(&reason) {
            self.refused.push(reason);
        }
    }

    /// Notes that a sensor cannot be used.
    pub(super) fn refuse(&mut self, driver: &str, scope: Scope, reason: String) {
        if scope == Scope::Processor {
            self.lose(driver, reason);
        } else if !self.refused.contains(&reason) {
            self.refused.push(reason);
        }
    }
}

/// Zones of the power capping framework: Intel and AMD RAPL (`intel-rapl:0`, sub-zone
/// `intel-rapl:0:1`) and Arm SCMI.
///
/// A package may show up through several interfaces; the counter of the first (the processor's own
/// registers before TPMI before MMIO) is taken and its twins are left out.
fn powercap(dir: &Path, found: &mut Found) {
    if let Err(error) = fs::read_dir(dir)
        && error.kind() != ErrorKind::NotFound
    {
        let dir = dir.display();
        let reason =
            format!("{dir} cannot be read: {error}; `sudo chmod a+rx {dir}` allows it, or run as root");
        found.refuse("powercap", Scope::Part, reason);
    }
    let mut zones = BTreeMap::new();
    collect_zones(dir, 0, &mut zones);
    let interface = |id: &str| match id.split(':').next().unwrap_or_default() {
        "intel-rapl" => 0,
        "intel-rapl-tpmi" => 1,
        "intel-rapl-mmio" => 2,
        _ => 3,
    };
    let mut order: Vec<_> = zones.into_iter().collect();
    order.sort_by_key(|(id, _)| interface(id));
    // The way of names from the package down, the same for twins.
    let mut seen: Vec<(u32, Vec<String>)> = Vec::new();
    let names: BTreeMap<String, String> =
        order.iter().filter_map(|(id, path)| Some((id.clone(), text(path.join("name"))?))).collect();
    for (id, path) in &order {
        let depth = id.matches(':').count();
        let Some(name) = names.get(id) else {
            let reason = if let Err(e) = fs::read(path.join("name"))
                && e.kind() == ErrorKind::PermissionDenied
            {
                format!(
                    "the powercap zone {id} may be looked into by root only; allow it with `sudo chmod a+rx {}`, or run as \
                     root",
                    path.display()
                )
            } else if path.exists() {
                format!("the powercap zone {id} has no name, so what it covers is not known")
            } else {
                "powercap zones are hidden here, as in most containers; give it /sys/devices/virtual/powercap, or \
                 measure outside"
                    .into()
            };
            found.refuse("powercap", if depth > 1 { Scope::Part } else { Scope::Processor }, reason);
            continue;
        };
        if id.starts_with("dtpm:") {
            let reason = "what zones of the kernel's thermal power management (dtpm) show is worked out from a model of \
                          the processor, not measured";
            found.refuse("powercap", Scope::Part, reason.into());
            continue;
        }
        let way: Vec<String> = (1..=depth)
            .filter_map(|d| {
                names.get(id.match_indices(':').nth(d).map_or(id.as_str(), |(at, _)| &id[..at])).cloned()
            })
            .collect();
        // Parts of a package of several dies are called after it; other interfaces show it as one, or the other way
        // round.
        let twin = |(of, other): &(u32, Vec<String>)| {
            let part = |whole: &String, part: &String| {
                part.strip_prefix(whole.as_str()).is_some_and(|rest| rest.starts_with("-die-"))
            };
            let first = way.first().zip(other.first());
            *of != interface(id) && (*other == way || first.is_some_and(|(a, b)| part(a, b) || part(b, a)))
        };
        if interface(id) < 3 {
            if seen.iter().any(twin) {
                continue;
            }
            seen.push((interface(id), way));
        }
        let scope = match name.as_str() {
            _ if depth > 1 => Scope::Part,
            "psys" => Scope::Machine,
            name if name.starts_with("package") => Scope::Processor,
            // What stands at the top is no part of anything, whatever it is called.
            name => match scope_by_label(name) {
                Scope::Part if !["gpu", "dram", "ddr", "mem"].iter().any(|w| name.contains(w)) => {
                    Scope::Unnamed
                }
                scope => scope,
            },
        };
        let reading = if path.join("energy_uj").exists() {
            let range = number(path.join("max_energy_range_uj")).filter(|range| *range > 0);
            Reading::Counter { path: path.join("energy_uj"), range }
        } else if path.join("power_uw").exists() {
            Reading::Power { path: path.join("power_uw"), unit: 1e-6 }
        } else {
            let reason = format!("the powercap zone {id} ({name}) shows neither energy_uj nor power_uw");
            found.refuse("powercap", scope, reason);
            continue;
        };
        found.add(Sensor::new("powercap", id, name.clone(), scope, reading));
    }
}

/// Zones of a directory and the zones inside of them, by their names, which are unique. What lies in the directory
/// itself comes first: one command opens all of these. Some trees hold zones in the directory of their control type
/// alone.
fn collect_zones(dir: &Path, depth: u32, zones: &mut BTreeMap<String, PathBuf>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())));
    let here: Vec<_> = named.filter(|(name, _)| depth == 0 || name.contains(':')).collect();
    for (name, path) in here.iter().filter(|(name, _)| name.contains(':')) {
        zones.entry(name.clone()).or_insert_with(|| path.clone());
    }
    if depth < 3 {
        here.iter().for_each(|(_, path)| collect_zones(path, depth + 1, zones));
    }
}

/// What a label of a rail or sensor says that it covers.
fn scope_by_label(label: &str) -> Scope {
    let label = label.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| label.contains(w));
    if has(&["sys_5v", "sys5v"]) {
        // The 5 V rail of a Jetson module, which its processor's rails lie beside.
        Scope::Part
    } else if label.ends_with("_in") || label.starts_with("vin") || has(&["system", "board", "total"]) {
        Scope::Machine
    } else if has(&["gpu", "cv", "dram", "ddr", "mem", "vddq"]) || label == "nc" {
        // `VDD_CPU_GPU_CV` is more than a processor and less than the board, `VDDQ_VDD2_1V8AO` feeds memory, and to `NC`
        // nothing is connected.
        Scope::Part
    } else if has(&["core"]) {
        // Those of a CPU, too: its package holds them.
        Scope::Part
    } else if has(&["socket", "package", "cpu", "pkg"]) {
        Scope::Processor
    } else if has(&["soc"]) {
        Scope::Part
    } else {
        Scope::Unnamed
    }
}

/// A chip of the hardware monitoring class: `energyN_input` in µJ, `powerN_input` in µW, or, for an
/// INA3221, volts and amperes of each rail.
fn hwmon(chip: &Path, found: &mut Found) {
    let place = chip.file_name().unwrap_or_default().to_string_lossy();
    // Some drivers, that of ACPI's meters among them, put their files into the device.
    let device = chip.join("device");
    let Some(name) = text(chip.join("name")).or_else(|| text(device.join("name"))) else { return };
    let chip = if channels(chip).is_empty() { &device } else { chip };
    // Graphics cards, drives, network cards, their optics (which show light) and batteries measure themselves, not
    // the processor.
    let others =
        ["amdgpu", "radeon", "nouveau", "i915", "xe", "nvme", "BAT", "iwlwifi", "mlx5", "sfp", "ucsi"];
    if others.iter().any(|o| name.starts_with(o)) {
        return;
    }
    let label = |kind: &str, n: u32| {
        ["label", "oem_info"].iter().find_map(|what| text(chip.join(format!("{kind}{n}_{what}"))))
    };
    let mut add = |kind: &str, n: u32, label: Option<String>, reading: Reading| {
        let scope = match (&label, name.as_str()) {
            (None, "power_meter") => Scope::Machine,
            // Its maker names it as he likes: a module, a socket, what lies in it.
            (Some(_), "power_meter") => Scope::Unnamed,
            (_, "fam15h_power") => Scope::Processor,
            (Some(label), _) => scope_by_label(label),
            (None, _) => scope_by_label(&name),
        };
        let domain = label.unwrap_or_else(|| format!("{name} {kind}{n}"));
        found.add(Sensor::new(
            &format!("hwmon {name}"),
            &format!("{place}/{kind}{n}"),
            domain,
            scope,
            reading,
        ));
    };
    for n in channels(chip) {
        let path = chip.join(format!("energy{n}_input"));
        if path.exists() {
            add("energy", n, label("energy", n), Reading::Counter { path, range: None });
        }
        let path = ["input", "average"]
            .map(|what| chip.join(format!("power{n}_{what}")))
            .into_iter()
            .find(|p| p.exists());
        if let Some(path) = path {
            add("power", n, label("power", n), Reading::Power { path, unit: 1e-6 });
        // What is beyond its three channels are voltages of shunts and sums.
        } else if name == "ina3221" && n <= 3 {
            let paths = [chip.join(format!("in{n}_input")), chip.join(format!("curr{n}_input"))];
            if paths.iter().all(|p| p.exists()) {
                // mV · mA
                add("in", n, label("in", n), Reading::Product { paths, unit: 1e-6 });
            }
        }
    }
}

/// Numbers of a chip's channels of energy, power or voltage: `energy65_input` is of channel 65.
fn channels(chip: &Path) -> BTreeSet<u32> {
    let names = fs::read_dir(chip).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let channel = |name: std::ffi::OsString| {
        let (front, kind) = name.to_str()?.split_once('_')?;
        let number = ["energy", "power", "in"].iter().find_map(|k| front.strip_prefix(k))?;
        ["input", "average"].contains(&kind).then(|| number.parse().ok())?
    };
    names.filter_map(channel).collect()
}

/// INA3221 rails as older Jetson kernels show them: `rail_name_N` and `in_powerN_input` in mW.
fn ina3221_iio(driver: &Path, found: &mut Found) {
    for chip in fs::read_dir(driver).into_iter().flatten().flatten() {
        for (_, device) in numbered(chip.path(), "iio:device") {
            for n in 0..3 {
                let Some(rail) = text(device.join(format!("rail_name_{n}"))) else { continue };
                let path = device.join(format!("in_power{n}_input"));
                let place = format!("{}/{n}", chip.file_name().to_string_lossy());
                let scope = scope_by_label(&rail);
                found.add(Sensor::new("ina3221x", &place, rail, scope, Reading::Power { path, unit: 1e-3 }));
            }
        }
    }
}

/// Batteries, which show the machine's power while they are discharging.
fn batteries(dir: &Path, found: &mut Found) {
    let mut supplies: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    supplies.sort();
    for supply in supplies {
        // A battery of a mouse or headset says so.
        if text(supply.join("type")).as_deref() != Some("Battery")
            || text(supply.join("scope")).as_deref() == Some("Device")
        {
            continue;
        }
        let place = supply.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let discharges = text(supply.join("status")).as_deref() == Some("Discharging");
        let found_before = found.sensors.len();
        // Some drivers show what leaves the battery as negative.
        let sign = |file: &str| number::<f64>(supply.join(file)).map_or(1.0, f64::signum);
        let reading = if supply.join("power_now").exists() {
            Reading::Power { path: supply.join("power_now"), unit: 1e-6 * sign("power_now") }
        } else if supply.join("current_now").exists() {
            let paths = ["voltage_now", "current_now"].map(|f| supply.join(f));
            // µV · µA
            Reading::Product { paths, unit: 1e-12 * sign("current_now") }
        } else {
            let reason = format!("the battery {place} shows neither power_now nor current_now");
            if discharges {
                found.lose(BATTERY, reason);
            } else {
                found.refuse(BATTERY, Scope::Machine, reason);
            }
            continue;
        };
        found.add(Sensor::new(BATTERY, &place, "whole machine".into(), Scope::Machine, reading));
        // One that rests gives nothing; what one gives that cannot be read is missing.
        if discharges && found.sensors.len() == found_before {
            let reason = found.refused.last().cloned().unwrap_or_default();
            found.lose(BATTERY, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_files_are_explained_with_a_command_that_opens_them_all() {
        let text =
            explain(Path::new("/sys/class/powercap/intel-rapl:0/energy_uj"), ErrorKind::PermissionDenied);
        assert!(text.contains("`sudo chmod a+r /sys/class/powercap/*/energy_uj`"), "{text}");
    }
}
