//! Many tokens by table lookup on AVX2: faster than multiplying.
//!
//! The weights of a row at four columns are one of 81 combinations. The lanes of a register are 16
//! tokens, and a table has a register for each combination: the sums of the four products for all
//! tokens. So a lookup is a load that feeds an addition, 64 multiply-adds for two instructions, and
//! no lane ever moves.
//!
//! ```text
//! quad       the four columns of a byte of a tm2 strip: k, k+32, k+64, k+96
//! entry      a + 3b + 9d + 27e for codes a, b, d, e; its place in the table is a byte offset
//! chunk      8 quads (blocks j and j+1): their tables (21 KB) stay in the first-level cache
//! ```
//!
//! A sum of four products is at most 4 · 128 = 512, so 56 quads (7 chunks), at most 28672, fit 16
//! bits; then they are added to 32-bit sums. Weights are turned into offsets once a call
//! ([`Lookup::decode`]), in the order in which [`Lookup::multiply`] reads them.

use super::lookup::Lookup;
use super::strip::planes;
use crate::buffer::Buffer;
use crate::layout::tm2::{GROUP, ROWS};
use std::arch::x86_64::*;

/// Lanes.
const TOKENS: usize = 16;
/// Quads of a chunk.
const CHUNK: usize = 8;
/// Chunks of a group.
const CHUNKS: usize = 4;
/// Chunks until 16-bit sums are widened.
const FOLD: usize = 7;
/// Entries of a table.
const ENTRIES: usize = 81;
/// Entry numbers that four 2-bit codes can make: 0 to 3 · (1 + 3 + 9 + 27).
const CODES: usize = 121;
/// Bytes of an entry.
const ENTRY: usize = 2 * TOKENS;

/// Sums of the tokens of a tile for one row.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Row<T>([T; TOKENS]);

/// What a call needs; kept so that calls do not allocate.
pub(super) struct Quads {
    /// `[chunk][row][quad]` offsets of 16 bits.
    offsets: Buffer,
    rows: usize,
    chunks: usize,
    /// Activations by column.
    x: Vec<Row<i16>>,
    /// `[quad of the chunk][entry][token]`.
    tables: Buffer,
    narrow: Vec<Row<i16>>,
    wide: Vec<Row<i32>>,
}

impl Default for Quads {
    fn default() -> Self {
        Self {
            offsets: Buffer::new(0),
            rows: 0,
            chunks: 0,
            x: Vec::new(),
            tables: Buffer::new(((CHUNK - 1) * ENTRIES + CODES) * ENTRY),
            narrow: Vec::new(),
            wide: Vec::new(),
        }
    }
}

impl Lookup for Quads {
    const TOKENS: usize = TOKENS;

    fn resize(&mut self, rows: usize, cols: usize) {
        self.rows = rows.next_multiple_of(ROWS);
        self.chunks = cols.div_ceil(GROUP) * CHUNKS;
        let bytes = self.chunks * self.rows * CHUNK * 2;
        if bytes > self.offsets.len() {
            self.offsets = Buffer::new(bytes);
        }
        self.x.resize(self.chunks / CHUNKS * GROUP, Row::default());
        self.narrow.resize(self.rows, Row::default());
        self.wide.resize(self.rows, Row::default());
    }

    // Planes in another order are met by tables of other columns.
    #[target_feature(enable = "avx2")]
    unsafe fn decode(&mut self, at: usize, strip: &[u8], _reversed: bool) {
        let rows = self.rows;
        let offsets = self.offsets.bytes_mut();
        // Entry numbers of four quads of four rows, as offsets.
        let entries = |bytes: &[u8; 16]| {
            // SAFETY: the array is the 16 bytes of a register.
            let bytes = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
            let code = |shifted| _mm256_and_si256(shifted, _mm256_set1_epi16(3));
            let times = |v, n| _mm256_mullo_epi16(v, _mm256_set1_epi16(n * ENTRY as i16));
            let low = _mm256_add_epi16(times(code(bytes), 1), times(code(_mm256_srli_epi16::<2>(bytes)), 3));
            let high = _mm256_add_epi16(
                times(code(_mm256_srli_epi16::<4>(bytes)), 9),
                times(code(_mm256_srli_epi16::<6>(bytes)), 27),
            );
            _mm256_add_epi16(low, high)
        };
        for (chunk, blocks) in strip.chunks_exact(2 * 4 * ROWS).enumerate() {
            let (first, second) = blocks.split_at(4 * ROWS);
            let start = (chunk * rows + at * ROWS) * CHUNK * 2;
            let out = offsets[start..][..ROWS * CHUNK * 2].as_chunks_mut::<64>().0;
            for ((a, b), out) in first.as_chunks().0.iter().zip(second.as_chunks().0).zip(out) {
                let (a, b) = (entries(a), entries(b));
                // Rows 0 and 2, and rows 1 and 3.
                let (even, odd) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
                // SAFETY: the chunk is the 64 bytes of two registers.
                unsafe {
                    let out = out.as_mut_ptr().cast::<__m256i>();
                    _mm256_storeu_si256(out, _mm256_permute2x128_si256::<0x20>(even, odd));
                    _mm256_storeu_si256(out.add(1), _mm256_permute2x128_si256::<0x31>(even, odd));
                }
            }
        }
    }

