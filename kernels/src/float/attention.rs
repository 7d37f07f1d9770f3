//! Causal attention over a cache of keys and values.
//!
//! Positions are cut into blocks of [`BLOCK`], counted from the start of the text. For each block a
//! query gets scores, their maximum m, the sum l of `e^(score - m)`, and the values weighted by these
//! exponentials; the blocks' results are then merged in order (the online softmax of Milakov and
//! Gimelshein, arXiv:1805.02867, as FlashAttention uses it). The cut depends on nothing but the
//! position, so a query's result is the same in any batch and on any number of threads, whoever
//! computes its blocks; as long as all keys and values are finite, since those of positions that it
//! does not see are multiplied by 0 where another query of its tile sees them.

use super::elementwise::{exp1, exponentials};
use super::on_every_level;
use super::simd::Simd;
use super::tile::{Line, Lines, PANEL, for_each_tile, multiply, product};
use crate::buffer::{Array, AtLine};
use crate::pool::{Parts, Pool};
use crate::tier::prefetch_l2;
use crate::tuning;
use std::ops::Range;

/// Positions of a block.
const BLOCK: usize = 256;

/// Dimensions that are summed in a row; the sums of these parts are then added. Scores stand in an
/// exponent, so their rounding errors weigh more than those of other sums.
const PART: usize = 16;

/// How many lines ahead memory is asked for: keys and values of a short text are sequences that end before the
/// CPU has seen that they are some.
const AHEAD: usize = 48;

/// Queries of a tile, on any CPU: how many share a pass over keys and values.
const TILE: usize = 12;

/// Keys and values of one layer, f32, in the order in which attention reads them.
pub struct KvLayer {
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    /// For each head and each 32 positions a panel `[head_dim]` of lines of positions.
    keys: Lines<f32>,
    /// For each head and each 32 of its dimensions a panel `[capacity]` of lines of dimensions.
    values: Lines<f32>,
}

impl KvLayer {
    /// Room for at least `capacity` positions; memory is taken as it is written to.
    ///
    /// # Panics
    /// If there is no head, or its width is 0, or no memory holds so much.
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        assert!(kv_heads > 0 && head_dim > 0, "a head or more, of a width");
        let capacity = capacity.checked_next_multiple_of(BLOCK).expect("positions that memory can hold");
        Self {
            kv_heads,
            head_dim,
            capacity,
            keys: Lines::new(product(&[kv_heads, capacity / PANEL, head_dim])),
            values: Lines::new(product(&[kv_heads, head_dim.div_ceil(PANEL), capacity])),
        }
    }

    /// Writes keys and values `[tokens, kv_heads * head_dim]` at the positions from `start` on.
    ///
    /// # Panics
    /// If the slices have the wrong length or the positions are not there.
    pub fn write(&mut self, pool: &Pool, start: usize, keys: &[f32], values: &[f32]) {
        let (dim, width) = (self.head_dim, self.kv_heads * self.head_dim);
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(width));
        let end = start.checked_add(keys.len() / width).filter(|end| *end <= self.capacity);
        let end = end.expect("the cache has no such positions");
        let (key_lines, value_lines) = self.lines();
        let (capacity, kv_heads) = (self.capacity, self.kv_heads);
        let (k, v) = (Parts::new(&mut self.keys[..]), Parts::new(&mut self.values[..]));
        // By panels of positions, so that most of what a thread reads here is what it computed.
        let first = start / PANEL;
        pool.tasks(end.div_ceil(PANEL) - first, |_, task| {
            let panel = first + task;
            for head in 0..kv_heads {
                // SAFETY: each panel of a head belongs to one task, and each task comes once.
                let lines = unsafe { k.get(head * key_lines + panel * dim, dim) };
                for position in start.max(panel * PANEL)..end.min((panel + 1) * PANEL) {
                    let at = (position - start) * width + head * dim;
                    for (line, v) in lines.iter_mut().zip(&keys[at..]) {
                        line.0[position % PANEL] = *v;
                    }
                    for (group, part) in values[at..at + dim].chunks(PANEL).enumerate() {
                        // SAFETY: each position belongs to one panel, so to one task.
                        let line = unsafe { v.get(head * value_lines + group * capacity + position, 1) };
                        line[0].0[..part.len()].copy_from_slice(part);
                    }
                }
            }
        });
    }

    /// Lines of keys and of values of one head.
    fn lines(&self) -> (usize, usize) {
        (self.capacity / PANEL * self.head_dim, self.head_dim.div_ceil(PANEL) * self.capacity)
    }
}

