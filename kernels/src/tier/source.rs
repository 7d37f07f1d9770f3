//! Where `tm2` strips come from: the weights' own bytes, or made from them in cache.
//!
//! The vector kernels of all architectures multiply strips, whose lanes are rows.

use crate::kernel::Packed;
use crate::layout::tm2::{self, GROUP, GROUP_BYTES, ROW_BYTES, ROWS};
use std::ops::Range;

/// Room to make a strip in; kept so that calls do not allocate.
#[derive(Default)]
pub(super) struct Space {
    strip: Vec<u8>,
    unpacked: Vec<i8>,
}

/// Where the chunks of a row lie: each is 32 bytes with 128 columns, its planes 32 columns apart.
#[derive(Clone, Copy)]
pub(super) struct Chunks {
    /// Bytes from one pair of chunks (256 columns) to the next; the chunks of a pair are adjacent.
    pub(super) pair: usize,
    /// Whether the first plane stands in the top bits.
    pub(super) reversed: bool,
}

impl Chunks {
    /// Offset of chunk `g` in its row.
    #[inline(always)]
    pub(super) fn offset(self, g: usize) -> usize {
        g / 2 * self.pair + g % 2 * ROW_BYTES
    }
}

/// First columns of the planes of a byte, lowest bits first: ascending for `tm2`, and descending for
/// strips made from `i2_s`, whose first plane stands in the top bits.
#[inline(always)]
pub(super) fn planes(reversed: bool) -> [usize; 4] {
    if reversed { [96, 64, 32, 0] } else { [0, 32, 64, 96] }
}

/// How a layout's bytes become `tm2` strips.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// They are strips.
    Strips,
    /// Rows of chunks.
    Chunks(Chunks),
    /// By unpacking rows.
    Rows,
}

impl Source {
    /// The best way for these weights.
    pub(super) fn of(weights: &Packed) -> Self {
        let whole_groups = weights.cols().is_multiple_of(GROUP);
        match weights.layout().name() {
            "tm2" => Source::Strips,
            // A block straddles rows otherwise.
            "i2_s" if whole_groups => Source::Chunks(Chunks { pair: 2 * ROW_BYTES, reversed: true }),
            "tq2_0" => Source::Chunks(Chunks { pair: 2 * ROW_BYTES + 2, reversed: false }),
            _ => Source::Rows,
        }
    }

    /// Whether the first plane of a strip stands in the top bits.
    pub(super) fn reversed(self) -> bool {
        matches!(self, Source::Chunks(Chunks { reversed: true, .. }))
    }

    /// The strip of these rows, from the weights or made in `space`.
    pub(super) fn strip<'a>(self, weights: &'a Packed, rows: Range<usize>, space: &'a mut Space) -> &'a [u8] {
        match self {
            Source::Strips => {
                let bytes = tm2::strip_bytes(weights.cols());
                &weights.bytes()[rows.start / ROWS * bytes..][..bytes]
            }
            Source::Chunks(chunks) => gather_chunks(weights, chunks, rows, &mut space.strip),
            Source::Rows => gather_rows(weights, rows, space),
        }
    }
}

/// Bytes of a row of chunks.
pub(super) fn row_bytes(weights: &Packed, chunks: Chunks) -> usize {
    let groups = weights.cols() / GROUP;
    // A row of an odd number of chunks ends in half a pair.
    groups / 2 * chunks.pair + groups % 2 * ROW_BYTES
}

/// The rows as a strip whose planes stand as in the chunks.
fn gather_chunks<'a>(
    weights: &Packed,
    chunks: Chunks,
    rows: Range<usize>,
    strip: &'a mut Vec<u8>,
) -> &'a [u8] {
    strip.resize(weights.cols() / GROUP * GROUP_BYTES, 0);
    let row_bytes = row_bytes(weights, chunks);
    for (r, row) in rows.enumerate() {
        let row = &weights.bytes()[row * row_bytes..][..row_bytes];
        for (g, group) in strip.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().enumerate() {
            let codes = row[chunks.offset(g)..].first_chunk().expect("a chunk is inside its row");
            tm2::put_row(group, r, codes);
        }
    }
    strip
}

/// The rows as a strip.
fn gather_rows<'a>(weights: &Packed, rows: Range<usize>, space: &'a mut Space) -> &'a [u8] {
    let (cols, Space { strip, unpacked }) = (weights.cols(), space);
    unpacked.resize(rows.len() * cols, 0);
    for (row, out) in rows.clone().zip(unpacked.chunks_exact_mut(cols)) {
        weights.unpack_row(row, out);
    }
    strip.resize(tm2::strip_bytes(cols), 0);
    tm2::pack_strip(rows.len(), |r| &unpacked[r * cols..][..cols], strip);
    strip
}
