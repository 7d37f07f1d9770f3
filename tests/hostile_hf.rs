//! Hostile, damaged and contradictory Hugging Face checkpoints: each gives an error that names what
//! is wrong, and none a panic, a wrong model, or an allocation beyond the size of its files.

mod common {
    pub mod draft;
}

use common::draft::Draft;
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tritmark::Error;
use tritmark::checkpoint::role::{LayerRole, Role};
use tritmark::checkpoint::{Checkpoint, OpenOptions};

/// Opens a checkpoint and decodes all of it.
fn read_all(path: &Path) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(path.to_str().unwrap())?;
    for info in checkpoint.tensors() {
        match info.role {
            Some(role @ Role::Layer(_, LayerRole::Linear(_))) => drop(checkpoint.ternary(role)?),
            Some(role) => drop(checkpoint.float(role)?),
            None => {}
        }
    }
    Ok(())
}

/// The message with which reading `path` must fail, as bad input.
fn refusal(path: &Path) -> String {
    match read_all(path) {
        Err(e @ Error::Input { .. }) => e.to_string(),
        other => panic!("{}: expected an error about the input, found {other:?}", path.display()),
    }
}

/// The message with which a changed checkpoint must be refused.
fn refused(change: impl FnOnce(&mut Draft)) -> String {
    let mut draft = Draft::packed();
    change(&mut draft);
    let dir = tempfile::tempdir().unwrap();
    draft.write(dir.path());
    refusal(dir.path())
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn the_unchanged_draft_is_read() {
    let dir = tempfile::tempdir().unwrap();
    Draft::packed().write(dir.path());
    read_all(dir.path()).unwrap();
}

#[test]
fn every_hostile_file_gives_its_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile");
    let expected: BTreeMap<String, String> =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    assert!(expected.len() > 20);
    for (name, part) in expected.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        let message = refusal(&folder.join(name));
        assert!(message.contains(part.as_str()), "{name}: {message}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Draft::packed().write(dir.path());
    let file = dir.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    // Every byte of the header's first part, then points all over the file.
    let cuts = (0..64).chain((64..header).step_by(97)).chain([header - 1, header]);
    for cut in cuts.chain((header + 1..whole.len()).step_by(4999)).chain([whole.len() - 1]) {
        fs::write(&file, &whole[..cut]).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("model.safetensors"), "cut at {cut}: {message}");
    }
}

#[test]
fn every_needed_key_is_named_when_it_is_missing() {
    for key in [
        "architectures",
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "hidden_act",
        "tie_word_embeddings",
    ] {
        for null in [false, true] {
            let message = refused(|d| match null {
                true => d.config[key] = Value::Null,
                false => drop(d.config.as_object_mut().unwrap().remove(key)),
            });
            assert!(
                message.contains(&format!("\"{key}\"")) && message.contains("missing"),
                "{key}: {message}"
            );
            assert!(message.contains("config.json"), "{key}: {message}");
        }
    }
}

#[test]
fn contradictory_and_unsupported_configurations_are_refused() {
    type Case = (&'static str, Value, &'static str);
    let cases: &[Case] = &[
        ("/hidden_size", json!(0), "\"hidden_size\": expected 1 to 2147483647, found 0"),
        ("/hidden_size", json!(-1), "\"hidden_size\": expected a whole number, found -1"),
        ("/hidden_size", json!("128"), "\"hidden_size\": expected a whole number, found \"128\""),
        ("/hidden_size", json!(u64::MAX), "2147483647, found 18446744073709551615"),
        (
            "/hidden_size",
            json!(256),
            "embed_tokens.weight: expected F32, F16 or BF16 [296, 256], found BF16 [296, 128]",
        ),
        ("/num_hidden_layers", json!(2147483647), "tensor model.layers.2.input_layernorm.weight: is missing"),
        ("/num_hidden_layers", json!(1), "is not part of a llama model of 1 layers"),
        ("/num_key_value_heads", json!(3), "not a multiple of \"num_key_value_heads\" (3)"),
        ("/head_dim", json!(33), "the width of a head is 33"),
        ("/head_dim", json!(2147483646), "out of range"),
        ("/rms_norm_eps", json!(0), "\"rms_norm_eps\": expected a positive number, found 0"),
        ("/rope_theta", json!(-5.0), "\"rope_theta\": expected a positive number"),
        ("/rope_scaling", json!({"type": "linear", "factor": 2.0}), "rotary embedding of type \"linear\""),
        ("/rope_scaling", json!({"rope_type": "llama3"}), "rotary embedding of type \"llama3\""),
        (
            "/rope_parameters",
            json!({"rope_theta": 5e5, "rope_type": "default"}),
            "\"rope_theta\" (10000) contradicts \"rope_parameters.rope_theta\" (500000)",
        ),
        (
            "/rope_parameters",
            json!({"rope_theta": 1e4, "rope_type": "yarn"}),
            "rotary embedding of type \"yarn\"",
        ),
        ("/hidden_act", json!("gelu_new"), "\"gelu_new\", which is not supported"),
        ("/attention_bias", json!(true), "\"attention_bias\" asks for biases"),
        ("/architectures", json!(["LlamaForCausalLM", "X"]), "expected one entry, found 2"),
        (
            "/architectures",
            json!(["MambaForCausalLM"]),
            "no known family has the architecture \"MambaForCausalLM\"",
        ),
        ("/architectures", json!(["BitnetForCausalLM"]), "no known family"),
        ("/bos_token_id", json!(296), "\"bos_token_id\": 296 is outside the vocabulary of 296"),
        ("/eos_token_id", json!([1, -1]), "\"eos_token_id\": expected a list of token ids"),
        ("/quantization_config", Value::Null, "but config.json does not say that weights are packed"),
        ("/quantization_config/quant_method", json!("gptq"), "expected \"bitnet\", found \"gptq\""),
        ("/quantization_config/linear_class", json!("linear"), "\"quantization_config.linear_class\""),
        ("/quantization_config/linear_class", json!("bitlinear"), ""),
        (
            "/quantization_config/quantization_mode",
            json!("online"),
            "is packed, but config.json does not say",
        ),
        (
            "/quantization_config/modules_to_not_convert",
            json!(["lm_head", "down_proj"]),
            "\"down_proj\" to stay a float matrix",
        ),
        ("/quantization_config/modules_to_not_convert", json!([]), "a ternary lm_head"),
        ("/quantization_config/use_rms_norm", json!(false), "is not part of a llama model"),
        ("/quantization_config/use_rms_norm", json!("yes"), "expected true or false"),
    ];
    for (pointer, value, part) in cases {
        let change = |d: &mut Draft| match d.config.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => d.config[&pointer[1..]] = value.clone(),
        };
        if part.is_empty() {
            // Legal: only the direction of the scale changes.
            let mut draft = Draft::packed();
            change(&mut draft);
            let dir = tempfile::tempdir().unwrap();
            draft.write(dir.path());
            read_all(dir.path()).unwrap();
            continue;
        }
        let message = refused(change);
        assert!(message.contains(part), "{pointer} = {value}: {message}");
    }
}

