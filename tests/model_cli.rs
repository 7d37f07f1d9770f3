//! `generate`, `logits` and `embed` as a user runs them.

use assert_cmd::Command;
use safetensors::SafeTensors;
use serde_json::Value;

const PACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bitnet2b-packed");
const EMBEDDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bitembed-qwen3");

fn tritmark(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_tritmark")).args(args).assert()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_slice(&tritmark(args).success().get_output().stdout).unwrap()
}

fn fails(code: i32, says: &str, args: &[&str]) {
    let assert = tritmark(args).code(code);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.contains(says), "{args:?}: {stderr}");
}

#[test]
fn generate_streams_the_text_that_json_reports() {
    let args = ["generate", "demo", "-p", "The state of the Union", "-n", "12"];
    let plain = tritmark(&args).success().get_output().stdout.clone();
    let report = json(&[&args[..], &["--json"]].concat());
    let said = format!("The state of the Union{}\n", report["text"].as_str().unwrap());
    assert_eq!(String::from_utf8(plain).unwrap(), said);
    assert_eq!(report["ids"].as_array().unwrap().len(), 12);
    assert_eq!(report["stopped"], "length");
    assert!(report["decode_tokens_per_second"].as_f64().unwrap() > 0.0);

    let other_kernel = json(&[&args[..], &["--json", "-k", "i2_s/scalar", "-t", "1"]].concat());
    assert_eq!(other_kernel["ids"], report["ids"]);
    assert_eq!(other_kernel["kernel"], "i2_s/scalar");

    let sampled =
        |seed| json(&[&args[..], &["--json", "--temp", "1.5", "--seed", seed]].concat())["ids"].clone();
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn logits_are_written_as_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logits.safetensors");
    let out = file.to_str().unwrap();
    let report = json(&["logits", PACKED, "--ids", "504,197", "-o", out, "-k", "tm2", "--json"]);
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    assert_eq!((logits.dtype(), logits.shape()), (safetensors::Dtype::F32, &[2, 512][..]));
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    assert_eq!(metadata["model"], PACKED);
    assert!(metadata["kernel"].starts_with("tm2/"), "{metadata:?}");
    let reference = std::fs::read(format!("{PACKED}/reference.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&reference).unwrap();
    let expected = expected.tensor("logits_1").unwrap();
    let floats =
        |data: &[u8]| -> Vec<f32> { data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let pairs = floats(logits.data()).into_iter().zip(floats(expected.data()));
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-3));
    assert_eq!(report["greatest"][1], 185);
}

#[test]
fn embed_prints_a_vector_of_length_one() {
    let embedding: Vec<f64> = serde_json::from_value(json(&["embed", EMBEDDING, "-p", "a trit"])).unwrap();
    assert_eq!(embedding.len(), 128);
    let length: f64 = embedding.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-5);
}

/// What is no number in the embedding, which is the head as well, reaches nobody as a logit or an answer.
#[test]
fn a_damaged_head_is_no_result() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(PACKED).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let weights = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let embedding = &tensors["model.embed_tokens.weight"];
    assert_eq!(embedding["dtype"], "BF16");
    let at = 8 + header + embedding["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let model = dir.path().to_str().unwrap();
    let out = dir.path().join("logits.safetensors");
    fails(5, "logit of token 0", &["logits", model, "--ids", "1,2,3", "-o", out.to_str().unwrap()]);
    fails(5, model, &["eval", model, "--limit", "1"]);
    assert!(!out.exists());
}

#[test]
fn mistakes_get_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let out = file.to_str().unwrap();
    fails(2, "vocabulary", &["logits", PACKED, "--ids", "1,512", "-o", out]);
    fails(2, "found '1;2'", &["logits", PACKED, "--ids", "1;2", "-o", out]);
    fails(2, "tq2_9", &["logits", PACKED, "--ids", "1", "-o", out, "-k", "tq2_9"]);
    fails(2, "threads: expected 1 to 4096, found 0", &["logits", PACKED, "--ids", "1", "-o", out, "-t", "0"]);
    fails(2, "--temp", &["generate", "demo", "-p", "x", "--temp", "nan"]);
    fails(2, "--top-p", &["generate", "demo", "-p", "x", "--top-p", "0"]);
    assert!(!file.exists(), "a failed command writes nothing");
    fails(5, "no-such-model", &["logits", "no-such-model", "--ids", "1", "-o", out]);
    fails(2, "no-such-folder", &["logits", PACKED, "--ids", "1", "-o", "no-such-folder/x"]);
}
