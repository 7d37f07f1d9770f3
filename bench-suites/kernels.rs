//! Every kernel that this CPU has on the shapes of the 2B4T model and an odd one: bytes a second for
//! one token, multiply-adds a second for more, and either as a share of what the machine can do.
//!
//! `cargo bench --bench kernels -- 'avx2|tm2'` runs those that match.

mod common;

use common::{Rate, limits};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tritmark::speed::bound;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Packed};
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;
use tritmark_kernels::{Tier, Trits};

/// Rows and columns.
const SHAPES: [(usize, usize); 4] = [(2560, 2560), (6912, 2560), (2560, 6912), (1111, 2345)];
/// Tokens: one, the few of speculative decoding and of several users, and a prompt's.
const BATCHES: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 128, 512];

fn kernels(c: &mut Criterion) {
    let pool = Pool::new(1);
    let (environment, limits) = limits(1);
    for (rows, cols) in SHAPES {
        let trits = trits(rows, cols);
        for kernel in kernel::available().filter(|k| k.tier() != Tier::Scalar) {
            let Ok(packed) = Packed::pack(kernel.layout(), &trits) else { continue };
            let bytes = packed.bytes().len() as u64;
            // Weights that no cache holds, as in a model whose layers follow each other.
            let copies = (environment.beyond_caches() / 2).div_ceil(bytes);
            let mut matrices: Option<Vec<Matrix>> = None;
            for tokens in BATCHES {
                let mut group = c.benchmark_group(format!("{rows}x{cols}, {tokens} tokens"));
                group.sampling_mode(SamplingMode::Flat).sample_size(20);
                group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
                let macs = (rows * cols * tokens) as u64;
                group.throughput(match tokens {
                    1 => Throughput::Bytes(bytes),
                    _ => Throughput::Elements(macs),
                });
                let mut rate = Rate::default();
                group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                    // Packed only where the filter lets the kernel run.
                    let matrices = matrices.get_or_insert_with(|| {
                        let copy = || Packed::from_bytes(kernel.layout(), rows, cols, packed.bytes());
                        let copy = |_| Matrix::new(copy().expect("it was packed before"), 1.0, kernel);
                        (0..copies).map(copy).collect()
                    });
                    let mut x = Activations::new();
                    x.set_i8(tokens, cols, &(0..tokens * cols).map(|i| (i * 37) as i8).collect::<Vec<_>>());
                    let mut out = vec![0.0; tokens * rows];
                    let mut turn = matrices.iter().cycle();
                    let mut work = || matmul(&pool, &[turn.next().expect("endless")], &x, &mut [&mut out]);
                    b.iter_custom(|times| rate.time(times, &mut work));
                });
                let shape = (rows as u32, cols as u32, tokens as u32);
                let bound = bound::of_kernel(&limits, shape, bytes, bytes * copies, 1);
                rate.print(macs as f64, "GMAC/s", bytes as f64, bound);
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
