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
fn outputs_replace_neither_inputs_nor_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let [model, ids, text, questions] = ["m.gguf", "ids.txt", "text.txt", "q.jsonl"].map(path);
    let made = Command::cargo_bin("tritmark").expect("built").args(["convert", "demo", &model]).output();
    assert!(made.expect("runs").status.success());
    fs::write(&ids, "1 2 3\n").expect("written");
    fs::write(&text, "Fellow citizens of the Senate. ".repeat(200)).expect("written");
    let question = r#"{"context": "It is", "choices": ["so", "not"], "answer": 0}"#;
    fs::write(&questions, question).expect("written");
    let before = [&model, &ids, &text, &questions].map(|file| fs::read(file).expect("there"));
    let replaced = ["would replace", "choose another name"];
    fails(&["logits", &model, "--ids", "1", "-o", &model], 2, &replaced);
    fails(&["logits", "demo", "--ids", &ids, "-o", &ids], 2, &replaced);
    fails(&["ppl", "demo", &text, "--record", &text], 2, &replaced);
    fails(&["ppl", "demo", &path(""), "--save-logits", &text], 2, &replaced);
    fails(&["ppl", &model, &text, "--state", &model], 2, &replaced);
    fails(&["eval", "demo", &questions, "--save", &questions], 2, &replaced);
    fails(&["bench", "-m", &model, "--record", &model], 2, &replaced);
    fails(&["import", &text, "-o", &text], 2, &replaced);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&model, path("link.gguf")).expect("linked");
        fails(&["logits", &path("link.gguf"), "--ids", "1", "-o", &model], 2, &replaced);
    }
    let one = path("one");
    let twice = ["two outputs cannot be one file"];
    fails(&["ppl", "demo", "--limit", "1", "--save-logits", &one, "--record", &one], 2, &twice);
    let other = path("./one");
    fails(&["eval", "demo", "--limit", "2", "--save", &one, "--record", &other], 2, &twice);
    assert_eq!(before, [&model, &ids, &text, &questions].map(|file| fs::read(file).expect("there")));
    // What was measured of a folder may lie in it, and be measured again.
    let folder = path("");
    let record = path("record.json");
    for _ in 0..2 {
        let args = ["ppl", "demo", &folder, "--n-ctx", "64", "--limit", "1", "--record", &record];
        let run = Command::cargo_bin("tritmark").expect("built").args(args).output().expect("runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    assert!(!dir.path().join("one").exists());
}

#[test]
#[cfg(unix)]
fn logits_go_into_a_pipe_that_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("runs").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).expect("read")
    });
    let args = ["ppl", "demo", "--n-ctx", "16", "--limit", "1", "--save-logits"];
    let run = Command::cargo_bin("tritmark").expect("built").args(args).arg(&pipe).output().expect("runs");
    assert!(run.status.success());
    let bytes = reader.join().expect("read");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a whole file");
    assert_eq!(tensors.tensor("subject").expect("logits").shape()[0], 7);
    let kind = fs::metadata(&pipe).expect("still there").file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
}

#[test]
fn options_that_do_not_apply_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("m.gguf").to_str().expect("UTF-8").to_owned();
    let made = Command::cargo_bin("tritmark").expect("built").args(["convert", "demo", &model]).output();
    assert!(made.expect("runs").status.success());
    fails(&["inspect", "demo", "--dialect", "i2_s"], 2, &["--dialect", "GGUF"]);
    fails(&["inspect", &model, "--dialect", "tq2_0"], 5, &["no tensor has the type of tq2_0"]);
    fails(&["inspect", &model, "--family", "llama"], 5, &["not of the family llama", "has sub-norms"]);
    fails(&["eval", "demo", "sotu", "--task", "piqa"], 2, &["--task", "built in"]);
    for option in [["--family", "x"], ["--dialect", "x"], ["--ptq", "absmean"]] {
        fails(&[&["bench", "--level", "kernel"][..], &option].concat(), 2, &[option[0], "whole models"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_system_refuses_is_no_bug() {
    let program = assert_cmd::cargo::cargo_bin("tritmark");
    let script =
        format!("ulimit -v 3000000; exec {} bench -p 8 -n 0 -t 4096 -r 1 --quick -o none", program.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("error: the system refuses") && !said.contains("panicked"), "{said}");
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
