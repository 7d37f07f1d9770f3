//! Every kernel that this CPU can run, the scalar ones too, against a plain loop over the unpacked
//! matrix: over shapes, weights, activations, batches, parts of a product, and tunings.

use proptest::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};
use tritmark_kernels::layout::{self, Layout};
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;
use tritmark_kernels::tuning::{LookupFrom, Tuning};
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
    (32, 2560),
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

/// Batches with some weights and activations: everything for random numbers; extremes, which are about
/// sums that grow too large, take each path once.
fn batches(random_weights: bool, random_activations: bool) -> &'static [usize] {
    match (random_weights, random_activations) {
        (true, true) => BATCHES,
        (true, false) => &[1, 3, 13, 33],
        (false, _) => &[1, 13, 33],
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

fn random_trits(rows: usize, cols: usize) -> Trits {
    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (rows * 65537 + cols) as u64);
    Trits::new(rows, cols, (0..rows * cols).map(|_| (random.next() % 3) as i8 - 1).collect()).unwrap()
}

/// Weights: random, and those that make sums of one sign largest, with each of the activations.
fn weights(rows: usize, cols: usize) -> [(&'static str, Trits); 4] {
    let extreme = |weight: fn(usize) -> i8| {
        Trits::new(rows, cols, (0..rows * cols).map(|i| weight(i % cols)).collect()).unwrap()
    };
    [
        ("random", random_trits(rows, cols)),
        ("all 1", extreme(|_| 1)),
        ("all -1", extreme(|_| -1)),
        ("alternating", extreme(|c| if c.is_multiple_of(2) { 1 } else { -1 })),
    ]
}

/// Activations of some tokens.
fn activations(tokens: usize, cols: usize) -> [(&'static str, Vec<i8>); 5] {
    let mut random = Random(0xD1B5_4A32_D192_ED03 ^ cols as u64);
    let n = tokens * cols;
    [
        ("random", (0..n).map(|_| random.next() as i8).collect()),
        ("all 127", vec![127; n]),
        ("all -128", vec![-128; n]),
        ("alternating", (0..n).map(|i| if (i % cols).is_multiple_of(2) { 127 } else { -128 }).collect()),
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

/// The kernels that this CPU can run; says once which those are, and why not the others.
fn kernels() -> Vec<&'static dyn Kernel> {
    static SAY: Once = Once::new();
    let kernels: Vec<_> = kernel::available().collect();
    SAY.call_once(|| {
        for tier in Tier::ALL {
            let lacking = kernel::compiled().iter().filter(|c| c.tier == tier && c.kernel.is_none());
            let names: Vec<_> = lacking.map(|c| c.name()).collect();
            if !names.is_empty() {
                println!("skipped, as this CPU lacks {tier}: {}", names.join(" "));
            }
        }
        let names: Vec<_> = kernels.iter().map(|k| k.name()).collect();
        println!("{} kernels: {}", names.len(), names.join(" "));
    });
    kernels
}

/// Tunings hold for the whole process, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Uses a tuning until what is returned is dropped.
fn tuned(tuning: &Tuning) -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    tuning.apply();
    assert_eq!(Tuning::current(), *tuning);
    turn
}

/// Tables wherever they are possible.
fn tables() -> Tuning {
    let mut tuning = Tuning { prefetch: 64, tasks: 7, alone: 0, ..Tuning::default() };
    for (_, lookup) in &mut tuning.lookup {
        *lookup = LookupFrom { tokens: 1, rows: 1 };
    }
    tuning
}

/// The matrix in every layout that holds it.
fn pack(trits: &Trits) -> Vec<Packed> {
    layout::ALL.iter().filter_map(|&layout| Packed::pack(layout, trits).ok()).collect()
}

/// What a kernel is asked for, and what must come out: sums of all tokens and rows.
struct Case<'a> {
    packed: &'a [Packed],
    x: &'a Activations,
    expected: &'a [i32],
    name: String,
}

impl Case<'_> {
    /// Asks every kernel for some tokens and rows, and returns how many there were. Rows start at the
    /// multiple of a kernel's step before the one that is named.
    fn check(&self, kernels: &[&dyn Kernel], tokens: Range<usize>, rows: Range<usize>) -> usize {
        let mut count = 0;
        for packed in self.packed {
            for kernel in kernels.iter().filter(|k| same(k.layout(), packed.layout())) {
                let step = kernel.row_step();
                let end = rows.end.next_multiple_of(step).min(packed.rows());
                let range = rows.start / step * step..end;
                let mut out = vec![None; tokens.len() * range.len()];
                kernel.run(packed, self.x, tokens.clone(), range.clone(), &mut |t, row, sums| {
                    assert!(tokens.contains(&t) && range.start <= row && row + sums.len() <= range.end);
                    let at = (t - tokens.start) * range.len() + row - range.start;
                    for (out, sum) in out[at..].iter_mut().zip(sums) {
                        assert_eq!(out.replace(*sum), None, "{}: a sum came twice", kernel.name());
                    }
                });
                for (t, out) in tokens.clone().zip(out.chunks_exact(range.len().max(1))) {
                    let expected = &self.expected[t * packed.rows()..][range.clone()];
                    let right = out.iter().zip(expected).all(|(a, b)| *a == Some(*b));
                    let what = || {
                        format!("{}, {}, token {t} of {tokens:?}, rows {range:?}", kernel.name(), self.name)
                    };
                    assert!(right, "{}:\n{out:?}\ninstead of\n{expected:?}", what());
                }
                count += 1;
            }
        }
        count
    }
}

