//! Ternary matrix products over the threads of a pool, scaled to `f32`.

use crate::acts::Activations;
use crate::kernel::{Kernel, Packed};
use crate::pool::Pool;
use crate::tier::Tier;
use crate::tuning;
use std::ops::Range;

/// A packed ternary matrix with its scale and the kernel that multiplies it.
pub struct Matrix {
    packed: Packed,
    scale: f32,
    kernel: &'static dyn Kernel,
}

impl Matrix {
    /// Puts the three together; `scale` multiplies.
    ///
    /// # Panics
    /// If the kernel reads another layout.
    pub fn new(packed: Packed, scale: f32, kernel: &'static dyn Kernel) -> Self {
        assert_eq!(packed.layout().name(), kernel.layout().name(), "a kernel of another layout");
        Self { packed, scale, kernel }
    }

    /// The weights.
    pub fn packed(&self) -> &Packed {
        &self.packed
    }

    /// The scale, a factor of all weights.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The kernel.
    pub fn kernel(&self) -> &'static dyn Kernel {
        self.kernel
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.packed.rows()
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.packed.cols()
    }
}

/// Multiplies matrices that share their input (q, k, v; gate, up) in one parallel region:
/// `outs[m][t * rows + r] = sum(m, t, r) · (scale(m) / x.scale(t))`, computed in f64, where `sum` is the exact
/// integer product. The result depends neither on kernels nor on the number of threads. Does not
/// allocate once the threads have seen the shapes.
///
/// # Panics
/// If there are not as many outputs as matrices, or an output is not `x.tokens() * rows` long, or a
/// matrix does not have the columns of `x`.
pub fn matmul(pool: &Pool, matrices: &[&Matrix], x: &Activations, outs: &mut [&mut [f32]]) {
    assert_eq!(matrices.len(), outs.len(), "an output for each matrix");
    for (m, out) in matrices.iter().zip(outs.iter()) {
        assert_eq!(Some(out.len()), x.tokens().checked_mul(m.rows()), "output of another size");
        assert_eq!(x.cols(), m.cols(), "activations of another width");
    }
    let outs = Outputs(outs.as_mut_ptr());
    spread(pool, matrices.iter().map(|m| (m.kernel, &m.packed)), x, move |at, t, row, sums| {
        let m = matrices[at];
        // SAFETY: there is an output for each matrix, and a reference to a slice is laid out as a pointer to it;
        // read as one, it is not borrowed by several threads at once. The output is `tokens * matrix rows`
        // long, and `spread` gives each place of it to one task: tasks have tokens and steps of rows of their
        // own, and a kernel's step stays the same, as none is from elsewhere (the trait is sealed).
        let out = unsafe {
            let out = outs.get().cast::<*mut [f32]>().add(at).read().cast::<f32>();
            std::slice::from_raw_parts_mut(out.add(t * m.rows() + row), sums.len())
        };
        scale(sums, f64::from(m.scale) / f64::from(x.scale(t)), out);
    });
}

/// Multiplies matrices by the same tokens on the threads of a pool, cut into tasks as suits them, and hands out
/// the exact sums: matrix, token, first row, sums of consecutive rows. Each sum is handed out once, and lies
/// within tokens and rows.
///
/// # Panics
/// As [`Kernel::run`].
pub fn spread<'a>(
    pool: &Pool,
    matrices: impl Iterator<Item = (&'static dyn Kernel, &'a Packed)> + Clone + Sync,
    x: &Activations,
    sink: impl Fn(usize, usize, usize, &[i32]) + Sync,
) {
    let split = Split::new(matrices.clone(), x.tokens(), pool.threads());
    pool.tasks(split.tasks, |_, task| {
        let (tokens, mut steps) = split.task(task);
        for (at, (kernel, packed)) in matrices.clone().enumerate() {
            let step = kernel.row_step();
            let all = packed.rows().div_ceil(step);
            let rows = steps.start.min(all) * step..(steps.end.min(all) * step).min(packed.rows());
            steps = steps.start.saturating_sub(all)..steps.end.saturating_sub(all);
            if rows.is_empty() {
                continue;
            }
            kernel.run(packed, x, tokens.clone(), rows.clone(), &mut |t, row, sums| {
                assert!(tokens.contains(&t) && rows.start <= row && row + sums.len() <= rows.end);
                sink(at, t, row, sums);
            });
        }
    });
}

