//! The proofs: what a model is, byte order and container aside, and whether two are the same.

use crate::checkpoint::config::LinearKind;
use crate::checkpoint::role::{LayerRole, Role};
use crate::checkpoint::{Checkpoint, FloatData};
use crate::error::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tritmark_kernels::Trits;

/// SHA-256 of the weights `[out, in]`, row-major, one byte each: `0xff`, `0x00` or `0x01`.
pub fn trits_sha256(trits: &Trits) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut bytes = [0u8; 8192];
    for chunk in trits.as_slice().chunks(bytes.len()) {
        for (byte, trit) in bytes.iter_mut().zip(chunk) {
            *byte = trit.cast_unsigned();
        }
        hasher.update(&bytes[..chunk.len()]);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal digits of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Names a model by its weights, whatever container and layout hold them.
///
/// SHA-256 over the linear weights of all blocks, block by block in the order
/// [`Linear::ALL`](crate::checkpoint::role::Linear::ALL). Each contributes: outputs and inputs as
/// u64, the SHA-256 of its trits ([`trits_sha256`]), the bits of its effective scale as u32. A
/// full-precision model has no trits: the hash of its values as f32 and the scale 1 stand in.
/// All numbers are little-endian. Embeddings and norms do not count, so that a model keeps its
/// name where only their precision changes.
///
/// # Errors
/// If a weight is missing or damaged.
pub fn model_hash(checkpoint: &Checkpoint) -> Result<String> {
    let roles: Vec<Role> = checkpoint.config.linear_roles().collect();
    let parts: Vec<[u8; 52]> =
        roles.par_iter().map(|&role| weight_identity(checkpoint, role)).collect::<Result<_>>()?;
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    Ok(hex(&hasher.finalize()))
}

/// What one weight contributes to [`model_hash`].
fn weight_identity(checkpoint: &Checkpoint, role: Role) -> Result<[u8; 52]> {
    let Role::Layer(_, LayerRole::Linear(linear)) = role else {
        return Err(Error::Bug(format!("{role:?} is no linear weight")));
    };
    let (hash, scale) = match checkpoint.config.linear {
        LinearKind::Ternary => {
            let ternary = checkpoint.ternary(role)?;
            (trits_sha256(&ternary.trits), ternary.scale)
        }
        LinearKind::Float => (floats_sha256(&checkpoint.float(role)?.data), 1.0f32),
    };
    let (rows, cols) = checkpoint.config.linear_shape(linear);
    let mut part = [0; 52];
    part[..8].copy_from_slice(&(rows as u64).to_le_bytes());
    part[8..16].copy_from_slice(&(cols as u64).to_le_bytes());
    part[16..48].copy_from_slice(&hash);
    part[48..].copy_from_slice(&scale.to_bits().to_le_bytes());
    Ok(part)
}

/// SHA-256 of the values as little-endian f32.
fn floats_sha256(data: &FloatData) -> [u8; 32] {
    let mut hasher = Sha256::new();
    match data {
        FloatData::F32(v) => v.iter().for_each(|x| hasher.update(x.to_le_bytes())),
        FloatData::F16(v) => v.iter().for_each(|x| hasher.update(x.to_f32().to_le_bytes())),
        FloatData::Bf16(v) => v.iter().for_each(|x| hasher.update(x.to_f32().to_le_bytes())),
    }
    hasher.finalize().into()
}
