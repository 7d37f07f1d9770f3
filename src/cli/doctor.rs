//! `tritmark doctor`.

use super::common::{MeterArgs, print_json, print_line, progress, say};
use crate::error::Result;
use crate::machine::{CpuTimes, Environment, Limits, Watch, tuning};
use crate::model::check_threads;
use crate::record::{self, Tool};
use crate::speed::lists::{List, numbers};
use crate::words::counted;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tritmark_kernels::kernel;

/// Tell what this machine is, which kernels it can run, how its energy can be measured, and, with
/// --limits, what it can do at most.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tritmark doctor\n  tritmark doctor --limits --threads '1-8*2' --json\n  tritmark doctor --tune"
)]
pub struct Args {
    /// Measure the limits too: reading from each level of memory, int8 and f32 arithmetic
    #[arg(long)]
    limits: bool,
    /// Threads to measure limits with (needs --limits) [default: 1 and all]
    #[arg(short, long, value_name = "LIST", requires = "limits")]
    threads: Vec<List>,
    /// Measure from where on tables pay, how far ahead to prefetch and how finely to cut work on this
    /// CPU, and store it for later runs; no result depends on it
    #[arg(long)]
    tune: bool,
    #[command(flatten)]
    meter: MeterArgs,
    /// Leave out host name and paths
    #[arg(long)]
    anonymise: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What the command finds.
#[derive(Serialize)]
struct Findings {
    tool: Tool,
    environment: Environment,
    /// Share of the CPUs' time that the hypervisor gave to others since the system started.
    #[serde(skip_serializing_if = "Option::is_none")]
    steal_since_start: Option<f64>,
    kernels: Vec<KernelState>,
    energy: Energy,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    /// Where a new tuning was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<PathBuf>,
}

/// A kernel of this program.
#[derive(Serialize)]
struct KernelState {
    layout: &'static str,
    tier: String,
    available: bool,
    /// Whether it runs where a layout is asked for without a tier.
    chosen: bool,
    /// How it gets at the weights for one token; of kernels that this CPU can run.
    way: Option<String>,
    /// The tier whose instructions do that, where it is a lower one.
    falls_to: Option<String>,
}

/// How energy can be measured.
#[derive(Serialize)]
struct Energy {
    sources: Vec<Source>,
    /// Why other sensors cannot be used.
    refused: Vec<String>,
    /// Why nothing can be measured, where that is so.
    unusable: Option<String>,
}

/// Something to read energy from.
#[derive(Serialize)]
struct Source {
    source: String,
    domain: String,
    /// Whether figures rest on it; the others are shown beside.
    main: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the meter's log cannot be read, the tuning cannot be stored, or standard output is closed.
    pub fn run(self) -> Result<()> {
        let mut environment = Watch::start().environment();
        let mut tuned = self.tune.then(|| tune(&mut environment)).transpose()?;
        let kernels = kernel::compiled().iter().map(|c| {
            let way = c.kernel.as_ref().map(|k| k.way());
            KernelState {
                layout: c.layout.name(),
                tier: c.tier.to_string(),
                available: c.kernel.is_some(),
                chosen: kernel::best(c.layout, None).is_some_and(|best| best.tier() == c.tier),
                way: way.map(|(way, _)| way.to_string()),
                falls_to: way.filter(|(_, tier)| *tier != c.tier).map(|(_, tier)| tier.to_string()),
            }
        });
        let meter = self.meter.open()?;
        let sources =
            meter.sources().into_iter().map(|(source, domain, main)| Source { source, domain, main });
        let mut energy =
            Energy { sources: sources.collect(), refused: meter.refused.clone(), unusable: meter.unusable() };
        let limits = self.limits.then(|| self.measure(&environment)).transpose()?;
        if self.anonymise {
            environment.anonymise();
            tuned = tuned.as_deref().and_then(Path::file_name).map(PathBuf::from);
            let sentences = energy.refused.iter_mut().chain(&mut energy.unusable);
            sentences.for_each(|sentence| record::shorten_paths(sentence, &self.meter.energy_root));
        }
        let kernels = kernels.collect();
        let tool = Tool::current();
        let steal_since_start = CpuTimes::read(Path::new("/")).and_then(|times| times.steal());
        let findings = Findings { tool, environment, steal_since_start, kernels, energy, limits, tuned };
        if self.json { print_json(&findings) } else { print_line(findings.text().trim_end()) }
    }

