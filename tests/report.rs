//! Reports on records that are made up here, with names that try to break out of the page.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use tritmark::checkpoint::config::LinearKind;
use tritmark::machine::{Environment, Limits};
use tritmark::record::compare::{Metric, Options, compare};
use tritmark::record::{Record, Subject};
use tritmark::report;
use tritmark::stats;

const HOSTILE: &str =
    "<script>alert('x')</script>\"><img src=x onerror=alert(1)> | `code` {{ 7*7 }} </script>";

/// Samples around a value: a fixed pattern, so that every run of the test sees the same.
fn samples(value: f64) -> Vec<f64> {
    [0.99, 1.0, 1.012, 0.985, 1.004].iter().map(|f| f * value).collect()
}

fn speed(value: f64, limit: Option<f64>, decode: bool) -> Value {
    let samples = samples(value);
    json!({
        "unit": "tokens/s", "seconds": vec![0.5; samples.len()], "samples": samples,
        "median": value, "mad": 0.01 * value, "interval": [0.985 * value, 1.012 * value], "outliers": [],
        "bound": limit.map(|v| json!({"value": v, "how": "measured read bandwidth divided by the bytes that a token reads"})),
        "latency_ms": decode.then_some([1e3 / value, 1.1e3 / value, 1.4e3 / value]),
        "first_token_ms": null, "warnings": [],
    })
}

fn arm(model: &str, layout: Option<&str>, tier: Option<&str>, threads: u32, test: Value) -> Value {
    json!({
        "subject": {
            "model": model, "engine": if layout.is_some() { "tritmark" } else { "candle" },
            "layout": layout, "tier": tier, "variant": null, "threads": threads,
        },
        "test": test, "speed": null, "accuracy": null, "energy_measured": null, "energy_modelled": null,
    })
}

fn accuracy(nll: f64) -> Value {
    json!({
        "nll": nll, "ppl": nll.exp(), "ppl_stderr": 0.0144 * nll.exp(), "scored": 36322, "windows": 286,
        "bits_per_byte": nll / 3.03, "nll_bits": format!("{:016x}", nll.to_bits()), "seconds": 9.4, "against": null,
    })
}

fn against(reference: &str, kl: f64) -> Value {
    json!({
        "reference": reference, "kl_mean": kl, "kl_percentiles": [[50.0, 0.5 * kl], [99.0, 6.0 * kl]], "kl_max": 40.0 * kl,
        "kl_histogram": [[1e-4, 310], [3.16e-4, 1502], [1e-3, 9100], [3.16e-3, 17021], [1e-2, 7300], [3.16e-2, 1020], [0.1, 69]],
        "logit_max": 0.71, "logit_mean": 0.021, "top1": 0.9912, "top5": 0.984, "delta_nll": 0.0123,
        "delta_nll_stderr": 0.0011, "positions": 36322,
        "worst": [{"context": format!("the Government of {HOSTILE}"), "token": " Japan", "kl": 40.0 * kl, "nll": 3.1, "reference_nll": 2.4}],
    })
}

fn model(id: &str, name: &str, post_training: bool) -> Value {
    json!({
        "id": id, "name": name, "family": "bitnet, autobitlinear", "dialect": "hf-packed", "hash": format!("{:064x}", id.len()),
        "config": {
            "vocab": 4096, "hidden": 256, "ffn": 768, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 64,
            "context": 2048, "rope_theta": 500000.0, "norm_eps": 1e-5, "activation": "relu2", "tied": true,
            "linear": "ternary", "sub_norms": true, "inner_norm_eps": null, "qk_norm": false, "bos": 0, "eos": [1],
        },
        "params": 5_767_168, "linear_params": 4_718_592, "file_bytes": 3_307_216, "post_training": post_training,
    })
}

