//! Measuring what the machine can do at most, and where a working set of some size lies.

use super::{ComputeLimit, CpuTimes, Environment, Limits, ReadLimit};
use crate::words::counted;
use std::path::Path;
use std::time::Duration;
use tritmark_kernels::Tier;
use tritmark_kernels::limits::{self, WorkingSet};
use tritmark_kernels::pool::Pool;

/// Working set for memory where the last-level cache is not known.
const UNKNOWN_CACHE: u64 = 64 << 20;

/// Most bytes to read for the figure of memory.
const MOST: u64 = 1 << 30;

/// How long a further look at memory takes, for each number of threads.
const LOOK: Duration = Duration::from_millis(20);

/// What stands in sentences on figures that contradict each other.
const IMPOSSIBLE: &str = "which cannot be";

/// That there were such looks.
const AGAIN: &str = "RAM: the best of the first measurement and of a look before each round of tests; bounds are those \
                     known when an arm was finished.";

impl Environment {
    /// Bytes of the largest data cache of `level` (1, 2, …), one core's or the shared one's.
    pub fn cache(&self, level: u32) -> Option<u64> {
        let names = [format!("L{level}"), format!("L{level}d")];
        self.caches.iter().filter(|c| names.contains(&c.0)).map(|c| c.1).max()
    }

    /// Bytes of a working set of which no cache holds much: a set of four times the last one was read a fifth faster
    /// than memory on a Zen 4, whose cache keeps a part of what it has no room for.
    pub fn beyond_caches(&self) -> u64 {
        let last = (1..=4).rev().find_map(|level| self.cache(level)).unwrap_or(UNKNOWN_CACHE / 16);
        (16 * last).clamp(UNKNOWN_CACHE, MOST)
    }

    /// Working sets to read, by level: half of a cache, so that it stays in there.
    fn levels(&self, threads: u32) -> Vec<(String, u64)> {
        let mut levels = Vec::new();
        for level in 1..=4 {
            let Some(cache) = self.cache(level) else { continue };
            // The first two belong to a core, the further ones to all.
            let all = if level <= 2 { cache * u64::from(threads) } else { cache };
            levels.push((format!("L{level}"), all / 2));
        }
        levels.push(("RAM".into(), self.beyond_caches()));
        levels
    }
}

impl Limits {
    /// Measures reading from each level of memory, int8 multiply-adds of each tier and f32
    /// multiply-adds, for each number of threads, with `each` as time for a figure. `step` hears
    /// what comes next and of how many.
    pub fn measure(
        env: &Environment,
        threads: &[u32],
        each: Duration,
        step: &mut dyn FnMut(usize, usize, &str),
    ) -> Self {
        let tiers: Vec<Tier> = Tier::ALL.into_iter().filter(|t| t.is_available()).collect();
        let total = threads.len() * (env.levels(1).len() + tiers.len() + 1);
        let mut done = 0;
        let mut next = |what: &str| {
            step(done, total, what);
            done += 1;
        };
        let seconds = each.as_secs_f64();
        let before = CpuTimes::read(Path::new("/"));
        let mut found = Limits::default();
        for &threads in threads {
            let pool = Pool::shared(threads as usize);
            for (level, bytes) in env.levels(threads) {
                next(&format!("{level}, {}", counted(threads, "thread")));
                let gb_per_s = WorkingSet::new(bytes as usize).bandwidth(&pool, seconds) / 1e9;
                found.read.push(ReadLimit { level, bytes, threads, gb_per_s });
            }
            for tier in &tiers {
                next(&format!("{tier}, {}", counted(threads, "thread")));
                if let Some(rate) = limits::int8_peak(*tier, &pool, seconds) {
                    found.int8.push(ComputeLimit { tier: tier.to_string(), threads, gmac_per_s: rate / 1e9 });
                }
            }
            next(&format!("f32, {}", counted(threads, "thread")));
            let gmac_per_s = limits::f32_peak(&pool, seconds) / 1e9;
            found.f32.push(ComputeLimit { tier: "widest vectors".into(), threads, gmac_per_s });
        }
        found.method = vec![
            format!(
                "Each figure is the best of many passes of 4 to 8 ms within {:.0} ms: a bound that something else held \
                 back would be none.",
                1e3 * seconds
            ),
            "Reading: every thread sums its own part of the working set, for half of the time with the first-level \
             cache asked for it ahead and for half with the second; the better counts. Sets are half of a cache, \
             and for RAM sixteen times the last one (64 MB at least, 1 GB at most)."
                .into(),
            "int8: the tier's own multiply-add instructions on registers, of which the scalar tier has none. f32: fused multiply-adds on registers.".into(),
        ];
        found.method.extend(found.impossible());
        let others =
            CpuTimes::read(Path::new("/")).zip(before).and_then(|(end, start)| end.since(&start).others());
        if let Some(share) = others.filter(|s| *s > 0.05) {
            found.method.push(format!(
                "Other programs used {:.0} % of the CPUs meanwhile, so these limits may be too low.",
                100.0 * share
            ));
        }
        found
    }

