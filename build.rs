//! Records what the binary was built from and with: compiler, target, profile, features, revision.

use std::path::Path;
use std::process::Command;

fn main() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let rustc = output(Command::new(var("RUSTC")).arg("--version")).unwrap_or_default();
    set("RUSTC_VERSION", &rustc);
    set("TARGET", &var("TARGET"));
    set("PROFILE", &var("PROFILE"));
    set("TARGET_FEATURES", &var("CARGO_CFG_TARGET_FEATURE"));

    // Outside of a git tree both stay empty. The tree counts as dirty by its tracked files only.
    let git = |args: &[&str]| output(Command::new("git").args(args));
    let revision = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    set("GIT_REVISION", &revision);
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]);
    set("GIT_DIRTY", dirty.map_or("", |d| if d.is_empty() { "false" } else { "true" }));

    // A commit moves HEAD's log, and each edited source changes what is dirty.
    for path in ["build.rs", "Cargo.toml", "src", "kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|p| Path::new(p).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What a command printed, where it ran and succeeded.
fn output(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn set(name: &str, value: &str) {
    println!("cargo::rustc-env=TRITMARK_{name}={value}");
}