#[test]
fn wrong_tensors_are_named() {
    type Case = (&'static str, fn(&mut Draft), &'static str);
    let cases: &[Case] = &[
        (Q, |d| drop(d.tensors.remove(Q)), "is missing"),
        (
            "model.layers.1.mlp.up_proj.weight_scale",
            |d| drop(d.tensors.remove("model.layers.1.mlp.up_proj.weight_scale")),
            "is missing",
        ),
        (
            "model.norm.weight",
            |d| d.tensor("model.norm.weight").0 = Dtype::I16,
            "expected F32, F16 or BF16 [128], found I16 [128]",
        ),
        (
            Q,
            |d| d.tensor(Q).1 = vec![128, 32],
            "expected U8 [32, 128] (packed), or trits [128, 128], found U8 [128, 32]",
        ),
        (
            Q,
            |d| d.tensor(Q).0 = Dtype::BOOL,
            "expected U8 [32, 128] (packed), or trits [128, 128], found BOOL",
        ),
        (
            "model.layers.0.self_attn.q_proj.bias",
            |d| d.copy("model.norm.weight", "model.layers.0.self_attn.q_proj.bias"),
            "models with biases are not supported",
        ),
        (
            "model.layers.0.mystery.weight",
            |d| d.copy("model.norm.weight", "model.layers.0.mystery.weight"),
            "is not part of a llama model of 2 layers",
        ),
        // Row 32 + 1, column 5: the second pair of bits of byte [1, 5].
        (Q, |d| d.tensor(Q).2[128 + 5] = 0b00_01_11_01, "code 3 at row 33, column 5"),
        (Q, |d| d.tensor(Q).2[0] = 0xff, "code 3 at row 0, column 0"),
    ];
    for (tensor, change, part) in cases {
        let message = refused(change);
        assert!(
            message.contains(&format!("tensor {tensor}: ")) && message.contains(part),
            "{tensor}: {message}"
        );
    }
}

#[test]
fn bad_scales_are_named() {
    let name = "model.layers.1.mlp.down_proj.weight_scale";
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0] {
        let message = refused(|d| d.tensor(name).2 = half::bf16::from_f32(value).to_le_bytes().to_vec());
        assert!(message.contains(name) && message.contains("positive finite scale"), "{value}: {message}");
    }
    // Finite itself, but not as a divisor.
    let message = refused(|d| {
        d.config["quantization_config"]["linear_class"] = json!("bitlinear");
        *d.tensor(name) = (Dtype::F32, vec![1], 1e-40f32.to_le_bytes().to_vec());
    });
    assert!(message.contains(name), "{message}");
}

#[test]
fn master_weights_that_are_not_finite_are_named() {
    let mut draft = Draft::packed().unpacked();
    draft.config["quantization_config"]["quantization_mode"] = json!("online");
    draft.tensors.retain(|name, _| !name.ends_with("weight_scale"));
    let nan = half::bf16::NAN.to_le_bytes();
    draft.tensor(Q).2[2 * (128 * 3 + 7)..][..2].copy_from_slice(&nan);
    let dir = tempfile::tempdir().unwrap();
    draft.write(dir.path());
    let message = refusal(dir.path());
    assert!(message.contains(&format!("tensor {Q}: row 3, column 7")), "{message}");
}

