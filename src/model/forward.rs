//! One batch through the blocks.

use super::weights::{Block, Norm, Projection, Weight, Weights};
use crate::checkpoint::config::{Activation, ModelConfig};
use std::ops::Range;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::float::KvLayer;
use tritmark_kernels::float::attention::{Attend, Scratch, attention};
use tritmark_kernels::float::elementwise::{
    Rope, add, gelu_tanh_gate, quantize, relu2_gate, rmsnorm, rmsnorm_in_place, scale, silu_gate,
};
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;

/// The state between operations, for up to a batch of tokens; reused, so that decoding does not
/// allocate.
pub(super) struct Forward {
    rope: Rope,
    /// The other rotary embedding of a Gemma 3, for layers with a window.
    local_rope: Option<Rope>,
    /// Residual stream `[tokens, hidden]`.
    x: Vec<f32>,
    /// Input of projections `[tokens, in]`.
    input: Vec<f32>,
    /// The same after a projection's own norm.
    normed: Vec<f32>,
    quantised: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What goes back to the residual stream `[tokens, hidden]`.
    out: Vec<f32>,
    scratch: Scratch,
    /// Hidden states after the last norm, of the positions asked for.
    hidden: Vec<f32>,
}

impl Forward {
    pub fn new(config: &ModelConfig) -> Self {
        let local = config.gemma.as_ref().map(|g| Rope::new(config.head_dim, g.local_rope_theta));
        Self {
            rope: Rope::new(config.head_dim, config.rope_theta),
            local_rope: local,
            x: Vec::new(),
            input: Vec::new(),
            normed: Vec::new(),
            quantised: Activations::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            attended: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            out: Vec::new(),
            scratch: Scratch::default(),
            hidden: Vec::new(),
        }
    }

    /// Runs `ids` at the positions from `start` on; returns the normed hidden states
    /// `[wanted.len(), hidden]` of the tokens `wanted`.
    pub fn run(
        &mut self,
        pool: &Pool,
        config: &ModelConfig,
        weights: &Weights,
        layers: &mut [KvLayer],
        start: usize,
        ids: &[u32],
        wanted: Range<usize>,
    ) -> &[f32] {
        let (n, hidden) = (ids.len(), config.hidden);
        self.rope.prepare(start, n);
        if let Some(rope) = &mut self.local_rope {
            rope.prepare(start, n);
        }
        self.x.resize(n * hidden, 0.0);
        let factor = config.gemma.as_ref().map(|_| (hidden as f32).sqrt());
        pool.chunks_mut(&mut self.x, hidden, |t, x| {
            weights.embedding.row(ids[t] as usize, x);
            if let Some(factor) = factor {
                scale(x, factor);
            }
        });
        for (i, (block, cache)) in weights.blocks.iter().zip(layers).enumerate() {
            self.attend(pool, config, block, cache, i, start);
            self.feed_forward(pool, config, block);
        }
        self.hidden.resize(wanted.len() * hidden, 0.0);
        let x = &self.x[wanted.start * hidden..];
        pool.chunks_mut(&mut self.hidden, hidden, |t, out| {
            weights.norm.apply(&x[t * hidden..][..hidden], out);
        });
        &self.hidden
    }

    fn attend(
        &mut self,
        pool: &Pool,
        config: &ModelConfig,
        block: &Block,
        cache: &mut KvLayer,
        layer: usize,
        start: usize,
    ) {
        let (hidden, dim) = (config.hidden, config.head_dim);
        let (q_width, kv_width) = (config.heads * dim, config.kv_heads * dim);
        let n = self.x.len() / hidden;
        self.q.resize(n * q_width, 0.0);
        self.k.resize(n * kv_width, 0.0);
        self.v.resize(n * kv_width, 0.0);
        self.input.resize(n * hidden, 0.0);
        let x = &self.x;
        project(
            pool,
            [(&block.q, &mut self.q), (&block.k, &mut self.k), (&block.v, &mut self.v)],
            &mut self.input,
            hidden,
            &mut self.normed,
            &mut self.quantised,
            |t, input| block.attn_norm.apply(&x[t * hidden..][..hidden], input),
        );
        let gemma = config.gemma.as_ref();
        let local = gemma.filter(|g| g.windowed[layer]);
        let rope = self.local_rope.as_ref().filter(|_| local.is_some()).unwrap_or(&self.rope);
        pool.chunks_mut2((&mut self.q, q_width), (&mut self.k, kv_width), |t, q, k| {
            for (heads, norm) in [(q, &block.q_norm), (k, &block.k_norm)] {
                if let Some(norm) = norm {
                    heads.chunks_exact_mut(dim).for_each(|head| norm.apply_in_place(head));
                }
                rope.apply(t, heads);
            }
        });
        cache.write(pool, start, &self.k, &self.v);
        self.attended.resize(n * q_width, 0.0);
        let how = Attend {
            heads: config.heads,
            scale: (1.0 / gemma.map_or(dim as f64, |g| g.query_pre_attn_scalar).sqrt()) as f32,
            window: local.map_or(usize::MAX, |g| g.window),
        };
        attention(pool, cache, how, start, &self.q, &mut self.attended, &mut self.scratch);
        self.out.resize(n * hidden, 0.0);
        project(
            pool,
            [(&block.o, &mut self.out)],
            &mut self.attended,
            q_width,
            &mut self.normed,
            &mut self.quantised,
            |_, input| {
                if let Some(norm) = &block.attn_sub_norm {
                    norm.apply_in_place(input);
                }
            },
        );
        self.back(pool, hidden, block.post_attn_norm.as_ref());
    }

