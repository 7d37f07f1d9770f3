//! tritmark: convert, prove and measure ternary (1.58-bit, BitNet) language models on CPUs.
//!
//! Data goes one way: checkpoint → trits → packed layout → kernel → model → measurement → record →
//! report. Each step is a module.

pub mod accuracy;
pub mod checkpoint;
pub mod cli;
pub mod convert;
pub mod energy;
pub mod error;
pub mod files;
pub mod inspect;
mod interrupt;
pub mod machine;
pub mod model;
pub mod record;
#[cfg(feature = "reference")]
pub mod reference;
pub mod report;
pub mod speed;
pub mod stats;
pub mod suite;
pub mod synth;
pub mod verify;
pub mod words;

pub use error::{Error, Result};
