//! Tokenizers in the `tokenizers` crate's JSON form, whatever form they were stored in.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
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

/// What a `tokenizer_config.json` and an `added_tokens.json` say beside a SentencePiece model.
#[derive(Debug, Default)]
pub struct Added<'a> {
    /// `tokenizer_config.json`.
    pub config: Option<&'a Map<String, Value>>,
    /// `added_tokens.json`.
    pub tokens: Option<&'a Map<String, Value>>,
}

/// Converts a SentencePiece model (`tokenizer.model`) to the JSON form of the `tokenizers` crate, as
/// transformers does for a Llama. `None` for other kinds than byte-pair encoding without a table of
/// normalisations.
///
/// # Errors
/// If the file is damaged.
pub fn from_sentencepiece(path: &Path, model: &[u8], added: &Added) -> Result<Option<Vec<u8>>> {
    pieces(path, model)?.map(|pieces| from_pieces(path, &pieces, added)).transpose()
}

/// The pieces of a SentencePiece model, by id. `None` as [`from_sentencepiece`].
///
/// # Errors
/// As there.
pub fn pieces(path: &Path, model: &[u8]) -> Result<Option<Vec<Piece>>> {
    let model = Model::parse(model).map_err(|message| damaged(path, message))?;
    if model.kind != BPE || model.has_charsmap {
        return Ok(None);
    }
    Ok(Some(model.pieces))
}

fn damaged(path: &Path, message: String) -> Error {
    Error::input(path, format!("SentencePiece model: {message}"))
}

/// As [`from_sentencepiece`], from pieces that are at hand; `path` is for messages.
///
/// # Errors
/// If a piece stands twice or there is none for what is unknown.
pub fn from_pieces(path: &Path, pieces: &[Piece], added: &Added) -> Result<Vec<u8>> {
    let error = |message: String| damaged(path, message);
    let vocab: HashMap<&str, usize> = pieces.iter().enumerate().map(|(i, p)| (p.text.as_str(), i)).collect();
    if let Some((id, piece)) = pieces.iter().enumerate().find(|(id, piece)| vocab[&piece.text[..]] != *id) {
        let shown: String = piece.text.chars().take(40).collect();
        return Err(error(format!("piece {id}, {shown:?}, stands twice")));
    }
    if let Some((id, piece)) = pieces.iter().enumerate().find(|(_, piece)| piece.text.len() > MAX_PIECE) {
        return Err(error(format!(
            "piece {id} has {} bytes; expected at most {MAX_PIECE}",
            piece.text.len()
        )));
    }
    let kind = |kind| pieces.iter().position(|p| p.kind == kind);
    let unknown = kind(UNKNOWN).ok_or_else(|| error("no piece for what is unknown".into()))?;
    let flag = |key: &str, default| {
        added.config.and_then(|c| c.get(key)).and_then(Value::as_bool).unwrap_or(default)
    };
    // "Legacy" prepends a space to every text, even to one that has one.
    let prefix = flag("add_prefix_space", true);
    let (normalizer, pre_tokenizer) = if flag("legacy", true) {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": SPACE}));
        let steps: Vec<Value> = prepend.into_iter().chain([replace]).collect();
        (json!({"type": "Sequence", "normalizers": steps}), Value::Null)
    } else {
        let scheme = if prefix { "first" } else { "never" };
        let metaspace =
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false});
        (Value::Null, metaspace)
    };
    // The space that was put before goes again.
    let strip = prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let decoders: Vec<Value> = [
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ]
    .into_iter()
    .chain(strip)
    .collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.all(pieces).map_err(error)?,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": added.template(&vocab).map_err(error)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": pieces[unknown].text,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": kind(BYTE).is_some(),
            "ignore_merges": false,
            // By id, so that it has the same bytes each time.
            "vocab": pieces.iter().zip(0..).map(|(p, id)| (p.text.clone(), id.into())).collect::<Map<_, _>>(),
            "merges": merges(pieces, &vocab),
        },
    });
    Ok(json.to_string().into_bytes())
}

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// The pairs that join into a piece, best piece first. SentencePiece stores scores, not pairs: any
/// two pieces that make a third may join.
fn merges<'a>(pieces: &'a [Piece], vocab: &HashMap<&str, usize>) -> Vec<(&'a str, &'a str)> {
    let mut found = vec![];
    for piece in pieces {
        let splits = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
        let mut pairs: Vec<_> =
            splits.filter_map(|(l, r)| Some((vocab.get(l)?, vocab.get(r)?, (l, r)))).collect();
        pairs.sort_by_key(|&(l, r, _)| (l, r));
        found.extend(pairs.into_iter().map(|(_, _, pair)| (piece.score, pair)));
    }
    let length = |s: &str| s.chars().count();
    found.sort_by(|(a, (al, ar)), (b, (bl, br))| {
        b.total_cmp(a).then_with(|| (length(bl), length(br)).cmp(&(length(al), length(ar))))
    });
    found.into_iter().map(|(_, pair)| pair).collect()
}

