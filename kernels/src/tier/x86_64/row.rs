//! A few tokens times one row of trits, a byte each: what is left to do for layouts that are unpacked
//! row by row, where too few tokens share a strip to make one.

// Indices name registers.
#![allow(clippy::needless_range_loop)]

use super::vector::Vector;
use crate::layout::tm2::GROUP;

/// The most tokens at once.
pub(super) const TOKENS: usize = 4;

/// Vectors whose sums are apart, so that none waits for the one before.
const APART: usize = 2;

/// [`dots`] for one to [`TOKENS`] tokens.
///
/// # Safety
/// As for [`dots`].
#[inline(always)]
pub(super) unsafe fn few<V: Vector>(
    trits: *const i8,
    groups: usize,
    x: &[*const i8],
    out: &mut [i32; TOKENS],
) {
    macro_rules! few {
        ($($nt:literal)+) => {
            match x.len() {
                $($nt => {
                    let x: &[_; $nt] = x.try_into().expect("matched");
                    // SAFETY: passed on.
                    *out = unsafe { dots::<V, $nt>(trits, groups, x) };
                })+
                n => unreachable!("{n} tokens at once"),
            }
        };
    }
    few!(1 2 3 4)
}

/// `Σ_k (w(k) + 1) · x[t][k]` for `NT` tokens over `groups` groups of columns: sums over codes 0..=2.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it; `trits` and each of `x` must be
/// valid for `groups * 128` columns.
#[inline(always)]
unsafe fn dots<V: Vector, const NT: usize>(
    trits: *const i8,
    groups: usize,
    x: &[*const i8; NT],
) -> [i32; TOKENS] {
    const { assert!(GROUP.is_multiple_of(APART * 4 * V::LANES)) };
    // Of a group, a sum takes one dot of each of these steps.
    let steps = GROUP / (APART * 4 * V::LANES);
    let fold = if V::NARROW { 64 / steps } else { groups };
    // SAFETY: tier and pointers are the caller's promise; every access lies within the group that is
    // counted.
    unsafe {
        let mut totals = [V::zero(); TOKENS];
        let mut first = 0;
        while first < groups {
            let last = groups.min(first + fold);
            let mut sums = [[V::zero(); APART]; NT];
            for step in first * steps..last * steps {
                for i in 0..APART {
                    let k = (step * APART + i) * 4 * V::LANES;
                    let codes = V::load(trits.add(k).cast()).code();
                    for t in 0..NT {
                        sums[t][i] = V::dot(sums[t][i], codes, V::load(x[t].add(k).cast()));
                    }
                }
            }
            for t in 0..NT {
                for sum in sums[t] {
                    totals[t] = totals[t].add(sum.widen());
                }
            }
            first = last;
        }
        V::sums(totals)
    }
}
