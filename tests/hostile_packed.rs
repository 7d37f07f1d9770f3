//! Packed checkpoints whose configuration was tampered with: each gives an error that names what is wrong, and none a
//! panic.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use tritmark::Error;
use tritmark::checkpoint::Checkpoint;

/// A packed file with its configuration changed.
fn with_config(bytes: &[u8], field: &str, value: Value) -> Vec<u8> {
    let (len, rest) = bytes.split_first_chunk().unwrap();
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let text = &mut header["__metadata__"]["config"];
    let mut config: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert!(config.get(field).is_some(), "{field} is in {config}");
    config[field] = value;
    *text = config.to_string().into();
    let header = header.to_string().into_bytes();
    // Tensors begin at a multiple of 8.
    let padding = header.len().next_multiple_of(8) - header.len();
    let len = (header.len() + padding) as u64;
    [&len.to_le_bytes()[..], &header, &vec![b' '; padding], tensors].concat()
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-rmsnorm-autobitlinear");
    let converted = Command::new(env!("CARGO_BIN_EXE_tritmark"))
        .arg("convert")
        .args([&source, &file])
        .args(["--to", "tm2"])
        .output()
        .unwrap();
    assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    let bytes = fs::read(&file).unwrap();
    let windowed = json!({
        "query_pre_attn_scalar": 1.0, "local_rope_theta": 1e4, "window": 8, "windowed": [true]
    });
    let no_window = json!({
        "query_pre_attn_scalar": 1.0, "local_rope_theta": 1e4, "window": 0, "windowed": [true, true]
    });
    for (field, value, names) in [
        ("head_dim", json!(31), "head_dim"),
        ("head_dim", json!(1u64 << 62), "head_dim"),
        ("heads", json!(3), "heads"),
        ("kv_heads", json!(0), "kv_heads"),
        ("hidden", json!(0), "hidden"),
        ("layers", json!(0), "layers"),
        ("vocab", json!(0), "vocab"),
        ("context", json!(0), "context"),
        ("norm_eps", json!(-1.0), "norm_eps"),
        ("rope_theta", json!(0.0), "rope_theta"),
        ("bos", json!(1u32 << 30), "bos"),
        ("gemma", windowed, "gemma.windowed"),
        ("gemma", no_window, "gemma.window"),
    ] {
        fs::write(&file, with_config(&bytes, field, value.clone())).unwrap();
        let found = Checkpoint::open(file.to_str().unwrap());
        let Err(error @ Error::Input { .. }) = found.map(|_| ()) else {
            panic!("{field} {value}: expected an error about the input")
        };
        let text = error.to_string();
        assert!(text.contains("x.safetensors") && text.contains(&format!("\"config\": {names}")), "{text}");
    }
}
