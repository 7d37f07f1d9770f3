//! Decoding a token allocates nothing: what a block of a transformer does, with an allocator that
//! counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use tritmark_kernels::Trits;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::float::attention::{Attend, Scratch, attention};
use tritmark_kernels::float::{FloatRows, KvLayer, elementwise};
use tritmark_kernels::kernel::{self, Packed};
use tritmark_kernels::matmul::{Matrix, matmul};
use tritmark_kernels::pool::Pool;
use tritmark_kernels::tuning::Tuning;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

// The only test of this program, so nothing else allocates beside it.
#[test]
fn a_decoded_token_allocates_nothing() {
    const HEADS: usize = 4;
    const DIM: usize = 32;
    const WIDTH: usize = HEADS * DIM;
    let pool = Pool::new(2);
    Tuning { alone: 0, ..Tuning::default() }.apply();
    let trits = Trits::new(WIDTH, WIDTH, (0..WIDTH * WIDTH).map(|i| (i % 3) as i8 - 1).collect()).unwrap();
    let head = FloatRows::from_f32(&pool, 2 * WIDTH, WIDTH, &vec![0.5; 2 * WIDTH * WIDTH]);
    let matrices: Vec<_> = kernel::available()
        .filter_map(|k| Some(Matrix::new(Packed::pack(k.layout(), &trits).ok()?, 1.0, k)))
        .collect();
    let mut cache = KvLayer::new(2, DIM, 1024);
    let how = Attend { heads: HEADS, scale: 0.2, window: usize::MAX };
    let (mut scratch, mut acts, mut rope) =
        (Scratch::default(), Activations::new(), elementwise::Rope::new(DIM, 1e4));
    let mut x: Vec<f32> = (0..WIDTH).map(|i| (i % 7) as f32 - 3.0).collect();
    let (mut q, mut k, mut logits) = (x.clone(), x.clone(), vec![0.0; 2 * WIDTH]);
    let (norm, mut row) = (vec![1.0; WIDTH], vec![0.0; WIDTH]);
    let mut token = |position: usize| {
        elementwise::widen(&x, &mut row);
        elementwise::rmsnorm(&mut row, &norm, 1e-5);
        acts.resize(1, WIDTH);
        let (q8, quants) = acts.parts_mut();
        quants[0] = elementwise::quantize(&row, q8);
        for m in &matrices {
            matmul(&pool, &[m, m], &acts, &mut [&mut q, &mut k]);
        }
        rope.prepare(position, 1);
        rope.apply(0, &mut q, None);
        cache.write(&pool, position, &k[..2 * DIM], &k[2 * DIM..]);
        attention(&pool, &cache, how, position, &q, &mut x, &mut scratch);
        head.matmul(&pool, &x, 1, &mut logits);
    };
    // Buffers grow with the first tokens, and whenever a thread meets a kind of work for the first
    // time, so some tokens pass before it is quiet.
    let mut allocated = vec![];
    for round in 0..20 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        // Both sides of the border between a text of one block and longer ones.
        for position in [200, 700].into_iter().flat_map(|start| start..start + 20) {
            token(position);
        }
        let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
        allocated.push(count);
        if round > 0 && count == 0 {
            return;
        }
    }
    panic!("allocations in rounds of 40 tokens: {allocated:?}");
}
