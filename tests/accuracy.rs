//! Perplexity and multiple choice as a user runs them, against reference figures that transformers
//! computed in f32 (`bench-suites/demo/reference.json`).

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;

fn tritmark(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("tritmark").unwrap();
    command.args(args);
    command
}

fn json(args: &[&str]) -> Value {
    let output = tritmark(args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Perplexity by convention, window length and number of windows, as transformers has it.
fn expected(convention: &str, windows: u64) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-suites/demo/reference.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let figures = reference["models"]["ternary"]["test"]["figures"].as_array().unwrap();
    let figure = figures.iter().find(|f| f["convention"] == convention && f["windows"] == windows);
    figure.unwrap()["ppl"].as_f64().unwrap()
}

#[test]
fn the_demo_has_the_perplexity_of_the_reference() {
    let got = json(&["ppl", "demo", "--n-ctx", "256", "--limit", "16"]);
    let (ppl, expected) = (got["accuracy"]["ppl"].as_f64().unwrap(), expected("llama.cpp", 16));
    assert!((ppl / expected - 1.0).abs() < 1e-3, "{ppl} is not {expected}");
    assert_eq!(got["accuracy"]["scored"], 2032);
    assert_eq!(got["text_tokens"], 73_421);
    assert!(got["method"].as_str().unwrap().contains("windows of 256 tokens"));
}

#[test]
fn kernels_and_threads_give_the_same_bits() {
    let run = |kernel: &str, threads: &str| {
        let args = ["ppl", "demo", "--n-ctx", "64", "--limit", "2", "--kernel", kernel, "--threads", threads];
        json(&args)["accuracy"]["nll_bits"].as_str().unwrap().to_owned()
    };
    let first = run("i2_s/scalar", "1");
    for (kernel, threads) in [("i2_s", "2"), ("tq2_0/scalar", "3"), ("tq1_0", "1")] {
        assert_eq!(run(kernel, threads), first, "{kernel} on {threads}");
    }
}

#[test]
#[cfg(feature = "reference")]
fn the_reference_with_the_same_activations_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let logits = folder.path().join("logits.safetensors");
    let args =
        ["ppl", "demo", "--n-ctx", "64", "--limit", "2", "--against", "reference:int8", "--save-logits"];
    let got = json(&[args.as_slice(), &[logits.to_str().unwrap()]].concat());
    let against = &got["accuracy"]["against"];
    assert!(against["kl_mean"].as_f64().unwrap() < 1e-3, "{against}");
    assert!(against["top1"].as_f64().unwrap() > 0.95);
    let bytes = std::fs::read(&logits).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("reference").unwrap().shape(), [62, 4096]);
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let run = |limit: &str| {
        json(&["ppl", "demo", "--n-ctx", "64", "--limit", limit, "--state", state.to_str().unwrap()])
    };
    run("2");
    let before = std::fs::read_to_string(&state).unwrap();
    let resumed = run("4");
    assert!(std::fs::read_to_string(&state).unwrap().starts_with(&before), "finished windows are kept");
    let whole = json(&["ppl", "demo", "--n-ctx", "64", "--limit", "4"]);
    assert_eq!(resumed["accuracy"]["nll_bits"], whole["accuracy"]["nll_bits"]);
    let other = ["ppl", "demo", "--n-ctx", "32", "--limit", "2", "--state", state.to_str().unwrap()];
    tritmark(&other).assert().code(2);
}

#[test]
fn text_comes_from_files_directories_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "Fellow citizens of the Senate and of the House of Representatives: the state of the Union is good. ";
    let file = folder.path().join("a.txt");
    std::fs::write(&file, text.repeat(8)).unwrap();
    let bits = |source: &str, input: &str| {
        let args = ["ppl", "demo", source, "--convention", "hf-32", "--json"];
        let output = tritmark(&args).write_stdin(input.to_owned()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["accuracy"]["nll_bits"].clone()
    };
    let first = bits(file.to_str().unwrap(), "");
    assert_eq!(bits(folder.path().to_str().unwrap(), ""), first);
    assert_eq!(bits("-", &text.repeat(8)), first);
    tritmark(&["ppl", "demo", "-"]).write_stdin("short").assert().code(2);
    tritmark(&["ppl", "demo", "--convention", "wikitext"]).assert().code(2);
    tritmark(&["ppl", "demo", "--limit", "1", "--against", "reference:half"]).assert().code(2);
}

#[test]
fn endings_are_told_better_than_by_guessing() {
    let got = json(&["eval", "demo"]);
    let score = &got["tasks"][0]["score"];
    assert_eq!((score["questions"].as_u64(), score["chance"].as_f64()), (Some(100), Some(0.25)));
    // Guessing reaches this about once in fifty times; the model's answers do not depend on chance.
    assert!(score["acc"].as_f64().unwrap() > 0.33, "{score}");
}