/// A record of a suite: two models, five layouts, three tiers, three thread counts.
fn record(cpu: &str, started: &str, factor: f64) -> Record {
    let mut environment = serde_json::to_value(Environment::default()).unwrap();
    let known = json!({
        "cpu": cpu, "arch": "x86_64", "threads": 4, "cores": 4, "features": ["avx2", "avx512f", HOSTILE],
        "caches": [["L1d", 49152], ["L2", 1048576]], "os": "Linux", "memory": 16_000_000_000u64, "mhz": [3700.0, 3650.0],
    });
    environment.as_object_mut().unwrap().extend(known.as_object().unwrap().clone());
    let layouts = [
        ("i2_s", 2.0, 120.0),
        ("tq2_0", 2.0625, 104.0),
        ("tq1_0", 1.6875, 71.0),
        ("tm2", 2.0, 151.0),
        ("tm1_67", 1.6875, 163.0),
    ];
    let tiers = [("scalar", 0.05), ("avx2", 0.7), ("avx512vnni", 1.0)];
    let (prefill, decode) = (
        json!({"kind": "model", "prompt": 512, "generate": 0, "depth": 0}),
        json!({"kind": "model", "prompt": 0, "generate": 128, "depth": 0}),
    );
    let text = json!({"kind": "perplexity", "convention": "llama.cpp", "n_ctx": 256, "text": "test.txt"});
    let (mut arms, mut proofs) = (Vec::new(), Vec::new());
    for (layout, bits, base) in layouts {
        proofs.push(json!({
            "model": "ternary", "layout": layout, "trits_equal": true, "scale_error": if layout.starts_with("tq") { 2.4e-4 } else { 0.0 },
            "tensors": 42, "bytes": (bits * 4_718_592.0 / 8.0) as u64, "bits_per_weight": bits, "failure": null,
        }));
        for (tier, share) in tiers {
            for threads in [1u32, 2, 4] {
                let rate = factor * base * share * f64::from(threads).powf(0.85);
                let mut pp = arm("ternary", Some(layout), Some(tier), threads, prefill.clone());
                pp["speed"] = speed(9.0 * rate, Some(9.0 * factor * 700.0), false);
                pp["energy_modelled"] = json!({"joules_per_token_7nm": 3.3e-8, "joules_per_token_45nm": 1.4e-7, "how": "4.72 M additions of int8 a token, and attention in FP16"});
                pp["energy_measured"] =
                    json!({"not_measured": "no meter: /sys/class/powercap has no zone on this machine"});
                let mut tg = arm("ternary", Some(layout), Some(tier), threads, decode.clone());
                tg["speed"] = speed(rate, Some(factor * 2.0 / bits * 620.0), true);
                tg["energy_measured"] = pp["energy_measured"].clone();
                let mut ppl = arm("ternary", Some(layout), Some(tier), threads, text.clone());
                ppl["accuracy"] = accuracy(3.910165);
                if (layout, tier, threads) == ("tm1_67", "avx512vnni", 4) {
                    ppl["accuracy"]["against"] = against("candle, int8 activations", 4.1e-3);
                    tg["speed"]["warnings"] =
                        json!(["The first round was slow; the machine was warming up. Use --rounds 20."]);
                }
                arms.extend([pp, tg, ppl]);
            }
        }
    }
    proofs.push(json!({"model": "ternary", "layout": "tl2", "trits_equal": false, "scale_error": 0.0, "tensors": 0, "bytes": 0, "bits_per_weight": 0.0, "failure": "768 columns are no multiple of 96"}));
    let mut candle = arm("ternary", None, None, 4, decode.clone());
    candle["speed"] = speed(11.0 * factor, None, true);
    let mut ptq = arm("ptq", Some("tm1_67"), Some("avx512vnni"), 4, text.clone());
    ptq["accuracy"] = accuracy(6.21);
    let mut head = arm("ternary", Some("tm1_67"), Some("avx512vnni"), 4, text);
    head["subject"]["variant"] = "head q4_0".into();
    head["accuracy"] = accuracy(3.922465);
    head["accuracy"]["against"] = against("tritmark tm1_67/avx512vnni, 4 threads, head bf16", 9.0e-3);
    let task =
        json!({"kind": "choices", "task": format!("task {HOSTILE}"), "format": "choices", "questions": 100});
    let mut choices = arm("ternary", Some("tm1_67"), Some("avx512vnni"), 4, task);
    choices["choices"] = json!({
        "questions": 100, "acc": 0.37, "acc_stderr": 0.0485, "acc_norm": 0.36, "acc_norm_stderr": 0.0482,
        "chance": 0.25, "seconds": 2.5,
    });
    arms.extend([candle, ptq, head, choices]);
    let limits = Limits {
        read: vec![
            tritmark::machine::ReadLimit {
                level: "RAM".into(),
                bytes: 1 << 30,
                threads: 4,
                gb_per_s: 48.0 * factor,
            },
            tritmark::machine::ReadLimit {
                level: "L2".into(),
                bytes: 1 << 19,
                threads: 4,
                gb_per_s: 411.0 * factor,
            },
        ],
        int8: vec![tritmark::machine::ComputeLimit {
            tier: "avx512vnni".into(),
            threads: 4,
            gmac_per_s: 968.0 * factor,
        }],
        f32: Vec::new(),
        method: vec!["Limits: best of three passes.".into()],
        ..Limits::default()
    };
    let record = json!({
        "schema": 1,
        "tool": {"name": "tritmark", "version": "0.1.0", "git_revision": "0123abcd", "git_dirty": false, "rustc": "rustc 1.95.0", "target": "x86_64-unknown-linux-gnu", "profile": "release"},
        "started": started, "finished": started, "command": format!("tritmark run quick # {HOSTILE}"), "suite": "quick", "resumed": false,
        "environment": environment, "limits": {"measured": limits},
        "protocol": {"seed": 7, "rounds": 5, "min_time_s": 0.5, "method": ["Arms were interleaved in randomised rounds."]},
        "models": [model("ternary", HOSTILE, false), model("ptq", "demo, made ternary after training", true)],
        "proofs": proofs, "arms": arms, "notes": [format!("A remark with a name: {HOSTILE}")],
    });
    let record: Record = serde_json::from_value(record).unwrap();
    tritmark::record::check(&record).unwrap();
    record
}

