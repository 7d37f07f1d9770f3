//! The same weights written in different ways read as the same model.

mod common {
    pub mod draft;
}

use common::draft::Draft;
use half::bf16;
use safetensors::Dtype;
use serde_json::{Value, json};
use tritmark::checkpoint::config::{Activation, LinearKind};
use tritmark::checkpoint::role::{LayerRole, Linear, Role};
use tritmark::checkpoint::{Checkpoint, OpenOptions, Ptq, Ternary};

fn open_with(draft: &Draft, options: &OpenOptions) -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    draft.write(dir.path());
    // The files stay mapped when the folder is gone.
    Checkpoint::open_with(dir.path().to_str().unwrap(), options).unwrap()
}

fn open(draft: &Draft) -> Checkpoint {
    open_with(draft, &OpenOptions::default())
}

/// Every ternary matrix, in the order of the forward pass.
fn matrices(checkpoint: &Checkpoint) -> Vec<Ternary> {
    let roles = (0..checkpoint.config.layers)
        .flat_map(|layer| Linear::ALL.map(|linear| Role::Layer(layer, LayerRole::Linear(linear))));
    roles.map(|role| checkpoint.ternary(role).unwrap()).collect()
}

fn scale_of(draft: &Draft, name: &str) -> f32 {
    bf16::from_le_bytes(draft.tensors[&format!("{name}_scale")].2[..2].try_into().unwrap()).to_f32()
}

/// Unpacked bf16 weights, each multiplied by its matrix' scale, without scales and
/// `quantization_config`.
fn dequantised(draft: Draft) -> Draft {
    let mut draft = draft.unpacked();
    let scales: Vec<_> =
        draft.tensors.keys().filter_map(|n| n.strip_suffix("_scale")).map(str::to_owned).collect();
    for name in scales {
        let scale = scale_of(&draft, &name);
        for weight in draft.tensor(&name).2.as_chunks_mut().0 {
            *weight = bf16::from_f32(bf16::from_le_bytes(*weight).to_f32() * scale).to_le_bytes();
        }
        draft.tensors.remove(&format!("{name}_scale"));
    }
    draft.config.as_object_mut().unwrap().remove("quantization_config");
    draft
}

/// Weights that are no trits times a scale.
fn floats(draft: Draft) -> Draft {
    let mut draft = dequantised(draft);
    for (_, tensor) in draft.tensors.iter_mut().filter(|(n, _)| n.contains("_proj.weight")) {
        for (i, weight) in tensor.2.as_chunks_mut().0.iter_mut().enumerate() {
            *weight = bf16::from_f32((i as f32 * 0.37).sin() * 0.05).to_le_bytes();
        }
    }
    draft
}

/// A BitNet embedding model on Gemma 3, made of one on Qwen3: the first of its two layers sees four
/// positions.
fn gemma() -> Draft {
    let mut draft = Draft::fixture("bitembed-qwen3");
    for layer in 0..2 {
        let name = |end: &str| format!("layers.{layer}.{end}_layernorm.weight");
        draft.copy(&name("post_attention"), &name("pre_feedforward"));
        draft.copy(&name("input"), &name("post_feedforward"));
    }
    set(
        &mut draft,
        json!({
            "architectures": ["Gemma3TextModel"], "model_type": "gemma3_text", "hidden_act": null,
            "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 48, "sliding_window": 4,
            "rope_local_base_freq": 10000.0, "sliding_window_pattern": 2, "tie_word_embeddings": null,
        }),
    );
    draft
}

/// Sets keys of a configuration.
fn set(draft: &mut Draft, keys: Value) {
    draft.config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
}