/// How a product is cut into tasks: by tokens, or by steps of rows, counted through all matrices.
struct Split {
    tokens: usize,
    steps: usize,
    threads: usize,
    tasks: usize,
    by_tokens: bool,
}

impl Split {
    /// Token ranges are multiples of this, so that kernels can fill their tiles.
    const TOKENS: usize = 8;
    /// Fewer tokens than this are not worth a task of their own: each decodes the weights.
    const TOKENS_EACH: usize = 256;
    /// Percent of a thread's rows that its first task takes: what kernels do for each task is done less often than
    /// in even ones, and the small tasks at the end even out when threads are done.
    const FIRST: usize = 85;

    fn new<'a>(
        matrices: impl Iterator<Item = (&'static dyn Kernel, &'a Packed)> + Clone,
        tokens: usize,
        threads: usize,
    ) -> Self {
        let steps = matrices.clone().map(|(kernel, m)| m.rows().div_ceil(kernel.row_step())).sum();
        let split = |tasks, by_tokens| Self { tokens, steps, threads, tasks, by_tokens };
        let scalar = matrices.clone().all(|(kernel, _)| kernel.tier() == Tier::Scalar);
        let alone = if scalar { tuning::alone() / 64 } else { tuning::alone() };
        let products: usize = matrices.clone().map(|(_, m)| m.rows() * m.cols()).sum();
        if threads == 1 || tokens * products < alone {
            return split(1, false);
        }
        let least = matrices.map(|(kernel, _)| kernel.tokens_each()).max().flatten();
        match least {
            Some(least) if tokens / threads >= least => {
                split(threads * (tokens / threads / Self::TOKENS_EACH).clamp(1, tuning::tasks()), true)
            }
            _ => split((threads * tuning::tasks()).min(steps), false),
        }
    }

    /// The tokens and steps of a task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        if !self.by_tokens {
            return (0..self.tokens, self.cut(task)..self.cut(task + 1));
        }
        let tiles = self.tokens.div_ceil(Self::TOKENS);
        let tiles = task * tiles / self.tasks..(task + 1) * tiles / self.tasks;
        let tokens = tiles.start * Self::TOKENS..(tiles.end * Self::TOKENS).min(self.tokens);
        (tokens, 0..self.steps)
    }

    /// The first step of a task.
    fn cut(&self, task: usize) -> usize {
        let each = self.tasks / self.threads;
        if each < 2 || !self.tasks.is_multiple_of(self.threads) {
            return task * self.steps / self.tasks;
        }
        let percent = match task % each {
            0 => 0,
            small => Self::FIRST + (100 - Self::FIRST) * (small - 1) / (each - 1),
        };
        (task / each * 100 + percent) * self.steps / (self.threads * 100)
    }
}

/// From exact sums to results: the one place, and one rounding.
fn scale(sums: &[i32], factor: f64, out: &mut [f32]) {
    #[inline(always)]
    fn body(sums: &[i32], factor: f64, out: &mut [f32]) {
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = (f64::from(sum) * factor) as f32;
        }
    }
    // Each operation is rounded by itself, so wider vectors give the same bits.
    #[cfg(target_arch = "x86_64")]
    if crate::Tier::Avx512.is_available() {
        #[target_feature(enable = "avx512f,avx512bw")]
        fn wide(sums: &[i32], factor: f64, out: &mut [f32]) {
            body(sums, factor, out);
        }
        // SAFETY: the CPU has the tier.
        return unsafe { wide(sums, factor, out) };
    }
    body(sums, factor, out);
}

/// The outputs, for threads that write to different places of them.
struct Outputs<'a>(*mut &'a mut [f32]);

impl<'a> Outputs<'a> {
    fn get(&self) -> *mut &'a mut [f32] {
        self.0
    }
}

