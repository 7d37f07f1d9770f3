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
//! bits; then they are added to 32-bit sums. Weights are turned into offsets once a call, in the order in
//! which they are looked up: as many at once as fit 16 bits, so that offsets stay in the second-level cache while all
//! tiles of tokens pass, or all of them, where the 32-bit sums of so many tiles would be more to move.

use crate::acts::Activations;
use crate::buffer::{Array, AtLine};
use crate::layout::tm2::{GROUP, GROUP_BYTES, ROWS};
use crate::tier::{prefetch, prefetch_l2};
use std::arch::x86_64::*;
use std::ops::Range;

/// Lanes.
pub(super) const TOKENS: usize = 16;
/// Quads of a chunk.
const CHUNK: usize = 8;
/// Chunks of a group.
const CHUNKS: usize = 4;
/// Bytes of a chunk of a strip.
const BLOCKS: usize = GROUP_BYTES / CHUNKS;
/// Bytes of a row's offsets.
const OFFSETS: usize = 2 * CHUNK;
/// Tiles for which a part of the columns at a time is faster.
const FEW: usize = 8;
/// From so many tokens on a tile that is not full is faster than multiplying.
pub(super) const LEAST: usize = 9;
/// Chunks until 16-bit sums are widened.
const FOLD: usize = 7;
/// Rows of offsets that are asked for ahead: they come from a cache further away, in order.
const AHEAD: usize = 128;
/// Entries of a table.
const ENTRIES: usize = 81;
/// Entry numbers that four 2-bit codes can make: 0 to 3 · (1 + 3 + 9 + 27).
const CODES: usize = 121;
/// Bytes of an entry.
const ENTRY: usize = 2 * TOKENS;

/// Bytes of the tables of a chunk.
const TABLES: usize = ((CHUNK - 1) * ENTRIES + CODES) * ENTRY;
/// Bytes of a row's sums of all tokens, of 16 and of 32 bits.
const NARROW: usize = 2 * TOKENS;
const WIDE: usize = 4 * TOKENS;

/// What a call needs; kept so that calls do not allocate.
#[derive(Default)]
pub(super) struct Quads {
    /// `[chunk of the section][row][quad]` offsets of 16 bits.
    offsets: Array<u8>,
    rows: usize,
    /// Tables `[quad of the chunk][entry][token]`, sums of 16 bits `[row][token]` and, for each tile, sums of 32 bits.
    /// One after the other, because they are used together and fill most of a first cache: some CPUs guess where a
    /// line lies in it by a hash of its address, and tables apart from sums may get the same hashes, at two thirds
    /// of the speed.
    work: Array<u8>,
}

/// A chunk and a tile.
#[derive(Clone, Copy)]
struct Part {
    /// Number of the chunk in its section.
    at: usize,
    /// Place of the tile's 32-bit sums.
    sums: usize,
    /// Whether these begin here.
    begins: bool,
}

