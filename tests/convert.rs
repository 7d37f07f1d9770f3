//! The program converts, and what it writes is what others write and what went in.

mod common {
    pub mod fixture;
    pub mod folders;
}

use assert_cmd::Command;
use common::fixture::{self, Fixture};
use safetensors::SafeTensors;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tritmark::checkpoint::Checkpoint;
use tritmark::checkpoint::gguf::reader::Reader;

fn tritmark(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("tritmark").unwrap().args(args).assert()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder for many files, in memory where there is a place for it.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Every tensor of a Hugging Face directory: dtype, shape and bytes.
fn hf_tensors(dir: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !(name.starts_with("model") && name.ends_with(".safetensors")) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let tensor = (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec());
            assert!(all.insert(name, tensor).is_none());
        }
    }
    all
}

fn assert_same_tensors(a: &Path, b: &Path) {
    let (a, b) = (hf_tensors(a), hf_tensors(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, tensor) in &a {
        assert_eq!((&tensor.0, &tensor.1), (&b[name].0, &b[name].1), "{name}: dtype and shape");
        assert!(tensor.2 == b[name].2, "{name}: bytes");
    }
}

#[derive(Deserialize)]
struct Entry {
    architecture: String,
    source: String,
    weight_type: u32,
    tensors: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    kind: u32,
    nbytes: usize,
}

#[test]
fn gguf_tensors_are_those_of_other_writers() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = 0;
    for folder in common::folders::folders() {
        let Ok(index) = std::fs::read_to_string(folder.join("gguf/index.json")) else { continue };
        let index: BTreeMap<String, Entry> = serde_json::from_str(&index).unwrap();
        for (name, entry) in index {
            let to = match entry.weight_type {
                1 => "f16",
                34 => "tq1_0",
                35 => "tq2_0",
                36 => "i2_s",
                42 => "q2_0",
                other => panic!("{name}: no form for type {other}"),
            };
            let runtime = if entry.architecture == "bitnet" { "llama.cpp" } else { "bitnet.cpp" };
            let (source, out) = (folder.join(&entry.source), dir.path().join(&name));
            let mut args = vec![
                "convert",
                text(&source),
                text(&out),
                "--to",
                to,
                "--for",
                runtime,
                "--embedding",
                "f16",
                "--force",
            ];
            if entry.tensors.iter().any(|t| t.name.ends_with(".scale")) {
                args.push("--scale-tensors");
            }
            tritmark(&args).success();
            let (ours, theirs) =
                (Reader::open(&out).unwrap(), Reader::open(folder.join("gguf").join(&name)).unwrap());
            assert_eq!(ours.tensors().len(), entry.tensors.len(), "{name}");
            for listed in &entry.tensors {
                let find = |reader: &Reader| {
                    let tensor = reader.tensors().iter().find(|t| t.name == listed.name).unwrap();
                    assert_eq!(tensor.kind, listed.kind, "{name}: {}", listed.name);
                    // The last 28 bytes behind I2_S mean nothing.
                    let len = if tensor.kind == 36 { listed.nbytes - 28 } else { listed.nbytes };
                    (tensor.ne.clone(), reader.bytes()[tensor.start..tensor.start + len].to_vec())
                };
                assert!(find(&ours) == find(&theirs), "{name}: {} differs", listed.name);
            }
            files += 1;
        }
    }
    assert!(files > 0);
}

