//! Every command of the README runs, in its order, with the program built here.

#![cfg(unix)]

use std::path::Path;
use std::process::Command;

/// The lines of all `sh` blocks.
fn commands(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && !line.trim().is_empty() {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn every_command_of_the_readme_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let lines = commands(&readme);
    assert!(lines.len() > 8, "the README shows commands");

    let mut script = String::from("set -e\n");
    for line in lines {
        match line.strip_prefix("cargo ") {
            // Itself: what calls it is compared instead.
            Some(cargo) if cargo.starts_with("test") => {
                let ci = std::fs::read_to_string(root.join("ci/test.sh")).expect("the test script");
                let command = line.split('#').next().unwrap_or(line).trim();
                assert!(ci.lines().any(|l| l.starts_with(command)), "ci/test.sh does not call `{command}`");
            }
            Some(cargo) => {
                let rest =
                    cargo.strip_prefix("run --release -- ").unwrap_or_else(|| panic!("unknown: {line}"));
                script += &format!("echo '$ {line}' >&2; tritmark {rest}\n");
            }
            None => {
                assert!(line.starts_with("tritmark "), "not a command of ours: {line}");
                script += &format!("echo {} >&2; {line}\n", quote(line));
            }
        }
    }

    let folder = tempfile::tempdir().expect("a folder");
    let bin = Path::new(env!("CARGO_BIN_EXE_tritmark")).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&folder)
        .env("PATH", path)
        .output()
        .expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // In a pipe the program is quiet: only our own echoes are on standard error.
    let noise: Vec<_> =
        stderr.lines().filter(|l| !l.starts_with("$ ") && !l.starts_with("tritmark ")).collect();
    assert!(noise.is_empty(), "{noise:#?}");
    assert!(folder.path().join("demo.gguf").is_file());
    let reports = std::fs::read_dir(folder.path().join("reports/out")).expect("the run's report").count();
    assert_eq!(reports, 1);
    assert!(folder.path().join("native-vs-ptq/report.html").is_file());
}

fn quote(line: &str) -> String {
    format!("'{}'", line.replace('\'', "'\\''"))
}
