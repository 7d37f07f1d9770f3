//! `tm1_67` on AVX-512: five bits of a word are an index into a table of a register.
//!
//! For a few tokens the table holds the sums of a triple's products, and `vpermw` looks those of 32 rows
//! up at once. For 48 columns of a token that is 16 lookups and 52 instructions in all; five weights in a
//! byte, taken apart and multiplied, need 72. Tables of a section stay in the first-level cache while all
//! strips pass, which are read once, in order. For many tokens the table holds codes of weights, which
//! makes strips of the [`tm2`](crate::layout::TM2) form.

// Indices name registers and places in tables.
#![allow(clippy::needless_range_loop)]

use crate::acts::Activations;
use crate::buffer::Array;
use crate::kernel::Packed;
use crate::layout::tm1_67::{
    BLOCKS, GROUP_BYTES, QUAD, SECTION, TRIPLES, WORD_BYTES, WORDS, column, groups, place, sections,
};
use crate::layout::tm2::ROWS;
use crate::tier::{NEAR, prefetch, prefetch_l2};
use crate::tuning;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

/// Bytes of a register.
const REG: usize = 64;
/// Bytes of the tables of a group.
const TABLES: usize = TRIPLES * REG;
/// Tokens whose sums are in registers at once.
const TILE: usize = 4;

/// What a call needs; kept so that calls do not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[token of a tile][group of a section][triple]`.
    tables: Array<u8>,
    /// `[token][row]`.
    sums: Array<i32>,
}

/// Hands out the sums of some rows, whole strips but for the last, for some tokens.
///
/// # Safety
/// The CPU must have AVX-512 with BW and, if `vnni`, VNNI and VBMI2.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn multiply(
    weights: &Packed,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    vnni: bool,
    Scratch { tables, sums }: &mut Scratch,
    sink: &mut dyn FnMut(usize, usize, &[i32]),
) {
    let strips = rows.start / ROWS..rows.end.div_ceil(ROWS);
    if strips.is_empty() {
        return;
    }
    let all = weights.rows().div_ceil(ROWS);
    let sums = sums.first(tokens.len() * strips.len() * ROWS);
    sums.fill(0);
    let tiles = tokens.len().div_ceil(TILE);
    // The strips of a section.
    let run = |groups: &Range<usize>| {
        let first = place(groups, strips.start, all);
        &weights.bytes()[first.start..][..first.len() * strips.len()]
    };
    let mut ahead = sections(weights.cols()).skip(1);
    // They come while the first tables are made; later ones are asked for as the strips before them are read.
    let first = run(&(0..SECTION.min(groups(weights.cols()))));
    for line in first[..first.len().min(tuning::prefetch_l2())].chunks(REG) {
        prefetch_l2(line.as_ptr());
    }
    for groups in sections(weights.cols()) {
        let section = Section { bytes: run(&groups), groups: groups.len() };
        let next = ahead.next().map_or(&[][..], |groups| run(&groups));
        for tile in 0..tiles {
            // As even as possible.
            let [from, to] = [tile, tile + 1].map(|i| i * tokens.len() / tiles);
            let tables = tables.first((to - from) * SECTION * TABLES);
            for (t, tables) in (from..to).zip(tables.chunks_exact_mut(SECTION * TABLES)) {
                let x = x.row(tokens.start + t);
                match vnni {
                    // SAFETY: the CPU has it, as the caller promises.
                    true => unsafe { tabulate_vnni(x, &groups, tables) },
                    false => tabulate(x, &groups, tables),
                }
            }
            let sums = &mut sums[from * strips.len() * ROWS..to * strips.len() * ROWS];
            macro_rules! add {
                ($add:ident) => {
                    match to - from {
                        1 => $add::<1>(section, next, tables, sums),
                        2 => $add::<2>(section, next, tables, sums),
                        3 => $add::<3>(section, next, tables, sums),
                        _ => $add::<TILE>(section, next, tables, sums),
                    }
                };
            }
            match vnni {
                // SAFETY: the CPU has it, as the caller promises.
                true => unsafe { add!(add_vbmi2) },
                false => add!(add),
            }
        }
    }
    for (t, sums) in tokens.zip(sums.chunks_exact(strips.len() * ROWS)) {
        sink(t, rows.start, &sums[..rows.len()]);
    }
}