#[test]
fn every_layout_comes_back_to_the_same_bytes() {
    let mut layouts: Vec<&str> = tritmark_kernels::layout::ALL.iter().map(|l| l.name()).collect();
    layouts.extend(["f16", "bf16", "f32"]);
    for fixture in Fixture::all() {
        let dir = scratch();
        let checkpoint = fixture::open(&fixture);
        let mut source = fixture.path().to_owned();
        if checkpoint.provenance.dialect != "hf-packed" {
            source = dir.path().join("source");
            let family = checkpoint.provenance.family.as_str();
            tritmark(&["convert", text(fixture.path()), text(&source), "--family", family]).success();
        }
        let mut trips = 0;
        for (i, layout) in layouts.iter().enumerate() {
            for extension in ["safetensors", "gguf", "dir"] {
                let packed = dir.path().join(format!("{i}.{extension}"));
                // What no runtime runs must come back all the same.
                let convert = ["convert", text(&source), text(&packed), "--to", layout, "--force"];
                let output =
                    Command::cargo_bin("tritmark").unwrap().args(convert).arg("--json").output().unwrap();
                if !output.status.success() {
                    // A shape or a model that the layout or the container lacks.
                    let message = String::from_utf8_lossy(&output.stderr);
                    assert_eq!(output.status.code(), Some(2), "{fixture} to {layout}: {message}");
                    continue;
                }
                // Scales that the layout rounds stand in the metadata as well.
                tritmark(&["verify", text(&source), text(&packed), "--no-probe"]).success();
                let back = dir.path().join(format!("{i}-{extension}"));
                tritmark(&["convert", text(&packed), text(&back)]).success();
                assert_same_tensors(&source, &back);
                trips += 1;
            }
        }
        assert!(trips >= 2, "{fixture}: only {trips} round trips");
    }
}

/// A copy of a fixture.
fn copied(dir: &Path, fixture: &str) -> PathBuf {
    let (from, to) = (packed().with_file_name(fixture), dir.join("copy"));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::write(to.join(path.file_name().unwrap()), std::fs::read(&path).unwrap()).unwrap();
    }
    to
}

/// A copy of a fixture with one tensor's first bytes changed.
fn changed(dir: &Path, fixture: &str, tensor: &str, value: &[u8]) -> PathBuf {
    let to = copied(dir, fixture);
    let path = to.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let base = bytes.as_ptr() as usize;
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let at = tensors.tensor(tensor).unwrap().data().as_ptr() as usize - base;
    bytes[at..at + value.len()].copy_from_slice(value);
    std::fs::write(&path, bytes).unwrap();
    to
}

#[test]
fn what_becomes_no_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    let bf16 = |x: f32| half::bf16::from_f32(x).to_le_bytes();
    let scale = "model.layers.0.self_attn.q_proj.weight_scale";
    for (tensor, value, args, expected) in [
        (scale, 1e30, &["--to", "tq2_0", "--force"][..], "does not fit tq2_0"),
        (scale, 1e-30, &["--to", "tq2_0", "--force"], "does not fit tq2_0"),
        ("model.norm.weight", f32::NAN, &[], "is NaN"),
        ("model.embed_tokens.weight", f32::NAN, &["--embedding", "q8_0"], "row 0, column 0 is NaN"),
        ("model.embed_tokens.weight", 1e6, &["--embedding", "f16"], "does not fit f16"),
    ] {
        let source = changed(dir.path(), "bitnet2b-packed", tensor, &bf16(value));
        let args = [&["convert", text(&source), text(&out)], args].concat();
        let error = String::from_utf8(tritmark(&args).code(5).get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected) && error.contains(tensor.trim_end_matches("_scale")), "{error}");
        assert!(!out.exists());
    }
    let source = changed(dir.path(), "bitnet2b-packed", scale, &bf16(1e30));
    let output = tritmark(&["convert", text(&source), text(&out)]).success();
    let notes = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(notes.contains("not plausible"), "{notes}");
}

#[test]
fn the_source_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let source = copied(dir.path(), "bitnet2b-packed");
    let file = source.join("model.safetensors");
    let before = std::fs::read(&file).unwrap();
    tritmark(&["convert", text(&source), text(&file), "--to", "i2_s"]).code(2);
    assert!(std::fs::read(&file).unwrap() == before);
    // Nor is its folder left with anything half written.
    assert!(
        std::fs::read_dir(&source).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".tmp"))
    );
}

