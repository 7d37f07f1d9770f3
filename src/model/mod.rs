//! The forward pass: floats in one order around exact integer products.
//!
//! One code path with a fixed order of every reduction, so logits are equal bit for bit over
//! layouts, tiers, thread counts, and ways to cut a text into batches.
//!
//! What lies between two matrices (residual stream, norms, gates, quantisation) is computed in f64 and
//! the scores of attention are summed in parts. int8 activations make this worth while: a value that
//! falls on the other side of a rounding border changes the logits by far more than all rounding
//! errors of floats together, and how often that happens is proportional to these errors.

mod forward;
pub mod generate;
mod head;
pub mod sample;
pub mod text;
mod weights;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::ModelConfig;
use crate::error::{Error, Result};
use forward::Forward;
pub use head::Head;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tritmark_kernels::Tier;
use tritmark_kernels::float::KvLayer;
use tritmark_kernels::kernel::Kernel;
use tritmark_kernels::pool::Pool;
use weights::Weights;
pub(crate) use weights::choose_kernel;

/// Tokens that go through the blocks together; longer batches are cut.
pub const BATCH: usize = 512;

/// More threads than any machine that this runs on has.
const MAX_THREADS: usize = 4096;

/// Proves that so many threads can be asked for.
///
/// # Errors
/// If there are none or more than any machine has.
pub fn check_threads(threads: usize) -> Result<()> {
    if (1..=MAX_THREADS).contains(&threads) {
        return Ok(());
    }
    Err(Error::Usage(format!("threads: expected 1 to {MAX_THREADS}, found {threads}")))
}

/// How to run a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Layout of the ternary weights in memory; `None` takes the fastest for this CPU.
    pub layout: Option<String>,
    /// Tier of the kernels; `None` takes the highest that this CPU has.
    pub tier: Option<Tier>,
    /// Threads of the pool.
    pub threads: usize,
    /// Precision of the output head, and of a tied embedding with it. With any other than as the
    /// checkpoint stores it, logits are no longer the checkpoint's.
    pub head: Head,
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
    config: ModelConfig,
    kernel: Option<&'static dyn Kernel>,
    weights: Weights,
    head: Head,
    pool: Arc<Pool>,
    forward: Forward,
    logits: Vec<f32>,
    load_seconds: f64,
    /// The checkpoint's file or directory.
    path: PathBuf,
}

