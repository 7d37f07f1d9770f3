//! One batch through the blocks.

use super::KvCache;
use super::weights::{Block, Norm, Projection, Weight, Weights};
use crate::checkpoint::config::{Activation, ModelConfig};
use std::cell::Cell;
use std::ops::Range;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::float::KvLayer;
use tritmark_kernels::float::attention::{Attend, Scratch, attention};
use tritmark_kernels::float::elementwise::{
    Rope, add, gelu_tanh_gate, narrow, quantize, relu2_gate, rmsnorm, silu_gate, widen,
};
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;

/// What a model needs besides its weights.
pub(super) struct Forward {
    rope: Rope,
    /// The other rotary embedding of a Gemma 3, for layers with a window.
    local_rope: Option<Rope>,
    /// Hidden states after the last norm, of the positions asked for.
    hidden: Vec<f32>,
}

/// The state between operations, for up to a batch of tokens; reused, so that decoding does not
/// allocate.
#[derive(Default)]
struct Work {
    /// Residual stream `[tokens, hidden]`.
    x: Vec<f64>,
    /// For each worker the row of the token at hand.
    rows: Vec<Vec<f64>>,
    /// Input of a float matrix `[tokens, in]`.
    input: Vec<f32>,
    /// Input of ternary matrices.
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
}

thread_local! {
    /// One for all models, so that none is faster than another by where its own would have come to lie.
    static WORK: Cell<Work> = Cell::default();
}

impl Forward {
    pub fn new(config: &ModelConfig) -> Self {
        let local = config.gemma.as_ref().map(|g| Rope::new(config.head_dim, g.local_rope_theta));
        let rope = Rope::new(config.head_dim, config.rope_theta);
        Self { rope, local_rope: local, hidden: Vec::new() }
    }

    /// Runs `ids` at the positions after those of `cache` and appends them to it; returns the normed hidden states
    /// `[wanted.len(), hidden]` of the tokens `wanted`.
    pub fn run(
        &mut self,
        pool: &Pool,
        config: &ModelConfig,
        weights: &Weights,
        cache: &mut KvCache,
        ids: &[u32],
        wanted: Range<usize>,
    ) -> &[f32] {
        let (n, hidden, start) = (ids.len(), config.hidden, cache.len);
        self.rope.prepare(start, n);
        if let Some(rope) = &mut self.local_rope {
            rope.prepare(start, n);
        }
        let mut work = WORK.take();
        work.rows.resize(pool.threads(), Vec::new());
        work.x.resize(n * hidden, 0.0);
        let factor = if config.gemma.is_some() { (hidden as f64).sqrt() } else { 1.0 };
        work.out.resize(n * hidden, 0.0);
        pool.chunks_mut2((&mut work.x, hidden), (&mut work.out, hidden), |t, x, row| {
            weights.embedding.row(ids[t] as usize, row);
            widen(row, x);
            x.iter_mut().for_each(|v| *v *= factor);
        });
        for (i, (block, cache)) in weights.blocks.iter().zip(&mut cache.layers).enumerate() {
            let local = config.gemma.as_ref().filter(|g| g.windowed[i]);
            let rope = self.local_rope.as_ref().filter(|_| local.is_some()).unwrap_or(&self.rope);
            let window = local.map_or(usize::MAX, |g| g.window);
            work.attend(pool, config, block, cache, (rope, window), start);
            work.feed_forward(pool, config, block);
        }
        cache.len += n;
        self.hidden.resize(wanted.len() * hidden, 0.0);
        let x = &work.x[wanted.start * hidden..];
        pool.chunks_mut_with(&mut work.rows, &mut self.hidden, hidden, |row, t, out| {
            row.clear();
            row.extend_from_slice(&x[t * hidden..][..hidden]);
            weights.norm.apply(row);
            narrow(row, out);
        });
        WORK.set(work);
        &self.hidden
    }
}

impl Work {
    fn attend(
        &mut self,
        pool: &Pool,
        config: &ModelConfig,
        block: &Block,
        cache: &mut KvLayer,
        (rope, window): (&Rope, usize),
        start: usize,
    ) {
        let (hidden, dim) = (config.hidden, config.head_dim);
        let (q_width, kv_width) = (config.heads * dim, config.kv_heads * dim);
        let n = self.x.len() / hidden;
        self.q.resize(n * q_width, 0.0);
        self.k.resize(n * kv_width, 0.0);
        self.v.resize(n * kv_width, 0.0);
        let x = &self.x;
        let mut inputs =
            Inputs { pool, rows: &mut self.rows, float: &mut self.input, int8: &mut self.quantised };
        inputs.project(
            [(&block.q, &mut self.q), (&block.k, &mut self.k), (&block.v, &mut self.v)],
            (n, hidden),
            |t, row| {
                row.copy_from_slice(&x[t * hidden..][..hidden]);
                block.attn_norm.apply(row);
            },
        );
        pool.chunks_mut2((&mut self.q, q_width), (&mut self.k, kv_width), |t, q, k| {
            rope.apply(t, q, block.q_norm.as_ref().map(|n| (&n.weight[..], n.eps)));
            rope.apply(t, k, block.k_norm.as_ref().map(|n| (&n.weight[..], n.eps)));
        });
        cache.write(pool, start, &self.k, &self.v);
        self.attended.resize(n * q_width, 0.0);
        let scalar = config.gemma.as_ref().map_or(dim as f64, |g| g.query_pre_attn_scalar);
        let how = Attend { heads: config.heads, scale: (1.0 / scalar.sqrt()) as f32, window };
        attention(pool, cache, how, start, &self.q, &mut self.attended, &mut self.scratch);
        let attended = &self.attended;
        inputs.project([(&block.o, &mut self.out)], (n, q_width), |t, row| {
            widen(&attended[t * q_width..][..q_width], row);
            if let Some(norm) = &block.attn_sub_norm {
                norm.apply(row);
            }
        });
        self.back(pool, hidden, block.post_attn_norm.as_ref());
    }

