//! Tokenizers: GGUF metadata to the `tokenizers` crate's JSON and back. Byte-level BPE is `gpt2` in GGUF,
//! SentencePiece is `llama`.

use super::reader::Reader;
use super::settings;
use super::writer::Meta;
use crate::checkpoint::tokenizer::{Added, Piece, from_pieces};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// Pre-tokenizers (how text is cut before merging): names in GGUF, the first being the one we write;
/// what the `tokenizers` crate calls the same; whether whole words of the vocabulary need no merges.
struct Pre {
    names: &'static [&'static str],
    cut: Cut,
    ignore_merges: bool,
}

/// How text is cut.
enum Cut {
    /// By a regular expression.
    Regex(&'static str),
    /// By GPT-2's own, which is part of the `ByteLevel` step.
    Gpt2,
    /// Punctuation runs, then GPT-2's, then single digits.
    Falcon,
}

const PRE: &[Pre] = &[
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon-h1", "pixtral", "lfm2"],
        cut: Cut::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        ignore_merges: true,
    },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        ignore_merges: false,
    },
    Pre { names: &["gpt-2", "gpt2", "olmo", "jais"], cut: Cut::Gpt2, ignore_merges: false },
    Pre { names: &["falcon3", "falcon_e"], cut: Cut::Falcon, ignore_merges: false },
];

/// The key of the kind of tokenizer.
pub const MODEL_KEY: &str = "tokenizer.ggml.model";

/// The kind of a file that has no tokenizer.
pub const NONE: &str = "no_vocab";

/// The key of whether a text is to start with the BOS token.
pub const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";

/// The key of whether a text is to end with the EOS token.
const ADD_EOS_KEY: &str = "tokenizer.ggml.add_eos_token";

/// What is taken where a file does not name its pre-tokenizer: microsoft's own GGUF files do not, and
/// their tokenizer is Llama 3's.
const UNNAMED: &str = "llama-bpe";

impl Cut {
    fn json(&self) -> Value {
        let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let steps = match self {
            Cut::Gpt2 => return byte_level(true),
            Cut::Regex(regex) => vec![
                json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false }),
                byte_level(false),
            ],
            Cut::Falcon => vec![
                json!({ "type": "Punctuation", "behavior": "Contiguous" }),
                byte_level(true),
                json!({ "type": "Digits", "individual_digits": true }),
            ],
        };
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

/// Token types of GGUF.
mod kind {
    pub const NORMAL: i32 = 1;
    pub const CONTROL: i32 = 3;
    pub const USER: i32 = 4;
    pub const UNUSED: i32 = 5;
}

/// Whether a text is to start with the BOS token, as llama.cpp decides it.
///
/// # Errors
/// If the metadata that tell it are of another type.
pub fn adds_bos(reader: &Reader) -> Result<bool> {
    let pre = reader.text("tokenizer.ggml.pre")?.unwrap_or(UNNAMED);
    let by_default = match reader.text(MODEL_KEY)? {
        Some("llama") => true,
        _ => PRE[0].names.contains(&pre) || PRE[3].names.contains(&pre),
    };
    Ok(reader.flag(ADD_BOS_KEY)?.unwrap_or(by_default))
}

