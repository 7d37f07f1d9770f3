//! What the machine's measured limits allow for a test.

use crate::checkpoint::config::ModelConfig;
use crate::machine::Limits;
use crate::record::{Bound, Test};
use crate::words::counted;

/// What of a model costs time, independent of how well it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Bytes that one decoded token reads beside the cache of keys and values.
    pub bytes: u64,
    /// Multiply-adds of a token in the blocks' matrices.
    pub macs: u64,
    /// Bytes that a token reads of the cache for each position before it.
    pub bytes_per_position: u64,
    /// Whether the matrices are multiplied as f32.
    pub float: bool,
}

impl Cost {
    /// Of a model with so many bytes read a token.
    pub fn new(config: &ModelConfig, bytes: u64, float: bool) -> Self {
        // Keys and values, f32.
        let cache = 2 * config.layers * config.kv_heads * config.head_dim * 4;
        Self { bytes, macs: config.linear_params(), bytes_per_position: cache as u64, float }
    }
}

/// The bound of a test of a whole model in tokens a second; `None` where its limits were not
/// measured.
pub fn of_model(limits: &Limits, cost: &Cost, test: &Test, threads: u32) -> Option<Bound> {
    let &Test::Model { prompt, generate, depth } = test else { return None };
    let mut seconds = 0.0;
    let mut memory = false;
    let mut how = Vec::new();
    if prompt > 0 {
        let peak = if cost.float { limits.f32(threads)? } else { limits.int8(threads)? };
        seconds += f64::from(prompt) * cost.macs as f64 / (peak.gmac_per_s * 1e9);
        let kind = if cost.float { "f32" } else { "int8" };
        how.push(format!(
            "{:.1} 10⁹ multiply-adds/s ({kind}, {}, {}) ÷ {:.4} 10⁹ a token in the blocks' matrices",
            peak.gmac_per_s,
            peak.tier,
            counted(peak.threads, "thread"),
            cost.macs as f64 / 1e9
        ));
    }
    if generate > 0 {
        // The cache as it is half way through.
        let positions = u64::from(prompt) + u64::from(depth) + u64::from(generate) / 2;
        let bytes = cost.bytes + positions * cost.bytes_per_position;
        let read = limits.reading(bytes, threads)?;
        seconds += f64::from(generate) * bytes as f64 / (read.gb_per_s * 1e9);
        memory = read.level == "RAM";
        how.push(format!(
            "{:.1} GB/s ({}, {}) ÷ {:.2} MB read a token (weights, head, cache)",
            read.gb_per_s,
            read.level,
            counted(read.threads, "thread"),
            bytes as f64 / 1e6
        ));
    }
    let value = test.tokens()? as f64 / seconds;
    value.is_finite().then(|| Bound { value, how: how.join("; "), memory })
}

/// The bound of one matrix of `bytes` bytes by a batch, in 10⁹ multiply-adds a second, with all
/// weights read from a working set of `working_set` bytes.
pub fn of_kernel(
    limits: &Limits,
    (rows, cols, batch): (u32, u32, u32),
    bytes: u64,
    working_set: u64,
    threads: u32,
) -> Option<Bound> {
    let macs = f64::from(rows) * f64::from(cols) * f64::from(batch);
    let (read, peak) = (limits.reading(working_set, threads)?, limits.int8(threads)?);
    let by_memory = read.gb_per_s * macs / bytes as f64;
    Some(if by_memory < peak.gmac_per_s {
        let how = format!(
            "{:.1} GB/s ({}, {}) ÷ {bytes} bytes of weights for {macs:.3e} multiply-adds",
            read.gb_per_s,
            read.level,
            counted(read.threads, "thread")
        );
        Bound { value: by_memory, how, memory: read.level == "RAM" }
    } else {
        let how = format!("int8 peak ({}, {})", peak.tier, counted(peak.threads, "thread"));
        Bound { value: peak.gmac_per_s, how, memory: false }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{ComputeLimit, ReadLimit};

    fn limits() -> Limits {
        let peak = |gmac_per_s| vec![ComputeLimit { tier: "t".into(), threads: 2, gmac_per_s }];
        let read =
            |level: &str, bytes, gb_per_s| ReadLimit { level: level.into(), bytes, threads: 2, gb_per_s };
        Limits {
            read: vec![read("L3", 16 << 20, 100.0), read("RAM", 128 << 20, 40.0)],
            int8: peak(400.0),
            f32: peak(100.0),
            ..Limits::default()
        }
    }

    #[test]
    fn bounds_follow_from_the_limits() {
        let cost =
            Cost { bytes: 800_000_000, macs: 2_000_000_000, bytes_per_position: 100_000, float: false };
        let bound = |cost: &Cost, prompt, generate, depth| {
            of_model(&limits(), cost, &Test::Model { prompt, generate, depth }, 2).map(|b| b.value)
        };
        assert_eq!(bound(&cost, 512, 0, 0), Some(200.0));
        assert_eq!(bound(&Cost { float: true, ..cost.clone() }, 512, 0, 0), Some(50.0));
        // 800 MB + 2000 positions of 100 kB = 1 GB at 40 GB/s.
        assert_eq!(bound(&cost, 0, 128, 1936), Some(40.0));
        // 100 tokens at 200/s and 100 at 40e9 / 815e6.
        let mixed = bound(&cost, 100, 100, 0).unwrap();
        assert!((mixed - 200.0 / (0.5 + 100.0 * 815e6 / 40e9)).abs() < 1e-9, "{mixed}");
        assert_eq!(of_model(&limits(), &cost, &Test::Model { prompt: 1, generate: 0, depth: 0 }, 3), None);
    }

    #[test]
    fn a_kernel_is_bound_by_memory_or_arithmetic() {
        let one = of_kernel(&limits(), (1000, 1000, 1), 250_000, 1 << 30, 2).unwrap();
        // 4 weights a byte at 40 GB/s.
        assert_eq!((one.value, one.memory), (160.0, true));
        let cached = of_kernel(&limits(), (1000, 1000, 1), 250_000, 250_000, 2).unwrap();
        assert_eq!((cached.value, cached.memory), (400.0, false));
        let many = of_kernel(&limits(), (1000, 1000, 64), 250_000, 1 << 30, 2).unwrap();
        assert_eq!(many.value, 400.0);
    }
}