#[test]
fn another_head_than_the_embedding_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = copied(dir.path(), "falcon3-158");
    let config = source.join("config.json");
    let json = std::fs::read_to_string(&config).unwrap();
    let tied = json.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    assert_ne!(json, tied);
    std::fs::write(&config, tied).unwrap();
    let checkpoint = Checkpoint::open(text(&source)).unwrap();
    assert!(!checkpoint.config.tied);
    assert!(checkpoint.provenance.notes.join(" ").contains("another head is stored"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_removes_what_is_half_written() {
    let dir = scratch();
    let big = dir.path().join("big");
    tritmark(&["synth", "0.7b", "-o", text(&big)]).success();
    let out = dir.path().join("x.gguf");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tritmark"))
        .args(["convert", text(&big), text(&out), "--to", "i2_s", "--force"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let temporary = || names(dir.path()).iter().any(|name| name.starts_with(".tritmark-"));
    while !temporary() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    assert!(temporary(), "it was too fast to be stopped");
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(names(dir.path()), ["big"]);
}

#[test]
fn bf16_masters_become_the_published_packed_form() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    let source = packed().with_file_name("bitnet2b-bf16-odd");
    tritmark(&["convert", text(&source), text(&out), "--embedding", "bf16"]).success();
    for (name, (dtype, ..)) in hf_tensors(&out) {
        assert!(dtype == "BF16" || dtype == "U8", "{name} is {dtype}");
    }
    let output = tritmark(&["verify", text(&source), text(&out), "--json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(report["verdict"], "rounded");
}

#[test]
fn configuration_survives_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let (gguf, back) = (dir.path().join("x.gguf"), dir.path().join("x"));
    let source = packed().with_file_name("falcon3-158");
    tritmark(&["convert", text(&source), text(&gguf), "--to", "i2_s", "--force"]).success();
    tritmark(&["convert", text(&gguf), text(&back)]).success();
    let read = |dir: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap()
    };
    let (before, after) = (read(&source), read(&back));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    let key = "modules_to_not_convert";
    assert_eq!(before["quantization_config"][key], after["quantization_config"][key]);
}

fn packed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bitnet2b-packed")
}

#[test]
fn what_a_runtime_gets_wrong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    let refused = |args: &[&str], reason: &str| {
        let source = packed();
        let args = [&["convert", text(&source), text(&out)], args].concat();
        let error = String::from_utf8(tritmark(&args).code(2).get_output().stderr.clone()).unwrap();
        assert!(error.contains(reason), "{error}");
        assert!(!out.exists());
    };
    refused(&["--to", "tq2_0", "--for", "llama.cpp"], "computes Silu");
    refused(&["--to", "i2_s", "--for", "ik_llama"], "garbage");
    refused(&["--to", "iq2_bn", "--for", "ik_llama"], "512 columns");
    refused(&["--to", "tm2"], "cannot hold 'tm2'");
    refused(&["--to", "nonsense"], "expected one of");
    refused(&["--embedding", "q9"], "unknown embedding form");
}

#[test]
fn a_dry_run_writes_nothing_and_lists_everything() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    let output = tritmark(&["convert", text(&packed()), text(&out), "--dry-run", "--json"]).success();
    let plan: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(plan["files"][0]["tensors"].as_array().unwrap().len(), 2 + 3 * 11);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failure_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("x.gguf"));
    std::fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(packed().join(name), source.join(name)).unwrap();
    }
    // The last byte of the data is packed weights: code 3 is no trit.
    let model = source.join("model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() = 0xff;
    std::fs::write(&model, bytes).unwrap();
    std::fs::write(&out, "old").unwrap();
    let output = tritmark(&["convert", text(&source), text(&out)]).code(5);
    let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(error.contains("code 3"), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["source", "x.gguf"]);
}

/// Runs the program under a shell, which `limits` first.
#[cfg(unix)]
fn limited(limits: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let shell = format!("{limits}; exec \"$0\" \"$@\"");
    let program = assert_cmd::cargo::cargo_bin("tritmark");
    Command::new("sh").args(["-c", &shell]).arg(program).args(args).assert()
}

