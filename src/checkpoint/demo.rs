//! The demo models that are part of the program; see `bench-suites/demo/README.md` for their origin.

use super::file::Bytes;
use super::{Checkpoint, OpenOptions, hf};
use crate::error::Result;

/// The model argument that stands for the ternary model.
pub const NAME: &str = "demo";

/// The model argument that stands for its full-precision twin.
pub const FULL: &str = "demo-full";

/// Their held-out test text.
pub const TEXT: &str = include_str!("../../bench-suites/demo/test.txt");

/// Whether a model argument stands for one of them, in whatever form.
pub fn is(model: &str) -> bool {
    [NAME, FULL].contains(&model.split(' ').next().unwrap_or_default())
}

/// Opens the demo of that name; `None` if there is none.
///
/// # Errors
/// If `options` do not fit it.
pub fn open(name: &str, options: &OpenOptions) -> Option<Result<Checkpoint>> {
    let (config, tensors): (&[u8], &'static [u8]) = match name {
        NAME => (
            include_bytes!("../../bench-suites/demo/config.json"),
            include_bytes!("../../bench-suites/demo/model.safetensors"),
        ),
        FULL => (
            include_bytes!("../../bench-suites/demo/full/config.json"),
            include_bytes!("../../bench-suites/demo/full/model.safetensors"),
        ),
        _ => return None,
    };
    let tokenizer = include_bytes!("../../bench-suites/demo/tokenizer.json");
    Some(hf::from_memory(name, config, Bytes::Embedded(tensors), Some(tokenizer.to_vec()), options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::LinearKind;
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

    #[test]
    fn its_twin_is_full_precision_and_can_be_made_ternary() {
        let full = Checkpoint::open(FULL).expect("the embedded model");
        assert_eq!(full.config.linear, LinearKind::Float);
        assert_eq!(full.config.linear_params(), 4_718_592);
        let ptq = Checkpoint::open("demo-full --ptq absmean").expect("its ternary form");
        assert_eq!(ptq.config.linear, LinearKind::Ternary);
        assert!(ptq.provenance.post_training);
        assert_eq!(ptq.provenance.name, "demo-full --ptq absmean");
        for wrong in ["demo --ptq absmean", "demo-full --ptq", "demo-full --ptq rounding"] {
            assert!(Checkpoint::open(wrong).is_err(), "{wrong}");
        }
    }
}