/// A function that fills the tables of some groups for a token, each by `table_of`.
macro_rules! tabulating {
    ($tabulate:ident, $features:literal, $table_of:ident) => {
        #[target_feature(enable = $features)]
        fn $tabulate(x: &[i8], groups: &Range<usize>, tables: &mut [u8]) {
            let digits = digits();
            for (group, tables) in groups.clone().zip(tables.as_chunks_mut::<TABLES>().0) {
                // Padding of weights meets no activations.
                let triples = triples(|b, p| {
                    let at = x.get(column(group * BLOCKS + b, p)..).and_then(|x| x.first_chunk());
                    at.copied().unwrap_or_default()
                });
                for (x, table) in triples.as_flattened().iter().zip(tables.as_chunks_mut::<REG>().0) {
                    store(table, $table_of(*x, &digits));
                }
            }
        }
    };
}
tabulating!(tabulate, "avx512f,avx512bw", table_of);
tabulating!(tabulate_vnni, "avx512f,avx512bw,avx512vnni", table_of_vnni);

/// The digits of the entries of a table, as signed bytes, in the order in which [`table_of`] packs its two
/// halves to words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn digits() -> [__m512i; 2] {
    const DIGITS: [[[u8; 4]; 16]; 2] = {
        let mut digits = [[[0; 4]; 16]; 2];
        let mut entry = 0;
        while entry < 27 {
            let [a, b, c] = [(entry % 3) as i8 - 1, (entry / 3 % 3) as i8 - 1, (entry / 9) as i8 - 1];
            digits[entry / 4 % 2][entry / 8 * 4 + entry % 4] =
                [a as u8, b as u8, c as u8, -(a + b + c) as u8];
            entry += 1;
        }
        digits
    };
    DIGITS.each_ref().map(|d| load(d.as_flattened().first_chunk().expect("a register")))
}

/// The table of a triple, as [`triples`] gives it: of each entry `Σ digit · x`. As one factor must be
/// unsigned, it is computed as `Σ digit · (x + 128) - 128 · Σ digit`, four products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn table_of(x: i32, digits: &[__m512i; 2]) -> __m512i {
    let x = _mm512_set1_epi32(x);
    let half = |i: usize| _mm512_madd_epi16(_mm512_maddubs_epi16(x, digits[i]), _mm512_set1_epi16(1));
    _mm512_packs_epi32(half(0), half(1))
}

/// [`table_of`] in fewer instructions: one adds four products at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn table_of_vnni(x: i32, digits: &[__m512i; 2]) -> __m512i {
    let half = |i: usize| _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(x), digits[i]);
    _mm512_packs_epi32(half(0), half(1))
}

/// The triples of three blocks, of each its three activations and 0, 128 added to each byte: planes 0 to 2
/// of each block, then plane 3 of all. `four` gives the activations of a block and plane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn triples(four: impl Fn(usize, usize) -> [i8; QUAD]) -> [[i32; QUAD]; BLOCKS + 1] {
    let mut triples = [[0; QUAD]; BLOCKS + 1];
    let mut tops = _mm_setzero_si128();
    for b in 0..BLOCKS {
        let plane = |p| _mm_cvtsi32_si128(i32::from_le_bytes(four(b, p).map(|x| x as u8)));
        let (low, high) = (_mm_unpacklo_epi8(plane(0), plane(1)), _mm_unpacklo_epi8(plane(2), plane(3)));
        // In each lane the four planes of a column.
        let planes = _mm_unpacklo_epi16(low, high);
        tops = _mm_or_si128(_mm_srli_epi32::<8>(tops), _mm_and_si128(planes, _mm_set1_epi32(!0xff_ffff)));
        put(&mut triples[b], _mm_and_si128(planes, _mm_set1_epi32(0xff_ffff)));
    }
    put(&mut triples[BLOCKS], _mm_srli_epi32::<8>(tops));
    triples
}

/// Stores four triples of activations and a byte of zero, 128 added to each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn put(triples: &mut [i32; QUAD], x: __m128i) {
    let x = _mm_xor_si128(x, _mm_set1_epi8(-128));
    // SAFETY: the array is the 16 bytes of a register.
    unsafe { _mm_storeu_si128(triples.as_mut_ptr().cast(), x) };
}

/// Some strips of a section, one after the other.
#[derive(Clone, Copy)]
struct Section<'a> {
    bytes: &'a [u8],
    /// Groups of a strip.
    groups: usize,
}

/// 16-bit sums of a token that additions take turns at: one would be waited for.
const CHAINS: usize = 3;

