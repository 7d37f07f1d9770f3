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
fn expected(model: &str, convention: &str, windows: u64) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-suites/demo/reference.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let figures = reference["models"][model]["test"]["figures"].as_array().unwrap();
    let figure = figures.iter().find(|f| f["convention"] == convention && f["windows"] == windows);
    figure.unwrap()["ppl"].as_f64().unwrap()
}

#[test]
fn the_demo_has_the_perplexity_of_the_reference() {
    let got = json(&["ppl", "demo", "--n-ctx", "256", "--limit", "16"]);
    let (ppl, expected) = (got["accuracy"]["ppl"].as_f64().unwrap(), expected("ternary", "llama.cpp", 16));
    assert!((ppl / expected - 1.0).abs() < 1e-3, "{ppl} is not {expected}");
    assert_eq!(got["accuracy"]["scored"], 2032);
    assert_eq!(got["text_tokens"], 73_421);
    assert!(got["method"].as_str().unwrap().contains("windows of 256 tokens"));
}

#[test]
fn its_twin_has_the_perplexity_of_the_reference_and_the_rule_breaks_it() {
    let run = |args: &[&str]| json(&[&["ppl", "--n-ctx", "256", "--limit", "16"], args].concat());
    let twin = run(&["demo-full"]);
    let (ppl, expected) = (twin["accuracy"]["ppl"].as_f64().unwrap(), expected("full", "llama.cpp", 16));
    assert!((ppl / expected - 1.0).abs() < 1e-3, "{ppl} is not {expected}");
    let named = run(&["demo-full --ptq absmean", "--against", "demo-full"]);
    let stated = run(&["demo-full", "--ptq", "absmean"]);
    assert_eq!(named["accuracy"]["nll_bits"], stated["accuracy"]["nll_bits"]);
    assert!(named["accuracy"]["ppl"].as_f64().unwrap() > 5.0 * ppl);
    // The mean of the paired differences is the difference of the means.
    let nll = |v: &Value| v["accuracy"]["nll"].as_f64().unwrap();
    let delta = named["accuracy"]["against"]["delta_nll"].as_f64().unwrap();
    assert!((delta - (nll(&named) - nll(&twin))).abs() < 1e-9);
}

#[test]
fn fewer_bits_of_a_head_cost_more() {
    let kl = |head: &str| {
        let got = json(&[
            "ppl",
            "demo",
            "--n-ctx",
            "64",
            "--limit",
            "8",
            "--head",
            head,
            "--against",
            "head:as-is",
        ]);
        got["accuracy"]["against"]["kl_mean"].as_f64().unwrap()
    };
    assert!(kl("bf16") < 1e-12, "the demo's head is bf16 already");
    let costs = ["int8", "q6_k", "q4_0"].map(kl);
    assert!(1e-9 < costs[0] && costs[0] < costs[1] && costs[1] < costs[2] && costs[2] < 0.1, "{costs:?}");
    tritmark(&["ppl", "demo", "--head", "int3"]).assert().code(2);
    tritmark(&["ppl", "demo", "--reference=half"]).assert().code(2);
    tritmark(&["ppl", "demo", "--limit", "1", "--against", "head:int3"]).assert().code(2);
}

#[cfg(feature = "reference")]
#[test]
fn the_reference_is_measured_by_itself() {
    let ppl = |option: &str| {
        json(&["ppl", "demo", "--n-ctx", "64", "--limit", "2", option])["accuracy"]["ppl"].as_f64().unwrap()
    };
    let [ours, int8, full] = ["--head=as-is", "--reference", "--reference=full"].map(ppl);
    assert!((ours / int8 - 1.0).abs() < 1e-3, "{ours} and {int8}");
    assert!((full / int8 - 1.0).abs() < 1e-2 && full != int8, "{full} and {int8}");
}

#[test]
fn what_was_scored_can_be_recorded_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let score = json(&["eval", "demo", "--limit", "10", "--record", &path("eval.json")]);
    let ppl = json(&["ppl", "demo", "--n-ctx", "64", "--limit", "2", "--record", &path("ppl.json")]);
    let args = ["report", &path("eval.json"), &path("ppl.json"), "-o", &path("out"), "--format", "html,json"];
    tritmark(&args).assert().success();
    let report = std::fs::read(folder.path().join("out/report.json")).unwrap();
    let rows: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(rows["rows"][0]["acc"], score["tasks"][0]["score"]["acc"]);
    assert_eq!(rows["rows"][1]["nll_bits"], ppl["accuracy"]["nll_bits"]);
    assert_eq!(rows["rows"][1]["test"], "ppl llama.cpp n_ctx 64 demo test text, first 2 windows");
}

