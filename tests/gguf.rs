//! GGUF files of others, read.
//!
//! Runs over every `gguf` folder in `tests/fixtures` and in each folder that the environment variable
//! `TRITMARK_FIXTURES` names (colon-separated).

mod common {
    pub mod folders;
}

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tritmark::checkpoint::gguf::reader::Reader;
use tritmark::checkpoint::gguf::runtime::Verdict;
use tritmark::checkpoint::role::{LayerRole, Linear, Role};
use tritmark::checkpoint::{Checkpoint, OpenOptions};
use tritmark::convert;
use tritmark::inspect::inspect;
use tritmark::verify::{model_hash, told_by, trits_sha256};
use tritmark::words::hex;

#[derive(Deserialize)]
struct Expected {
    sha256_ternary_i8_rowmajor: String,
    scale: f64,
}

#[derive(Deserialize)]
struct Entry {
    source: String,
}

/// Every GGUF file with the directory of the checkpoint that it was made from.
fn files() -> Vec<(PathBuf, PathBuf)> {
    let mut files = vec![];
    for folder in common::folders::folders() {
        let Ok(text) = std::fs::read_to_string(folder.join("gguf/index.json")) else { continue };
        let index: BTreeMap<String, Entry> = serde_json::from_str(&text).unwrap();
        files.extend(index.iter().map(|(name, e)| (folder.join("gguf").join(name), folder.join(&e.source))));
    }
    assert!(!files.is_empty());
    files
}

