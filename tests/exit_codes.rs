//! Bad input gives one clear error and the documented exit code.

use assert_cmd::Command;
use std::fs;

fn tritmark(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::cargo_bin("tritmark").expect("built").args(args).output().expect("runs");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[track_caller]
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let (found, stderr) = tritmark(args);
    assert_eq!(found, Some(code), "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?} should say '{word}': {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "{args:?}: {stderr}");
}

#[test]
fn usage_errors_are_2() {
    fails(&["frobnicate"], 2, &["frobnicate"]);
    fails(&["run", "quik"], 2, &["quik", "quick"]);
    fails(&["generate", "demo", "-p", "x", "--kernel", "i3_s"], 2, &["i3_s", "i2_s", "doctor"]);
    fails(&["generate", "demo", "-p", "x", "--kernel", "i2_s/sse9"], 2, &["sse9", "avx2"]);
    fails(&["generate", "demo", "-p", "x", "--threads", "0"], 2, &["threads"]);
    fails(&["synth", "9b", "-o", "nowhere"], 2, &["9b", "2b4t"]);
    fails(&["synth", "tiny", "-o", "nowhere", "--layers", "100000000"], 2, &["--layers", "4096"]);
    fails(&["ppl", "demo", "--n-ctx", "3000"], 2, &["windows of 3000", "2048", "n_ctx"]);
}

#[test]
#[cfg(target_os = "linux")]
fn full_outputs_do_not_hide_the_exit_code() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let program = || std::process::Command::new(assert_cmd::cargo::cargo_bin("tritmark"));
    let inspect = program().args(["inspect", "nofile"]).stderr(full()).status().expect("runs");
    assert_eq!(inspect.code(), Some(5));
    for args in [&["--help"][..], &["bench", "--help"], &["--version"], &["formats"]] {
        let output = program().args(args).stdout(full()).output().expect("runs");
        assert_eq!(output.status.code(), Some(74), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{args:?}");
    }
    for args in [&["convert", "demo", "/proc/x.gguf"][..], &["run", "quick", "-o", "/proc/x"]] {
        let output = program().args(args).output().expect("runs");
        assert_eq!(output.status.code(), Some(74), "{args:?}");
    }
}

#[test]
fn what_cannot_be_written_is_told_before_it_is_measured() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().to_str().expect("UTF-8");
    let inside = dir.path().join("none/record.json");
    let inside = inside.to_str().expect("UTF-8");
    for command in ["bench", "ppl", "eval"] {
        let args = |path| {
            if command == "bench" {
                vec![command, "--record", path]
            } else {
                vec![command, "demo", "--record", path]
            }
        };
        fails(&args(folder), 2, &[folder, "is a folder"]);
        fails(&args(inside), 2, &["none", "no folder"]);
    }
}

#[test]
fn a_kernel_that_this_cpu_lacks_is_a_usage_error() {
    let lacking = if cfg!(target_arch = "x86_64") { "i2_s/neon" } else { "i2_s/avx2" };
    fails(&["generate", "demo", "-p", "x", "--kernel", lacking], 2, &[lacking.split_once('/').unwrap().1]);
}

#[test]
fn bad_files_are_5() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    fails(&["inspect", &path("missing")], 5, &["missing"]);
    fails(&["compare", &path("missing"), &path("missing")], 5, &["missing", "no such file"]);
    fails(&["compare", &path(""), &path("")], 5, &["found a directory"]);
    fails(&["ppl", "demo", &path("missing")], 5, &["missing", "no such file"]);
    fails(&["run", &path("missing.toml")], 5, &["missing.toml", "no such file"]);
    fails(&["import", &path("missing"), "-o", &path("never.json")], 5, &["missing", "no such file"]);
    fs::create_dir(path("folder")).expect("made");
    fs::write(path("folder/one.gguf"), "x").expect("written");
    fails(&["inspect", &path("folder")], 5, &["one.gguf"]);

    let truncated = path("truncated.safetensors");
    fs::write(&truncated, [0xff; 6]).expect("written");
    fails(&["inspect", &truncated], 5, &["truncated.safetensors"]);

    let empty = path("empty");
    fs::create_dir(&empty).expect("made");
    fails(&["inspect", &empty], 5, &["empty", "model.safetensors"]);

    let text = path("notes.txt");
    fs::write(&text, "hello").expect("written");
    fails(&["inspect", &text], 5, &["notes.txt", "gguf"]);
}

#[test]
fn a_shape_that_a_layout_cannot_hold_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("odd").to_str().expect("UTF-8").to_owned();
    let made = Command::cargo_bin("tritmark")
        .expect("built")
        .args(["synth", "tiny", "--ffn", "324", "--hidden", "192", "--head-dim", "32", "-o", &model])
        .output()
        .expect("runs");
    assert!(made.status.success());
    let (code, stderr) =
        tritmark(&["logits", &model, "--ids", "1,2", "--kernel", "tq2_0", "-o", "never.safetensors"]);
    assert!(matches!(code, Some(2 | 5)), "{code:?} {stderr}");
    assert!(stderr.contains("256") && stderr.contains("tq2_0"), "{stderr}");
}
