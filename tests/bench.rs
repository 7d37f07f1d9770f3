//! `bench` and `doctor` as a user runs them.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;

fn tritmark(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("tritmark").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The shortest measurement that is one.
const SHORT: [&str; 6] = ["bench", "--quick", "--rounds", "2", "--min-time", "0.001"];

fn bench(args: &[&str]) -> (i32, String, String) {
    tritmark(&[&SHORT, args].concat())
}

#[test]
fn models_kernels_threads_and_tests_give_a_row_each() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("r.json");
    let record = record.to_str().unwrap();
    let (code, out, err) = bench(&[
        "-m",
        "demo",
        "-p",
        "8",
        "-n",
        "2",
        "-pg",
        "4,2",
        "-d",
        "0,3",
        "-t",
        "1-2",
        "-k",
        "tm2/scalar,i2_s/scalar",
        "-o",
        "jsonl",
        "--anonymise",
        "--record",
        record,
    ]);
    assert_eq!(code, 0, "{err}");
    let rows: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    // Three tests at two depths, two kernels, two thread counts.
    assert_eq!(rows.len(), 24);
    for row in &rows {
        let tokens = row["n_prompt"].as_f64().unwrap() + row["n_gen"].as_f64().unwrap();
        let (ns, ts) = (row["samples_ns"][0].as_f64().unwrap(), row["samples_ts"][0].as_f64().unwrap());
        assert!((ns * 1e-9 * ts / tokens - 1.0).abs() < 1e-9, "{row}");
        assert!(row["bound"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["latency_p50_ms"].is_f64(), row["n_gen"] != 0);
        assert_eq!(row["first_token_ms"].is_f64(), row["n_prompt"] != 0);
        assert!(row["modelled_joules_per_token_7nm"].as_f64().unwrap() > 0.0);
    }
    let json: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(json["arms"].as_array().unwrap().len(), 24);
    assert!(json["environment"]["host"].is_null());
    assert_eq!(json["controls"].as_array().unwrap().len(), 4);
    // The record can be compared, and holds nothing that compare does not read.
    assert_eq!(tritmark(&["compare", record, record]).0, 0);
}

#[test]
fn kernels_alone_are_measured_in_every_form() {
    let rows = |format: &str| {
        let args = [
            "--level", "kernel", "--shape", "64x256", "--batch", "1,8", "-t", "1", "-k", "tm2", "-o", format,
        ];
        let (code, out, err) = bench(&args);
        assert_eq!(code, 0, "{err}");
        out
    };
    let json: Value = serde_json::from_str(&rows("json")).unwrap();
    assert_eq!(json[1]["test"], "64x256 n8");
    assert!(json[1]["unit"] == "GMAC/s" && json[1]["n_prompt"].is_null(), "{json}");
    // 32 rows × 256 columns are 2 KiB, and serve 8 tokens.
    let [speed, read] = ["median", "weights_gb_per_s"].map(|name| json[1][name].as_f64().unwrap());
    assert!((read / (speed / 8.0 / 4.0) - 1.0).abs() < 1e-9, "{speed} GMAC/s, {read} GB/s");
    let text = rows("csv");
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(csv.records().filter(|r| r.is_ok()).count(), 2);
    let sql = rows("sql");
    assert!(
        sql.starts_with("CREATE TABLE IF NOT EXISTS") && sql.matches("INSERT INTO").count() == 2,
        "{sql}"
    );
    let table = rows("md");
    let lines: Vec<&str> = table.lines().take_while(|l| l.starts_with('|')).collect();
    assert_eq!(lines.len(), 4, "{table}");
    let columns = |l: &str| l.matches('|').count();
    assert!(lines.iter().all(|l| columns(l) == columns(lines[0])), "{table}");
}

#[test]
fn tests_that_are_named_twice_are_measured_once() {
    let tests = |args: &[&str]| {
        let (code, out, err) = bench(&[args, &["-t", "1", "-k", "tm2/scalar", "-o", "jsonl"]].concat());
        assert_eq!(code, 0, "{err}");
        let row =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["test"].as_str().unwrap().to_owned();
        out.lines().map(row).collect::<Vec<_>>()
    };
    let args = ["-p", "3", "-n", "2", "-pg", "4,2", "-pg", "0,2", "-pg", "3,0", "-pg", "4,2"];
    let mut found = tests(&args);
    found.sort();
    assert_eq!(found, ["pp3", "pp4+tg2", "tg2"]);
    let args = ["--level", "kernel", "--shape", "64x256,32x256", "--shape", "64x256", "--batch", "1"];
    assert_eq!(tests(&args), ["64x256 n1", "32x256 n1"]);
}

#[test]
fn options_of_llama_bench_that_mean_nothing_here_are_named_once() {
    let pasted = "-m demo -p 2 -n 0 -t 1 -r 2 -b 2048 -ub 512 -ngl 99 -fa 1 -ctk f32 --mmap 1 --delay 0 --prio 0 \
                  --progress -v --no-warmup --poll 50 -nkvo 0 -o csv -oe jsonl";
    let args: Vec<&str> = pasted.split_whitespace().collect();
    let (code, out, err) = tritmark(&[&["bench", "--quick", "--min-time", "0.001"], &args[..]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 2, "{out}");
    let note = err.lines().find(|l| l.starts_with("note: without effect")).unwrap();
    assert!(note.contains("-b, -ub, -ngl, -fa, -ctk, --mmap, --delay, --prio, --progress"), "{note}");
    let row = err.lines().find(|l| l.starts_with('{')).unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    assert!(row["test"] == "pp2" && row["noise"].is_string(), "{row}");
}

#[cfg(feature = "reference")]
#[test]
fn the_reference_is_an_arm_of_prompts() {
    let (code, out, err) =
        bench(&["-p", "4", "-n", "1", "-t", "1", "-k", "tm2/scalar", "--reference", "-o", "jsonl"]);
    assert_eq!(code, 0, "{err}");
    let engines: Vec<Value> =
        out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["engine"].take()).collect();
    assert_eq!(engines, ["tritmark", "candle", "tritmark"]);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for (args, said) in [
        (&["-p", "0", "-n", "0"][..], "nothing to measure"),
        (&["-t", "0"], "1 to 4096"),
        (&["-t", "100000"], "1 to 4096"),
        (&["--reference", "-p", "0"], "prompts alone"),
        (&["--level", "kernel", "--shape", "1048576x1048576"], "more than"),
        (&["-k", "fast"], "unknown kernel"),
        (&["-p", "x"], "is no number"),
        (&["-p", "100000"], "positions"),
        (&["-pg", "5"], "PROMPT,GENERATE"),
        (&["--level", "kernel", "--shape", "5"], "ROWSxCOLS"),
        (&["--level", "kernel", "--shape", "8x100", "-k", "i2_s"], "i2_s cannot hold"),
        (&["--budget", "-1"], "0 to 86400"),
        (&["-ctk"], "-ctk: a value is missing"),
        (&["--flash_attn"], "--flash_attn: a value is missing"),
        (&["-fa", "-p", "2"], "-fa: a value is missing"),
        (&["-mmp", "--reference"], "-mmp: a value is missing"),
        (&["-ctk", "q8_0"], "f32"),
        (&["-hf", "a/b"], "nothing is downloaded"),
        (&["-embd", "1"], "text"),
        (&["--numa", "distribute"], "numactl"),
        (&["--list-devices"], "doctor"),
        (&["--level", "kernel", "--tdp", "65"], "--level kernel"),
        (&["--level", "kernel", "-d", "3"], "-d is of whole models"),
        (&["--batch", "3"], "--batch is of kernels alone"),
        (&["--level", "kernel", "--batch", "0"], "a token at least"),
        (&["--level", "kernel", "--shape", "32x1048576", "--batch", "1000000"], "at most 256"),
        (&["--tdp", "2000000"], "1000000"),
    ] {
        let (code, _, err) = bench(args);
        assert!(code == 2 && err.contains(said), "{args:?}: {code} {err}");
    }
    let (code, _, err) = tritmark(&["bench", "--min-time", "-1"]);
    assert!(code == 2 && err.contains("0 to 86400"), "{code} {err}");
    let (code, _, err) = bench(&["-m", "/nowhere/model"]);
    assert!([5, 74].contains(&code) && err.contains("/nowhere/model"), "{code} {err}");
}

#[test]
fn what_is_left_out_and_the_tuning_are_told_in_every_form() {
    let few = ["--level", "kernel", "--shape", "6x7", "--batch", "1", "-t", "1", "-k", "all", "-o"];
    for form in ["md", "csv", "none"] {
        let (code, out, err) = bench(&[&few[..], &[form]].concat());
        assert_eq!(code, 0, "{err}");
        let told = if form == "md" { &out } else { &err };
        assert!(told.contains("Left out: tl1 cannot hold"), "{form}: {told}");
        assert_eq!(out.is_empty(), form == "none");
        assert_eq!(
            out.contains("tables from") || out.contains("multiply-adds on one thread"),
            form != "none"
        );
    }
}

#[test]
fn doctor_lists_kernels_and_says_why_energy_is_not_measured() {
    let (code, out, err) = tritmark(&["doctor", "--json", "--anonymise"]);
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let kernels = found["kernels"].as_array().unwrap();
    for layout in ["hf", "i2_s", "tq1_0", "tq2_0", "tm2"] {
        let of_layout: Vec<&Value> = kernels.iter().filter(|k| k["layout"] == layout).collect();
        assert_eq!(of_layout.iter().filter(|k| k["chosen"] == true).count(), 1, "{layout}");
        assert!(of_layout.iter().any(|k| k["tier"] == "scalar" && k["available"] == true));
        assert!(of_layout.iter().all(|k| k["available"] == k["way"].is_string()), "{of_layout:?}");
    }
    let energy = &found["energy"];
    let sources = energy["sources"].as_array().unwrap();
    assert!(!sources.is_empty() || !energy["refused"].as_array().unwrap().is_empty());
    assert!(found["environment"]["host"].is_null() && found["environment"]["threads"].as_u64() > Some(0));
    let (code, text, _) = tritmark(&["doctor"]);
    assert!(code == 0 && text.contains("Kernels") && text.contains("tm2"), "{text}");
    assert_eq!(found["steal_since_start"].is_number(), text.contains("since the system started"), "{text}");
}

#[test]
fn a_tuning_is_stored_and_used_until_the_cpu_changes() {
    let dir = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| {
        let mut command = Command::cargo_bin("tritmark").unwrap();
        let output =
            command.args(["doctor", "--json"]).args(args).env("XDG_CONFIG_HOME", dir.path()).output();
        let output = output.unwrap();
        assert!(output.status.success());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (found, String::from_utf8(output.stderr).unwrap())
    };
    let (found, _) = doctor(&["--tune"]);
    let path = dir.path().join("tritmark/tuning.json");
    assert_eq!(found["tuned"], path.to_str().unwrap());
    let mut stored: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    stored["tasks"] = 5.into();
    fs::write(&path, stored.to_string()).unwrap();
    let (found, said) = doctor(&[]);
    let tuning = found["environment"]["tuning"].as_str().unwrap();
    assert!(tuning.starts_with("stored: ") && tuning.ends_with("5 tasks a thread"), "{tuning}");
    assert_eq!(said, "");
    stored["cpu"] = "another".into();
    fs::write(&path, stored.to_string()).unwrap();
    let (found, said) = doctor(&[]);
    assert!(found["environment"]["tuning"].as_str().unwrap().starts_with("default: "));
    assert!(said.contains("'another'") && said.contains(path.to_str().unwrap()), "{said}");
    // What is no file is not waited for.
    #[cfg(unix)]
    {
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (_, said) = doctor(&[]);
        assert!(said.contains("it is no file"), "{said}");
    }
}

/// A tree in which a package's counter can be read by its owner only.
#[cfg(unix)]
#[test]
fn a_counter_that_one_may_not_read_is_explained_with_the_remedy() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    let zone = dir.path().join("sys/class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("name"), "package-0\n").unwrap();
    fs::write(zone.join("max_energy_range_uj"), "1000000\n").unwrap();
    fs::write(zone.join("energy_uj"), "1\n").unwrap();
    open(&zone.join("energy_uj"), 0o400);
    // Root may read everything, so the program has to run as somebody else, from where they may.
    let program = dir.path().join("tritmark");
    // Copied by another process: what a test beside this one starts would inherit a file that is open for writing
    // here, and a program that somebody may write to is not run.
    let copied =
        std::process::Command::new("cp").arg(assert_cmd::cargo::cargo_bin("tritmark")).arg(&program).status();
    assert!(copied.unwrap().success());
    open(&program, 0o755);
    let mut command = std::process::Command::new(&program);
    command.args(["doctor", "--json", "--energy-root"]).arg(dir.path()).current_dir(dir.path());
    if fs::metadata(dir.path()).unwrap().uid() == 0 {
        command.uid(65534);
    } else {
        open(&zone.join("energy_uj"), 0o000);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["energy"]["sources"], serde_json::json!([]));
    let remedy = format!("`sudo chmod a+r {}/sys/class/powercap/*/energy_uj`", dir.path().display());
    assert!(found["energy"]["refused"][0].as_str().unwrap().contains(&remedy), "{found}");
}

#[test]
fn energy_is_measured_below_another_root_and_rated_power_is_modelled_apart() {
    let dir = tempfile::tempdir().unwrap();
    let chip = dir.path().join("sys/class/hwmon/hwmon0");
    fs::create_dir_all(&chip).unwrap();
    fs::write(chip.join("name"), "power_meter\n").unwrap();
    fs::write(chip.join("power1_average"), "40000000\n").unwrap();
    let root = dir.path().to_str().unwrap();
    let record = dir.path().join("r.json");
    // A sensor that never changes is none.
    let power = chip.join("power1_average");
    let done = std::sync::atomic::AtomicBool::new(false);
    let args = ["-p", "4", "-n", "0", "-t", "1", "-k", "tm2/scalar", "--energy-root", root, "--tdp", "65"];
    let (code, out, err) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for microwatts in ["40000000", "40000001"] {
                    fs::write(chip.join("new"), microwatts).unwrap();
                    fs::rename(chip.join("new"), &power).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
        });
        let result = bench(&[&args[..], &["-o", "jsonl", "--record", record.to_str().unwrap()]].concat());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    });
    assert_eq!(code, 0, "{err}");
    let row: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    let number = |name: &str| row[name].as_f64().unwrap();
    assert_eq!(row["energy_source"], "hwmon power_meter hwmon0/power1 (power_meter power1)");
    let measured: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let measured = &measured["arms"][0]["energy_measured"]["measured"];
    let watts = measured["gross_joules"].as_f64().unwrap() / measured["seconds"].as_f64().unwrap();
    assert!((watts / 40.0 - 1.0).abs() < 0.05, "{watts}");
    assert!(number("energy_window_s") >= 2.0);
    let warnings = row["energy_warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|w| w.as_str().unwrap().starts_with("Too short")), "{warnings:?}");
    assert!((number("modelled_joules_per_token_tdp") * number("median") / 65.0 - 1.0).abs() < 1e-12);
    let (code, _, err) = bench(&["--tdp", "0"]);
    assert!(code == 2 && err.contains("watts above 0"), "{err}");
}