/// All shapes, weights, activations and batches that are given, whole and in parts.
fn sweep(shapes: &[(usize, usize)], batches: impl Fn(bool, bool) -> &'static [usize], parts: &[usize]) {
    let kernels = kernels();
    let mut x = Activations::new();
    let mut count = 0;
    for &(rows, cols) in shapes {
        for (w, trits) in weights(rows, cols) {
            let packed = pack(&trits);
            let most = batches(w == "random", true).iter().max().unwrap();
            for (a, q) in activations(*most, cols) {
                let batches = batches(w == "random", a == "random");
                let expected = naive(&trits, &q[..batches.iter().max().unwrap() * cols]);
                for &tokens in batches {
                    x.set_i8(tokens, cols, &q[..tokens * cols]);
                    let name = format!("{rows}x{cols}, {w} weights, {a} activations");
                    let case = Case { packed: &packed, x: &x, expected: &expected, name };
                    count += case.check(&kernels, 0..tokens, 0..rows);
                    if w == "random" && a == "random" && parts.contains(&tokens) {
                        for part in [0..rows / 3, rows / 3..rows / 2, rows / 2..rows] {
                            count += case.check(&kernels, tokens / 3..tokens, part);
                        }
                    }
                }
            }
        }
    }
    println!("{count} products agree");
}

#[test]
fn every_kernel_gives_the_defined_sums() {
    let _turn = tuned(&Tuning::default());
    sweep(SHAPES, batches, &[1, 9, 33]);
}

/// Wider than any kernel adds up without folding its sums into others, of layouts that hold two rows.
#[test]
fn wide_rows_give_the_defined_sums() {
    let _turn = tuned(&Tuning::default());
    sweep(&[(2, 170_240)], |_, _| &[1, 2], &[]);
}

/// More tokens than are looked up or multiplied straight from any layout.
#[test]
fn large_batches_give_the_defined_sums() {
    let _turn = tuned(&Tuning::default());
    sweep(&[(40, 160)], |_, _| &[130], &[130]);
}