/// What the threads of a pool need to compute attention, reusable without allocating.
#[derive(Debug, Default)]
pub struct Scratch {
    workers: Vec<Work>,
    /// Partial results of a single token's blocks.
    partial: Vec<Partial>,
    dim: usize,
}

/// The state of one tile of queries.
#[derive(Debug)]
struct Work {
    /// Queries `[TILE, head_dim]`.
    queries: Array<f32>,
    /// Scores, then exponentials `[TILE, BLOCK]`.
    scores: Array<f32>,
    /// The block at hand.
    block: Partial,
    /// All blocks so far.
    merged: Partial,
}

/// Results over some positions: for each query of a tile the maximum, the sum and the weighted values
/// `[TILE, padded head_dim]`.
#[derive(Debug)]
struct Partial {
    max: [f32; TILE],
    sum: [f32; TILE],
    values: Array<f32>,
}

impl Partial {
    fn new(dim: usize) -> Self {
        let values = Array::near(TILE * dim.next_multiple_of(PANEL));
        Self { max: [0.0; TILE], sum: [0.0; TILE], values }
    }

    /// Takes the positions of `next`, which follow those of `self`, in, for query `t`.
    fn merge(&mut self, next: &Partial, t: usize) {
        let width = self.values.len() / TILE;
        let max = if next.max[t] > self.max[t] { next.max[t] } else { self.max[t] };
        let (a, b) = (exp1(self.max[t] - max), exp1(next.max[t] - max));
        self.max[t] = max;
        self.sum[t] = self.sum[t].mul_add(a, next.sum[t] * b);
        blend(&mut self.values[t * width..][..width], a, &next.values[t * width..][..width], b);
    }

    fn write(&self, t: usize, out: &mut [f32]) {
        let width = self.values.len() / TILE;
        let inverse = 1.0 / self.sum[t];
        for (to, v) in out.iter_mut().zip(&self.values[t * width..]) {
            *to = v * inverse;
        }
    }
}

impl Work {
    fn new(dim: usize) -> Self {
        Self {
            queries: Array::near(TILE * dim),
            scores: Array::near(TILE * BLOCK),
            block: Partial::new(dim),
            merged: Partial::new(dim),
        }
    }

    /// Gathers the tile's queries.
    fn load(&mut self, tile: &Tile, queries: &[f32], dim: usize, width: usize) {
        for (t, query) in self.queries.chunks_exact_mut(dim).take(tile.count).enumerate() {
            query.copy_from_slice(&queries[tile.offset(t, dim, width)..][..dim]);
        }
    }
}

impl Scratch {
    /// For heads `dim` wide, on the threads of `pool`, and so many partial results.
    fn resize(&mut self, pool: &Pool, dim: usize, partials: usize) {
        if self.dim != dim {
            *self = Self { dim, ..Self::default() };
        }
        self.workers.truncate(pool.threads());
        while self.workers.len() < pool.threads() {
            self.workers.push(Work::new(dim));
        }
        while self.partial.len() < partials {
            self.partial.push(Partial::new(dim));
        }
    }
}

/// Up to [`TILE`] rows of one key head, where the rows of a key head are its query heads, token by
/// token.
struct Tile {
    /// The key head.
    head: usize,
    /// Query heads for each key head.
    group: usize,
    /// The first row, and how many.
    first: usize,
    count: usize,
    /// Position of the first token.
    start: usize,
    /// How many positions a row sees at most.
    window: usize,
    /// Factor of the scores.
    scale: f32,
}

impl Tile {
    /// Where row `first + t` stands in `[tokens, heads * dim]`.
    fn offset(&self, t: usize, dim: usize, width: usize) -> usize {
        let row = self.first + t;
        row / self.group * width + (self.head * self.group + row % self.group) * dim
    }

    /// The positions that row `first + t` sees.
    fn sees(&self, t: usize) -> Range<usize> {
        let end = self.start + (self.first + t) / self.group + 1;
        end.saturating_sub(self.window)..end
    }

    /// One past the last position that a row sees.
    fn end(&self) -> usize {
        self.sees(self.count - 1).end
    }

    /// The blocks that the rows see something of.
    fn blocks(&self) -> Range<usize> {
        self.sees(0).start / BLOCK..self.end().div_ceil(BLOCK)
    }
}

