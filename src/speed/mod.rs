//! Speed: the protocol of taking samples, the statistics over them, and what may be wrong with them.

pub mod protocol;
pub mod stats;
pub mod warnings;

pub use protocol::{ArmSpec, Clock, ControlSpec, Observer, Options, measure};