impl Added<'_> {
    /// Special pieces of the model and tokens added to it, in the order of their ids.
    fn all(&self, pieces: &[Piece]) -> Result<Vec<Value>, String> {
        let token = |id: usize, content: &str, special: bool| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
        let mut all = std::collections::BTreeMap::new();
        for (id, piece) in pieces.iter().enumerate() {
            if matches!(piece.kind, UNKNOWN | CONTROL | USER) {
                all.insert(id, token(id, &piece.text, piece.kind != USER));
            }
        }
        for (content, id) in self.tokens.into_iter().flatten() {
            let id = id.as_u64().ok_or_else(|| format!("added token {content:?} has no id"))? as usize;
            all.insert(id, token(id, content, true));
        }
        let decoder = self.config.and_then(|c| c.get("added_tokens_decoder")).and_then(Value::as_object);
        for (id, value) in decoder.into_iter().flatten() {
            let id = id.parse().map_err(|_| format!("added token has the id {id:?}"))?;
            let mut value =
                value.as_object().cloned().ok_or_else(|| format!("added token {id} is no object"))?;
            value.insert("id".into(), json!(id));
            all.insert(id, Value::Object(value));
        }
        Ok(all.into_values().collect())
    }

    /// The step that puts BOS and EOS around a text.
    fn template(&self, vocab: &HashMap<&str, usize>) -> Result<Value, String> {
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let mut special = Map::new();
        // A Llama's tokenizer adds BOS unless told not to.
        for (flag, default, key, name) in
            [("add_bos_token", true, "bos_token", "<s>"), ("add_eos_token", false, "eos_token", "</s>")]
        {
            let get = |key: &str| self.config.and_then(|c| c.get(key));
            if !get(flag).and_then(Value::as_bool).unwrap_or(default) {
                continue;
            }
            let stated = get(key).and_then(|t| t.as_str().or_else(|| t["content"].as_str()));
            let name = stated.unwrap_or(name);
            let id = vocab.get(name).ok_or_else(|| format!("{key} {name:?} is no piece"))?;
            let token = json!({"SpecialToken": {"id": name, "type_id": 0}});
            single.insert(if key == "bos_token" { 0 } else { single.len() }, token);
            special.insert(name.into(), json!({"id": name, "ids": [id], "tokens": [name]}));
        }
        if special.is_empty() {
            return Ok(Value::Null);
        }
        let mut pair = single.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
    }
}

// Kinds of pieces and of models, as in sentencepiece_model.proto.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER: u64 = 4;
const BYTE: u64 = 6;
const BPE: u64 = 2;

/// Longest piece; SentencePiece itself makes none beyond a few dozen bytes.
const MAX_PIECE: usize = 1024;

/// A SentencePiece model, as far as it is needed.
#[derive(Debug, Default)]
struct Model {
    pieces: Vec<Piece>,
    kind: u64,
    has_charsmap: bool,
}

/// A piece of a SentencePiece model.
#[derive(Debug)]
pub struct Piece {
    /// Its text, `▁` for a space.
    pub text: String,
    /// The higher, the earlier it is made.
    pub score: f32,
    /// Normal (1), unknown (2), control (3), user-defined (4), unused (5) or a byte (6).
    pub kind: u64,
}