    fn set_token(&mut self, t: usize, x: &[i8]) {
        for (column, &x) in self.x.iter_mut().zip(x) {
            column.0[t] = i16::from(x);
        }
    }

    fn each_sum(&self, mut f: impl FnMut(usize, usize, &[i32])) {
        for (i, rows) in self.wide.as_chunks::<ROWS>().0.iter().enumerate() {
            for t in 0..TOKENS {
                f(t, i * ROWS, &std::array::from_fn::<_, ROWS, _>(|r| rows[r].0[t]));
            }
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn multiply(&mut self, reversed: bool) {
        self.narrow.fill(Row::default());
        self.wide.fill(Row::default());
        for chunk in 0..self.chunks {
            self.tabulate(chunk, planes(reversed));
            self.look_up(chunk);
            if (chunk + 1).is_multiple_of(FOLD) || chunk + 1 == self.chunks {
                for (wide, narrow) in self.wide.iter_mut().zip(&mut self.narrow) {
                    for (wide, narrow) in wide.0.iter_mut().zip(&mut narrow.0) {
                        *wide += i32::from(std::mem::take(narrow));
                    }
                }
            }
        }
    }
}

impl Quads {
    /// Fills the tables of a chunk.
    #[target_feature(enable = "avx2")]
    fn tabulate(&mut self, chunk: usize, planes: [usize; 4]) {
        let tables = self.tables.bytes_mut().as_chunks_mut::<{ ENTRIES * ENTRY }>().0;
        for (quad, table) in tables.iter_mut().enumerate() {
            let k = chunk / CHUNKS * GROUP + chunk % CHUNKS * CHUNK + quad;
            let x = planes.map(|p| {
                let x: &Row<i16> = &self.x[k + p];
                // SAFETY: 16 `i16` are the 32 bytes of a register.
                unsafe { _mm256_loadu_si256(x.0.as_ptr().cast()) }
            });
            // Sums for the nine combinations of two weights.
            let nine = |x: __m256i, y: __m256i| {
                let zero = _mm256_setzero_si256();
                let signed = |v| [_mm256_sub_epi16(zero, v), zero, v];
                let (x, y) = (signed(x), signed(y));
                std::array::from_fn::<_, 9, _>(|i| _mm256_add_epi16(x[i % 3], y[i / 3]))
            };
            let (low, high) = (nine(x[0], x[1]), nine(x[2], x[3]));
            for (entry, out) in table.as_chunks_mut::<ENTRY>().0.iter_mut().enumerate() {
                let sum = _mm256_add_epi16(low[entry % 9], high[entry / 9]);
                // SAFETY: an entry is the 32 bytes of a register.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
            }
        }
    }

    /// Adds the looked-up sums of a chunk.
    #[target_feature(enable = "avx2")]
    fn look_up(&mut self, chunk: usize) {
        let start = chunk * self.rows * CHUNK * 2;
        let offsets = self.offsets.bytes()[start..][..self.rows * CHUNK * 2].as_chunks::<{ CHUNK * 2 }>().0;
        let tables = self.tables.bytes().as_ptr();
        for (row, offsets) in self.narrow.iter_mut().zip(offsets) {
            let (words, _) = offsets.as_chunks::<8>();
            let words = [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])];
            // SAFETY: a row is the 32 bytes of a register. Offsets are zero or written by `decode`, so
            // they are those of entries below `CODES`, and the buffer holds as many behind the start
            // of the last table.
            unsafe {
                let mut sums = _mm256_loadu_si256(row.0.as_ptr().cast());
                for quad in 0..CHUNK {
                    let offset = (words[quad / 4] >> (quad % 4 * 16)) as u16 as usize;
                    let entry = tables.add(quad * ENTRIES * ENTRY + offset);
                    sums = _mm256_add_epi16(sums, _mm256_loadu_si256(entry.cast()));
                }
                _mm256_storeu_si256(row.0.as_mut_ptr().cast(), sums);
            }
        }
    }
}
