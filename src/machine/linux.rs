//! What Linux says in `/proc` and `/sys`. On other systems these files do not exist and nothing is
//! filled in.

use super::{Environment, NO_QUOTA};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file's text without white space at its ends, where it can be read and is not empty.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The device tree ends its strings with NUL.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// A file's number.
pub fn number<T: std::str::FromStr>(path: impl AsRef<Path>) -> Option<T> {
    text(path)?.parse().ok()
}

/// Entries of a directory whose name is `prefix` and a number, by that number.
pub fn numbered(dir: impl AsRef<Path>, prefix: &str) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let index = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((index, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The value of `key` in a file of `key : value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(k, _)| k.trim() == key).map(|(_, v)| v.trim())
}

/// CPUs of a list as the kernel writes it: `0-3,8`.
pub fn cpu_list(list: &str) -> BTreeSet<u32> {
    list.split(',')
        .filter_map(|part| {
            let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            Some(from.parse::<u32>().ok()?..=to.parse::<u32>().ok()?.min(1 << 16))
        })
        .flatten()
        .collect()
}

/// A number that files of the CPUs hold, for each CPU that has it.
fn of_cpus<T: std::str::FromStr>(root: &Path, file: &str) -> impl Iterator<Item = T> {
    let cpus = numbered(root.join("sys/devices/system/cpu"), "cpu");
    cpus.into_iter().filter_map(move |(_, dir)| number(dir.join(file)))
}

/// Fills in everything that Linux tells.
pub fn describe(root: &Path, env: &mut Environment) {
    let (proc, sys) = (root.join("proc"), root.join("sys"));
    let cpu_dir = sys.join("devices/system/cpu");

    if let Some(info) = text(proc.join("cpuinfo")) {
        describe_cpuinfo(&info, env);
    }
    if env.cpu.is_empty() {
        env.cpu = text(proc.join("device-tree/model")).unwrap_or_default();
    }
    env.host = text(proc.join("sys/kernel/hostname")).or(env.host.take());
    if let Some(kernel) = text(proc.join("sys/kernel/osrelease")) {
        let distribution = text(root.join("etc/os-release")).and_then(|t| {
            let name = t.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
            Some(format!(", {}", name.trim_matches('"')))
        });
        env.os = format!("linux {kernel}{}", distribution.unwrap_or_default());
    }
    env.memory = memory(root, "MemTotal");
    env.load = text(proc.join("loadavg")).and_then(|t| t.split(' ').next()?.parse().ok());

    let allowed = text(proc.join("self/status"))
        .and_then(|status| field(&status, "Cpus_allowed_list").map(cpu_list))
        .filter(|allowed| !allowed.is_empty());
    describe_topology(&cpu_dir, allowed.as_ref(), env);
    if let Some(caches) = caches(&cpu_dir.join("cpu0/cache")) {
        env.caches = caches;
    }
    env.core_kinds = core_kinds(root);
    let nodes = numbered(sys.join("devices/system/node"), "node").len();
    env.numa_nodes = (nodes > 0).then_some(nodes as u32);
    let governors: BTreeSet<String> = of_cpus(root, "cpufreq/scaling_governor").collect();
    env.governor = (!governors.is_empty()).then(|| governors.into_iter().collect::<Vec<_>>().join(", "));
    env.turbo = number::<u8>(cpu_dir.join("intel_pstate/no_turbo"))
        .map(|off| off == 0)
        .or_else(|| number::<u8>(cpu_dir.join("cpufreq/boost")).map(|on| on == 1));
    env.huge_pages = text(sys.join("kernel/mm/transparent_hugepage/enabled"))
        .and_then(|t| Some(t.split_once('[')?.1.split_once(']')?.0.to_owned()));
    match cgroup_cpus(root) {
        Ok(Some(cpus)) => env.cgroup_cpus = Some(cpus),
        Ok(None) => drop(env.absent.insert("cgroup_cpus".into(), NO_QUOTA.into())),
        Err(reason) => drop(env.absent.insert("cgroup_cpus".into(), reason)),
    }
    env.virtualisation = virtualisation(root, env.virtualisation.take());
    env.mhz = mhz(root).map(|f| [f, f]);
    env.celsius = celsius(root).map(|t| [t, t]);
}

fn describe_cpuinfo(info: &str, env: &mut Environment) {
    if env.cpu.is_empty() {
        let name = field(info, "model name").or_else(|| field(info, "Model"));
        env.cpu = name.or_else(|| field(info, "Hardware")).unwrap_or_default().to_owned();
    }
    if let (Some(id), Some(microcode)) = (&mut env.cpu_id, field(info, "microcode")) {
        id.push_str(&format!(" microcode {microcode}"));
    }
    if let (Some(implementer), Some(part)) = (field(info, "CPU implementer"), field(info, "CPU part")) {
        let revision = field(info, "CPU revision").unwrap_or("?");
        let variant = field(info, "CPU variant").unwrap_or("?");
        env.cpu_id =
            Some(format!("implementer {implementer} part {part} variant {variant} revision {revision}"));
    }
}

fn describe_topology(cpu_dir: &Path, allowed: Option<&BTreeSet<u32>>, env: &mut Environment) {
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut threads = 0;
    for (cpu, dir) in numbered(cpu_dir, "cpu") {
        let id = |name: &str| number::<i64>(dir.join("topology").join(name));
        let Some(core) = id("core_id") else { continue };
        if allowed.is_some_and(|allowed| !allowed.contains(&cpu)) {
            continue;
        }
        // Some ARM kernels give −1 for an unknown package.
        let socket = id("physical_package_id").unwrap_or(0).max(0);
        sockets.insert(socket);
        cores.insert((socket, id("die_id").unwrap_or(0), core));
        threads += 1;
    }
    if threads > 0 {
        env.sockets = Some(sockets.len() as u32);
        env.cores = Some(cores.len() as u32);
        env.smt = Some(threads > cores.len());
    }
}

/// Sizes that caches have; some virtual machines state others.
const CACHES: std::ops::RangeInclusive<u64> = 1 << 10..=4 << 30;

fn caches(dir: &Path) -> Option<Vec<(String, u64)>> {
    let mut caches = Vec::new();
    for (_, index) in numbered(dir, "index") {
        let level: u32 = number(index.join("level"))?;
        let kind = match text(index.join("type"))?.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        let size = text(index.join("size"))?;
        let bytes = match size.strip_suffix('K') {
            Some(kib) => kib.parse::<u64>().ok()?.checked_mul(1024)?,
            None => size.parse().ok()?,
        };
        if CACHES.contains(&bytes) {
            caches.push((format!("L{level}{kind}"), bytes));
        }
    }
    (!caches.is_empty()).then_some(caches)
}

/// The signals that this process ignores, number 1 in the lowest bit; none where the system does not tell.
pub fn ignored_signals(root: &Path) -> u64 {
    let status = text(root.join("proc/self/status"));
    status.and_then(|status| u64::from_str_radix(field(&status, "SigIgn")?, 16).ok()).unwrap_or(0)
}

/// Bytes that programs can still take.
pub fn available_memory(root: &Path) -> Option<u64> {
    memory(root, "MemAvailable")
}

fn memory(root: &Path, key: &str) -> Option<u64> {
    let info = text(root.join("proc/meminfo"))?;
    field(&info, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Hybrid x86 CPUs have a device for each kind; ARM ones state a capacity for each core.
fn core_kinds(root: &Path) -> Vec<(String, u32)> {
    let count = |device: &str| {
        let list = text(root.join("sys/devices").join(device).join("cpus"))?;
        Some(cpu_list(&list).len() as u32)
    };
    if let (Some(p), Some(e)) = (count("cpu_core"), count("cpu_atom")) {
        return vec![("P (threads)".into(), p), ("E (threads)".into(), e)];
    }
    let mut capacities = std::collections::BTreeMap::<u32, u32>::new();
    for capacity in of_cpus(root, "cpu_capacity") {
        *capacities.entry(capacity).or_default() += 1;
    }
    if capacities.len() < 2 {
        return Vec::new();
    }
    capacities.into_iter().rev().map(|(capacity, n)| (format!("capacity {capacity}"), n)).collect()
}

/// The tightest CPU quota of this process' cgroup and its parents, in CPUs; `None` where there is
/// none, and a reason where that cannot be seen.
fn cgroup_cpus(root: &Path) -> Result<Option<f64>, String> {
    let mount = root.join("sys/fs/cgroup");
    let membership = text(root.join("proc/self/cgroup")).ok_or("/proc/self/cgroup cannot be read")?;
    let (mut tightest, mut seen) = (None, false);
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let base = if controllers.is_empty() {
            mount.clone()
        } else if controllers.split(',').any(|c| c == "cpu") {
            // Mounted with others, whose order may be another one, or by itself.
            let places = [controllers, "cpu", "cpu,cpuacct"].map(|name| mount.join(name));
            places.iter().find(|place| place.exists()).unwrap_or(&places[0]).clone()
        } else {
            continue;
        };
        seen |= ["cgroup.controllers", "cpu.max", "cpu.cfs_quota_us"].iter().any(|f| base.join(f).exists());
        let mut group = base.join(path.trim_start_matches('/'));
        while group.starts_with(&base) {
            if let Some(quota) = quota(&group) {
                tightest = Some(tightest.map_or(quota, |t: f64| t.min(quota)));
            }
            group.pop();
        }
    }
    if tightest.is_none() && !seen {
        return Err("/sys/fs/cgroup shows no group of this process with a controller of CPUs".into());
    }
    Ok(tightest)
}

/// `cpu.max` is `quota period` or `max period`; version 1 has a file for each, and −1 for no quota.
fn quota(group: &Path) -> Option<f64> {
    let (quota, period) = match text(group.join("cpu.max")) {
        Some(max) => {
            let (quota, period) = max.split_once(' ')?;
            (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
        }
        None => (number(group.join("cpu.cfs_quota_us"))?, number(group.join("cpu.cfs_period_us"))?),
    };
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// The hypervisor (as the CPU or the firmware names it) and the container, or Windows' subsystem for Linux.
fn virtualisation(root: &Path, from_cpu: Option<String>) -> Option<String> {
    let hypervisor = from_cpu.or_else(|| {
        let product = text(root.join("sys/class/dmi/id/product_name"))?;
        let vendor = text(root.join("sys/class/dmi/id/sys_vendor")).unwrap_or_default();
        let known =
            ["KVM", "QEMU", "VMware", "VirtualBox", "Virtual Machine", "HVM domU", "Amazon EC2", "Google"];
        let name = format!("{vendor} {product}");
        known.iter().any(|k| name.contains(k)).then(|| name.trim().to_owned())
    });
    let container = if root.join(".dockerenv").exists() {
        Some("docker container".to_owned())
    } else if root.join("run/.containerenv").exists() {
        Some("podman container".to_owned())
    } else if let Some(kind) = text(root.join("run/systemd/container")) {
        Some(format!("{kind} container"))
    } else {
        let groups = text(root.join("proc/1/cgroup")).unwrap_or_default();
        ["docker", "kubepods", "lxc", "containerd"]
            .into_iter()
            .find(|kind| groups.contains(kind))
            .map(|kind| format!("{kind} container"))
            .or_else(|| {
                let kernel = text(root.join("proc/sys/kernel/osrelease"))?.to_lowercase();
                kernel.contains("microsoft").then(|| "WSL".to_owned())
            })
    };
    let found: Vec<String> = hypervisor.into_iter().chain(container).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// Clock of the fastest CPU, MHz.
pub fn mhz(root: &Path) -> Option<f64> {
    let scaled = of_cpus(root, "cpufreq/scaling_cur_freq").reduce(f64::max).map(|khz| khz / 1e3);
    scaled.or_else(|| {
        let info = text(root.join("proc/cpuinfo"))?;
        let clocks = info.lines().filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "cpu MHz").then(|| value.trim().parse().ok())?
        });
        clocks.reduce(f64::max)
    })
}

/// Temperature of the processor, °C: its hottest package, or else the hottest thermal zone that is of nothing else.
pub fn celsius(root: &Path) -> Option<f64> {
    let class = root.join("sys/class");
    let of_processor = ["coretemp", "k10temp", "zenpower", "cpu_thermal"];
    // Where nothing is measured, drivers show what cannot be.
    let hottest = |all: &mut dyn Iterator<Item = f64>| {
        all.map(|millidegrees| millidegrees / 1e3)
            .filter(|degrees| (-100.0..=200.0).contains(degrees))
            .reduce(f64::max)
    };
    let mut packages = numbered(class.join("hwmon"), "hwmon").into_iter().filter_map(|(_, chip)| {
        let name = text(chip.join("name"))?;
        of_processor.contains(&name.as_str()).then(|| number::<f64>(chip.join("temp1_input")))?
    });
    let elsewhere = ["iwlwifi", "nvme", "battery", "bat", "charger", "pch", "wlan", "modem", "gpu"];
    let mut zones = numbered(class.join("thermal"), "thermal_zone").into_iter().filter_map(|(_, zone)| {
        let kind = text(zone.join("type")).unwrap_or_default().to_lowercase();
        (!elsewhere.iter().any(|other| kind.starts_with(other))).then(|| number::<f64>(zone.join("temp")))?
    });
    hottest(&mut packages).or_else(|| hottest(&mut zones))
}

/// Thermal throttling events of all cores since the system started.
pub fn throttle_events(root: &Path) -> Option<u64> {
    of_cpus::<u64>(root, "thermal_throttle/core_throttle_count").reduce(|a, b| a + b)
}

/// What the CPUs did since the system started, in clock ticks of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuTimes {
    /// All time of all CPUs.
    pub total: f64,
    /// Of that: at work, for this machine or process or any other.
    pub busy: f64,
    /// Of that: wanted but given to others by the hypervisor.
    pub stolen: f64,
    /// Of that: for this process.
    pub own: f64,
}

impl CpuTimes {
    /// Reads `/proc/stat` and `/proc/self/stat` under `root`.
    pub fn read(root: &Path) -> Option<Self> {
        let stat = text(root.join("proc/stat"))?;
        let ticks: Vec<f64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|v| v.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user's.
        let ticks: [f64; 8] = ticks.get(..8)?.try_into().ok()?;
        let own = text(root.join("proc/self/stat"))?;
        // The second field, the program's name in parentheses, may hold anything.
        let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let total = ticks.iter().sum();
        Some(Self {
            total,
            busy: total - ticks[3] - ticks[4] - ticks[7],
            stolen: ticks[7],
            own: own.get(11)?.parse::<f64>().ok()? + own.get(12)?.parse::<f64>().ok()?,
        })
    }

    /// What happened after `start`.
    pub fn since(&self, start: &Self) -> Self {
        Self {
            total: self.total - start.total,
            busy: self.busy - start.busy,
            stolen: self.stolen - start.stolen,
            own: self.own - start.own,
        }
    }

    /// Ticks of all CPUs of which shares say something: the kernel counts whole ones.
    const ENOUGH: f64 = 20.0;

    /// Share of all CPUs' time that the hypervisor gave to others; `None` over too short a time.
    pub fn steal(&self) -> Option<f64> {
        (self.total >= Self::ENOUGH).then(|| (self.stolen / self.total).clamp(0.0, 1.0))
    }

    /// Share of all CPUs' time at work for other processes; `None` over too short a time.
    pub fn others(&self) -> Option<f64> {
        (self.total >= Self::ENOUGH).then(|| ((self.busy - self.own) / self.total).clamp(0.0, 1.0))
    }
}

impl std::ops::AddAssign for CpuTimes {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.busy += other.busy;
        self.stolen += other.stolen;
        self.own += other.own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Watch;

    /// A tree of files under a temporary root.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            write(root.path(), path, content);
        }
        root
    }

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn described(root: &Path) -> Environment {
        let mut env = Environment::default();
        describe(root, &mut env);
        env
    }

    #[test]
    fn topology_of_two_sockets_with_smt_counts_only_allowed_cpus() {
        let mut files = Vec::new();
        for cpu in 0..8 {
            files.push((
                format!("sys/devices/system/cpu/cpu{cpu}/topology/core_id"),
                format!("{}\n", cpu % 2),
            ));
            let socket = if cpu % 4 < 2 { "0\n" } else { "1\n" };
            files.push((
                format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"),
                socket.into(),
            ));
        }
        let files: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
        let root = tree(&files);
        let env = described(root.path());
        assert_eq!((env.sockets, env.cores, env.smt), (Some(2), Some(4), Some(true)));
        write(root.path(), "proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1,4\n");
        let env = described(root.path());
        assert_eq!((env.sockets, env.cores, env.smt), (Some(1), Some(2), Some(true)));
    }

    #[test]
    fn quota_is_the_tightest_of_all_parents() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(described(root.path()).cgroup_cpus, Some(1.5));
        let v1 = tree(&[
            ("proc/self/cgroup", "4:memory:/m\n3:cpuacct,cpu:/x\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(described(v1.path()).cgroup_cpus, Some(0.5));
    }

    #[test]
    fn plain_files_are_read() {
        let root = tree(&[
            (
                "proc/cpuinfo",
                "processor: 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 2595.5\n\ncpu MHz : 3100.25\n",
            ),
            ("proc/meminfo", "MemTotal:       24684092 kB\n"),
            ("proc/loadavg", "1.25 0.9 0.8 1/2 3\n"),
            ("proc/sys/kernel/hostname", "box\n"),
            ("proc/sys/kernel/osrelease", "6.12.1\n"),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n"),
            ("sys/devices/system/cpu/cpu0/cache/index0/type", "Data\n"),
            ("sys/devices/system/cpu/cpu0/cache/index0/size", "48K\n"),
            ("sys/class/hwmon/hwmon0/name", "acpitz\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "20000\n"),
            ("sys/class/hwmon/hwmon1/name", "k10temp\n"),
            ("sys/class/hwmon/hwmon1/temp1_input", "61500\n"),
            ("sys/class/hwmon/hwmon2/name", "k10temp\n"),
            ("sys/class/hwmon/hwmon2/temp1_input", "60000\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu0/cache/index7/level", "3\n"),
            ("sys/devices/system/cpu/cpu0/cache/index7/type", "Unified\n"),
            ("sys/devices/system/cpu/cpu0/cache/index7/size", "0K\n"),
            ("sys/class/dmi/id/product_name", "Standard PC (Q35)\n"),
            ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            (".dockerenv", ""),
        ]);
        let mut env = described(root.path());
        assert_eq!(env.cpu, "Some CPU");
        assert_eq!(env.mhz, Some([3100.25, 3100.25]));
        assert_eq!(env.memory, Some(24_684_092 * 1024));
        assert_eq!(env.load, Some(1.25));
        assert_eq!(env.os, "linux 6.12.1");
        assert_eq!(env.turbo, Some(false));
        assert_eq!(env.governor.as_deref(), Some("performance, powersave"));
        assert_eq!(env.huge_pages.as_deref(), Some("madvise"));
        assert_eq!(env.caches, [("L1d".to_owned(), 48 * 1024)]);
        assert_eq!(env.celsius, Some([61.5, 61.5]));
        assert_eq!(env.virtualisation.as_deref(), Some("QEMU Standard PC (Q35), docker container"));
        assert_eq!(env.host.as_deref(), Some("box"));
        env.anonymise();
        assert_eq!(env.host, None);
    }

    #[test]
    fn nothing_is_invented_on_an_empty_or_damaged_tree() {
        let empty = tree(&[]);
        let nothing = |root: &Path| {
            let found = described(root);
            assert!(found.absent.contains_key("cgroup_cpus"), "{found:?}");
            assert_eq!(Environment { absent: Default::default(), ..found }, Environment::default());
        };
        nothing(empty.path());
        let damaged = tree(&[
            ("proc/stat", "cpu  1 2 x\n"),
            ("proc/loadavg", "\n"),
            ("proc/self/cgroup", "nonsense\n"),
            ("proc/self/status", "Cpus_allowed_list:\t9-4294967295,x\n"),
            ("sys/devices/system/cpu/cpu0/cache/index0/level", "one\n"),
        ]);
        nothing(damaged.path());
        assert_eq!(CpuTimes::read(damaged.path()), None);
    }

    #[test]
    fn stolen_and_other_time_are_shares_of_the_time_between() {
        let stat =
            |user: u32, idle: u32, steal: u32| format!("cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1\n");
        let own = |ticks: u32| format!("7 (a) b) c) R 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0\n");
        let root = tree(&[("proc/stat", &stat(100, 100, 0)), ("proc/self/stat", &own(40))]);
        let watch = Watch::start_at(root.path());
        let start = CpuTimes::read(root.path()).unwrap();
        write(root.path(), "proc/stat", &stat(160, 120, 20));
        write(root.path(), "proc/self/stat", &own(70));
        assert_eq!(watch.environment().steal, Some(0.2));
        let between = CpuTimes::read(root.path()).unwrap().since(&start);
        assert_eq!((between.steal(), between.others()), (Some(0.2), Some(0.3)));
        assert_eq!(start.since(&start).steal(), None);
    }

    #[test]
    fn ignored_signals_and_windows_subsystem_are_seen() {
        let root = tree(&[
            ("proc/self/status", "Name:\tx\nSigIgn:\t0000000000001001\n"),
            ("proc/sys/kernel/osrelease", "5.15.0-microsoft-standard-WSL2\n"),
        ]);
        assert_eq!(ignored_signals(root.path()), 0x1001);
        assert_eq!(described(root.path()).virtualisation.as_deref(), Some("WSL"));
        assert_eq!(ignored_signals(tree(&[]).path()), 0);
    }

    #[test]
    fn clocks_temperature_and_throttling_are_read_again_at_the_end() {
        let (clock, temperature) =
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq", "sys/class/thermal/thermal_zone0/temp");
        let throttled = "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count";
        let root = tree(&[(clock, "3000000\n"), (temperature, "50000\n"), (throttled, "4\n")]);
        let watch = Watch::start_at(root.path());
        write(root.path(), clock, "2000000\n");
        write(root.path(), temperature, "90000\n");
        write(root.path(), throttled, "9\n");
        let env = watch.environment();
        assert_eq!((env.mhz, env.celsius), (Some([3000.0, 2000.0]), Some([50.0, 90.0])));
        assert_eq!(env.throttle_events, Some(5));
    }
}