    fn measure(&self, environment: &Environment) -> Result<Limits> {
        let mut default = vec![1, environment.threads];
        default.dedup();
        let threads = numbers(&self.threads, &default);
        threads.iter().try_for_each(|n| check_threads(*n as usize))?;
        let bar = progress(1, "limits");
        let limits =
            Limits::measure(environment, &threads, Duration::from_millis(300), &mut |done, total, what| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(what.to_owned());
            });
        bar.finish_and_clear();
        Ok(limits)
    }
}

/// Measures a tuning, uses it and stores it; says where.
fn tune(environment: &mut Environment) -> Result<PathBuf> {
    // Not after seconds of measuring.
    tuning::place()?;
    let bar = progress(1, "tuning");
    let before = CpuTimes::read(Path::new("/"));
    let tuning = tuning::measure(environment, &mut |done, total, what| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    });
    bar.finish_and_clear();
    let others =
        CpuTimes::read(Path::new("/")).zip(before).and_then(|(end, start)| end.since(&start).others());
    if let Some(share) = others.filter(|share| *share > 0.05) {
        say(&format!(
            "Other programs used {:.0} % of the CPUs meanwhile, so this tuning may be a poor one: stop them and run it \
             again.",
            100.0 * share
        ));
    }
    environment.tuning = Some(tuning::in_use());
    tuning::store(&tuning)
}

impl Findings {
    fn text(&self) -> String {
        let mut out = String::new();
        self.machine(&mut out);
        self.kernel_table(&mut out);
        if let Some(path) = &self.tuned {
            let _ = writeln!(out, "\nThe tuning is stored in {}", path.display());
        }
        let _ = writeln!(out, "\nEnergy");
        for Source { source, domain, main } in &self.energy.sources {
            let role = if *main { "measured" } else { "shown beside" };
            let _ = writeln!(out, "  {role}: {source} ({domain})");
        }
        let Energy { refused, unusable, .. } = &self.energy;
        // Often it is nothing but these.
        let further = unusable.iter().filter(|reason| **reason != refused.join("; "));
        for reason in refused.iter().chain(further) {
            let _ = writeln!(out, "  not measured: {reason}");
        }
        if let Some(limits) = &self.limits {
            limit_table(limits, &mut out);
        }
        out
    }

    fn machine(&self, out: &mut String) {
        let e = &self.environment;
        let number = |n: Option<u32>, of: &str| n.map_or_else(|| format!("? {of}s"), |n| counted(n, of));
        let yes = |b: Option<bool>| b.map_or("unknown", |b| if b { "on" } else { "off" });
        let why = |field: &str| e.absent.get(field).map(|reason| format!("unknown: {reason}"));
        let or_why = |field: &str, value: Option<String>| value.or_else(|| why(field));
        let steal = self.steal_since_start;
        let caches: Vec<String> =
            e.caches.iter().map(|(name, bytes)| format!("{name} {} KiB", bytes / 1024)).collect();
        let kinds: Vec<String> = e.core_kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let Tool { version, git_revision, git_dirty, profile, target, rustc, .. } = &self.tool;
        let lines = [
            (
                "tritmark",
                Some(format!(
                    "{version} {}{} {profile} {target}, {rustc}",
                    git_revision.as_deref().unwrap_or(""),
                    if *git_dirty == Some(true) { " with changes" } else { "" }
                )),
            ),
            ("host", e.host.clone()),
            ("CPU", Some(format!("{} ({})", e.cpu, e.arch))),
            ("", e.cpu_id.clone()),
            ("features", Some(e.features.join(" "))),
            ("compiled for", Some(e.compiled_features.join(" "))),
            ("not enabled", (!e.features_off.is_empty()).then(|| e.features_off.join(" "))),
            ("caches", Some(caches.join(", "))),
            (
                "cores",
                Some(format!(
                    "{}, {}, {} for this process, SMT {}",
                    number(e.sockets, "socket"),
                    number(e.cores, "core"),
                    counted(e.threads, "thread"),
                    yes(e.smt)
                )),
            ),
            ("", (!kinds.is_empty()).then(|| kinds.join(", "))),
            ("NUMA nodes", e.numa_nodes.map(|n| n.to_string())),
            (
                "CPU quota",
                or_why("cgroup_cpus", e.quota().map(|q| q.map_or("none".into(), |n| format!("{n} CPUs")))),
            ),
            ("clock", or_why("mhz", e.mhz.map(|[now, _]| format!("{now:.0} MHz")))),
            ("governor", or_why("governor", e.governor.clone())),
            ("turbo", or_why("turbo", e.turbo.map(|_| yes(e.turbo).into()))),
            ("temperature", or_why("celsius", e.celsius.map(|[now, _]| format!("{now:.0} °C")))),
            ("steal", or_why("steal", steal.map(|s| format!("{:.2} % since the system started", 100.0 * s)))),
            ("load", e.load.map(|l| l.to_string())),
            ("virtual", or_why("virtualisation", e.virtualisation.clone())),
            (
                "memory",
                e.memory.map(|b| {
                    format!(
                        "{:.1} GiB, huge pages {}",
                        b as f64 / f64::from(1 << 30),
                        e.huge_pages.as_deref().unwrap_or("unknown")
                    )
                }),
            ),
            ("system", Some(e.os.clone())),
            ("tuning", e.tuning.clone()),
        ];
        let _ = writeln!(out, "Machine");
        for (name, value) in lines {
            if let Some(value) = value {
                let _ = writeln!(out, "  {name:12} {value}");
            }
        }
    }

