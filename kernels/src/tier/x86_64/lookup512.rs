//! Many tokens on AVX-512: part of the columns by table lookup, part by multiplying.
//!
//! The weights of a row at three columns are one of 27 combinations. So for each token and triple of
//! columns the 27 possible sums are put into a register's worth of 16-bit entries, and `vpermw` looks
//! the sums of 32 rows up at once: a lookup and an addition for 96 multiply-adds, where `vpdpbusd`
//! does 64. The two use partly different pipes, and a loop that does both at once passes what either
//! can reach.
//!
//! ```text
//! block      16 columns of a tm2 strip: four planes of four columns, c = 0..4
//! quad       four triples, one for each c: planes 0, 1, 2 of a block, or plane 3 of three blocks;
//!            so three blocks are four quads
//! word       16 bits of a row: the entry numbers a + 3b + 9d (codes a, b, d) of two triples of a quad
//! unit       a quad and a block that is multiplied: 28 columns
//! section    14 units: the tables of four tokens (14 KB) and the weights of 64 rows (7 KB) stay in
//!            the first-level cache
//! ```
//!
//! Three in seven blocks of a strip are looked up, the first ones, and the others multiplied: as many
//! as there are quads, or a few less, which blocks of codes 0 make up for. Without `vpdpbusd` all are
//! looked up. A sum of three products is at most 3 · 128 = 384, so the 56 of a section, at most 21504,
//! fit 16 bits; then they are added to 32-bit sums. Weights are decoded once a call, in the order in which
//! [`Words::multiply`] reads them: whole strips that were just made ([`Words::decode`]), others section by section
//! while the first tokens pass. Rows are taken in chunks whose weights of a section stay in the second-level cache
//! while all tokens pass.

// Indices name registers and places in tables.
#![allow(clippy::needless_range_loop)]

use super::triples;
use crate::buffer::Array;
use crate::layout::tm2::{GROUP, ROWS};
use crate::tier::{prefetch, prefetch_l2};
use std::arch::x86_64::*;
use std::ops::Range;

/// Bytes of a register.
const REG: usize = 64;
/// Columns that the four planes of a block have each, and triples of a quad.
const QUAD: usize = 4;
/// Blocks of a group.
const BLOCKS: usize = GROUP / (4 * QUAD);
/// Bytes of a block of a strip.
const BLOCK: usize = QUAD * ROWS;
/// Strips whose sums are in registers at once.
const STRIPS: usize = 2;
/// Rows of these.
const RUN: usize = STRIPS * ROWS;
/// Tokens whose sums are in registers at once.
const TILE: usize = 4;
/// Units of a section.
const SECTION: usize = 14;
/// Registers of the sums of a run of rows, 16 to each.
const REGS: usize = 2 * STRIPS;
/// Activations of a block for a tile, four to each.
const FOURS: usize = QUAD * TILE;
/// Bytes of the words of a quad: two registers for each strip.
const WORDS: usize = 2 * STRIPS * REG;
/// Bytes of a multiplied block: that of each strip as it is.
const CODES: usize = STRIPS * BLOCK;
/// Bytes of weights of a section that stay in the second-level cache.
const CHUNK: usize = 384 << 10;

/// Some units.
#[derive(Clone)]
struct Section {
    units: Range<usize>,
    /// Where its weights begin.
    at: usize,
    /// Bytes of its weights for one run of rows.
    bytes: usize,
}

/// What a call needs; kept so that calls do not allocate. `DOTS`: whether to multiply too.
#[derive(Default)]
pub(super) struct Words<const DOTS: bool> {
    sections: Vec<Section>,
    /// Blocks that are looked up, a multiple of three; they come first.
    looked_up: usize,
    /// `[section][run of rows][unit][words, codes]`, then the codes of the section's rest.
    weights: Array<u8>,
    /// Runs of rows.
    runs: usize,
    /// Activations of the looked-up columns, `[token][quad][triple]`, each as [`triples::triples`] gives it.
    triples: Array<i32>,
    /// Activations of the multiplied columns, `[tile][block][plane][token]`, four to an `i32`.
    fours: Array<i32>,
    /// `[tile][unit of the section][triple][token]`.
    tables: Array<u8>,
    /// What sums start from, by token: codes are 1 greater than weights.
    start: [i32; TOKENS],
    /// `[tile][run of rows][token][row]`.
    sums: Array<i32>,
}

