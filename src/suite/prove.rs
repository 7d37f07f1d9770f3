//! Packs every ternary matrix of a model into a layout and back, and compares.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::record::Proof;
use rayon::prelude::*;
use tritmark_kernels::layout::{Layout, ScaleForm};

/// Proves that `layout` holds the ternary matrices of `checkpoint`, or says what it cannot hold.
///
/// # Errors
/// If a tensor of the checkpoint is damaged.
pub fn prove(checkpoint: &Checkpoint, model: &str, layout: &dyn Layout) -> Result<Proof> {
    let roles: Vec<_> = checkpoint.config.linear_roles().collect();
    let found: Vec<Matrix> = roles
        .par_iter()
        .map(|&role| {
            let w = checkpoint.ternary(role)?;
            Ok(matrix(&w.trits, w.scale, layout))
        })
        .collect::<Result<_>>()?;
    // What was changed weighs more than what was not held.
    let changed = found.iter().find(|m| m.changed);
    let failed = changed.or_else(|| found.iter().find(|m| m.failure.is_some()));
    // Of a model that is held in part there is no size.
    let held = found.iter().all(|m| m.failure.is_none() || m.changed);
    let bytes: u64 = if held { found.iter().map(|m| m.bytes).sum() } else { 0 };
    Ok(Proof {
        model: model.into(),
        layout: layout.name().into(),
        trits_equal: failed.is_none(),
        changed: changed.is_some(),
        scale_error: found.iter().map(|m| m.scale_error).fold(0.0, f64::max),
        tensors: found.len() as u64,
        bytes,
        bits_per_weight: bytes as f64 * 8.0 / checkpoint.config.linear_params() as f64,
        failure: failed.and_then(|m| m.failure.clone()),
    })
}

#[derive(Default)]
struct Matrix {
    bytes: u64,
    scale_error: f64,
    changed: bool,
    failure: Option<String>,
}

fn matrix(trits: &tritmark_kernels::Trits, scale: f32, layout: &dyn Layout) -> Matrix {
    let failed = |failure: String| Matrix { failure: Some(failure), ..Matrix::default() };
    let mut packed = match layout.packed_len(trits.rows(), trits.cols()) {
        Ok(len) => vec![0; len],
        Err(e) => return failed(e.to_string()),
    };
    if let Err(e) = layout.pack(trits, scale, &mut packed) {
        return failed(e.to_string());
    }
    let back = match layout.unpack(trits.rows(), trits.cols(), &packed) {
        Ok(back) => back,
        Err(e) => {
            let failure = format!("what {} packed cannot be read back: {e}", layout.name());
            return Matrix { changed: true, bytes: packed.len() as u64, ..failed(failure) };
        }
    };
    if back.trits != *trits {
        let at = back.trits.as_slice().iter().zip(trits.as_slice()).position(|(a, b)| a != b).unwrap_or(0);
        let (row, col) = (at / trits.cols(), at % trits.cols());
        let failure = format!("{} changed the weight at row {row}, column {col}", layout.name());
        return Matrix { changed: true, bytes: packed.len() as u64, ..failed(failure) };
    }
    let scale_error = match (layout.scale_form(), back.scale) {
        (ScaleForm::Beside, _) | (_, None) => 0.0,
        (_, Some(stored)) => ((stored as f64 - scale as f64) / scale as f64).abs(),
    };
    if !scale_error.is_finite() {
        return failed(format!("{} cannot hold the scale {scale}", layout.name()));
    }
    Matrix { bytes: packed.len() as u64, scale_error, ..Matrix::default() }
}
