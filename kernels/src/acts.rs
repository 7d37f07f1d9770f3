//! int8 activations: per-token absmax quantisation, as BitLinear defines it.

/// A batch of quantised tokens, reusable without allocating.
#[derive(Debug, Default)]
pub struct Activations {
    _todo: (),
}
