//! What can go wrong in a command, and the exit code it ends with.

use std::io;
use std::path::PathBuf;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused a request.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// Nobody answers on the Docker socket.
    #[error("Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("error during connect: {endpoint}")]
    Connection {
        /// The address.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the user.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A template.
    #[error(transparent)]
    Template(#[from] crate::template::Error),
    /// The host daemon.
    #[error("{message}")]
    Host {
        /// What was asked of it.
        message: String,
        /// What the user can do.
        hint: Option<String>,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Anything that one sentence says.
    #[error("{0}")]
    Plain(String),
    /// The command ends with this code and nothing more to say.
    #[error("exit code {0}")]
    Status(u8),
    /// An error that ends with a code of its own.
    #[error("{source}")]
    WithStatus {
        /// The exit code.
        status: u8,
        /// What happened.
        source: Box<Error>,
    },
}

impl Error {
    /// Makes an error of one sentence.
    pub fn plain(message: impl Into<String>) -> Error {
        Error::Plain(message.into())
    }

    /// Makes an error about a file.
    pub fn file(path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::File { path: path.into(), source }
    }

    /// Returns whether the engine said 404.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Daemon { status: 404, .. })
    }

    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Status(code) => *code,
            Error::WithStatus { status, .. } => *status,
            // Docker ends with 64 when a template can't be parsed.
            Error::Template(crate::template::Error::Parse { .. }) => 64,
            _ => 1,
        }
    }

    /// Gives the error an exit code, unless it has one.
    pub fn with_status(self, status: u8) -> Error {
        match self {
            Error::Status(_) | Error::WithStatus { .. } => self,
            other => Error::WithStatus { status, source: Box::new(other) },
        }
    }

    /// Returns the way out, where there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Host { hint, .. } => hint.as_deref(),
            Error::WithStatus { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Returns the error and its causes in one line.
    pub fn chain(&self) -> String {
        let inner = match self {
            Error::WithStatus { source, .. } => source,
            other => other,
        };
        let mut text = inner.to_string();
        // Docker's sentence says it all.
        if matches!(inner, Error::Unreachable { .. }) {
            return text;
        }
        let mut cause = std::error::Error::source(inner);
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}