/// Tokens that share a pass over the weights.
pub(super) const TOKENS: usize = 32;
/// Tiles of these.
const TILES: usize = TOKENS / TILE;
/// Bytes of the tables of a unit.
const TABLES: usize = QUAD * TILE * REG;

impl<const DOTS: bool> Words<DOTS> {
    /// Bytes of a unit.
    const UNIT: usize = WORDS + if DOTS { CODES } else { 0 };

    /// Quads.
    fn quads(&self) -> usize {
        self.looked_up / 3 * 4
    }

    /// Makes room for so many rows and columns.
    pub(super) fn resize(&mut self, rows: usize, cols: usize) {
        let blocks = cols.div_ceil(GROUP) * BLOCKS;
        self.looked_up = 3 * blocks.div_ceil(if DOTS { 7 } else { 3 });
        self.runs = rows.div_ceil(RUN);
        let quads = self.quads();
        let count = quads.div_ceil(SECTION);
        self.sections.clear();
        let mut at = 0;
        for i in 0..count {
            let units = i * quads / count..(i + 1) * quads / count;
            let bytes = units.len() * Self::UNIT;
            self.sections.push(Section { units, at, bytes });
            at += self.runs * bytes;
        }
        self.weights.first(at);
        self.tables.first(TILES * SECTION * TABLES);
        self.triples.first(TOKENS * quads * QUAD);
        self.fours.first(if DOTS { TOKENS * quads * QUAD } else { 0 });
        self.sums.first(self.runs * TOKENS * RUN);
    }

