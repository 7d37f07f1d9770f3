//! Fixed loads that no change of ours touches, timed beside the arms.
//!
//! They are plain Rust on purpose: whatever the kernels become, these stay what they are.

use super::protocol::ControlSpec;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tritmark_kernels::pool::Pool;

/// About how long a control runs.
const SECONDS: f64 = 0.03;

/// Parts of that time, the fastest of which counts on its own too.
const PARTS: usize = 8;

/// Most numbers that a thread reads at a time. It goes on behind them the next time, so that no cache holds them.
const STEP: usize = 1 << 17;

/// Numbers that a thread computes on, which any first cache holds.
const WORDS: usize = 2048;

/// The controls `read` (GB/s, from `memory`) and `compute` (10⁹ multiply-adds/s) for a number of threads.
pub fn controls(threads: u32, memory: Arc<Vec<u64>>) -> [ControlSpec<'static>; 2] {
    let pool = Pool::shared(threads as usize);
    let workers = threads as usize;
    let step = STEP.min(memory.len() / workers);
    assert!(step > 0, "memory to read for each thread");
    let steps = memory.len() / step / workers;
    let next: Vec<_> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
    let read = repeated(pool.clone(), (8 * step * workers) as f64, move |worker, times| {
        let first = next[worker].load(Ordering::Relaxed);
        for at in first..first + times {
            let numbers = &memory[(worker * steps + at % steps) * step..][..step];
            black_box(black_box(numbers).iter().fold(0u64, |a, &b| a ^ b));
        }
        next[worker].store((first + times) % steps, Ordering::Relaxed);
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
fn repeated(pool: Arc<Pool>, unit: f64, work: impl Fn(usize, usize) + Sync) -> impl FnMut() -> [f64; 2] {
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

/// How long [`handoff`] looks for its fastest stretch.
const HANDOFF: Duration = Duration::from_millis(4);

/// How long it waits for a stretch at all, where others hold the CPUs.
const HANDOFF_LIMIT: Duration = Duration::from_millis(50);

/// A cache line, and the one that is fetched with it, for a counter that two threads hand each other.
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Ends the thread that answers.
    const STOP: u64 = u64::MAX;

    /// Exchanges of a stretch.
    const STRETCH: u32 = 64;

    /// Time of a stretch of exchanges, unless something came between.
    fn stretch(&self) -> Option<Duration> {
        /// Exchanges after which it is seen whether something did.
        const STEP: u32 = 8;
        /// Longer than eight exchanges between any two cores.
        const INTERRUPTED: Duration = Duration::from_micros(100);
        let start = Instant::now();
        for step in 1..=Self::STRETCH / STEP {
            (0..STEP).for_each(|_| self.exchange());
            if start.elapsed() > INTERRUPTED * step {
                return None;
            }
        }
        Some(start.elapsed())
    }

    /// Hands the line over and waits for it to come back.
    fn exchange(&self) {
        let next = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(next, Ordering::Release);
        self.wait_while(|v| v == next);
    }

    /// Hands the line back each time it comes, until it is to stop.
    fn answer(&self) {
        loop {
            match self.wait_while(|v| v % 2 == 0) {
                Self::STOP => return,
                value => self.0.store(value + 1, Ordering::Release),
            }
        }
    }

    fn wait_while(&self, same: impl Fn(u64) -> bool) -> u64 {
        let mut looks = 0u32;
        loop {
            let value = self.0.load(Ordering::Acquire);
            if !same(value) {
                return value;
            }
            looks += 1;
            // Whoever is waited for may need this CPU.
            if looks.is_multiple_of(10_000) { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// How fast threads hand each other a cache line: 10⁶ hand-overs a second between one thread and each
/// of the others in turn, at the fastest stretch of some microseconds with each. It tells cores that
/// share a cache from cores that do not, between which a virtual machine moves within seconds; the
/// threads are its own, so that no pool has a share in it. `None` for one thread, for more than there are
/// CPUs, and where other programs held these so that there was no such stretch.
pub fn handoff(threads: u32) -> Option<f64> {
    let cpus = tritmark_kernels::pool::cpus();
    if !(2..=cpus).contains(&(threads as usize)) {
        return None;
    }
    let lines: Vec<Line> = (1..threads).map(|_| Line(AtomicU64::new(0))).collect();
    thread::scope(|scope| {
        let answer = |line| thread::Builder::new().spawn_scoped(scope, move || Line::answer(line)).is_ok();
        let fastest = lines.iter().all(answer).then(|| {
            let start = Instant::now();
            let mut fastest: Vec<Option<Duration>> = vec![None; lines.len()];
            while start.elapsed() < HANDOFF || fastest.contains(&None) && start.elapsed() < HANDOFF_LIMIT {
                for (line, fastest) in lines.iter().zip(&mut fastest) {
                    *fastest = line.stretch().into_iter().chain(*fastest).min();
                }
            }
            fastest
        });
        lines.iter().for_each(|line| line.0.store(Line::STOP, Ordering::Release));
        let seconds = fastest?.into_iter().try_fold(Duration::ZERO, |sum, time| Some(sum + time?))?;
        Some(2.0 * f64::from(Line::STRETCH) * lines.len() as f64 / seconds.as_secs_f64() / 1e6)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_overs_take_two_threads_and_a_cpu_each() {
        assert_eq!((handoff(1), handoff(1 << 20)), (None, None));
        let cpus = tritmark_kernels::pool::cpus() as u32;
        for threads in 2..=cpus.min(4) {
            // Other tests may hold the CPUs all the while.
            let rate = (0..50).find_map(|_| handoff(threads)).unwrap();
            assert!((0.01..1e4).contains(&rate), "{threads}: {rate}");
        }
    }

    #[test]
    fn controls_give_rates_of_a_computer() {
        for threads in [1, 2] {
            for mut control in controls(threads, Arc::new(vec![1; 1 << 17])) {
                let [rate, best] = (control.run)();
                assert!((1e-3..1e5).contains(&rate), "{} {threads}: {rate}", control.name);
                assert!((rate..1e5).contains(&best), "{} {threads}: {best}", control.name);
            }
        }
    }
}
