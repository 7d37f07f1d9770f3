//! The candle oracle: the same checkpoint in f32, without packing, without our kernels.

use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// What the reference does with the inputs of ternary matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationMode {
    /// int8 per-token absmax quantisation, as in training: differences come from float order only.
    Int8,
    /// Full precision: shows what activation quantisation costs.
    Full,
}

/// A model in candle tensors.
pub struct Reference {
    _todo: (),
}

impl Reference {
    /// Loads all weights as f32.
    ///
    /// # Errors
    /// If a tensor is missing or damaged.
    pub fn load(_checkpoint: &Checkpoint, _mode: ActivationMode) -> Result<Self> {
        todo!("reference")
    }

    /// Logits `[ids.len(), vocab]` of a text from its first position.
    ///
    /// # Errors
    /// If an id is not in the vocabulary.
    pub fn logits(&self, _ids: &[u32]) -> Result<Vec<f32>> {
        todo!("reference")
    }
}
