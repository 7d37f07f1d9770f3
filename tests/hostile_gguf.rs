//! GGUF files that lie: each is refused with a message that says where, and nothing panics.

use proptest::prelude::*;
use std::path::Path;
use tritmark::checkpoint::file::Bytes;
use tritmark::checkpoint::gguf::writer::{Header, Listed, Meta};
use tritmark::checkpoint::gguf::{self, reader::Reader};
use tritmark::checkpoint::role::{LayerRole, Role};
use tritmark::checkpoint::{Checkpoint, OpenOptions};

fn fixture() -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/bitnet2b.bitnet-b1.58.i2_s.gguf");
    std::fs::read(path).unwrap()
}

/// Opens bytes without a file in between.
fn parse(bytes: Vec<u8>) -> tritmark::Result<Checkpoint> {
    let reader = Reader::parse(Path::new("x.gguf"), Bytes::Owned(bytes))?;
    gguf::from_reader(reader, &options())
}

/// The arrangement of the fixture's random weights cannot be told, and is no matter here.
fn options() -> OpenOptions {
    OpenOptions { assume: true, ..Default::default() }
}

/// Opens bytes as a file; the message where that fails.
fn open(bytes: &[u8]) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open_with(path.to_str().unwrap(), &options()).map_err(|e| {
        assert_eq!(e.exit_code(), 5, "{e}");
        let message = e.to_string();
        assert!(message.contains("x.gguf"), "the message does not name the file: {message}");
        message
    })
}

fn refused(bytes: &[u8], reason: &str) {
    match open(bytes) {
        Ok(_) => panic!("accepted, although: {reason}"),
        Err(message) => assert!(message.contains(reason), "expected \"{reason}\", found \"{message}\""),
    }
}

/// Decodes everything that an accepted file holds.
fn read_all(checkpoint: &Checkpoint) {
    for info in checkpoint.tensors() {
        match info.role {
            Some(role @ Role::Layer(_, LayerRole::Linear(_))) => drop(checkpoint.ternary(role)),
            Some(role) => drop(checkpoint.float(role)),
            None => {}
        }
    }
}

/// A header of a few keys and tensors with as much data as they claim.
fn small(metadata: &[(&str, Meta)], tensors: &[(&str, &[usize], u32, u64)]) -> Vec<u8> {
    let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let tensors = tensors.iter().map(|&(name, shape, kind, len)| Listed {
        name: name.into(),
        shape: shape.into(),
        kind,
        len,
    });
    let header = Header::new(metadata, tensors.collect());
    let mut bytes = header.encode();
    let (_, len) = header.place(bytes.len() as u64);
    bytes.resize(len as usize, 0);
    bytes
}

/// Replaces the only occurrence of `from` behind `key`.
fn patch(bytes: &mut [u8], key: &str, offset: usize, with: &[u8]) {
    let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).expect("the key is there");
    let at = at + key.len() + offset;
    bytes[at..at + with.len()].copy_from_slice(with);
}

#[test]
fn the_fixture_itself_is_accepted() {
    read_all(&open(&fixture()).unwrap());
}

#[test]
fn truncated_anywhere_in_the_header() {
    let whole = fixture();
    let header = 14_272;
    let path = Path::new("x.gguf");
    for len in 0..header {
        let error = Reader::parse(path, Bytes::Owned(whole[..len].to_vec()));
        let message = error.err().unwrap_or_else(|| panic!("accepted {len} bytes")).to_string();
        assert!(message.contains("x.gguf"), "{message}");
    }
    for len in [header + 1, whole.len() / 2, whole.len() - 64] {
        refused(&whole[..len], "cut short");
    }
}

#[test]
fn wrong_magic_version_and_endianness() {
    let mut bytes = fixture();
    bytes[0] = b'X';
    refused(&bytes, "expected the magic number \"GGUF\"");
    for (version, reason) in [(1u32, "found 1"), (4, "found 4"), (3 << 24, "big-endian")] {
        let mut bytes = fixture();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        refused(&bytes, reason);
    }
}

#[test]
fn counts_and_lengths_beyond_the_file() {
    for huge in [u64::MAX, u64::MAX / 2, 1 << 40] {
        for (at, reason) in
            [(8, "the number of tensors is"), (16, "the number of metadata keys is"), (24, "the length of")]
        {
            let mut bytes = fixture();
            bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
            refused(&bytes, reason);
        }
        // Behind the key: its type, its elements' type, their number.
        let mut bytes = fixture();
        patch(&mut bytes, "tokenizer.ggml.token_type", 8, &huge.to_le_bytes());
        refused(&bytes, "the length of array metadata key tokenizer.ggml.token_type");
        // Behind the name: the number of dimensions, then each.
        let mut bytes = fixture();
        patch(&mut bytes, "token_embd.weight", 4, &huge.to_le_bytes());
        refused(&bytes, "token_embd.weight");
        // And type and offset.
        let mut bytes = fixture();
        patch(&mut bytes, "blk.0.attn_q.weight", 24, &huge.to_le_bytes());
        refused(&bytes, "blk.0.attn_q.weight");
    }
}

#[test]
fn tensors_on_top_of_each_other_or_misaligned() {
    let mut bytes = fixture();
    patch(&mut bytes, "blk.0.attn_q.weight", 24, &0u64.to_le_bytes());
    refused(&bytes, "starts where another one starts");
    let mut bytes = fixture();
    patch(&mut bytes, "blk.0.attn_q.weight", 24, &1u64.to_le_bytes());
    refused(&bytes, "no multiple of the alignment 32");
    // Starts inside the embedding, whose own bytes then have no room.
    let mut bytes = fixture();
    patch(&mut bytes, "blk.0.attn_q.weight", 24, &64u64.to_le_bytes());
    refused(&bytes, "token_embd.weight");
}