/// A suite of two tests and its folder.
struct Suite(tempfile::TempDir);

impl Suite {
    fn new() -> Self {
        let suite = Suite(tempfile::tempdir().unwrap());
        let text = "description = \"tiny\"\nmodels = [\"demo\"]\nlayouts = [\"i2_s\", \"tm2\"]\ntiers = [\"best\"]\n\
                    threads = [\"1\"]\n[speed]\nthreads = [\"1\"]\nprompts = [4, 8]\ngenerate = []\nrounds = 40\n\
                    min_time_s = 0.002\nwarmup_s = 0.02\nenergy_s = 0.1\nreference = true\n";
        fs::write(suite.0.path().join("tiny.toml"), text).unwrap();
        suite
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("tritmark"));
        command.current_dir(&self.0).args(["run", "tiny.toml", "-o", "out"]).args(args);
        command
    }

    fn journal(&self) -> std::path::PathBuf {
        self.0.path().join("out/unfinished.jsonl")
    }

    /// Starts the run and kills it as soon as the journal holds that many lines of a kind.
    fn killed_at(&self, count: usize, kind: &str) {
        let quiet = std::process::Stdio::null;
        let mut child = self.command(&[]).stdout(quiet()).stderr(quiet()).spawn().unwrap();
        // A line that is seen in part may be cut by the kill.
        let start = format!("{{\"{kind}\"");
        let seen = |text: String| {
            text.lines().filter(|l| l.starts_with(&start)).count() >= count && text.ends_with('\n')
        };
        while !fs::read_to_string(self.journal()).is_ok_and(seen) {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before {count} {kind}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_run_that_is_killed_twice_among_its_arms_continues_with_the_arms_that_are_left() {
    let suite = Suite::new();
    suite.killed_at(1, "arm");
    // None is finished, as if the kill had come while energy was measured.
    let text = fs::read_to_string(suite.journal()).unwrap();
    assert!(!text.contains("tiny"), "the suite, whose models may be paths, is there as a hash: {text}");
    let arm = |line: &&str| line.starts_with("{\"arm\"");
    let kept = text.lines().take_while(|l| !arm(l)).map(|l| format!("{l}\n")).collect::<String>();
    let sampled: Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    fs::write(suite.journal(), kept + "{\"arm\": cut").unwrap();
    suite.killed_at(2, "arm");
    let text = fs::read_to_string(suite.journal()).unwrap();
    let output = suite.command(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["resumed"], true);
    let found = record["arms"].as_array().unwrap();
    // Two kernels, and the reference where it is built in, under two prompts.
    assert_eq!(found.len(), if cfg!(feature = "reference") { 6 } else { 4 });
    let first: Value = serde_json::from_str(text.lines().find(arm).unwrap()).unwrap();
    assert!(found.contains(&first["arm"]), "the arm that was finished is taken over");
    let sampled = sampled["sampled"][0].as_array().unwrap();
    assert_eq!(sampled.len(), found.len());
    for (sampled, found) in sampled.iter().zip(found) {
        assert_eq!(sampled["speed"], found["speed"], "the rounds that were over are taken over");
        assert!(sampled["energy_measured"].is_null() && !found["energy_measured"].is_null());
    }
    // The suite is a file of the user's, so that its text goes with the record and stands in the page.
    let own = fs::read_to_string(suite.0.path().join("tiny.toml")).unwrap();
    assert_eq!(record["suite_text"], own.as_str());
    let page = fs::read_to_string(suite.0.path().join("out/report.html")).unwrap();
    assert!(page.contains("tiny.toml, a file to be made first") && page.contains("warmup_s = 0.02"));
    let load = &found[0]["speed"]["load"];
    assert!(load["seconds"].as_f64().unwrap() > 0.0 && load["threads"] == 1, "{load}");
    assert_eq!(load["bytes"], record["models"][0]["file_bytes"]);
    let notes = record["notes"].to_string();
    assert!(notes.contains(" arms of speed were measured before the run was interrupted"), "{notes}");

    // What is finished is not overwritten in silence, nor is the journal of another suite.
    let record = suite.0.path().join("out/record.json");
    let before = fs::read(&record).unwrap();
    let output = suite.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--overwrite"));
    assert_eq!(fs::read(&record).unwrap(), before);
    fs::write(suite.journal(), &text).unwrap();
    let output = suite.command(&["--overwrite", "-m", "demo-full"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted run"));
    assert_eq!(fs::read_to_string(suite.journal()).unwrap(), text);
}

/// As when there is less memory the second time, so that arms are measured in other groups.
#[test]
fn an_arm_whose_rounds_are_over_stays_though_the_run_does_not_come_back_to_it() {
    let suite = Suite::new();
    suite.killed_at(1, "sampled");
    let text = fs::read_to_string(suite.journal()).unwrap();
    let sampled = text.lines().find(|l| l.starts_with("{\"sampled\"")).unwrap();
    let other = format!("{}\n", sampled.replace("\"layout\":\"tm2\"", "\"layout\":\"q2_0\""));
    let kept = text.lines().take_while(|l| *l != sampled).map(|l| format!("{l}\n")).collect::<String>();
    fs::write(suite.journal(), kept + &other).unwrap();
    let output = suite.command(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let arms = record["arms"].as_array().unwrap();
    let of = |layout: &str| arms.iter().filter(|a| a["subject"]["layout"] == layout).collect::<Vec<_>>();
    assert_eq!((of("tm2").len(), of("i2_s").len(), of("q2_0").len()), (2, 2, 2));
    for arm in of("q2_0") {
        let reason = arm["energy_measured"]["not_measured"].as_str().unwrap();
        assert!(arm["speed"].is_object() && reason.contains("interrupted"), "{reason}");
    }
    let (all, notes) = (arms.len(), record["notes"].to_string());
    assert!(notes.contains(&format!("{} of {all} arms of speed", all - 2)), "{notes}");
    assert!(notes.contains("between the rounds and the energy"), "{notes}");
}

#[test]
fn tiers_that_this_cpu_lacks_are_named() {
    let suite = Suite::new();
    let lacking = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let file = suite.0.path().join("tiny.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[\"best\"]", &format!("[\"{lacking}\"]"))).unwrap();
    let output = suite.command(&[]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && err.contains(lacking) && err.contains("`tiers`"), "{err}");
    fs::write(&file, text.replace("[\"best\"]", &format!("[\"best\", \"{lacking}\", \"scalar\"]"))).unwrap();
    let output = suite.command(&["-r", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let notes = record["notes"].to_string();
    assert!(notes.contains(&format!("Not measured: {lacking}, which this CPU lacks.")), "{notes}");
    let tiers = record["arms"].as_array().unwrap().iter().map(|arm| arm["subject"]["tier"].to_string());
    assert!(tiers.collect::<std::collections::BTreeSet<_>>().contains("\"scalar\""), "the best and this one");
}

#[test]
fn a_run_does_not_continue_with_a_model_that_has_changed_since() {
    let suite = Suite::new();
    let model = suite.0.path().join("m");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-suites/demo");
        fs::copy(demo.join(name), model.join(name)).unwrap();
    }
    let file = suite.0.path().join("tiny.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"demo\"", "\"m\"")).unwrap();
    suite.killed_at(1, "proof");
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let mut other: Value = serde_json::from_str(&config).unwrap();
    other["rope_theta"] = 5000.0.into();
    other["rope_parameters"] = Value::Null;
    fs::write(model.join("config.json"), other.to_string()).unwrap();
    let output = suite.command(&[]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && err.contains("other models"), "{err}");
    fs::write(model.join("config.json"), config).unwrap();
    assert!(suite.command(&["-r", "40"]).output().unwrap().status.success());
}

#[test]
fn models_of_one_name_are_told_apart_and_arms_of_another_run_are_refused() {
    let suite = Suite::new();
    for folder in ["a", "b"] {
        let folder = suite.0.path().join(folder);
        fs::create_dir(&folder).unwrap();
        let file = folder.join("x.gguf");
        assert_eq!(tritmark(&["convert", "demo", file.to_str().unwrap(), "--to", "i2_s"]).0, 0);
    }
    let output = suite.command(&["-m", "a/x.gguf", "-m", "b/x.gguf", "-r", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<&Value> = record["models"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, ["x.gguf", "x.gguf (2)"]);

    fs::remove_dir_all(suite.0.path().join("out")).unwrap();
    suite.killed_at(1, "arm");
    let text = fs::read_to_string(suite.journal()).unwrap();
    for (ours, foreign) in
        [("\"model\":\"demo\"", "\"model\":\"other\""), ("\"threads\":1}", "\"threads\":7}")]
    {
        let line = text.lines().find(|l| l.starts_with("{\"arm\"")).unwrap();
        assert!(line.contains(ours), "{line}");
        fs::write(suite.journal(), text.replace(line, &line.replacen(ours, foreign, 1))).unwrap();
        let output = suite.command(&[]).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(5) && err.contains("does not measure"), "{err}");
    }
}
