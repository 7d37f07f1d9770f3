//! Logits, hidden states, embeddings and greedy texts of the fixtures: near to those that
//! transformers computed, and equal bit for bit over kernels, threads and batches. The candle reference is
//! held to the same.

mod common {
    pub mod expected;
    pub mod fixture;
    pub mod folders;
    pub mod logits;
}

use common::expected::json;
use common::fixture::{Fixture, open};
use common::logits::{check, f32s, ids};
use safetensors::SafeTensors;
use tritmark::Error;
use tritmark::checkpoint::Checkpoint;
use tritmark::model::sample::greatest;
use tritmark::model::{Head, LoadOptions, Logits, Model};
use tritmark_kernels::kernel;
use tritmark_kernels::tuning::Tuning;

const BEST: LoadOptions = LoadOptions { layout: None, tier: None, threads: 2, head: Head::AsIs };

/// Calls `f(name, checkpoint, expected, number of texts)` for each fixture that has logits.
fn for_each_fixture(mut f: impl FnMut(&Fixture, &Checkpoint, &SafeTensors, usize)) {
    let mut texts = 0;
    for fixture in Fixture::all() {
        let Ok(bytes) = std::fs::read(fixture.path().join("reference.safetensors")) else { continue };
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let count = (0..).take_while(|i| ids(&expected, &format!("ids_{i}")).is_some()).count();
        f(&fixture, &open(&fixture), &expected, count);
        texts += count;
    }
    assert!(texts > 0);
}

fn logits_of(model: &mut Model, ids: &[u32], batch: usize) -> Vec<f32> {
    let mut cache = model.new_cache(ids.len());
    let batches = ids.chunks(batch);
    batches.flat_map(|ids| model.forward(&mut cache, ids, Logits::From(0)).unwrap().to_vec()).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    for_each_fixture(|fixture, checkpoint, expected, texts| {
        let mut model = Model::load(checkpoint, &BEST).unwrap();
        for i in 0..texts {
            let ids = ids(expected, &format!("ids_{i}")).unwrap();
            let at = format!("{fixture}: text {i}");
            if let Some(logits) = f32s(expected, &format!("logits_{i}")) {
                check(&at, &logits_of(&mut model, &ids, usize::MAX), &logits, checkpoint.config.vocab);
                continue;
            }
            let hidden = f32s(expected, &format!("last_hidden_{i}")).expect("logits or hidden states");
            let mut cache = model.new_cache(ids.len());
            let found = model.hidden(&mut cache, &ids, Logits::From(0)).unwrap();
            check(&at, &found, &hidden, checkpoint.config.hidden);
            let embedding = f32s(expected, &format!("embedding_{i}")).expect("an embedding");
            let found = model.embed(&ids).unwrap();
            assert_eq!(found.len(), embedding.len(), "{at}");
            // Both have length 1, so the product is the cosine; see `check` on long texts.
            let cosine: f64 = found.iter().zip(&embedding).map(|(a, b)| f64::from(a * b)).sum();
            let least = if ids.len() <= 16 { 1.0 - 1e-6 } else { 0.999 };
            assert!((least..1.0 + 1e-6).contains(&cosine), "{at}: cosine of embeddings {cosine}");
        }
    });
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    let mut compared = 0;
    for_each_fixture(|fixture, checkpoint, expected, texts| {
        let info: serde_json::Value = json(fixture, "reference.json").unwrap();
        let mut model = Model::load(checkpoint, &BEST).unwrap();
        for i in 0..texts {
            let Some(greedy) = ids(expected, &format!("greedy_{i}")) else { continue };
            let margin = info["summary"]["sequence_info"][i]["greedy_tie_margin"].as_f64();
            if margin.is_none_or(|m| m < 1e-5) {
                continue;
            }
            let ids = ids(expected, &format!("ids_{i}")).unwrap();
            let mut cache = model.new_cache(ids.len() + greedy.len());
            let mut next = greatest(model.forward(&mut cache, &ids, Logits::Last).unwrap());
            let mut found = vec![next];
            while found.len() < greedy.len() {
                next = greatest(model.forward(&mut cache, &[next], Logits::Last).unwrap());
                found.push(next);
            }
            assert_eq!(found, greedy, "{fixture}: text {i}");
            compared += 1;
        }
    });
    assert!(compared > 0);
}

#[test]
fn logits_are_equal_over_kernels_threads_and_batches() {
    // All threads take part, however small the products are.
    Tuning { alone: 0, ..Tuning::default() }.apply();
    for_each_fixture(|fixture, checkpoint, expected, texts| {
        // Some twenty tokens are more than any tile; the longest text is for the real thing only.
        let texts: Vec<_> = (0..texts).map(|i| ids(expected, &format!("ids_{i}")).unwrap()).collect();
        let mut text = texts.concat();
        text.truncate(23);
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let mut law: Option<Vec<u32>> = None;
        let mut kernels = vec![];
        for kernel in kernel::available() {
            for (threads, batch) in [(1, usize::MAX), (2, 1), (3, 7)] {
                let options = LoadOptions {
                    layout: Some(kernel.layout().name().into()),
                    tier: Some(kernel.tier()),
                    threads,
                    head: Head::AsIs,
                };
                let mut model = match Model::load(checkpoint, &options) {
                    Ok(model) => model,
                    Err(Error::Usage(e)) if e.contains("cannot hold") => continue,
                    Err(e) => panic!("{fixture}: {}: {e}", kernel.name()),
                };
                let found = bits(logits_of(&mut model, &text, batch));
                let law = law.get_or_insert(found.clone());
                assert!(found == *law, "{fixture}: {} on {threads} threads by {batch}", kernel.name());
                kernels.push(model.kernel());
            }
        }
        kernels.dedup();
        assert!(kernels.contains(&"tm2/scalar".to_owned()), "{fixture}: {kernels:?}");
        println!("{fixture}: equal bits on {}", kernels.join(", "));
    });
}

