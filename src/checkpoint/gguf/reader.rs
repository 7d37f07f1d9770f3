//! The GGUF container: header, metadata, tensor directory.
//!
//! Every count and length is checked against the bytes that are there before anything is allocated
//! or skipped by it, so a hostile file costs time and memory in proportion to its own size.
//! Source: the GGUF specification, versions 2 and 3 (little-endian).

use crate::checkpoint::file::{self, Bytes};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Arrays inside arrays beyond this depth are refused; writers use none at all.
const MAX_DEPTH: u32 = 4;
/// Dimensions that a tensor can have in ggml.
const MAX_DIMS: u32 = 4;

/// An opened GGUF file.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    bytes: Bytes,
    metadata: Vec<Entry>,
    tensors: Vec<Tensor>,
    alignment: u64,
}

/// One key of the metadata.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: Value,
    /// Where type and value stand in the file, for copying as they are.
    raw: Range<usize>,
}

/// A metadata value. Integers and floats of all widths are widened, which loses nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An integer of any width.
    Int(i128),
    /// f32 or f64.
    Float(f64),
    /// A bool.
    Bool(bool),
    /// A UTF-8 string.
    Text(String),
    /// An array, checked but not decoded.
    Array(Array),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Text(text) => write!(f, "the text {text:?}"),
            Value::Array(array) => {
                let kind = match array.kind {
                    kind::STRING => "texts",
                    kind::F32 | kind::F64 => "floats",
                    kind::BOOL => "bools",
                    kind::ARRAY => "arrays",
                    _ => "integers",
                };
                write!(f, "an array of {} {kind}", array.len)
            }
        }
    }
}

/// A checked array inside the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    kind: u32,
    len: usize,
    at: usize,
}

/// A tensor as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions as stored, fastest first.
    pub ne: Vec<u64>,
    /// The ggml type id; what it means can depend on who wrote the file.
    pub kind: u32,
    /// Where its bytes start in the file.
    pub start: usize,
    /// Bytes up to the next tensor or the end of the file.
    pub room: usize,
}

impl Tensor {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.ne.iter().product()
    }

    /// Dimensions with outputs first.
    pub fn shape(&self) -> Vec<usize> {
        self.ne.iter().rev().map(|&n| n as usize).collect()
    }
}

/// Metadata value types by their id in the file.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Bytes of a scalar of this type; `None` for strings, arrays and unknown types.
fn scalar_len(kind: u32) -> Option<usize> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

/// Reads forward through bytes that may end anywhere.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What is wrong with the header, to be completed with the file's name.
type Damage = String;

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], Damage> {
        let left = self.left();
        if len > left {
            return Err(format!(
                "{what} at offset {} needs {len} bytes, but only {left} are left: the file is cut short or its header is damaged",
                self.at
            ));
        }
        self.at += len;
        Ok(&self.bytes[self.at - len..self.at])
    }

    fn u32(&mut self, what: &str) -> Result<u32, Damage> {
        self.take(4, what).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Damage> {
        self.take(8, what).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }

    /// A count of things that take at least `each` bytes.
    fn count(&mut self, each: usize, what: &str) -> Result<usize, Damage> {
        let count = self.u64(what)?;
        let most = self.left() / each;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!("{what} is {count}, but the bytes left have room for at most {most}")),
        }
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Damage> {
        let len = self.count(1, &format!("the length of {what}"))?;
        let at = self.at;
        std::str::from_utf8(self.take(len, what)?)
            .map_err(|e| format!("{what} at offset {at} is no valid UTF-8: {e}"))
    }

    fn scalar(&mut self, kind: u32, what: &str) -> Result<Value, Damage> {
        let len = scalar_len(kind).ok_or_else(|| format!("{what} has the unknown type {kind}"))?;
        let raw = self.take(len, what)?;
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(raw);
        let bits = u64::from_le_bytes(wide);
        Ok(match kind {
            kind::I8 => Value::Int((bits as u8 as i8).into()),
            kind::I16 => Value::Int((bits as u16 as i16).into()),
            kind::I32 => Value::Int((bits as u32 as i32).into()),
            kind::I64 => Value::Int((bits as i64).into()),
            kind::F32 => Value::Float(f32::from_bits(bits as u32).into()),
            kind::F64 => Value::Float(f64::from_bits(bits)),
            kind::BOOL if bits > 1 => {
                return Err(format!("{what} is a bool with the value {bits}, expected 0 or 1"));
            }
            kind::BOOL => Value::Bool(bits == 1),
            _ => Value::Int(bits.into()),
        })
    }

    fn value(&mut self, kind: u32, what: &str) -> Result<Value, Damage> {
        match kind {
            kind::STRING => Ok(Value::Text(self.text(what)?.to_owned())),
            kind::ARRAY => self.array(what, 1).map(Value::Array),
            _ => self.scalar(kind, what),
        }
    }

    /// Checks an array to its end.
    fn array(&mut self, what: &str, depth: u32) -> Result<Array, Damage> {
        if depth > MAX_DEPTH {
            return Err(format!("{what} nests arrays deeper than {MAX_DEPTH}"));
        }
        let kind = self.u32(&format!("the element type of {what}"))?;
        let least = match kind {
            kind::STRING => 8,
            kind::ARRAY => 12,
            _ => scalar_len(kind).ok_or_else(|| format!("{what} has elements of the unknown type {kind}"))?,
        };
        let len = self.count(least, &format!("the length of array {what}"))?;
        let at = self.at;
        match kind {
            kind::STRING => (0..len).try_for_each(|_| self.text(what).map(drop))?,
            kind::ARRAY => (0..len).try_for_each(|_| self.array(what, depth + 1).map(drop))?,
            _ => drop(self.take(len * least, what)?),
        }
        Ok(Array { kind, len, at })
    }
}

