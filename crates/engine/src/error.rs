//! The engine's error: a code to branch on and a message in Docker's words.

use std::fmt::Display;

/// What kind of refusal an [`Error`] is; the API maps each to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense (400).
    InvalidArgument,
    /// The named thing does not exist (404).
    NotFound,
    /// The present state forbids it (409).
    Conflict,
    /// It is so already (304).
    NotModified,
    /// The credentials are not accepted (401).
    Unauthorized,
    /// It is not allowed (403).
    Forbidden,
    /// It can't be done now, or not on this machine (503).
    Unavailable,
    /// This engine does not do that (501).
    NotImplemented,
    /// The engine or the kernel failed (500).
    Internal,
}

/// An error as the API's client sees it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of refusal it is.
    pub code: Code,
    /// The text, in the words that Docker's clients know.
    pub message: String,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `code` with `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Code::NotImplemented, message)
    }

    /// An internal error: what was tried, and the whole chain of causes.
    pub(crate) fn internal(what: impl Display, source: &dyn std::error::Error) -> Self {
        Self::new(Code::Internal, format!("{what}: {}", chain(source)))
    }

    /// An error of a file operation, with its path.
    pub(crate) fn file(what: &str, path: &std::path::Path, source: &std::io::Error) -> Self {
        let message = format!("{what} {}: {source}", path.display());
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::disk_full(message),
            _ => Self::new(Code::Internal, message),
        }
    }

    /// The data disk is full: which operation met it, and the way out.
    pub(crate) fn disk_full(what: impl Display) -> Self {
        Self::new(
            Code::Unavailable,
            format!(
                "{what}: no space left on device: the data disk is full; remove what is not needed (docker system \
                 prune), or make it larger (machine.disk_gib in Skiff's settings)"
            ),
        )
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_errors_show_every_cause_once() {
        let cause = std::io::Error::other("disk on fire");
        assert_eq!(Error::internal("open x", &cause).to_string(), "open x: disk on fire");
    }
}
