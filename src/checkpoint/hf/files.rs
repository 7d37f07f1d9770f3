//! Which files make up a checkpoint.

use super::config::Json;
use super::{Parts, find};
use crate::checkpoint::file::{self, Bytes};
use crate::checkpoint::safetensors::Archive;
use crate::checkpoint::tokenizer::{self, Added};
use crate::checkpoint::{Checkpoint, Companions, OpenOptions};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest configuration file that is read.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Opens a directory.
///
/// # Errors
/// If a file is missing or damaged, or the files contradict each other.
pub fn open_dir(name: &str, options: &OpenOptions) -> Result<Checkpoint> {
    let dir = Path::new(name);
    let (single, index) = ("model.safetensors", "model.safetensors.index.json");
    let mut archive = Archive::default();
    match (find(dir, single), find(dir, index)) {
        (Some(path), None) => archive.add(&path, file::map(&path)?)?,
        (single, Some(index)) => add_shards(&mut archive, dir, &index, single.is_some())?,
        (None, None) => {
            let hint = match models_below(dir).as_slice() {
                [] => "Only safetensors and GGUF files are read; convert pytorch_model.bin with transformers' save_pretrained.".into(),
                found => format!("These in it are models: {}", found.join(", ")),
            };
            return Err(Error::input(dir, format!("has neither {single} nor {index}")).hint(hint));
        }
    }
    assemble(name, dir, archive, options)
}

/// The first few entries of a folder that are models by their names or what they hold.
fn models_below(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_model = |path: &PathBuf| {
        let holds = |name: &str| path.join(name).is_file();
        let extension = path.extension().unwrap_or_default();
        holds("model.safetensors") || holds("model.safetensors.index.json") || extension == "gguf"
    };
    let mut found: Vec<String> = entries.filter(is_model).map(|path| path.display().to_string()).collect();
    found.sort();
    found.truncate(5);
    found
}

/// Opens a single safetensors file that holds a whole model, with the configuration beside it.
///
/// # Errors
/// As [`open_dir`].
pub fn open_file(name: &str, options: &OpenOptions) -> Result<Checkpoint> {
    let path = Path::new(name);
    let mut archive = Archive::default();
    archive.add(path, file::map(path)?)?;
    assemble(name, path.parent().unwrap_or(Path::new("")), archive, options)
}

/// Opens a checkpoint that is in memory: a `config.json`, a safetensors file and a `tokenizer.json`.
///
/// # Errors
/// As [`open_dir`].
pub fn from_memory(
    name: &str,
    config: &[u8],
    tensors: Bytes,
    tokenizer: Option<Vec<u8>>,
    options: &OpenOptions,
) -> Result<Checkpoint> {
    let root = Path::new(name);
    let mut archive = Archive::default();
    archive.add(&root.join("model.safetensors"), tensors)?;
    Parts {
        root: root.into(),
        name: name.into(),
        config: Json::parse(&root.join("config.json"), config)?,
        generation: None,
        tokenizer_config: None,
        tokenizer,
        archive,
        notes: vec![],
    }
    .assemble(options)
    .map(|mut checkpoint| {
        // Whatever lies on the disk under that name is none of it.
        checkpoint.provenance.files.clear();
        checkpoint
    })
}

fn assemble(name: &str, dir: &Path, archive: Archive, options: &OpenOptions) -> Result<Checkpoint> {
    let json = |file: &str| -> Result<Option<Json>> {
        let Some(path) = find(dir, file) else { return Ok(None) };
        Json::parse(&path, &file::read(&path, CONFIG_LIMIT)?).map(Some)
    };
    let config = json("config.json")?.ok_or_else(|| {
        Error::input(dir, "config.json is missing").hint("It must stand beside the tensors.")
    })?;
    let tokenizer_config = json("tokenizer_config.json")?;
    let mut notes = vec![];
    let tokenizer = match (find(dir, "tokenizer.json"), find(dir, "tokenizer.model")) {
        (Some(path), _) => Some(file::read(&path, file::TOKENIZER_LIMIT)?),
        (None, Some(path)) => {
            let tokens = json("added_tokens.json")?;
            let added = Added {
                config: tokenizer_config.as_ref().map(Json::map),
                tokens: tokens.as_ref().map(Json::map),
            };
            let json =
                tokenizer::from_sentencepiece(&path, &file::read(&path, file::TOKENIZER_LIMIT)?, &added)?;
            if json.is_none() {
                notes.push(
                    "tokenizer.model is not byte-pair encoding and was left out: text cannot be read or \
                     written. Convert it to tokenizer.json with transformers."
                        .into(),
                );
            }
            json
        }
        (None, None) => None,
    };
    Parts {
        root: dir.into(),
        name: name.into(),
        config,
        generation: json("generation_config.json")?,
        tokenizer_config,
        tokenizer,
        archive,
        notes,
    }
    .assemble(options)
    .map(|checkpoint| Checkpoint { companions: Companions::Folder(dir.into()), ..checkpoint })
}

/// Adds every file that an index names, and checks that it tells the truth.
fn add_shards(archive: &mut Archive, dir: &Path, index: &Path, has_single: bool) -> Result<()> {
    let map = Json::parse(index, &file::read(index, file::TOKENIZER_LIMIT)?)?.weight_map()?;
    let shards: BTreeSet<&String> = map.values().collect();
    if has_single && !shards.contains(&"model.safetensors".to_string()) {
        return Err(Error::input(index, "names other files than model.safetensors, which is there as well")
            .hint("Remove what does not belong to the model, or open the one file by its own path."));
    }
    for shard in shards {
        let plain = Path::new(shard).file_name().is_some_and(|n| n == shard.as_str());
        if !plain {
            return Err(Error::input(index, format!("names the file {shard:?}; expected a plain file name")));
        }
        let path = dir.join(shard);
        archive.add(&path, file::map(&path)?)?;
    }
    for (tensor, shard) in &map {
        match archive.get(tensor) {
            None => {
                return Err(Error::tensor(index, tensor, format!("should be in {shard}, but is in no file")));
            }
            Some(entry) if !archive.path(entry).ends_with(shard) => {
                let found = archive.path(entry).display();
                return Err(Error::tensor(index, tensor, format!("should be in {shard}, but is in {found}")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
