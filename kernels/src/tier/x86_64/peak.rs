//! The multiply instruction of a tier and nothing else: what multiplying can reach at most.

use super::vector::Vector;
use std::hint::black_box;

/// Steps of one time.
const STEPS: usize = 1024;

/// Multiply-adds of one time of [`peak`] with as many `CODES` and `X`.
pub(super) const fn macs<V: Vector, const CODES: usize, const X: usize>() -> f64 {
    (STEPS * CODES * X * 4 * V::LANES) as f64
}

/// Multiplies each of `CODES` registers by each of `X`, `times` times, into sums of their own. All must fit the
/// registers, and the sums be enough to cover the latency, with some to spare: more than ten where `vpdpbusd` takes
/// five cycles and two start in each. Narrow sums are not widened, so this bounds any kernel that
/// multiplies; tables can do more.
///
/// # Safety
/// The CPU must have the tier of `V` and the caller be compiled for it.
#[inline(always)]
pub(super) unsafe fn peak<V: Vector, const CODES: usize, const X: usize>(times: usize) {
    // The compiler knows neither the numbers nor, as the place differs, that codes repeat: it can
    // neither merge nor hoist a product.
    let bytes = black_box([1u8; 1024]);
    // SAFETY: the tier is the caller's promise; places are below 512 + 8 * 64.
    unsafe {
        let mut sums = [[V::zero(); X]; CODES];
        for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
            *sum = V::load(bytes.as_ptr().add(i));
        }
        let x: [V; X] = std::array::from_fn(|i| V::splat(bytes.as_ptr().add(4 * i).cast()));
        for step in 0..times * STEPS {
            let at = bytes.as_ptr().add(64 * (step % 8));
            let codes: [V; CODES] = std::array::from_fn(|i| V::load(at.add(64 * i)));
            for (sums, codes) in sums.iter_mut().zip(codes) {
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = V::dot(*sum, codes, x);
                }
            }
        }
        black_box(sums);
    }
}