/// The tokenizer in the `tokenizers` crate's form; `None`, with a note, where it is of a kind that has
/// no such form here.
///
/// # Errors
/// If the metadata contradicts itself.
pub fn to_json(reader: &Reader, notes: &mut Vec<String>) -> Result<Option<Vec<u8>>> {
    let bad = |message: String| Error::input(reader.path(), message);
    match reader.text(MODEL_KEY)? {
        None | Some(NONE) => return Ok(None),
        Some("gpt2") => {}
        Some("llama") => return sentencepiece(reader).map(Some),
        Some(other) => {
            notes.push(format!(
                "Its tokenizer is of the kind '{other}', which is not read: only token ids can be used."
            ));
            return Ok(None);
        }
    }
    let named = reader.text("tokenizer.ggml.pre")?;
    if named.is_none() {
        notes.push(format!("The file does not name its pre-tokenizer; {UNNAMED} is assumed."));
    }
    let name = named.unwrap_or(UNNAMED);
    let Some(pre) = PRE.iter().find(|pre| pre.names.contains(&name)) else {
        notes.push(format!("Its pre-tokenizer '{name}' is not known: only token ids can be used."));
        return Ok(None);
    };
    let missing = |key: &str| bad(format!("metadata key {key} is missing"));
    let tokens = reader.texts("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
    let merges = reader.texts("tokenizer.ggml.merges")?.ok_or_else(|| missing("tokenizer.ggml.merges"))?;
    let kinds = match reader.ints("tokenizer.ggml.token_type")? {
        Some(kinds) if kinds.len() != tokens.len() => {
            return Err(bad(format!("{} tokens, but {} token types", tokens.len(), kinds.len())));
        }
        Some(kinds) => kinds,
        None => vec![kind::NORMAL.into(); tokens.len()],
    };
    let (mut vocab, mut added) = (Map::new(), vec![]);
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        if kind == kind::UNUSED.into() {
            continue;
        }
        let special = kind == kind::CONTROL.into();
        if special || kind == kind::USER.into() {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special
            }));
        }
        // Added tokens too: the crate gives those that are not in the vocabulary the ids after its last.
        let again = vocab.insert((*token).to_owned(), id.into()).is_some();
        if again && added.iter().any(|a| a["content"] == *token) {
            notes.push(format!(
                "Token {token:?} stands in its vocabulary twice; the last is taken, as llama.cpp does."
            ));
        } else if again {
            return Err(bad(format!("token {token:?} stands in the vocabulary twice")));
        }
    }
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| json!([a, b])))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| bad("a merge of the tokenizer is no pair".into()))?;
    let [bos, eos] = around(reader, &tokens)?;
    let post = if bos.or(eos).is_none() {
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true })
    } else {
        let special = |token: Option<(usize, &str)>, segment: u32| {
            token.map(|(_, text)| json!({ "SpecialToken": { "id": text, "type_id": segment } }))
        };
        let part = |name: &str, segment: u32| {
            let text = json!({ "Sequence": { "id": name, "type_id": segment } });
            special(bos, segment).into_iter().chain([text]).chain(special(eos, segment)).collect::<Vec<_>>()
        };
        let tokens: Map<String, Value> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|(id, text)| (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] })))
            .collect();
        let pair = [part("A", 0), part("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": part("A", 0),
            "pair": pair,
            "special_tokens": tokens
        })
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre.cut.json(),
        "post_processor": post,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignore_merges, "vocab": vocab, "merges": merges
        }
    });
    Ok(Some(tokenizer.to_string().into_bytes()))
}

