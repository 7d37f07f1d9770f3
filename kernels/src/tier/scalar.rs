//! Plain Rust for any layout: the law that every other kernel is held against.

use crate::acts::Activations;
use crate::kernel::{Kernel, Packed, Way, check_call};
use crate::layout::Layout;
use crate::sealed::Sealed;
use crate::tier::Tier;
use std::cell::RefCell;
use std::ops::Range;

/// The scalar kernel of a layout.
pub(crate) struct Scalar(pub(crate) &'static dyn Layout);

thread_local! {
    /// One unpacked row; kept so that calls do not allocate.
    static ROW: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
}

impl Sealed for Scalar {}

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

    fn way(&self) -> (Way, Tier) {
        (Way::Rows, Tier::Scalar)
    }

    fn run(
        &self,
        weights: &Packed,
        x: &Activations,
        tokens: Range<usize>,
        rows: Range<usize>,
        sink: &mut dyn FnMut(usize, usize, &[i32]),
    ) {
        check_call(self, weights, x, &tokens, &rows);
        ROW.with_borrow_mut(|w| {
            w.resize(weights.cols(), 0);
            for row in rows {
                weights.unpack_row(row, w);
                for t in tokens.clone() {
                    let products = w.iter().zip(x.row(t)).map(|(&w, &x)| i32::from(w) * i32::from(x));
                    sink(t, row, &[products.sum()]);
                }
            }
        });
    }
}
