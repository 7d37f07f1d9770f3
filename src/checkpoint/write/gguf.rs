//! The plan of a GGUF file for a named runtime.

use super::{Action, FilePlan, Item, Origin, Plan, encode, length, matrix, side, source_form};
use crate::checkpoint::config::{Activation, LinearKind, ModelConfig};
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::gguf::quant::Quant;
use crate::checkpoint::gguf::reader::Reader;
use crate::checkpoint::gguf::runtime::{self, Held, Runtime, Verdict};
use crate::checkpoint::gguf::writer::{Header, Listed, Meta};
use crate::checkpoint::gguf::{
    FULL_KEY, KEPT_KEY, LAYOUT_KEY, ORIGIN_KEY, SCALES_KEY, names, rounding, tokenizer,
};
use crate::checkpoint::role::{LayerRole, Linear, Role};
use crate::checkpoint::tokenizer::pieces;
use crate::checkpoint::{Checkpoint, Kept};
use crate::error::{Error, Result};
use std::path::Path;
use tritmark_kernels::layout::Layout;

/// What the seven matrices of each block become.
#[derive(Debug, Clone, Copy)]
pub enum Matrices {
    /// A packed layout.
    Packed(&'static dyn Layout),
    /// Floats: the weights of a full-precision model, trits times scale of a ternary one.
    Float(Form),
}

impl Matrices {
    /// The name as on the command line.
    pub fn name(self) -> String {
        match self {
            Matrices::Packed(layout) => layout.name().into(),
            Matrices::Float(form) => form.name(),
        }
    }
}

/// What to write.
pub struct Options {
    /// The matrices.
    pub matrices: Matrices,
    /// Who shall run the file; `None` takes the first that runs it rightly.
    pub runtime: Option<Runtime>,
    /// Form of embedding and head; `None` takes F16 where that is exact, else the source's own.
    pub embedding: Option<Form>,
    /// Keep scales in f32 tensors of their own and state 1 in the blocks (architecture `bitnet`).
    pub scale_tensors: bool,
    /// The ggml type id of `tl2`; `None` takes the first that [`TL2_IDS`] lists.
    pub tl2_id: Option<u32>,
    /// Write also what the runtime is known not to load or to compute wrongly.
    pub force: bool,
}

/// The ids that bitnet.cpp has given to `tl2`: that of its first fork of llama.cpp, and that of the
/// later one, where 39 had become MXFP4.
pub const TL2_IDS: [u32; 2] = [39, 42];

/// Plans a GGUF file.
///
/// # Errors
/// If GGUF has no form for the model, a layout cannot hold a matrix, or the runtime would not compute
/// the model (unless forced).
pub fn plan(checkpoint: &Checkpoint, options: &Options) -> Result<Plan> {
    let config = &checkpoint.config;
    if matches!(options.matrices, Matrices::Packed(_)) && config.linear == LinearKind::Float {
        return Err(Error::Usage(format!(
            "{} is a full-precision model: {} holds ternary weights only\n  --ptq absmean makes it ternary, which changes the model",
            checkpoint.provenance.name,
            options.matrices.name()
        )));
    }
    let mut warnings = vec![];
    let (runtime, architecture, right) = target(config, options, &mut warnings)?;
    if options.scale_tensors && architecture != "bitnet" {
        return Err(Error::Usage(format!(
            "only the architecture bitnet has scale tensors, and {runtime} is to find this model as {architecture}"
        )));
    }
    let lookup = |prefix| options.matrices.name().starts_with(prefix);
    if options.scale_tensors && (lookup("tl1") || lookup("tl2")) {
        return Err(Error::Usage("builds of bitnet.cpp that read tl1 or tl2 know no scale tensors".into()));
    }
    if options.tl2_id.is_some() && !lookup("tl2") {
        return Err(Error::Usage("--tl2-id is for --to tl2".into()));
    }
    let mut tensors = vec![];
    for role in config.roles() {
        tensors.push(item(checkpoint, role, architecture, options)?);
        if let Some(role) = role.scale().filter(|_| options.scale_tensors) {
            let action = Action::Scale { form: Form::F32, inverse: false };
            tensors.push(named(checkpoint, role, Form::F32, vec![1], 4, action)?);
        }
    }
    let kind = |item: &Item| match &item.action {
        Action::Pack { layout, .. } if layout.name().starts_with("tl2") => {
            Some(options.tl2_id.unwrap_or(TL2_IDS[0]))
        }
        Action::Pack { layout, .. } => Form::Packed(*layout).id(),
        Action::Spread { form, .. } | Action::Float { form, .. } | Action::Scale { form, .. } => form.id(),
        Action::Bytes(_) => None,
    };
    let mut listed = vec![];
    for item in &tensors {
        let kind = kind(item).ok_or_else(|| Error::Usage(format!("no GGUF holds the layout {}", item.to)))?;
        listed.push(Listed { name: item.name.clone(), shape: item.shape.clone(), kind, len: item.len });
    }
    let mut metadata = metadata(checkpoint, architecture, options, &mut warnings)?;
    if config.linear == LinearKind::Float && config.sub_norms {
        metadata.push((FULL_KEY.into(), Meta::Flag(true)));
    }
    metadata.extend(kept(checkpoint, options, &tensors)?);
    let header = move |origin: &Origin| {
        let mut metadata = metadata.clone();
        metadata.push((ORIGIN_KEY.into(), Meta::Text(origin.json())));
        Header::new(metadata, listed.clone())
    };
    let probe = header(&Origin::unhashed(checkpoint));
    let (starts, len) = probe.place(probe.encode().len() as u64);
    for (item, start) in tensors.iter_mut().zip(starts) {
        item.start = start;
    }
    let header = Box::new(move |origin: &Origin| header(origin).encode());
    let cpu = runtime::cpu(&options.matrices.name()).map(|cpu| format!(" on {cpu}")).unwrap_or_default();
    let whom = if right { format!(" for {runtime}{cpu}") } else { String::new() };
    let target = format!("GGUF {architecture} {}{whom}", options.matrices.name());
    let files = vec![FilePlan { name: "model.gguf".into(), header, len, tensors }];
    Ok(Plan { target, directory: false, files, side: vec![], warnings })
}

/// What the forms of the file lose of the source: the exact scales where the matrices round them, and
/// how the source held them and the floats.
fn kept(checkpoint: &Checkpoint, options: &Options, tensors: &[Item]) -> Result<Vec<(String, Meta)>> {
    let mut all = vec![];
    let rounding = match options.matrices {
        Matrices::Packed(layout) => rounding(layout).filter(|_| !options.scale_tensors),
        Matrices::Float(form) => Some(form).filter(|form| *form != Form::F32),
    };
    if let (Some(form), LinearKind::Ternary) = (rounding, checkpoint.config.linear) {
        let scales = checkpoint.scales()?;
        let inexact = |&scale: &f32| encode::rounded(scale, form).is_ok_and(|stored| stored != scale);
        if scales.iter().any(inexact) {
            all.push((SCALES_KEY.to_owned(), Meta::Floats(scales)));
        }
    }
    let stored = |role: Role| {
        let item = tensors.iter().find(|item| item.role == Some(role));
        item.and_then(|item| Form::float(&item.to))
    };
    let kept = checkpoint.keep(stored);
    if kept != Kept::default() {
        let json = serde_json::to_string(&kept).map_err(|e| Error::Bug(e.to_string()))?;
        all.push((KEPT_KEY.to_owned(), Meta::Text(json)));
    }
    Ok(all)
}

/// Who shall run the file, as which architecture, and whether it does so rightly.
fn target(
    config: &ModelConfig,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(Runtime, &'static str, bool)> {
    let layout = options.matrices.name();
    let held = |architecture| Held {
        architecture,
        layout: &layout,
        q4_0: options.embedding == Some(Form::Quant(Quant::Q4_0)),
    };
    let judge = |runtime: Runtime| {
        runtime::architecture(config, runtime)
            .map(|architecture| (architecture, runtime::verdict(runtime, held(architecture), config)))
    };
    let candidates = options.runtime.map_or_else(|| Runtime::ALL.to_vec(), |runtime| vec![runtime]);
    let mut reasons = vec![];
    for &runtime in &candidates {
        match judge(runtime) {
            Ok((architecture, Verdict::Right)) => {
                let condition = runtime::condition(runtime, held(architecture));
                warnings.extend(condition.map(|how| format!("{runtime} runs it rightly {how}.")));
                return Ok((runtime, architecture, true));
            }
            Ok((_, verdict)) => reasons.push(verdict.sentence(runtime)),
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    let reasons = reasons.join("\n  ");
    let first = candidates[0];
    match judge(first) {
        Ok((architecture, _)) if options.force => {
            warnings.push(format!("Written because of --force, although: {}", reasons.replace("\n  ", "; ")));
            Ok((first, architecture, false))
        }
        Ok(_) => Err(Error::Usage(format!(
            "this model as {layout} would not run rightly:\n  {reasons}\n  Choose another layout or runtime (`tritmark formats`), or write it all the same with --force."
        ))),
        Err(reason) => Err(Error::Usage(format!("GGUF cannot hold this model: {reason}"))),
    }
}

fn item(checkpoint: &Checkpoint, role: Role, architecture: &str, options: &Options) -> Result<Item> {
    let config = &checkpoint.config;
    let shape = config.shape(role);
    let (rows, cols) = matrix(&shape);
    let interleave = match role {
        _ if architecture != "llama" => None,
        Role::Layer(_, LayerRole::Linear(Linear::Q)) => Some(config.heads),
        Role::Layer(_, LayerRole::Linear(Linear::K)) => Some(config.kv_heads),
        _ => None,
    };
    let (form, action) = match (role, options.matrices) {
        (Role::Layer(_, LayerRole::Linear(_)), Matrices::Packed(layout)) => {
            (Form::Packed(layout), Action::Pack { layout, interleave, unit: options.scale_tensors })
        }
        (Role::Layer(_, LayerRole::Linear(_)), Matrices::Float(form)) => match config.linear {
            LinearKind::Ternary => (form, Action::Spread { form, interleave, scaled: true }),
            LinearKind::Float => (form, Action::Float { form, interleave, less_one: false }),
        },
        (Role::TokenEmbedding | Role::Head, _) => {
            let form = embedding_form(checkpoint, role, options.embedding)?;
            (form, Action::Float { form, interleave: None, less_one: false })
        }
        _ => (Form::F32, Action::Float { form: Form::F32, interleave: None, less_one: false }),
    };
    let len = length(form, &names::name(role).unwrap_or_default(), rows, cols)?;
    named(checkpoint, role, form, shape, len as u64, action)
}

fn named(
    checkpoint: &Checkpoint,
    role: Role,
    form: Form,
    shape: Vec<usize>,
    len: u64,
    action: Action,
) -> Result<Item> {
    let name = names::name(role).ok_or_else(|| Error::Usage(format!("GGUF has no name for {role}")))?;
    let from = source_form(checkpoint, role);
    Ok(Item { name, role: Some(role), shape, from, to: form.name(), start: 0, len, action })
}

/// F16, which every runtime reads fast, unless it would change a value.
fn embedding_form(checkpoint: &Checkpoint, role: Role, asked: Option<Form>) -> Result<Form> {
    if let Some(form) = asked {
        return Ok(form);
    }
    for form in [Form::F16, Form::Bf16] {
        if encode::exact(checkpoint, role, form)? {
            return Ok(form);
        }
    }
    Ok(Form::F32)
}

/// The `general.file_type` that llama.cpp and its forks write.
fn file_type(matrices: Matrices) -> u32 {
    match matrices {
        Matrices::Float(Form::F32) => 0,
        Matrices::Float(Form::Bf16) => 32,
        Matrices::Float(_) => 1,
        Matrices::Packed(layout) => match layout.name() {
            "tq1_0" => 36,
            "tq2_0" => 37,
            "q2_0" | "q2_0_g128" => 41,
            "iq1_bn" => 136,
            "iq2_bn" => 137,
            name if name.starts_with("tl1") => 38,
            name if name.starts_with("tl2") => 39,
            _ => 40,
        },
    }
}

fn metadata(
    checkpoint: &Checkpoint,
    architecture: &str,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Meta)>> {
    let c = &checkpoint.config;
    let uint = |n: usize| {
        u32::try_from(n).map(Meta::Uint).map_err(|_| Error::Usage(format!("{n} is out of GGUF's range")))
    };
    let text = |s: &str| Meta::Text(s.into());
    let source = checkpoint.provenance.path();
    let name = source.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let mut all = vec![
        ("general.architecture".to_owned(), text(architecture)),
        ("general.name".into(), text(&name)),
        ("general.file_type".into(), Meta::Uint(file_type(options.matrices))),
        ("general.quantization_version".into(), Meta::Uint(2)),
    ];
    let activation = match c.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    let of_architecture = [
        ("vocab_size", uint(c.vocab)?),
        ("context_length", uint(c.context)?),
        ("embedding_length", uint(c.hidden)?),
        ("block_count", uint(c.layers)?),
        ("feed_forward_length", uint(c.ffn)?),
        ("rope.dimension_count", uint(c.head_dim)?),
        ("rope.freq_base", Meta::Float(c.rope_theta as f32)),
        ("attention.head_count", uint(c.heads)?),
        ("attention.head_count_kv", uint(c.kv_heads)?),
        ("attention.key_length", uint(c.head_dim)?),
        ("attention.value_length", uint(c.head_dim)?),
        ("attention.layer_norm_rms_epsilon", Meta::Float(c.norm_eps)),
        ("hidden_activation", text(activation)),
    ];
    all.extend(of_architecture.into_iter().map(|(key, value)| (format!("{architecture}.{key}"), value)));
    if let Matrices::Packed(layout) = options.matrices {
        all.push((LAYOUT_KEY.into(), text(layout.name())));
    }
    all.extend(tokenizer_metadata(checkpoint, source, options, warnings)?);
    Ok(all)
}

/// The tokenizer: as it stands in a GGUF source, else made from `tokenizer.json`. Without one the file
/// says so, since runtimes load no file that says nothing.
fn tokenizer_metadata(
    checkpoint: &Checkpoint,
    source: &Path,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Meta)>> {
    if source.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        let reader = Reader::open(source)?;
        let ours = reader.metadata().iter().filter(|e| e.key.starts_with("tokenizer."));
        let mut all: Vec<_> = ours.map(|e| (e.key.clone(), Meta::Raw(reader.raw(e).to_vec()))).collect();
        if reader.text(tokenizer::MODEL_KEY)?.is_none() {
            all.extend(no_tokenizer(warnings));
        }
        return Ok(all);
    }
    let config = &checkpoint.config;
    let side = side::files(checkpoint)?;
    let made = checkpoint.tokenizer.as_ref().map(|json| from_hf(json, config.vocab, source, &side));
    let mut all: Vec<_> = match made.transpose()? {
        None => no_tokenizer(warnings).into(),
        Some(Ok(made)) => made.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        Some(Err(reason)) if options.force => {
            warnings.push(format!("The tokenizer cannot be written: {reason}."));
            no_tokenizer(warnings).into()
        }
        Some(Err(reason)) => {
            return Err(Error::Usage(format!(
                "{}: GGUF cannot hold its tokenizer: {reason}\n  --force writes the model without it.",
                checkpoint.provenance.name
            )));
        }
    };
    // Having a BOS token is one thing, beginning with it another.
    all.retain(|(key, _)| key != tokenizer::ADD_BOS_KEY);
    all.push((tokenizer::ADD_BOS_KEY.into(), Meta::Flag(config.bos.is_some())));
    let mut token = |which: &str, id: Option<u32>| {
        if let Some(id) = id {
            all.push((format!("tokenizer.ggml.{which}_token_id"), Meta::Uint(id)));
        }
    };
    token("bos", checkpoint.kept.bos.or(config.bos));
    token("eos", config.eos.first().copied());
    token("eot", config.eos.get(1).copied());
    if let Some(template) = side::chat_template_of(&side) {
        all.push(("tokenizer.chat_template".into(), Meta::Text(template)));
    }
    Ok(all)
}

/// The metadata of a file without a tokenizer.
fn no_tokenizer(warnings: &mut Vec<String>) -> [(String, Meta); 1] {
    warnings.push("The output has no tokenizer: runtimes can use it with token ids only.".into());
    [(tokenizer::MODEL_KEY.into(), Meta::Text(tokenizer::NONE.into()))]
}

/// The metadata of a tokenizer of a Hugging Face directory, or why there is none for it.
fn from_hf(
    json: &[u8],
    vocab: usize,
    source: &Path,
    side: &[(String, Vec<u8>)],
) -> Result<Result<Vec<(&'static str, Meta)>, String>> {
    let Some((_, model)) = side.iter().find(|(name, _)| name == "tokenizer.model") else {
        return Ok(tokenizer::to_metadata(json, vocab));
    };
    let path = source.join("tokenizer.model");
    let pieces = pieces(&path, model)?.ok_or_else(|| {
        Error::input(
            &path,
            "expected a SentencePiece model of byte-pair encoding without a normalisation table",
        )
        .hint("convert it to tokenizer.json with transformers, or remove it to convert without a tokenizer")
    })?;
    Ok(tokenizer::sentencepiece_metadata(&pieces, json, vocab))
}
