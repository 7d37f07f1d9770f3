//! What every layout promises: lossless, shapes refused rather than padded, hostile bytes an error.

use proptest::prelude::*;
use tritmark_kernels::Trits;
use tritmark_kernels::kernel::Packed;
use tritmark_kernels::layout::{self, Layout, MAX_COLS, ScaleForm};

/// Any shape, as it is and as multiples that the block layouts hold.
fn shapes() -> impl Strategy<Value = (usize, usize)> {
    (
        1usize..70,
        1usize..300,
        prop::sample::select(vec![1, 4, 32]),
        prop::sample::select(vec![1, 32, 64, 256]),
    )
        .prop_map(|(rows, cols, r, c)| (rows.next_multiple_of(r), cols.next_multiple_of(c)))
}

fn matrices() -> impl Strategy<Value = Trits> {
    (shapes(), any::<u64>(), 0u64..5).prop_map(|((rows, cols), seed, zeros)| {
        let mut state = seed | 1;
        let data = (0..rows * cols).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // From no zeros at all to mostly zeros.
            if (state >> 40) % 4 < zeros { 0 } else { (state >> 33 & 2) as i8 - 1 }
        });
        Trits::new(rows, cols, data.collect()).unwrap()
    })
}

/// Packs, or checks that the refusal says why.
fn pack(layout: &dyn Layout, trits: &Trits, scale: f32) -> Option<Vec<u8>> {
    match layout.packed_len(trits.rows(), trits.cols()) {
        Ok(len) => {
            let mut bytes = vec![0xAA; len];
            layout.pack(trits, scale, &mut bytes).unwrap();
            Some(bytes)
        }
        Err(e) => {
            assert_eq!((e.layout, e.rows, e.cols), (layout.name(), trits.rows(), trits.cols()));
            assert!(!e.requires.is_empty());
            assert!(Packed::pack(layout::by_name(layout.name()).unwrap(), trits).is_err());
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn lossless(trits in matrices(), scale in 0.001f32..100.0) {
        for layout in layout::ALL {
            let Some(bytes) = pack(*layout, &trits, scale) else { continue };
            let unpacked = layout.unpack(trits.rows(), trits.cols(), &bytes).unwrap();
            prop_assert!(unpacked.trits == trits, "{} {trits:?}", layout.name());
            if let Some(stored) = unpacked.scale {
                let error = match layout.scale_form() {
                    ScaleForm::F32 | ScaleForm::F32PerRow => 0.0,
                    _ => 1.0 / 2048.0,
                };
                prop_assert!((stored - scale).abs() <= scale * error, "{}: {stored} for {scale}", layout.name());
            }
            let mut row = vec![0; trits.cols()];
            for r in 0..trits.rows() {
                layout.unpack_row(trits.rows(), trits.cols(), &bytes, r, &mut row);
                prop_assert_eq!(&row[..], trits.row(r));
            }
        }
    }

    /// Damaged bytes are an error or another matrix that packs and unpacks like any.
    #[test]
    fn damaged_bytes(trits in matrices(), damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        for layout in layout::ALL {
            let Some(mut bytes) = pack(*layout, &trits, 0.5) else { continue };
            for &(at, value) in &damage {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(read) = layout.unpack(trits.rows(), trits.cols(), &bytes) {
                let again = pack(*layout, &read.trits, read.scale.unwrap_or(1.0)).unwrap();
                let again = layout.unpack(trits.rows(), trits.cols(), &again).unwrap();
                prop_assert!(again.trits == read.trits, "{}", layout.name());
            }
        }
    }

    /// Noise of any length is never a panic, and only ever accepted at the right length.
    #[test]
    fn noise((rows, cols) in shapes(), noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        for layout in layout::ALL {
            let read = layout.unpack(rows, cols, &noise);
            prop_assert!(read.is_err() || Ok(noise.len()) == layout.packed_len(rows, cols));
            if let Ok(len) = layout.packed_len(rows, cols) {
                let right: Vec<u8> = noise.iter().copied().cycle().take(len).collect();
                if right.len() == len {
                    let _ = layout.unpack(rows, cols, &right);
                }
                prop_assert!(layout.check(rows, cols, &vec![0; len + 1]).is_err());
            }
        }
    }
}

#[test]
fn impossible_shapes_are_refused() {
    for layout in layout::ALL {
        for (rows, cols) in [
            (0, 256),
            (256, 0),
            (4, MAX_COLS + 256),
            (usize::MAX, 256),
            (usize::MAX / 256 + 1, 256),
            (1 << 62, 1 << 20),
        ] {
            assert!(layout.packed_len(rows, cols).is_err(), "{} {rows}x{cols}", layout.name());
            assert!(layout.unpack(rows, cols, &[0; 64]).is_err(), "{} {rows}x{cols}", layout.name());
        }
    }
}

#[test]
fn names_are_unique_and_found() {
    for (i, layout) in layout::ALL.iter().enumerate() {
        let found = layout::ALL.iter().position(|l| l.name() == layout.name());
        assert_eq!(found, Some(i), "{}", layout.name());
        assert_eq!(layout::by_name(layout.name()).unwrap().name(), layout.name());
    }
    assert!(layout::by_name("none").is_none());
}
