//! Speed: the protocol of taking samples, what may be wrong with them, and what the machine would allow.

pub mod bench;
pub mod bound;
pub mod control;
pub mod lists;
pub mod protocol;
pub mod warnings;

pub use protocol::{Observer, Options};
