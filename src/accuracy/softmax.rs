//! Log-softmax of one position: f32 logits in, f64 out, every sum in a fixed order.

/// Independent partial sums: lets the processor overlap additions without changing their order.
const LANES: usize = 8;

/// Sums `term(i)` for `i` in `0..n` over [`LANES`] partial sums, added up in order at the end.
fn sum(n: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    (whole..n).map(term).fold(lanes.iter().sum(), |a, b| a + b)
}

/// `ln Σ exp(x)`; not finite if a logit is not.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| if b.is_nan() { b } else { a.max(b) });
    f64::from(max) + sum(logits.len(), |i| (f64::from(logits[i]) - f64::from(max)).exp()).ln()
}

/// Negative log-likelihood of `target`, nats.
pub fn nll(logits: &[f32], target: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits[target as usize])
}

/// `KL(p ‖ q)` in nats for logits of p and q and their [`log_sum_exp`]. Rounding may put a true zero
/// a little below it; that is returned as zero.
pub fn kl(p: &[f32], p_lse: f64, q: &[f32], q_lse: f64) -> f64 {
    sum(p.len(), |i| {
        let (log_p, log_q) = (f64::from(p[i]) - p_lse, f64::from(q[i]) - q_lse);
        log_p.exp() * (log_p - log_q)
    })
    .max(0.0)
}

/// Indices of the `N` greatest logits, greatest first; of equal ones the lower index.
pub fn top<const N: usize>(logits: &[f32]) -> [usize; N] {
    let mut best = [usize::MAX; N];
    for (i, &x) in logits.iter().enumerate() {
        let place = best.iter().position(|&b| b == usize::MAX || x > logits[b]);
        if let Some(place) = place {
            best[place..].rotate_right(1);
            best[place] = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_hand_calculation() {
        let logits: Vec<f32> = [0.1f32, 0.2, 0.3, 0.4].iter().map(|p| p.ln()).collect();
        assert!(log_sum_exp(&logits).abs() < 1e-7);
        assert!((nll(&logits, 3) - -(0.4f64.ln())).abs() < 1e-7);
        let uniform = [5.0f32; 4];
        assert!((nll(&uniform, 0) - 4f64.ln()).abs() < 1e-12);
        // Σ p ln(4p)
        let expected: f64 = [0.1, 0.2, 0.3, 0.4f64].iter().map(|p| p * (4.0 * p).ln()).sum();
        let kl = kl(&logits, log_sum_exp(&logits), &uniform, log_sum_exp(&uniform));
        assert!((kl - expected).abs() < 1e-7, "{kl} {expected}");
    }

    #[test]
    fn survives_large_logits_and_shows_nan() {
        assert!((nll(&[1e4, 1e4, -1e30], 0) - 2f64.ln()).abs() < 1e-11);
        assert!(log_sum_exp(&[1.0, f32::NAN, 2.0]).is_nan());
        assert!(!nll(&[f32::INFINITY, 0.0], 1).is_finite());
    }

    #[test]
    fn top_prefers_the_lower_index_of_equals() {
        assert_eq!(top::<3>(&[1.0, 3.0, 3.0, 2.0, 3.0]), [1, 2, 4]);
        assert_eq!(top::<1>(&[0.0, 0.0]), [0]);
    }
}