/// How queries attend.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// Query heads; query head h reads key and value head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Factor of the scores, usually `1/√head_dim`.
    pub scale: f32,
    /// How many positions a query sees at most, its own included; `usize::MAX` for all.
    pub window: usize,
}

/// Attends from `queries` `[tokens, heads * head_dim]` at the positions from `start` on to everything
/// up to themselves, which `cache` must hold, and writes `[tokens, heads * head_dim]`.
///
/// # Panics
/// If the shapes do not fit, there is no head, or the cache is too small for the positions.
pub fn attention(
    pool: &Pool,
    cache: &KvLayer,
    how: Attend,
    start: usize,
    queries: &[f32],
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let Attend { heads, scale, window } = how;
    let (dim, width) = (cache.head_dim, product(&[heads, cache.head_dim]));
    assert!(window > 0, "a query sees at least its own position");
    assert!(heads > 0 && heads.is_multiple_of(cache.kv_heads), "each key head serves as many query heads");
    assert!(queries.len() == out.len() && queries.len().is_multiple_of(width));
    let tokens = queries.len() / width;
    let end = start.checked_add(tokens).filter(|end| *end <= cache.capacity);
    let end = end.expect("the cache has no such positions");
    let kv_heads = cache.kv_heads;
    let group = heads / kv_heads;
    let rows = tokens * group;
    let tiles = rows.div_ceil(TILE);
    // Each thread begins with some tokens, those that it computed queries of and will go on with, head by
    // head.
    let share = tiles.div_ceil(pool.threads());
    let tile = |i: usize| {
        let (before, i) = (i / (kv_heads * share) * share, i % (kv_heads * share));
        let here = share.min(tiles - before);
        let first = (before + i % here) * TILE;
        Tile { head: i / here, group, first, count: TILE.min(rows - first), start, window, scale }
    };
    let out = Parts::new(out);
    let write = |tile: &Tile, result: &Partial| {
        for t in 0..tile.count {
            // SAFETY: a row belongs to one head and one tile, and each tile is written once.
            result.write(t, unsafe { out.get(tile.offset(t, dim, width), dim) });
        }
    };
    let blocks = if tokens == 1 { tile(0).blocks() } else { 0..1 };
    let split = blocks.len();
    if split == 1 {
        scratch.resize(pool, dim, 0);
        let all = kv_heads * tiles;
        let products = [kv_heads, dim, end.min(window)].into_iter().fold(2 * rows, usize::saturating_mul);
        let (tasks, each) = if products < tuning::alone() / 8 { (1, all) } else { (all, 1) };
        pool.tasks_with(&mut scratch.workers, tasks, |work, task| {
            for tile in (task * each..(task + 1) * each).map(tile) {
                work.load(&tile, queries, dim, width);
                for (n, block) in tile.blocks().enumerate() {
                    let Work { queries, scores, block: part, merged } = &mut *work;
                    attend(cache, &tile, block, queries, scores, if n == 0 { merged } else { part });
                    for t in (0..tile.count).filter(|_| n > 0) {
                        let seen = tile.sees(t);
                        if seen.start < (block + 1) * BLOCK && seen.end > block * BLOCK {
                            merged.merge(part, t);
                        }
                    }
                }
                write(&tile, &work.merged);
            }
        });
    } else {
        // One token far into a text: its blocks go to different threads and are merged after.
        scratch.resize(pool, dim, kv_heads * tiles * split);
        let parts = &mut scratch.partial[..kv_heads * tiles * split];
        pool.chunks_mut_with(&mut scratch.workers, parts, 1, |work, i, part| {
            let tile = tile(i / split);
            work.load(&tile, queries, dim, width);
            attend(cache, &tile, blocks.start + i % split, &work.queries, &mut work.scores, &mut part[0]);
        });
        for (i, parts) in parts.chunks_exact_mut(split).enumerate() {
            let tile = tile(i);
            let (merged, rest) = parts.split_first_mut().expect("there is a block");
            for part in rest {
                (0..tile.count).for_each(|t| merged.merge(part, t));
            }
            write(&tile, merged);
        }
    }
}

/// Asks for a line, where queries are so few that they would wait for it.
#[inline(always)]
fn announce<const T: usize>(line: *const Line<f32>) {
    if T <= 4 {
        (0..size_of::<Line<f32>>()).step_by(64).for_each(|at| prefetch_l2(line.wrapping_byte_add(at)));
    }
}

