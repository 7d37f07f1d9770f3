//! Which arrangement the bytes of I2_S tensors have, told from the weights themselves.
//!
//! The wrong arrangement permutes columns. Training leaves a trace that tells: inputs that a norm
//! makes large are used by more weights, so the share of non-zero weights in a column correlates with
//! the norm's weight for that input (0.6 to 0.8 in a trained model, about 0.2 after the wrong
//! permutation). Untrained models have no such trace, and nothing is claimed about them.

use tritmark_kernels::layout::Layout;

/// Rows of a matrix that are looked at.
const ROWS: usize = 512;

/// Smallest mean correlation, and smallest lead over the second best in standard errors, that count
/// as told. The lead of pure noise exceeds 6 once in a thousand million files.
const CORRELATION: f64 = 0.1;
const LEAD: f64 = 6.0;

/// A matrix and the norm of its inputs.
pub struct Evidence<'a> {
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// One weight for each column.
    pub norm: Vec<f32>,
}

/// The candidate that the evidence tells; `None` where it does not.
pub fn tell(candidates: &[&'static dyn Layout], evidence: &[Evidence]) -> Option<&'static dyn Layout> {
    // Fisher's z, whose standard error depends on the number of columns alone.
    let score = |layout: &dyn Layout| -> (f64, f64) {
        let (mut sum, mut correlation) = (0.0, 0.0);
        for e in evidence {
            let r = correlate(&density(layout, e), &e.norm).clamp(-0.999, 0.999);
            sum += r.atanh() * (e.cols.saturating_sub(3) as f64).sqrt();
            correlation += r / evidence.len() as f64;
        }
        (sum / (2.0 * evidence.len() as f64).sqrt(), correlation)
    };
    let mut scores: Vec<_> = candidates.iter().map(|&layout| (score(layout), layout)).collect();
    scores.sort_by(|a, b| b.0.0.total_cmp(&a.0.0));
    match scores.as_slice() {
        [(best, layout), (second, _), ..] if best.1 >= CORRELATION && best.0 - second.0 >= LEAD => {
            Some(*layout)
        }
        _ => None,
    }
}

/// Non-zero weights of each column among the first rows.
fn density(layout: &dyn Layout, e: &Evidence) -> Vec<f32> {
    let (mut counts, mut row) = (vec![0f32; e.cols], vec![0i8; e.cols]);
    for r in 0..e.rows.min(ROWS) {
        layout.unpack_row(e.rows, e.cols, e.bytes, r, &mut row);
        for (count, trit) in counts.iter_mut().zip(&row) {
            *count += f32::from(*trit & 1);
        }
    }
    counts
}

/// Pearson's correlation; 0 where one side does not vary.
fn correlate(a: &[f32], b: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x) - ma, f64::from(y) - mb);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    let r = ab / (aa * bb).sqrt();
    if r.is_finite() { r } else { 0.0 }
}