/// A function that adds the sums of a section to `sums`, `[token][row]`, of `NT` tokens and its strips; `next`
/// will be read after it. `last` is [`last`] with the same instructions.
macro_rules! adding {
    ($add:ident, $features:literal, $last:ident) => {
        // A function of its own, so that its machine code can be checked.
        #[inline(never)]
        #[target_feature(enable = $features)]
        fn $add<const NT: usize>(section: Section, next: &[u8], tables: &[u8], sums: &mut [i32]) {
            let tables: [_; NT] =
                std::array::from_fn(|t| tables[t * SECTION * TABLES..].as_chunks::<TABLES>().0);
            let bytes = section.groups * GROUP_BYTES;
            let strips = section.bytes.len() / bytes;
            let (ahead, near) = (tuning::prefetch_l2(), tuning::sequences());
            for (s, strip) in section.bytes.chunks_exact(bytes).enumerate() {
                let mut ahead = match (s * bytes + ahead).checked_sub(section.bytes.len()) {
                    None => strip.as_ptr().wrapping_add(ahead),
                    Some(behind) if behind < next.len() => next[behind..].as_ptr(),
                    Some(_) => strip.as_ptr(),
                };
                let mut narrow = [[_mm512_setzero_si512(); CHAINS]; NT];
                for (g, group) in strip.as_chunks::<GROUP_BYTES>().0.iter().enumerate() {
                    let mut add = |triple: usize, index| {
                        for t in 0..NT {
                            let table = load(tables[t][g][triple * REG..].first_chunk().expect("a table"));
                            let sum = &mut narrow[t][triple % CHAINS];
                            *sum = _mm512_add_epi16(*sum, _mm512_permutexvar_epi16(index, table));
                        }
                    };
                    for w in 0..WORDS {
                        prefetch_l2(ahead);
                        ahead = ahead.wrapping_add(WORD_BYTES);
                        if near {
                            prefetch(group.as_ptr().wrapping_add(NEAR + w * WORD_BYTES));
                        }
                    }
                    let words = words(group);
                    for w in 0..WORDS {
                        add(3 * w, words[w]);
                        add(3 * w + 1, _mm512_srli_epi16::<5>(words[w]));
                        add(3 * w + 2, _mm512_srli_epi16::<10>(words[w]));
                    }
                    add(TRIPLES - 1, $last(words));
                }
                for t in 0..NT {
                    let sums = sums[(t * strips + s) * ROWS..].first_chunk_mut().expect("a strip of sums");
                    let [a, b, c] = narrow[t];
                    add_words(sums, _mm512_add_epi16(_mm512_add_epi16(a, b), c));
                }
            }
        }
    };
}
adding!(add, "avx512f,avx512bw", last);
adding!(add_vbmi2, "avx512f,avx512bw,avx512vbmi2", last_vbmi2);

/// The code of the last triple, whose bits are the highest ones of all words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn last(words: [__m512i; WORDS]) -> __m512i {
    // Each takes its bit from the second operand where the mask has it, else what is there.
    const PICK: i32 = 0xd8;
    let pick = |code, word, bit: i16| _mm512_ternarylogic_epi32::<PICK>(code, word, _mm512_set1_epi16(bit));
    let code = _mm512_srli_epi16::<15>(words[0]);
    let code = pick(code, _mm512_srli_epi16::<14>(words[1]), 2);
    let code = pick(code, _mm512_srli_epi16::<13>(words[2]), 4);
    let code = pick(code, _mm512_srli_epi16::<12>(words[3]), 8);
    pick(code, _mm512_srli_epi16::<11>(words[4]), 16)
}

/// [`last`] in five instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn last_vbmi2(words: [__m512i; WORDS]) -> __m512i {
    // Each bit pushes those before it up; what is above five bits does not count.
    let push = |code, word| _mm512_shldi_epi16::<1>(code, word);
    push(push(push(push(push(words[4], words[4]), words[3]), words[2]), words[1]), words[0])
}

/// Adds 16-bit sums of a strip to 32-bit ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add_words(sums: &mut [i32; ROWS], words: __m512i) {
    let even = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(words));
    for (sums, half) in sums.as_chunks_mut::<16>().0.iter_mut().zip([even, _mm512_srai_epi32::<16>(words)]) {
        // SAFETY: the array is the 64 bytes of a register.
        unsafe {
            let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), half);
            _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
        }
    }
}

/// The words of a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn words(group: &[u8; GROUP_BYTES]) -> [__m512i; WORDS] {
    let mut words = [_mm512_setzero_si512(); WORDS];
    for w in 0..WORDS {
        words[w] = load(group[w * WORD_BYTES..].first_chunk().expect("a word"));
        // The compiler would read them in another order than that of memory, which the CPU then does not
        // read ahead of.
        compiler_fence(Ordering::SeqCst);
    }
    words
}

