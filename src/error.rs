//! The one error type, and the exit codes that it maps to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong, by whose fault it is. Every message says what was expected, what was found
/// and, where there is something to do, what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that does not exist or cannot be combined.
    #[error("{0}")]
    Usage(String),
    /// An input file is missing, damaged, contradictory, or of an unknown kind.
    #[error("{}{}: {message}{}", path.display(), tensor.as_ref().map(|t| format!(": tensor {t}")).unwrap_or_default(), hint.as_ref().map(|h| format!("\n  {h}")).unwrap_or_default())]
    Input {
        /// The file or directory.
        path: PathBuf,
        /// The tensor, where one is at fault.
        tensor: Option<String>,
        /// What was expected and what was found.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// A proof failed: two things that must be equal are not.
    #[error("{0}")]
    Proof(String),
    /// The measurement does not allow a verdict.
    #[error("{0}")]
    Inconclusive(String),
    /// Two records cannot be compared with each other.
    #[error("{0}")]
    NotComparable(String),
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A bug of ours.
    #[error("internal error: {0}\n  This is a bug in tritmark; please report it with the command line.")]
    Bug(String),
}

/// Result with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Input`] about a whole file.
    pub fn input(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Input { path: path.as_ref().into(), tensor: None, message: message.into(), hint: None }
    }

    /// An [`Error::Input`] about one tensor of a file.
    pub fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Input {
            path: path.as_ref().into(),
            tensor: Some(tensor.into()),
            message: message.into(),
            hint: None,
        }
    }

    /// What was expected and found, without the name of the file or tensor; for those who show these
    /// already.
    pub fn message(&self) -> String {
        match self {
            Error::Input { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// Adds what to do next to an [`Error::Input`]; leaves others as they are.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Error::Input { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// An [`Error::Io`] about `path`; an [`Error::Input`] where there is no such file, or a folder or
    /// bytes that are no text in its place. (That an output's folder is missing is told before anything is written.)
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        match source.kind() {
            ErrorKind::NotFound => Error::input(path, "no such file or directory"),
            ErrorKind::IsADirectory => Error::input(path, "expected a file, found a directory"),
            ErrorKind::InvalidData => Error::input(path, source.to_string()),
            _ => Error::Io { path: path.as_ref().into(), source },
        }
    }

    /// Whether nobody reads the output any more, as behind `| head`: then nothing is left to say.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Io { path, source }
            if source.kind() == ErrorKind::BrokenPipe && path.as_os_str() == "standard output")
    }

    /// The documented exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Proof(_) => 1,
            Error::Usage(_) => 2,
            Error::Inconclusive(_) => 3,
            Error::NotComparable(_) => 4,
            Error::Input { .. } => 5,
            Error::Bug(_) => 70,
            Error::Io { .. } => 74,
        }
    }
}