    /// Looks at how fast memory is read once more, and keeps what is faster: a virtual machine moves between
    /// cores that share a way to memory and cores that do not, and a bound must hold wherever it was.
    /// `memory` is kept from look to look.
    pub fn look_again(&mut self, memory: &mut Option<WorkingSet>) {
        for read in self.read.iter_mut().filter(|read| read.level == "RAM") {
            // The same size for all numbers of threads.
            let memory = memory.get_or_insert_with(|| WorkingSet::new(read.bytes as usize));
            let pool = Pool::shared(read.threads as usize);
            let look = memory.bandwidth(&pool, LOOK.as_secs_f64()) / 1e9;
            read.gb_per_s = read.gb_per_s.max(look);
            match self.slowest.iter_mut().find(|(threads, _)| *threads == read.threads) {
                Some((_, least)) => *least = least.min(look),
                None => self.slowest.push((read.threads, look)),
            }
        }
        // What could not be may have come right, and the other way round.
        self.method.retain(|sentence| sentence != AGAIN && !sentence.contains(IMPOSSIBLE));
        self.method.push(AGAIN.into());
        self.method.extend(self.impossible());
    }

    /// Sentences on memory that was read much faster at one time than at another.
    pub fn unsteady(&self) -> Vec<String> {
        /// Best over slowest look from which on shares of a bound mislead.
        const MUCH: f64 = 1.25;
        let ram = self.read.iter().filter(|read| read.level == "RAM");
        let looks = ram.filter_map(|read| {
            let (_, least) = self.slowest.iter().find(|(threads, _)| *threads == read.threads)?;
            (read.gb_per_s > MUCH * least).then(|| {
                format!(
                    "{} read memory at {least:.1} to {:.1} GB/s from look to look (other programs, or a virtual machine \
                     that moves between cores that share a way to memory and cores that do not). A bound is of \
                     the best look until its arm was measured, so shares of it are low for what met slower memory.",
                    counted(read.threads, "thread"),
                    read.gb_per_s
                )
            })
        });
        looks.collect()
    }

    /// Figures that cannot be: a cache that is slower than what lies behind it, or more threads that
    /// do less than fewer. Full sentences with advice.
    fn impossible(&self) -> Vec<String> {
        const LESS: f64 = 0.9;
        let advice = "something else held it back; stop other programs and measure again";
        let mut found = Vec::new();
        for pair in self.read.windows(2).filter(|p| p[0].threads == p[1].threads) {
            if pair[0].gb_per_s < LESS * pair[1].gb_per_s {
                found.push(format!(
                    "{} reads slower than {} with {}, {IMPOSSIBLE}: {advice}.",
                    pair[0].level,
                    pair[1].level,
                    counted(pair[0].threads, "thread")
                ));
            }
        }
        for read in &self.read {
            let fewer = self.read.iter().filter(|r| r.level == read.level && r.threads < read.threads);
            let best = fewer.map(|r| r.gb_per_s).reduce(f64::max);
            if best.is_some_and(|best| read.gb_per_s < LESS * best) {
                found.push(format!(
                    "{} threads read {} slower than fewer, {IMPOSSIBLE} where each has a core: {advice}.",
                    read.threads, read.level
                ));
            }
        }
        let peaks = self.int8.iter().chain(&self.f32);
        let fewer = |more: &ComputeLimit| {
            let of_tier = |l: &&ComputeLimit| l.tier == more.tier && l.threads < more.threads;
            peaks.clone().filter(of_tier).map(|l| l.gmac_per_s).reduce(f64::max)
        };
        for peak in peaks.clone() {
            if fewer(peak).is_some_and(|best| peak.gmac_per_s < LESS * best) {
                found.push(format!(
                    "{} threads multiply slower than fewer with {}, {IMPOSSIBLE} where each has a core: {advice}.",
                    peak.threads, peak.tier
                ));
            }
        }
        found
    }

    /// How fast that many threads read what has `bytes`: the figure of the level that holds it, or of one behind it
    /// that was faster, since a cache holds nobody back.
    pub fn reading(&self, bytes: u64, threads: u32) -> Option<&ReadLimit> {
        let levels = self.read.iter().filter(|r| r.threads == threads);
        // Levels were measured at half their size, in order of size.
        let level = levels.clone().find(|r| r.level != "RAM" && bytes <= 2 * r.bytes);
        let level = level.or_else(|| levels.clone().find(|r| r.level == "RAM"))?;
        let behind = |r: &ReadLimit| r.level == level.level || r.bytes > level.bytes;
        let at_most = self.read.iter().filter(|r| behind(r) && r.threads <= threads);
        at_most.max_by(|a, b| a.gb_per_s.total_cmp(&b.gb_per_s))
    }

