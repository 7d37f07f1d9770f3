//! The plan of a Hugging Face directory that transformers loads.

use super::archive::{self, Stored};
use super::encode::{exact, rounded};
use super::{Action, Item, Origin, Plan, side, source_form};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{Activation, LinearKind, ModelConfig};
use crate::checkpoint::families::{self, Family};
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::role::Role;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use tritmark_kernels::layout;

/// What to write.
pub struct Options {
    /// Whether trits are packed four to a byte, or stand as bf16 values.
    pub packed: bool,
    /// Form of embedding and head; `None` takes the source's own, or bf16 where that is exact.
    pub embedding: Option<Form>,
    /// Bytes that a file may have, unless a single tensor is larger.
    pub shard_size: u64,
}

/// How `weight_scale` is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScaleForm {
    form: Form,
    inverse: bool,
}

/// Plans a directory.
///
/// # Errors
/// If transformers has no class for the model, or its packed form cannot hold a matrix.
pub fn plan(checkpoint: &Checkpoint, options: &Options) -> Result<Plan> {
    let config = &checkpoint.config;
    let (family, architecture) = class(config)?;
    if config.linear == LinearKind::Float && options.packed {
        return Err(Error::Usage(format!(
            "{} is a full-precision model: hf holds ternary weights only\n  --ptq absmean makes it ternary, which changes the model; --to bf16 keeps it as it is",
            checkpoint.provenance.name
        )));
    }
    let scale = match config.linear {
        LinearKind::Ternary => Some(scale_form(checkpoint, options)?),
        LinearKind::Float => None,
    };
    let exact_scales = match scale {
        None => true,
        Some(s) => {
            let turn = |x: f32| if s.inverse { 1.0 / x } else { x };
            let exact = |&x: &f32| s.form.round(turn(x)).is_some_and(|stored| turn(stored) == x);
            checkpoint.scales()?.iter().all(exact)
        }
    };
    let floats = match scale {
        // Norms less one are not checked for narrower forms.
        _ if config.gemma.is_some() => Some(Form::F32),
        Some(scale) if !scale.inverse => Some(one_form(checkpoint, scale, options.embedding)?),
        _ => None,
    };
    let (mut stored, mut forms) = (vec![], HashMap::new());
    for role in config.roles() {
        let found = tensor(checkpoint, family, role, options, floats)?;
        forms.extend(Form::float(&found.item.to).map(|form| (role, form)));
        stored.push(found);
        if let (Some(role), Some(ScaleForm { form, inverse })) = (role.scale(), scale) {
            let len = form.len(1, 1).map_err(Error::Bug)? as u64;
            let item =
                named(checkpoint, family, role, vec![1], len, form.name(), Action::Scale { form, inverse })?;
            stored.push(Stored { item, dtype: archive::dtype(form), shape: vec![1] });
        }
    }
    let unhashed = Origin::unhashed(checkpoint);
    let (files, index) = shards(stored, options.shard_size, &unhashed);
    let json = config_json(checkpoint, family, architecture, scale, floats.unwrap_or(Form::Bf16));
    let mut kept = checkpoint.keep(|role| forms.get(&role).copied());
    kept.rounded = checkpoint.kept.rounded || scale.is_some_and(|s| s.form == Form::Bf16 && !exact_scales);
    let config_file = move |origin: &Origin| {
        let mut json = json.clone();
        json["tritmark"] = serde_json::to_value(origin).expect("strings have a JSON form");
        json["tritmark"]["kept"] = serde_json::to_value(&kept).expect("strings have a JSON form");
        format!("{json:#}\n").into_bytes()
    };
    let mut side: Vec<(String, super::Stating)> = vec![("config.json".into(), Box::new(config_file))];
    for (name, content) in side::files(checkpoint)? {
        side.push((name, Box::new(move |_| content.clone())));
    }
    if let Some(index) = index {
        let text = format!("{index:#}\n").into_bytes();
        side.push(("model.safetensors.index.json".into(), Box::new(move |_| text.clone())));
    }
    let mut warnings = vec![];
    if scale.is_some_and(|s| s.form == Form::F32) {
        warnings.push("The scales are not exact in bf16, so they and all floats are f32, and transformers computes in f32. --embedding bf16 rounds them to bf16 instead, as published checkpoints are.".into());
    }
    if !side.iter().any(|(name, _)| name.starts_with("tokenizer.")) {
        warnings.push("The source has no tokenizer, so the output has none.".into());
    }
    let form = match (options.packed, floats) {
        (true, _) => "packed".to_owned(),
        (false, floats) => format!("unpacked {}", floats.unwrap_or(Form::Bf16).name()),
    };
    let target = format!("Hugging Face {architecture}, {form}");
    Ok(Plan { target, directory: true, files, side, warnings })
}

