//! Ternary matrix products over the threads of a pool, scaled to `f32`.

use crate::acts::Activations;
use crate::kernel::{Kernel, Packed};
use crate::pool::Pool;
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

/// Row ranges that each thread gets on average: several, so that a thread that is held up leaves work
/// to the others, and few, so that each reads a long sequence.
const RANGES_PER_THREAD: usize = 4;

/// Multiplies matrices that share their input (q, k, v; gate, up) in one parallel region:
/// `outs[m][t * rows + r] = sum(m, t, r) as f32 / x.scale(t) * scale(m)`, where `sum` is the exact
/// integer product. The result depends neither on kernels nor on the number of threads. Does not
/// allocate once the threads have seen the shapes.
///
/// # Panics
/// If there are not as many outputs as matrices, or an output is not `x.tokens() * rows` long, or a
/// matrix does not have the columns of `x`.
pub fn matmul(pool: &Pool, matrices: &[&Matrix], x: &Activations, outs: &mut [&mut [f32]]) {
    assert_eq!(matrices.len(), outs.len(), "an output for each matrix");
    for (m, out) in matrices.iter().zip(outs.iter()) {
        assert_eq!(out.len(), x.tokens() * m.rows(), "output of another size");
        assert_eq!(x.cols(), m.cols(), "activations of another width");
    }
    let rows: usize = matrices.iter().map(|m| m.rows()).sum();
    let ranges = if pool.threads() == 1 { 1 } else { pool.threads() * RANGES_PER_THREAD };
    let rows_each = rows.div_ceil(ranges);
    let tasks: usize = matrices.iter().map(|m| row_ranges(m, rows_each)).sum();
    let outs = Outputs(outs.as_mut_ptr());
    pool.tasks(tasks, |_, task| {
        let (at, rows) = locate(matrices, rows_each, task);
        let m = matrices[at];
        m.kernel.run(&m.packed, x, 0..x.tokens(), rows.clone(), &mut |t, row, sums| {
            assert!(t < x.tokens() && rows.start <= row && row + sums.len() <= rows.end);
            // SAFETY: the output is `tokens * matrix rows` long, the place lies in it by the line
            // above, and belongs to the row range that this task alone has.
            let out = unsafe {
                let out = (*outs.get().add(at)).as_mut_ptr().add(t * m.rows() + row);
                std::slice::from_raw_parts_mut(out, sums.len())
            };
            scale(sums, x.scale(t), m.scale, out);
        });
    });
}

/// From exact sums to results: the one place, and the one order of operations.
fn scale(sums: &[i32], x_scale: f32, scale: f32, out: &mut [f32]) {
    for (out, &sum) in out.iter_mut().zip(sums) {
        *out = sum as f32 / x_scale * scale;
    }
}

/// Rows of a range of this matrix.
fn range_rows(m: &Matrix, rows_each: usize) -> usize {
    rows_each.next_multiple_of(m.kernel.row_step())
}

/// Number of row ranges of this matrix.
fn row_ranges(m: &Matrix, rows_each: usize) -> usize {
    m.rows().div_ceil(range_rows(m, rows_each))
}

/// The matrix and the rows of a task.
fn locate(matrices: &[&Matrix], rows_each: usize, mut task: usize) -> (usize, Range<usize>) {
    for (at, m) in matrices.iter().enumerate() {
        let count = row_ranges(m, rows_each);
        if task < count {
            let step = range_rows(m, rows_each);
            return (at, task * step..m.rows().min((task + 1) * step));
        }
        task -= count;
    }
    unreachable!("there are as many tasks as row ranges")
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

    #[test]
    fn all_kernels_and_thread_counts_give_the_same_bits() {
        let (rows, cols, tokens) = ([96, 33, 160], 256, 5);
        let trits: Vec<_> = rows
            .iter()
            .map(|&r| {
                Trits::new(r, cols, (0..r * cols).map(|i| (i * 31 % 97 % 3) as i8 - 1).collect()).unwrap()
            })
            .collect();
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
        assert_eq!(expected.unwrap()[1][4 * 33 + 32], sum as f32 / x.scale(4) * 0.37);
    }
}
