//! Any bytes as a Hugging Face checkpoint: the length of the configuration (u16, little-endian), the
//! configuration, the safetensors file.

#![no_main]

mod read_all;

use libfuzzer_sys::fuzz_target;
use tritmark::checkpoint::file::Bytes;
use tritmark::checkpoint::{OpenOptions, hf};

fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first_chunk() else { return };
    let Some((config, tensors)) = rest.split_at_checked(u16::from_le_bytes(*len).into()) else { return };
    if let Ok(checkpoint) = hf::from_memory("fuzz", config, Bytes::Owned(tensors.to_vec()), None, &OpenOptions::default()) {
        read_all::read_all(&checkpoint);
    }
});
