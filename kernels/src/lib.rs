//! Exact matrix kernels for ternary (1.58-bit, BitNet) language models on CPUs.
//!
//! The whole idea on one page:
//!
//! * [`Trits`] is a matrix with every weight in {-1, 0, +1}, one `i8` each: the form that
//!   everything is proven against.
//! * A [`Layout`](layout::Layout) is a byte arrangement of such a matrix (`i2_s`, `tq2_0`, …). It is
//!   a property of a file, never of the CPU that reads it. Packing is lossless: `unpack(pack(x)) == x`.
//! * A [`Tier`] is an instruction-set level (`scalar`, `avx2`, …, `i8mm`).
//! * A [`Kernel`](kernel::Kernel) is layout × tier. It multiplies packed weights by int8
//!   [`Activations`](acts::Activations) and gives *exact* `i32` sums: every kernel agrees with the scalar one
//!   for every shape and every input. A kernel value exists only on a CPU that can run it.
//! * [`matmul`] spreads a kernel over the threads of a [`Pool`](pool::Pool) and scales the sums to `f32`, in
//!   one place and one order, so results depend neither on kernel nor on thread count.
//! * [`tuning`] holds the numbers that decide how fast all of this is, and never what comes out.
//! * [`float`] holds what surrounds the integer products in a transformer, with a fixed order of
//!   every reduction.

pub mod acts;
pub mod buffer;
pub mod float;
pub mod kernel;
pub mod layout;
pub mod limits;
pub mod matmul;
pub mod pool;
mod sealed;
pub mod tier;
pub mod trits;
pub mod tuning;

pub use tier::Tier;
pub use trits::Trits;

/// What panics begin with where no memory, or no thread, is to be had: no bug, and nothing to be done about it here.
pub const REFUSED: &str = "the system refuses";
