//! The plan of a single safetensors file that holds a model in any layout, with everything that is
//! needed to run it: configuration, scales in f32, floats as they were, tokenizer.
//!
//! The metadata (all strings): `format` is `tritmark`; `version` is `1`; `layout` names the layout;
//! `config` is the configuration as JSON; `origin` tells where the weights come from; `kept` is a [`Kept`](crate::checkpoint::Kept) as JSON. Tensors have
//! the names of their [`Role`]; a packed matrix is `U8 [bytes]`, its scale `F32 [1]` under the same name
//! with `.scale`. `tokenizer.json` and the [`COMPANIONS`] are `U8` tensors.

use super::archive::{self, Stored};
use super::{Action, Item, Origin, Plan, encode, length, matrix, side, source_form};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::LinearKind;
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::role::Role;
use crate::error::{Error, Result};
use serde_json::json;
use std::collections::HashMap;
use tritmark_kernels::layout::Layout;

/// Plans a file.
///
/// # Errors
/// If the layout cannot hold a matrix, or the model is not ternary.
pub fn plan(checkpoint: &Checkpoint, layout: &'static dyn Layout, embedding: Option<Form>) -> Result<Plan> {
    let config = &checkpoint.config;
    if config.linear == LinearKind::Float {
        return Err(Error::Usage(format!(
            "{} is a full-precision model: {} holds ternary weights only\n  --ptq absmean makes it ternary, which changes the model",
            checkpoint.provenance.name,
            layout.name()
        )));
    }
    let (mut stored, mut forms) = (vec![], HashMap::new());
    let mut push = |role: Role, shape: Vec<usize>, form: Form, action: Action| -> Result<()> {
        let (rows, cols) = matrix(&shape);
        let len = length(form, &role, rows, cols)?;
        let item = Item {
            name: role.to_string(),
            role: Some(role),
            from: source_form(checkpoint, role),
            to: form.name(),
            start: 0,
            len: len as u64,
            action,
            shape: shape.clone(),
        };
        let in_file = if matches!(form, Form::Packed(_)) { vec![len] } else { shape };
        stored.push(Stored { item, dtype: archive::dtype(form), shape: in_file });
        Ok(())
    };
    for role in config.roles() {
        let shape = config.shape(role);
        if let Some(scale) = role.scale() {
            push(role, shape, Form::Packed(layout), Action::Pack { layout, interleave: None, unit: false })?;
            push(scale, vec![1], Form::F32, Action::Scale { form: Form::F32, inverse: false })?;
            continue;
        }
        let asked = embedding.filter(|_| matches!(role, Role::TokenEmbedding | Role::Head));
        let source = Form::float(&source_form(checkpoint, role)).filter(|f| !matches!(f, Form::Quant(_)));
        let own = match checkpoint.original_form(role) {
            Some(form) if encode::exact(checkpoint, role, form)? => Some(form),
            _ => source,
        };
        // Norms may be stored less one in the source; f32 holds them as they are used.
        let own = if config.gemma.is_some() && role != Role::TokenEmbedding {
            Form::F32
        } else {
            own.unwrap_or(Form::F32)
        };
        let form = asked.unwrap_or(own);
        forms.insert(role, form);
        push(role, shape, form, Action::Float { form, interleave: None, less_one: false })?;
    }
    let tokenizer = checkpoint.tokenizer.iter().map(|json| ("tokenizer.json".to_owned(), json.clone()));
    let companions = side::files(checkpoint)?.into_iter().filter(|file| COMPANIONS.contains(&&file.0[..]));
    for (name, content) in tokenizer.chain(companions) {
        let len = content.len();
        let item = Item {
            name,
            role: None,
            shape: vec![len],
            from: "text".into(),
            to: "text".into(),
            start: 0,
            len: len as u64,
            action: Action::Bytes(content),
        };
        stored.push(Stored { item, dtype: "U8", shape: vec![len] });
    }
    let mut warnings = vec![];
    if checkpoint.tokenizer.is_none() {
        warnings.push("The source has no tokenizer, so the output has none.".into());
    }
    let kept = checkpoint.keep(|role| forms.get(&role).copied());
    let kept = serde_json::to_string(&kept).map_err(|e| Error::Bug(e.to_string()))?;
    let config = serde_json::to_string(config).map_err(|e| Error::Bug(e.to_string()))?;
    let layout_name = layout.name();
    let metadata = move |origin: &Origin| {
        json!({
            "format": FORMAT, "version": VERSION, "layout": layout_name,
            "config": config, "origin": origin.json(), "kept": kept,
        })
    };
    let file = archive::plan("model.safetensors".into(), stored, metadata, &Origin::unhashed(checkpoint));
    let target = format!("tritmark safetensors, {layout_name}");
    Ok(Plan { target, directory: false, files: vec![file], side: vec![], warnings })
}

/// The small files that come with a tokenizer.
pub const COMPANIONS: [&str; 2] = ["tokenizer_config.json", "chat_template.jinja"];

/// The value of `format` in the metadata.
pub const FORMAT: &str = "tritmark";
/// The value of `version` in the metadata.
pub const VERSION: &str = "1";