impl Reader {
    /// Maps a GGUF file and checks its header to the end.
    ///
    /// # Errors
    /// If it is no regular file, no GGUF of version 2 or 3 in little-endian order, or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path, file::map(path)?)
    }

    /// As [`open`](Self::open), from bytes that are there already; `path` is for messages.
    ///
    /// # Errors
    /// As there.
    pub fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        kind_of_file(&bytes).map_err(|found| Error::input(path, found))?;
        let (metadata, tensors, alignment) = header(&bytes)
            .map_err(|damage| Error::input(path, damage).hint("Download or convert it again."))?;
        Ok(Self { path: path.into(), bytes, metadata, tensors, alignment })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole metadata in file order.
    pub fn metadata(&self) -> &[Entry] {
        &self.metadata
    }

    /// The tensor directory in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Tensor data starts at multiples of this.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// See [`Bytes::release`].
    pub fn release(&self) {
        self.bytes.release();
    }

    /// Type and value of an entry as they stand in the file.
    pub fn raw(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.raw.clone()]
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// The value of a key as one of its types, where the key is there.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        of_type: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        of_type(value).map(Some).ok_or_else(|| self.wrong(key, expected, value))
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        let shown = match found {
            // It may be as long as the file.
            Value::Text(text) if text.chars().nth(LONG).is_some() => {
                format!("the text {:?} …", text.chars().take(LONG).collect::<String>())
            }
            found => found.to_string(),
        };
        Error::input(&self.path, format!("metadata key {key}: expected {expected}, found {shown}"))
    }

    /// A string, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An integer that is not negative and fits the memory of a machine, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn uint(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "an integer of 0 or more", |value| match value {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A float, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", |value| match value {
            Value::Float(x) => Some(*x),
            _ => None,
        })
    }

    /// A bool, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// An array of strings, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let array = self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array { kind: kind::STRING, len, at }) => Some((*len, *at)),
            _ => None,
        })?;
        let Some((len, at)) = array else { return Ok(None) };
        let mut cursor = Cursor { bytes: &self.bytes, at };
        let texts: Result<_, Damage> = (0..len).map(|_| cursor.text(key)).collect();
        texts.map(Some).map_err(|damage| Error::input(&self.path, damage))
    }

    /// An array of integers, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn ints(&self, key: &str) -> Result<Option<Vec<i128>>> {
        self.scalars(key, "an array of integers", |value| match value {
            Value::Int(n) => Some(*n),
            _ => None,
        })
    }

    /// An array of floats, where the key is there.
    ///
    /// # Errors
    /// If the key holds something else.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.scalars(key, "an array of floats", |value| match value {
            Value::Float(x) => Some(*x),
            _ => None,
        })
    }

    fn scalars<T>(
        &self,
        key: &str,
        expected: &str,
        of_type: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let array = self.typed(key, expected, |value| match value {
            Value::Array(Array { kind, len, at }) if scalar_len(*kind).is_some() => Some((*kind, *len, *at)),
            _ => None,
        })?;
        let Some((kind, len, at)) = array else { return Ok(None) };
        let mut cursor = Cursor { bytes: &self.bytes, at };
        let values: Result<Vec<Value>, Damage> = (0..len).map(|_| cursor.scalar(kind, key)).collect();
        let values = values.map_err(|damage| Error::input(&self.path, damage))?;
        let typed = |value: &Value| of_type(value).ok_or_else(|| self.wrong(key, expected, value));
        values.iter().map(typed).collect::<Result<_>>().map(Some)
    }
}

/// Characters of a text that an error shows.
const LONG: usize = 60;

/// Magic number and version.
const PREAMBLE: usize = 8;

