//! Loading: every tensor by its role, the ternary ones packed for the chosen kernel.

use super::{Head, LoadOptions};
use crate::checkpoint::config::{LinearKind, ModelConfig};
use crate::checkpoint::role::{LayerRole, Linear, Role};
use crate::checkpoint::{Checkpoint, FloatData};
use crate::error::{Error, Result};
use half::f16;
use std::sync::atomic::{AtomicU64, Ordering};
use tritmark_kernels::buffer::Arena;
use tritmark_kernels::float::FloatRows;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::layout::{self, Layout};
use tritmark_kernels::matmul::Matrix;
use tritmark_kernels::pool::Pool;

/// A norm's weights and epsilon.
pub(super) struct Norm {
    pub weight: Vec<f32>,
    pub eps: f32,
}

/// One of a block's seven matrices.
pub(super) struct Projection {
    pub weight: Weight,
    /// The norm of its input that belongs to it alone.
    pub norm: Option<Norm>,
}

pub(super) enum Weight {
    Ternary(Matrix),
    Float(FloatRows),
}

/// A block of the transformer.
pub(super) struct Block {
    pub attn_norm: Norm,
    pub q: Projection,
    pub k: Projection,
    pub v: Projection,
    pub q_norm: Option<Norm>,
    pub k_norm: Option<Norm>,
    pub attn_sub_norm: Option<Norm>,
    pub o: Projection,
    pub post_attn_norm: Option<Norm>,
    pub ffn_norm: Norm,
    pub gate: Projection,
    pub up: Projection,
    pub ffn_sub_norm: Option<Norm>,
    pub down: Projection,
    pub post_ffn_norm: Option<Norm>,
}

/// All tensors of a model.
pub(super) struct Weights {
    pub embedding: FloatRows,
    pub blocks: Vec<Block>,
    pub norm: Norm,
    /// `None` where the embedding is the head.
    pub head: Option<FloatRows>,
}

impl Weights {
    /// Reads all tensors.
    pub fn load(
        checkpoint: &Checkpoint,
        kernel: Option<&'static dyn Kernel>,
        precision: Head,
        pool: &Pool,
    ) -> Result<Self> {
        let loader = Loader {
            checkpoint,
            config: &checkpoint.config,
            pool,
            arena: Arena::new(),
            read: AtomicU64::new(0),
        };
        let head = (!loader.config.tied).then(|| loader.table(Role::Head, precision)).transpose()?;
        let precision = if loader.config.tied { precision } else { Head::AsIs };
        let embedding = loader.table(Role::TokenEmbedding, precision)?;
        let mut projections = match kernel {
            Some(kernel) => loader.ternary(kernel)?,
            None => loader.floats()?,
        }
        .into_iter();
        let blocks =
            (0..loader.config.layers).map(|l| loader.block(l, &mut projections)).collect::<Result<_>>()?;
        Ok(Self { embedding, blocks, norm: loader.norm(Role::OutputNorm, loader.config.norm_eps)?, head })
    }

    /// The output head.
    pub fn head(&self) -> &FloatRows {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Precision of the matrices of a full-precision model.
    pub fn precision(&self) -> &'static str {
        match self.blocks.first().map(|b| &b.q.weight) {
            Some(Weight::Float(m)) => m.precision(),
            _ => self.embedding.precision(),
        }
    }

    /// Bytes of packed ternary weights, and of everything that one decoded token reads.
    pub fn bytes(&self) -> (u64, u64) {
        // Of the embedding it is the token's own row.
        let row = self.embedding.bytes() / self.embedding.rows().max(1);
        let (mut ternary, mut other) = (0, self.head().bytes() + row);
        for projection in self.blocks.iter().flat_map(Block::projections) {
            match &projection.weight {
                Weight::Ternary(m) => ternary += m.packed().bytes().len(),
                Weight::Float(m) => other += m.bytes(),
            }
        }
        let norms = self.blocks.iter().flat_map(Block::norms).chain([&self.norm]);
        other += norms.map(|n| size_of_val(&n.weight[..])).sum::<usize>();
        (ternary as u64, (ternary + other) as u64)
    }

    /// Bytes of all that is held.
    pub fn memory(&self) -> u64 {
        // A tied head is the embedding, and counted.
        let embedding = if self.head.is_some() { self.embedding.bytes() } else { 0 };
        self.bytes().1 + embedding as u64
    }
}

