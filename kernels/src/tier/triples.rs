//! [`tm1_67`](crate::layout::TM1_67) strips as those of [`tm2`](crate::layout::TM2), once for all tiers whose
//! registers hold tables of 16 bytes.

use crate::layout::tm1_67::{BLOCKS, GROUP_BYTES, QUAD, WORD_BYTES};
use crate::layout::tm2::ROWS;
use crate::tier::nibbles::Halves;
use crate::tier::prefetch_l2;

/// The codes of the three weights of a triple, two bits each, by its code: below 16, and from there on, each twice.
static CODES: [[u8; 32]; 2] = {
    let mut codes = [[0; 32]; 2];
    let mut i = 0;
    while i < 64 {
        let code = i / 32 * 16 + i % 16;
        codes[i / 32][i % 32] = ((code % 3) | ((code / 3 % 3) << 2) | ((code / 9) << 4)) as u8;
        i += 1;
    }
    codes
};

/// Where the code of a triple stands: how far its word is shifted left to the lowest bits of a byte.
type Place<H> = (H, i16);

/// The codes of two triples of each of 16 rows, the first in the low byte.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn two<H: Halves>(low: Place<H>, high: Place<H>) -> H {
    // SAFETY: the tier is the caller's promise.
    unsafe { low.0.field(low.1, 0x1f).add(high.0.field(high.1 + 8, 0x1f00)) }
}

/// The code of the last triple, in the high byte: its bits are the highest ones of all words.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
unsafe fn last<H: Halves>([a, b, c, d, e]: [H; 5]) -> H {
    // SAFETY: the tier is the caller's promise.
    unsafe {
        let low = a.field(-7, 1 << 8).add(b.field(-6, 1 << 9)).add(c.field(-5, 1 << 10));
        low.add(d.field(-4, 1 << 11)).add(e.field(-3, 1 << 12))
    }
}

/// Turns the groups of a section of a strip into blocks of [`tm2`](crate::layout::TM2); blocks that `out` has no
/// room for are padding.
///
/// # Safety
/// As for [`Halves`].
#[inline(always)]
pub(super) unsafe fn to_tm2<H: Halves>(section: &[u8], out: &mut [u8]) {
    let groups = section.as_chunks::<GROUP_BYTES>().0;
    for (group, blocks) in groups.iter().zip(out.chunks_mut(BLOCKS * QUAD * ROWS)) {
        // The next strip's part of the section lies behind this one's.
        let next = group.as_ptr().wrapping_add(section.len());
        (0..GROUP_BYTES).step_by(64).for_each(|line| prefetch_l2(next.wrapping_add(line)));
        for half in [0, WORD_BYTES / 2] {
            // SAFETY: the tier is the caller's promise.
            unsafe {
                let mut words = [H::zero(); 5];
                for (word, bytes) in words.iter_mut().zip(group.as_chunks::<WORD_BYTES>().0) {
                    *word = H::load(bytes[half..].first_chunk().expect("half a word"));
                }
                let [a, b, c, d, e] = words;
                let mut pairs = [
                    two((a, 0), (a, -5)),
                    two((a, -10), (b, 0)),
                    two((b, -5), (b, -10)),
                    two((c, 0), (c, -5)),
                    two((c, -10), (d, 0)),
                    two((d, -5), (d, -10)),
                    two((e, 0), (e, -5)),
                    e.field(-10, 0x1f).add(last(words)),
                ];
                for pair in &mut pairs {
                    *pair = H::look_up_long([H::load(&CODES[0]), H::load(&CODES[1])], *pair);
                }
                let (quads, top) = pairs.as_chunks::<2>().0.split_at(BLOCKS);
                let blocks = blocks.as_chunks_mut::<{ QUAD * ROWS }>().0.iter_mut();
                for (b, (block, quad)) in blocks.zip(quads).enumerate() {
                    // Two bits of each code of the last four triples become the highest ones.
                    let up = 6 - 2 * b as i16;
                    let low = quad[0].add(top[0][0].field(up, 0xc0c0));
                    let high = quad[1].add(top[0][1].field(up, 0xc0c0));
                    for (words, at) in H::turn(low, high).into_iter().zip([0, QUAD * ROWS / 2]) {
                        block[half + at..][..words.len()].copy_from_slice(&words);
                    }
                }
            }
        }
    }
}