// SAFETY: shared between the threads of one region, which write to disjoint places (see `matmul`).
unsafe impl Sync for Outputs<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trits;
    use crate::kernel;
    use crate::tuning::Tuning;

    #[test]
    fn tasks_follow_each_other() {
        for (steps, threads, tasks) in [(80, 2, 4), (7, 2, 4), (3, 2, 3), (120, 3, 12), (5, 5, 5), (1, 4, 1)]
        {
            let split = Split { tokens: 1, steps, threads, tasks, by_tokens: false };
            let mut next = 0;
            for task in 0..tasks {
                let (_, rows) = split.task(task);
                assert!(rows.start == next && rows.end >= next, "{steps} steps, task {task} of {tasks}");
                next = rows.end;
            }
            assert_eq!(next, steps);
        }
        for (tokens, threads, tasks) in [(1031, 2, 4), (512, 2, 2), (2000, 3, 6), (9, 2, 2)] {
            let split = Split { tokens, steps: 5, threads, tasks, by_tokens: true };
            let mut next = 0;
            for task in 0..tasks {
                let (range, steps) = split.task(task);
                assert_eq!((range.start, steps), (next, 0..5), "{tokens} tokens, task {task} of {tasks}");
                assert!(range.end == tokens || range.end.is_multiple_of(Split::TOKENS));
                next = range.end;
            }
            assert_eq!(next, tokens);
        }
        let split = Split { tokens: 1, steps: 80, threads: 2, tasks: 4, by_tokens: false };
        assert_eq!([0, 1, 2, 3].map(|task| split.task(task).1), [0..34, 34..40, 40..74, 74..80]);
    }

    /// Small enough for an interpreter, which sees whether threads keep to their places.
    #[test]
    fn threads_write_places_of_their_own() {
        let trits = |rows: usize| {
            Trits::new(rows, 16, (0..rows * 16).map(|i| (i * 31 % 97 % 3) as i8 - 1).collect()).unwrap()
        };
        let scalar = kernel::find(&crate::layout::HF, Tier::Scalar).unwrap();
        let of = |rows| Matrix::new(Packed::pack(scalar.layout(), &trits(rows)).unwrap(), 0.5, scalar);
        let matrices = [of(8), of(12)];
        Tuning { alone: 0, ..Tuning::default() }.apply();
        let mut x = Activations::new();
        x.set_i8(2, 16, &(0..32i32).map(|i| (i * 7 - 100) as i8).collect::<Vec<_>>());
        let product = |threads| {
            let (mut a, mut b) = (vec![f32::NAN; 2 * 8], vec![f32::NAN; 2 * 12]);
            matmul(&Pool::new(threads), &[&matrices[0], &matrices[1]], &x, &mut [&mut a, &mut b]);
            (a, b)
        };
        assert_eq!(product(1), product(2));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn all_kernels_and_thread_counts_give_the_same_bits() {
        let (rows, cols, tokens) = ([96, 33, 160], 256, 5);
        let trits: Vec<_> = rows
            .iter()
            .map(|&r| {
                Trits::new(r, cols, (0..r * cols).map(|i| (i * 31 % 97 % 3) as i8 - 1).collect()).unwrap()
            })
            .collect();
        Tuning { alone: 0, ..Tuning::default() }.apply();
        let mut x = Activations::new();
        let input: Vec<f32> = (0..tokens * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        x.quantize(&input, tokens, cols);
        let mut expected: Option<Vec<Vec<f32>>> = None;
        for kernel in kernel::available() {
            let Ok(matrices) = trits
                .iter()
                .map(|t| Ok(Matrix::new(Packed::pack(kernel.layout(), t)?, 0.37, kernel)))
                .collect::<Result<Vec<_>, crate::layout::ShapeError>>()
            else {
                continue;
            };
            let matrices: Vec<_> = matrices.iter().collect();
            for threads in [1, 2, 3] {
                let mut outs: Vec<_> = rows.iter().map(|r| vec![f32::NAN; tokens * r]).collect();
                let mut slices: Vec<_> = outs.iter_mut().map(|o| o.as_mut_slice()).collect();
                matmul(&Pool::new(threads), &matrices, &x, &mut slices);
                assert_eq!(*expected.get_or_insert(outs.clone()), outs, "{} on {threads}", kernel.name());
            }
        }
        let sum: i32 = (0..cols).map(|c| i32::from(trits[1].row(32)[c]) * i32::from(x.row(4)[c])).sum();
        assert_eq!(
            expected.unwrap()[1][4 * 33 + 32],
            (f64::from(sum) * (f64::from(0.37f32) / f64::from(x.scale(4)))) as f32
        );
    }
}