#[test]
fn names_and_keys_that_stand_twice() {
    let key = ("general.name", Meta::Text("x".into()));
    refused(&small(&[key.clone(), key], &[]), "metadata key general.name stands there twice");
    let tensor: (&str, &[usize], u32, u64) = ("a", &[4], 0, 16);
    refused(&small(&[], &[tensor, tensor]), "tensor a stands there twice");
}

#[test]
fn text_that_is_no_text() {
    let mut bytes = small(&[("general.name", Meta::Text("name".into()))], &[]);
    let at = bytes.windows(4).rposition(|w| w == b"name").unwrap();
    bytes[at] = 0xff;
    refused(&bytes, "no valid UTF-8");
}

#[test]
fn arrays_nested_without_end() {
    // An array of one array of …: 12 bytes a level.
    let mut nested = 9u32.to_le_bytes().to_vec();
    nested.extend((0..10_000).flat_map(|_| [9u32, 1, 0]).flat_map(u32::to_le_bytes));
    refused(&small(&[("a", Meta::Raw(nested))], &[]), "deeper than");
    // A million empty arrays cost their own bytes and no more.
    let mut wide = [9u32, 9, 1_000_000, 0].map(u32::to_le_bytes).concat();
    wide.extend((0..1_000_000).flat_map(|_| [4u32, 0, 0]).flat_map(u32::to_le_bytes));
    refused(&small(&[("a", Meta::Raw(wide))], &[]), "general.architecture is missing");
}

#[test]
fn alignment_that_is_none() {
    for alignment in [0u32, 3, u32::MAX] {
        let bytes = small(&[("general.alignment", Meta::Uint(alignment))], &[]);
        refused(&bytes, "general.alignment must be a power of two");
    }
}

#[test]
fn dimensions_that_are_none() {
    for dims in [0u32, 5, u32::MAX] {
        let mut bytes = fixture();
        patch(&mut bytes, "output_norm.weight", 0, &dims.to_le_bytes());
        refused(&bytes, "dimensions, expected 1 to 4");
    }
    let mut bytes = fixture();
    patch(&mut bytes, "output_norm.weight", 4, &0u64.to_le_bytes());
    refused(&bytes, "output_norm.weight");
}

#[test]
fn settings_that_are_missing_or_contradict_the_tensors() {
    let architecture = ("general.architecture", Meta::Text("bitnet-b1.58".into()));
    refused(&small(&[], &[]), "general.architecture is missing");
    refused(&small(&[("general.architecture", Meta::Text("x".into()))], &[]), "unknown architecture 'x'");
    refused(&small(&[("general.architecture", Meta::Uint(1))], &[]), "expected a string, found 1");
    let long = Meta::Floats(vec![0.5; 3]);
    refused(&small(&[("general.architecture", long)], &[]), "expected a string, found an array of 3 floats");
    refused(&small(std::slice::from_ref(&architecture), &[]), "it has no tensors");
    refused(&small(&[architecture], &[("x", &[1], 0, 4)]), "none of its tensors");
    for (key, value, reason) in [
        ("bitnet-b1.58.embedding_length", 0, "out of range"),
        ("bitnet-b1.58.feed_forward_length", 128, "the metadata asks for the shape"),
        ("bitnet-b1.58.block_count", u32::MAX, "out of range"),
        ("bitnet-b1.58.block_count", 1 << 27, "blocks in"),
        ("bitnet-b1.58.block_count", 4, "blk.3."),
        ("bitnet-b1.58.block_count", 2, "is not part of a bitnet model of 2 blocks"),
        ("bitnet-b1.58.attention.head_count", 7, "7 heads do not divide the width"),
        ("bitnet-b1.58.attention.head_count_kv", 3, "is not a multiple of metadata key"),
        ("bitnet-b1.58.vocab_size", 511, "the embedding has 512 rows"),
        ("bitnet-b1.58.rope.dimension_count", 16, "not supported"),
        ("tokenizer.ggml.bos_token_id", 9999, "bos_token_id: 9999 is outside the vocabulary of 512"),
    ] {
        let mut bytes = fixture();
        patch(&mut bytes, key, 4, &value.to_le_bytes());
        refused(&bytes, reason);
    }
}

#[test]
fn a_factor_of_positions_without_a_type_is_linear() {
    let architecture = || ("general.architecture", Meta::Text("bitnet-b1.58".into()));
    for key in ["bitnet-b1.58.rope.scaling.factor", "bitnet-b1.58.rope.scale_linear"] {
        let of = |factor: f32| small(&[architecture(), (key, Meta::Float(factor))], &[("x", &[1], 0, 4)]);
        refused(&of(4.0), "linear with the factor 4");
        refused(&of(1.0), "none of its tensors");
    }
}

#[test]
fn what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dir.gguf");
    std::fs::create_dir(&path).unwrap();
    assert!(Reader::open(&path).unwrap_err().to_string().contains("a directory"));
    let message = Reader::open(dir.path().join("none.gguf")).unwrap_err().to_string();
    assert!(message.contains("no such file"), "{message}");
    refused(&[], "empty");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// A few bytes of the header changed: refused or read to the end, never a panic.
    #[test]
    fn mutated_headers(changes in prop::collection::vec((0usize..14_272, any::<u8>()), 1..6)) {
        let mut bytes = fixture();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(checkpoint) = parse(bytes) {
            read_all(&checkpoint);
        }
    }
}
