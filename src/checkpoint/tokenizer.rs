//! Tokenizers in the `tokenizers` crate's JSON form, whatever form they were stored in.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Whether a `tokenizer.json` puts the token `id` in front of every text by itself.
pub fn begins_with(json: &[u8], id: u32) -> bool {
    #[derive(Deserialize)]
    struct Head {
        post_processor: Option<Value>,
    }
    let Ok(Head { post_processor: Some(post) }) = serde_json::from_slice(json) else { return false };
    let steps = match post["processors"].as_array() {
        Some(steps) => steps.iter().collect(),
        None => vec![&post],
    };
    steps.iter().any(|step| {
        let first = step["single"][0]["SpecialToken"]["id"].as_str();
        first.is_some_and(|name| step["special_tokens"][name]["ids"][0] == id)
    })
}

/// Converts a SentencePiece model to the JSON form of the `tokenizers` crate.
///
/// # Errors
/// If the file is damaged or of a kind that has no such form.
pub fn from_sentencepiece(
    path: &Path,
    _model: &[u8],
    _config: Option<&Map<String, Value>>,
) -> Result<Vec<u8>> {
    Err(Error::input(path, "todo"))
}