/// Names in a folder, sorted.
#[cfg(unix)]
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A write that fails half-way, as on a full disk.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, to) in [("x.gguf", "i2_s"), ("x.safetensors", "tm2"), ("x-hf", "hf")] {
        let out = dir.path().join(name);
        if name != "x-hf" {
            std::fs::write(&out, "old").unwrap();
        }
        let before = names(dir.path());
        let args = ["convert", "demo", text(&out), "--to", to];
        let output = limited("trap '' XFSZ; ulimit -f 1000", &args).code(74);
        let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(error.contains(name) || error.contains("model.safetensors"), "{error}");
        assert_eq!(names(dir.path()), before, "{name}");
        assert!(name == "x-hf" || std::fs::read(&out).unwrap() == b"old", "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn devices_stay_devices_and_links_stay_links() {
    let dir = tempfile::tempdir().unwrap();
    tritmark(&["logits", "demo", "--ids", "1,2", "-o", "/dev/null"]).success();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    let (link, file) = (dir.path().join("link.gguf"), dir.path().join("file.gguf"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    tritmark(&["convert", "demo", text(&link)]).success();
    assert!(link.is_symlink());
    tritmark(&["verify", "demo", text(&file), "--no-probe"]).success();
    let device = dir.path().join("null.gguf");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    tritmark(&["convert", "demo", text(&device)]).code(2);
}

/// transformers multiplies no two float types: with scales in f32, everything is.
#[test]
fn a_directory_has_one_float_type() {
    let dir = tempfile::tempdir().unwrap();
    let masters = packed().with_file_name("bitnet2b-bf16-odd");
    let inverse = packed().with_file_name("falcon3-158");
    for (i, (source, to, form, class)) in [
        ("demo", "hf", "F32", "autobitlinear"),
        ("demo", "bf16", "F32", "autobitlinear"),
        (text(&masters), "hf", "F32", "autobitlinear"),
        (text(&packed()), "hf", "BF16", "autobitlinear"),
        (text(&packed()), "bf16", "BF16", "autobitlinear"),
        (text(&inverse), "hf", "BF16", "bitlinear"),
        // The class for inverse scales unpacks whatever it finds.
        (text(&inverse), "bf16", "F32", "autobitlinear"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(i.to_string());
        tritmark(&["convert", source, text(&out), "--to", to]).success();
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["quantization_config"]["linear_class"], class, "{source} to {to}");
        let dtype = if form == "F32" { "float32" } else { "bfloat16" };
        assert_eq!(config["torch_dtype"], dtype, "{source} to {to}");
        for (name, (found, ..)) in hf_tensors(&out) {
            assert!(found == form || found == "U8" && to == "hf", "{source} to {to}: {name} is {found}");
        }
        tritmark(&["verify", source, text(&out), "--no-probe"]).success();
    }
    let out = dir.path().join("asked");
    let args = ["convert", "demo", text(&out), "--embedding", "f16"];
    let error = String::from_utf8(tritmark(&args).code(2).get_output().stderr.clone()).unwrap();
    assert!(error.contains("one form"), "{error}");
}

#[test]
fn a_shape_that_a_form_cannot_hold_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    // 192 columns are no whole blocks of 256.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/falcon3-158");
    let failed =
        tritmark(&["convert", text(&model), text(&out), "--to", "tq2_0", "--for", "llama.cpp"]).code(2);
    let said = String::from_utf8(failed.get_output().stderr.clone()).unwrap();
    assert!(
        said.contains("tensor blk.0.")
            && said.contains("cannot hold a")
            && said.contains("hold every shape in tm2"),
        "{said}"
    );
}

#[test]
fn lookup_forms_are_written_with_what_they_ask_of_who_runs_them() {
    let dir = tempfile::tempdir().unwrap();
    // Shapes for which bitnet.cpp generates kernels.
    let model = dir.path().join("large");
    tritmark(&["synth", "0.7b", "--layers", "1", "--vocab", "64", "-o", text(&model)]).success();
    for (layout, asked) in [("tl1", "batches of two tokens and more"), ("tl2", "batch of 8 and more")] {
        let out = dir.path().join("x.gguf");
        let done = tritmark(&["convert", text(&model), text(&out), "--to", layout, "--for", "bitnet.cpp"]);
        let said = String::from_utf8(done.success().get_output().stderr.clone()).unwrap();
        assert!(said.contains(asked), "{said}");
        let inspected = tritmark(&["inspect", text(&out)]).success();
        let inspected = String::from_utf8(inspected.get_output().stdout.clone()).unwrap();
        assert!(inspected.contains(asked), "{inspected}");
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn tl2_has_the_id_of_either_fork() {
    let dir = tempfile::tempdir().unwrap();
    for (extra, id) in [(&[][..], 39), (&["--tl2-id", "42"], 42)] {
        let out = dir.path().join(format!("{id}.gguf"));
        let args = [&["convert", "demo", text(&out), "--to", "tl2", "--force"], extra].concat();
        tritmark(&args).success();
        let reader = Reader::open(&out).unwrap();
        assert!(reader.tensors().iter().any(|t| t.name == "blk.0.attn_q.weight" && t.kind == id));
        tritmark(&["verify", "demo", text(&out), "--no-probe"]).success();
    }
    let out = dir.path().join("x.gguf");
    tritmark(&["convert", "demo", text(&out), "--to", "i2_s", "--tl2-id", "42"]).code(2);
}

#[test]
fn shards_hold_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sharded");
    tritmark(&["convert", text(&packed()), text(&out), "--shard-size", "200KB"]).success();
    assert!(out.join("model.safetensors.index.json").is_file());
    // All but the embedding, which is larger alone, fit with their headers.
    let sizes = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    assert_eq!(sizes.filter(|&len| len > 200_000).count(), 1);
    assert!(!out.join("model.safetensors").exists());
    assert_same_tensors(&packed(), &out);
    tritmark(&["verify", text(&packed()), text(&out)]).success();
}

#[test]
fn quantised_embeddings_are_as_close_as_their_form_allows() {
    let dir = tempfile::tempdir().unwrap();
    for form in ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_0"] {
        let out = dir.path().join(format!("{form}.gguf"));
        tritmark(&["convert", text(&packed()), text(&out), "--embedding", form]).success();
        let output = tritmark(&["verify", text(&packed()), text(&out), "--json"]).success();
        let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        let error = report["comparison"]["float_error"].as_f64().unwrap();
        // The fixture's embedding is bf16 and within the range of f16.
        assert_eq!(error == 0.0, matches!(form, "f32" | "f16" | "bf16"), "{form}: {error}");
    }
}

#[test]
fn every_family_survives_gguf_and_unpacked_forms() {
    for fixture in Fixture::all() {
        let checkpoint = fixture::open(&fixture);
        let dir = scratch();
        let inner_norm = checkpoint.config.inner_norm_eps.is_some();
        let mut family = vec![];
        if !checkpoint.provenance.notes.is_empty() {
            family = vec!["--family", checkpoint.provenance.family.as_str()];
        }
        for name in ["x.gguf", "x-bf16", "x-hf", "x.safetensors"] {
            let out = dir.path().join(name);
            let form = match name {
                "x.gguf" => "f32",
                "x-bf16" => "bf16",
                "x-hf" => "hf",
                _ => "tm2",
            };
            let mut args = vec!["convert", text(fixture.path()), text(&out), "--to", form];
            args.extend(&family);
            let run = Command::cargo_bin("tritmark").unwrap().args(args).output().unwrap();
            let message = String::from_utf8_lossy(&run.stderr);
            if !run.status.success() {
                // GGUF has no norms inside linears.
                assert!(
                    name == "x.gguf" && inner_norm && run.status.code() == Some(2),
                    "{fixture} to {name}: {message}"
                );
                continue;
            }
            let back = Checkpoint::open(text(&out)).unwrap_or_else(|e| panic!("{fixture} to {name}: {e}"));
            let comparison = tritmark::verify::compare(&checkpoint, &back, &|| {}).unwrap();
            assert_eq!(comparison.differences, [] as [String; 0], "{fixture} to {name}");
            assert_eq!(comparison.scale_error, 0.0, "{fixture} to {name}");
            let tokenizer =
                |c: &Checkpoint| c.tokenizer.clone().map(|t| tokenizers::Tokenizer::from_bytes(t).unwrap());
            let (Some(before), Some(after)) = (tokenizer(&checkpoint), tokenizer(&back)) else { continue };
            // Tokens that are none of the model's own keep their ids wherever these lie.
            let added = before.get_added_tokens_decoder().into_values().map(|token| token.content);
            let samples = ["Hello, world! It's 12345 o'clock.", "naïve 東京 🙂", "a  b\n\nc"];
            for sample in samples.map(str::to_owned).into_iter().chain(added) {
                let sample = sample.as_str();
                let [x, y] = [&before, &after].map(|t| t.encode(sample, true).unwrap().get_ids().to_vec());
                assert_eq!(x, y, "{fixture} to {name}: {sample:?}");
            }
        }
    }
}

#[test]
fn post_training_ternarisation_stays_labelled() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("float");
    std::fs::create_dir(&source).unwrap();
    let masters = packed().with_file_name("bitnet2b-bf16-odd");
    for entry in std::fs::read_dir(&masters).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, source.join(path.file_name().unwrap())).unwrap();
    }
    // Without its quantization_config it is a full-precision model.
    let config = source.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("quantization_config").unwrap();
    std::fs::write(&config, json.to_string()).unwrap();
    for (name, to) in [("x.gguf", "f32"), ("x.safetensors", "tm2"), ("x-hf", "hf")] {
        let out = dir.path().join(name);
        let args = ["convert", text(&source), text(&out), "--to", to, "--force"];
        if to != "f32" {
            let output = tritmark(&args).code(2);
            let error = String::from_utf8(output.get_output().stderr.clone()).unwrap();
            assert!(error.contains("full-precision"), "{error}");
        }
        tritmark(&[&args[..], &["--ptq", "absmean"]].concat()).success();
        assert!(Checkpoint::open(text(&out)).unwrap().provenance.post_training, "{name}");
    }
}