    /// Takes strip number `at` of the rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn decode(&mut self, at: usize, strip: &[u8]) {
        for s in 0..self.sections.len() {
            self.decode_section(s, at, strip, false);
        }
    }

    /// Takes section `s` of strip number `at` of the rows; `ask` says whether to ask for that of the next run.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn decode_section(&mut self, s: usize, at: usize, strip: &[u8], ask: bool) {
        let (run, half) = (at / STRIPS, at % STRIPS);
        let halves = strip.as_chunks::<REG>().0;
        let looked_up = self.looked_up;
        let blocks = strip.as_chunks::<BLOCK>().0;
        let behind = strip.as_ptr().wrapping_add(STRIPS * strip.len()).cast::<[u8; BLOCK]>();
        let section = &self.sections[s];
        let units = &mut self.weights[section.at + run * section.bytes..][..section.bytes];
        for (i, unit) in section.units.clone().zip(units.chunks_exact_mut(Self::UNIT)) {
            if ask && i % 4 < 3 {
                prefetch_block(behind.wrapping_add(i / 4 * 3 + i % 4));
            }
            // The four entry numbers of a row are 32 bits; a register takes two of them of all rows.
            let words = triples::transpose([entries(halves, i, 0), entries(halves, i, 1)]);
            for (pair, words) in words.into_iter().enumerate() {
                let out = unit[(pair * STRIPS + half) * REG..].first_chunk_mut().expect("inside the unit");
                triples::store(out, words);
            }
            if DOTS {
                if ask {
                    prefetch_block(behind.wrapping_add(looked_up + i));
                }
                let codes = &mut unit[WORDS + half * BLOCK..][..BLOCK];
                match blocks.get(looked_up + i) {
                    Some(block) => codes.copy_from_slice(block),
                    // Codes of zero add nothing.
                    None => codes.fill(0),
                }
            }
        }
    }

    /// Takes the activations of token `t`: whole groups, zeros behind the last column. Planes of the strips start at
    /// these columns of a group, lowest bits first: ascending or descending.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn set_token(&mut self, t: usize, x: &[i8], planes: [usize; 4]) {
        // The four columns of a plane of a block; none behind the last column.
        let x = x.as_chunks::<QUAD>().0;
        let four = |block: usize, p: usize| -> [i8; QUAD] {
            let at = block / BLOCKS * (GROUP / QUAD) + block % BLOCKS + planes[p] / QUAD;
            x.get(at).copied().unwrap_or_default()
        };
        let quads = self.quads();
        let out = self.triples[t * quads * QUAD..][..quads * QUAD].as_chunks_mut::<{ 4 * QUAD }>().0;
        for (i, out) in out.iter_mut().enumerate() {
            out.copy_from_slice(triples::triples(|b, p| four(3 * i + b, p)).as_flattened());
        }
        // Of each byte, 128 added.
        let mut sum = _mm_setzero_si128();
        let tile = self.fours.as_chunks_mut::<FOURS>().0.iter_mut().skip(t / TILE * quads).take(quads);
        let blocks = tile.len();
        for (i, out) in tile.enumerate() {
            let x: [_; QUAD] =
                std::array::from_fn(|p| i32::from_le_bytes(four(self.looked_up + i, p).map(|x| x as u8)));
            for (p, x) in x.into_iter().enumerate() {
                out[p * TILE + t % TILE] = x;
            }
            let x = _mm_xor_si128(_mm_setr_epi32(x[0], x[1], x[2], x[3]), _mm_set1_epi8(-128));
            sum = _mm_add_epi64(sum, _mm_sad_epu8(x, _mm_setzero_si128()));
        }
        let sum = _mm_cvtsi128_si64(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
        self.start[t] = (blocks * 4 * QUAD * 128) as i32 - sum as i32;
    }

    /// Hands out the sums of the first `tokens` tokens in runs of consecutive rows: token, first row, sums. Runs may
    /// reach behind the last row.
    pub(super) fn each_sum(&self, tokens: usize, mut f: impl FnMut(usize, usize, &[i32])) {
        for (i, sums) in
            self.sums.chunks_exact(RUN).take(tokens.div_ceil(TILE) * TILE * self.runs).enumerate()
        {
            let (tile, run, t) = (i / TILE / self.runs, i / TILE % self.runs, i % TILE);
            if tile * TILE + t < tokens {
                f(tile * TILE + t, run * RUN, sums);
            }
        }
    }

    /// Multiplies the first `tokens` tokens by the rows. A tile in part costs as much as a whole one, and less than
    /// making strips for a few tokens. Strips that were not taken yet are `strips`, so many bytes each: they are when
    /// they are needed, part by part.
    ///
    /// # Safety
    /// The CPU must have VNNI too if `DOTS`.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn multiply(&mut self, tokens: usize, strips: &[u8], bytes: usize) {
        let tiles = tokens.div_ceil(TILE);
        for s in 0..self.sections.len() {
            let section = self.sections[s].clone();
            self.tabulate(&section, tiles);
            let chunk = (CHUNK / section.bytes.max(1)).max(1);
            for first in (0..self.runs).step_by(chunk) {
                for tile in 0..tiles {
                    for run in first..self.runs.min(first + chunk) {
                        if tile == 0 {
                            let of_run = strips.chunks_exact(bytes).enumerate().skip(run * STRIPS);
                            for (at, strip) in of_run.take(STRIPS) {
                                self.decode_section(s, at, strip, true);
                            }
                        }
                        if DOTS {
                            // SAFETY: the caller vouches for the tier.
                            unsafe { self.add_with_dots(&section, run, tile) };
                        } else {
                            self.add(&section, run, tile);
                        }
                    }
                }
            }
        }
    }

    /// Fills the tables of a section for some tiles.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn tabulate(&mut self, section: &Section, tiles: usize) {
        let digits = triples::digits();
        let quads = self.quads();
        let units = section.units.len();
        for t in 0..tiles * TILE {
            let x = &self.triples[(t * quads + section.units.start) * QUAD..][..units * QUAD];
            let tables = &mut self.tables[t / TILE * SECTION * TABLES..][..units * TABLES];
            for (x, tables) in x.iter().zip(tables.as_chunks_mut::<{ TILE * REG }>().0) {
                let table = tables[t % TILE * REG..].first_chunk_mut().expect("one for each token");
                triples::store(table, triples::table_of(*x, &digits));
            }
        }
    }

    /// Adds the sums of a section to those of a run of rows for a tile of tokens, by lookup alone.
    // A function of its own, so that its machine code can be checked.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add(&mut self, section: &Section, run: usize, tile: usize) {
        let Parts { units, tables, sums, .. } = self.parts(section, run, tile);
        let mut narrow = [[_mm512_setzero_si512(); STRIPS]; TILE];
        for (unit, tables) in units.chunks_exact(Self::UNIT).zip(tables.chunks_exact(TABLES)) {
            for c in 0..QUAD {
                // SAFETY: a unit's words and tables are whole registers, as many as are counted here.
                unsafe {
                    let index: [_; STRIPS] = std::array::from_fn(|s| {
                        let words = _mm512_loadu_si512(unit.as_ptr().add((c / 2 * STRIPS + s) * REG).cast());
                        // The upper bits of an index do not count.
                        if c % 2 == 0 { words } else { _mm512_srli_epi16::<8>(words) }
                    });
                    for t in 0..TILE {
                        let table = _mm512_loadu_si512(tables.as_ptr().add((c * TILE + t) * REG).cast());
                        for s in 0..STRIPS {
                            let sum = _mm512_permutexvar_epi16(index[s], table);
                            narrow[t][s] = _mm512_add_epi16(narrow[t][s], sum);
                        }
                    }
                }
            }
        }
        add_to(sums, &narrow, &[[_mm512_setzero_si512(); REGS]; TILE]);
    }

    /// As [`add`](Self::add), by lookup and multiplying.
    ///
    /// Codes are multiplied where they stand in their bytes, the highest plane first; after each plane
    /// the sums, which it made 4 times too large, are divided. So nothing is shifted in the loop. The
    /// largest sum is below 14 units · 4 columns · 128 · 2 · (64 + 16 + 4 + 1) < 2^21.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add_with_dots(&mut self, section: &Section, run: usize, tile: usize) {
        let Parts { units, tables, fours, sums } = self.parts(section, run, tile);
        let mut narrow = [[_mm512_setzero_si512(); STRIPS]; TILE];
        let mut wide = [[_mm512_setzero_si512(); REGS]; TILE];
        for c in (0..QUAD).rev() {
            let mask: u32 = 0x0303_0303 << (2 * c);
            // Words hold two entry numbers, and the upper bits of an index do not count: from the second
            // byte on, a register of words begins with the second ones.
            let words = c / 2 * STRIPS * REG + c % 2;
            let units = units.chunks_exact(Self::UNIT);
            let tables = tables.as_chunks::<TABLES>().0;
            let fours = fours.as_chunks::<FOURS>().0;
            for ((unit, tables), x) in units.zip(tables).zip(fours) {
                // The weights of the next run of rows, and those of the run after it, which the first tile
                // is the first to read, from memory or a cache further away.
                if c % 2 == 1 {
                    let next = unit.as_ptr().wrapping_add(section.bytes + c / 2 * WORDS);
                    (0..WORDS).step_by(REG).for_each(|line| prefetch(next.wrapping_add(line)));
                } else if c == 2 && tile == 0 {
                    let after = unit.as_ptr().wrapping_add(2 * section.bytes);
                    (0..Self::UNIT).step_by(REG).for_each(|line| prefetch_l2(after.wrapping_add(line)));
                }
                // SAFETY: a unit is the words and then the codes, four registers each; two registers from
                // the words of this triple on reach at most a byte into the codes. Tables and activations of a
                // triple are those of a tile.
                unsafe {
                    quarter_unit(
                        unit.as_ptr().add(words),
                        unit.as_ptr().add(WORDS),
                        &mask,
                        tables.as_ptr().add(c * TILE * REG),
                        x.as_ptr().add(c * TILE),
                        &mut narrow,
                        &mut wide,
                    );
                }
            }
            if c > 0 {
                for v in wide.as_flattened_mut() {
                    *v = _mm512_srai_epi32::<2>(*v);
                }
            }
        }
        add_to(sums, &narrow, &wide);
    }

    /// What the sums of a section, a run of rows and a tile are made of.
    fn parts(&mut self, section: &Section, run: usize, tile: usize) -> Parts<'_> {
        let count = section.units.len();
        let fours = if DOTS {
            &self.fours[(tile * self.quads() + section.units.start) * FOURS..][..count * FOURS]
        } else {
            &[]
        };
        let sums = &mut self.sums[(tile * self.runs + run) * TILE * RUN..];
        let sums = sums.as_chunks_mut().0.first_chunk_mut().expect("a tile");
        if section.units.start == 0 {
            for (sums, start) in sums.as_chunks_mut::<REGS>().0.iter_mut().zip(&self.start[tile * TILE..]) {
                sums.as_flattened_mut().fill(*start);
            }
        }
        Parts {
            units: &self.weights[section.at + run * section.bytes..][..section.bytes],
            tables: &self.tables[tile * SECTION * TABLES..][..count * TABLES],
            fours,
            sums,
        }
    }
}