/// [`to_tm2`](crate::tier::triples::to_tm2) with tables of 32 words.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn to_tm2(section: &[u8], out: &mut [u8]) {
    // 2-bit codes of the weights of a triple.
    const CODES: [u16; 32] = {
        let mut codes = [0; 32];
        let mut code = 0;
        while code < 27 {
            codes[code as usize] = (code % 3) | ((code / 3 % 3) << 2) | ((code / 9) << 4);
            code += 1;
        }
        codes
    };
    // SAFETY: an array of 32 `u16` is the 64 bytes of a register.
    let codes = unsafe { _mm512_loadu_si512(CODES.as_ptr().cast()) };
    for (group, blocks) in
        section.as_chunks::<GROUP_BYTES>().0.iter().zip(out.chunks_mut(BLOCKS * QUAD * ROWS))
    {
        // The next strip's part of the section lies behind this one's.
        let next = group.as_ptr().wrapping_add(section.len());
        (0..GROUP_BYTES).step_by(REG).for_each(|line| prefetch_l2(next.wrapping_add(line)));
        let words = words(group);
        // Of all triples.
        let mut digits = [_mm512_permutexvar_epi16(last(words), codes); TRIPLES];
        for w in 0..WORDS {
            digits[3 * w] = _mm512_permutexvar_epi16(words[w], codes);
            digits[3 * w + 1] = _mm512_permutexvar_epi16(_mm512_srli_epi16::<5>(words[w]), codes);
            digits[3 * w + 2] = _mm512_permutexvar_epi16(_mm512_srli_epi16::<10>(words[w]), codes);
        }
        // Of two columns, each in a byte of the word.
        let mut pairs = [[_mm512_setzero_si512(); 2]; BLOCKS + 1];
        for b in 0..=BLOCKS {
            for i in 0..2 {
                let at = b * QUAD + 2 * i;
                pairs[b][i] = _mm512_or_si512(digits[at], _mm512_slli_epi16::<8>(digits[at + 1]));
            }
        }
        for (b, block) in blocks.as_chunks_mut::<{ QUAD * ROWS }>().0.iter_mut().enumerate() {
            // Two bits of each byte of the last four triples become the highest ones.
            let place = _mm_cvtsi32_si128(6 - 2 * b as i32);
            for i in 0..2 {
                let top = _mm512_sll_epi16(pairs[BLOCKS][i], place);
                let top = _mm512_and_si512(top, _mm512_set1_epi8(0b1100_0000_u8 as i8));
                pairs[b][i] = _mm512_or_si512(pairs[b][i], top);
            }
            let [low, high] = transpose(pairs[b]);
            let (first, second) = block.split_first_chunk_mut().expect("two registers");
            store(first, low);
            store(second.first_chunk_mut().expect("two registers"), high);
        }
    }
}

/// The lower words of the 32-bit lanes of both registers, and the upper ones; those of the second come to odd
/// places. So two words of each of 16 rows become one word of each of 32, and the other way round: rows 0 to
/// 15 of a strip are in the even words, the others in the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transpose([low, high]: [__m512i; 2]) -> [__m512i; 2] {
    const ODD: u32 = 0xaaaa_aaaa;
    [
        _mm512_mask_blend_epi16(ODD, low, _mm512_slli_epi32::<16>(high)),
        _mm512_mask_blend_epi16(ODD, _mm512_srli_epi32::<16>(low), high),
    ]
}

/// Loads a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(from: &[u8; REG]) -> __m512i {
    // SAFETY: the array is the 64 bytes of a register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Stores a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(to: &mut [u8; REG], v: __m512i) {
    // SAFETY: the array is the 64 bytes of a register.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tm1_67::SECTION_TM2;
    use crate::layout::{Layout, TM1_67, TM2, tm2};
    use crate::tier::triples::to_tm2 as by_bytes;
    use crate::tier::x86_64::nibbles::Avx2;
    use crate::{Tier, Trits};

    #[test]
    fn strips_turn_into_tm2() {
        type Turn = unsafe fn(&[u8], &mut [u8]);
        let ways: [(Tier, Turn); 2] = [(Tier::Avx2, by_bytes::<Avx2>), (Tier::Avx512, to_tm2)];
        for (_, turn) in ways.into_iter().filter(|(tier, _)| tier.is_available()) {
            for cols in [1, 128, 129, 160, 240, 241, 640, 641, 2560] {
                let trits = (0..64 * cols).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect();
                let trits = Trits::new(64, cols, trits).unwrap();
                let pack = |layout| Packed::pack(layout, &trits).unwrap();
                let (packed, expected) = (pack(&TM1_67 as &dyn Layout), pack(&TM2));
                let mut strips = vec![0; expected.bytes().len()];
                for (s, strip) in strips.chunks_mut(tm2::strip_bytes(cols)).enumerate() {
                    for (groups, out) in sections(cols).zip(strip.chunks_mut(SECTION_TM2)) {
                        // SAFETY: the CPU has the tier.
                        unsafe { turn(&packed.bytes()[place(&groups, s, 2)], out) };
                    }
                }
                assert!(strips == expected.bytes(), "{cols} columns");
            }
        }
    }
}