fn one() -> Vec<Record> {
    vec![record("Example 9000 4-Core", "2026-01-02T03:04:05Z", 1.0)]
}

fn several() -> Vec<Record> {
    vec![
        record("Example 9000 4-Core", "2026-01-02T03:04:05Z", 1.0),
        record("Example 9000 4-Core", "2026-02-03T03:04:05Z", 1.06),
        record(&format!("Other {HOSTILE}"), "2026-02-03T05:04:05Z", 0.6),
    ]
}

/// Reports on `records`, in a folder of the test's own; kept under `TRITMARK_REPORT_DIR` for looking
/// at them and for the browser test.
fn written(name: &str, records: &[Record]) -> (PathBuf, Option<tempfile::TempDir>) {
    match std::env::var_os("TRITMARK_REPORT_DIR") {
        Some(dir) => {
            let dir = Path::new(&dir).join(name);
            report::write_all(records, &dir).unwrap();
            (dir, None)
        }
        None => {
            let dir = tempfile::tempdir().unwrap();
            report::write_all(records, dir.path()).unwrap();
            (dir.path().into(), Some(dir))
        }
    }
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_page_is_whole_and_hostile_names_are_harmless() {
    let (dir, _keep) = written("one", &one());
    let page = read(&dir, "report.html");
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own");
    assert!(!page.contains("<img"), "a name became an element");
    assert!(page.contains("{{ 7*7 }}"), "a name is text, not a template");
    for outside in ["http://", "https://", "url(", "@import", "<link", " src="] {
        // An XML namespace is a name; the rest are names of ours made harmless.
        let found = page.replace("http://www.w3.org/2000/svg", "").replace("&lt;img src=x", "");
        assert!(!found.contains(outside), "{outside}");
    }
    for id in [
        "verdict",
        "compared",
        "speed",
        "accuracy",
        "energy",
        "size",
        "trade-off",
        "threads",
        "roofline",
        "arms",
        "environment",
        "method",
        "reproduce",
        "data",
    ] {
        assert!(page.contains(&format!("id=\"{id}\"")), "section {id}");
    }
    let plots: Vec<PathBuf> = fs::read_dir(dir.join("plots")).unwrap().map(|e| e.unwrap().path()).collect();
    let (svgs, pngs): (Vec<_>, Vec<_>) = plots.iter().partition(|p| p.extension().unwrap() == "svg");
    assert!(svgs.len() >= 7, "{} plots", svgs.len());
    for svg in &svgs {
        let picture = fs::read(svg.with_extension("png")).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5000, "{}", svg.display());
    }
    assert_eq!(svgs.len(), pngs.len());
    for plot in svgs {
        let svg = fs::read_to_string(plot).unwrap();
        assert!(
            svg.starts_with("<svg")
                && !svg.contains("<script")
                && !svg.contains("NaN")
                && !svg.contains("inf")
        );
    }
}

/// All exact values of the page's cells.
fn page_values(page: &str) -> Vec<f64> {
    page.split("data-v=\"").skip(1).map(|s| s.split('"').next().unwrap().parse().unwrap()).collect()
}

fn numbers(value: &Value, into: &mut HashSet<u64>) {
    match value {
        Value::Number(n) => drop(into.insert(n.as_f64().unwrap().to_bits())),
        Value::Array(all) => all.iter().for_each(|v| numbers(v, into)),
        Value::Object(all) => all.values().for_each(|v| numbers(v, into)),
        _ => {}
    }
}

#[test]
fn every_figure_of_the_page_is_in_the_json() {
    let (dir, _keep) = written("one", &one());
    let page = read(&dir, "report.html");
    let data: Value = serde_json::from_str(&read(&dir, "report.json")).unwrap();
    let mut known = HashSet::new();
    numbers(&data, &mut known);
    let values = page_values(&page);
    assert!(values.len() > 500);
    // Lengths of lists are counted, not stored.
    let counted: HashSet<u64> = [5.0f64].map(f64::to_bits).into();
    let missing: Vec<&f64> =
        values.iter().filter(|v| !known.contains(&v.to_bits()) && !counted.contains(&v.to_bits())).collect();
    assert!(missing.is_empty(), "{missing:?}");

    assert_eq!(embedded(&page), data, "the page holds the same data");
}