impl Model {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The defaults of the schema: a unigram model, pieces of the normal kind.
        let mut model = Model { kind: 1, ..Model::default() };
        for field in fields(bytes) {
            match field? {
                (1, Wire::Bytes(piece)) => model.pieces.push(Piece::parse(piece)?),
                (2, Wire::Bytes(trainer)) => {
                    for field in fields(trainer) {
                        if let (3, Wire::Int(kind)) = field? {
                            model.kind = kind;
                        }
                    }
                }
                (3, Wire::Bytes(normalizer)) => {
                    for field in fields(normalizer) {
                        if let (2, Wire::Bytes(map)) = field? {
                            model.has_charsmap = !map.is_empty();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(model)
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
        for field in fields(bytes) {
            match field? {
                (1, Wire::Bytes(text)) => {
                    piece.text = String::from_utf8(text.into()).map_err(|_| "a piece is not UTF-8")?;
                }
                (2, Wire::Four(score)) => piece.score = f32::from_le_bytes(score),
                (3, Wire::Int(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// A value in protobuf's wire format.
enum Wire<'a> {
    Int(u64),
    Four([u8; 4]),
    Bytes(&'a [u8]),
    Eight,
}

/// The fields of a protobuf message: number and value. Ends after the first error.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), String>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
        *bytes = rest;
        Some(taken)
    }
    fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
        let tag = varint(bytes)?;
        let value = match tag & 7 {
            0 => Wire::Int(varint(bytes)?),
            1 => take(bytes, 8).map(|_| Wire::Eight)?,
            2 => {
                let len = varint(bytes)?;
                Wire::Bytes(take(bytes, len)?)
            }
            5 => Wire::Four(take(bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let found = field(&mut bytes).ok_or("cut off or damaged".to_string());
        if found.is_err() {
            bytes = &[];
        }
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentencepiece");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn convert(model: &[u8]) -> Result<Option<Vec<u8>>> {
        let config: Map<String, Value> = serde_json::from_slice(&fixture("tokenizer_config.json")).unwrap();
        let tokens: Map<String, Value> = serde_json::from_slice(&fixture("added_tokens.json")).unwrap();
        from_sentencepiece(Path::new("x"), model, &Added { config: Some(&config), tokens: Some(&tokens) })
    }

    #[test]
    fn a_sentencepiece_model_gives_the_ids_of_transformers() {
        let json = convert(&fixture("tokenizer.model")).unwrap().unwrap();
        assert!(begins_with(&json, 1) && !begins_with(&json, 2));
        let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        assert_eq!(tokenizer.token_to_id("</line>"), Some(513));
        let cases: Value = serde_json::from_slice(&fixture("tokenizer_cases.json")).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
            assert_eq!(json!(ids), case["ids"], "{text:?}");
        }
    }

    #[test]
    fn user_defined_pieces_stay_whole_and_the_space_before_a_text_may_be_left_out() {
        let path = Path::new("x");
        let mut pieces = pieces(path, &fixture("tokenizer.model")).unwrap().unwrap();
        pieces.push(Piece { text: "<|user|>".into(), score: 0.0, kind: USER });
        for (legacy, prefix, expected) in [
            (true, true, "▁x<|user|>▁y"),
            (false, true, "▁x<|user|>y"),
            (true, false, "x<|user|>y"),
            (false, false, "x<|user|>y"),
        ] {
            let config = json!({"legacy": legacy, "add_prefix_space": prefix, "add_bos_token": false});
            let added = Added { config: config.as_object(), tokens: None };
            let json = from_pieces(path, &pieces, &added).unwrap();
            let tokenizer = tokenizers::Tokenizer::from_bytes(json).unwrap();
            let found = tokenizer.encode("x<|user|>y", false).unwrap();
            assert_eq!(found.get_tokens().concat(), expected, "legacy {legacy}, prefix {prefix}");
            assert!(found.get_ids().contains(&(pieces.len() as u32 - 1)));
        }
    }

    #[test]
    fn other_kinds_are_told_from_damaged_files() {
        // A trainer_spec that says unigram; one that is cut off.
        assert_eq!(convert(&[0x12, 0x02, 0x18, 0x01]).unwrap(), None);
        let error = convert(&[0x12, 0x02, 0x18]).unwrap_err().to_string();
        assert!(error.contains("x: SentencePiece model: cut off"), "{error}");
    }

    proptest! {
        #[test]
        fn damaged_models_never_panic(at in 0usize..7667, value: u8, cut in 0usize..7667) {
            let mut model = fixture("tokenizer.model");
            model[at] = value;
            model.truncate(cut.max(at));
            let _ = convert(&model);
        }
    }
}
