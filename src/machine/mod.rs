//! What this CPU is, what it can do, and its measured limits.

mod cpu;
mod limits;
pub(crate) mod linux;
pub mod tuning;

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use linux::CpuTimes;

/// The machine at the time of a measurement. What cannot be read is `None`, never invented, and
/// [`absent`](Self::absent) says why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Host name; removed by `--anonymise`.
    #[serde(deserialize_with = "stated")]
    pub host: Option<String>,
    /// CPU model name.
    pub cpu: String,
    /// Architecture: `x86_64`, `aarch64`.
    pub arch: String,
    /// Family, model, stepping and microcode, as far as known.
    #[serde(deserialize_with = "stated")]
    pub cpu_id: Option<String>,
    /// Features that matter to kernels, present and enabled by the operating system.
    pub features: Vec<String>,
    /// Features that the CPU has but the operating system or hypervisor does not let programs use.
    #[serde(default)]
    pub features_off: Vec<String>,
    /// Features the binary was compiled to require.
    pub compiled_features: Vec<String>,
    /// Caches: (name, bytes), e.g. `("L2", 1048576)`, one core's or the shared one's.
    pub caches: Vec<(String, u64)>,
    /// Sockets.
    #[serde(deserialize_with = "stated")]
    pub sockets: Option<u32>,
    /// Physical cores available.
    #[serde(deserialize_with = "stated")]
    pub cores: Option<u32>,
    /// Kinds of cores of a hybrid CPU and how many: `("P", 8)`, `("E", 16)`; empty where all are equal.
    #[serde(default)]
    pub core_kinds: Vec<(String, u32)>,
    /// Logical CPUs available to this process.
    pub threads: u32,
    /// Whether a core runs several threads.
    #[serde(deserialize_with = "stated")]
    pub smt: Option<bool>,
    /// NUMA nodes.
    #[serde(deserialize_with = "stated")]
    pub numa_nodes: Option<u32>,
    /// Frequency governor.
    #[serde(deserialize_with = "stated")]
    pub governor: Option<String>,
    /// Whether turbo is on.
    #[serde(deserialize_with = "stated")]
    pub turbo: Option<bool>,
    /// Clock of the fastest CPU at start and end, MHz.
    #[serde(deserialize_with = "stated")]
    pub mhz: Option<[f64; 2]>,
    /// Temperature of the processor at start and end, °C.
    #[serde(deserialize_with = "stated")]
    pub celsius: Option<[f64; 2]>,
    /// Thermal throttling events of all cores during the run.
    #[serde(default)]
    pub throttle_events: Option<u64>,
    /// CPU quota of the cgroup, in CPUs; absent where there is none, as `absent` says.
    #[serde(deserialize_with = "stated")]
    pub cgroup_cpus: Option<f64>,
    /// Container or hypervisor, where one shows itself.
    #[serde(deserialize_with = "stated")]
    pub virtualisation: Option<String>,
    /// Share of time stolen by the hypervisor during the run.
    #[serde(deserialize_with = "stated")]
    pub steal: Option<f64>,
    /// Load average over a minute at start.
    #[serde(deserialize_with = "stated")]
    pub load: Option<f64>,
    /// Operating system and kernel.
    pub os: String,
    /// Transparent huge pages.
    #[serde(deserialize_with = "stated")]
    pub huge_pages: Option<String>,
    /// Memory, bytes.
    #[serde(deserialize_with = "stated")]
    pub memory: Option<u64>,
    /// What the kernels are tuned to, in words.
    #[serde(default)]
    pub tuning: Option<String>,
    /// Why each field that is null is so: not shown by the system, or not there. Empty in records of
    /// before it was kept.
    #[serde(default)]
    pub absent: BTreeMap<String, String>,
}

/// A field that may be null but not left out.
fn stated<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// The machine from the start of a measurement on.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    start: Environment,
    times: Option<CpuTimes>,
    throttle_events: Option<u64>,
}

impl Watch {
    /// Looks at this machine.
    pub fn start() -> Self {
        Self::start_at(Path::new("/"))
    }

    /// Looks at the machine whose `/proc` and `/sys` lie under `root`.
    pub fn start_at(root: &Path) -> Self {
        let mut start = Environment {
            arch: std::env::consts::ARCH.into(),
            threads: tritmark_kernels::pool::cpus() as u32,
            os: std::env::consts::OS.into(),
            tuning: Some(tuning::in_use()),
            ..Environment::default()
        };
        cpu::describe(&mut start);
        linux::describe(root, &mut start);
        Self {
            root: root.into(),
            start,
            times: CpuTimes::read(root),
            throttle_events: linux::throttle_events(root),
        }
    }