impl Block {
    fn projections(&self) -> [&Projection; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        let some = [
            &self.q_norm,
            &self.k_norm,
            &self.attn_sub_norm,
            &self.ffn_sub_norm,
            &self.post_attn_norm,
            &self.post_ffn_norm,
        ];
        let inner = self.projections().into_iter().flat_map(|p| &p.norm);
        [&self.attn_norm, &self.ffn_norm].into_iter().chain(some.into_iter().flatten()).chain(inner)
    }
}

/// The kernel that options ask for.
///
/// # Errors
/// If there is no such layout, or the CPU lacks the tier.
pub(crate) fn choose_kernel(options: &LoadOptions) -> Result<&'static dyn Kernel> {
    let layout = match options.layout.as_deref() {
        None => kernel::own_layout(options.tier),
        Some(name) => layout::by_name(name).ok_or_else(|| {
            let known: Vec<_> = layout::ALL.iter().map(|l| l.name()).collect();
            Error::Usage(format!("unknown layout '{name}': expected one of {}", known.join(", ")))
        })?,
    };
    let found = match options.tier {
        Some(tier) => kernel::find(layout, tier),
        None => kernel::best(layout, None),
    };
    found.ok_or_else(|| Error::Usage(no_kernel(layout, options)))
}

fn no_kernel(layout: &dyn Layout, options: &LoadOptions) -> String {
    let tier = options.tier.map_or("any", |t| t.name());
    let has: Vec<_> =
        kernel::available().filter(|k| k.layout().name() == layout.name()).map(|k| k.tier().name()).collect();
    let lacks = match options.tier {
        Some(tier) if !tier.is_available() => "this CPU lacks the tier",
        _ => "there is no such kernel",
    };
    format!(
        "kernel {}/{tier} cannot be used: {lacks}; for {} this CPU can run: {}",
        layout.name(),
        layout.name(),
        has.join(", ")
    )
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    pool: &'a Pool,
    /// Where packed weights go.
    arena: Arena,
    /// Bytes that were copied.
    read: AtomicU64,
}

/// Bytes that are copied before the mapped files are given back, so that a model and its file are never in
/// memory both.
const RELEASE: u64 = 32 << 20;

