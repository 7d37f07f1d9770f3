//! Headers of GGUF files; tensor data follows where [`Header::place`] says.

/// Type ids of metadata values.
mod kind {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// Where tensor data may start.
const ALIGNMENT: u64 = 32;

/// A metadata value to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    /// u32.
    Uint(u32),
    /// f32.
    Float(f32),
    /// bool.
    Flag(bool),
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of i32.
    Ints(Vec<i32>),
    /// An array of f32.
    Floats(Vec<f32>),
    /// Type and value as they stood in another file.
    Raw(Vec<u8>),
}

impl Meta {
    fn encode(&self, out: &mut Vec<u8>) {
        let tag = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
        let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
            tag(out, kind::ARRAY);
            tag(out, kind);
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Meta::Uint(n) => {
                tag(out, kind::U32);
                out.extend(n.to_le_bytes());
            }
            Meta::Float(x) => {
                tag(out, kind::F32);
                out.extend(x.to_le_bytes());
            }
            Meta::Flag(b) => {
                tag(out, kind::BOOL);
                out.push(u8::from(*b));
            }
            Meta::Text(s) => {
                tag(out, kind::STRING);
                text(out, s);
            }
            Meta::Texts(texts) => {
                array(out, kind::STRING, texts.len());
                texts.iter().for_each(|s| text(out, s));
            }
            Meta::Ints(ints) => {
                array(out, kind::I32, ints.len());
                ints.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Meta::Floats(floats) => {
                array(out, kind::F32, floats.len());
                floats.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Meta::Raw(raw) => out.extend(raw),
        }
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// A tensor to list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its shape, outputs first.
    pub shape: Vec<usize>,
    /// Its ggml type id.
    pub kind: u32,
    /// Its bytes.
    pub len: u64,
}

/// Everything before the tensor data.
#[derive(Debug, Clone, Default)]
pub struct Header {
    metadata: Vec<(String, Meta)>,
    tensors: Vec<Listed>,
}

impl Header {
    /// A header of this metadata and these tensors, in this order.
    pub fn new(metadata: Vec<(String, Meta)>, tensors: Vec<Listed>) -> Self {
        Self { metadata, tensors }
    }

    /// The header's bytes, padded to where the data starts.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            value.encode(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&n| out.extend((n as u64).to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.len.next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }

    /// Where each tensor starts behind a header of `header_len` bytes, and the file's length.
    pub fn place(&self, header_len: u64) -> (Vec<u64>, u64) {
        let mut at = header_len;
        let mut starts = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            starts.push(at);
            at += tensor.len.next_multiple_of(ALIGNMENT);
        }
        (starts, at)
    }
}