impl Quads {
    /// Multiplies tokens by the rows of some strips of so many groups, whose planes start at these columns of a group,
    /// and hands the sums out in runs of consecutive rows: token, first row, sums. Runs may reach behind the last row.
    #[target_feature(enable = "avx2")]
    pub(super) fn multiply(
        &mut self,
        strips: &[u8],
        groups: usize,
        planes: [usize; 4],
        x: &Activations,
        tokens: Range<usize>,
        mut sink: impl FnMut(usize, usize, &[i32]),
    ) {
        let (strip_bytes, chunks) = (groups * GROUP_BYTES, groups * CHUNKS);
        let rows = strips.len() / strip_bytes * ROWS;
        let tiles = tokens.len().div_ceil(TOKENS);
        let (section, sums) = if tiles > FEW { (chunks, 1) } else { (FOLD, tiles) };
        self.rows = rows;
        self.offsets.first(section * rows * OFFSETS);
        self.work.first(TABLES + rows * (NARROW + sums * WIDE));
        for start in (0..chunks).step_by(section) {
            let end = chunks.min(start + section);
            for (at, strip) in strips.chunks_exact(strip_bytes).enumerate() {
                self.decode(at, &strip[start * BLOCKS..end * BLOCKS], strip_bytes);
            }
            for tile in 0..tiles {
                let first = tokens.start + tile * TOKENS;
                let tokens = first..tokens.end.min(first + TOKENS);
                // A tile that is not full takes a token several times.
                let x = std::array::from_fn(|t| x.row((first + t).min(tokens.end - 1)));
                let sums = tile % sums;
                for chunk in start..end {
                    self.tabulate(&x, chunk, planes);
                    let part = Part { at: chunk - start, sums, begins: chunk < FOLD };
                    // Sums begin and end in the loop that adds to them.
                    match (chunk % FOLD == 0, chunk % FOLD == FOLD - 1 || chunk + 1 == chunks) {
                        (false, false) => self.look_up::<false, false>(part),
                        (false, true) => self.look_up::<false, true>(part),
                        (true, false) => self.look_up::<true, false>(part),
                        (true, true) => self.look_up::<true, true>(part),
                    }
                }
                if end == chunks {
                    self.each_sum(sums, tokens.len(), |t, row, sums| sink(first + t, row, sums));
                }
            }
        }
    }