/// The data inside of a page.
fn embedded(page: &str) -> Value {
    let packed = page.split("id=\"raw\">").nth(1).unwrap().split("</script>").next().unwrap();
    let packed = BASE64_STANDARD.decode(packed).unwrap();
    serde_json::from_reader(flate2::read::GzDecoder::new(packed.as_slice())).unwrap()
}

#[test]
fn a_page_of_many_arms_stays_small() {
    let mut record = one().remove(0);
    let arms = std::mem::take(&mut record.arms);
    record.protocol.rounds = 10;
    // Digits as measuring leaves them, so that they compress no better than real ones.
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        1.0 + 0.01 * (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for threads in (0..).step_by(4) {
        if record.arms.len() >= 1200 {
            break;
        }
        record.arms.extend(arms.iter().cloned().map(|mut arm| {
            arm.subject.threads += threads;
            if let Some(speed) = &mut arm.speed {
                speed.samples = (0..10).map(|_| speed.median * noise()).collect();
                speed.best = speed.samples.iter().map(|s| s * noise()).collect();
                speed.seconds = (0..10).map(|_| 0.5 * noise()).collect();
                speed.median = stats::median(&speed.samples);
                speed.mad = stats::mad(&speed.samples);
                speed.outliers = stats::outliers(&speed.samples);
                let samples = &mut speed.samples.clone()[..];
                samples.sort_by(f64::total_cmp);
                speed.interval = [samples[1], samples[8]];
            }
            arm
        }));
    }
    tritmark::record::check(&record).unwrap();
    let dir = tempfile::tempdir().unwrap();
    report::write(&[record], dir.path(), &[report::Format::Html]).unwrap();
    let page = read(dir.path(), "report.html");
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(embedded(&page)["rows"].as_array().unwrap().len() >= 1200);
}

#[test]
fn names_neither_turn_the_text_around_them_nor_run_in_a_spreadsheet() {
    let mut records = one();
    for arm in &mut records[0].arms {
        arm.subject.model = arm.subject.model.replace("ptq", "=1+\u{202e}2");
    }
    let model = &mut records[0].models[1];
    (model.id, model.name) = ("=1+\u{202e}2".into(), "abc\u{202e}fed\u{2066}".into());
    let dir = tempfile::tempdir().unwrap();
    report::write_all(&records, dir.path()).unwrap();
    for name in ["report.html", "report.md"] {
        let text = read(dir.path(), name);
        assert!(!text.contains(['\u{202e}', '\u{2066}']), "{name}");
        assert!(text.contains("abc‹U+202E›fed‹U+2066›"), "{name}");
    }
    assert!(read(dir.path(), "report.csv").contains(",'=1+\u{202e}2,"));
}

#[test]
fn rows_have_the_same_columns_everywhere() {
    let (dir, _keep) = written("one", &one());
    let data: Value = serde_json::from_str(&read(&dir, "report.json")).unwrap();
    let rows = data["rows"].as_array().unwrap();
    assert_eq!(rows.len(), one()[0].arms.len());
    let mut csv = csv::Reader::from_path(dir.join("report.csv")).unwrap();
    let names: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    let keys: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), keys);
    for (line, row) in csv.records().zip(rows) {
        let line = line.unwrap();
        for (field, name) in line.iter().zip(&names) {
            match &row[name] {
                Value::Null => assert_eq!(field, "", "{name}"),
                Value::String(text) => assert_eq!(field, text),
                Value::Number(n) => assert_eq!(field.parse::<f64>().unwrap(), n.as_f64().unwrap()),
                other => assert_eq!(field, other.to_string()),
            }
        }
    }
}

#[test]
fn missing_figures_are_reasons_and_never_zero() {
    let (dir, _keep) = written("one", &one());
    let page = read(&dir, "report.html");
    assert!(page.contains("no meter: &#x2f;sys"), "in the page itself, not in its packed data");
    assert!(page.contains("this system does not tell"));
    let data: Value = serde_json::from_str(&read(&dir, "report.json")).unwrap();
    for row in data["rows"].as_array().unwrap() {
        assert_eq!(row["measured_j_per_token"], Value::Null);
        assert!(
            row["speed"].is_null() || row["energy_not_measured"].is_string() || row["engine"] == "candle"
        );
        assert!(row["speed"].as_f64().is_none_or(|v| v > 0.0));
    }
}

fn verdict(records: &[Record]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    report::write(records, dir.path(), &[report::Format::Json]).unwrap();
    let data: Value = serde_json::from_str(&read(dir.path(), "report.json")).unwrap();
    let sentences: Vec<String> = serde_json::from_value(data["verdict"].clone()).unwrap();
    assert_eq!(sentences.len(), 3);
    sentences
}

