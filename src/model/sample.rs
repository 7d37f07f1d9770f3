//! Choosing the next token.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 always takes the greatest.
    pub temperature: f32,
    /// Only so many of the greatest are candidates; 0 for all.
    pub top_k: usize,
    /// Only the fewest whose probabilities reach this sum are candidates; 1 for all.
    pub top_p: f32,
    /// Where the random numbers start.
    pub seed: u64,
}

/// Chooses tokens; equal seeds and logits give equal texts.
pub struct Sampler {
    sampling: Sampling,
    rng: Xoshiro256PlusPlus,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// Starts at the seed.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, rng: Xoshiro256PlusPlus::seed_from_u64(sampling.seed), candidates: Vec::new() }
    }

    /// The next token after a position with these logits; NaN is passed over.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature == 0.0 {
            return greatest(logits);
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend((0..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan()));
        let greater = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..candidates.len()).contains(&top_k) {
            candidates.select_nth_unstable_by(top_k - 1, greater);
            candidates.truncate(top_k);
        }
        // To draw from all of them their order does not matter, and sorting a whole vocabulary takes milliseconds.
        if top_p < 1.0 {
            candidates.sort_unstable_by(greater);
        }
        // Beside an infinite one nothing else counts.
        let Some(max) = candidates.iter().map(|c| c.1).reduce(f32::max).filter(|max| max.is_finite()) else {
            return greatest(logits);
        };
        let mut sum = 0.0;
        for (_, weight) in candidates.iter_mut() {
            *weight = ((*weight - max) / temperature).exp();
            sum += *weight;
        }
        let (mut kept, mut reached) = (candidates.len(), 0.0);
        for (i, (_, weight)) in candidates.iter().enumerate() {
            reached += weight;
            if reached >= top_p * sum {
                kept = i + 1;
                break;
            }
        }
        let mut at = self.rng.random::<f32>() * reached;
        for (id, weight) in &candidates[..kept] {
            at -= weight;
            if at < 0.0 {
                return *id;
            }
        }
        candidates[kept - 1].0
    }
}

/// Index of the greatest logit, the first of equals; NaN is passed over.
///
/// # Panics
/// If there are none.
pub fn greatest(logits: &[f32]) -> u32 {
    assert!(!logits.is_empty(), "no logits to choose from");
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        if *v > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, 2.0, -1.0];

    fn counts(sampling: Sampling) -> [u32; 5] {
        let mut sampler = Sampler::new(sampling);
        let mut counts = [0; 5];
        for _ in 0..20_000 {
            counts[sampler.next(&LOGITS) as usize] += 1;
        }
        counts
    }

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7 };

    #[test]
    fn greedy_takes_the_first_of_the_greatest() {
        assert_eq!(counts(Sampling { temperature: 0.0, ..PLAIN }), [0, 20_000, 0, 0, 0]);
        assert_eq!(greatest(&[f32::NAN, -1.0, f32::NAN]), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let counts = counts(PLAIN);
        let sum: f64 = LOGITS.iter().map(|v| f64::from(*v).exp()).sum();
        for (logit, count) in LOGITS.iter().zip(counts) {
            let expected = f64::from(*logit).exp() / sum * 20_000.0;
            assert!((f64::from(count) - expected).abs() < 5.0 * expected.sqrt(), "{logit}: {count}");
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_rest_out() {
        let top_k = counts(Sampling { top_k: 2, ..PLAIN });
        assert!(top_k[1] > 9_000 && top_k[3] > 9_000 && top_k[1] + top_k[3] == 20_000);
        // The two greatest have 0.78 of the probability.
        let top_p = counts(Sampling { top_p: 0.7, ..PLAIN });
        assert!(top_p[1] + top_p[3] == 20_000 && top_p[3] > 9_000);
        assert_eq!(counts(Sampling { top_p: 0.1, ..PLAIN })[1], 20_000);
    }

    #[test]
    fn what_is_not_finite_is_not_drawn_from() {
        let next = |logits: &[f32]| Sampler::new(PLAIN).next(logits);
        for nan in [f32::NAN, -f32::NAN] {
            for top_k in [0, 1, 2] {
                let mut sampler = Sampler::new(Sampling { top_k, ..PLAIN });
                assert!((0..100).all(|_| (1..3).contains(&sampler.next(&[nan, 1.0, 1.0, nan]))));
            }
            assert!(next(&[nan, nan]) < 2);
        }
        assert_eq!(next(&[1.0, f32::INFINITY, f32::NAN]), 1);
        assert_eq!(next(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY]), 1);
    }

    #[test]
    fn a_seed_repeats_itself() {
        let text = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..PLAIN });
            (0..50).map(|_| sampler.next(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }
}