/// Opens a file; what nothing in it can tell is stated.
fn open(path: &Path) -> Checkpoint {
    let name = path.to_str().unwrap();
    let dialect = name.contains("i2_s.gguf").then(|| "i2_s".to_owned());
    let options = OpenOptions { dialect, ..Default::default() };
    Checkpoint::open_with(name, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// The name of a matrix in Hugging Face files.
fn hf_name(layer: usize, linear: Linear) -> String {
    let name = match linear {
        Linear::Q => "self_attn.q_proj",
        Linear::K => "self_attn.k_proj",
        Linear::V => "self_attn.v_proj",
        Linear::O => "self_attn.o_proj",
        Linear::Gate => "mlp.gate_proj",
        Linear::Up => "mlp.up_proj",
        Linear::Down => "mlp.down_proj",
    };
    format!("model.layers.{layer}.{name}.weight")
}

#[test]
fn trits_and_scales_are_those_of_the_source() {
    for (file, source) in files() {
        let at = file.display();
        let text = std::fs::read_to_string(source.join("expected_ternary.json")).unwrap();
        let expected: BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
        let checkpoint = open(&file);
        assert_eq!(checkpoint.config.linear_roles().count(), expected.len(), "{at}");
        for role in checkpoint.config.linear_roles() {
            let Role::Layer(layer, LayerRole::Linear(linear)) = role else { unreachable!() };
            let expected = &expected[&hf_name(layer, linear)];
            let found = checkpoint.ternary(role).unwrap_or_else(|e| panic!("{e}"));
            let hash = hex(&trits_sha256(&found.trits));
            assert_eq!(hash, expected.sha256_ternary_i8_rowmajor, "{at}: {role:?}: trits");
            // Some files hold the scale as f16.
            let error = (f64::from(found.scale) / expected.scale - 1.0).abs();
            assert!(error <= 4.9e-4, "{at}: {role:?}: scale {} for {}", found.scale, expected.scale);
        }
    }
}

#[test]
fn everything_else_is_as_in_the_source() {
    for (file, source) in files() {
        let at = file.display();
        let (mut found, expected) = (open(&file), open(&source));
        // A GGUF of others names the EOS of the configuration, not those added for generating.
        assert!(found.config.eos.iter().all(|id| expected.config.eos.contains(id)), "{at}");
        found.config.eos.clone_from(&expected.config.eos);
        assert_eq!(found.config, expected.config, "{at}");
        for role in expected.config.roles() {
            if matches!(role, Role::Layer(_, LayerRole::Linear(_))) {
                continue;
            }
            let (a, b) = (found.float(role).unwrap().to_f32(), expected.float(role).unwrap().to_f32());
            assert_eq!(a.len(), b.len(), "{at}: {role:?}");
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let scale = b.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(worst <= scale * 2f32.powi(-11), "{at}: {role:?}: off by {worst} of {scale}");
        }
    }
}

#[test]
fn tokenizer_gives_the_ids_of_the_source() {
    for (file, source) in files() {
        let (found, expected) = (open(&file).tokenizer.unwrap(), open(&source).tokenizer.unwrap());
        let [found, expected] =
            [found, expected].map(|json| tokenizers::Tokenizer::from_bytes(json).unwrap());
        for text in ["", "Hello, world! It's 12345 o'clock.\n\n  ", "naïve 東京 🙂", "<|eot_id|>x"] {
            let [a, b] = [&found, &expected].map(|t| t.encode(text, true).unwrap().get_ids().to_vec());
            assert_eq!(a, b, "{}: {text:?}", file.display());
        }
    }
}

/// The demo model as another program writes it: without our keys.
fn foreign(dir: &Path, layout: &str) -> PathBuf {
    let path = dir.join(format!("{layout}.gguf"));
    let options = convert::Options { to: Some(layout.into()), force: true, ..Default::default() };
    let demo = Checkpoint::open("demo").unwrap();
    convert::plan(&demo, &path, &options).unwrap().write(&demo, &path, &|_| {}).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let key = b"tritmark.layout";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap();
    bytes[at..at + 8].copy_from_slice(b"no-such.");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn trained_weights_tell_the_arrangement_of_i2_s() {
    let dir = tempfile::tempdir().unwrap();
    let demo = model_hash(&Checkpoint::open("demo").unwrap()).unwrap();
    for layout in ["i2_s", "i2_s_arm", "i2_s_4row"] {
        let checkpoint = Checkpoint::open(foreign(dir.path(), layout).to_str().unwrap()).unwrap();
        let notes = checkpoint.provenance.notes.join(" ");
        assert!(notes.contains(&format!("tell that it is {layout}, not")), "{layout}: {notes}");
        assert_eq!(model_hash(&checkpoint).unwrap(), demo, "{layout}");
    }
}

/// Either the weights tell, and then rightly, or the program asks.
#[test]
fn tiles_are_told_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Checkpoint::open("demo").unwrap();
    for layout in ["tl1", "tl2", "tl1_BM32_BK64_bm32"] {
        let path = foreign(dir.path(), layout);
        let name = path.to_str().unwrap();
        match Checkpoint::open(name) {
            Ok(told) => assert_eq!(model_hash(&told).unwrap(), model_hash(&demo).unwrap(), "{layout}"),
            Err(e) => {
                let e = e.to_string();
                assert!(e.contains("ambiguous") && e.contains("--dialect"), "{layout}: {e}");
                let options = OpenOptions { assume: true, ..Default::default() };
                let open = Checkpoint::open_with(name, &options).unwrap();
                assert!(open.provenance.choices.iter().any(|c| c == layout), "{:?}", open.provenance.choices);
                // Another form of the model at hand tells.
                let told = told_by(&open, &options, &demo).unwrap().unwrap();
                assert_eq!(model_hash(&told).unwrap(), model_hash(&demo).unwrap(), "{layout}");
            }
        }
    }
}

#[test]
fn untrained_weights_leave_it_open() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/bitnet2b.bitnet-b1.58.i2_s.gguf");
    let name = path.to_str().unwrap();
    let error = Checkpoint::open(name).err().unwrap();
    assert_eq!(error.exit_code(), 5);
    let error = error.to_string();
    assert!(error.contains("ambiguous: i2_s, i2_s_arm, i2_s_4row are equally long"), "{error}");
    assert!(error.contains("--dialect i2_s"), "{error}");
    let stated = Checkpoint::open(&format!("{name} --dialect i2_s_arm")).unwrap();
    assert_eq!(stated.provenance.notes, [] as [String; 0]);
    assert_ne!(model_hash(&stated).unwrap(), model_hash(&open(&path)).unwrap());
    let assumed = Checkpoint::open_with(name, &OpenOptions { assume: true, ..Default::default() }).unwrap();
    let inspection = inspect(&assumed, &|| {}).unwrap();
    assert_eq!(inspection.provenance.choices, ["i2_s", "i2_s_arm", "i2_s_4row"]);
    assert!(inspection.hash.is_none());
    assert!(
        inspection.runtimes.iter().all(|r| matches!(r.verdict, Verdict::Unknown(_) | Verdict::Refused(_)))
    );
}

#[test]
fn a_file_of_a_quantiser_with_threads_is_refused_with_the_remedy() {
    let (source, _) =
        files().into_iter().find(|(file, _)| file.ends_with("bitnet2b.bitnet-b1.58.i2_s.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("damaged.gguf");
    let start = Reader::open(&source).unwrap().tensors().iter().find(|t| t.kind == 36).unwrap().start;
    let mut bytes = std::fs::read(&source).unwrap();
    bytes[start + 4096..start + 4160].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let checkpoint = Checkpoint::open(file.to_str().unwrap()).unwrap();
    let mut roles = checkpoint.config.linear_roles();
    let error = roles.find_map(|role| checkpoint.ternary_into(role, vec![]).err()).unwrap().to_string();
    assert!(error.contains("no trit") && error.contains("more than one thread"), "{error}");
}