#[test]
fn the_verdict_follows_from_the_figures() {
    let got = verdict(&one());
    assert!(
        got[0].contains("each of 5 layouts kept every ternary weight")
            && got[0].contains("tl2 cannot hold ternary")
            && got[0].contains("equal bit for bit over 45"),
        "{}",
        got[0]
    );
    assert!(
        // Of the two models only one was timed.
        got[1].starts_with("tm1_67/avx512vnni is the fastest to decode (tg128)")
            && got[1].contains("the candle reference"),
        "{}",
        got[1]
    );
    assert!(
        got[2].starts_with(
            "Another order of float operations than that of candle, int8 activations costs +1.2 % in perplexity"
        ) && got[2].contains("energy was not measured: no meter"),
        "{}",
        got[2]
    );

    let mut broken = one();
    let arm = broken[0].arms.iter_mut().find(|a| a.accuracy.is_some()).unwrap();
    let accuracy = arm.accuracy.as_mut().unwrap();
    accuracy.nll += 1e-9;
    accuracy.nll_bits = format!("{:016x}", accuracy.nll.to_bits());
    assert!(verdict(&broken)[0].contains("not equal: 2 results"));

    let mut tied = one();
    for arm in &mut tied[0].arms {
        if let Some(speed) = arm.speed.as_mut().filter(|_| arm.subject.layout.as_deref() == Some("tm2")) {
            speed.samples.iter_mut().for_each(|s| *s *= 1.078);
            speed.median *= 1.078;
        }
    }
    assert!(verdict(&tied)[1].contains("cannot tell it from tm2"), "{}", verdict(&tied)[1]);

    // More threads are not always faster.
    let mut single = one();
    let mine = |s: &Subject| {
        (s.layout.as_deref(), s.tier.as_deref(), s.threads) == (Some("tm2"), Some("avx512vnni"), 1)
    };
    for speed in single[0].arms.iter_mut().filter(|a| mine(&a.subject)).filter_map(|a| a.speed.as_mut()) {
        speed.samples.iter_mut().for_each(|s| *s *= 5.0);
        speed.median *= 5.0;
    }
    let got = verdict(&single);
    assert!(
        got[1].starts_with("tm2/avx512vnni is the fastest") && got[1].contains(" on 1 thread,"),
        "{}",
        got[1]
    );

    let mut empty = one();
    empty[0].arms.clear();
    empty[0].proofs.clear();
    let got = verdict(&empty);
    assert!(got.iter().all(|s| s.to_lowercase().contains("cannot tell")), "{got:?}");
}

#[test]
fn the_verdict_tells_models_apart_and_says_where_it_cannot() {
    // What pairs of tokens cannot tell, and an interval around 1, are said as such.
    let mut unsure = one();
    for arm in &mut unsure[0].arms {
        if let Some(against) = arm.accuracy.as_mut().and_then(|a| a.against.as_mut()) {
            (against.delta_nll, against.delta_nll_stderr) = (1e-4, 1e-3);
        }
        if arm.subject.engine == "candle" {
            arm.subject.model = "ptq".into();
            arm.subject.engine = "tritmark".into();
            arm.speed.as_mut().unwrap().samples.iter_mut().for_each(|s| *s *= 163.0 * 4f64.powf(0.85) / 11.0);
        }
    }
    let got = verdict(&unsure);
    assert!(
        got[1].starts_with("For <script>") && got[1].contains("; cannot tell it from demo, made"),
        "{}",
        got[1]
    );
    assert!(got[2].contains("costs nothing in perplexity that one can tell"), "{}", got[2]);

    // Models held against another one are named by how they came about, and so is that one.
    let mut kinds = one();
    let mut arms = Vec::new();
    for (model, ppl, delta) in [("full", 40.0, 0.0), ("ternary", 46.0, 0.14), ("ptq", 400.0, 2.3)] {
        let text = json!({"kind": "perplexity", "convention": "llama.cpp", "n_ctx": 256, "text": "test.txt"});
        let mut arm = arm(model, Some("i2_s"), Some("avx2"), 4, text);
        arm["accuracy"] = accuracy(f64::ln(ppl));
        if delta > 0.0 {
            arm["accuracy"]["against"] = against("full: tritmark, f32", 0.1);
            arm["accuracy"]["against"]["delta_nll"] = delta.into();
        }
        arms.push(serde_json::from_value(arm).unwrap());
    }
    kinds[0].arms = arms;
    let mut full = kinds[0].models[0].clone();
    (full.id, full.name, full.config.linear) = ("full".into(), "full".into(), LinearKind::Float);
    kinds[0].models.push(full);
    let got = &verdict(&kinds)[2];
    let expected = "Perplexity: full precision 40.00 ± 0.58, trained ternary 46.00 ± 0.66 (+15 %), made ternary afterwards 400.0 ± 5.8 (× 9.97)";
    assert!(got.starts_with(expected), "{got}");

    // Of several records the newest is judged.
    let mut trend = several();
    trend.pop();
    assert!(verdict(&trend)[1].starts_with("In the newest record (Example 9000 4-Core, 2026-02-03): "));
}

