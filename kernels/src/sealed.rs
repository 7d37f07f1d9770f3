//! Keeps traits that unsafe code relies on from being implemented outside this crate.

/// What only this crate can name, and so implement.
pub trait Sealed {}
