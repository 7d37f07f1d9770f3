//! What is expected of a fixture.

use super::fixture::Fixture;
use serde::de::DeserializeOwned;

/// One of its files, where it is there.
pub fn json<T: DeserializeOwned>(fixture: &Fixture, name: &str) -> Option<T> {
    let path = fixture.path().join(name);
    let bytes = path.is_file().then(|| std::fs::read(&path).unwrap())?;
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}