#[test]
fn every_approximation_has_a_line_with_its_cost() {
    let (dir, _keep) = written("one", &one());
    let data: Value = serde_json::from_str(&read(&dir, "report.json")).unwrap();
    let costs = data["costs"].as_array().unwrap();
    let names: Vec<&str> = costs.iter().map(|c| c["approximation"].as_str().unwrap()).collect();
    assert_eq!(names, ["any of 5 layouts", "order of float operations", "output head at q4_0"]);
    assert_eq!((&costs[0]["exact"], &costs[0]["delta_nll"]), (&json!(true), &json!(0.0)));
    let change = 100.0 * (0.0123f64.exp() - 1.0);
    assert!((costs[2]["ppl_change_percent"].as_f64().unwrap() - change).abs() < 1e-12);
    for name in names {
        assert!(
            read(&dir, "report.html").contains(name)
                && read(&dir, "report.md").contains("What each approximation costs")
        );
    }
    let row = data["rows"].as_array().unwrap().iter().find(|r| !r["acc"].is_null()).unwrap();
    assert_eq!(
        (&row["acc"], &row["acc_norm_stderr"], &row["questions"]),
        (&json!(0.37), &json!(0.0482), &json!(100))
    );
    let verdict = data["verdict"][2].as_str().unwrap();
    assert!(verdict.contains("an output head costs in perplexity at q4_0 +1.2 %"), "{verdict}");
}

#[test]
fn a_folder_of_records_is_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, record) in ["a.json", "b.json", "deep/record.json"].iter().zip(several()) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        tritmark::record::write(&path, &[record]).unwrap();
    }
    let out = folder.path().join("out");
    let report = |records: &Path| {
        let mut command = assert_cmd::Command::cargo_bin("tritmark").unwrap();
        command.arg("report").arg(records).arg("-o").arg(&out).args(["--format", "html,json"]).assert()
    };
    report(folder.path()).success();
    let data: Value = serde_json::from_str(&read(&out, "report.json")).unwrap();
    let started: Vec<&str> =
        data["records"].as_array().unwrap().iter().map(|r| r["started"].as_str().unwrap()).collect();
    assert_eq!(started, ["2026-01-02T03:04:05Z", "2026-02-03T03:04:05Z", "2026-02-03T05:04:05Z"]);
    assert!(read(&out, "report.html").contains("Over time: tg128"));
    // The folder of a run is its record; what was made from records is none, and a record that lies
    // in two places is one.
    fs::copy(out.join("report.json"), folder.path().join("report.json")).unwrap();
    fs::copy(folder.path().join("a.json"), folder.path().join("c.json")).unwrap();
    report(folder.path()).success();
    let data: Value = serde_json::from_str(&read(&out, "report.json")).unwrap();
    assert_eq!(data["records"].as_array().unwrap().len(), 3);
    let run = folder.path().join("deep");
    fs::copy(out.join("report.json"), run.join("report.json")).unwrap();
    report(&run).success();
    let data: Value = serde_json::from_str(&read(&out, "report.json")).unwrap();
    assert_eq!(data["records"].as_array().unwrap().len(), 1);
    fs::create_dir(folder.path().join("empty")).unwrap();
    report(&folder.path().join("empty")).code(5);
}

#[test]
fn several_records_give_a_matrix_and_a_trend() {
    let (dir, _keep) = written("several", &several());
    let page = read(&dir, "report.html");
    assert!(page.len() < 3 * 2_000_000);
    assert!(page.contains("each machine at its greatest number of threads"));
    assert!(page.contains("Over time: tg128"));
    assert!(page.contains("differs"));
    assert!(dir.join("plots").join("record2-roofline.svg").exists());
    let data: Value = serde_json::from_str(&read(&dir, "report.json")).unwrap();
    let trends = data["trends"].as_array().unwrap();
    // Every arm with a speed, of the one machine that was measured twice.
    assert_eq!(trends.len(), 5 * 3 * 3 * 2 + 1);
    assert!(trends.iter().all(|t| (t["change_percent"].as_f64().unwrap() - 6.0).abs() < 1e-9));
    let text = read(&dir, "report.md");
    assert!(text.contains("from the first to the last record of each arm") && text.contains("+6.0 %"));
}