/// A SentencePiece tokenizer.
fn sentencepiece(reader: &Reader) -> Result<Vec<u8>> {
    let bad = |message: String| Error::input(reader.path(), message);
    let missing = |key: &str| bad(format!("metadata key {key} is missing"));
    let tokens = reader.texts("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
    let scores = reader.floats("tokenizer.ggml.scores")?.ok_or_else(|| missing("tokenizer.ggml.scores"))?;
    let kinds =
        reader.ints("tokenizer.ggml.token_type")?.ok_or_else(|| missing("tokenizer.ggml.token_type"))?;
    if scores.len() != tokens.len() || kinds.len() != tokens.len() {
        let message =
            format!("{} tokens, {} scores, {} token types", tokens.len(), scores.len(), kinds.len());
        return Err(bad(message));
    }
    let pieces: Vec<Piece> = tokens
        .iter()
        .zip(scores)
        .zip(&kinds)
        .map(|((text, score), &kind)| Piece {
            text: (*text).to_owned(),
            score: score as f32,
            kind: u64::try_from(kind).unwrap_or(0),
        })
        .collect();
    let mut config = Map::new();
    // llama.cpp puts a space before every text and behind special tokens, as transformers' older form does.
    config.insert("legacy".into(), true.into());
    config.insert(PREFIX.into(), reader.flag(PREFIX_KEY)?.unwrap_or(true).into());
    let names = [("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")];
    for ((flag, name), token) in names.into_iter().zip(around(reader, &tokens)?) {
        config.insert(flag.into(), token.is_some().into());
        config.extend(token.map(|(_, text)| (name.to_owned(), text.into())));
    }
    from_pieces(reader.path(), &pieces, &Added { config: Some(&config), tokens: None })
}

/// The key of whether a space is put before a text.
const PREFIX_KEY: &str = "tokenizer.ggml.add_space_prefix";
/// The same in a `tokenizer_config.json`.
const PREFIX: &str = "add_prefix_space";

/// Id and text of the tokens that are put before and behind a text, where they are.
fn around<'a>(reader: &Reader, tokens: &[&'a str]) -> Result<[Option<(usize, &'a str)>; 2]> {
    let token = |which: &str, wanted: bool| {
        let id = if wanted { settings::token(reader, which)? } else { None };
        let named = id.map(|id| {
            let text = tokens.get(id as usize).copied();
            let missing =
                || Error::input(reader.path(), format!("its {which} token, {id}, is not in the vocabulary"));
            text.map(|text| (id as usize, text)).ok_or_else(missing)
        });
        named.transpose()
    };
    let behind = reader.flag(ADD_EOS_KEY)?.unwrap_or(false);
    Ok([token("bos", adds_bos(reader)?)?, token("eos", behind)?])
}

/// GGUF metadata of a SentencePiece tokenizer: its pieces, and what `tokenizer.json` adds to them.
///
/// # Errors
/// As [`to_metadata`].
pub fn sentencepiece_metadata(
    pieces: &[Piece],
    tokenizer: &[u8],
    vocab: usize,
) -> Result<Vec<(&'static str, Meta)>, String> {
    let tokenizer: Value =
        serde_json::from_slice(tokenizer).map_err(|e| format!("tokenizer.json is no valid JSON: {e}"))?;
    let mut all: Vec<(String, f32, i32)> =
        pieces.iter().map(|p| (p.text.clone(), p.score, p.kind as i32)).collect();
    if all.len() > vocab {
        return Err(format!("it has {} pieces, more than the model's vocabulary of {vocab}", all.len()));
    }
    all.extend((all.len()..vocab).map(|id| (format!("[PAD{id}]"), ADDED_SCORE, kind::UNUSED)));
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().ok_or("an added token has no content")?;
        let id = added["id"].as_u64().map_or(usize::MAX, |id| id as usize);
        let place =
            all.get_mut(id).ok_or_else(|| format!("token {token:?} has an id beyond the vocabulary"))?;
        if id >= pieces.len() {
            *place = (
                token.into(),
                ADDED_SCORE,
                if added["special"] == true { kind::CONTROL } else { kind::USER },
            );
        }
    }
    let (before, behind) = specials(&tokenizer["post_processor"]);
    let mut metadata = vec![
        (MODEL_KEY, Meta::Text("llama".into())),
        ("tokenizer.ggml.pre", Meta::Text("default".into())),
        ("tokenizer.ggml.tokens", Meta::Texts(all.iter().map(|(text, ..)| text.clone()).collect())),
        ("tokenizer.ggml.scores", Meta::Floats(all.iter().map(|(_, score, _)| *score).collect())),
        ("tokenizer.ggml.token_type", Meta::Ints(all.iter().map(|(.., kind)| *kind).collect())),
        (ADD_BOS_KEY, Meta::Flag(before)),
        (ADD_EOS_KEY, Meta::Flag(behind)),
    ];
    // It is put there unless a file says otherwise.
    if !puts_space_before(&tokenizer) {
        metadata.push((PREFIX_KEY, Meta::Flag(false)));
    }
    Ok(metadata)
}

/// The score of tokens that no merge makes, as llama.cpp's converter has it.
const ADDED_SCORE: f32 = -1000.0;

