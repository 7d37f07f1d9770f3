//! Safetensors files: a header over tensors that are placed here.

use super::{FilePlan, Item, Origin};
use crate::checkpoint::gguf::form::Form;
use crate::checkpoint::safetensors;
use serde_json::Value;

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
    let entries = stored.iter().map(|s| (s.item.name.clone(), s.dtype, s.shape.clone(), s.item.len));
    let entries: Vec<_> = entries.collect();
    let header = move |origin: &Origin| {
        let tensors = entries.iter().map(|(name, dtype, shape, len)| (&name[..], *dtype, &shape[..], *len));
        safetensors::header(Some(metadata(origin)), tensors, 0)
    };
    let mut end = header(unhashed).len() as u64;
    let tensors = stored.into_iter().map(|s| {
        let item = Item { start: end, ..s.item };
        end += item.len;
        item
    });
    FilePlan { name, tensors: tensors.collect(), header: Box::new(header), len: end }
}