#[test]
fn a_trend_says_what_compare_says() {
    let of_compare = |a: &Record, b: &Record| {
        let sides = [a, b].map(std::slice::from_ref);
        let comparison = compare(("a", sides[0]), ("b", sides[1]), &Options::default()).unwrap();
        let of_speed = comparison.rows.iter().filter(|row| row.metric == Metric::Speed);
        of_speed.map(|row| json!(row.verdict).as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let verdicts = |records: &[Record]| {
        let dir = tempfile::tempdir().unwrap();
        report::write(records, dir.path(), &[report::Format::Json]).unwrap();
        let data: Value = serde_json::from_str(&read(dir.path(), "report.json")).unwrap();
        let trends = data["trends"].as_array().unwrap();
        trends.iter().map(|t| t["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // A change within the tolerance is none, however certain.
    for (factor, verdict) in [(1.06, "faster"), (1.01, "same"), (0.9, "slower")] {
        let records = ["2026-01-02T03:04:05Z", "2026-02-03T03:04:05Z"]
            .iter()
            .zip([1.0, factor])
            .map(|(started, factor)| record("Example 9000 4-Core", started, factor))
            .collect::<Vec<_>>();
        let verdicts = verdicts(&records);
        assert!(verdicts.iter().all(|v| v == verdict), "{factor}: {verdicts:?}");
        assert_eq!(verdicts, of_compare(&records[0], &records[1]));
    }
}

#[test]
fn machines_of_one_kind_stay_apart() {
    let mut records = several();
    for (record, host) in records.iter_mut().zip(["alpha", "beta", "alpha"]) {
        record.environment.cpu = "AMD EPYC".into();
        record.environment.host = Some(host.into());
    }
    let dir = tempfile::tempdir().unwrap();
    report::write(&records, dir.path(), &[report::Format::Md, report::Format::Json]).unwrap();
    let text = read(dir.path(), "report.md");
    assert!(text.contains("| alpha: AMD EPYC, 4 threads | beta: AMD EPYC, 4 threads |"), "{text}");
    let data: Value = serde_json::from_str(&read(dir.path(), "report.json")).unwrap();
    let trends = data["trends"].as_array().unwrap();
    assert!(!trends.is_empty() && trends.iter().all(|t| t["machine"] == "alpha: AMD EPYC, 4 threads"));
}

#[test]
fn points_of_one_size_or_nearly_are_drawn() {
    for bits in [2.0, 2.002] {
        let mut record = one().remove(0);
        record.proofs.iter_mut().for_each(|p| p.bits_per_weight = 2.0);
        record.proofs[0].bits_per_weight = bits;
        let dir = tempfile::tempdir().unwrap();
        report::write_all(&[record], dir.path()).unwrap();
        let plots = fs::read_dir(dir.path().join("plots")).unwrap().map(|f| f.unwrap().path());
        let svg = plots.into_iter().find(|p| p.ends_with("size-speed.svg")).unwrap();
        // No two ticks have one label.
        let svg = fs::read_to_string(svg).unwrap();
        let texts = svg.split("<text").skip(1).map(|t| t.split('>').nth(1).unwrap_or_default().trim());
        assert!(texts.filter(|t| t.starts_with("2<") || t.starts_with("2\n")).count() < 2, "{svg}");
    }
}

#[test]
fn records_of_several_models_name_them() {
    let mut records = vec![one().remove(0), one().remove(0)];
    for model in &mut records[1].models {
        model.name += " (another)";
    }
    let dir = tempfile::tempdir().unwrap();
    report::write(&records, dir.path(), &[report::Format::Md]).unwrap();
    let page = read(dir.path(), "report.md");
    assert!(page.matches("(another)").count() > 5, "{page}");
}

#[test]
fn one_sample_tells_no_order() {
    let mut record = one().remove(0);
    for arm in &mut record.arms {
        if let Some(speed) = &mut arm.speed {
            for list in [&mut speed.samples, &mut speed.seconds] {
                list.truncate(1);
            }
            speed.best.truncate(1);
            speed.handoff.clear();
            speed.outliers.clear();
            (speed.median, speed.mad, speed.interval) = (speed.samples[0], 0.0, [speed.samples[0]; 2]);
        }
    }
    let said = &verdict(&[record])[1];
    assert!(said.contains("(1 sample)") && said.contains("fewer than 5 samples"), "{said}");
    assert!(!said.contains("times ["), "{said}");
}

#[test]
fn weights_that_a_conversion_changed_come_first() {
    let mut record = one().remove(0);
    let proof = record.proofs.iter_mut().find(|p| p.failure.is_none()).unwrap();
    let layout = proof.layout.clone();
    (proof.trits_equal, proof.changed) = (false, true);
    proof.failure = Some(format!("{layout} changed the weight at row 3, column 0"));
    tritmark::record::check(&record).unwrap();
    let dir = tempfile::tempdir().unwrap();
    report::write(&[record.clone()], dir.path(), &[report::Format::Md]).unwrap();
    let page = read(dir.path(), "report.md");
    let page = page.replace("\\_", "_");
    assert!(page.contains(&format!("Conversion to {layout} CHANGED weights")), "{page}");
    assert!(page.contains("CHANGED, see below") && page.contains("at row 3, column 0"), "{page}");
    assert_eq!(tritmark::suite::failures(&record).len(), 1);
    // What a layout only cannot hold is no failure.
    record.proofs.iter_mut().for_each(|p| p.changed = false);
    assert!(tritmark::suite::failures(&record).is_empty());
}

#[test]
fn imported_records_and_other_time_zones_do_not_pass_for_the_newest() {
    let mut records = vec![one().remove(0), one().remove(0)];
    records[1].environment.cpu.push_str(" of another kind");
    records[0].started = "2026-11-28T10:00:00Z".into();
    records[1].started = "2026-11-28T12:00:00+05:00".into();
    let newest = |records: &[Record]| {
        let dir = tempfile::tempdir().unwrap();
        report::write(records, dir.path(), &[report::Format::Md]).unwrap();
        let page = read(dir.path(), "report.md");
        page.lines().find(|line| line.contains("In the newest record")).unwrap().to_owned()
    };
    assert!(!newest(&records).contains("of another kind"));
    records[1].started = "2026-11-28T12:00:00Z".into();
    assert!(newest(&records).contains("of another kind"));
    for arm in &mut records[1].arms {
        arm.imported = Some("llama-bench, rows.json".into());
    }
    assert!(!newest(&records).contains("of another kind"));
}

#[test]
fn figures_without_a_model_are_shown() {
    let mut record = one().remove(0);
    record.models.clear();
    record.proofs.clear();
    let imported = record.arms.iter().filter(|a| a.speed.is_some()).take(4).cloned().map(|mut arm| {
        arm.subject.model = "other.gguf".into();
        arm.subject.engine = "llama.cpp".into();
        arm.imported = Some("llama-bench, rows.json".into());
        arm
    });
    record.arms = imported.collect();
    // As a budget leaves it.
    let cut = record.arms[0].speed.as_mut().unwrap();
    cut.samples.truncate(1);
    cut.seconds.truncate(1);
    (cut.median, cut.mad, cut.interval) = (cut.samples[0], 0.0, [cut.samples[0]; 2]);
    let dir = tempfile::tempdir().unwrap();
    let page = |record: &Record| {
        tritmark::record::check(record).unwrap();
        report::write(std::slice::from_ref(record), dir.path(), &[report::Format::Html, report::Format::Md])
            .unwrap();
        read(dir.path(), "report.html")
    };
    let foreign = page(&record);
    assert!(foreign.contains("<h1>other.gguf: ternary inference</h1>"));
    assert!(foreign.contains("4 arms: llama.cpp, on 1, 2 threads, under 2 tests: "));
    assert!(foreign.contains("1 to 5 rounds of each arm, "));
    assert!(foreign.contains("Fastest of each layout") && !foreign.contains("speed was not measured"));

    for arm in &mut record.arms {
        arm.imported = None;
        arm.subject.engine = "tritmark".into();
        arm.subject.model = "random trits".into();
        arm.test =
            serde_json::from_value(json!({"kind": "kernel", "rows": 256, "cols": 256, "batch": 1})).unwrap();
        arm.speed.as_mut().unwrap().unit = "GMAC/s".into();
    }
    record.arms.dedup_by(|a, b| a.subject == b.subject);
    let kernels = page(&record);
    assert!(kernels.contains("<h1>Ternary kernels by themselves on CPUs</h1>"));
    assert!(kernels.contains("One matrix 256×256, batch 1"));
}

#[test]
fn markdown_keeps_names_apart_from_its_own_marks() {
    let (dir, _keep) = written("one", &one());
    let text = read(&dir, "report.md");
    // Between fences nothing is read as a mark, and nothing in there may end them.
    assert_eq!(text.matches("```").count(), 2);
    let prose: String = text.split("```").step_by(2).collect();
    assert!(!prose.contains("<script") && !prose.contains("<img"));
    // Each row of a table has as many cells as its head.
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = text.lines().collect();
    let mut tables = 0;
    for (i, line) in
        lines.iter().enumerate().filter(|(_, l)| l.starts_with("| ---") || l.starts_with("| ---:"))
    {
        tables += 1;
        for row in lines[i + 1..].iter().take_while(|l| l.starts_with('|')) {
            assert_eq!(cells(row), cells(line), "{row}");
        }
        assert_eq!(cells(lines[i - 1]), cells(line));
        assert!(lines[i + 1].starts_with('|'), "rows follow the head at once");
    }
    assert!(tables >= 8, "{tables} tables");
    // Something follows every heading.
    let marks: Vec<&str> = lines.iter().copied().filter(|l| !l.is_empty()).collect();
    for pair in marks.windows(2).filter(|p| p[0].starts_with('#') && p[1].starts_with('#')) {
        assert!(pair[1].starts_with("###") && !pair[0].starts_with("###"), "{pair:?}");
    }
    assert!(text.contains("10⁹ MACs a second") && text.contains("Size, perplexity and speed of decoding"));
}