    fn feed_forward(&mut self, pool: &Pool, config: &ModelConfig, block: &Block) {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let n = self.x.len() / hidden;
        self.gate.resize(n * ffn, 0.0);
        self.up.resize(n * ffn, 0.0);
        self.input.resize(n * hidden, 0.0);
        let x = &self.x;
        project(
            pool,
            [(&block.gate, &mut self.gate), (&block.up, &mut self.up)],
            &mut self.input,
            hidden,
            &mut self.normed,
            &mut self.quantised,
            |t, input| block.ffn_norm.apply(&x[t * hidden..][..hidden], input),
        );
        let up = &self.up;
        project(
            pool,
            [(&block.down, &mut self.out)],
            &mut self.gate,
            ffn,
            &mut self.normed,
            &mut self.quantised,
            |t, gate| {
                let up = &up[t * ffn..][..ffn];
                match config.activation {
                    Activation::Relu2 => relu2_gate(gate, up),
                    Activation::Silu => silu_gate(gate, up),
                    Activation::GeluTanh => gelu_tanh_gate(gate, up),
                }
                if let Some(norm) = &block.ffn_sub_norm {
                    norm.apply_in_place(gate);
                }
            },
        );
        self.back(pool, hidden, block.post_ffn_norm.as_ref());
    }

    /// Adds `out` to the residual stream.
    fn back(&mut self, pool: &Pool, hidden: usize, norm: Option<&Norm>) {
        pool.chunks_mut2((&mut self.x, hidden), (&mut self.out, hidden), |_, x, out| {
            if let Some(norm) = norm {
                norm.apply_in_place(out);
            }
            add(x, out);
        });
    }
}

impl Norm {
    fn apply(&self, x: &[f32], out: &mut [f32]) {
        rmsnorm(x, &self.weight, self.eps, out);
    }

    fn apply_in_place(&self, x: &mut [f32]) {
        rmsnorm_in_place(x, &self.weight, self.eps);
    }
}

/// Projections of one input `[tokens, width]` into outputs `[tokens, out]`. `prepare(token, row)`
/// completes a token's row of the input first.
fn project<const N: usize>(
    pool: &Pool,
    projections: [(&Projection, &mut Vec<f32>); N],
    input: &mut [f32],
    width: usize,
    normed: &mut Vec<f32>,
    quantised: &mut Activations,
    prepare: impl Fn(usize, &mut [f32]) + Sync,
) {
    let n = input.len() / width;
    let shared: [Option<&Matrix>; N] = std::array::from_fn(|i| match projections[i].0 {
        Projection { weight: Weight::Ternary(m), norm: None } => Some(m),
        _ => None,
    });
    if shared.iter().all(Option::is_some) {
        quantise(pool, input, width, quantised, prepare);
        let matrices = shared.map(|m| m.expect("all are there"));
        let mut outs = projections.map(|(_, out)| &mut out[..]);
        return matmul(pool, &matrices, quantised, &mut outs);
    }
    pool.chunks_mut(input, width, |t, row| prepare(t, row));
    let input = &*input;
    for (projection, out) in projections {
        normed.resize(input.len(), 0.0);
        let norm = |t: usize, row: &mut [f32]| {
            let from = &input[t * width..][..width];
            match &projection.norm {
                Some(norm) => norm.apply(from, row),
                None => row.copy_from_slice(from),
            }
        };
        match &projection.weight {
            Weight::Ternary(m) => {
                quantise(pool, normed, width, quantised, norm);
                matmul(pool, &[m], quantised, &mut [out]);
            }
            Weight::Float(m) if projection.norm.is_none() => m.matmul(pool, input, n, out),
            Weight::Float(m) => {
                pool.chunks_mut(normed, width, |t, row| norm(t, row));
                m.matmul(pool, normed, n, out);
            }
        }
    }
}

/// Completes and quantises each token's row while it is in the cache.
fn quantise(
    pool: &Pool,
    input: &mut [f32],
    width: usize,
    quantised: &mut Activations,
    prepare: impl Fn(usize, &mut [f32]) + Sync,
) {
    quantised.resize(input.len() / width, width);
    let stride = quantised.stride();
    let (rows, quants) = quantised.parts_mut();
    pool.chunks_mut3((input, width), (rows, stride), (quants, 1), |t, row, q, quant| {
        prepare(t, row);
        quant[0] = quantize(row, q);
    });
}
