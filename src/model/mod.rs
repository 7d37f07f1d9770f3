//! The forward pass: f32 around exact integer products.
//!
//! One code path with a fixed order of every reduction, so logits are equal bit for bit over
//! layouts, tiers and thread counts.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::ModelConfig;
use crate::error::Result;
use tritmark_kernels::Tier;

/// How to run a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Layout of the ternary weights in memory; `None` takes the fastest for this CPU.
    pub layout: Option<String>,
    /// Tier of the kernels; `None` takes the highest that this CPU has.
    pub tier: Option<Tier>,
    /// Threads of the pool.
    pub threads: usize,
}

/// Which positions' logits a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: fill the cache only.
    None,
    /// The last position's.
    Last,
    /// Every position's from this index of the batch on.
    From(usize),
}

/// A loaded model.
pub struct Model {
    _todo: (),
}

/// Keys and values of the positions seen so far.
pub struct KvCache {
    _todo: (),
}

impl Model {
    /// Loads every tensor and repacks the ternary ones for the chosen kernels.
    ///
    /// # Errors
    /// If a tensor is missing or damaged, or the layout or tier cannot be used.
    pub fn load(_checkpoint: &Checkpoint, _options: &LoadOptions) -> Result<Self> {
        todo!("model")
    }

    /// Its hyperparameters.
    pub fn config(&self) -> &ModelConfig {
        todo!("model")
    }

    /// Name of the kernel that runs the ternary matrices, e.g. `i2_s/avx512vnni`.
    pub fn kernel(&self) -> String {
        todo!("model")
    }

    /// Bytes of packed ternary weights, and of everything that one decoded token reads.
    pub fn bytes(&self) -> (u64, u64) {
        todo!("model")
    }

    /// A cache for up to `positions` positions.
    pub fn new_cache(&self, _positions: usize) -> KvCache {
        todo!("model")
    }

    /// Runs `ids` after what `cache` holds and appends them to it. Returns f32 logits
    /// `[positions asked for, vocab]`.
    ///
    /// # Errors
    /// If an id is not in the vocabulary or the cache is full.
    pub fn forward(&mut self, _cache: &mut KvCache, _ids: &[u32], _logits: Logits) -> Result<&[f32]> {
        todo!("model")
    }
}
