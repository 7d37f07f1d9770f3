//! Plain Rust for any layout: the law that every other kernel is held against.

use crate::acts::Activations;
use crate::kernel::{Kernel, Packed, check_call};
use crate::layout::Layout;
use crate::tier::Tier;
use std::cell::RefCell;
use std::ops::Range;

/// The scalar kernel of a layout.
pub(crate) struct Scalar(pub(crate) &'static dyn Layout);

thread_local! {
    /// One unpacked row; kept so that calls do not allocate.
    static ROW: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
}

impl Kernel for Scalar {
    fn layout(&self) -> &'static dyn Layout {
        self.0
    }

    fn tier(&self) -> Tier {
        Tier::Scalar
    }

    fn row_step(&self) -> usize {
        1
    }

    fn matmul(&self, weights: &Packed, x: &Activations, rows: Range<usize>, out: &mut [i32]) {
        check_call(self, weights, x, &rows, out);
        ROW.with_borrow_mut(|w| {
            w.resize(weights.cols(), 0);
            for (i, row) in rows.clone().enumerate() {
                weights.unpack_row(row, w);
                for t in 0..x.tokens() {
                    let products = w.iter().zip(x.row(t)).map(|(&w, &x)| i32::from(w) * i32::from(x));
                    out[t * rows.len() + i] = products.sum();
                }
            }
        });
    }
}