/// The class of transformers and the family that names its tensors.
///
/// # Errors
/// If there is no such class.
pub fn class(config: &ModelConfig) -> Result<(&'static Family, &'static str)> {
    let (family, class) = match (config.gemma.is_some(), config.sub_norms, config.qk_norm) {
        (false, true, false) if config.heads * config.head_dim != config.hidden => {
            return Err(Error::Usage(format!(
                "transformers' BitNetForCausalLM has heads as wide together as the model, but here {} heads of {} stand beside a width of {}",
                config.heads, config.head_dim, config.hidden
            )));
        }
        (false, true, false) => ("bitnet", "BitNetForCausalLM"),
        (false, false, true) => ("qwen3", "Qwen3ForCausalLM"),
        (true, false, true) => ("gemma3", "Gemma3ForCausalLM"),
        (false, false, false) => ("llama", "LlamaForCausalLM"),
        _ => {
            return Err(Error::Usage(
                "transformers has no class for this model with BitLinear layers; convert to one of our own layouts (.safetensors) instead".into(),
            ));
        }
    };
    let family = families::by_name(family).ok_or_else(|| Error::Bug(format!("no family {family}")))?;
    Ok((family, class))
}

/// The form that holds every scale exactly, bf16 first; f32 always does. Only packed matrices may have
/// the inverse one: transformers' class for it unpacks whatever it finds.
fn scale_form(checkpoint: &Checkpoint, options: &Options) -> Result<ScaleForm> {
    if checkpoint.config.gemma.is_some() {
        return Ok(ScaleForm { form: Form::F32, inverse: false });
    }
    let scales = checkpoint.scales()?;
    // Where both forms hold all, the source's own comes first.
    let first = checkpoint.kept.inverse;
    for inverse in [first, !first].into_iter().filter(|inverse| options.packed || !inverse) {
        let turn = |x: f32| if inverse { 1.0 / x } else { x };
        let exact = |&s: &f32| Form::Bf16.round(turn(s)).is_some_and(|stored| turn(stored) == s);
        if scales.iter().all(exact) {
            return Ok(ScaleForm { form: Form::Bf16, inverse });
        }
    }
    // Asked for bf16, the scales are rounded, as those of the published packed checkpoints are.
    let form = if options.embedding == Some(Form::Bf16) { Form::Bf16 } else { Form::F32 };
    Ok(ScaleForm { form, inverse: false })
}

