//! The safetensors container: one or more files with a checked header each, read in place.
//!
//! A file is a little-endian u64, a JSON header of that many bytes, and the tensors' bytes without
//! gaps. The `safetensors` crate checks lengths, offsets and shapes; what it does not see is
//! checked here: a name that stands twice, in one header or in two files.

use super::file::Bytes;
use super::{FloatData, FloatTensor, TensorInfo};
use crate::error::{Error, Result};
use half::{bf16, f16};
pub use safetensors::Dtype;
use safetensors::SafeTensors;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// All tensors of a checkpoint's files.
#[derive(Debug, Default)]
pub struct Archive {
    files: Vec<(PathBuf, Bytes)>,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

/// One tensor in its file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its stored shape.
    pub shape: Vec<usize>,
    /// Index of its file, in the order of [`Archive::add`].
    pub file: usize,
    range: Range<usize>,
}

/// The form of elements of a type.
pub fn form(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

impl Entry {
    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.range.len() as u64
    }
}

/// The header of a file of tensors, name, dtype, shape and bytes each, whose bytes follow it one after the other; with
/// its length it takes a multiple of 8 bytes, and at least `least`.
pub fn header<'a>(
    metadata: Option<Value>,
    tensors: impl IntoIterator<Item = (&'a str, &'a str, &'a [usize], u64)>,
    least: usize,
) -> Vec<u8> {
    let mut all: Map<_, _> =
        metadata.into_iter().map(|metadata| ("__metadata__".to_owned(), metadata)).collect();
    let mut at = 0;
    for (name, dtype, shape, bytes) in tensors {
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes] });
        all.insert(name.into(), entry);
        at += bytes;
    }
    let mut text = Value::Object(all).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8).max(least.saturating_sub(8)), b' ');
    [(text.len() as u64).to_le_bytes().to_vec(), text].concat()
}

impl Archive {
    /// Adds a file after checking its header.
    ///
    /// # Errors
    /// If the header is damaged or contradicts the file's size, or a name stands twice.
    pub fn add(&mut self, path: &Path, bytes: Bytes) -> Result<()> {
        let (header_len, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            Error::input(path, format!("not a whole safetensors file of {} bytes: {e}", bytes.len()))
                .hint("The file may be cut off or damaged; compare its size and hash with the source.")
        })?;
        let data = 8 + header_len;
        reject_duplicates(path, &bytes[8..data])?;
        let file = self.files.len();
        for name in metadata.offset_keys() {
            let info = metadata.info(&name).ok_or_else(|| Error::Bug(format!("no entry for {name}")))?;
            let (start, end) = info.data_offsets;
            let entry = Entry {
                name: name.clone(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                file,
                range: data + start..data + end,
            };
            if let Some(&other) = self.by_name.get(&name) {
                let first = &self.files[self.entries[other].file].0;
                return Err(Error::tensor(path, name, format!("is also in {}", first.display())));
            }
            self.by_name.insert(name, self.entries.len());
            self.entries.push(entry);
        }
        self.files.push((path.to_owned(), bytes));
        Ok(())
    }

    /// Every tensor, in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same as they are listed, of which nothing is known so far.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let info = |e: &Entry| TensorInfo {
            name: e.name.clone(),
            role: None,
            shape: e.shape.clone(),
            form: form(e.dtype),
            bytes: e.bytes(),
            file: e.file,
        };
        self.entries.iter().map(info).collect()
    }

    /// Where among [`entries`](Self::entries) the tensor of that name is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.position(name).map(|i| &self.entries[i])
    }

    /// The path of the file that holds a tensor.
    pub fn path(&self, entry: &Entry) -> &Path {
        &self.files[entry.file].0
    }

    /// The files, in the order of [`Archive::add`].
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    /// See [`Bytes::release`].
    pub fn release(&self) {
        self.files.iter().for_each(|(_, bytes)| bytes.release());
    }

    /// A tensor's bytes.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].1[entry.range.clone()]
    }

    /// An error about a tensor.
    pub fn error(&self, entry: &Entry, message: impl Into<String>) -> Error {
        Error::tensor(self.path(entry), &entry.name, message)
    }

    /// A tensor of floats in its stored precision.
    ///
    /// # Errors
    /// If its elements are not F32, F16 or BF16.
    pub fn float(&self, entry: &Entry) -> Result<FloatTensor> {
        Ok(FloatTensor { shape: entry.shape.clone(), data: self.floats(entry, self.data(entry))? })
    }

    /// Some rows of a matrix of floats.
    ///
    /// # Errors
    /// As [`float`](Self::float).
    ///
    /// # Panics
    /// If it is no matrix or `rows` are not all there.
    pub fn float_rows(&self, entry: &Entry, rows: Range<usize>) -> Result<FloatTensor> {
        let bytes = self.data(entry);
        let row = bytes.len() / entry.shape[0];
        let data = self.floats(entry, &bytes[rows.start * row..rows.end * row])?;
        Ok(FloatTensor { shape: vec![rows.len(), entry.shape[1]], data })
    }

    fn floats(&self, entry: &Entry, bytes: &[u8]) -> Result<FloatData> {
        Ok(match entry.dtype {
            Dtype::F32 => FloatData::F32(decode(bytes, f32::from_le_bytes)),
            Dtype::F16 => FloatData::F16(decode(bytes, f16::from_le_bytes)),
            Dtype::BF16 => FloatData::Bf16(decode(bytes, bf16::from_le_bytes)),
            other => return Err(self.error(entry, format!("expected F32, F16 or BF16, found {other:?}"))),
        })
    }
}

fn decode<const N: usize, T>(bytes: &[u8], one: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| one(b)).collect()
}

/// Refuses a header in which a name stands twice: JSON readers keep one silently.
fn reject_duplicates(path: &Path, header: &[u8]) -> Result<()> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut seen, mut twice) = (HashSet::new(), None);
            while let Some(name) = map.next_key::<String>()? {
                map.next_value::<IgnoredAny>()?;
                if let Some(name) = seen.replace(name) {
                    twice = Some(name);
                }
            }
            Ok(twice)
        }
    }
    let twice = serde_json::Deserializer::from_slice(header)
        .deserialize_map(Names)
        .map_err(|e| Error::input(path, format!("the safetensors header is not JSON: {e}")))?;
    match twice {
        Some(name) => Err(Error::tensor(path, name, "stands twice in the header")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        Bytes::Embedded(bytes.leak())
    }

    const ONE: &str = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn reads_entries_in_place() {
        let mut archive = Archive::default();
        archive.add(Path::new("x"), file(ONE, 4)).unwrap();
        let entry = archive.get("a").unwrap();
        assert_eq!(entry.bytes(), 4);
        assert_eq!(archive.float(entry).unwrap().to_f32(), [0.0, 0.0]);
    }

    #[test]
    fn refuses_a_name_in_two_files() {
        let mut archive = Archive::default();
        archive.add(Path::new("x"), file(ONE, 4)).unwrap();
        let error = archive.add(Path::new("y"), file(ONE, 4)).unwrap_err().to_string();
        assert!(error.contains("tensor a: is also in x"), "{error}");
    }

    #[test]
    fn refuses_a_name_twice_in_one_header() {
        let twice = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        let error = Archive::default().add(Path::new("x"), file(twice, 4)).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }
}