#[test]
fn unpacked_dequantised_and_sharded_weights_are_the_packed_ones() {
    let draft = Draft::fixture("bitnet2b-packed");
    let packed = open(&draft);
    assert_eq!(packed.provenance.dialect, "hf-packed");
    let unpacked = open(&draft.clone().unpacked());
    assert_eq!(unpacked.provenance.dialect, "hf-unpacked");
    assert_eq!(matrices(&packed), matrices(&unpacked));
    let dequantised = open(&dequantised(draft.clone()));
    assert_eq!(dequantised.provenance.dialect, "hf-dequantised");
    assert!(dequantised.provenance.notes[0].contains("trit times a common scale"));
    assert_eq!(matrices(&packed), matrices(&dequantised));
    assert_eq!(packed.config, dequantised.config);

    let dir = tempfile::tempdir().unwrap();
    draft.write_sharded(dir.path());
    let sharded = Checkpoint::open(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(sharded.provenance.files.len(), 2);
    assert_eq!(matrices(&packed), matrices(&sharded));
}

#[test]
fn a_single_file_is_opened_by_its_own_path() {
    let dir = tempfile::tempdir().unwrap();
    Draft::packed().write(dir.path());
    let file = dir.path().join("model.safetensors");
    let checkpoint = Checkpoint::open(file.to_str().unwrap()).unwrap();
    assert_eq!(checkpoint.provenance.files, [file]);
}

#[test]
fn one_weight_off_the_common_magnitude_is_found_when_it_is_decoded() {
    let mut draft = dequantised(Draft::fixture("bitnet2b-packed"));
    let name = "model.layers.1.mlp.gate_proj.weight";
    // Beyond what is looked at when the checkpoint is opened.
    let at = 100 * 256 + 3;
    draft.tensor(name).2[2 * at..][..2].copy_from_slice(&bf16::from_f32(0.123).to_le_bytes());
    let error =
        open(&draft).ternary(Role::Layer(1, LayerRole::Linear(Linear::Gate))).unwrap_err().to_string();
    assert!(error.contains(&format!("{name}: row 100, column 3: expected zero or the magnitude")), "{error}");
}

#[test]
fn the_direction_of_the_scale_follows_the_class() {
    let mut draft = Draft::packed();
    let multiplies = matrices(&open(&draft));
    draft.config["quantization_config"].as_object_mut().unwrap().remove("linear_class");
    let checkpoint = open(&draft);
    assert_eq!(checkpoint.provenance.scale_rule, "weight_scale divides");
    for (a, b) in multiplies.iter().zip(matrices(&checkpoint)) {
        assert_eq!(a.trits, b.trits);
        assert_eq!(1.0 / a.scale, b.scale);
    }
}

#[test]
fn old_and_new_configurations_mean_the_same() {
    let mut draft = Draft::packed();
    let old = open(&draft).config;
    let map = draft.config.as_object_mut().unwrap();
    map.remove("rope_scaling");
    map.remove("torch_dtype");
    let theta = map.remove("rope_theta").unwrap();
    map.insert("rope_parameters".into(), json!({"rope_theta": theta, "rope_type": "default"}));
    map.insert("dtype".into(), json!("bfloat16"));
    map.insert("head_dim".into(), json!(32));
    assert_eq!(open(&draft).config, old);
    // Either form may name its kind in either way, and its base inside.
    let with = |parameters: Value, scaling: Value| {
        let mut draft = Draft::packed();
        draft.config["rope_parameters"] = parameters;
        draft.config["rope_scaling"] = scaling;
        draft.config["rope_theta"] = theta.clone();
        let dir = tempfile::tempdir().unwrap();
        draft.write(dir.path());
        Checkpoint::open(dir.path().to_str().unwrap()).err().unwrap().to_string()
    };
    let linear = json!({"rope_theta": theta, "type": "linear", "factor": 4.0});
    assert!(with(linear, Value::Null).contains("linear"));
    let inner = json!({"rope_type": "default", "rope_theta": 50.0});
    assert!(with(Value::Null, inner).contains("contradicts \"rope_scaling.rope_theta\" (50)"));
}

#[test]
fn full_precision_is_made_ternary_only_on_request_and_says_so() {
    let draft = floats(Draft::fixture("bitnet2b-packed"));
    let plain = open(&draft);
    assert_eq!(plain.config.linear, LinearKind::Float);
    let role = Role::Layer(0, LayerRole::Linear(Linear::Q));
    assert!(plain.ternary(role).unwrap_err().to_string().contains("full-precision"));
    assert_eq!(plain.float(role).unwrap().shape, [256, 256]);

    let ptq = open_with(&draft, &OpenOptions { ptq: Some(Ptq::Absmean), ..Default::default() });
    assert_eq!(ptq.config.linear, LinearKind::Ternary);
    assert!(
        ptq.provenance.notes[0].contains("POST-TRAINING")
            && ptq.provenance.scale_rule.contains("POST-TRAINING")
    );

    // The same weights, stated to be masters, give the same trits without that label.
    let mut online = draft.clone();
    online.config["quantization_config"] =
        json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
    let online = open(&online);
    assert_eq!((online.provenance.dialect.as_str(), online.provenance.notes.len()), ("hf-master", 0));
    assert_eq!(matrices(&ptq), matrices(&online));
}

#[test]
fn a_llama_of_floats_is_called_ambiguous_and_can_be_stated_to_hold_masters() {
    let mut draft = floats(Draft::packed());
    draft.tensors.retain(|name, _| !name.contains("rms_norm"));
    let plain = open(&draft);
    assert_eq!((plain.provenance.family.as_str(), plain.config.linear), ("llama", LinearKind::Float));
    assert!(plain.provenance.notes[0].contains("--family"));
    let stated =
        |family: &str| open_with(&draft, &OpenOptions { family: Some(family.into()), ..Default::default() });
    let (f32s, bf16s) = (stated("llama-master"), stated("falcon-e-prequantized"));
    assert_eq!((f32s.config.linear, bf16s.config.linear), (LinearKind::Ternary, LinearKind::Ternary));
    assert_eq!(
        (f32s.provenance.scale_rule.as_str(), bf16s.provenance.scale_rule.as_str()),
        ("absmean in f32", "absmean in bf16")
    );

    // A configuration that claims to be a BitNet's must say how.
    draft.config["is_bitnet_config"] = json!(true);
    let dir = tempfile::tempdir().unwrap();
    draft.write(dir.path());
    let error = Checkpoint::open(dir.path().to_str().unwrap()).err().unwrap().to_string();
    assert!(error.contains("is_bitnet_config") && error.contains("--family llama-master"), "{error}");
}

#[test]
fn the_old_bitnet_has_names_of_its_own() {
    let new = floats(Draft::fixture("bitnet2b-packed"));
    let mut old = new.clone();
    old.config["architectures"] = json!(["BitnetForCausalLM"]);
    old.config["model_type"] = json!("llama");
    old.config["hidden_act"] = json!("silu");
    old.config["weight_bits"] = json!(1);
    old.config["input_bits"] = json!(8);
    old.tensors = old
        .tensors
        .into_iter()
        .map(|(name, (_, shape, bytes))| {
            let name =
                name.replace("attn_sub_norm", "inner_attn_ln").replace("ffn_sub_norm", "ffn_layernorm");
            let f32s =
                bytes.as_chunks().0.iter().flat_map(|b| bf16::from_le_bytes(*b).to_f32().to_le_bytes());
            (name, (Dtype::F32, shape, f32s.collect()))
        })
        .collect();
    let found = open(&old);
    assert_eq!(found.provenance.family, "bitnet-1bitllm");
    assert_eq!((found.config.activation, found.config.sub_norms), (Activation::Silu, true));
    let ptq = OpenOptions { ptq: Some(Ptq::Absmean), ..Default::default() };
    assert_eq!(matrices(&found), matrices(&open_with(&new, &ptq)));

    old.config["input_bits"] = json!(4);
    let dir = tempfile::tempdir().unwrap();
    old.write(dir.path());
    let error = Checkpoint::open(dir.path().to_str().unwrap()).err().unwrap().to_string();
    assert!(error.contains("\"input_bits\": expected 8, found 4"), "{error}");
}

#[test]
fn only_the_native_norms_of_a_gemma_lack_one() {
    let mut draft = gemma();
    let gemma = open(&draft);
    assert_eq!(gemma.provenance.family, "bitnet-embedding-gemma3");
    assert_eq!(gemma.config.activation, Activation::GeluTanh);
    assert!(gemma.config.tied);
    let extra = gemma.config.gemma.clone().unwrap();
    assert_eq!((extra.windowed, extra.local_rope_theta, extra.window), (vec![true, false], 1e4, 4));

    let qwen = open(&Draft::fixture("bitembed-qwen3"));
    assert_eq!(matrices(&gemma), matrices(&qwen));
    let both = |role| {
        let of = |c: &Checkpoint| c.float(Role::Layer(0, role)).unwrap().to_f32();
        of(&gemma).into_iter().zip(of(&qwen)).collect::<Vec<_>>()
    };
    assert!(both(LayerRole::AttnNorm).iter().all(|(g, q)| *g == 1.0 + q));
    assert!(both(LayerRole::QNorm).iter().all(|(g, q)| *g == 1.0 + q));
    assert!(both(LayerRole::InnerNorm(Linear::Down)).iter().all(|(g, q)| g == q));
    let embedding = |c: &Checkpoint| c.float(Role::TokenEmbedding).unwrap();
    assert_eq!(embedding(&gemma), embedding(&qwen));

    // The newer shape of the same configuration.
    let map = draft.config.as_object_mut().unwrap();
    for key in ["rope_theta", "rope_local_base_freq", "sliding_window_pattern"] {
        map.remove(key);
    }
    let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    set(
        &mut draft,
        json!({
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"sliding_attention": rope(1e4), "full_attention": rope(1e6)},
        }),
    );
    assert_eq!(open(&draft).config, gemma.config);
}
