//! `tm1_67`: three weights in five bits, rows interleaved; made for decoding, where the bytes read from
//! memory decide, and for kernels that look the sums of three products up.
//!
//! ```text
//! Columns are cut in groups of three blocks of tm2, so 48 columns: block b (0 to 2) of group g has, with
//! B = 3g + b, the columns k = 128·(B / 8) + 4·(B mod 8) + 32p + c  (plane p and c, each 0 to 3).
//! Rows are padded to a multiple of 32, columns to whole groups, with zero weights.
//!
//! triple 4b + c     planes 0, 1, 2 of block b, for each c
//! triple 12 + c     plane 3 of blocks 0, 1, 2, for each c
//! code              q + 3·q' + 9·q''                                    (q = trit + 1; 0 to 26)
//!
//! A group of one row is five 16-bit words, little-endian; word w holds
//!
//! bits    15              14..10        9..5          4..0
//! code    bit w of 15     3w + 2        3w + 1        3w                (triple numbers)
//!
//! A strip is 32 rows. Word w of its rows is 64 bytes: row i (0 to 15) at 4i, row 16 + i at 4i + 2.
//! Sections of five groups (240 columns; what is left in the last) come one after the other, in each
//! strip after strip, in that group after group, in that word after word.
//! ```
//!
//! Five bits are an index of `vpermw`, which does not look at the bits above them. A table of sums has
//! 27 entries of 16 bits, one register, and those of a section stay in the first-level cache while all
//! strips pass: that is why columns are cut first. 80 bits hold 48 weights: 1.667 bits a weight.

use super::tm2::{self, ROWS};
use super::{Layout, ScaleForm, ShapeError, UnpackError, check_len, elements};
use crate::Trits;
use crate::sealed::Sealed;
use std::ops::Range;

/// The [`tm1_67`](self) layout.
pub static TM1_67: Tm1_67 = Tm1_67;

/// The type of [`TM1_67`].
#[derive(Debug)]
pub struct Tm1_67;

/// Blocks of [`tm2`](super::TM2) in a group.
pub(crate) const BLOCKS: usize = 3;
/// Columns that the planes of a block have each.
pub(crate) const QUAD: usize = 4;
/// Triples in a group.
pub(crate) const TRIPLES: usize = 16;
/// Words of a row in a group.
pub(crate) const WORDS: usize = 5;
/// Bytes of a word of a strip.
pub(crate) const WORD_BYTES: usize = 2 * ROWS;
/// Bytes of a group of a strip.
pub(crate) const GROUP_BYTES: usize = WORDS * WORD_BYTES;
/// Groups in a section: as many as 16-bit sums bear, 80 triples · 3 · 128 = 30720.
pub(crate) const SECTION: usize = 5;

/// Blocks of [`tm2`](super::TM2) in so many columns.
fn blocks(cols: usize) -> usize {
    cols.div_ceil(tm2::GROUP) * (tm2::GROUP / 16)
}

/// Groups in so many columns.
pub(crate) fn groups(cols: usize) -> usize {
    blocks(cols).div_ceil(BLOCKS)
}

/// The groups of each section of so many columns.
pub(crate) fn sections(cols: usize) -> impl Iterator<Item = Range<usize>> {
    let groups = groups(cols);
    (0..groups).step_by(SECTION).map(move |first| first..groups.min(first + SECTION))
}

/// First column of plane `p` of block `block`.
pub(crate) fn column(block: usize, p: usize) -> usize {
    block / 8 * tm2::GROUP + block % 8 * QUAD + p * 32
}

/// Where the groups of a section lie in strip `strip` of `strips`.
pub(crate) fn place(groups: &Range<usize>, strip: usize, strips: usize) -> Range<usize> {
    let at = (groups.start * strips + strip * groups.len()) * GROUP_BYTES;
    at..at + groups.len() * GROUP_BYTES
}

/// Where row `r` of a strip has its half of a word.
fn lane(r: usize) -> usize {
    2 * (r % 16) + r / 16
}

/// The codes of a group of one row.
fn codes_of(words: [u16; WORDS]) -> [u8; TRIPLES] {
    let mut codes = [0; TRIPLES];
    for (w, word) in words.into_iter().enumerate() {
        for i in 0..3 {
            codes[3 * w + i] = (word >> (5 * i) & 31) as u8;
        }
        codes[TRIPLES - 1] |= ((word >> 15) as u8) << w;
    }
    codes
}

/// Of a row's 128 columns: for each column of a plane the code of its triple of planes 0, 1 and 2, and the
/// code of plane 3.
fn codes_of_planes(trits: &[i8; tm2::GROUP], low: &mut [u8; 32], top: &mut [u8; 32]) {
    let [a, b, c, d] = *trits.as_chunks::<32>().0 else { unreachable!("four planes") };
    for i in 0..32 {
        low[i] = (13 + a[i] + 3 * b[i] + 9 * c[i]) as u8;
        top[i] = (1 + d[i]) as u8;
    }
}

