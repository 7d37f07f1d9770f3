//! What the system lets this process have, where a limit (`ulimit -v`) is set: threads and tensors that
//! do not fit are refused in words, before one is asked for in vain.

use crate::error::{Error, Result};
use std::io::{Error as IoError, ErrorKind};

/// Address space that a thread takes beside the tensors that it works on: its stack, and what the
/// allocator sets apart for it.
const THREAD: u64 = 80 << 20;

/// What all else may still take.
const REST: u64 = 48 << 20;

/// Address space that is left; `None` where there is no limit or the system does not tell.
pub struct System {
    left: Option<u64>,
}

impl System {
    /// What is left now.
    pub fn now() -> Self {
        let number = |file: &str, key: &str, unit: u64| -> Option<u64> {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? * unit)
        };
        let limit = number("/proc/self/limits", "Max address space", 1);
        let taken = number("/proc/self/status", "VmSize:", 1024);
        Self { left: limit.zip(taken).map(|(limit, taken)| limit.saturating_sub(taken)) }
    }

    /// Whether there is a limit.
    pub fn limited(&self) -> bool {
        self.left.is_some()
    }

    /// As many threads of `wanted` as there is room for, each with `work` bytes.
    ///
    /// # Errors
    /// If there is no room for one.
    pub fn threads(&self, wanted: usize, work: u64) -> Result<usize> {
        let Some(left) = self.left else { return Ok(wanted) };
        let each = THREAD + work;
        match (left.saturating_sub(REST) / each).min(wanted as u64) {
            0 => Err(Self::refused(format!(
                "a limit (ulimit -v) leaves {} MB of address space, and {} MB are needed",
                left / 1_000_000,
                (each + REST) / 1_000_000
            ))),
            threads => Ok(threads as usize),
        }
    }

    /// An error about memory that there is not.
    pub fn refused(why: String) -> Error {
        Error::io("memory", IoError::new(ErrorKind::OutOfMemory, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_the_room() {
        let room = |mb: u64| System { left: Some(mb << 20) };
        assert_eq!(System { left: None }.threads(8, 1 << 40).unwrap(), 8);
        assert_eq!(room(4096).threads(8, 20 << 20).unwrap(), 8);
        assert_eq!(room(300).threads(8, 20 << 20).unwrap(), 2);
        assert_eq!(room(100).threads(8, 20 << 20).unwrap_err().exit_code(), 74);
    }
}