    /// The best int8 multiply-add rate of that many threads.
    pub fn int8(&self, threads: u32) -> Option<&ComputeLimit> {
        best(&self.int8, threads)
    }

    /// The f32 multiply-add rate of that many threads.
    pub fn f32(&self, threads: u32) -> Option<&ComputeLimit> {
        best(&self.f32, threads)
    }
}

/// What that many threads can do at most. What fewer did, they can do too: where they seemed slower, something held
/// them back.
fn best(limits: &[ComputeLimit], threads: u32) -> Option<&ComputeLimit> {
    limits.iter().find(|l| l.threads == threads)?;
    let at_most = limits.iter().filter(|l| l.threads <= threads);
    at_most.max_by(|a, b| a.gmac_per_s.total_cmp(&b.gmac_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_set_lies_in_the_first_level_that_holds_it() {
        let read = |level: &str, bytes, threads, gb_per_s| ReadLimit {
            level: level.into(),
            bytes,
            threads,
            gb_per_s,
        };
        let int8 = |tier: &str, threads, gmac_per_s| ComputeLimit { tier: tier.into(), threads, gmac_per_s };
        let limits = Limits {
            read: vec![
                read("L2", 1 << 20, 1, 200.0),
                read("L3", 16 << 20, 1, 90.0),
                read("RAM", 128 << 20, 1, 40.0),
                read("RAM", 128 << 20, 2, 48.0),
            ],
            int8: vec![int8("avx2", 1, 120.0), int8("avx512vnni", 1, 484.0), int8("avx2", 2, 240.0)],
            ..Limits::default()
        };
        assert_eq!(limits.reading(2 << 20, 1), Some(&limits.read[0]));
        assert_eq!(limits.reading((2 << 20) + 1, 1), Some(&limits.read[1]));
        assert_eq!(limits.reading(1 << 30, 1), Some(&limits.read[2]));
        assert_eq!(limits.reading(1 << 10, 2), Some(&limits.read[3]));
        assert_eq!(limits.reading(1, 3), None);
        assert_eq!(limits.int8(1), Some(&limits.int8[1]));
        // One thread alone did more.
        assert_eq!(limits.int8(2), Some(&limits.int8[1]));
        assert_eq!(limits.int8(3), None);
        assert!(limits.impossible().is_empty());
        let mut odd = limits;
        odd.read[0].gb_per_s = 50.0;
        odd.int8[2].gmac_per_s = 60.0;
        odd.read[3].gb_per_s = 30.0;
        assert_eq!(odd.reading(1 << 30, 2), Some(&odd.read[2]));
        // What lies in L2 is read as fast as from L3.
        assert_eq!(odd.reading(1 << 20, 1), Some(&odd.read[1]));
        let found = odd.impossible();
        assert!(found[0].starts_with("L2 reads slower than L3 with 1 thread,"), "{found:?}");
        assert!(found[1].starts_with("2 threads read RAM slower than fewer"), "{found:?}");
        assert!(found[2].starts_with("2 threads multiply slower than fewer with avx2"), "{found:?}");
        assert_eq!(found.len(), 3);
        assert!(odd.unsteady().is_empty());
        odd.slowest = vec![(1, 39.0), (2, 12.0)];
        let [said] = &odd.unsteady()[..] else { panic!("one of two is unsteady") };
        assert!(said.starts_with("2 threads read memory at 12.0 to 30.0 GB/s"), "{said}");
    }

    #[test]
    fn measured_limits_cover_every_level_and_tier() {
        let env = Environment {
            caches: vec![("L1d".into(), 32 << 10), ("L1i".into(), 64 << 10), ("L2".into(), 1 << 20)],
            ..Environment::default()
        };
        let mut steps = Vec::new();
        let limits = Limits::measure(&env, &[1], Duration::from_millis(5), &mut |done, total, _| {
            steps.push(done);
            assert!(done < total);
        });
        assert_eq!(limits.read.iter().map(|r| r.level.as_str()).collect::<Vec<_>>(), ["L1", "L2", "RAM"]);
        assert_eq!(limits.read[0].bytes, 16 << 10);
        assert!(limits.read.iter().all(|r| r.gb_per_s > 0.1) && limits.f32[0].gmac_per_s > 0.1);
        assert!(steps.windows(2).all(|w| w[1] == w[0] + 1));
    }
}