/// A shape for which `tl1` and `tl2` have tiles unlike those that they derive from shapes.
#[test]
fn published_tiles_give_the_defined_sums() {
    let (rows, cols, tokens) = (1536, 1536, 7);
    let _turn = tuned(&Tuning::default());
    let trits = random_trits(rows, cols);
    let packed =
        [&layout::TL1 as &'static dyn Layout, &layout::TL2].map(|l| Packed::pack(l, &trits).unwrap());
    let (_, q) = &activations(tokens, cols)[0];
    let mut x = Activations::new();
    x.set_i8(tokens, cols, q);
    let case = Case { packed: &packed, x: &x, expected: &naive(&trits, q), name: format!("{rows}x{cols}") };
    case.check(&kernels(), 0..tokens, 0..rows);
    case.check(&kernels(), 1..2, 32..160);
    case.check(&kernels(), 0..tokens, 32..160);
}

/// Tables wherever they are possible, however slow.
#[test]
fn tables_give_the_defined_sums() {
    if tables().lookup.is_empty() {
        return println!("skipped: no tier of this architecture has tables");
    }
    let _turn = tuned(&tables());
    let batches = |weights, activations| -> &'static [usize] {
        match (weights, activations) {
            (true, true) => &[7, 8, 9, 16, 17, 40],
            (true, false) => &[9, 24],
            (false, _) => &[16],
        }
    };
    sweep(&[(1, 1), (33, 97), (64, 128), (70, 512), (200, 1280)], batches, &[17, 40]);
}

/// As many tokens and rows as tables are used for by default, on each tier.
#[test]
fn large_products_give_the_defined_sums() {
    let mut sizes = vec![(544, 40)];
    // From so many tokens on `tm1_67` has the tables of other layouts, not its own.
    if Tier::Avx512.is_available() {
        sizes.push((544, 131));
    }
    let _turn = tuned(&Tuning::default());
    for (tier, from) in Tuning::default().lookup {
        let large = from.tokens == LookupFrom::NEVER || (544 >= from.rows && 40 >= from.tokens);
        assert!(large, "no product is large enough for the tables of {tier}");
    }
    let kernels: Vec<_> = kernels().into_iter().filter(|k| k.tier() != Tier::Scalar).collect();
    let mut x = Activations::new();
    for (rows, tokens) in sizes {
        let cols = 256;
        let trits = random_trits(rows, cols);
        let packed = pack(&trits);
        for (a, q) in activations(tokens, cols).into_iter().take(3) {
            x.set_i8(tokens, cols, &q);
            let expected = naive(&trits, &q);
            let name = format!("{rows}x{cols}, {a} activations");
            Case { packed: &packed, x: &x, expected: &expected, name }.check(&kernels, 0..tokens, 0..rows);
        }
    }
}

/// More rows than the tables of AVX-512 take at a time.
#[test]
fn tall_products_give_the_defined_sums() {
    let (rows, cols, tokens) = (7200, 1024, 17);
    let tables = |k: &&dyn Kernel| k.layout().name() == "tm2" && k.tier() >= Tier::Avx512;
    let kernels: Vec<_> = kernels().into_iter().filter(|k| tables(&&**k)).collect();
    if kernels.is_empty() {
        return println!("skipped: this CPU lacks AVX-512");
    }
    let _turn = tuned(&Tuning::default());
    let trits = random_trits(rows, cols);
    let packed = [Packed::pack(&layout::TM2, &trits).unwrap()];
    let (_, q) = &activations(tokens, cols)[0];
    let mut x = Activations::new();
    x.set_i8(tokens, cols, q);
    let case = Case { packed: &packed, x: &x, expected: &naive(&trits, q), name: format!("{rows}x{cols}") };
    case.check(&kernels, 0..tokens, 0..rows);
}

/// Bytes and activations may come from anywhere in memory.
#[test]
fn unaligned_inputs_give_the_defined_sums() {
    let (rows, cols, tokens) = (35, 256, 5);
    let _turn = tuned(&Tuning::default());
    let trits = random_trits(rows, cols);
    let (_, q) = &activations(tokens + 1, cols)[0];
    for offset in [1, 3, 31, 63] {
        let packed = pack(&trits).into_iter().map(|packed| {
            let mut bytes = vec![0xAA; offset];
            bytes.extend_from_slice(packed.bytes());
            Packed::from_bytes(packed.layout(), rows, cols, &bytes[offset..]).unwrap()
        });
        let q = &q[offset..][..tokens * cols];
        let mut x = Activations::new();
        x.set_i8(tokens, cols, q);
        let (packed, expected) = (packed.collect::<Vec<_>>(), naive(&trits, q));
        let name = format!("{offset} bytes in");
        Case { packed: &packed, x: &x, expected: &expected, name }.check(&kernels(), 0..tokens, 0..rows);
    }
}

