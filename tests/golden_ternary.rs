//! Trits, scales and token ids of whole checkpoints against what other software computes from them.
//!
//! Runs over every checkpoint in `tests/fixtures`, and in each folder that the environment variable
//! `TRITMARK_FIXTURES` names (colon-separated).

mod common {
    pub mod expected;
    pub mod fixture;
    pub mod folders;
}

use common::expected::json;
use common::fixture::{Fixture, open};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tritmark::checkpoint::role::{LayerRole, Role};

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    sha256_ternary_i8_rowmajor: String,
    scale: f64,
    n_zero: usize,
}

#[test]
fn trits_and_scales_are_those_of_the_reference() {
    let mut checkpoints = 0;
    for fixture in Fixture::all() {
        let Some(expected) = json::<BTreeMap<String, Expected>>(&fixture, "expected_ternary.json") else {
            continue;
        };
        let checkpoint = open(&fixture);
        let matrices: Vec<_> = checkpoint
            .tensors()
            .iter()
            .filter(|t| matches!(t.role, Some(Role::Layer(_, LayerRole::Linear(_)))))
            .collect();
        assert_eq!(matrices.len(), expected.len(), "{fixture}: number of ternary matrices");
        for info in matrices {
            let expected = &expected[&info.name];
            let at = format!("{fixture}: {}", info.name);
            assert_eq!(info.shape, expected.shape, "{at}");
            let found = checkpoint.ternary(info.role.unwrap()).unwrap();
            assert_eq!(
                (found.trits.rows(), found.trits.cols()),
                (expected.shape[0], expected.shape[1]),
                "{at}"
            );
            let zeros = found.trits.as_slice().iter().filter(|t| **t == 0).count();
            assert_eq!(zeros, expected.n_zero, "{at}: zeros");
            let bytes: Vec<u8> = found.trits.as_slice().iter().map(|&t| t as u8).collect();
            let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, expected.sha256_ternary_i8_rowmajor, "{at}: trits");
            // Two f32 roundings: the mean's in another order of summation, and a reciprocal's.
            let error = (f64::from(found.scale) / expected.scale - 1.0).abs();
            assert!(error <= 2.4e-7, "{at}: scale {} instead of {}", found.scale, expected.scale);
        }
        checkpoints += 1;
    }
    assert!(checkpoints >= 5, "found only {checkpoints} checkpoints");
}

#[derive(Deserialize)]
struct TokenizerCases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    ids_no_special: Vec<u32>,
    decoded: String,
}

#[test]
fn token_ids_are_those_of_the_reference() {
    let mut cases = 0;
    for fixture in Fixture::all() {
        let Some(expected) = json::<TokenizerCases>(&fixture, "tokenizer_cases.json") else { continue };
        let json = open(&fixture).tokenizer.unwrap_or_else(|| panic!("{fixture}: no tokenizer"));
        let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        for case in expected.cases {
            let at = format!("{fixture}: {:?}", case.text);
            let ids = |special| tokenizer.encode(case.text.as_str(), special).unwrap().get_ids().to_vec();
            assert_eq!(ids(true), case.ids, "{at}");
            assert_eq!(ids(false), case.ids_no_special, "{at}, without special tokens");
            assert_eq!(tokenizer.decode(&case.ids_no_special, false).unwrap(), case.decoded, "{at}, decoded");
            cases += 1;
        }
    }
    assert!(cases > 0);
}