#[test]
fn full_precision_comes_back_and_is_not_called_proven() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("full.gguf");
    let convert = tritmark(&["convert", "demo-full", text(&out), "--to", "f16"]).success();
    let said = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (printed, notes) = (said(&convert.get_output().stdout), said(&convert.get_output().stderr));
    assert!(!printed.contains("proven") && notes.contains("rounded to f16"), "{printed}{notes}");
    tritmark(&["verify", "demo-full", text(&out)]).success();
    let wide = dir.path().join("wide.gguf");
    tritmark(&["convert", "demo-full", text(&wide), "--to", "f32"]).success().stderr("");
    tritmark(&["verify", "demo-full", text(&wide)]).success();
}

#[test]
fn a_tokenizer_travels_through_one_of_our_files() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, foreign, hf, gguf] =
        ["a.safetensors", "b/a.safetensors", "hf", "a.gguf"].map(|name| dir.path().join(name));
    let source = Path::new("tests/fixtures/bitnet2b-packed").to_owned();
    let template = template_of(&source);
    assert!(template.is_some());
    tritmark(&["convert", text(&source), text(&ours)]).success();
    // What lies beside it there is another model's.
    std::fs::create_dir(foreign.parent().unwrap()).unwrap();
    std::fs::rename(&ours, &foreign).unwrap();
    std::fs::write(foreign.with_file_name("tokenizer.json"), "{}").unwrap();
    std::fs::write(foreign.with_file_name("generation_config.json"), "{}").unwrap();
    let convert = tritmark(&["convert", text(&foreign), text(&hf)]).success();
    assert!(!String::from_utf8_lossy(&convert.get_output().stderr).contains("no tokenizer"));
    let tokenizer = |model: &Path| Checkpoint::open(text(model)).unwrap().tokenizer;
    assert_eq!(tokenizer(&hf), tokenizer(&source));
    assert_eq!(template_of(&hf), template);
    assert!(!hf.join("generation_config.json").exists());
    tritmark(&["convert", text(&foreign), text(&gguf)]).success();
    let reader = Reader::open(&gguf).unwrap();
    assert_eq!(reader.text("tokenizer.chat_template").unwrap(), template.as_deref());
}

