//! Safetensors files: a header over tensors that are placed here.

use super::{FilePlan, Item, Origin};
use crate::checkpoint::gguf::form::Form;
use serde_json::{Map, Value, json};

/// A tensor with its stored dtype and shape.
pub struct Stored {
    /// The tensor.
    pub item: Item,
    /// `U8`, `F32`, `F16` or `BF16`.
    pub dtype: &'static str,
    /// The shape in the file.
    pub shape: Vec<usize>,
}

/// The dtype of a form of single floats; bytes for all else.
pub fn dtype(form: Form) -> &'static str {
    match form {
        Form::F32 => "F32",
        Form::F16 => "F16",
        Form::Bf16 => "BF16",
        _ => "U8",
    }
}

/// Plans a file. Tensors are put in order of their elements' size, so that each is aligned.
pub fn plan(
    name: String,
    mut stored: Vec<Stored>,
    metadata: impl Fn(&Origin) -> Value + Send + Sync + 'static,
    unhashed: &Origin,
) -> FilePlan {
    stored.sort_by_key(|s| match s.dtype {
        "F32" => 0,
        "U8" => 2,
        _ => 1,
    });
    let mut entries = Map::new();
    let mut at = 0u64;
    for Stored { item, dtype, shape } in &stored {
        let end = at + item.len;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] });
        entries.insert(item.name.clone(), entry);
        at = end;
    }
    let header = move |origin: &Origin| {
        let mut all = Map::new();
        all.insert("__metadata__".into(), metadata(origin));
        all.extend(entries.clone());
        let mut text = Value::Object(all).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        [(text.len() as u64).to_le_bytes().to_vec(), text].concat()
    };
    let mut start = header(unhashed).len() as u64;
    let len = start + at;
    let tensors = stored.into_iter().map(|s| {
        let item = Item { start, ..s.item };
        start += item.len;
        item
    });
    FilePlan { name, tensors: tensors.collect(), header: Box::new(header), len }
}