impl Loader<'_> {
    /// Counts bytes that were copied from the checkpoint.
    fn copied(&self, bytes: usize) {
        let before = self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        if before / RELEASE != (before + bytes as u64) / RELEASE {
            self.checkpoint.release();
        }
    }

    /// All projections' weights, block by block in the order of [`Linear::ALL`].
    fn ternary(&self, kernel: &'static dyn Kernel) -> Result<Vec<Weight>> {
        let mut slots: Vec<Option<Result<Matrix>>> = Vec::new();
        slots.resize_with(self.config.layers * Linear::ALL.len(), || None);
        // For each worker a buffer of trits, so that memory is not taken anew for each matrix.
        let mut spares = vec![Vec::new(); self.pool.threads()];
        self.pool.chunks_mut_with(&mut spares, &mut slots, 1, |spare, i, slot| {
            let (layer, linear) = (i / Linear::ALL.len(), Linear::ALL[i % Linear::ALL.len()]);
            slot[0] = Some(self.matrix(layer, linear, kernel, spare));
        });
        slots.into_iter().flatten().map(|m| m.map(Weight::Ternary)).collect()
    }

    fn matrix(
        &self,
        layer: usize,
        linear: Linear,
        kernel: &'static dyn Kernel,
        spare: &mut Vec<i8>,
    ) -> Result<Matrix> {
        let role = Role::Layer(layer, LayerRole::Linear(linear));
        let found = self.checkpoint.ternary_into(role, std::mem::take(spare))?;
        self.check(role, &[found.trits.rows(), found.trits.cols()], self.config.linear_shape(linear))?;
        let packed = Packed::pack_in(&self.arena, kernel.layout(), &found.trits).map_err(|e| {
            Error::Usage(format!(
                "{}: tensor {}: {e}\n  choose another kernel with --kernel; {} holds every shape",
                self.checkpoint.provenance.name,
                self.name(role),
                kernel::own_layout(None).name()
            ))
        })?;
        *spare = found.trits.into_vec();
        self.copied(packed.bytes().len());
        Ok(Matrix::new(packed, found.scale, kernel))
    }

    fn floats(&self) -> Result<Vec<Weight>> {
        let one = |layer, linear| {
            let (rows, cols) = self.config.linear_shape(linear);
            Ok(Weight::Float(self.rows(Role::Layer(layer, LayerRole::Linear(linear)), rows, cols)?))
        };
        (0..self.config.layers).flat_map(|l| Linear::ALL.map(|linear| one(l, linear))).collect()
    }

    /// A matrix of floats of a block.
    fn rows(&self, role: Role, rows: usize, cols: usize) -> Result<FloatRows> {
        let found = self.checkpoint.float(role)?;
        self.check(role, &found.shape, (rows, cols))?;
        Ok(match &found.data {
            FloatData::F32(v) => FloatRows::from_f32(self.pool, rows, cols, v),
            FloatData::F16(v) => FloatRows::from_f16(self.pool, rows, cols, v),
            FloatData::Bf16(v) => FloatRows::from_bf16(self.pool, rows, cols, v),
        })
    }

    /// The embedding or the head; the largest tensors are never there twice.
    fn table(&self, role: Role, precision: Head) -> Result<FloatRows> {
        let (rows, cols) = (self.config.vocab, self.config.hidden);
        // One that is missing is an error of reading.
        if let Some(tensor) = self.checkpoint.info(role) {
            self.check(role, &tensor.shape, (rows, cols))?;
        }
        precision.read(self.pool, rows, cols, |band| {
            let size = band.len() * cols * size_of::<f16>();
            let data = self.checkpoint.float_rows(role, band)?.data;
            self.copied(size);
            Ok(data)
        })
    }

    fn norm(&self, role: Role, eps: f32) -> Result<Norm> {
        let len = self.config.shape(role)[0];
        let found = self.checkpoint.float(role)?;
        let weight = found.to_f32();
        if weight.len() != len {
            return Err(self.error(role, format!("expected {len} weights, found shape {:?}", found.shape)));
        }
        Ok(Norm { weight, eps })
    }

    fn block(&self, layer: usize, weights: &mut impl Iterator<Item = Weight>) -> Result<Block> {
        let c = self.config;
        let norm = |role| self.norm(Role::Layer(layer, role), c.norm_eps);
        let norm_if = |has: bool, role| has.then(|| norm(role)).transpose();
        let mut projection = |linear| {
            let role = Role::Layer(layer, LayerRole::InnerNorm(linear));
            let norm = c.inner_norm_eps.map(|eps| self.norm(role, eps)).transpose()?;
            let weight = weights.next().expect("seven weights for each block");
            Ok(Projection { weight, norm })
        };
        // In the order of `Linear::ALL`.
        let (q, k, v) = (projection(Linear::Q)?, projection(Linear::K)?, projection(Linear::V)?);
        let o = projection(Linear::O)?;
        let (gate, up, down) =
            (projection(Linear::Gate)?, projection(Linear::Up)?, projection(Linear::Down)?);
        let gemma = c.gemma.is_some();
        Ok(Block {
            attn_norm: norm(LayerRole::AttnNorm)?,
            q,
            k,
            v,
            q_norm: norm_if(c.qk_norm, LayerRole::QNorm)?,
            k_norm: norm_if(c.qk_norm, LayerRole::KNorm)?,
            attn_sub_norm: norm_if(c.sub_norms, LayerRole::AttnSubNorm)?,
            o,
            post_attn_norm: norm_if(gemma, LayerRole::PostAttnNorm)?,
            ffn_norm: norm(LayerRole::FfnNorm)?,
            gate,
            up,
            ffn_sub_norm: norm_if(c.sub_norms, LayerRole::FfnSubNorm)?,
            down,
            post_ffn_norm: norm_if(gemma, LayerRole::PostFfnNorm)?,
        })
    }

    fn check(&self, role: Role, shape: &[usize], (rows, cols): (usize, usize)) -> Result<()> {
        if shape != [rows, cols] {
            return Err(self.error(role, format!("expected shape [{rows}, {cols}], found {shape:?}")));
        }
        Ok(())
    }

    fn error(&self, role: Role, message: String) -> Error {
        Error::tensor(&self.checkpoint.provenance.name, self.name(role), message)
    }

    /// The tensor's name in the file.
    fn name(&self, role: Role) -> String {
        self.checkpoint.info(role).map_or_else(|| format!("{role:?}"), |t| t.name.clone())
    }
}

/// The kernel for a checkpoint: none for a full-precision one.
pub(super) fn kernel_for(config: &ModelConfig, options: &LoadOptions) -> Result<Option<&'static dyn Kernel>> {
    match config.linear {
        LinearKind::Ternary => choose_kernel(options).map(Some),
        LinearKind::Float if options.layout.is_some() || options.tier.is_some() => Err(Error::Usage(
            "this is a full-precision model: it has no ternary weights that a kernel could run; leave --kernel out".into(),
        )),
        LinearKind::Float => Ok(None),
    }
}
