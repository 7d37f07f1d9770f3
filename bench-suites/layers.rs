//! Blocks of a transformer at the shape of the 2B4T model, with attention, norms and quantisation around
//! the products: what is left of the kernels' speed.
//!
//! `cargo bench --bench layers -- tm2` runs those that match.

mod common;

use common::{Rate, limits};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tritmark::checkpoint::Checkpoint;
use tritmark::model::{Head, LoadOptions, Logits, Model};
use tritmark::record::Test;
use tritmark::speed::bound::{self, Cost};
use tritmark::synth;
use tritmark_kernels::{Tier, kernel};

/// Blocks: together beyond most caches.
const BLOCKS: usize = 4;
/// Tokens at once.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 128, 512];

fn layers(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (_, limits) = limits(threads as u32);
    let mut config = synth::preset("2b4t").expect("a known preset");
    // Nothing but the blocks counts: no logits are asked for.
    (config.layers, config.vocab) = (BLOCKS, 256);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("blocks");
    synth::write(&config, 0.42, 1, &path).expect("a synthetic model");
    let checkpoint = Checkpoint::open(path.to_str().expect("a plain path")).expect("it was just written");
    for tier in Tier::ALL.into_iter().filter(|t| t.is_available() && *t != Tier::Scalar) {
        let layout = kernel::own_layout(Some(tier)).name();
        let options =
            LoadOptions { layout: Some(layout.into()), tier: Some(tier), threads, head: Head::AsIs };
        let mut model = None;
        for tokens in BATCHES {
            let mut group = c.benchmark_group(format!("{BLOCKS} blocks, {tokens} tokens"));
            group.sampling_mode(SamplingMode::Flat).sample_size(20);
            group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
            group.throughput(Throughput::Elements(tokens as u64));
            let mut rate = Rate::default();
            group.bench_function(BenchmarkId::from_parameter(format!("{layout}/{tier}")), |b| {
                // Loaded only where the filter lets the kernel run.
                let model =
                    model.get_or_insert_with(|| Model::load(&checkpoint, &options).expect("a whole model"));
                let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 37 % 256).collect();
                let mut cache = model.new_cache(tokens);
                b.iter_custom(|times| {
                    rate.time(times, &mut || {
                        cache.truncate(0);
                        model.forward(&mut cache, &ids, Logits::None).expect("room in the cache");
                    })
                });
            });
            if let Some(model) = &model {
                let bytes = model.bytes().0;
                let cost = Cost::new(&config, bytes, false);
                let (prompt, generate) = if tokens == 1 { (0, 1) } else { (tokens as u32, 0) };
                let bound = bound::of_model(
                    &limits,
                    &cost,
                    &Test::Model { prompt, generate, depth: 0 },
                    threads as u32,
                );
                // The bound is in tokens.
                let bound = bound.map(|bound| tritmark::record::Bound {
                    value: bound.value * cost.macs as f64 / 1e9,
                    ..bound
                });
                rate.print((tokens as u64 * cost.macs) as f64, "GMAC/s", bytes as f64, bound);
            }
            group.finish();
        }
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
