//! What this CPU is, what it can do, and its measured limits.

mod cpu;
mod limits;
pub(crate) mod linux;
pub mod tuning;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub use linux::CpuTimes;

/// The machine at the time of a measurement. What cannot be read is `None`, never invented.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Host name; removed by `--anonymise`.
    pub host: Option<String>,
    /// CPU model name.
    pub cpu: String,
    /// Architecture: `x86_64`, `aarch64`.
    pub arch: String,
    /// Family, model, stepping and microcode, as far as known.
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
    pub sockets: Option<u32>,
    /// Physical cores available.
    pub cores: Option<u32>,
    /// Kinds of cores of a hybrid CPU and how many: `("P", 8)`, `("E", 16)`; empty where all are equal.
    #[serde(default)]
    pub core_kinds: Vec<(String, u32)>,
    /// Logical CPUs available to this process.
    pub threads: u32,
    /// Whether a core runs several threads.
    pub smt: Option<bool>,
    /// NUMA nodes.
    pub numa_nodes: Option<u32>,
    /// Frequency governor.
    pub governor: Option<String>,
    /// Whether turbo is on.
    pub turbo: Option<bool>,
    /// Clock of the fastest CPU at start and end, MHz.
    pub mhz: Option<[f64; 2]>,
    /// Temperature of the processor at start and end, °C.
    pub celsius: Option<[f64; 2]>,
    /// Thermal throttling events of all cores during the run.
    #[serde(default)]
    pub throttle_events: Option<u64>,
    /// CPU quota of the cgroup, in CPUs.
    pub cgroup_cpus: Option<f64>,
    /// Container or hypervisor, where one shows itself.
    pub virtualisation: Option<String>,
    /// Share of time stolen by the hypervisor during the run.
    pub steal: Option<f64>,
    /// Load average over a minute at start.
    pub load: Option<f64>,
    /// Operating system and kernel.
    pub os: String,
    /// Transparent huge pages.
    pub huge_pages: Option<String>,
    /// Memory, bytes.
    pub memory: Option<u64>,
    /// What the kernels are tuned to, in words.
    #[serde(default)]
    pub tuning: Option<String>,
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
            threads: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
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
        now
    }
}

impl Environment {
    /// Removes what tells whose machine it is.
    pub fn anonymise(&mut self) {
        self.host = None;
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