#[test]
fn an_int8_head_reads_less_and_is_near() {
    let fixture = Fixture::all().into_iter().find(|f| f.path().ends_with("bitnet2b-packed")).unwrap();
    let checkpoint = open(&fixture);
    let mut model = Model::load(&checkpoint, &BEST).unwrap();
    let ids: Vec<u32> = (1..40).collect();
    let exact = logits_of(&mut model, &ids, usize::MAX);
    let (_, before) = model.bytes();
    let mut model = Model::load(&checkpoint, &LoadOptions { head: Head::Int8, ..BEST }).unwrap();
    assert_eq!(model.head_precision(), "int8");
    assert!(model.bytes().1 < before);
    let rounded = logits_of(&mut model, &ids, usize::MAX);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = dot(&exact, &rounded) / (dot(&exact, &exact) * dot(&rounded, &rounded)).sqrt();
    assert!(cosine > 0.98, "cosine of the logits {cosine}");
    assert_ne!(exact, rounded);
}

#[test]
fn what_cannot_run_says_why() {
    let fixture = Fixture::all().into_iter().find(|f| f.path().ends_with("bitnet2b-bf16-odd")).unwrap();
    let checkpoint = open(&fixture);
    let usage = |layout: &str| {
        let options = LoadOptions { layout: Some(layout.into()), ..BEST };
        match Model::load(&checkpoint, &options) {
            Err(Error::Usage(message)) => message,
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("{layout} must not load"),
        }
    };
    let odd = usage("tq2_0");
    assert!(odd.contains("model.layers.0.self_attn.q_proj.weight: tq2_0 cannot hold"), "{odd}");
    assert!(usage("tq9").contains("expected one of"));

    let mut model = Model::load(&checkpoint, &BEST).unwrap();
    let vocab = model.config().vocab as u32;
    let mut cache = model.new_cache(4);
    for (asked, rows) in [(Logits::From(0), 2), (Logits::Last, 1), (Logits::None, 0), (Logits::From(1), 1)] {
        cache.truncate(0);
        let logits = model.forward(&mut cache, &[1, 2], asked).unwrap();
        assert_eq!(logits.len(), rows * vocab as usize, "{asked:?}");
    }
    cache.truncate(0);
    let mut fails =
        |cache: &mut _, ids: &[u32]| model.forward(cache, ids, Logits::Last).unwrap_err().to_string();
    assert!(fails(&mut cache, &[1, vocab]).contains("vocabulary"));
    assert!(fails(&mut cache, &[1; 5]).contains("room for 4"));
    assert!(cache.is_empty(), "a refused text leaves no traces");
    let context = checkpoint.config.context;
    assert!(fails(&mut cache, &vec![1; context + 1]).contains(&format!("made for {context}")));
}

/// The candle reference.
#[cfg(feature = "reference")]
mod reference {
    use super::*;
    use tritmark::reference::{ActivationMode, Reference};

    #[test]
    fn logits_are_those_of_transformers() {
        for_each_fixture(|fixture, checkpoint, expected, texts| {
            let reference = Reference::load(checkpoint, ActivationMode::Int8).unwrap();
            for i in 0..texts {
                let ids = ids(expected, &format!("ids_{i}")).unwrap();
                let at = format!("{fixture}: text {i}");
                if let Some(logits) = f32s(expected, &format!("logits_{i}")) {
                    check(&at, &reference.logits(&ids).unwrap(), &logits, checkpoint.config.vocab);
                } else {
                    let hidden =
                        f32s(expected, &format!("last_hidden_{i}")).expect("logits or hidden states");
                    check(&at, &reference.hidden(&ids).unwrap(), &hidden, checkpoint.config.hidden);
                }
            }
        });
    }

    #[test]
    fn a_batch_gives_the_logits_of_its_texts() {
        let fixture = Fixture::all().into_iter().find(|f| f.path().ends_with("bitnet2b-packed")).unwrap();
        let reference = Reference::load(&open(&fixture), ActivationMode::Full).unwrap();
        let (a, b) = ([1, 2, 3, 4, 5], [9, 8, 7, 6, 5]);
        let both = reference.logits_batch(&[&a, &b]).unwrap();
        let apart = [reference.logits(&a).unwrap(), reference.logits(&b).unwrap()].concat();
        assert_eq!(both.len(), apart.len());
        let max = both.iter().zip(&apart).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(max < 1e-4, "differs by {max}");
        assert!(reference.logits_batch(&[&a, &b[..4]]).is_err());
        assert!(reference.logits(&[u32::MAX]).is_err());
    }
}