/// Asks for a block of a strip.
#[inline]
fn prefetch_block(at: *const [u8; BLOCK]) {
    (0..BLOCK).step_by(REG).for_each(|line| prefetch_l2(at.cast::<u8>().wrapping_add(line)));
}

/// Half a block (16 rows) of a strip; weights behind the last column are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn half(halves: &[[u8; REG]], block: usize, h: usize) -> __m512i {
    match halves.get(2 * block + h) {
        Some(bytes) => triples::load(bytes),
        None => _mm512_set1_epi8(0x55),
    }
}

/// The entry numbers of half a strip for quad `i`, a byte for each row and triple.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn entries(halves: &[[u8; REG]], i: usize, h: usize) -> __m512i {
    let block = i / 4 * 3;
    let [a, b, d] = match i % 4 {
        3 => [
            _mm512_srli_epi16::<6>(half(halves, block, h)),
            _mm512_srli_epi16::<6>(half(halves, block + 1, h)),
            _mm512_srli_epi16::<6>(half(halves, block + 2, h)),
        ],
        n => {
            let bytes = half(halves, block + n, h);
            [bytes, _mm512_srli_epi16::<2>(bytes), _mm512_srli_epi16::<4>(bytes)]
        }
    };
    let code = |bytes| _mm512_and_si512(bytes, _mm512_set1_epi8(3));
    let (a, b, d) = (code(a), code(b), code(d));
    let b = _mm512_add_epi8(b, _mm512_slli_epi16::<1>(b));
    let d = _mm512_add_epi8(d, _mm512_slli_epi16::<3>(d));
    _mm512_add_epi8(a, _mm512_add_epi8(b, d))
}