#[test]
fn unpacked_weights_that_are_no_trits_are_named() {
    let mut draft = Draft::packed().unpacked();
    draft.tensor(Q).2[2 * 130..][..2].copy_from_slice(&half::bf16::from_f32(0.5).to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    draft.write(dir.path());
    let message = refusal(dir.path());
    assert!(
        message.contains(&format!("tensor {Q}: row 1, column 2: expected -1, 0 or 1, found 0.5")),
        "{message}"
    );
}

#[test]
fn an_index_that_lies_is_refused() {
    type Case = (fn(&mut BTreeMap<String, String>), &'static str);
    let cases: &[Case] = &[
        (
            |m| drop(m.insert("x".into(), "model-2.safetensors".into())),
            "tensor x: should be in model-2.safetensors, but is in no file",
        ),
        (
            |m| drop(m.insert(Q.into(), "model-1.safetensors".into())),
            "should be in model-1.safetensors, but is in",
        ),
        (|m| drop(m.insert(Q.into(), "../model-1.safetensors".into())), "expected a plain file name"),
        (|m| drop(m.insert(Q.into(), "/etc/passwd".into())), "expected a plain file name"),
        (|m| drop(m.insert(Q.into(), "".into())), "expected a plain file name"),
        (|m| drop(m.insert(Q.into(), "model-3.safetensors".into())), "model-3.safetensors: no such file"),
        (|m| m.clear(), "model.embed_tokens.weight: is missing"),
    ];
    for (change, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut map = Draft::packed().write_sharded(dir.path());
        read_all(dir.path()).unwrap();
        change(&mut map);
        let index = dir.path().join("model.safetensors.index.json");
        fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn directories_and_nothing_in_place_of_files_are_refused() {
    for name in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"] {
        let dir = tempfile::tempdir().unwrap();
        Draft::packed().write(dir.path());
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains(name) && message.contains("found a directory"), "{name}: {message}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).contains("has neither model.safetensors nor"));
    assert!(refusal(&dir.path().join("absent")).contains("no such file"));
    let text = dir.path().join("text.txt");
    fs::write(&text, "x").unwrap();
    assert!(refusal(&text).contains("expected a directory, a .safetensors or a .gguf file"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_or_in_circles_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    Draft::packed().write(dir.path());
    let file = dir.path().join("model.safetensors");
    for target in ["absent", "model.safetensors"] {
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(target, &file).unwrap();
        let error = read_all(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Input { .. } | Error::Io { .. }), "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
}

#[test]
fn configurations_that_are_no_json_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"a\": \"\xff\"}", deep.as_bytes(), b"nul", b"1e999"]
    {
        let dir = tempfile::tempdir().unwrap();
        Draft::packed().write(dir.path());
        fs::write(dir.path().join("config.json"), text).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("config.json"), "{message}");
    }
}

#[test]
fn options_that_contradict_the_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    Draft::packed().write(dir.path());
    let name = dir.path().to_str().unwrap();
    let open = |family: &str| {
        let options = OpenOptions { family: Some(family.into()), ..Default::default() };
        Checkpoint::open_with(name, &options).err().unwrap()
    };
    assert!(open("nonsense").to_string().contains("known: bitnet, "));
    assert!(open("bitnet").to_string().contains("is not the family bitnet's"));
    assert!(open("llama-master").to_string().contains("\"quantization_config\" contradicts"));
    let ptq = OpenOptions { ptq: Some(tritmark::checkpoint::Ptq::Absmean), ..Default::default() };
    let error = Checkpoint::open_with(name, &ptq).err().unwrap();
    assert!(matches!(error, Error::Usage(_)) && error.to_string().contains("ternary already"), "{error}");
}

proptest! {
    /// Bytes changed anywhere, mostly in the header: a model or an error, never a panic. More cases
    /// with `PROPTEST_CASES`.
    #[test]
    fn mutated_files_never_panic(
        changes in prop::collection::vec((0usize..6000, any::<u8>()), 1..4),
        far in 0usize..140_000,
        config_at in 0usize..900,
        config_byte: u8,
        in_config: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        Draft::packed().write(dir.path());
        let (file, config) = (dir.path().join("model.safetensors"), dir.path().join("config.json"));
        if in_config {
            let mut bytes = fs::read(&config).unwrap();
            let at = config_at % bytes.len();
            bytes[at] = config_byte;
            fs::write(&config, bytes).unwrap();
        } else {
            let mut bytes = fs::read(&file).unwrap();
            let len = bytes.len();
            for (at, value) in changes {
                bytes[at % len] = value;
            }
            bytes[far % len] ^= 0x40;
            fs::write(&file, bytes).unwrap();
        }
        if let Err(e) = read_all(dir.path()) {
            prop_assert!(matches!(e, Error::Input { .. }), "{e:?}");
        }
    }
}
