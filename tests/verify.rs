//! The program proves that models are the same, and finds what is not.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

fn tritmark(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("tritmark").unwrap().args(args).assert()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A GGUF file of the packed fixture.
fn gguf(dir: &Path) -> PathBuf {
    let out = dir.join("x.gguf");
    tritmark(&["convert", text(&fixture("bitnet2b-packed")), text(&out), "--to", "i2_s"]).success();
    out
}

/// Where a tensor's bytes start in a file.
fn start(path: &Path, name: &str) -> usize {
    let reader = tritmark::checkpoint::gguf::reader::Reader::open(path).unwrap();
    reader.tensors().iter().find(|t| t.name == name).unwrap().start
}

#[test]
fn conversions_are_equal_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&gguf(dir.path())), "--json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(report["equal"], true);
    assert_eq!(report["hashes"][0], report["hashes"][1]);
    assert_eq!(report["comparison"]["equal_trits"], 21);
    assert_eq!(report["comparison"]["probe"]["identical"], true);
}

#[test]
fn one_changed_trit_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = start(&path, "blk.1.ffn_up.weight");
    // The top two bits are the first weight; 0 and 1 are codes of trits.
    bytes[at] = if bytes[at] >> 6 == 0 { bytes[at] | 0x40 } else { bytes[at] & 0x3f };
    std::fs::write(&path, bytes).unwrap();
    let output = tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&path)]).code(1);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("layers.1.mlp.up_proj.weight: 1 of"), "{error}");
    assert!(error.contains("row 0, column 0"), "{error}");
}

#[test]
fn a_changed_scale_norm_or_embedding_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let k = (start(&path, "blk.0.attn_k.weight") + 64 * 256 / 4, "k_proj.weight: the scales differ");
    let norm = (start(&path, "output_norm.weight") + 4, "model.norm.weight: value 1 is");
    let embedding = (start(&path, "token_embd.weight") + 2, "embed_tokens.weight: row 0, column 1 is");
    for (at, expected) in [k, norm, embedding] {
        let mut bytes = whole.clone();
        // The upper half of an f32, or an f16: a few per cent more.
        let high = if expected.contains("embed") { at } else { at + 2 };
        bytes[high] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
        let output = tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&path)]).code(1);
        let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn the_least_change_is_found_where_no_form_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    let whole = std::fs::read(&path).unwrap();
    // The last bit of an f32 scale; one step of bf16 in an f32 norm.
    for (at, bit, expected) in [
        (start(&path, "blk.0.attn_k.weight") + 64 * 256 / 4, 1, "the scales differ"),
        (start(&path, "output_norm.weight") + 4 + 2, 1, "which bf16 and f32 do not explain"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= bit;
        std::fs::write(&path, bytes).unwrap();
        let output = tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&path)]).code(1);
        let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn means_of_master_weights_may_differ_in_their_last_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (source, path) = (fixture("bitnet2b-bf16-odd"), dir.path().join("x.gguf"));
    let to_f32 = ["--to", "f32", "--for", "bitnet.cpp"];
    tritmark(&[&["convert", text(&source), text(&path)], &to_f32[..]].concat()).success();
    let whole = std::fs::read(&path).unwrap();
    let at = start(&path, "blk.0.ffn_up.weight");
    for (units, code) in [(2, 0), (64, 1)] {
        let mut bytes = whole.clone();
        for value in bytes[at..][..324 * 192 * 4].chunks_exact_mut(4) {
            let bits = u32::from_le_bytes(value.try_into().unwrap());
            if bits << 1 != 0 {
                value.copy_from_slice(&(bits + units).to_le_bytes());
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let output = tritmark(&["verify", text(&source), text(&path)]).code(code);
        let output = output.get_output();
        let said = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
        let expected = if code == 0 { "scales rounded to f32" } else { "up_proj.weight: the scales differ" };
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn rounding_is_said_in_the_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    tritmark(&["convert", text(&fixture("bitnet2b-packed")), text(&out), "--embedding", "q4_0"]).success();
    let output = tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&out)]).success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("the same ternary weights, other tensors rounded to q4_0; logits of"),
        "{first}"
    );
}

#[test]
fn the_other_model_tells_what_a_file_leaves_open() {
    let file = fixture("gguf/bitnet2b.bitnet-b1.58.i2_s.gguf");
    tritmark(&["verify", text(&file)]).code(5);
    for args in [[fixture("bitnet2b-packed"), file.clone()], [file.clone(), fixture("bitnet2b-packed")]] {
        tritmark(&["verify", text(&args[0]), text(&args[1]), "--no-probe"]).success();
    }
    tritmark(&["convert", text(&file), "/nowhere/x.safetensors"]).code(5);
}

