//! What the vector kernels of all architectures share: how the rows of any layout become strips of
//! the [`tm2`](crate::layout::TM2) form, whose lanes are rows.

use crate::buffer::Array;
use crate::kernel::Packed;
use crate::layout::tm2::{self, GROUP, GROUP_BYTES, ROW_BYTES, ROWS};
use crate::layout::{Layout, tm1_67, tq1_0};
use crate::tier::nibbles::{self, Halves};
use crate::tier::prefetch_l2;
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
    /// Rows of blocks with five weights in a byte.
    Digits,
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
            "tq1_0" => Source::Digits,
            "tq2_0" => Source::Chunks(Chunks { pair: 2 * ROW_BYTES + 2, reversed: false }),
            _ => Source::Rows,
        }
    }

    /// First column of each plane of the strips, lowest bits first.
    pub(super) fn planes(self) -> [usize; 4] {
        match self {
            Source::Chunks(chunks) => chunks.planes(),
            Source::Strips | Source::Triples | Source::Digits | Source::Rows | Source::Nibbles => {
                [0, 32, 64, 96]
            }
        }
    }

    /// The strip of up to [`ROWS`] rows from a multiple of that on: in the weights, or made in
    /// `space`; `to_tm2` turns the sections of `tm1_67`. Inlined so that the rest is
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
        if let Source::Strips = self {
            return &weights.bytes()[rows.start / ROWS * bytes..][..bytes];
        }
        let strip = space.strip.first(bytes);
        match self {
            Source::Triples => {
                let strips = weights.rows().div_ceil(ROWS);
                let parts = strip.chunks_mut(tm1_67::SECTION_TM2);
                for (section, out) in tm1_67::sections(cols).zip(parts) {
                    let section = tm1_67::place(&section, rows.start / ROWS, strips);
                    to_tm2(&weights.bytes()[section], out);
                }
            }
            // SAFETY: the tier is the caller's promise.
            Source::Nibbles => unsafe { nibbles::strip::<H>(weights, rows.start, &mut space.codes, strip) },
            Source::Strips => unreachable!("returned above"),
            Source::Chunks(_) | Source::Digits | Source::Rows => {
                let groups = strip.as_chunks_mut::<GROUP_BYTES>().0;
                for first in (0..rows.len()).step_by(EIGHT) {
                    // Behind the last row it is taken again.
                    let rows = std::array::from_fn(|i| (rows.start + first + i).min(rows.end - 1));
                    // SAFETY: the tier is the caller's promise.
                    unsafe { self.put_rows::<H>(weights, rows, first, groups, &mut space.unpacked) };
                }
            }
        }
        strip
    }

    /// Writes eight rows of chunks, digits or any codes to those from `first` on of a strip.
    ///
    /// # Safety
    /// As for [`Halves`].
    #[inline(always)]
    unsafe fn put_rows<H: Halves>(
        self,
        weights: &Packed,
        rows: [usize; EIGHT],
        first: usize,
        groups: &mut [[u8; GROUP_BYTES]],
        unpacked: &mut Array<i8>,
    ) {
        match self {
            Source::Chunks(chunks) => {
                let rows = rows.map(|row| chunks.row(weights, row));
                for (g, group) in groups.iter_mut().enumerate() {
                    let offset = chunks.offset(g);
                    for row in rows {
                        // The next strip.
                        prefetch_l2(row.as_ptr().wrapping_add(ROWS * row.len() + offset));
                    }
                    let codes =
                        rows.map(|row| row[offset..].first_chunk().expect("a chunk is inside its row"));
                    // SAFETY: the tier is the caller's promise.
                    unsafe { put::<H>(group, first, codes) };
                }
            }
            Source::Digits => {
                let rows = rows.map(|row| tq1_0::blocks(weights.bytes(), weights.cols(), row));
                for (b, groups) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let mut codes = [[[0; ROW_BYTES]; EIGHT]; 2];
                    for (r, row) in rows.iter().enumerate() {
                        prefetch_l2(row[b].as_ptr().wrapping_add(ROWS * row.len() * tq1_0::BYTES));
                        [codes[0][r], codes[1][r]] = tq1_0::codes(&row[b]);
                    }
                    for (group, codes) in groups.iter_mut().zip(&codes) {
                        // SAFETY: the tier is the caller's promise.
                        unsafe { put::<H>(group, first, codes.each_ref()) };
                    }
                }
            }
            _ => {
                let cols = weights.cols();
                let unpacked = unpacked.first(EIGHT * cols);
                for (row, out) in rows.into_iter().zip(unpacked.chunks_exact_mut(cols)) {
                    weights.unpack_row(row, out);
                }
                for (g, group) in groups.iter_mut().enumerate() {
                    let mut codes = [[0; ROW_BYTES]; EIGHT];
                    for (row, codes) in unpacked.chunks_exact(cols).zip(&mut codes) {
                        *codes = tm2::encode(&row[g * GROUP..cols.min((g + 1) * GROUP)]);
                    }
                    // SAFETY: the tier is the caller's promise.
                    unsafe { put::<H>(group, first, codes.each_ref()) };
                }
            }
        }
    }
}

/// Writes codes of eight rows to those from `first` on of a strip's group.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn put<H: Halves>(group: &mut [u8; GROUP_BYTES], first: usize, codes: [&[u8; ROW_BYTES]; EIGHT]) {
    // SAFETY: the tier is the caller's promise.
    let words = unsafe { H::transpose(codes) };
    for (block, words) in group.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().zip(words) {
        block[4 * first..][..4 * EIGHT].copy_from_slice(&words);
    }
}

/// Rows that are written to a strip together.
const EIGHT: usize = 8;

/// What making a strip needs; kept so that calls do not allocate.
#[derive(Default)]
pub(super) struct Space {
    strip: Array<u8>,
    unpacked: Array<i8>,
    codes: Array<nibbles::Codes>,
}