    /// The machine as it was at the start, with clock, temperature, stolen time and throttling as
    /// they are by now.
    pub fn environment(&self) -> Environment {
        let mut now = self.start.clone();
        let end = |start: Option<[f64; 2]>, end: Option<f64>| Some([start?[0], end?]);
        now.mhz = end(now.mhz, linux::mhz(&self.root));
        now.celsius = end(now.celsius, linux::celsius(&self.root));
        now.throttle_events = linux::throttle_events(&self.root)
            .zip(self.throttle_events)
            .map(|(end, start)| end.saturating_sub(start));
        now.steal =
            CpuTimes::read(&self.root).zip(self.times).and_then(|(end, start)| end.since(&start).steal());
        now.explain(|field| match field {
            "host" => "the system tells none",
            "cpu_id" => "neither the processor nor /proc/cpuinfo tells it",
            "sockets" | "cores" | "smt" => "/sys/devices/system/cpu shows no topology",
            "numa_nodes" => "/sys/devices/system/node shows none",
            "governor" => "the system shows no frequency scaling (cpufreq), as in most virtual machines",
            "turbo" => {
                "the system shows no switch for it (intel_pstate, cpufreq), as in most virtual machines"
            }
            "mhz" => "neither cpufreq nor /proc/cpuinfo shows a clock",
            "celsius" => {
                "the system shows no sensor of the processor's temperature, as in most virtual machines"
            }
            "throttle_events" => {
                "the system does not count them (thermal_throttle), as in most virtual machines"
            }
            "virtualisation" => NO_HYPERVISOR,
            "steal" => "/proc/stat cannot be read, or too little time has passed for it",
            "load" => "/proc/loadavg cannot be read",
            "huge_pages" => "/sys/kernel/mm/transparent_hugepage cannot be read",
            "memory" => "/proc/meminfo cannot be read",
            _ => "the system does not tell",
        });
        now
    }
}

/// Why [`Environment::cgroup_cpus`] is absent where there is none.
pub(crate) const NO_QUOTA: &str = "no quota is set";

/// Why [`Environment::virtualisation`] is absent where there is none.
const NO_HYPERVISOR: &str = "neither a hypervisor nor a container shows itself";

impl Environment {
    /// The quota of CPUs, where it is known whether there is one.
    pub fn quota(&self) -> Option<Option<f64>> {
        let none = self.absent.get("cgroup_cpus").is_some_and(|reason| reason == NO_QUOTA);
        (none || self.cgroup_cpus.is_some()).then_some(self.cgroup_cpus)
    }

    /// The hypervisor, without the container that may run in its machine; `None` where it is not known whether there
    /// is one.
    pub fn hypervisor(&self) -> Option<String> {
        if self.absent.get("virtualisation").is_some_and(|reason| reason != NO_HYPERVISOR) {
            return None;
        }
        let parts = self.virtualisation.iter().flat_map(|v| v.split(", "));
        Some(parts.into_iter().find(|v| !v.ends_with(" container")).unwrap_or("none").to_owned())
    }

    /// The fields that are null.
    pub fn unknown(&self) -> Vec<&'static str> {
        let fields = [
            ("host", self.host.is_none()),
            ("cpu_id", self.cpu_id.is_none()),
            ("sockets", self.sockets.is_none()),
            ("cores", self.cores.is_none()),
            ("smt", self.smt.is_none()),
            ("numa_nodes", self.numa_nodes.is_none()),
            ("governor", self.governor.is_none()),
            ("turbo", self.turbo.is_none()),
            ("mhz", self.mhz.is_none()),
            ("celsius", self.celsius.is_none()),
            ("throttle_events", self.throttle_events.is_none()),
            ("cgroup_cpus", self.cgroup_cpus.is_none()),
            ("virtualisation", self.virtualisation.is_none()),
            ("steal", self.steal.is_none()),
            ("load", self.load.is_none()),
            ("huge_pages", self.huge_pages.is_none()),
            ("memory", self.memory.is_none()),
            ("tuning", self.tuning.is_none()),
        ];
        fields.into_iter().filter(|(_, null)| *null).map(|(name, _)| name).collect()
    }

    /// Gives every field that is null a reason, unless it has one.
    pub fn explain(&mut self, reason: impl Fn(&str) -> &'static str) {
        let unknown = self.unknown();
        self.absent.retain(|name, _| unknown.contains(&name.as_str()));
        for name in unknown {
            self.absent.entry(name.into()).or_insert_with(|| reason(name).into());
        }
    }

    /// Removes what tells whose machine it is.
    pub fn anonymise(&mut self) {
        self.host = None;
        self.absent.insert("host".into(), "left out by --anonymise".into());
    }
}

/// Measured limits of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Read bandwidth by level and threads.
    pub read: Vec<ReadLimit>,
    /// Peak int8 multiply-accumulate rate by tier and threads.
    pub int8: Vec<ComputeLimit>,
    /// Peak f32 fused multiply-add rate by threads.
    pub f32: Vec<ComputeLimit>,
    /// How they were measured.
    pub method: Vec<String>,
    /// Threads, and GB/s of the slowest further look at memory with them; not part of a record.
    #[serde(skip)]
    pub slowest: Vec<(u32, f64)>,
}

/// Read bandwidth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadLimit {
    /// `RAM`, `L3`, `L2`, `L1`.
    pub level: String,
    /// Bytes of the working set.
    pub bytes: u64,
    /// Threads reading.
    pub threads: u32,
    /// 10⁹ bytes a second, the best of many short passes.
    pub gb_per_s: f64,
}

/// Arithmetic peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ComputeLimit {
    /// Tier whose instructions were used.
    pub tier: String,
    /// Threads.
    pub threads: u32,
    /// 10⁹ multiply-accumulates a second, the best of many short passes.
    pub gmac_per_s: f64,
}