/// The chat template of a Hugging Face directory.
fn template_of(dir: &Path) -> Option<String> {
    let config = std::fs::read(dir.join("tokenizer_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["chat_template"].as_str().map(str::to_owned)
}

#[test]
fn a_tokenizer_of_any_form_and_a_template_of_its_own_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let [source, ours, hf] = ["source", "a.safetensors", "hf"].map(|name| dir.path().join(name));
    std::fs::create_dir(&source).unwrap();
    let fixtures = Path::new("tests/fixtures");
    for file in
        ["bitnet2b-packed/config.json", "bitnet2b-packed/model.safetensors", "sentencepiece/tokenizer.model"]
    {
        std::fs::copy(fixtures.join(file), source.join(Path::new(file).file_name().unwrap())).unwrap();
    }
    std::fs::write(source.join("chat_template.jinja"), "{{ messages }}").unwrap();
    tritmark(&["convert", text(&source), text(&ours)]).success();
    let inspected = tritmark(&["inspect", text(&ours)]).success();
    assert!(!String::from_utf8_lossy(&inspected.get_output().stdout).contains("not used"));
    tritmark(&["convert", text(&ours), text(&hf)]).success();
    let tokenizer = |model: &Path| Checkpoint::open(text(model)).unwrap().tokenizer;
    assert!(tokenizer(&hf).is_some() && tokenizer(&hf) == tokenizer(&source));
    assert_eq!(std::fs::read_to_string(hf.join("chat_template.jinja")).unwrap(), "{{ messages }}");
}

#[test]
fn a_folder_of_the_demos_name_is_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("demo")).unwrap();
    for name in ["tokenizer.json", "model.safetensors", "generation_config.json"] {
        std::fs::write(dir.path().join("demo").join(name), "{}").unwrap();
    }
    let convert = ["convert", "demo", "out"];
    Command::cargo_bin("tritmark").unwrap().args(convert).current_dir(dir.path()).assert().success();
    let out = dir.path().join("out");
    assert!(!out.join("generation_config.json").exists());
    assert!(Checkpoint::open(text(&out)).unwrap().tokenizer.is_some());
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["tritmark"]["sha256"], serde_json::json!({}));
}