/// The results of a tile over one block of positions.
#[inline(always)]
fn attend_body<S: Simd>(
    simd: S,
    cache: &KvLayer,
    tile: &Tile,
    block: usize,
    queries: &[f32],
    scores: &mut [f32],
    to: &mut Partial,
) {
    let (dim, capacity) = (cache.head_dim, cache.capacity);
    let (groups, start) = (dim.div_ceil(PANEL), block * BLOCK);
    let seen = BLOCK.min(tile.end() - start);
    let keys = |head: usize, start: usize| &cache.keys[(head * capacity + start) / PANEL * dim..];
    let values = |group: usize| &cache.values[(tile.head * groups + group) * capacity + start..][..seen];
    // Values are read after keys, and after them the next keys.
    let after_values = match tile.end() > start + BLOCK {
        true => keys(tile.head, start + BLOCK),
        false => keys((tile.head + 1) % cache.kv_heads, tile.blocks().start * BLOCK),
    };
    let keys = &keys(tile.head, start)[..seen.div_ceil(PANEL) * dim];
    for (panel, lines) in keys.chunks_exact(dim).enumerate() {
        for_each_tile!(S, tile.count, |first, T| {
            let mut total = AtLine([[0.0; PANEL]; T]);
            for (i, part) in lines.chunks(PART).enumerate() {
                let ahead = panel * dim + i * PART + AHEAD;
                let ahead = match ahead.checked_sub(keys.len()) {
                    None => keys.as_ptr().wrapping_add(ahead),
                    Some(ahead) => values(ahead / seen % groups).as_ptr().wrapping_add(ahead % seen),
                };
                let before = |line| announce::<T>(ahead.wrapping_add(line));
                let sums = multiply::<S, f32, T>(simd, part, &queries[first * dim + i * PART..], dim, before);
                for (to, sum) in total.0.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *to += sum;
                }
            }
            for (t, sums) in (first..).zip(&total.0) {
                for (to, sum) in scores[t * BLOCK + panel * PANEL..].iter_mut().zip(sums) {
                    *to = sum * tile.scale;
                }
            }
        });
    }
    for (t, scores) in scores.chunks_exact_mut(BLOCK).take(tile.count).enumerate() {
        // What a row must not see weighs 0.
        let own = tile.sees(t);
        let end = own.end.saturating_sub(start).min(seen);
        let begin = own.start.saturating_sub(start).min(end);
        scores[..begin].fill(0.0);
        scores[end..seen].fill(0.0);
        (to.max[t], to.sum[t]) = exponentials(&mut scores[begin..end]);
    }
    for group in 0..groups {
        let next = if group + 1 < groups { values(group + 1) } else { after_values };
        let ahead = |line: usize| match (line + AHEAD).checked_sub(seen) {
            None => values(group).as_ptr().wrapping_add(line + AHEAD),
            Some(ahead) => next.as_ptr().wrapping_add(ahead),
        };
        for_each_tile!(S, tile.count, |first, T| {
            let before = |line| announce::<T>(ahead(line));
            let sums = multiply::<S, f32, T>(simd, values(group), &scores[first * BLOCK..], BLOCK, before);
            for (t, sums) in (first..).zip(&sums) {
                to.values[(t * groups + group) * PANEL..][..PANEL].copy_from_slice(sums);
            }
        });
    }
}

on_every_level! {
    fn attend(
        cache: &KvLayer,
        tile: &Tile,
        block: usize,
        queries: &[f32],
        scores: &mut [f32],
        to: &mut Partial,
    ) = attend_body
}

#[inline(always)]
fn blend_body<S: Simd>(_: S, x: &mut [f32], a: f32, y: &[f32], b: f32) {
    assert_eq!(x.len(), y.len());
    for i in 0..x.len() {
        x[i] = x[i].mul_add(a, y[i] * b);
    }
}

