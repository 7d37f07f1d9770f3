//! `cargo +nightly fuzz run gguf`: any bytes as a GGUF file, read to the end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tritmark::checkpoint::file::Bytes;
use tritmark::checkpoint::gguf::{self, reader::Reader};
use tritmark::checkpoint::role::{LayerRole, Role};
use tritmark::checkpoint::OpenOptions;

fuzz_target!(|data: &[u8]| {
    let Ok(reader) = Reader::parse(Path::new("x.gguf"), Bytes::Owned(data.to_vec())) else { return };
    let Ok(checkpoint) = gguf::from_reader(reader, &OpenOptions::default()) else { return };
    for info in checkpoint.tensors() {
        match info.role {
            Some(role @ Role::Layer(_, LayerRole::Linear(_))) => drop(checkpoint.ternary(role)),
            Some(role) => drop(checkpoint.float(role)),
            None => {}
        }
    }
});