/// A suite as the built-in ones, but shorter: what it says must follow from what it measured.
#[test]
fn a_suite_shows_why_native_training_matters() {
    let folder = tempfile::tempdir().unwrap();
    let suite = include_str!("../bench-suites/native-vs-ptq.toml")
        .replace("layouts = [\"i2_s\", \"tq1_0\", \"tm2\", \"tm1_67\"]", "layouts = [\"i2_s\", \"tm2\"]")
        .replace("windows = 32", "windows = 4")
        .replace("rounds = 7", "rounds = 2")
        .replace("heads = [\"int8\", \"int6\"]", "heads = [\"int6\", \"q4_0\"]");
    let file = folder.path().join("short.toml");
    std::fs::write(&file, suite).unwrap();
    let out = folder.path().join("out");
    tritmark(&["run", file.to_str().unwrap(), "-o", out.to_str().unwrap()]).assert().success();
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let ppl = |model: &str, engine: &str| {
        let mine = |r: &&Value| {
            r["model"] == model
                && r["engine"] == engine
                && r["reference"].is_string() != (engine == "candle")
                && !r["variant"].as_str().is_some_and(|v| v.contains("head"))
        };
        let found: Vec<f64> = rows.iter().filter(mine).filter_map(|r| r["ppl"].as_f64()).collect();
        assert_eq!(found.len(), 1, "{model} {engine}");
        found[0]
    };
    let full = ppl("demo-full", "tritmark");
    let (ptq, native) = (ppl("demo-full --ptq absmean", "tritmark"), ppl("demo", "tritmark"));
    assert!(full < native && 3.0 * native < ptq, "{full} {native} {ptq}");
    #[cfg(feature = "reference")]
    assert!((ppl("demo-full", "candle") / full - 1.0).abs() < 1e-4);
    let verdict = report["verdict"][2].as_str().unwrap();
    assert!(verdict.starts_with("Perplexity: full precision "), "{verdict}");
    assert!(
        verdict.contains(", trained ternary ") && verdict.contains(", made ternary afterwards "),
        "{verdict}"
    );
    let facts = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(facts.contains("<dd class=\"of\">demo, "), "the headline is the natively trained model's");
    let costs = report["costs"].as_array().unwrap();
    // The layout that this CPU is fastest with may be a third one.
    let of =
        |name: &str| costs.iter().filter(|c| c["approximation"].as_str().unwrap().starts_with(name)).count();
    assert_eq!((of("made ternary after training"), of("output head at q4_0"), of("any of ")), (1, 3, 2));
    assert_eq!(of("output head at int6"), 3);
    // Size and speed of all three, in floats and in trits.
    for (model, bits) in [("demo-full", 16.0), ("demo-full --ptq absmean", 2.0), ("demo", 2.0)] {
        let fits = |r: &&Value| r["model"] == model && r["bits_per_weight"] == bits && r["speed"].is_number();
        assert!(rows.iter().any(|r| fits(&r)), "{model}");
    }
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
    let both = ["ppl", "demo", "-", "--convention", "hf-32", "--against", "demo-full"];
    tritmark(&both).write_stdin(text.repeat(8)).assert().success();
    tritmark(&["ppl", "demo", "-"]).write_stdin("short").assert().code(2);
    tritmark(&["ppl", "demo", "--convention", "wikitext"]).assert().code(2);
    let odd = tritmark(&["ppl", "demo", "--convention", "hf-32", "-c", "64"]).assert().code(2);
    assert!(String::from_utf8_lossy(&odd.get_output().stderr).contains("hf-64"));
    let odd = tritmark(&["ppl", "demo", "--limit", "1", "--against", "layers:i2_s"]).assert().code(2);
    assert!(String::from_utf8_lossy(&odd.get_output().stderr).contains("layout:NAME"));
    tritmark(&["ppl", "demo", "--limit", "1", "--against", "reference:half"]).assert().code(2);
}

#[test]
fn equal_models_are_called_equal() {
    let args = [
        "ppl",
        "demo",
        "--n-ctx",
        "64",
        "--limit",
        "2",
        "--kernel",
        "i2_s/scalar",
        "--against",
        "layout:tq2_0",
    ];
    let output = tritmark(&args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("equal          bit for bit: every logit at 62 positions"), "{text}");
    assert!(text.contains("demo (hf-packed), kernel i2_s/scalar, int8 activations, head bf16"), "{text}");
    assert!(!text.contains("worst tokens"), "{text}");
}

#[test]
fn a_tokenizer_may_lie_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-suites/demo");
    std::fs::write(path("few.json"), "{\"no\": \"tokenizer\"}").unwrap();
    let run =
        |tokenizer: &str| tritmark(&["eval", "demo", "--limit", "1", "--tokenizer", tokenizer]).assert();
    run(demo.to_str().unwrap()).success();
    run(demo.join("tokenizer.json").to_str().unwrap()).success();
    run(&path("few.json")).failure();
    run(&path("none.json")).failure();
}

#[test]
fn every_answer_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    let got = json(&["eval", "demo", "--limit", "3", "--save", file.to_str().unwrap()]);
    let lines: Vec<Value> =
        std::fs::read_to_string(&file).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let answers = got["tasks"][0]["answers"].as_array().unwrap();
    assert_eq!((lines.len(), answers.len()), (3, 3));
    let right = lines.iter().zip(answers).filter(|(line, answer)| {
        assert_eq!(&&line["answer"], answer);
        let sums: Vec<f64> = line["answer"]["log_likelihoods"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        let choice = line["answer"]["choice"].as_u64().unwrap() as usize;
        assert!(sums.len() == 4 && sums.iter().all(|s| *s <= sums[choice] && *s < 0.0));
        line["answer"]["choice"] == line["answer"]["gold"]
    });
    assert_eq!(right.count() as f64 / 3.0, got["tasks"][0]["score"]["acc"].as_f64().unwrap());
    tritmark(&["eval", "demo", folder.path().to_str().unwrap()]).assert().code(2);
}

#[test]
fn endings_are_told_better_than_by_guessing() {
    let got = json(&["eval", "demo"]);
    let score = &got["tasks"][0]["score"];
    assert_eq!((score["questions"].as_u64(), score["chance"].as_f64()), (Some(100), Some(0.25)));
    // Guessing reaches this about once in fifty times; the model's answers do not depend on chance.
    assert!(score["acc"].as_f64().unwrap() > 0.33, "{score}");
}
