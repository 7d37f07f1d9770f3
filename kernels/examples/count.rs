//! One product of one kernel, for a tool that counts its instructions: all that lies in [`counted`].
//!
//! `count KERNEL ROWSxCOLS TOKENS`, e.g. `count tm2/avx2 512x512 1`; see `ci/counts.sh`.

use tritmark_kernels::Trits;
use tritmark_kernels::acts::Activations;
use tritmark_kernels::kernel::{self, Kernel, Packed};

#[inline(never)]
fn counted(kernel: &dyn Kernel, weights: &Packed, x: &Activations, out: &mut [i32]) {
    kernel.matmul(weights, x, 0..weights.rows(), out);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, shape, tokens] = &args[..] else { panic!("expected KERNEL ROWSxCOLS TOKENS") };
    let kernel = kernel::available().find(|k| k.name() == *name);
    let kernel = kernel.unwrap_or_else(|| panic!("this CPU has no kernel {name}"));
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let (rows, cols) = shape.split_once('x').expect("ROWSxCOLS");
    let (rows, cols, tokens) = (number(rows), number(cols), number(tokens));

    let trits = (0..rows * cols).map(|i| (i * 31 % 97 % 3) as i8 - 1).collect();
    let trits = Trits::new(rows, cols, trits).expect("trits in the right number");
    let weights = Packed::pack(kernel.layout(), &trits).expect("a shape of the layout");
    let mut x = Activations::new();
    x.set_i8(tokens, cols, &(0..tokens * cols).map(|i| (i * 37) as i8).collect::<Vec<_>>());
    let mut out = vec![0; tokens * rows];
    // Buffers grow with the first call.
    kernel.matmul(&weights, &x, 0..rows, &mut out);
    counted(kernel, &weights, &x, &mut out);
    println!("{}", out.iter().map(|&sum| i64::from(sum)).sum::<i64>());
}