on_every_level! {
    /// `x = x·a + y·b`.
    fn blend(x: &mut [f32], a: f32, y: &[f32], b: f32) = blend_body
}

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_on_every_level, values};
    use super::*;

    struct Case {
        heads: usize,
        kv_heads: usize,
        dim: usize,
        tokens: usize,
        window: usize,
    }

    /// Attention as the formula has it, in f64.
    fn formula(c: &Case, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
        let (width, kv_width) = (c.heads * c.dim, c.kv_heads * c.dim);
        let mut out = Vec::new();
        for t in 0..c.tokens {
            for h in 0..c.heads {
                let kv = h / (c.heads / c.kv_heads) * c.dim;
                let seen = (t + 1).saturating_sub(c.window)..t + 1;
                let weights: Vec<f64> = seen
                    .clone()
                    .map(|p| {
                        let dot: f64 = (0..c.dim)
                            .map(|i| {
                                f64::from(q[t * width + h * c.dim + i]) * f64::from(k[p * kv_width + kv + i])
                            })
                            .sum();
                        (dot / (c.dim as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..c.dim).map(|i| {
                    let weighted = seen.clone().zip(&weights);
                    weighted.map(|(p, w)| w * f64::from(v[p * kv_width + kv + i])).sum::<f64>() / sum
                }));
            }
        }
        out
    }

    /// Runs the text in batches of `batch` tokens.
    fn run(c: &Case, threads: usize, batch: usize, q: &[f32], k: &[f32], v: &[f32]) -> Vec<u32> {
        let pool = Pool::new(threads);
        let mut cache = KvLayer::new(c.kv_heads, c.dim, c.tokens);
        let how = Attend { heads: c.heads, scale: 1.0 / (c.dim as f32).sqrt(), window: c.window };
        let mut scratch = Scratch::default();
        let mut out = vec![f32::NAN; c.tokens * c.heads * c.dim];
        let (width, kv_width) = (c.heads * c.dim, c.kv_heads * c.dim);
        for start in (0..c.tokens).step_by(batch) {
            let end = c.tokens.min(start + batch);
            let (kv, q_range) = (start * kv_width..end * kv_width, start * width..end * width);
            cache.write(&pool, start, &k[kv.clone()], &v[kv]);
            let out = &mut out[q_range.clone()];
            attention(&pool, &cache, how, start, &q[q_range], out, &mut scratch);
        }
        out.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn sizes_that_no_memory_holds_are_refused() {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let refused = |f: &dyn Fn()| catch_unwind(AssertUnwindSafe(f)).is_err();
        let made = |heads, dim, capacity| drop(KvLayer::new(heads, dim, capacity));
        assert!(refused(&|| made(1, 8, usize::MAX)) && refused(&|| made(2, 1 << 60, 1 << 20)));
        assert!(refused(&|| made(0, 8, 8)) && refused(&|| made(1, 0, 8)));
        let (pool, cache) = (Pool::new(2), KvLayer::new(1, 32, 256));
        let attend = |heads, start| {
            let (queries, mut out) = (vec![0.0; 200 * 32], vec![0.0; 200 * 32]);
            let how = Attend { heads, scale: 1.0, window: usize::MAX };
            attention(&pool, &cache, how, start, &queries, &mut out, &mut Scratch::default());
        };
        attend(1, 0);
        assert!(refused(&|| attend((1 << 60) + 1, 0)) && refused(&|| attend(1, usize::MAX - 1)));
        assert!(refused(&|| attend(0, 0)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn follows_the_formula_with_equal_bits_in_any_batch_on_any_number_of_threads() {
        let cases = [
            Case { heads: 1, kv_heads: 1, dim: 8, tokens: 1, window: usize::MAX },
            Case { heads: 4, kv_heads: 2, dim: 64, tokens: 45, window: 9 },
            Case { heads: 3, kv_heads: 3, dim: 50, tokens: 270, window: usize::MAX },
            Case { heads: 26, kv_heads: 2, dim: 16, tokens: 300, window: usize::MAX },
            Case { heads: 2, kv_heads: 1, dim: 8, tokens: 600, window: 100 },
        ];
        for c in cases {
            let (width, kv_width) = (c.heads * c.dim, c.kv_heads * c.dim);
            let (q, k) = (values(11, c.tokens * width), values(12, c.tokens * kv_width));
            let v = values(13, c.tokens * kv_width);
            let found = equal_on_every_level(|| run(&c, 1, c.tokens, &q, &k, &v));
            for (found, exact) in found.iter().zip(formula(&c, &q, &k, &v)) {
                assert!((f64::from(f32::from_bits(*found)) - exact).abs() < 1e-5);
            }
            for (threads, batch) in [(2, 1), (3, 7), (2, 100)] {
                assert_eq!(run(&c, threads, batch, &q, &k, &v), found, "{threads} threads, batch {batch}");
            }
        }
    }
}
