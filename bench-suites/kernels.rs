//! Every kernel that this CPU has on the shapes of the 2B4T model, as a share of what the machine can
//! do: bytes a second for one token, multiply-adds a second for many.
//!
//! `cargo bench --bench kernels -- 'avx2|tm2'` runs those that match.

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Packed};
use tritmark_kernels::limits;
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;
use tritmark_kernels::{Tier, Trits};

/// Rows and columns.
const SHAPES: [(usize, usize); 3] = [(2560, 2560), (6912, 2560), (2560, 6912)];
/// Tokens; one reads weights that no cache holds.
const BATCHES: [usize; 4] = [1, 4, 32, 128];
/// Bytes of weights that are read in turn for one token: more than the caches of common CPUs.
const COLD: usize = 128 << 20;

fn kernels(c: &mut Criterion) {
    let pool = Pool::new(1);
    println!("1 thread: {:.1} GB/s from memory", limits::read_bandwidth(&pool, COLD, 0.5) / 1e9);
    for tier in Tier::ALL {
        if let Some(peak) = limits::int8_peak(tier, &pool, 0.2) {
            println!("1 thread: {:.0} int8 GMAC/s by multiplying on {tier}", peak / 1e9);
        }
    }
    for (rows, cols) in SHAPES {
        let trits = trits(rows, cols);
        for kernel in kernel::available().filter(|k| k.tier() != Tier::Scalar) {
            let Ok(packed) = Packed::pack(kernel.layout(), &trits) else { continue };
            let bytes = packed.bytes().len();
            let copies = COLD.div_ceil(bytes);
            let mut matrices: Option<Vec<Matrix>> = None;
            for tokens in BATCHES {
                let mut group = c.benchmark_group(format!("{rows}x{cols}, {tokens} tokens"));
                group.sampling_mode(SamplingMode::Flat).sample_size(20);
                group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
                group.throughput(match tokens {
                    1 => Throughput::Bytes(bytes as u64),
                    _ => Throughput::Elements((rows * cols * tokens) as u64),
                });
                group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                    // Packed only where the filter lets the kernel run.
                    let matrices = matrices.get_or_insert_with(|| {
                        let pack = || Packed::pack(kernel.layout(), &trits).expect("it was packed before");
                        (0..copies).map(|_| Matrix::new(pack(), 1.0, kernel)).collect()
                    });
                    let used = if tokens == 1 { copies } else { 1 };
                    let mut x = Activations::new();
                    x.set_i8(tokens, cols, &(0..tokens * cols).map(|i| (i * 37) as i8).collect::<Vec<_>>());
                    let mut out = vec![0.0; tokens * rows];
                    let mut turn = matrices[..used].iter().cycle();
                    b.iter(|| matmul(&pool, &[turn.next().expect("endless")], &x, &mut [&mut out]));
                });
                group.finish();
            }
        }
    }
}

/// Weights of which 42 % are zero, as in trained models.
fn trits(rows: usize, cols: usize) -> Trits {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut trit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state >> 32 & 0xff {
            0..107 => 0,
            107..182 => 1,
            _ => -1,
        }
    };
    Trits::new(rows, cols, (0..rows * cols).map(|_| trit()).collect()).expect("trits in the right number")
}

criterion_group!(benches, kernels);
criterion_main!(benches);
