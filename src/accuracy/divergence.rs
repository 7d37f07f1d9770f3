//! How far two subjects lie apart on the same positions.

use super::softmax::{kl, log_sum_exp, top};
use super::state::WindowScore;
use super::text::Text;
use super::window::Window;
use crate::record::{Divergence, WorstToken};
use crate::stats::of_sorted;
use serde::{Deserialize, Serialize};

/// How many of the worst tokens are kept.
const WORST: usize = 10;
/// Characters of context shown with each.
const CONTEXT: usize = 60;
/// Percentiles of the KL divergence that are reported.
const PERCENTS: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// One position of both subjects.
pub struct Position {
    pub nll: f64,
    reference_nll: f64,
    kl: f64,
    logit_max: f64,
    logit_mean: f64,
    top1: bool,
    top5: usize,
}

/// Compares the logits of one position; `target` is the token that follows.
pub fn compare(subject: &[f32], reference: &[f32], target: u32) -> Position {
    let (s, r) = (log_sum_exp(subject), log_sum_exp(reference));
    let (mut logit_max, mut logit_sum) = (0f64, 0f64);
    for (&a, &b) in subject.iter().zip(reference) {
        let delta = (f64::from(a) - f64::from(b)).abs();
        logit_max = logit_max.max(delta);
        logit_sum += delta;
    }
    let (top_s, top_r) = (top::<5>(subject), top::<5>(reference));
    Position {
        nll: s - f64::from(subject[target as usize]),
        reference_nll: r - f64::from(reference[target as usize]),
        kl: kl(reference, r, subject, s),
        logit_max,
        logit_mean: logit_sum / subject.len() as f64,
        top1: top_s[0] == top_r[0],
        top5: top_r.iter().filter(|i| top_s.contains(i)).count(),
    }
}

/// The comparison over one window; vectors hold one entry for each scored token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    reference_nll: Vec<f64>,
    kl: Vec<f64>,
    logit_max: Vec<f64>,
    logit_mean: Vec<f64>,
    top1: u64,
    top5: u64,
}

impl Pair {
    /// How many positions it holds, if it holds all figures of each.
    pub fn positions(&self) -> Option<usize> {
        let n = self.kl.len();
        [&self.reference_nll, &self.logit_max, &self.logit_mean].iter().all(|v| v.len() == n).then_some(n)
    }

    /// The first position with logits that are not finite, and whether they are known to be the reference's.
    pub fn not_finite(&self) -> Option<(usize, bool)> {
        let mut all = self.logit_mean.iter().zip(&self.reference_nll);
        let at = all.position(|(mean, nll)| !(mean.is_finite() && nll.is_finite()))?;
        Some((at, !self.reference_nll[at].is_finite()))
    }

    /// Adds a position.
    pub fn push(&mut self, position: &Position) {
        self.reference_nll.push(position.reference_nll);
        self.kl.push(position.kl);
        self.logit_max.push(position.logit_max);
        self.logit_mean.push(position.logit_mean);
        self.top1 += u64::from(position.top1);
        self.top5 += position.top5 as u64;
    }
}

/// Puts the windows together; `None` if one was scored without a reference.
pub fn summarise(
    reference: &str,
    scores: &[WindowScore],
    windows: &[Window],
    text: &Text,
) -> Option<Divergence> {
    let pairs: Vec<&Pair> = scores.iter().map(|s| s.pair.as_ref()).collect::<Option<_>>()?;
    let all = |part: fn(&Pair) -> &Vec<f64>| pairs.iter().flat_map(move |p| part(p).iter().copied());
    let n = all(|p| &p.kl).count() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n;

    let mut sorted: Vec<f64> = all(|p| &p.kl).collect();
    sorted.sort_by(f64::total_cmp);
    let deltas: Vec<f64> = scores
        .iter()
        .zip(&pairs)
        .flat_map(|(s, p)| s.nll.iter().zip(&p.reference_nll).map(|(a, b)| a - b))
        .collect();
    let delta = mean(&mut deltas.iter().copied());
    let variance = mean(&mut deltas.iter().map(|d| (d - delta) * (d - delta)));

    Some(Divergence {
        reference: reference.into(),
        kl_mean: mean(&mut all(|p| &p.kl)),
        kl_percentiles: PERCENTS.iter().map(|&p| (p, of_sorted(&sorted, p / 100.0))).collect(),
        kl_max: *sorted.last()?,
        kl_histogram: histogram(&sorted),
        logit_max: all(|p| &p.logit_max).fold(0.0, f64::max),
        logit_mean: mean(&mut all(|p| &p.logit_mean)),
        top1: pairs.iter().map(|p| p.top1).sum::<u64>() as f64 / n,
        top5: pairs.iter().map(|p| p.top5).sum::<u64>() as f64 / (5.0 * n),
        delta_nll: delta,
        delta_nll_stderr: (variance / (n - 1.0)).sqrt(),
        positions: n as u64,
        worst: worst(scores, &pairs, windows, text),
    })
}

/// Two bins a decade from 1e-10 to 10 nats; empty ones at both ends are left out.
fn histogram(sorted: &[f64]) -> Vec<(f64, u64)> {
    let edges: Vec<f64> = (-20..=2).map(|half| 10f64.powf(f64::from(half) / 2.0)).collect();
    let mut bins: Vec<(f64, u64)> = edges.iter().map(|&e| (e, 0)).collect();
    for kl in sorted {
        let bin = edges.partition_point(|e| e < kl).min(edges.len() - 1);
        bins[bin].1 += 1;
    }
    let used = |bin: &(f64, u64)| bin.1 > 0;
    let (first, last) = (bins.iter().position(used), bins.iter().rposition(used));
    first.zip(last).map(|(first, last)| bins[first..=last].to_vec()).unwrap_or_default()
}

/// The positions with the greatest KL divergence, in context.
fn worst(scores: &[WindowScore], pairs: &[&Pair], windows: &[Window], text: &Text) -> Vec<WorstToken> {
    let mut all: Vec<(f64, usize, usize)> = pairs
        .iter()
        .enumerate()
        .flat_map(|(w, p)| p.kl.iter().enumerate().map(move |(i, &kl)| (kl, w, i)))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    all.truncate(WORST);
    all.iter()
        .map(|&(kl, w, i)| {
            let window = &windows[scores[w].index];
            let (context, token) = text.excerpt(window.start + window.first + i, CONTEXT);
            WorstToken { context, token, kl, nll: scores[w].nll[i], reference_nll: pairs[w].reference_nll[i] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_everything_once() {
        let h = histogram(&[0.0, 1e-12, 0.5, 0.9, 50.0]);
        assert_eq!(h.iter().map(|b| b.1).sum::<u64>(), 5);
        assert_eq!(h.first().unwrap().1, 2);
        assert_eq!(h.last(), Some(&(10.0, 1)));
        assert!(h.contains(&(1.0, 2)));
    }

    #[test]
    fn equal_logits_do_not_diverge() {
        let logits = [0.3f32, -2.0, 5.5, 0.0, 1.0, 9.0];
        let p = compare(&logits, &logits, 2);
        assert_eq!((p.kl, p.logit_max, p.top1, p.top5), (0.0, 0.0, true, 5));
        assert_eq!(p.nll, p.reference_nll);
    }
}
