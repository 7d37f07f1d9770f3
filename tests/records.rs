//! `compare`, `merge` and `import` as a user runs them.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with the example record and changed copies of it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the example, changed.
    fn record(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/record.json");
        let mut record: Value = serde_json::from_slice(&fs::read(example).unwrap()).unwrap();
        change(&mut record);
        let path = self.path(name);
        fs::write(&path, record.to_string()).unwrap();
        path
    }
}

/// Multiplies the speed of the tg arm.
fn scale_tg(record: &mut Value, factor: f64) {
    let speed = &mut record["arms"][1]["speed"];
    for sample in speed["samples"].as_array_mut().unwrap() {
        *sample = (sample.as_f64().unwrap() * factor).into();
    }
    for field in ["median", "mad"] {
        speed[field] = (speed[field].as_f64().unwrap() * factor).into();
    }
    for end in speed["interval"].as_array_mut().unwrap() {
        *end = (end.as_f64().unwrap() * factor).into();
    }
}

fn tritmark() -> Command {
    Command::cargo_bin("tritmark").unwrap()
}

/// Runs the program and gives its exit code, standard output and standard error.
fn run(args: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = tritmark().args(args).args(paths).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_verdict_reaches_those_who_read_no_further() {
    let folder = Folder::new();
    let (a, b) = (folder.record("a.json", |_| ()), folder.record("b.json", |r| scale_tg(r, 0.5)));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tritmark"))
        .args(["compare", "--fail-on", "tg>3%", "-o", "junit"])
        .args([a, b])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("worse than allowed"), "{err}");
}

#[test]
fn a_record_compared_with_itself_is_the_same() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let gates = ["compare", "--fail-on", "speed>0%", "--fail-on", "ppl>0", "--json"];
    let (code, out, err) = run(&gates, &[&a, &a]);
    assert_eq!(code, 0, "{err}");
    let comparisons: Value = serde_json::from_str(&out).unwrap();
    let rows = comparisons[0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|r| r["verdict"] == "same"), "{out}");
}

#[test]
fn exit_codes_tell_regression_inconclusive_and_not_comparable() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let slow = folder.record("slow.json", |r| scale_tg(r, 0.9));
    let other = folder.record("other.json", |r| r["environment"]["cpu"] = "Other".into());
    let code = |args: &[&str], b: &Path| run(&[&["compare"], args].concat(), &[&a, b]).0;
    assert_eq!(code(&[], &slow), 0);
    assert_eq!(code(&["--fail-on", "tg>3%"], &slow), 1);
    assert_eq!(code(&["--fail-on", "pp>3%"], &slow), 0);
    assert_eq!(code(&["--fail-on", "energy>3%"], &slow), 3);
    assert_eq!(code(&[], &other), 4);
    assert_eq!(code(&["--force"], &other), 0);
    assert_eq!(code(&["--fail-on", "tg>3"], &slow), 2);
    let (code, out, err) = run(&["compare", "--fail-on", "tg>3%"], &[&a, &slow]);
    assert_eq!(code, 1);
    assert!(out.contains("slower") && err.contains("tg128"), "{out}{err}");
}

#[test]
fn several_records_have_geometric_means() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let b = folder.record("b.json", |r| scale_tg(r, 0.81));
    let c = folder.record("c.json", |r| scale_tg(r, 1.21));
    let (code, out, _) = run(&["compare", "-o", "md"], &[&a, &b, &c]);
    assert_eq!(code, 0);
    // Two speeds, of which one changed: the roots of 0.81 and 1.21.
    assert!(out.contains("b.json: 0.9000") && out.contains("c.json: 1.1000"), "{out}");
    assert!(out.contains("**slower**") && out.contains("| faster"), "{out}");
}

#[test]
fn outputs_for_other_programs_are_well_formed() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let b = folder.record("b&.json", |r| scale_tg(r, 0.9));
    let output = |format: &str| run(&["compare", "-o", format], &[&a, &b]).1;
    let junit = output("junit");
    assert!(junit.contains("failures=\"1\"") && junit.contains("b&amp;.json"), "{junit}");
    assert_eq!(junit.matches("<testcase").count(), junit.matches("</testcase>").count());

    let gated = run(&["compare", "-o", "junit", "--fail-on", "tg>50%", "--fail-on", "kernel>1%"], &[&a, &b]);
    assert!(gated.0 == 3 && gated.1.contains("failures=\"0\" skipped=\"1\""), "{gated:?}");
    assert!(gated.1.contains("time=\"12"), "{gated:?}");
    let measured = |r: &mut Value| {
        let energy = json!({ "measured": {
            "source": "s", "domain": "d", "gross_joules": 20.0, "net_joules": null, "idle_watts": null,
            "seconds": 10.0, "tokens": 10, "joules_per_token": 2.0, "warnings": [],
        }});
        r["arms"][0]["energy_measured"] = energy.clone();
        r["arms"][1]["energy_measured"] = energy;
    };
    let metered = folder.record("metered.json", measured);
    let lost = folder.record("lost.json", |r| {
        measured(r);
        r["arms"][1]["energy_measured"] = json!({ "not_measured": "no meter" });
    });
    let gated = run(&["compare", "-o", "junit", "--fail-on", "energy>5%"], &[&metered, &lost]);
    assert!(gated.0 == 3 && gated.1.contains("failures=\"0\" skipped=\"1\""), "{gated:?}");
    assert!(gated.1.contains("<skipped message=\"it was measured by s (d) before"), "{gated:?}");
    assert!(gated.2.contains("tg128: it was measured by s (d) before and not after: no meter"), "{gated:?}");

    let merged = folder.path("merged.json");
    let elsewhere = folder.record("c.json", |r| r["environment"]["host"] = "elsewhere".into());
    assert_eq!(run(&["merge", "-o", merged.to_str().unwrap()], &[&a, &elsewhere]).0, 0);
    let bencher: Value =
        serde_json::from_str(&run(&["compare", "-o", "bencher"], &[&merged, &merged]).1).unwrap();
    assert_eq!(bencher.as_object().unwrap().len(), 6, "{bencher}");

    let github: Value = serde_json::from_str(&output("github")).unwrap();
    assert_eq!(github.as_array().unwrap().len(), 2);
    assert!(github[1]["value"].as_f64().unwrap() < 91.0 && github[1]["unit"] == "tokens/s");

    let bencher: Value = serde_json::from_str(&output("bencher")).unwrap();
    let tg = &bencher["toy: tritmark tm2/avx2, 2 threads: tg128"]["tokens-per-second"];
    assert!(tg["lower_value"].as_f64() <= tg["upper_value"].as_f64() && tg["value"].is_f64(), "{bencher}");
}

