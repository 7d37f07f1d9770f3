//! The demo model that is part of the program; see `bench-suites/demo/README.md` for its origin.

use super::file::Bytes;
use super::{Checkpoint, hf};
use crate::error::Result;

/// The model argument that stands for it.
pub const NAME: &str = "demo";

/// Its held-out test text.
pub const TEXT: &str = include_str!("../../bench-suites/demo/test.txt");

/// Opens it.
///
/// # Errors
/// Never, unless the program was built from damaged files.
pub fn open() -> Result<Checkpoint> {
    hf::from_memory(
        NAME,
        include_bytes!("../../bench-suites/demo/config.json"),
        Bytes::Embedded(include_bytes!("../../bench-suites/demo/model.safetensors")),
        Some(include_bytes!("../../bench-suites/demo/tokenizer.json").to_vec()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::role::{LayerRole, Linear, Role};

    #[test]
    fn the_demo_is_a_ternary_model_with_a_tokenizer() {
        let demo = Checkpoint::open(NAME).expect("the embedded model");
        assert_eq!(demo.config.linear_params(), 4_718_592);
        assert!(demo.tokenizer.is_some());
        let w = demo.ternary(Role::Layer(5, LayerRole::Linear(Linear::Down))).expect("a ternary weight");
        assert_eq!((w.trits.rows(), w.trits.cols()), (256, 768));
        assert!(w.scale > 0.0 && w.trits.zero_fraction() > 0.1);
    }
}
