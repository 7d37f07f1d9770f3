//! What this machine can do at most, measured: the bounds that speeds are held against.
//!
//! Each loop does nothing but the one thing it measures. A figure is the best of many short passes
//! over all threads of the pool, because a bound that something else held back would be none.

use crate::buffer::Buffer;
use crate::pool::Pool;
use crate::tier::{Tier, prefetch, prefetch_l2};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A pass takes this long to twice as long: long against starting the threads, short against disturbances.
const PASS: Duration = Duration::from_millis(4);

/// Most bytes of a working set that are read without looking at the clock.
const STEP: usize = 1 << 20;

/// A working set to read. Choose it well above the last-level cache for memory, or to fit in a cache.
pub struct WorkingSet(Buffer);

impl WorkingSet {
    /// Of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let mut buffer = Buffer::new(bytes);
        // Pages exist only once they are written.
        buffer.bytes_mut().fill(1);
        Self(buffer)
    }

    /// Bytes a second that all threads of the pool read together, each its own part, for about `seconds`.
    ///
    /// # Panics
    /// If there are not at least 64 bytes for each thread.
    pub fn bandwidth(&self, pool: &Pool, seconds: f64) -> f64 {
        let part = self.0.bytes().len() / pool.threads() / 64 * 64;
        assert!(part > 0, "64 bytes or more for each thread");
        let step = part.min(STEP);
        let parts: Vec<_> = self.0.bytes().chunks_exact(part).map(|part| part.chunks_exact(step)).collect();
        let next: Vec<_> = parts.iter().map(|_| AtomicUsize::new(0)).collect();
        // Memory is read fastest by asking the second-level cache for it, caches by asking the first.
        [read::<false>, read::<true>]
            .map(|read| {
                best_rate(pool, seconds / 2.0, step as f64, &|worker, times| {
                    // From where the last pass ended, so that passes are short and a cache holds none of a large set.
                    let mut steps = parts[worker].clone().cycle().skip(next[worker].load(Relaxed));
                    for step in steps.by_ref().take(times) {
                        black_box(read(black_box(step)));
                    }
                    next[worker].store((next[worker].load(Relaxed) + times) % parts[worker].len(), Relaxed);
                })
            })
            .into_iter()
            .fold(0.0, f64::max)
    }
}

/// int8 multiply-adds a second of all threads of the pool together, with the tier's multiply
/// instruction on registers, for about `seconds`. `None` where this CPU does not have the tier or the
/// tier has no such loop.
pub fn int8_peak(tier: Tier, pool: &Pool, seconds: f64) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let peak = crate::tier::x86_64::peak(tier)?;
        Some(best_rate(pool, seconds, peak.macs(), &|_, times| peak.run(times)))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (tier, pool, seconds);
        None
    }
}

/// f32 multiply-adds a second of all threads of the pool together, with the widest vectors of this
/// CPU on registers, for about `seconds`.
pub fn f32_peak(pool: &Pool, seconds: f64) -> f64 {
    let macs = (FMA_STEPS * fma_lanes()) as f64;
    best_rate(pool, seconds, macs, &|_, times| {
        for _ in 0..times {
            black_box(multiply_add(black_box(0.5), black_box(0.25)));
        }
    })
}

/// The best rate of several passes, in units a second; `work(worker, times)` does `times` times `unit`
/// units.
fn best_rate(pool: &Pool, seconds: f64, unit: f64, work: &(dyn Fn(usize, usize) + Sync)) -> f64 {
    let mut best = 0.0f64;
    let mut pass = |times: usize| {
        let start = Instant::now();
        pool.run(&|worker| work(worker, times));
        let took = start.elapsed();
        best = best.max(times as f64 / took.as_secs_f64());
        took
    };
    let start = Instant::now();
    let mut times = 1;
    // To twice the length, as a short pass that was held up would pass for one that is long enough.
    while pass(times) < 2 * PASS {
        times *= 2;
    }
    let times = times.div_ceil(2);
    pass(times);
    pass(times);
    while start.elapsed().as_secs_f64() < seconds {
        pass(times);
    }
    unit * pool.threads() as f64 * best
}

/// Bytes that [`read`] takes at a time, in independent sums.
const READ: usize = 256;