    /// A line for each layout: tiers that run and how, the one chosen, and tiers this CPU lacks.
    fn kernel_table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nKernels: layout, tiers that run here [the one that is chosen], (tiers this CPU lacks), and how they \
             get at\n  the weights for one token. direct: as the bytes lie; lookup: sums from tables, by the bytes \
             as they lie;\n  strips: turning 32 rows at a time, in cache, into the form of tm2; rows: unpacking \
             each. =avx2: with the\n  instructions of that lower tier, as its own bring the layout nothing. \
             Tables for many tokens: see tuning."
        );
        for of_layout in self.kernels.chunk_by(|a, b| a.layout == b.layout) {
            let tiers: Vec<String> = of_layout
                .iter()
                .map(|k| {
                    let Some(way) = &k.way else { return format!("({})", k.tier) };
                    let lower = k.falls_to.as_ref().map_or(String::new(), |tier| format!("={tier}"));
                    let text = format!("{}:{way}{lower}", k.tier);
                    if k.chosen { format!("[{text}]") } else { text }
                })
                .collect();
            let _ = writeln!(out, "  {:12} {}", of_layout[0].layout, tiers.join(" "));
        }
    }
}

fn limit_table(limits: &Limits, out: &mut String) {
    let mut threads: Vec<u32> = limits.f32.iter().map(|l| l.threads).collect();
    threads.dedup();
    let _ = write!(out, "\n{:24}", "Limits");
    for n in &threads {
        let _ = write!(out, "{:>14}", counted(*n, "thread"));
    }
    out.push('\n');
    let mut line = |name: String, values: Vec<Option<f64>>, unit: &str| {
        let _ = write!(out, "  {name:22}");
        for value in values {
            let _ = write!(out, "{:>14}", value.map_or_else(String::new, |v| format!("{v:.1}")));
        }
        let _ = writeln!(out, "  {unit}");
    };
    let mut levels: Vec<&str> = Vec::new();
    for read in &limits.read {
        if !levels.contains(&read.level.as_str()) {
            levels.push(&read.level);
        }
    }
    for level in levels {
        let of =
            |n: &u32| limits.read.iter().find(|r| r.level == level && r.threads == *n).map(|r| r.gb_per_s);
        line(format!("read {level}"), threads.iter().map(of).collect(), "GB/s");
    }
    let mut tiers: Vec<&str> = Vec::new();
    for peak in &limits.int8 {
        if !tiers.contains(&peak.tier.as_str()) {
            tiers.push(&peak.tier);
        }
    }
    for tier in tiers {
        let of =
            |n: &u32| limits.int8.iter().find(|l| l.tier == tier && l.threads == *n).map(|l| l.gmac_per_s);
        line(format!("int8 {tier}"), threads.iter().map(of).collect(), "10⁹ multiply-adds/s");
    }
    let of = |n: &u32| limits.f32.iter().find(|l| l.threads == *n).map(|l| l.gmac_per_s);
    line("f32".into(), threads.iter().map(of).collect(), "10⁹ multiply-adds/s");
    for sentence in &limits.method {
        let _ = writeln!(out, "  {sentence}");
    }
}
