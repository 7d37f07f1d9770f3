//! Fixed loads that no change of ours touches, timed beside the arms.
//!
//! They are plain Rust on purpose: whatever the kernels become, these stay what they are.

use super::protocol::ControlSpec;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;
use tritmark_kernels::pool::Pool;

/// About how long a control runs.
const SECONDS: f64 = 0.03;

/// Parts of that time, the fastest of which counts on its own too.
const PARTS: usize = 8;

/// Numbers that a thread computes on, which any first cache holds.
const WORDS: usize = 2048;

/// The controls `read` (GB/s over `bytes` bytes) and `compute` (10⁹ multiply-adds/s) for a number of
/// threads.
pub fn controls(threads: u32, bytes: u64) -> [ControlSpec<'static>; 2] {
    let pool = Rc::new(Pool::new(threads as usize));
    let workers = threads as usize;
    let memory = vec![1u64; (bytes as usize / 8).max(workers)];
    let part = memory.len() / workers;
    let read = repeated(pool.clone(), (part * workers * 8) as f64, move |worker, times| {
        for _ in 0..times {
            black_box(black_box(&memory[worker * part..][..part]).iter().fold(0u64, |a, &b| a ^ b));
        }
    });
    let compute = repeated(pool, (WORDS * workers) as f64, |worker, times| {
        let mut words = [worker as u32; WORDS];
        for _ in 0..times {
            for word in black_box(&mut words) {
                *word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            }
        }
        black_box(&words);
    });
    [
        ControlSpec { name: "read", threads, run: Box::new(read) },
        ControlSpec { name: "compute", threads, run: Box::new(compute) },
    ]
}

/// Runs `work` [`PARTS`] times as often as took a part of [`SECONDS`] at the first call, `unit` units
/// each time, and gives 10⁹ units a second, of all parts together and of the fastest.
fn repeated(pool: Rc<Pool>, unit: f64, work: impl Fn(usize, usize) + Sync) -> impl FnMut() -> [f64; 2] {
    let seconds = move |times: usize| {
        let start = Instant::now();
        pool.run(&|worker| work(worker, times));
        start.elapsed().as_secs_f64()
    };
    let mut times = 0;
    move || {
        if times == 0 {
            times = 1;
            // The fastest of some: one that was interrupted would leave the load too small for good.
            let fastest = |times| [(); 3].map(|()| seconds(times)).into_iter().fold(f64::MAX, f64::min);
            while fastest(times) < SECONDS / (2 * PARTS) as f64 {
                times *= 2;
            }
        }
        let parts = [(); PARTS].map(|()| seconds(times));
        let rate = |seconds: f64| unit * times as f64 / seconds / 1e9;
        [rate(parts.iter().sum::<f64>() / PARTS as f64), rate(parts.into_iter().fold(f64::MAX, f64::min))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_give_rates_of_a_computer() {
        for threads in [1, 2] {
            for mut control in controls(threads, 1 << 20) {
                let [rate, best] = (control.run)();
                assert!((0.05..1e5).contains(&rate), "{} {threads}: {rate}", control.name);
                assert!((rate..1e5).contains(&best), "{} {threads}: {best}", control.name);
            }
        }
    }
}