/// How work is cut and where tables are used changes no bit of a result.
#[test]
fn tuning_changes_no_result() {
    let (rows, cols, tokens) = (200, 256, 38);
    let trits = random_trits(rows, cols);
    let mut x = Activations::new();
    let input: Vec<f32> = (0..tokens * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
    x.quantize(&input, tokens, cols);
    let pools = [1, 2, 3].map(Pool::new);
    let mut first = None;
    let kernels = kernels();
    let few = Tuning {
        lookup: tables().lookup.into_iter().map(|(t, _)| (t, LookupFrom { tokens: 9, rows: 40 })).collect(),
        prefetch: 0,
        sequences: !Tuning::default().sequences,
        tasks: 1,
        alone: usize::MAX,
    };
    let mut never = tables();
    for (_, lookup) in &mut never.lookup {
        lookup.tokens = LookupFrom::NEVER;
    }
    for tuning in [Tuning::default(), tables(), few, never] {
        let _turn = tuned(&tuning);
        for kernel in &kernels {
            let Ok(packed) = Packed::pack(kernel.layout(), &trits) else { continue };
            let matrix = Matrix::new(packed, 0.37, *kernel);
            for pool in &pools {
                let mut out = vec![f32::NAN; tokens * rows];
                matmul(pool, &[&matrix], &x, &mut [&mut out]);
                let same = first.get_or_insert_with(|| out.clone()) == &out;
                assert!(same, "{} on {} threads with {tuning:?}", kernel.name(), pool.threads());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    /// Any shape, part and numbers.
    #[test]
    fn any_product_gives_the_defined_sums(
        (rows, cols, tokens) in (1usize..100, 1usize..500, 1usize..24),
        // Shapes of few factors are held by few layouts.
        multiples in prop::sample::select(vec![(1, 1), (4, 64), (32, 128), (32, 256)]),
        (seed, zeros, tables_too) in (1u64.., 0u64..4, any::<bool>()),
        cuts in prop::array::uniform4(0.0f64..1.0),
    ) {
        let (rows, cols) = (rows.next_multiple_of(multiples.0), cols.next_multiple_of(multiples.1));
        let mut random = Random(seed);
        let mut trit = || if random.next() % 4 < zeros { 0 } else { (random.next() & 2) as i8 - 1 };
        let trits = Trits::new(rows, cols, (0..rows * cols).map(|_| trit()).collect()).unwrap();
        let q: Vec<i8> = (0..tokens * cols).map(|_| random.next() as i8).collect();
        let mut x = Activations::new();
        x.set_i8(tokens, cols, &q);
        let part = |of: usize, a: f64, b: f64| {
            let [a, b] = [a.min(b), a.max(b)].map(|cut| (cut * (of + 1) as f64) as usize);
            a..b
        };
        let (some_tokens, some_rows) = (part(tokens, cuts[0], cuts[1]), part(rows, cuts[2], cuts[3]));
        let name = format!("{rows}x{cols}, seed {seed}, {zeros} zeros");
        let _turn = tuned(&if tables_too { tables() } else { Tuning::default() });
        let (packed, expected, kernels) = (pack(&trits), naive(&trits, &q), kernel::available().collect::<Vec<_>>());
        let case = Case { packed: &packed, x: &x, expected: &expected, name };
        case.check(&kernels, 0..tokens, 0..rows);
        case.check(&kernels, some_tokens, some_rows);
    }
}

fn same(a: &dyn Layout, b: &dyn Layout) -> bool {
    a.name() == b.name()
}

#[test]
fn selection_follows_the_table() {
    for &layout in layout::ALL {
        let tiers = || kernel::available().filter(|k| same(k.layout(), layout)).map(|k| k.tier());
        let best = kernel::best(layout, None).expect("at least the scalar kernel");
        assert_eq!((best.layout().name(), Some(best.tier())), (layout.name(), tiers().max()));
        for most in Tier::ALL {
            let capped = kernel::best(layout, Some(most)).expect("at least the scalar kernel");
            assert_eq!(Some(capped.tier()), tiers().filter(|tier| *tier <= most).max(), "at most {most}");
            assert_eq!(capped.name(), format!("{}/{}", layout.name(), capped.tier()));
        }
    }
}