/// GGUF metadata of a byte-level BPE tokenizer for a model of `vocab` embeddings.
///
/// # Errors
/// In words: what of the tokenizer GGUF has no form for.
pub fn to_metadata(tokenizer: &[u8], vocab: usize) -> Result<Vec<(&'static str, Meta)>, String> {
    let tokenizer: Value =
        serde_json::from_slice(tokenizer).map_err(|e| format!("tokenizer.json is no valid JSON: {e}"))?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" || model["byte_fallback"] == true {
        return Err("it is no byte-level BPE".into());
    }
    let (mut tokens, mut kinds) = (vec![None; vocab], vec![kind::UNUSED; vocab]);
    let mut place = |id: Option<u64>, token: &str, kind: i32| {
        let id = id
            .and_then(|id| usize::try_from(id).ok())
            .filter(|&id| id < vocab)
            .ok_or_else(|| format!("token {token:?} has an id beyond the model's vocabulary of {vocab}"))?;
        (tokens[id], kinds[id]) = (Some(token.to_owned()), kind);
        Ok::<_, String>(())
    };
    for (token, id) in model["vocab"].as_object().ok_or("it has no vocabulary")? {
        place(id.as_u64(), token, kind::NORMAL)?;
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().ok_or("an added token has no content")?;
        if model["vocab"].get(token).is_some_and(|id| *id != added["id"]) {
            return Err(format!(
                "token {token:?} has one id in its vocabulary and another among its added tokens"
            ));
        }
        place(
            added["id"].as_u64(),
            token,
            if added["special"] == true { kind::CONTROL } else { kind::USER },
        )?;
    }
    let tokens =
        tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
    let merges = model["merges"].as_array().ok_or("it has no merges")?.iter().map(|merge| match merge {
        Value::String(pair) => Ok(pair.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(a), Value::String(b)] => Ok(format!("{a} {b}")),
            _ => Err("a merge is no pair"),
        },
        _ => Err("a merge is no pair"),
    });
    let pre = PRE.iter().find(|pre| pre.cut.json() == tokenizer["pre_tokenizer"]);
    let pre = pre.ok_or("its pre-tokenizer has no name in GGUF")?.names[0];
    let (before, behind) = specials(&tokenizer["post_processor"]);
    Ok(vec![
        (MODEL_KEY, Meta::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Meta::Text(pre.into())),
        ("tokenizer.ggml.tokens", Meta::Texts(tokens.collect())),
        ("tokenizer.ggml.token_type", Meta::Ints(kinds)),
        ("tokenizer.ggml.merges", Meta::Texts(merges.collect::<Result<_, _>>()?)),
        (ADD_BOS_KEY, Meta::Flag(before)),
        (ADD_EOS_KEY, Meta::Flag(behind)),
    ])
}

/// Whether a SentencePiece tokenizer puts a space before a text.
fn puts_space_before(tokenizer: &Value) -> bool {
    let normalizer = &tokenizer["normalizer"];
    let steps = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    let pre = &tokenizer["pre_tokenizer"];
    steps.iter().any(|step| step["type"] == "Prepend")
        || pre["type"] == "Metaspace" && pre["prepend_scheme"] != "never" && pre["add_prefix_space"] != false
}

/// Whether a post-processor puts a special token before and behind a text.
fn specials(post: &Value) -> (bool, bool) {
    let steps = post["processors"].as_array().map_or(std::slice::from_ref(post), Vec::as_slice);
    let Some(single) = steps.iter().find_map(|step| step["single"].as_array()) else {
        return (false, false);
    };
    let special = |piece: Option<&Value>| piece.is_some_and(|p| p.get("SpecialToken").is_some());
    (special(single.first()), special(single.last()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_text_without_a_space_before_it_says_so() {
        let pieces: Vec<Piece> = [("<unk>", 2), ("▁", 1), ("a", 1)]
            .map(|(text, kind)| Piece { text: text.into(), score: 0.0, kind })
            .into();
        for (legacy, prefix) in [(true, true), (false, true), (true, false), (false, false)] {
            let config = json!({"legacy": legacy, PREFIX: prefix, "add_bos_token": false});
            let added = Added { config: config.as_object(), tokens: None };
            let tokenizer = from_pieces(Path::new("x"), &pieces, &added).unwrap();
            let metadata = sentencepiece_metadata(&pieces, &tokenizer, 3).unwrap();
            assert_eq!(metadata.iter().any(|(key, _)| *key == PREFIX_KEY), !prefix, "legacy {legacy}");
        }
    }
}