    /// Turns a section of strip number `at` into offsets; that of the next strip is so many bytes behind.
    #[target_feature(enable = "avx2")]
    fn decode(&mut self, at: usize, strip: &[u8], next: usize) {
        let rows = self.rows;
        let offsets = &mut self.offsets[..];
        // What two 2-bit codes add to an entry number, for each nibble.
        const LOW: [u8; 16] = {
            let mut low = [0; 16];
            let mut nibble = 0;
            while nibble < 16 {
                low[nibble] = (nibble % 4 + 3 * (nibble / 4)) as u8;
                nibble += 1;
            }
            low
        };
        // SAFETY: the array is the 16 bytes of a register.
        let load = |bytes: &[u8; 16]| unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        let (low, high) = (load(&LOW), load(&LOW.map(|n| 9 * n)));
        let nibble = |v| _mm_and_si128(v, _mm_set1_epi8(15));
        // Entry numbers of four quads of four rows, as offsets.
        let entries = |bytes: &[u8; 16]| {
            let bytes = load(bytes);
            let entries = _mm_add_epi8(
                _mm_shuffle_epi8(low, nibble(bytes)),
                _mm_shuffle_epi8(high, nibble(_mm_srli_epi16::<4>(bytes))),
            );
            _mm256_slli_epi16::<{ ENTRY.ilog2() as i32 }>(_mm256_cvtepu8_epi16(entries))
        };
        for (chunk, blocks) in strip.as_chunks::<BLOCKS>().0.iter().enumerate() {
            // Sections of a strip are too short for CPUs to see where the next one begins.
            for line in blocks.as_chunks::<64>().0 {
                prefetch_l2(std::ptr::from_ref(line).wrapping_byte_add(3 * next));
                prefetch(std::ptr::from_ref(line).wrapping_byte_add(next));
            }
            let (first, second) = blocks.split_at(4 * ROWS);
            let start = (chunk * rows + at * ROWS) * OFFSETS;
            let out = offsets[start..][..ROWS * OFFSETS].as_chunks_mut::<64>().0;
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

    /// Hands out sums of the first `tokens` tokens of a tile.
    #[target_feature(enable = "avx2")]
    fn each_sum(&self, place: usize, tokens: usize, mut f: impl FnMut(usize, usize, &[i32])) {
        let wide = &self.work[TABLES + self.rows * (NARROW + place * WIDE)..][..self.rows * WIDE];
        for (i, rows) in wide.as_chunks::<{ ROWS * WIDE }>().0.iter().enumerate() {
            let mut lanes = AtLine([[0; ROWS]; TOKENS]);
            for (r, rows) in rows.as_chunks::<{ 8 * WIDE }>().0.iter().enumerate() {
                for half in 0..2 {
                    let sums = transpose(std::array::from_fn(|r| {
                        let row = rows[r * WIDE + half * WIDE / 2..]
                            .first_chunk::<{ WIDE / 2 }>()
                            .expect("half a row");
                        // SAFETY: the array is the 32 bytes of a register.
                        unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }
                    }));
                    for (lane, sums) in lanes.0[8 * half..].iter_mut().zip(sums) {
                        let out = lane[8 * r..].first_chunk_mut::<8>().expect("a run has 32 rows");
                        // SAFETY: as above.
                        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
                    }
                }
            }
            for (t, sums) in lanes.0[..tokens].iter().enumerate() {
                f(t, i * ROWS, sums);
            }
        }
    }

    /// Fills the tables of a chunk.
    #[target_feature(enable = "avx2")]
    fn tabulate(&mut self, x: &[&[i8]; TOKENS], chunk: usize, planes: [usize; 4]) {
        let k = chunk / CHUNKS * GROUP + chunk % CHUNKS * CHUNK;
        let columns = planes.map(|p| columns(x, k + p));
        let tables = self.work[..TABLES].as_chunks_mut::<{ ENTRIES * ENTRY }>().0;
        let zero = _mm256_setzero_si256();
        // Sums for the nine combinations of two weights.
        let nine = |x: __m256i, y: __m256i| {
            let signed = |v| [_mm256_sub_epi16(zero, v), zero, v];
            let (x, y) = (signed(x), signed(y));
            std::array::from_fn::<_, 9, _>(|i| _mm256_add_epi16(x[i % 3], y[i / 3]))
        };
        for (quad, table) in tables.iter_mut().enumerate() {
            let x = columns.each_ref().map(|c| c[quad]);
            let low = nine(x[0], x[1]);
            let high = nine(x[2], x[3]);
            for (high, out) in high.iter().zip(table.as_chunks_mut::<{ 9 * ENTRY }>().0) {
                for (low, out) in low.iter().zip(out.as_chunks_mut::<ENTRY>().0) {
                    // SAFETY: an entry is the 32 bytes of a register.
                    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_add_epi16(*low, *high)) };
                }
            }
        }
    }

    /// Adds the looked-up sums of a chunk: to nothing in the `FIRST` of several chunks, to narrow sums
    /// otherwise, and these to the wide ones in the `LAST`, which begin in the first of these.
    #[target_feature(enable = "avx2")]
    fn look_up<const FIRST: bool, const LAST: bool>(&mut self, Part { at, sums, begins }: Part) {
        let start = at * self.rows * OFFSETS;
        let offsets = self.offsets[start..][..self.rows * OFFSETS].as_chunks::<OFFSETS>().0;
        let (tables, all) = self.work.split_at_mut(TABLES);
        let (narrow, wide) = all.split_at_mut(self.rows * NARROW);
        let wide = &mut wide[sums * self.rows * WIDE..][..self.rows * WIDE];
        let sums = narrow.as_chunks_mut::<NARROW>().0.iter_mut().zip(wide.as_chunks_mut::<WIDE>().0);
        let tables = tables.as_ptr();
        for ((narrow, wide), offsets) in sums.zip(offsets) {
            prefetch(std::ptr::from_ref(offsets).wrapping_add(AHEAD));
            // Half of the offsets by shifting and half by loading: as many as keep both kinds of units busy.
            let (low, high) = offsets.split_first_chunk().expect("eight quads");
            let (low, high) = (u64::from_le_bytes(*low), high.as_chunks().0);
            // SAFETY: a row is the 32 bytes of a register, or of two. Offsets are zero or written by `decode`, so
            // they are those of entries below `CODES`, and the buffer holds as many behind the start
            // of the last table.
            unsafe {
                let narrow = narrow.as_mut_ptr().cast();
                let mut sums = if FIRST { _mm256_setzero_si256() } else { _mm256_loadu_si256(narrow) };
                for quad in 0..CHUNK {
                    let offset = match quad {
                        0..4 => (low >> (quad * 16)) as u16,
                        _ => u16::from_le_bytes(high[quad - 4]),
                    };
                    let entry = tables.add(quad * ENTRIES * ENTRY + usize::from(offset));
                    sums = _mm256_add_epi16(sums, _mm256_loadu_si256(entry.cast()));
                }
                if !LAST {
                    _mm256_storeu_si256(narrow, sums);
                    continue;
                }
                let halves = [_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums)];
                for (i, half) in halves.into_iter().enumerate() {
                    let wide = wide.as_mut_ptr().cast::<__m256i>().add(i);
                    let before = if begins { _mm256_setzero_si256() } else { _mm256_loadu_si256(wide) };
                    _mm256_storeu_si256(wide, _mm256_add_epi32(before, _mm256_cvtepi16_epi32(half)));
                }
            }
        }
    }
}

