//! Where fixtures lie.

use std::path::{Path, PathBuf};

/// The folder `tests/fixtures` and those that `TRITMARK_FIXTURES` names.
pub fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let more = std::env::var_os("TRITMARK_FIXTURES").unwrap_or_default();
    std::iter::once(own).chain(std::env::split_paths(&more).filter(|p| !p.as_os_str().is_empty())).collect()
}