/// The planes of a triple: block of the group and plane.
pub(crate) fn planes_of(triple: usize) -> [(usize, usize); 3] {
    match triple / QUAD {
        BLOCKS => [0, 1, 2].map(|b| (b, 3)),
        b => [0, 1, 2].map(|p| (b, p)),
    }
}

/// Bytes of a section of a strip as [`tm2`](super::TM2).
pub(crate) const SECTION_TM2: usize = SECTION * BLOCKS * QUAD * ROWS;

/// The codes of the three weights of a triple by its code; of several at once, in the parts of the word in
/// whose lowest bits `ones` has ones.
#[inline(always)]
fn digits(code: u32, ones: u32) -> [u32; 3] {
    // Whether the numbers, below 32, are at least `least`.
    let at_least = |of: u32, least: u32| ((of + (32 - least) * ones) >> 5) & ones;
    let nines = at_least(code, 9) + at_least(code, 18);
    let rest = code - 9 * nines;
    let threes = at_least(rest, 3) + at_least(rest, 6);
    [rest - 3 * threes, threes, nines]
}

impl Sealed for Tm1_67 {}

impl Layout for Tm1_67 {
    fn name(&self) -> &'static str {
        "tm1_67"
    }

    fn scale_form(&self) -> ScaleForm {
        ScaleForm::Beside
    }

    fn packed_len(&self, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        elements(self.name(), rows, cols)?;
        // Padding adds at most 31 rows and 127 columns to whole blocks; whole groups have fewer bytes than
        // weights still.
        elements(self.name(), rows.next_multiple_of(ROWS), cols.next_multiple_of(tm2::GROUP))?;
        Ok(rows.div_ceil(ROWS) * groups(cols) * GROUP_BYTES)
    }

    fn pack(&self, trits: &Trits, _scale: f32, out: &mut [u8]) -> Result<(), ShapeError> {
        let (rows, cols) = (trits.rows(), trits.cols());
        assert_eq!(out.len(), self.packed_len(rows, cols)?);
        let strips = rows.div_ceil(ROWS);
        // Of a row the codes of the triples of planes 0, 1 and 2, and the codes of plane 3, block after block
        // to the end of the last group; behind it what loads of 16 bytes may touch.
        let len = groups(cols) * BLOCKS * QUAD;
        let (mut low, mut top) =
            (vec![0; len.next_multiple_of(32) + 32], vec![0; len.next_multiple_of(32) + 32]);
        for r in 0..strips * ROWS {
            let trits = if r < rows { trits.row(r) } else { &[] };
            let (whole, rest) = trits.as_chunks::<{ tm2::GROUP }>();
            let mut last = [0; tm2::GROUP];
            last[..rest.len()].copy_from_slice(rest);
            let padding = std::iter::once(&last).chain(std::iter::repeat(&[0; tm2::GROUP]));
            let quads = low.as_chunks_mut::<32>().0.iter_mut().zip(top.as_chunks_mut::<32>().0);
            for ((low, top), trits) in quads.zip(whole.iter().chain(padding)) {
                codes_of_planes(trits, low, top);
            }
            for section in sections(cols) {
                let bytes = &mut out[place(&section, r / ROWS, strips)];
                for (group, bytes) in section.zip(bytes.as_chunks_mut::<GROUP_BYTES>().0) {
                    let [low, top] = [&low, &top].map(|of| {
                        let at = of[group * BLOCKS * QUAD..].first_chunk();
                        u128::from_le_bytes(*at.expect("whole groups are there, and bytes behind them"))
                    });
                    // Four triples at once: no byte of a sum overflows.
                    let last = top as u32 + 3 * (top >> 32) as u32 + 9 * (top >> 64) as u32;
                    let threes = [0, 24, 48, 72].map(|at| (low >> at) as u32);
                    for (w, three) in threes.into_iter().chain([last]).enumerate() {
                        let codes = three & 31 | three >> 3 & 31 << 5 | three >> 6 & 31 << 10;
                        let word = codes | last >> (9 + w) & 1 << 15;
                        let at = w * WORD_BYTES + 2 * lane(r % ROWS);
                        bytes[at..at + 2].copy_from_slice(&(word as u16).to_le_bytes());
                    }
                }
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<f32>, UnpackError> {
        check_len(self.packed_len(rows, cols)?, bytes)?;
        for (g, group) in bytes.as_chunks::<GROUP_BYTES>().0.iter().enumerate() {
            let words = |lane: usize| std::array::from_fn(|w| word(group, w, lane));
            // The largest code, as one vectorised pass; the place is only looked for where there is one.
            let mut largest = 0;
            for lane in 0..ROWS {
                let last = (0..WORDS).fold(0, |code, w| code | word(group, w, lane) >> 15 << w);
                let code = |w: usize, i: usize| word(group, w, lane) >> (5 * i) & 31;
                largest = (0..WORDS).fold(largest.max(last), |largest, w| {
                    largest.max(code(w, 0)).max(code(w, 1)).max(code(w, 2))
                });
            }
            if largest > 26 {
                let bad = |codes: &[u8; TRIPLES]| codes.iter().position(|&code| code > 26);
                let (lane, triple) = (0..ROWS)
                    .find_map(|lane| bad(&codes_of(words(lane))).map(|triple| (lane, triple)))
                    .expect("a bad code was seen");
                let offset = g * GROUP_BYTES + triple / 3 % WORDS * WORD_BYTES + 2 * lane;
                return Err(UnpackError::Code { offset, byte: bytes[offset] });
            }
        }
        Ok(None)
    }

    fn unpack_row(&self, rows: usize, cols: usize, bytes: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < rows && out.len() == cols);
        let strips = rows.div_ceil(ROWS);
        for section in sections(cols) {
            let bytes = &bytes[place(&section, row / ROWS, strips)];
            for (g, group) in section.zip(bytes.as_chunks::<GROUP_BYTES>().0) {
                let codes = codes_of(std::array::from_fn(|w| word(group, w, lane(row % ROWS))));
                for (q, codes) in codes.as_chunks::<QUAD>().0.iter().enumerate() {
                    let digits = digits(u32::from_le_bytes(*codes), 0x0101_0101);
                    for ((b, p), codes) in planes_of(q * QUAD).into_iter().zip(digits) {
                        let at = column(g * BLOCKS + b, p);
                        let trits = codes.to_le_bytes().map(|code| code as i8 - 1);
                        // Columns behind the last are padding.
                        let Some(out) = out.get_mut(at..cols.min(at + QUAD)) else { continue };
                        out.copy_from_slice(&trits[..out.len()]);
                    }
                }
            }
        }
    }
}

/// Word `w` in a lane of a group.
#[inline(always)]
fn word(group: &[u8; GROUP_BYTES], w: usize, lane: usize) -> u16 {
    let at = w * WORD_BYTES + 2 * lane;
    u16::from_le_bytes([group[at], group[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(rows: usize, cols: usize) -> Trits {
        Trits::new(rows, cols, (0..rows * cols).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect()).unwrap()
    }

    fn pack(layout: &dyn Layout, trits: &Trits) -> Vec<u8> {
        let mut bytes = vec![0; layout.packed_len(trits.rows(), trits.cols()).unwrap()];
        layout.pack(trits, 1.0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn bytes_are_where_the_diagram_says() {
        // 24 blocks, 8 groups: a section of five and one of three.
        let (rows, cols) = (33, 300);
        let trits = some(rows, cols);
        let mut bytes = pack(&TM1_67, &trits);
        assert_eq!(bytes.len(), 2 * 8 * 320);
        let q = |r: usize, k: usize| {
            if r < rows && k < cols { (trits.row(r)[k] + 1) as u16 } else { 1 }
        };
        for (at, bytes) in bytes.as_chunks::<2>().0.iter().enumerate() {
            // The first section has 2 strips · 5 groups.
            let at = 2 * at;
            let (strip, g) = match at / 320 {
                i @ 0..10 => (i / 5, i % 5),
                i => ((i - 10) / 3, 5 + (i - 10) % 3),
            };
            let (w, r) = (at % 320 / 64, 32 * strip + at % 4 / 2 * 16 + at % 64 / 4);
            let code = |triple: usize| {
                let (a, c) = (triple / 4, triple % 4);
                (0..3).fold(0, |code, i| {
                    let (b, p) = if a == 3 { (i, 3) } else { (a, i) };
                    let block = 3 * g + b;
                    code + 3u16.pow(i as u32) * q(r, 128 * (block / 8) + 4 * (block % 8) + 32 * p + c)
                })
            };
            let low = (0..3).fold(0, |word, i| word | code(3 * w + i) << (5 * i));
            assert_eq!(u16::from_le_bytes(*bytes), low | (code(15) >> w & 1) << 15, "byte {at}");
        }
        assert_eq!(TM1_67.unpack(rows, cols, &bytes).unwrap().trits, trits);
        // Code 31 of triple 15, whose bits are all words' highest ones.
        let good = bytes.clone();
        (0..5).for_each(|w| bytes[320 + 64 * w + 7] |= 0x80);
        assert!(matches!(TM1_67.check(rows, cols, &bytes), Err(UnpackError::Code { offset: 326, .. })));
        bytes = good;
        bytes[64 + 2] |= 31;
        assert!(matches!(TM1_67.check(rows, cols, &bytes), Err(UnpackError::Code { offset: 66, .. })));
    }
}