#[test]
fn what_is_kept_of_a_source_is_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("hf");
    tritmark(&["convert", "demo", text(&out)]).success();
    let path = out.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["tritmark"]["kept"]["bos"] = "first".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let output = tritmark(&["inspect", text(&out)]).code(5);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("config.json") && said.contains("kept"), "{said}");
}

#[test]
fn what_is_not_finite_is_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let nan = half::bf16::NAN.to_le_bytes();
    let model = changed(dir.path(), "bitnet2b-packed", "model.norm.weight", &nan);
    let out = dir.path().join("l.safetensors");
    let commands: [&[&str]; 4] = [
        &["logits", text(&model), "--ids", "1,2", "-o", text(&out)],
        &["generate", text(&model), "-p", "a", "-n", "2"],
        &["embed", text(&model), "-p", "a"],
        &["bench", "-m", text(&model), "-p", "4", "-n", "0", "--quick", "-r", "1"],
    ];
    for args in commands {
        let failed = tritmark(args).code(5);
        let said = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
        assert!(said.contains("not finite") && said.contains("verify"), "{args:?}: {said}");
    }
    assert!(!out.exists());
}

#[test]
fn a_model_without_a_tokenizer_says_so_to_runtimes() {
    let dir = tempfile::tempdir().unwrap();
    let [source, out, again] = ["synth", "x.gguf", "y.gguf"].map(|name| dir.path().join(name));
    tritmark(&["synth", "tiny", "-o", text(&source)]).success();
    tritmark(&["convert", text(&source), text(&out), "--to", "i2_s"]).success();
    tritmark(&["convert", text(&out), text(&again), "--to", "i2_s"]).success();
    for file in [out, again] {
        let reader = Reader::open(&file).unwrap();
        assert_eq!(reader.text("tokenizer.ggml.model").unwrap(), Some("no_vocab"));
        let checkpoint = Checkpoint::open(text(&file)).unwrap();
        assert!(checkpoint.tokenizer.is_none());
        assert_eq!(checkpoint.config.bos, Checkpoint::open(text(&source)).unwrap().config.bos);
        assert_eq!(checkpoint.provenance.notes, [] as [String; 0]);
    }
}