/// Reads all of a slice of whole lines, which the first-level cache is asked for ahead, or `L2` the second.
fn read<const L2: bool>(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if Tier::Avx512.is_available() {
            #[target_feature(enable = "avx512f,avx512bw")]
            fn wide<const L2: bool>(bytes: &[u8]) -> u64 {
                read_body::<L2>(bytes)
            }
            // SAFETY: the CPU has the tier.
            return unsafe { wide::<L2>(bytes) };
        }
        if Tier::Avx2.is_available() {
            #[target_feature(enable = "avx2")]
            fn wide<const L2: bool>(bytes: &[u8]) -> u64 {
                read_body::<L2>(bytes)
            }
            // SAFETY: the CPU has the tier.
            return unsafe { wide::<L2>(bytes) };
        }
    }
    read_body::<L2>(bytes)
}

/// The loop of [`read`], inlined into functions compiled for wider vectors.
#[inline(always)]
fn read_body<const L2: bool>(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; READ / 8];
    let (blocks, rest) = bytes.as_chunks::<READ>();
    for block in blocks {
        for line in 0..READ / 64 {
            let line = block.as_ptr().wrapping_add(64 * line);
            if L2 {
                prefetch_l2(line.wrapping_add(AHEAD_L2));
            } else {
                prefetch(line.wrapping_add(AHEAD));
            }
        }
        for (sum, word) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
            *sum ^= u64::from_ne_bytes(*word);
        }
    }
    let rest = rest.iter().fold(0, |a, &b| a ^ u64::from(b));
    sums.iter().fold(rest, |a, b| a ^ b)
}

/// How far ahead the first-level cache is asked: the hardware alone does not keep enough reads under way.
const AHEAD: usize = 8192;
/// The same of the second-level cache.
const AHEAD_L2: usize = 4096;

const FMA_STEPS: usize = 1024;
/// Independent vector sums: more than the latency of an instruction times those issued in a cycle, and
/// few enough for the registers.
const FMA_CHAINS: usize = 12;

/// Multiply-adds of a step of [`multiply_add`].
fn fma_lanes() -> usize {
    let vector = if Tier::Avx512.is_available() {
        16
    } else if Tier::Avx2.is_available() {
        8
    } else {
        4
    };
    FMA_CHAINS * vector
}

/// `FMA_STEPS` steps of [`fma_lanes`] multiply-adds.
fn multiply_add(a: f32, b: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if Tier::Avx512.is_available() {
            #[target_feature(enable = "avx512f,avx512bw,fma")]
            fn wide(a: f32, b: f32) -> f32 {
                multiply_add_body::<{ FMA_CHAINS * 16 }, true>(a, b)
            }
            // SAFETY: the CPU has the tier, which includes FMA.
            return unsafe { wide(a, b) };
        }
        if Tier::Avx2.is_available() {
            #[target_feature(enable = "avx2,fma")]
            fn wide(a: f32, b: f32) -> f32 {
                multiply_add_body::<{ FMA_CHAINS * 8 }, true>(a, b)
            }
            // SAFETY: the CPU has the tier, which includes FMA.
            return unsafe { wide(a, b) };
        }
    }
    // On x86-64 `mul_add` without the instruction is a call.
    multiply_add_body::<{ FMA_CHAINS * 4 }, { cfg!(target_arch = "aarch64") }>(a, b)
}

/// The loop of [`multiply_add`], inlined into functions compiled for wider vectors.
#[inline(always)]
fn multiply_add_body<const LANES: usize, const FUSED: bool>(a: f32, b: f32) -> f32 {
    let mut sums = black_box([0.0f32; LANES]);
    for _ in 0..FMA_STEPS {
        for lane in &mut sums {
            *lane = if FUSED { lane.mul_add(a, b) } else { *lane * a + b };
        }
    }
    black_box(sums)[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn figures_are_those_of_a_computer() {
        // An emulated and busy one as well.
        const POSSIBLE: std::ops::Range<f64> = 1e6..1e13;
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let bandwidth = WorkingSet::new(1 << 22).bandwidth(&pool, 0.02);
            assert!(POSSIBLE.contains(&bandwidth), "{bandwidth} bytes/s");
            let f32s = f32_peak(&pool, 0.02);
            assert!(POSSIBLE.contains(&f32s), "{f32s} multiply-adds/s");
            for tier in Tier::ALL {
                let peak = int8_peak(tier, &pool, 0.02);
                assert!(peak.is_none() || tier.is_available(), "{tier}");
                assert!(peak.is_none_or(|p| POSSIBLE.contains(&p)), "{tier}: {peak:?}");
            }
        }
    }
}
