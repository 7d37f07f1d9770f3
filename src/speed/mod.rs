//! Speed: the protocol of taking samples, and the statistics over them.

pub mod stats;
