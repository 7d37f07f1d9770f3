//! Every kernel that this CPU can run against the scalar one, and that one against a plain loop over
//! the unpacked matrix: over shapes, activations, batches and row ranges.

use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::layout::{self, Layout};
use tritmark_kernels::{Tier, Trits};

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
    (36, 2560),
    (64, 352),
    (64, 512),
    (67, 768),
    (70, 255),
    (96, 640),
];

/// Tokens at once: gemv, small batches, around powers of two. The last is the largest.
const BATCHES: &[usize] = &[1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 40];

/// Which batches a kernel runs with some weights and activations.
struct Plan {
    batches: &'static [usize],
    /// Those of which the rows are also asked for in uneven parts.
    parts: &'static [usize],
}

/// Everything for random numbers; extremes, which are about sums that grow too large, take each path
/// once.
fn plan(random_weights: bool, random_activations: bool) -> Plan {
    match (random_weights, random_activations) {
        (true, true) => Plan { batches: BATCHES, parts: &[1, 9, 33] },
        (true, false) => Plan { batches: &[1, 3, 40], parts: &[] },
        (false, _) => Plan { batches: &[1, 40], parts: &[] },
    }
}

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
fn weights(rows: usize, cols: usize) -> [(&'static str, Trits); 3] {
    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (rows * 65537 + cols) as u64);
    let some = (0..rows * cols).map(|_| (random.next() % 3) as i8 - 1).collect();
    [("random", some), ("all 1", vec![1; rows * cols]), ("all -1", vec![-1; rows * cols])]
        .map(|(name, data)| (name, Trits::new(rows, cols, data).unwrap()))
}

/// Activations of the largest batch.
fn activations(cols: usize) -> [(&'static str, Vec<i8>); 5] {
    let mut random = Random(0xD1B5_4A32_D192_ED03 ^ cols as u64);
    let n = BATCHES[BATCHES.len() - 1] * cols;
    [
        ("random", (0..n).map(|_| random.next() as i8).collect()),
        ("all 127", vec![127; n]),
        ("all -128", vec![-128; n]),
        ("alternating", (0..n).map(|i| if i % 2 == 0 { 127 } else { -128 }).collect()),
        ("zero", vec![0; n]),
    ]
}

/// The definition, with its indices: sums of each token and row.
#[allow(clippy::needless_range_loop)]
fn naive(w: &Trits, x: &[i8]) -> Vec<i32> {
    let mut out = Vec::new();
    for x in x.chunks_exact(w.cols()) {
        for r in 0..w.rows() {
            let mut sum = 0;
            for c in 0..w.cols() {
                sum += i32::from(w.row(r)[c]) * i32::from(x[c]);
            }
            out.push(sum);
        }
    }
    out
}

/// The kernels that this CPU can run; prints the others with the reason.
fn kernels() -> Vec<&'static dyn Kernel> {
    for tier in Tier::ALL {
        let lacking = kernel::compiled().iter().filter(|c| c.tier == tier && c.kernel.is_none());
        let names: Vec<_> = lacking.map(|c| c.name()).collect();
        if !names.is_empty() {
            println!("skipped, as this CPU lacks {tier}: {}", names.join(" "));
        }
    }
    let kernels: Vec<_> = kernel::available().collect();
    let names: Vec<_> = kernels.iter().map(|k| k.name()).collect();
    println!("{} kernels: {}", names.len(), names.join(" "));
    kernels
}

/// The matrix in uneven parts, as far as the kernel's step allows.
fn parts(rows: usize, step: usize) -> [std::ops::Range<usize>; 3] {
    let first = (rows / 3).next_multiple_of(step).min(rows);
    let second = (first + step).min(rows);
    [0..first, first..second, second..rows]
}

#[test]
fn every_kernel_gives_the_defined_sums() {
    let kernels = kernels();
    let mut x = Activations::new();
    let mut cases = 0;
    for &(rows, cols) in SHAPES {
        for (w, trits) in weights(rows, cols) {
            let packed: Vec<_> =
                layout::ALL.iter().filter_map(|&layout| Packed::pack(layout, &trits).ok()).collect();
            for (a, q) in activations(cols) {
                let expected = naive(&trits, &q);
                let plan = plan(w == "random", a == "random");
                for &tokens in plan.batches {
                    x.set_i8(tokens, cols, &q[..tokens * cols]);
                    for packed in &packed {
                        for kernel in kernels.iter().filter(|k| same(k.layout(), packed.layout())) {
                            let all = std::iter::once(0..rows);
                            let cut = parts(rows, kernel.row_step());
                            let cut = cut.into_iter().filter(|_| plan.parts.contains(&tokens));
                            for range in all.chain(cut) {
                                let mut out = vec![i32::MIN; tokens * range.len()];
                                kernel.matmul(packed, &x, range.clone(), &mut out);
                                for t in 0..tokens {
                                    assert_eq!(
                                        out[t * range.len()..][..range.len()],
                                        expected[t * rows..][range.clone()],
                                        "{}, {rows}x{cols}, {w} weights, {a} activations, \
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
        let scalar = kernel::best(layout, Some(Tier::Scalar)).unwrap();
        assert_eq!(scalar.name(), format!("{}/scalar", layout.name()));
        assert_eq!(best.name(), format!("{}/{}", layout.name(), best.tier()));
    }
}
