//! The small files of a Hugging Face checkpoint, wherever they come from.

use crate::checkpoint::{Checkpoint, Companions, file, gguf::reader::Reader};
use crate::error::Result;
use serde_json::{Value, json};
use std::path::Path;

/// Files that travel with a checkpoint as they are.
const COPIED: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];

/// Largest of them that is copied.
const LIMIT: u64 = 256 << 20;

/// Name and content of each: copied from a directory, or made from what the checkpoint knows.
pub fn files(checkpoint: &Checkpoint) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = match &checkpoint.companions {
        Companions::Files(files) => files.clone(),
        Companions::Folder(dir) => {
            let paths = COPIED.iter().map(|name| (*name, dir.join(name))).filter(|(_, path)| path.is_file());
            paths
                .map(|(name, path)| Ok((name.to_owned(), file::read(&path, LIMIT)?)))
                .collect::<Result<_>>()?
        }
    };
    let there = |name: &str, files: &[(String, Vec<u8>)]| files.iter().any(|file| file.0.starts_with(name));
    if let Some(tokenizer) = checkpoint.tokenizer.as_ref().filter(|_| !there("tokenizer.", &files)) {
        files.push(("tokenizer.json".into(), tokenizer.clone()));
        if !there("tokenizer_config.json", &files) {
            let template = chat_template(checkpoint.provenance.path())?;
            let config = tokenizer_config(checkpoint, tokenizer, template);
            files.push(("tokenizer_config.json".into(), format!("{config:#}\n").into_bytes()));
        }
    }
    Ok(files)
}

/// The chat template of a checkpoint, where it brings one.
pub fn chat_template_of(files: &[(String, Vec<u8>)]) -> Option<String> {
    let file = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, content)| content);
    if let Some(template) = file("chat_template.jinja") {
        return String::from_utf8(template.clone()).ok();
    }
    let config: Value = serde_json::from_slice(file("tokenizer_config.json")?).ok()?;
    config["chat_template"].as_str().map(str::to_owned)
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn chat_template(path: &Path) -> Result<Option<String>> {
    if !is(path, "gguf") {
        return Ok(None);
    }
    Ok(Reader::open(path)?.text("tokenizer.chat_template")?.map(str::to_owned))
}

/// What transformers wants to know beside `tokenizer.json`.
fn tokenizer_config(checkpoint: &Checkpoint, tokenizer: &[u8], template: Option<String>) -> Value {
    let tokenizer: Value = serde_json::from_slice(tokenizer).unwrap_or_default();
    let content = |id: u32| {
        let added = tokenizer["added_tokens"].as_array()?.iter().find(|t| t["id"] == id)?;
        Some(added["content"].clone())
    };
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": checkpoint.config.context,
        "add_bos_token": checkpoint.config.bos.is_some(),
    });
    if let Some(bos) = checkpoint.kept.bos.or(checkpoint.config.bos).and_then(content) {
        config["bos_token"] = bos;
    }
    if let Some(eos) = checkpoint.config.eos.first().and_then(|&id| content(id)) {
        config["eos_token"] = eos;
    }
    if let Some(template) = template {
        config["chat_template"] = template.into();
    }
    config
}
