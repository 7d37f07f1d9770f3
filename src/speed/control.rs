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

/// Runs `work` as often as took [`SECONDS`] at the first call, `unit` units each time, and gives 10⁹
/// units a second.
fn repeated(pool: Rc<Pool>, unit: f64, work: impl Fn(usize, usize) + Sync) -> impl FnMut() -> f64 {
    let seconds = move |times: usize| {
        let start = Instant::now();
        pool.run(&|worker| work(worker, times));
        start.elapsed().as_secs_f64()
    };
    let mut times = 0;
    move || {
        if times == 0 {
            times = 1;
            while seconds(times) < SECONDS / 2.0 {
                times *= 2;
            }
        }
        unit * times as f64 / seconds(times) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_give_rates_of_a_computer() {
        for threads in [1, 2] {
            for mut control in controls(threads, 1 << 20) {
                let rate = (control.run)();
                assert!((0.05..1e5).contains(&rate), "{} {threads}: {rate}", control.name);
            }
        }
    }
}