/// The one form of all floats beside scales that multiply. transformers (5.23, 5.24) leaves them as
/// they are stored, while the linear layers take the configuration's `torch_dtype`; two types then
/// meet in a product and it stops.
fn one_form(checkpoint: &Checkpoint, scale: ScaleForm, asked: Option<Form>) -> Result<Form> {
    let config = &checkpoint.config;
    let embeds = |role: &Role| matches!(role, Role::TokenEmbedding | Role::Head);
    let matrices: Vec<Role> = config.linear_roles().collect();
    let mut floats = config.roles();
    floats.retain(|role| !matrices.contains(role));
    // The first source's own form comes first, where it had only one.
    let mut own: Vec<Option<Form>> = floats.iter().map(|&role| checkpoint.original_form(role)).collect();
    own.dedup();
    let own = match own.as_slice() {
        [one] => *one,
        _ => None,
    };
    // What is asked for may round the embedding and the head, but nothing else.
    floats.retain(|role| asked.is_none() || !embeds(role));
    let holds = |form: Form| -> Result<bool> {
        if !matches!(form, Form::F32 | Form::F16 | Form::Bf16)
            || (scale.form == Form::F32 && form != Form::F32)
        {
            return Ok(false);
        }
        for &role in matrices.iter().filter(|_| asked != Some(form)) {
            let scale = checkpoint.scale(role)?;
            if rounded(scale, form)? != scale {
                return Ok(false);
            }
        }
        for &role in &floats {
            if !exact(checkpoint, role, form)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    for form in own.into_iter().chain([Form::Bf16, Form::F16, Form::F32]) {
        if asked.is_none_or(|asked| asked == form) && holds(form)? {
            return Ok(form);
        }
    }
    Err(Error::Usage(format!(
        "transformers needs all floats of this model in one form, and {} does not hold its norms exactly: choose f32",
        asked.unwrap_or(Form::F32).name()
    )))
}

fn tensor(
    checkpoint: &Checkpoint,
    family: &Family,
    role: Role,
    options: &Options,
    floats: Option<Form>,
) -> Result<Stored> {
    let shape = checkpoint.config.shape(role);
    let linear = role.is_matrix();
    let (form, action, in_file) = if linear && checkpoint.config.linear == LinearKind::Ternary {
        if options.packed {
            let layout = &layout::HF;
            let packed = vec![shape[0] / 4, shape[1]];
            (Form::Packed(layout), Action::Pack { layout, interleave: None, unit: false }, packed)
        } else {
            let form = floats.unwrap_or(Form::Bf16);
            (form, Action::Spread { form, interleave: None, scaled: false }, shape.clone())
        }
    } else {
        let asked = options.embedding.filter(|_| matches!(role, Role::TokenEmbedding | Role::Head));
        let form = match floats.or(asked) {
            Some(form) => form,
            None => float_form(checkpoint, role)?,
        };
        let less_one = family.norm_lacks_one(role);
        (form, Action::Float { form, interleave: None, less_one }, shape.clone())
    };
    let (rows, cols) = super::matrix(&shape);
    let len = super::length(form, &role, rows, cols)?;
    let item = named(checkpoint, family, role, shape, len as u64, form.name(), action)?;
    Ok(Stored { item, dtype: archive::dtype(form), shape: in_file })
}

/// The form in which the first source held a tensor, where that is known; else bf16 where that is
/// exact.
fn float_form(checkpoint: &Checkpoint, role: Role) -> Result<Form> {
    if let Some(form) = checkpoint.original_form(role)
        && exact(checkpoint, role, form)?
    {
        return Ok(form);
    }
    for form in [Form::Bf16, Form::F16] {
        if exact(checkpoint, role, form)? {
            return Ok(form);
        }
    }
    Ok(Form::F32)
}

fn named(
    checkpoint: &Checkpoint,
    family: &Family,
    role: Role,
    shape: Vec<usize>,
    len: u64,
    to: String,
    action: Action,
) -> Result<Item> {
    let name = family
        .tensor_name(role, Some("rms_norm"))
        .ok_or_else(|| Error::Bug(format!("{} has no name for {role}", family.name)))?;
    let name = if role == Role::Head { name } else { format!("model.{name}") };
    let from = source_form(checkpoint, role);
    Ok(Item { name, role: Some(role), shape, from, to, start: 0, len, action })
}

/// Deals tensors out to files of at most `size` bytes each, in order; with more than one file, also
/// the index.
fn shards(stored: Vec<Stored>, size: u64, unhashed: &Origin) -> (Vec<super::FilePlan>, Option<Value>) {
    let total: u64 = stored.iter().map(|s| s.item.len).sum();
    // What a tensor adds to the header, with offsets as long as the longest.
    let entry = |s: &Stored| {
        let entry = json!({ "dtype": s.dtype, "shape": s.shape, "data_offsets": [total, total] });
        (s.item.name.len() + entry.to_string().len()) as u64 + 4
    };
    let empty = archive::plan(String::new(), vec![], |_| json!({ "format": "pt" }), unhashed).len + 8;
    let mut groups: Vec<Vec<Stored>> = vec![vec![]];
    let mut filled = empty;
    for tensor in stored {
        let len = tensor.item.len + entry(&tensor);
        if filled > empty && filled + len > size {
            groups.push(vec![]);
            filled = empty;
        }
        filled += len;
        groups.last_mut().expect("there is one").push(tensor);
    }
    let count = groups.len();
    let name = |i: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let files = groups
        .into_iter()
        .enumerate()
        .map(|(i, group)| archive::plan(name(i), group, |_| json!({ "format": "pt" }), unhashed));
    let files: Vec<_> = files.collect();
    let index = (count > 1).then(|| {
        let mut map = serde_json::Map::new();
        for file in &files {
            map.extend(file.tensors.iter().map(|t| (t.name.clone(), file.name.clone().into())));
        }
        json!({ "metadata": { "total_size": total }, "weight_map": map })
    });
    (files, index)
}

fn config_json(
    checkpoint: &Checkpoint,
    family: &Family,
    architecture: &str,
    scale: Option<ScaleForm>,
    floats: Form,
) -> Value {
    let (c, kept) = (&checkpoint.config, &checkpoint.kept);
    let dtype = match floats {
        Form::F32 => "float32",
        Form::F16 => "float16",
        _ => "bfloat16",
    };
    let mut json = json!({
        "architectures": [architecture],
        "model_type": family.model_type,
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": match c.activation {
            Activation::Relu2 => "relu2",
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        },
        "max_position_embeddings": c.context,
        "rms_norm_eps": decimal(c.norm_eps),
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
        "use_cache": true,
    });
    kept.config.iter().for_each(|(key, value)| json[key] = value.clone());
    if let Some(bos) = kept.bos.or(c.bos) {
        json["bos_token_id"] = bos.into();
    }
    if let Some(gemma) = &c.gemma {
        let rope = |theta: f64| json!({ "rope_type": "default", "rope_theta": theta });
        let kind = |&windowed: &bool| if windowed { "sliding_attention" } else { "full_attention" };
        json["hidden_activation"] = json["hidden_act"].clone();
        let scalar = gemma.query_pre_attn_scalar;
        // transformers takes a whole number only.
        json["query_pre_attn_scalar"] =
            if scalar.fract() == 0.0 { Value::from(scalar as u64) } else { scalar.into() };
        json["sliding_window"] = gemma.window.into();
        json["layer_types"] = gemma.windowed.iter().map(kind).collect::<Vec<_>>().into();
        json["rope_parameters"] = json!({
            "full_attention": rope(c.rope_theta), "sliding_attention": rope(gemma.local_rope_theta),
        });
        json["rope_local_base_freq"] = gemma.local_rope_theta.into();
    }
    match c.eos.as_slice() {
        [] => {}
        [one] => json["eos_token_id"] = (*one).into(),
        many => json["eos_token_id"] = many.into(),
    }
    if let Some(scale) = scale {
        json["quantization_config"] = json!({
            "quant_method": "bitnet",
            "linear_class": if scale.inverse { "bitlinear" } else { "autobitlinear" },
            "quantization_mode": "offline",
        });
        if let Some(modules) = &kept.not_converted {
            json["quantization_config"]["modules_to_not_convert"] = modules.clone().into();
        }
        if let Some(eps) = c.inner_norm_eps {
            json["quantization_config"]["use_rms_norm"] = true.into();
            json["quantization_config"]["rms_norm_eps"] = decimal(eps);
        }
    }
    json
}

/// The shortest decimal that gives this f32, not the long one of its f64.
fn decimal(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