#[test]
fn broken_records_name_the_field_and_exit_with_5() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let broken = folder.record("broken.json", |r| r["arms"][1]["speed"]["samples"][3] = "fast".into());
    let (code, _, err) = run(&["compare"], &[&a, &broken]);
    assert_eq!(code, 5);
    assert!(err.contains("broken.json") && err.contains("arms[1].speed.samples[3]"), "{err}");
    let newer = folder.record("newer.json", |r| r["schema"] = 99.into());
    let (code, _, err) = run(&["compare"], &[&a, &newer]);
    assert_eq!(code, 5);
    assert!(err.contains("99") && err.contains("update tritmark"), "{err}");
    let text = folder.path("text.json");
    fs::write(&text, "hello").unwrap();
    let empty = folder.path("empty.json");
    fs::write(&empty, "{\"schema\": 1, \"records\": []}").unwrap();
    let (code, _, err) = run(&["compare"], &[&empty, &empty]);
    assert!(code == 5 && err.contains("holds no record"), "{err}");
    assert_eq!(run(&["compare"], &[&a, &text]).0, 5);
}

#[test]
fn merged_machines_are_read_and_compared_again() {
    let folder = Folder::new();
    let a = folder.record("a.json", |_| ());
    let other = folder.record("other.json", |r| r["environment"]["cpu"] = "Other".into());
    let merged = folder.path("merged.json");
    let (code, out, err) = run(&["merge", "-o", merged.to_str().unwrap()], &[&a, &other]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 records became 2, with 6 arms"), "{out}");
    let (code, out, _) = run(&["compare"], &[&merged, &merged]);
    assert_eq!(code, 0);
    assert!(out.contains("on Other") && out.contains("on Example CPU 3000"), "{out}");
    let contradicting = folder.record("slow.json", |r| scale_tg(r, 0.9));
    let (code, _, err) = run(&["merge", "-o", merged.to_str().unwrap()], &[&a, &contradicting]);
    assert!(code == 4 && err.contains("slow.json"), "{err}");
}

#[test]
fn shards_merge_in_any_order() {
    let folder = Folder::new();
    let shard = |arm: usize, speed: f64| {
        folder.record(&format!("{arm}.json"), |r| {
            r["environment"]["host"] = Value::Null;
            r["arms"] = json!([r["arms"][arm]]);
            let read = json!([{ "level": "RAM", "bytes": 1 << 26, "threads": 1, "gb_per_s": speed }]);
            r["limits"] = json!({ "measured": { "read": read, "int8": [], "f32": [], "method": [] } });
        })
    };
    // A machine that others use moves: the first and the last alone would be two.
    let shards = [shard(0, 10.0), shard(1, 10.8), shard(2, 11.6)];
    let merged = folder.path("merged.json");
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let paths = order.map(|i: usize| shards[i].as_path());
        let (code, out, err) = run(&["merge", "-o", merged.to_str().unwrap()], &paths);
        assert!(code == 0 && out.contains("3 records became 1"), "{order:?}: {out}{err}");
    }
}

#[test]
fn llama_bench_rows_become_a_foreign_record() {
    let folder = Folder::new();
    let rows = folder.path("rows.jsonl");
    let row = |n: u32, speed: f64| {
        format!(
            "{{\"build_commit\": \"5dc9dd71\", \"build_number\": 3960, \"cpu_info\": \"CPU\", \"model_filename\": \"m.gguf\", \
             \"model_type\": \"bitnet\", \"n_threads\": 2, \"n_prompt\": 0, \"n_gen\": {n}, \"test_time\": \"2026-01-01T00:00:00Z\", \
             \"avg_ts\": {speed}, \"samples_ts\": [{speed}, {speed}]}}\n"
        )
    };
    fs::write(&rows, row(32, 20.5) + &row(128, 19.5)).unwrap();
    let record = folder.path("record.json");
    let (code, out, err) = run(&["import", "-o", record.to_str().unwrap(), "--json"], &[&rows]);
    assert_eq!(code, 0, "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["tool"]["name"], "llama.cpp");
    assert!(json["arms"][1]["imported"].as_str().unwrap().contains("build 3960"));
    assert_eq!(run(&["compare"], &[&record, &record]).0, 0);
    let ours = folder.record("a.json", |_| ());
    assert_eq!(run(&["compare"], &[&record, &ours]).0, 4);
    for name in ["--text", "--model", "--program"] {
        let (code, _, err) = run(&["import", name, "", "-o", record.to_str().unwrap()], &[&rows]);
        assert!(code == 2 && err.contains(name), "{err}");
    }
}
