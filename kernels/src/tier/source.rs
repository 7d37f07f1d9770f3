//! What the vector kernels of all architectures share: how the rows of any layout become strips of
//! the [`tm2`](crate::layout::TM2) form, whose lanes are rows.

use crate::buffer::Array;
use crate::kernel::Packed;
use crate::layout::tm2::{self, GROUP, GROUP_BYTES, ROW_BYTES, ROWS};
use crate::layout::{Layout, tm1_67, tq1_0};
use crate::tier::nibbles::{self, Halves};
use std::ops::Range;

/// How a layout's bytes become strips.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// They are strips.
    Strips,
    /// Rows of chunks.
    Chunks(Chunks),
    /// Sections of strips with three weights in five bits.
    Triples,
    /// By unpacking rows.
    Rows,
    /// By what nibbles of 32 rows add to the codes.
    Nibbles,
}

/// Where the chunks of a row lie: each is 32 bytes with 128 columns, the four planes 32 columns apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    /// Bytes from one pair of chunks (256 columns) to the next; the chunks of a pair are adjacent.
    pair: usize,
    /// Whether the first plane stands in the top bits.
    reversed: bool,
}

impl Chunks {
    /// Offset of chunk `g` in its row.
    #[inline(always)]
    pub(super) fn offset(self, g: usize) -> usize {
        g / 2 * self.pair + g % 2 * ROW_BYTES
    }

    /// Bytes of a row of `groups` chunks, and from one row to the next.
    pub(super) fn row_bytes(self, groups: usize) -> usize {
        // A row of an odd number of chunks ends in half a pair.
        groups / 2 * self.pair + groups % 2 * ROW_BYTES
    }

    /// The bytes of row `row`.
    #[inline(always)]
    pub(super) fn row(self, weights: &Packed, row: usize) -> &[u8] {
        let bytes = self.row_bytes(weights.cols().div_ceil(GROUP));
        &weights.bytes()[row * bytes..][..bytes]
    }

    /// First column of each plane, lowest bits first.
    pub(super) fn planes(self) -> [usize; 4] {
        if self.reversed { [96, 64, 32, 0] } else { [0, 32, 64, 96] }
    }
}

impl Source {
    /// The best way for weights of a layout with so many columns. Names are enough to know layouts by: the
    /// trait is sealed.
    pub(super) fn of(layout: &dyn Layout, cols: usize) -> Self {
        match layout.name() {
            "tm2" => Source::Strips,
            "tm1_67" => Source::Triples,
            // A block straddles rows otherwise.
            "i2_s" if cols.is_multiple_of(GROUP) => {
                Source::Chunks(Chunks { pair: 2 * ROW_BYTES, reversed: true })
            }
            "tl1" | "tl2" => Source::Nibbles,
            "tq2_0" => Source::Chunks(Chunks { pair: 2 * ROW_BYTES + 2, reversed: false }),
            _ => Source::Rows,
        }
    }

    /// First column of each plane of the strips, lowest bits first.
    pub(super) fn planes(self) -> [usize; 4] {
        match self {
            Source::Chunks(chunks) => chunks.planes(),
            Source::Strips | Source::Triples | Source::Rows | Source::Nibbles => [0, 32, 64, 96],
        }
    }

    /// The strip of up to [`ROWS`] rows from a multiple of that on: in the weights, or made in
    /// `space`; `to_tm2` is [`tm1_67::to_tm2`] in the caller's instructions. Inlined so that the rest is
    /// compiled for them too.
    ///
    /// # Safety
    /// As for [`Halves`].
    #[inline(always)]
    pub(super) unsafe fn strip<'a, H: Halves>(
        self,
        weights: &'a Packed,
        rows: Range<usize>,
        space: &'a mut Space,
        to_tm2: impl Fn(&[u8], &mut [u8]),
    ) -> &'a [u8] {
        let cols = weights.cols();
        let bytes = tm2::strip_bytes(cols);
        let strip = space.strip.first(bytes);
        match self {
            Source::Strips => return &weights.bytes()[rows.start / ROWS * bytes..][..bytes],
            Source::Chunks(chunks) => {
                for (r, row) in rows.enumerate() {
                    let row = chunks.row(weights, row);
                    let groups = strip.as_chunks_mut::<GROUP_BYTES>().0;
                    for (g, group) in groups.iter_mut().enumerate() {
                        let codes = row[chunks.offset(g)..].first_chunk().expect("a chunk is inside its row");
                        tm2::put_row(group, r, codes);
                    }
                }
            }
            Source::Triples => {
                let strips = weights.rows().div_ceil(ROWS);
                let parts = strip.chunks_mut(tm1_67::SECTION_TM2);
                for (section, out) in tm1_67::sections(cols).zip(parts) {
                    let section = tm1_67::place(&section, rows.start / ROWS, strips);
                    to_tm2(&weights.bytes()[section], out);
                }
            }
            Source::Rows => {
                let unpacked = space.unpacked.first(rows.len() * cols);
                for (row, out) in rows.clone().zip(unpacked.chunks_exact_mut(cols)) {
                    unpack_row(weights, row, out);
                }
                tm2::pack_strip(rows.len(), |r| &unpacked[r * cols..][..cols], strip);
            }
            Source::Nibbles => {
                // SAFETY: the tier is the caller's promise.
                unsafe { nibbles::strip::<H>(weights, rows.start, &mut space.codes, strip) }
            }
        }
        strip
    }
}

/// [`Packed::unpack_row`], inlined where that pays.
#[inline(always)]
pub(super) fn unpack_row(weights: &Packed, row: usize, out: &mut [i8]) {
    match weights.layout().name() {
        "tq1_0" => tq1_0::unpack_row(weights.bytes(), row, out),
        _ => weights.unpack_row(row, out),
    }
}

/// What making a strip needs; kept so that calls do not allocate.
#[derive(Default)]
pub(super) struct Space {
    strip: Array<u8>,
    unpacked: Array<i8>,
    codes: Array<nibbles::Codes>,
}