/// Refuses what is no GGUF file that is read, whole or not.
fn kind_of_file(bytes: &[u8]) -> Result<(), Damage> {
    let mut cursor = Cursor { bytes, at: 0 };
    let magic = cursor.take(4, "the magic number")?;
    if magic != b"GGUF" {
        return Err(format!(
            "expected the magic number \"GGUF\", found {:?}",
            magic.escape_ascii().to_string()
        ));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        v if v != 0 && v & 0xffff == 0 => Err(format!(
            "this GGUF is big-endian (version {}); only little-endian files are read",
            v.swap_bytes()
        )),
        v => Err(format!("expected GGUF version 2 or 3, found {v}")),
    }
}

fn header(bytes: &[u8]) -> Result<(Vec<Entry>, Vec<Tensor>, u64), Damage> {
    let mut cursor = Cursor { bytes, at: PREAMBLE };
    let n_tensors = cursor.count(24, "the number of tensors")?;
    let n_keys = cursor.count(13, "the number of metadata keys")?;
    let metadata = metadata(&mut cursor, n_keys)?;
    let alignment = match metadata.iter().find(|e| e.key == "general.alignment").map(|e| &e.value) {
        None => 32,
        Some(Value::Int(n)) if u32::try_from(*n).is_ok_and(u32::is_power_of_two) => *n as u64,
        Some(found) => return Err(format!("general.alignment must be a power of two, found {found}")),
    };
    let mut tensors = directory(&mut cursor, n_tensors)?;
    place(&mut tensors, cursor.at as u64, alignment, bytes.len())?;
    Ok((metadata, tensors, alignment))
}

fn metadata(cursor: &mut Cursor, count: usize) -> Result<Vec<Entry>, Damage> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..count {
        let key = cursor.text(&format!("the name of metadata key {i}"))?;
        if !seen.insert(key) {
            return Err(format!("metadata key {key} stands there twice"));
        }
        let start = cursor.at;
        let kind = cursor.u32(&format!("the type of metadata key {key}"))?;
        let value = cursor.value(kind, &format!("metadata key {key}"))?;
        entries.push(Entry { key: key.to_owned(), value, raw: start..cursor.at });
    }
    Ok(entries)
}

/// Reads the directory; `start` is relative to the data section until [`place`] has run.
fn directory(cursor: &mut Cursor, count: usize) -> Result<Vec<Tensor>, Damage> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..count {
        let name = cursor.text(&format!("the name of tensor {i}"))?;
        if !seen.insert(name) {
            return Err(format!("tensor {name} stands there twice"));
        }
        let what = format!("tensor {name}");
        let dims = cursor.u32(&what)?;
        if !(1..=MAX_DIMS).contains(&dims) {
            return Err(format!("{what} has {dims} dimensions, expected 1 to {MAX_DIMS}"));
        }
        let ne = (0..dims).map(|_| cursor.u64(&what)).collect::<Result<Vec<_>, _>>()?;
        let elements = ne.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        // No ggml type takes less than one bit a value.
        if !elements.is_some_and(|n| n > 0 && n / 8 <= cursor.bytes.len() as u64) {
            return Err(format!(
                "{what} claims the dimensions {ne:?}, which this file cannot hold: it is cut short, or its header is damaged"
            ));
        }
        let kind = cursor.u32(&what)?;
        let offset = cursor.u64(&what)?;
        let start =
            usize::try_from(offset).map_err(|_| format!("{what} starts at {offset}, out of range"))?;
        tensors.push(Tensor { name: name.to_owned(), ne, kind, start, room: 0 });
    }
    Ok(tensors)
}

/// Turns offsets into positions in the file and finds the room that each tensor has.
fn place(tensors: &mut [Tensor], header_end: u64, alignment: u64, len: usize) -> Result<(), Damage> {
    let data = header_end.next_multiple_of(alignment);
    for t in tensors.iter_mut() {
        if !(t.start as u64).is_multiple_of(alignment) {
            return Err(format!(
                "tensor {} starts at {}, no multiple of the alignment {alignment}",
                t.name, t.start
            ));
        }
        t.start = usize::try_from(data)
            .ok()
            .and_then(|data| data.checked_add(t.start))
            .filter(|&start| start < len)
            .ok_or_else(|| {
                format!("tensor {} starts beyond the end of the file ({len} bytes): it is cut short", t.name)
            })?;
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| tensors[i].start);
    let mut end = len;
    for &i in order.iter().rev() {
        tensors[i].room = end - tensors[i].start;
        end = tensors[i].start;
    }
    match order.iter().find(|&&i| tensors[i].room == 0) {
        Some(&i) => Err(format!("tensor {} starts where another one starts", tensors[i].name)),
        None => Ok(()),
    }
}
