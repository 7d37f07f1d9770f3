//! Byte vectors made by the programs that own each layout: packing gives the same bytes, unpacking
//! the same weights and scale.
//!
//! Reads `tests/fixtures/packings` and the `packings` folder of every directory named in
//! `TRITMARK_FIXTURES` (colon-separated).

use serde_json::Value;
use std::path::{Path, PathBuf};
use tritmark_kernels::Trits;
use tritmark_kernels::layout::{self, Layout, ScaleForm};

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/packings");
    let more = std::env::var("TRITMARK_FIXTURES").unwrap_or_default();
    let more = more.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join("packings"));
    std::iter::once(own).chain(more.filter(|d| d.is_dir())).collect()
}

/// The layout that a format of `index.json` names.
fn layout_of(format: &str) -> Option<&'static dyn Layout> {
    layout::by_name(match format {
        "i2_s_128" => "i2_s",
        "i2_s_64" => "i2_s_arm",
        "i2_s_rows4" => "i2_s_4row",
        "q2_0_g64" => "q2_0",
        other => other,
    })
}

#[test]
fn bytes_and_weights_agree_with_the_fixtures() {
    let mut seen = 0;
    for folder in folders() {
        let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        for (matrix, entry) in index.as_object().unwrap() {
            let number = |key: &str| entry[key].as_u64().unwrap() as usize;
            let (rows, cols) = (number("M"), number("K"));
            let scale = entry["scale"].as_f64().unwrap() as f32;
            let read = |name: &Value| std::fs::read(folder.join(name.as_str().unwrap())).unwrap();
            let weights = read(&entry["ternary_i8"]).into_iter().map(|b| b as i8).collect();
            let trits = Trits::new(rows, cols, weights).unwrap();
            for (format, entry) in entry["formats"].as_object().unwrap() {
                let name = format!("{}: {matrix}.{format}", folder.display());
                let layout = layout_of(format).unwrap_or_else(|| panic!("{name}: no such layout"));
                check(&name, layout, &trits, scale, read(&entry["file"]));
                seen += 1;
            }
        }
    }
    println!("{seen} packings agree");
    assert!(seen >= 38);
}

fn check(name: &str, layout: &dyn Layout, trits: &Trits, scale: f32, mut expected: Vec<u8>) {
    let len = layout.packed_len(trits.rows(), trits.cols()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut packed = vec![0xAA; len];
    layout.pack(trits, scale, &mut packed).unwrap();
    if layout.name().starts_with("i2_s") {
        // What follows the scale is whatever the writer's memory held.
        let end = expected.len() - 28;
        expected[end..].fill(0);
    } else if layout.name().starts_with("tl") {
        // The vectors end before the scale, which files have at the next multiple of 32.
        let tail = expected.len().next_multiple_of(32);
        expected.resize(tail + 32, 0);
        expected[tail..tail + 4].copy_from_slice(&scale.to_le_bytes());
    }
    let differs = packed.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name}: first differing byte");
    assert_eq!(packed.len(), expected.len(), "{name}");

    let unpacked = layout.unpack(trits.rows(), trits.cols(), &expected).unwrap();
    assert!(unpacked.trits == *trits, "{name}: weights differ");
    let stored = match layout.scale_form() {
        ScaleForm::Beside => None,
        ScaleForm::F32 | ScaleForm::F32PerRow => Some(scale),
        ScaleForm::F16PerRow | ScaleForm::F16PerBlock => Some(half::f16::from_f32(scale).to_f32()),
    };
    assert_eq!(unpacked.scale, stored, "{name}");
}
