//! Many tokens by table lookup on AVX-512: faster than multiplying.
//!
//! The weights of a row at three columns are one of 27 combinations. So for each token and triple of
//! columns the 27 possible sums are put into a register's worth of 16-bit entries, and `vpermw` looks
//! the sums of 32 rows up at once. A lookup and an addition are two instructions for 96
//! multiply-adds, and unlike multiplications they can use all four vector pipes.
//!
//! ```text
//! triple     columns k, k+32, k+64 with k = 96i + 4j + c; entry a + 3b + 9d for codes a, b, d
//! word       16 bits of a row: three entry numbers of 5 bits, for triples of the same c
//! pack       4 words (c = 0..4), 12 triples: three consecutive (i, j)
//! block      6 packs, 72 triples: the tables of 8 tokens (37 KB) stay in the first-level cache
//! ```
//!
//! A sum of three products is at most 3 · 128 = 384, so 72 of them, at most 27648, fit 16 bits; after
//! each block they are added to 32-bit sums. Weights are turned into words once a call
//! ([`Lookup::decode`]), in the order in which [`Lookup::multiply`] reads them.

// Indices name registers and places in tables.
#![allow(clippy::needless_range_loop)]

use super::lookup::Lookup;
use crate::buffer::Buffer;
use crate::layout::tm2::{GROUP_BYTES, ROWS};
use std::arch::x86_64::*;

/// Tokens whose sums are in registers at once.
const TOKENS: usize = 8;
/// Strips whose sums are in registers at once.
const STRIPS: usize = 2;
/// Bytes of a word of the rows of a strip.
const WORD: usize = 2 * ROWS;
/// Triples of a pack, and words.
const PACK: usize = 12;
const PACK_WORDS: usize = 4;
/// Packs of a block.
const BLOCK: usize = 6;
/// Bytes of a table.
const TABLE: usize = 64;

/// What a call needs; kept so that calls do not allocate.
pub(super) struct Words {
    /// `[block][pair of strips][word][strip of the pair][row]` 16-bit words.
    words: Buffer,
    /// Pairs of strips.
    pairs: usize,
    /// Packs of a row.
    packs: usize,
    /// Activations of the tokens, `[token][width]`, zeros behind the last column.
    x: Vec<i16>,
    width: usize,
    /// `[triple of the block][token]`.
    tables: Buffer,
    /// `[pair of strips][token][row of the pair]`.
    sums: Vec<i32>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            words: Buffer::new(0),
            pairs: 0,
            packs: 0,
            x: Vec::new(),
            width: 0,
            tables: Buffer::new(BLOCK * PACK * TOKENS * TABLE),
            sums: Vec::new(),
        }
    }
}

impl Lookup for Words {
    const TOKENS: usize = TOKENS;