/// Keys and values of the positions seen so far.
pub struct KvCache {
    layers: Vec<KvLayer>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// Number of positions that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every position from `len` on, so that another text, or the same again, can follow.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Model {
    /// Loads every tensor and repacks the ternary ones for the chosen kernels.
    ///
    /// # Errors
    /// If a tensor is missing or damaged, or the layout, the tier or the head's precision cannot be used.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        check_threads(options.threads)?;
        let start = Instant::now();
        let config = checkpoint.config.clone();
        let kernel = weights::kernel_for(&config, options)?;
        let pool = Pool::shared(options.threads);
        let weights = Weights::load(checkpoint, kernel, options.head, &pool)?;
        // Everything was copied, so the files need not be in memory any more.
        checkpoint.release();
        let forward = Forward::new(&config);
        let (head, logits) = (options.head, Vec::new());
        let load_seconds = start.elapsed().as_secs_f64();
        let path = checkpoint.provenance.path().to_owned();
        Ok(Self { config, kernel, weights, head, pool, forward, logits, load_seconds, path })
    }

    /// Its hyperparameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Seconds that reading, checking and repacking it took.
    pub fn load_seconds(&self) -> f64 {
        self.load_seconds
    }

    /// Name of the kernel that runs the ternary matrices, e.g. `i2_s/avx512vnni`; for a
    /// full-precision model the precision of its matrices, e.g. `bf16`.
    pub fn kernel(&self) -> String {
        self.kernel.map_or_else(|| self.weights.precision().into(), |k| k.name())
    }

    /// Precision of the output head, e.g. `bf16`.
    pub fn head_precision(&self) -> &'static str {
        match self.head {
            Head::AsIs => self.weights.head().precision(),
            rounded => rounded.name(),
        }
    }

    /// What makes its logits others than its kernel alone would say: the precision of a full-precision
    /// model, and that of a head that was rounded.
    pub fn variant(&self) -> Option<String> {
        let float = self.kernel.is_none().then(|| self.weights.precision().to_owned());
        let head = (self.head != Head::AsIs).then(|| format!("head {}", self.head.name()));
        let parts: Vec<String> = float.into_iter().chain(head).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Threads that it runs on.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes of packed ternary weights, and of everything that one decoded token reads beside the
    /// cache.
    pub fn bytes(&self) -> (u64, u64) {
        self.weights.bytes()
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> u64 {
        self.weights.memory()
    }

    /// A cache for up to `positions` positions. Its memory is taken as it is filled.
    pub fn new_cache(&self, positions: usize) -> KvCache {
        let ModelConfig { layers, kv_heads, head_dim, .. } = self.config;
        let layers = (0..layers).map(|_| KvLayer::new(kv_heads, head_dim, positions)).collect();
        KvCache { layers, len: 0, capacity: positions }
    }

    /// Bytes of a full cache of that many positions.
    pub fn cache_bytes(&self, positions: usize) -> u64 {
        let ModelConfig { layers, kv_heads, head_dim, .. } = self.config;
        (2 * layers * kv_heads * head_dim * positions * size_of::<f32>()) as u64
    }

    /// Runs `ids` after what `cache` holds and appends them to it. Returns f32 logits
    /// `[positions asked for, vocab]`.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, the cache is full, the text gets longer than what the
    /// model was made for, or what comes out is not finite; the cache is then as before.
    pub fn forward(&mut self, cache: &mut KvCache, ids: &[u32], logits: Logits) -> Result<&[f32]> {
        let mut out = std::mem::take(&mut self.logits);
        let (vocab, mut done) = (self.config.vocab, 0);
        let before = cache.len;
        let result = self.run(cache, ids, logits, |pool, weights, hidden, count| {
            // Not cleared before: the head writes over what the last pass left.
            out.resize(done + count * vocab, 0.0);
            weights.head().matmul(pool, hidden, count, &mut out[done..]);
            done = out.len();
        });
        out.truncate(done);
        self.logits = out;
        result?;
        // All at once, as vectors do it; the place matters only where one is found.
        let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
        if self.logits.iter().fold(0, |most, x| most.max(magnitude(x))) >= f32::INFINITY.to_bits() {
            cache.truncate(before);
            let at = self.logits.iter().position(|x| !x.is_finite()).unwrap_or_default() % vocab;
            let what = format!("the logit of token {at} is not finite, so a weight of the head is damaged");
            return Err(Error::input(&self.path, what).hint("`tritmark verify` tells which"));
        }
        Ok(&self.logits)
    }

    /// As [`forward`](Self::forward), but returns the hidden states after the last norm,
    /// `[positions asked for, hidden]`.
    ///
    /// # Errors
    /// As there.
    pub fn hidden(&mut self, cache: &mut KvCache, ids: &[u32], positions: Logits) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.run(cache, ids, positions, |_, _, hidden, _| out.extend_from_slice(hidden))?;
        Ok(out)
    }

    /// The embedding of a text: the last position's hidden state, scaled to length 1.
    ///
    /// # Errors
    /// If `ids` is empty, or as [`forward`](Self::forward).
    pub fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Err(Error::Usage("a text without tokens has no embedding".into()));
        }
        let mut cache = self.new_cache(ids.len());
        let mut hidden = self.hidden(&mut cache, ids, Logits::Last)?;
        let length = hidden.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        hidden.iter_mut().for_each(|v| *v = (f64::from(*v) / length.max(1e-12)) as f32);
        Ok(hidden)
    }

    /// Runs `ids` in batches and hands the hidden states of the positions asked for, and their number,
    /// on.
    fn run(
        &mut self,
        cache: &mut KvCache,
        ids: &[u32],
        wanted: Logits,
        mut take: impl FnMut(&Pool, &Weights, &[f32], usize),
    ) -> Result<()> {
        let Self { config, weights, pool, forward, path, .. } = self;
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= config.vocab) {
            return Err(Error::Usage(format!(
                "token {at} is {id}, but the model's vocabulary ends at {}",
                config.vocab - 1
            )));
        }
        let end = cache.len + ids.len();
        if end > config.context {
            return Err(Error::Usage(format!(
                "{end} positions are too many: the model was made for {}",
                config.context
            )));
        }
        if end > cache.capacity {
            return Err(Error::Usage(format!(
                "{end} positions are too many: the cache has room for {}",
                cache.capacity
            )));
        }
        let before = cache.len;
        let first = match wanted {
            Logits::None => ids.len(),
            Logits::Last => ids.len().saturating_sub(1),
            Logits::From(first) => first,
        };
        for (batch, ids) in (0..).step_by(BATCH).zip(ids.chunks(BATCH)) {
            let wanted = first.saturating_sub(batch).min(ids.len())..ids.len();
            let count = wanted.len();
            let hidden = forward.run(pool, config, weights, cache, ids, wanted);
            if let Some(at) = hidden.iter().position(|x| !x.is_finite()) {
                cache.truncate(before);
                let position = before + batch + ids.len() - count + at / config.hidden;
                let what = format!("at position {position} its state is not finite, so a weight is damaged");
                return Err(Error::input(path, what).hint("`tritmark verify` tells which"));
            }
            if count > 0 {
                take(pool, weights, hidden, count);
            }
        }
        Ok(())
    }
}