/// See [`Words::parts`].
struct Parts<'a> {
    units: &'a [u8],
    tables: &'a [u8],
    fours: &'a [i32],
    /// Of each token, in registers of 16 rows.
    sums: &'a mut [[i32; 16]; TILE * REGS],
}

/// Adds the sums of a tile to `sums`: 16-bit words, of which the even ones are the rows of a strip's
/// first half and the odd ones those of the second, and 32-bit ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_to(
    sums: &mut [[i32; 16]; TILE * REGS],
    narrow: &[[__m512i; STRIPS]; TILE],
    wide: &[[__m512i; REGS]; TILE],
) {
    for t in 0..TILE {
        for v in 0..REGS {
            let words = narrow[t][v / 2];
            let words = if v % 2 == 0 { _mm512_slli_epi32::<16>(words) } else { words };
            let sum = _mm512_add_epi32(wide[t][v], _mm512_srai_epi32::<16>(words));
            let at = &mut sums[t * REGS + v];
            // SAFETY: the array is the 64 bytes of a register.
            unsafe {
                let sum = _mm512_add_epi32(_mm512_loadu_si512(at.as_ptr().cast()), sum);
                _mm512_storeu_si512(at.as_mut_ptr().cast(), sum);
            }
        }
    }
}

/// Adds a triple and a plane of a unit to the sums of a tile. In assembly, because the sums and their
/// operands take all 32 registers, and the order of the instructions is what feeds all pipes.
///
/// # Safety
/// The CPU must have AVX-512 with BW and VNNI; `words` must be valid for two registers, `codes` and
/// `tables` for four, and `x` for four `i32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn quarter_unit(
    words: *const u8,
    codes: *const u8,
    mask: &u32,
    tables: *const u8,
    x: *const i32,
    narrow: &mut [[__m512i; STRIPS]; TILE],
    wide: &mut [[__m512i; REGS]; TILE],
) {
    // A token: its number, its sums, and the number of the next one, whose table is loaded.
    macro_rules! token {
        ($t:literal, $n0:literal, $n1:literal, $w0:literal, $w1:literal, $w2:literal, $w3:literal $(, $next:literal)?) => {
            concat!(
                "vpermw {b}, {i0}, {a}\n",
                "vpaddw {",
                $n0,
                "}, {",
                $n0,
                "}, {b}\n",
                "vpbroadcastd {b}, [{x} + 4*",
                $t,
                "]\n",
                "vpdpbusd {",
                $w0,
                "}, {c0}, {b}\n",
                "vpdpbusd {",
                $w1,
                "}, {c1}, {b}\n",
                "vpermw {a}, {i1}, {a}\n",
                "vpaddw {",
                $n1,
                "}, {",
                $n1,
                "}, {a}\n",
                "vpdpbusd {",
                $w2,
                "}, {c2}, {b}\n",
                $("vmovdqu64 {a}, [{tables} + 64*", $next, "]\n",)?
                "vpdpbusd {",
                $w3,
                "}, {c3}, {b}\n",
            )
        };
    }
    let [[n00, n01], [n10, n11], [n20, n21], [n30, n31]] = narrow;
    let [[w00, w01, w02, w03], [w10, w11, w12, w13], [w20, w21, w22, w23], [w30, w31, w32, w33]] = wide;
    // SAFETY: instructions and pointers are the caller's promise; the code only reads what they point
    // to, and changes no register but those named.
    unsafe {
        std::arch::asm!(
            "vmovdqu64 {i0}, [{words}]",
            "vmovdqu64 {i1}, [{words} + 64]",
            "vpbroadcastd {b}, [{mask}]",
            "vpandd {c0}, {b}, [{codes}]",
            "vpandd {c1}, {b}, [{codes} + 64]",
            "vpandd {c2}, {b}, [{codes} + 128]",
            "vpandd {c3}, {b}, [{codes} + 192]",
            "vmovdqu64 {a}, [{tables}]",
            token!(0, "n00", "n01", "w00", "w01", "w02", "w03", 1),
            token!(1, "n10", "n11", "w10", "w11", "w12", "w13", 2),
            token!(2, "n20", "n21", "w20", "w21", "w22", "w23", 3),
            token!(3, "n30", "n31", "w30", "w31", "w32", "w33"),
            words = in(reg) words,
            codes = in(reg) codes,
            mask = in(reg) mask,
            tables = in(reg) tables,
            x = in(reg) x,
            i0 = out(zmm_reg) _,
            i1 = out(zmm_reg) _,
            c0 = out(zmm_reg) _,
            c1 = out(zmm_reg) _,
            c2 = out(zmm_reg) _,
            c3 = out(zmm_reg) _,
            a = out(zmm_reg) _,
            b = out(zmm_reg) _,
            n00 = inout(zmm_reg) *n00,
            n01 = inout(zmm_reg) *n01,
            n10 = inout(zmm_reg) *n10,
            n11 = inout(zmm_reg) *n11,
            n20 = inout(zmm_reg) *n20,
            n21 = inout(zmm_reg) *n21,
            n30 = inout(zmm_reg) *n30,
            n31 = inout(zmm_reg) *n31,
            w00 = inout(zmm_reg) *w00,
            w01 = inout(zmm_reg) *w01,
            w02 = inout(zmm_reg) *w02,
            w03 = inout(zmm_reg) *w03,
            w10 = inout(zmm_reg) *w10,
            w11 = inout(zmm_reg) *w11,
            w12 = inout(zmm_reg) *w12,
            w13 = inout(zmm_reg) *w13,
            w20 = inout(zmm_reg) *w20,
            w21 = inout(zmm_reg) *w21,
            w22 = inout(zmm_reg) *w22,
            w23 = inout(zmm_reg) *w23,
            w30 = inout(zmm_reg) *w30,
            w31 = inout(zmm_reg) *w31,
            w32 = inout(zmm_reg) *w32,
            w33 = inout(zmm_reg) *w33,
            options(nostack, readonly, preserves_flags),
        );
    }
}