/// Eight columns from `k` on, a lane for each token.
#[target_feature(enable = "avx2")]
fn columns(x: &[&[i8]; TOKENS], k: usize) -> [__m256i; CHUNK] {
    let mut v: [__m128i; CHUNK] = std::array::from_fn(|i| {
        let token = |t: usize| {
            let x: &[i8; 8] = x[t][k..].first_chunk().expect("whole groups");
            // SAFETY: the array is the eight bytes that are read.
            unsafe { _mm_loadl_epi64(x.as_ptr().cast()) }
        };
        _mm_unpacklo_epi8(token(i), token(i + 8))
    });
    // Each round interleaves the first half of the sequence with the second: four of them, the one
    // above included, transpose 16 rows.
    for _ in 0..3 {
        v = std::array::from_fn(|i| {
            let (a, b) = (v[i / 2], v[i / 2 + 4]);
            if i % 2 == 0 { _mm_unpacklo_epi8(a, b) } else { _mm_unpackhi_epi8(a, b) }
        });
    }
    v.map(|c| _mm256_cvtepi8_epi16(c))
}

/// Lane `i` of register `j` becomes lane `j` of register `i`.
#[target_feature(enable = "avx2")]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    // Each round interleaves the first half of the sequence with the second, within 128-bit halves; two
    // of them transpose four lanes, and the halves change places at the end.
    let round = |v: [__m256i; 8]| -> [__m256i; 8] {
        let pair = |a, b| [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)];
        let [p, q] = [pair(v[0], v[2]), pair(v[1], v[3])];
        let [s, t] = [pair(v[4], v[6]), pair(v[5], v[7])];
        [p[0], p[1], q[0], q[1], s[0], s[1], t[0], t[1]]
    };
    let v = round(round(v));
    std::array::from_fn(|i| {
        let (a, b) = (v[i % 4], v[i % 4 + 4]);
        if i < 4 { _mm256_permute2x128_si256::<0x20>(a, b) } else { _mm256_permute2x128_si256::<0x31>(a, b) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        if !crate::Tier::Avx2.is_available() {
            return println!("skipped: this CPU lacks AVX2");
        }
        #[target_feature(enable = "avx2")]
        fn through(m: [[i32; 8]; 8]) -> [[i32; 8]; 8] {
            // SAFETY: an array of eight `i32` is the 32 bytes of a register, both ways.
            unsafe {
                let v = transpose(std::mem::transmute::<[[i32; 8]; 8], [__m256i; 8]>(m));
                std::mem::transmute::<[__m256i; 8], [[i32; 8]; 8]>(v)
            }
        }
        let m: [[i32; 8]; 8] = std::array::from_fn(|i| std::array::from_fn(|j| (8 * i + j) as i32));
        // SAFETY: the CPU has AVX2, see above.
        let transposed = unsafe { through(m) };
        assert_eq!(transposed, std::array::from_fn(|i| std::array::from_fn(|j| m[j][i])));
    }
}
