//! Statistics of repeated timings: robust, seeded, and equal to what scipy says of the same samples.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Resamples of every bootstrap.
const RESAMPLES: usize = 10_000;

/// The value below which the share `q` of the samples lies, with linear interpolation between the
/// two nearest (type 7 of Hyndman & Fan 1996, numpy's default).
///
/// # Panics
/// If there are no samples.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, q)
}

/// As [`quantile`], of samples that are in order.
///
/// # Panics
/// If there are none.
pub fn of_sorted(sorted: &[f64], q: f64) -> f64 {
    let at = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The median.
///
/// # Panics
/// If there are no samples.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The median absolute deviation from the median, not scaled.
///
/// # Panics
/// If there are no samples.
pub fn mad(samples: &[f64]) -> f64 {
    let centre = median(samples);
    median(&samples.iter().map(|s| (s - centre).abs()).collect::<Vec<_>>())
}

/// Standard deviation over mean, 0 for fewer than two samples.
pub fn variation(samples: &[f64]) -> f64 {
    if samples.len() < 2 {
        return 0.0;
    }
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt() / mean
}

/// Indices of samples whose modified z-score exceeds 3.5 (Iglewicz & Hoaglin, "How to Detect and
/// Handle Outliers", 1993). Where more than half of the samples are equal, the mean absolute
/// deviation takes the place of the median one, as there.
pub fn outliers(samples: &[f64]) -> Vec<usize> {
    if samples.len() < 3 {
        return Vec::new();
    }
    let centre = median(samples);
    let deviations: Vec<f64> = samples.iter().map(|s| (s - centre).abs()).collect();
    let sigma = match median(&deviations) {
        0.0 => 1.253314 * deviations.iter().sum::<f64>() / deviations.len() as f64,
        mad => mad / 0.6745,
    };
    (0..samples.len()).filter(|&i| deviations[i] > 3.5 * sigma).collect()
}

/// Percentile bootstrap 95 % interval of the median; the samples' own value twice for one sample.
///
/// # Panics
/// If there are no samples.
pub fn median_interval(samples: &[f64], seed: u64) -> [f64; 2] {
    quantile_interval(samples, 0.5, seed)
}

/// Percentile bootstrap 95 % interval of `quantile(samples, q)`.
///
/// # Panics
/// If there are no samples.
pub fn quantile_interval(samples: &[f64], q: f64, seed: u64) -> [f64; 2] {
    bootstrap(seed, |rng| resampled(samples, q, rng))
}

/// Percentile bootstrap 95 % interval of `quantile(b, q) / quantile(a, q)`, the two resampled on
/// their own.
///
/// # Panics
/// If either has no samples.
pub fn quantile_ratio_interval(a: &[f64], b: &[f64], q: f64, seed: u64) -> [f64; 2] {
    bootstrap(seed, |rng| resampled(b, q, rng) / resampled(a, q, rng))
}

fn bootstrap(seed: u64, mut statistic: impl FnMut(&mut Xoshiro256PlusPlus) -> f64) -> [f64; 2] {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..RESAMPLES).map(|_| statistic(&mut rng)).collect();
    values.sort_by(f64::total_cmp);
    [of_sorted(&values, 0.025), of_sorted(&values, 0.975)]
}

/// [`quantile`] of as many samples drawn with replacement.
fn resampled(samples: &[f64], q: f64, rng: &mut Xoshiro256PlusPlus) -> f64 {
    let mut drawn: Vec<f64> =
        (0..samples.len()).map(|_| samples[rng.random_range(0..samples.len())]).collect();
    let at = q * (samples.len() - 1) as f64;
    let (_, &mut low, above) = drawn.select_nth_unstable_by(at.floor() as usize, f64::total_cmp);
    if at.fract() == 0.0 {
        return low;
    }
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    low + (high - low) * at.fract()
}

