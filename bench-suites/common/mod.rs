//! What the benches share: the limits of the machine, and speeds as a share of them.

use std::time::{Duration, Instant};
use tritmark::machine::{Environment, Limits, Watch, tuning};
use tritmark::record::Bound;

/// The machine and its limits on some threads, which are printed.
pub fn limits(threads: u32) -> (Environment, Limits) {
    if let Some(reason) = tuning::use_stored() {
        println!("{reason}");
    }
    let environment = Watch::start().environment();
    println!("{}; tuning: {}", environment.cpu, tuning::in_use());
    let limits = Limits::measure(&environment, &[threads], Duration::from_millis(300), &mut |_, _, _| {});
    for read in &limits.read {
        println!("{threads} threads: {:.1} GB/s from {}", read.gb_per_s, read.level);
    }
    for peak in &limits.int8 {
        println!("{threads} threads: {:.0} int8 GMAC/s by multiplying on {}", peak.gmac_per_s, peak.tier);
    }
    (environment, limits)
}

/// Samples of one benchmark, for a line about the limit that criterion has no place for.
#[derive(Default)]
pub struct Rate {
    seconds: Vec<f64>,
}

impl Rate {
    /// Runs `work` so many times.
    pub fn time(&mut self, times: u64, work: &mut dyn FnMut()) -> Duration {
        let start = Instant::now();
        for _ in 0..times {
            work();
        }
        let elapsed = start.elapsed();
        self.seconds.push(elapsed.as_secs_f64() / times as f64);
        elapsed
    }

    /// Prints the median as 10⁹ units a second, the weights read by that, and the share of the bound, if
    /// the benchmark ran.
    pub fn print(mut self, work: f64, unit: &str, bytes: f64, bound: Option<Bound>) {
        self.seconds.sort_by(f64::total_cmp);
        let Some(median) = self.seconds.get(self.seconds.len() / 2) else { return };
        let speed = work / median / 1e9;
        let gb = bytes / median / 1e9;
        match bound {
            Some(bound) => println!(
                "{:24}{speed:.1} {unit}, {gb:.1} GB/s of weights: {:.0} % of {}",
                "",
                100.0 * speed / bound.value,
                bound.how
            ),
            None => println!("{:24}{speed:.1} {unit}, {gb:.1} GB/s of weights", ""),
        }
    }
}