    fn feed_forward(&mut self, pool: &Pool, config: &ModelConfig, block: &Block) {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let n = self.x.len() / hidden;
        self.gate.resize(n * ffn, 0.0);
        self.up.resize(n * ffn, 0.0);
        let x = &self.x;
        let mut inputs =
            Inputs { pool, rows: &mut self.rows, float: &mut self.input, int8: &mut self.quantised };
        inputs.project([(&block.gate, &mut self.gate), (&block.up, &mut self.up)], (n, hidden), |t, row| {
            row.copy_from_slice(&x[t * hidden..][..hidden]);
            block.ffn_norm.apply(row);
        });
        let (gate, up) = (&self.gate, &self.up);
        inputs.project([(&block.down, &mut self.out)], (n, ffn), |t, row| {
            let (gate, up) = (&gate[t * ffn..][..ffn], &up[t * ffn..][..ffn]);
            match config.activation {
                Activation::Relu2 => relu2_gate(gate, up, row),
                Activation::Silu => silu_gate(gate, up, row),
                Activation::GeluTanh => gelu_tanh_gate(gate, up, row),
            }
            if let Some(norm) = &block.ffn_sub_norm {
                norm.apply(row);
            }
        });
        self.back(pool, hidden, block.post_ffn_norm.as_ref());
    }

    /// Adds `out` to the residual stream.
    fn back(&mut self, pool: &Pool, hidden: usize, norm: Option<&Norm>) {
        let (x, out) = ((&mut self.x[..], hidden), (&mut self.out[..], hidden));
        pool.chunks_mut2_with(&mut self.rows, x, out, |row, _, x, out| {
            if let Some(norm) = norm {
                row.resize(hidden, 0.0);
                widen(out, row);
                norm.apply(row);
                narrow(row, out);
            }
            add(x, out);
        });
    }
}

impl Norm {
    fn apply(&self, x: &mut [f64]) {
        rmsnorm(x, &self.weight, self.eps);
    }
}

/// Where inputs of projections are put together.
struct Inputs<'a> {
    pool: &'a Pool,
    rows: &'a mut [Vec<f64>],
    float: &'a mut Vec<f32>,
    int8: &'a mut Activations,
}

impl Inputs<'_> {
    /// Projections of one input of shape (tokens, width) into outputs `[tokens, out]`.
    /// `row(token, to)` computes a token of it.
    fn project<const N: usize>(
        &mut self,
        projections: [(&Projection, &mut Vec<f32>); N],
        (tokens, width): (usize, usize),
        row: impl Fn(usize, &mut [f64]) + Sync,
    ) {
        let shared: [Option<&Matrix>; N] = std::array::from_fn(|i| match projections[i].0 {
            Projection { weight: Weight::Ternary(m), norm: None } => Some(m),
            _ => None,
        });
        if shared.iter().all(Option::is_some) {
            self.quantise(tokens, width, row);
            let matrices = shared.map(|m| m.expect("all are there"));
            let mut outs = projections.map(|(_, out)| &mut out[..]);
            return matmul(self.pool, &matrices, self.int8, &mut outs);
        }
        for (projection, out) in projections {
            let row = |t: usize, to: &mut [f64]| {
                row(t, to);
                if let Some(norm) = &projection.norm {
                    norm.apply(to);
                }
            };
            match &projection.weight {
                Weight::Ternary(m) => {
                    self.quantise(tokens, width, row);
                    matmul(self.pool, &[m], self.int8, &mut [out]);
                }
                Weight::Float(m) => {
                    self.float.resize(tokens * width, 0.0);
                    self.pool.chunks_mut_with(self.rows, self.float, width, |scratch, t, to| {
                        scratch.resize(width, 0.0);
                        row(t, scratch);
                        narrow(scratch, to);
                    });
                    m.matmul(self.pool, self.float, tokens, out);
                }
            }
        }
    }

    fn quantise(&mut self, tokens: usize, width: usize, row: impl Fn(usize, &mut [f64]) + Sync) {
        self.int8.resize(tokens, width);
        let stride = self.int8.stride();
        let (rows, quants) = self.int8.parts_mut();
        self.pool.chunks_mut2_with(self.rows, (rows, stride), (quants, 1), |scratch, t, q, quant| {
            scratch.resize(width, 0.0);
            row(t, scratch);
            quant[0] = quantize(scratch, q);
        });
    }
}