/// Two-sided p-value of the Mann–Whitney U test: exact where one side has at most 8 samples, the other at
/// most 1000 and none are tied, else the normal approximation with corrections for ties and continuity. 1
/// where a side has no samples.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len(), b.len());
    if n == 0 || m == 0 {
        return 1.0;
    }
    let mut all: Vec<(f64, bool)> =
        a.iter().map(|&v| (v, true)).chain(b.iter().map(|&v| (v, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    let mut first = 0;
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        let t = group.len() as f64;
        // Ranks count from 1; tied values share the mean of theirs.
        let rank = first as f64 + (t + 1.0) / 2.0;
        rank_sum += rank * group.iter().filter(|v| v.1).count() as f64;
        ties += t * t * t - t;
        first += group.len();
    }
    let (nf, mf) = (n as f64, m as f64);
    let u = rank_sum - nf * (nf + 1.0) / 2.0;
    let u = u.max(nf * mf - u);
    if ties == 0.0 && n.min(m) <= 8 && n.max(m) <= 1000 {
        return (2.0 * exact_tail(n, m, u as usize)).min(1.0);
    }
    let total = nf + mf;
    let variance = nf * mf / 12.0 * ((total + 1.0) - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = (u - nf * mf / 2.0 - 0.5) / variance.sqrt();
    libm::erfc(z / std::f64::consts::SQRT_2).min(1.0)
}

/// P(U ≥ u) where every order of `n + m` distinct values is as likely as any other.
fn exact_tail(n: usize, m: usize, u: usize) -> f64 {
    let (n, m) = (n.min(m), n.max(m));
    // `ways[j][v]`: orders of j values of one side and the values of the other side added so far
    // with U = v, as a share of all such orders. Adding the k-th value of the other side, the
    // largest value overall belongs to it (beaten by none) or to the first side (beats all k).
    let mut ways = vec![vec![0.0; n * m + 1]; n + 1];
    for row in &mut ways {
        row[0] = 1.0;
    }
    for k in 1..=m {
        for j in 1..=n {
            let (from_first, from_other) = (j as f64 / (j + k) as f64, k as f64 / (j + k) as f64);
            for v in (0..=j * k).rev() {
                let beats = if v >= k { ways[j - 1][v - k] } else { 0.0 };
                ways[j][v] = from_first * beats + from_other * ways[j][v];
            }
        }
    }
    ways[n][u..].iter().sum()
}

/// The fewest threads that reach 95 % of the best speed, from `(threads, speed)` in any order: more
/// threads than these add little. `None` for fewer than two thread counts.
pub fn knee(sweep: &[(u32, f64)]) -> Option<(u32, f64)> {
    let best = sweep.iter().map(|s| s.1).reduce(f64::max).filter(|_| sweep.len() > 1)?;
    sweep.iter().copied().filter(|s| s.1 >= 0.95 * best).min_by_key(|s| s.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: scipy 1.17.1 and numpy 2.4.6. For the samples below:
    //   st.median_abs_deviation(A); np.quantile(B, q); st.mannwhitneyu(x, y).pvalue
    //   st.bootstrap((A[:11],), np.median, n_resamples=200000, method='percentile')
    //   st.bootstrap((A, B), lambda x, y, axis: np.median(y, axis) / np.median(x, axis), …)
    const A: &[f64] =
        &[100.0, 100.9, 99.18, 97.33, 98.64, 97.03, 100.18, 104.02, 98.52, 98.14, 101.47, 101.07];
    const B: &[f64] = &[
        104.42, 100.28, 103.88, 106.78, 98.62, 102.17, 96.4, 98.84, 96.63, 103.06, 98.93, 105.09, 104.63,
        103.25, 93.93,
    ];
    const S: &[f64] = &[48.92, 49.9, 50.23, 46.94, 49.04, 48.04];
    const T: &[f64] = &[45.38, 49.12, 45.4, 46.93, 48.77, 45.83, 46.78];

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn centre_and_spread_agree_with_scipy() {
        near(median(A), 99.59);
        near(median(B), 102.17);
        near(mad(A), 1.3800000000000026);
        near(mad(B), 2.9200000000000017);
        for (q, expected) in [(0.05, 95.659), (0.95, 105.597), (0.99, 106.5434)] {
            near(quantile(B, q), expected);
        }
    }

    #[test]
    fn mann_whitney_agrees_with_scipy() {
        near(mann_whitney(A, B), 0.25151283025221316);
        near(mann_whitney(S, T), 0.03496503496503496);
        near(mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 0.1);
        let tied_a = [1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 5.0, 5.0, 6.0, 7.0, 8.0];
        let tied_b = [3.0, 3.0, 4.0, 5.0, 6.0, 6.0, 7.0, 8.0, 9.0, 9.0, 10.0, 11.0, 12.0];
        near(mann_whitney(&tied_a, &tied_b), 0.011798933465730124);
        near(mann_whitney(A, A), 1.0);
        near(mann_whitney(&[5.0; 3], &[5.0; 3]), 1.0);
        near(mann_whitney(A, B), mann_whitney(B, A));
        near(mann_whitney(&[], B), 1.0);
    }

    #[test]
    fn intervals_agree_with_scipy_and_depend_on_the_seed_alone() {
        let [low, high] = median_interval(&A[..11], 1);
        near(low, 98.14);
        near(high, 100.9);
        let [low, high] = median_interval(A, 2);
        near(low, 98.33);
        near(high, 100.985);
        let [low, high] = quantile_ratio_interval(A, B, 0.5, 1);
        // Two bootstraps of continuous ratios agree to their own noise only.
        assert!((low - 0.98316).abs() < 2e-3 && (high - 1.05207).abs() < 2e-3, "{low} {high}");
        assert_eq!(quantile_ratio_interval(A, B, 0.5, 9), quantile_ratio_interval(A, B, 0.5, 9));
        assert_eq!(median_interval(&[3.0], 1), [3.0, 3.0]);
    }

    #[test]
    fn intervals_hold_what_they_promise() {
        // 95 % intervals of the median of 15 normal-like samples must cover the truth about as often.
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let trials = 200;
        let covered = (0..trials)
            .filter(|&seed| {
                let samples: Vec<f64> =
                    (0..15).map(|_| 10.0 + (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0).collect();
                let [low, high] = median_interval(&samples, seed);
                (low..=high).contains(&10.0)
            })
            .count();
        assert!((180..=199).contains(&covered), "{covered} of {trials}");
    }

    #[test]
    fn outliers_are_named_on_both_sides_and_among_equals() {
        assert_eq!(outliers(&[10.0, 10.1, 9.9, 10.05, 3.0, 9.95, 30.0]), [4, 6]);
        assert_eq!(outliers(&[5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 9.0]), [6]);
        assert!(
            outliers(A).is_empty() && outliers(&[1.0, 100.0]).is_empty() && outliers(&[2.0; 9]).is_empty()
        );
    }

    #[test]
    fn the_knee_is_where_more_threads_stop_helping() {
        assert_eq!(knee(&[(1, 10.0), (8, 40.0), (4, 39.0), (2, 20.0)]), Some((4, 39.0)));
        assert_eq!(knee(&[(1, 10.0)]), None);
    }
}
