//! What this CPU is, what it can do, and its measured limits.

use serde::{Deserialize, Serialize};

/// The machine at the time of a measurement. What cannot be read is `None`, never invented.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Clock at start and end, MHz.
    pub mhz: Option<[f64; 2]>,
    /// Temperature at start and end, °C.
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
}

/// Measured limits of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct ReadLimit {
    /// `RAM`, `L3`, `L2`, `L1`.
    pub level: String,
    /// Bytes of the working set.
    pub bytes: u64,
    /// Threads reading.
    pub threads: u32,
    /// 10⁹ bytes a second, median.
    pub gb_per_s: f64,
}

/// Arithmetic peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeLimit {
    /// Tier whose instructions were used.
    pub tier: String,
    /// Threads.
    pub threads: u32,
    /// 10⁹ multiply-accumulates a second, median.
    pub gmac_per_s: f64,
}
