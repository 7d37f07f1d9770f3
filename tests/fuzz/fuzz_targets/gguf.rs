//! Any bytes as a GGUF file.

#![no_main]

mod read_all;

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tritmark::checkpoint::OpenOptions;
use tritmark::checkpoint::file::Bytes;
use tritmark::checkpoint::gguf::{self, reader::Reader};

fuzz_target!(|data: &[u8]| {
    let reader = Reader::parse(Path::new("fuzz.gguf"), Bytes::Owned(data.to_vec()));
    if let Ok(checkpoint) = reader.and_then(|reader| gguf::from_reader(reader, &OpenOptions::default())) {
        read_all::read_all(&checkpoint);
    }
});
