//! One token times strips of `tm1_6` on tiers without a table of bytes: digits come off from the top, each as
//! what a remainder leaves. Several tokens share a strip of the [`tm2`](crate::layout::TM2) form instead.
//!
//! ```text
//! r(p) = r(p + 1) mod 3^p             the least of r, r - 3^p and r - 2·3^p (bytes that wrap)
//! r(p + 1) - r(p)                     3^p times digit p; of 81, 162, 9 and 18 the lowest two bits are the
//!                                     digit, what counts 27-fold and three-fold is divided at the end
//! ```

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::strip::prefetch;
use super::vector::Vector;
use crate::layout::tm1_6::{GROUP, PLANE};
use crate::layout::tm2::ROWS;
use crate::tuning;

/// `out[r] = Σ_k code(r, k) · x[k]` over a strip of `groups` groups; `R` registers hold 4 columns of its rows.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it; `strip` must be valid for `groups`
/// groups and `x` for as many columns of 160.
#[inline(always)]
pub(super) unsafe fn gemv<V: Vector, const R: usize>(
    strip: *const u8,
    groups: usize,
    x: *const i8,
    out: &mut [i32; ROWS],
) {
    const { assert!(R * V::LANES == ROWS) };
    // Of a group, a narrow sum takes 8 dots of each of three digits, or 8 that count three-fold.
    const NARROW: usize = 2;
    // The largest sums are at most 2^10 · 32 columns · 54 · 128 < 2^28 in this many groups.
    const FOLD: usize = 1024;
    let ahead = tuning::prefetch();
    out.fill(0);
    // SAFETY: tier and pointers are the caller's promise; every access lies within the group that is counted,
    // and a prefetch may point anywhere.
    unsafe {
        for start in (0..groups).step_by(FOLD) {
            let end = groups.min(start + FOLD);
            // Of digits as they are, three-fold and 27-fold.
            let mut wide = [[V::zero(); R]; 3];
            for first in (start..end).step_by(if V::NARROW { NARROW } else { FOLD }) {
                let last = end.min(first + if V::NARROW { NARROW } else { FOLD });
                let (mut low, mut mid) = ([V::zero(); R], [V::zero(); R]);
                for step in 8 * first..8 * last {
                    let block = strip.add(step * 4 * ROWS);
                    prefetch(block.wrapping_add(ahead));
                    prefetch(block.wrapping_add(ahead + 64));
                    let x = |p: usize| V::splat(x.add(step / 8 * GROUP + p * PLANE + step % 8 * 4));
                    for r in 0..R {
                        let all = V::load(block.add(r * 4 * V::LANES));
                        let four = all.remainder(81);
                        low[r] = V::dot(low[r], all.minus(four).mask(3), x(4));
                        let three = four.remainder(27);
                        let of_27 = four.minus(three);
                        wide[2][r] = if V::NARROW {
                            wide[2][r].add(V::dot(V::zero(), of_27, x(3)).widen())
                        } else {
                            V::dot(wide[2][r], of_27, x(3))
                        };
                        let two = three.remainder(9);
                        low[r] = V::dot(low[r], three.minus(two).mask(3), x(2));
                        let one = two.remainder(3);
                        mid[r] = V::dot(mid[r], two.minus(one), x(1));
                        low[r] = V::dot(low[r], one, x(0));
                    }
                }
                for r in 0..R {
                    wide[0][r] = wide[0][r].add(low[r].widen());
                    wide[1][r] = wide[1][r].add(mid[r].widen());
                }
            }
            for (sums, fold) in wide.into_iter().zip([1, 3, 27]) {
                let mut lanes = [0; ROWS];
                for (r, sums) in sums.into_iter().enumerate() {
                    sums.store(lanes.as_mut_ptr().add(r * V::LANES));
                }
                for (out, lane) in out.iter_mut().zip(lanes) {
                    *out += lane / fold;
                }
            }
        }
    }
}