#[test]
fn options_go_to_the_side_that_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("p.gguf");
    tritmark(&["convert", "demo-full", text(&out), "--ptq", "absmean", "--to", "i2_s"]).success();
    tritmark(&["verify", "demo-full", text(&out), "--ptq", "absmean", "--no-probe"]).success();
    tritmark(&["verify", text(&out), "demo-full", "--ptq", "absmean", "--no-probe"]).success();
    let output = tritmark(&["verify", "demo", text(&out), "--ptq", "absmean"]).code(2);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("--ptq fits neither"), "{error}");
}

#[test]
fn a_tokenizer_that_is_none_is_no_sound_file() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("bitnet2b-packed").join(name), dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let output = tritmark(&["verify", text(dir.path())]).code(1);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("tokenizer is damaged"), "{error}");
}

#[test]
fn a_lost_scale_is_no_sound_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path());
    tritmark(&["verify", text(&path)]).success();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = start(&path, "blk.0.attn_k.weight") + 64 * 256 / 4;
    bytes[at..at + 4].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let output = tritmark(&["verify", text(&path)]).code(1);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("blk.0.attn_k.weight") && error.contains("scale is 0"), "{error}");
    // No program runs it rightly then.
    let output = tritmark(&["inspect", text(&path), "--json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let verdicts: Vec<_> = report["runtimes"].as_array().unwrap().iter().map(|r| &r["verdict"]).collect();
    assert_eq!(verdicts, ["damaged", "refused", "refused", "refused"]);
}

#[test]
fn other_models_are_not_the_same() {
    let output =
        tritmark(&["verify", text(&fixture("bitnet2b-packed")), text(&fixture("bitnet2b-bf16-odd"))]).code(1);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("differ in hidden: 256 and 192"), "{error}");
}

#[test]
fn inspect_tells_what_the_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let output = tritmark(&["inspect", text(&gguf(dir.path())), "--json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(report["provenance"]["dialect"], "gguf bitnet-b1.58 i2_s");
    assert_eq!(report["config"]["activation"], "relu2");
    assert_eq!(report["ternary_weights"], 3 * (2 * 256 * 256 + 2 * 64 * 256 + 3 * 768 * 256));
    let bits = report["bits_per_weight"].as_f64().unwrap();
    assert!((2.0..2.1).contains(&bits), "{bits}");
    let verdicts: Vec<_> = report["runtimes"].as_array().unwrap().iter().map(|r| &r["verdict"]).collect();
    assert_eq!(verdicts, ["right", "refused", "refused", "refused"]);
}

#[test]
fn tokenizers_are_the_same_in_all_that_makes_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture("bitnet2b-packed");
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let file = copy.join("tokenizer.json");
    let tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let verify = |change: &dyn Fn(&mut serde_json::Value), code: i32| {
        let mut changed = tokenizer.clone();
        change(&mut changed);
        std::fs::write(&file, changed.to_string()).unwrap();
        let output = tritmark(&["verify", text(&source), text(&copy)]).code(code);
        String::from_utf8(output.get_output().stderr.clone()).unwrap()
    };
    // How its training cut and filled up texts says nothing of their tokens.
    verify(
        &|t| {
            t["truncation"] = serde_json::json!(
                {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
            );
            t["padding"] = serde_json::json!(
                {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "!"}
            );
        },
        0,
    );
    let error = verify(&|t| drop(t["model"]["merges"].as_array_mut().unwrap().pop()), 1);
    assert!(error.contains("The tokenizers differ: merge"), "{error}");
    let error = verify(&|t| drop(t["added_tokens"].as_array_mut().unwrap().pop()), 1);
    assert!(error.contains("one token"), "{error}");
}

#[test]
fn one_value_of_two_tensors_of_one_quantised_form_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, damaged] = ["a.gguf", "b.gguf"].map(|name| dir.path().join(name));
    for form in ["q8_0", "q6_k"] {
        let source = fixture("bitnet2b-packed");
        let args = ["convert", text(&source), text(&whole), "--to", "i2_s", "--embedding", form];
        tritmark(&[&args[..], &["--force"]].concat()).success();
        let mut bytes = std::fs::read(&whole).unwrap();
        // The last bit of one value, less than a step of the block's grid.
        bytes[start(&whole, "token_embd.weight") + 7] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        tritmark(&["verify", text(&whole), text(&whole)]).success();
        let output = tritmark(&["verify", text(&whole), text(&damaged)]).code(1);
        let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(error.contains(&format!("both are {form}")), "{error}");
    }
}
