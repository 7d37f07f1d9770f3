//! Every kernel that this CPU can run against the scalar one, and that one against a plain loop over
//! the unpacked matrix: over shapes, activations, batches and row ranges.

use tritmark_kernels::Trits;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::layout::{self, Layout};

/// Rows and columns; each layout is tried with those that it holds.
const SHAPES: &[(usize, usize)] = &[
    (1, 1),
    (1, 128),
    (3, 7),
    (4, 33),
    (5, 256),
    (8, 16),
    (12, 160),
    (16, 64),
    (17, 129),
    (32, 96),
    (33, 1024),
    (64, 352),
    (64, 512),
    (68, 2560),
    (70, 255),
    (128, 288),
    (131, 768),
    (256, 640),
];

/// Tokens at once: gemv, small batches, around powers of two.
const BATCHES: &[usize] = &[1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 40];

/// A xorshift generator: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

/// Weights: random, and the two that make sums largest.
fn weights(rows: usize, cols: usize) -> Vec<Trits> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (rows * 65537 + cols) as u64);
    let some = (0..rows * cols).map(|_| (random.next() % 3) as i8 - 1).collect();
    [some, vec![1; rows * cols], vec![-1; rows * cols]]
        .map(|data| Trits::new(rows, cols, data).unwrap())
        .into()
}

/// Activations of one batch, by name.
fn activations(tokens: usize, cols: usize) -> Vec<(&'static str, Vec<i8>)> {
    let mut random = Random(0xD1B5_4A32_D192_ED03 ^ (tokens * 65537 + cols) as u64);
    let n = tokens * cols;
    vec![
        ("random", (0..n).map(|_| random.next() as i8).collect()),
        ("all 127", vec![127; n]),
        ("all -128", vec![-128; n]),
        ("alternating", (0..n).map(|i| if i % 2 == 0 { 127 } else { -128 }).collect()),
        ("zero", vec![0; n]),
    ]
}

/// The definition.
fn naive(w: &Trits, x: &[i8], tokens: usize) -> Vec<i32> {
    let mut out = Vec::new();
    for t in 0..tokens {
        for r in 0..w.rows() {
            let mut sum = 0;
            for c in 0..w.cols() {
                sum += i32::from(w.row(r)[c]) * i32::from(x[t * w.cols() + c]);
            }
            out.push(sum);
        }
    }
    out
}

/// The kernels that this CPU can run; prints the others with the reason.
fn kernels() -> Vec<&'static dyn Kernel> {
    for c in kernel::compiled().iter().filter(|c| c.kernel.is_none()) {
        println!("skipped {}: this CPU lacks {}", c.name(), c.tier);
    }
    let kernels: Vec<_> = kernel::available().collect();
    let names: Vec<_> = kernels.iter().map(|k| k.name()).collect();
    println!("{} kernels: {}", names.len(), names.join(" "));
    kernels
}

/// Row ranges that a kernel can be asked for: all, and the matrix in uneven parts.
fn ranges(rows: usize, step: usize) -> Vec<std::ops::Range<usize>> {
    let cut = (rows / 3).next_multiple_of(step).min(rows);
    let cut2 = (cut + step).min(rows);
    vec![0..rows, 0..cut, cut..cut2, cut2..rows]
}

#[test]
fn every_kernel_gives_the_defined_sums() {
    let kernels = kernels();
    let mut x = Activations::new();
    let mut cases = 0;
    for &(rows, cols) in SHAPES {
        let matrices = weights(rows, cols);
        // The law itself, once for each matrix and activation, on the layouts that hold the shape.
        for (m, trits) in matrices.iter().enumerate() {
            let packed: Vec<_> =
                layout::ALL.iter().filter_map(|&layout| Packed::pack(layout, trits).ok()).collect();
            for &tokens in BATCHES {
                // Extreme weights only need the batches that take different paths.
                if m > 0 && !matches!(tokens, 1 | 4 | 40) {
                    continue;
                }
                for (name, q) in activations(tokens, cols) {
                    let expected = naive(trits, &q, tokens);
                    x.set_i8(tokens, cols, &q);
                    for packed in &packed {
                        for kernel in kernels.iter().filter(|k| same(k.layout(), packed.layout())) {
                            for range in ranges(rows, kernel.row_step()) {
                                let mut out = vec![i32::MIN; tokens * range.len()];
                                kernel.matmul(packed, &x, range.clone(), &mut out);
                                for t in 0..tokens {
                                    assert_eq!(
                                        out[t * range.len()..][..range.len()],
                                        expected[t * rows..][range.clone()],
                                        "{}, {rows}x{cols}, weights {m}, {name} activations, \
                                         token {t} of {tokens}, rows {range:?}",
                                        kernel.name(),
                                    );
                                }
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{cases} products agree");
}

fn same(a: &dyn Layout, b: &dyn Layout) -> bool {
    a.name() == b.name()
}

#[test]
fn selection_follows_the_table() {
    for &layout in layout::ALL {
        let best = kernel::best(layout, None).expect("at least the scalar kernel");
        assert!(kernel::find(layout, best.tier()).is_some());
        let scalar = kernel::best(layout, Some(tritmark_kernels::Tier::Scalar)).unwrap();
        assert_eq!(scalar.name(), format!("{}/scalar", layout.name()));
        assert_eq!(best.name(), format!("{}/{}", layout.name(), best.tier()));
    }
}
