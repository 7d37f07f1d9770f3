//! Logits of the candle reference against those that transformers computed in f32.
#![cfg(feature = "reference")]

mod common;
#[path = "common/logits.rs"]
mod logits;

use common::{Fixture, open};
use logits::{check, f32s, ids};
use safetensors::SafeTensors;
use tritmark::reference::{ActivationMode, Reference};

#[test]
fn logits_are_those_of_transformers() {
    let mut texts = 0;
    for fixture in Fixture::all() {
        let Ok(bytes) = std::fs::read(fixture.path().join("reference.safetensors")) else { continue };
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let checkpoint = open(&fixture);
        let reference = Reference::load(&checkpoint, ActivationMode::Int8).unwrap();
        for i in 0.. {
            let Some(ids) = ids(&expected, &format!("ids_{i}")) else { break };
            let at = format!("{fixture}: text {i}");
            if let Some(logits) = f32s(&expected, &format!("logits_{i}")) {
                check(&at, &reference.logits(&ids).unwrap(), &logits, checkpoint.config.vocab);
            } else {
                let hidden = f32s(&expected, &format!("last_hidden_{i}")).expect("logits or hidden states");
                check(&at, &reference.hidden(&ids).unwrap(), &hidden, checkpoint.config.hidden);
            }
            texts += 1;
        }
    }
    assert!(texts > 0);
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