    fn resize(&mut self, rows: usize, cols: usize) {
        self.pairs = rows.div_ceil(STRIPS * ROWS);
        let triples = cols.div_ceil(96) * 32;
        self.packs = triples.div_ceil(PACK);
        let bytes = self.packs.div_ceil(BLOCK) * BLOCK * PACK_WORDS * self.pairs * STRIPS * WORD;
        if bytes > self.words.len() {
            self.words = Buffer::new(bytes);
        }
        // The last pack may reach into the next 96 columns.
        self.width = (cols.div_ceil(96) + 1) * 96;
        self.x.clear();
        self.x.resize(TOKENS * self.width, 0);
        self.sums.resize(TOKENS * self.pairs * STRIPS * ROWS, 0);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn decode(&mut self, at: usize, strip: &[u8], planes: [usize; 4]) {
        let even: [i16; 32] = std::array::from_fn(|i| 2 * i as i16);
        // SAFETY: the array is the 64 bytes of a register.
        let even = unsafe { _mm512_loadu_si512(even.as_ptr().cast()) };
        let odd = _mm512_or_si512(even, _mm512_set1_epi16(1));
        let low = _mm512_set1_epi16(0xff);
        for pack in 0..self.packs {
            // Of 16 rows each: words of c = 0, 2 and of c = 1, 3, side by side.
            let mut words = [[_mm512_setzero_si512(); 2]; 2];
            for half in 0..2 {
                for q in (0..3).rev() {
                    let e = entries(strip, 3 * pack + q, half, planes);
                    for (word, e) in
                        words[half].iter_mut().zip([_mm512_and_si512(e, low), _mm512_srli_epi16::<8>(e)])
                    {
                        *word = _mm512_or_si512(_mm512_slli_epi16::<5>(*word), e);
                    }
                }
            }
            let word = ((pack / BLOCK * self.pairs + at / STRIPS) * BLOCK + pack % BLOCK) * PACK_WORDS;
            for c in 0..PACK_WORDS {
                let lanes = if c < 2 { even } else { odd };
                let rows = _mm512_permutex2var_epi16(words[0][c % 2], lanes, words[1][c % 2]);
                let place = ((word + c) * STRIPS + at % STRIPS) * WORD;
                let out = &mut self.words.bytes_mut()[place..][..WORD];
                // SAFETY: the slice is the 64 bytes of a register.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), rows) };
            }
        }
    }

    fn set_token(&mut self, t: usize, x: &[i8]) {
        let len = x.len().min(self.width);
        for (out, &x) in self.x[t * self.width..][..len].iter_mut().zip(x) {
            *out = i16::from(x);
        }
    }

    unsafe fn each_sum(&self, mut f: impl FnMut(usize, usize, &[i32])) {
        for (i, run) in self.sums.chunks_exact(STRIPS * ROWS).enumerate() {
            f(i % TOKENS, i / TOKENS * STRIPS * ROWS, run);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn multiply(&mut self, _planes: [usize; 4]) {
        self.sums.fill(0);
        for (block, first) in (0..self.packs).step_by(BLOCK).enumerate() {
            let packs = BLOCK.min(self.packs - first);
            self.tabulate(first, packs);
            for pair in 0..self.pairs {
                self.look_up(block, packs, pair);
            }
        }
    }
}

/// Entry numbers a + 3b + 9d of triple `n` = (i, j), for 16 rows and four c.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn entries(strip: &[u8], n: usize, half: usize, planes: [usize; 4]) -> __m512i {
    let (i, j) = (n / 8, n % 8);
    let a = codes(strip, 3 * i, j, half, planes);
    let b = codes(strip, 3 * i + 1, j, half, planes);
    let d = codes(strip, 3 * i + 2, j, half, planes);
    let b = _mm512_add_epi8(b, _mm512_slli_epi16::<1>(b));
    let d = _mm512_add_epi8(d, _mm512_slli_epi16::<3>(d));
    _mm512_add_epi8(a, _mm512_add_epi8(b, d))
}

/// Codes of 16 rows and four c, in plane `s` of block `j`; behind the last plane stand zero weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes(strip: &[u8], s: usize, j: usize, half: usize, planes: [usize; 4]) -> __m512i {
    let at = s / 4 * GROUP_BYTES + j * 4 * ROWS + 64 * half;
    let Some(bytes) = strip.get(at..).and_then(|s| s.first_chunk::<64>()) else {
        return _mm512_set1_epi8(1);
    };
    let shift = planes[s % 4] / 32 * 2;
    // SAFETY: the array is the 64 bytes of a register.
    let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    let shifted = _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
    _mm512_and_si512(shifted, _mm512_set1_epi8(3))
}

impl Words {
    /// Fills the tables of some packs.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn tabulate(&mut self, first: usize, packs: usize) {
        // Weights that an entry stands for.
        const DIGITS: [[i16; 32]; 3] = {
            let mut digits = [[0; 32]; 3];
            let mut entry = 0;
            while entry < 27 {
                digits[0][entry] = (entry % 3) as i16 - 1;
                digits[1][entry] = (entry / 3 % 3) as i16 - 1;
                digits[2][entry] = (entry / 9) as i16 - 1;
                entry += 1;
            }
            digits
        };
        // SAFETY: an array of 32 `i16` is the 64 bytes of a register.
        let digits = DIGITS.map(|d| unsafe { _mm512_loadu_si512(d.as_ptr().cast()) });
        let tables = self.tables.bytes_mut();
        for pack in 0..packs {
            for q in 0..3 {
                let n = 3 * (first + pack) + q;
                let k = n / 8 * 96 + n % 8 * 4;
                for t in 0..TOKENS {
                    let x: &[i16; 68] = self.x[t * self.width + k..].first_chunk().expect("width has room");
                    for c in 0..PACK_WORDS {
                        let place = ((pack * PACK_WORDS + c) * 3 + q) * TOKENS + t;
                        let table = &mut tables[place * TABLE..][..TABLE];
                        let product =
                            |i: usize| _mm512_mullo_epi16(digits[i], _mm512_set1_epi16(x[32 * i + c]));
                        let sums = _mm512_add_epi16(_mm512_add_epi16(product(0), product(1)), product(2));
                        // SAFETY: the slice is the 64 bytes of a register.
                        unsafe { _mm512_storeu_si512(table.as_mut_ptr().cast(), sums) };
                    }
                }
            }
        }
    }

    /// Adds the looked-up sums of a block to those of a pair of strips.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn look_up(&mut self, block: usize, packs: usize, pair: usize) {
        let words = packs * PACK_WORDS;
        let at = (block * self.pairs + pair) * BLOCK * PACK_WORDS * STRIPS * WORD;
        let indices = &self.words.bytes()[at..][..words * STRIPS * WORD];
        let tables = &self.tables.bytes()[..words * 3 * TOKENS * TABLE];
        let mut acc = [[_mm512_setzero_si512(); STRIPS]; TOKENS];
        let (indices, tables) = (indices.as_ptr(), tables.as_ptr());
        for word in 0..words {
            // SAFETY: both slices are as long as the loops run, see above.
            unsafe {
                let index = indices.add(word * STRIPS * WORD);
                let mut index: [_; STRIPS] =
                    std::array::from_fn(|s| _mm512_loadu_si512(index.add(s * WORD).cast()));
                for q in 0..3 {
                    for t in 0..TOKENS {
                        let table =
                            _mm512_loadu_si512(tables.add(((word * 3 + q) * TOKENS + t) * TABLE).cast());
                        for s in 0..STRIPS {
                            // The upper bits of an index do not count.
                            acc[t][s] =
                                _mm512_add_epi16(acc[t][s], _mm512_permutexvar_epi16(index[s], table));
                        }
                    }
                    index = index.map(|i| _mm512_srli_epi16::<5>(i));
                }
            }
        }
        for t in 0..TOKENS {
            let sums = &mut self.sums[(pair * TOKENS + t) * STRIPS * ROWS..][..STRIPS * ROWS];
            for s in 0..STRIPS {
                let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(acc[t][s]));
                let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(acc[t][s]));
                for (half, wide) in [low, high].into_iter().enumerate() {
                    let sums: &mut [i32; 16] =
                        sums[s * ROWS + half * 16..].first_chunk_mut().expect("in range");
                    // SAFETY: the array is the 64 bytes of a register.
                    unsafe {
                        let old = _mm512_loadu_si512(sums.as_ptr().cast());
                        _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi32(old, wide));
                    }
                }
            }
        }
    }
}
