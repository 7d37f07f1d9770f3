//! Words that depend on a number.

/// A number of things: `1 thread`, `2 threads`.
pub fn counted(n: impl Into<u64>, thing: &str) -> String {
    let n = n.into();
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
