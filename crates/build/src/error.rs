//! The crate's error type: BuildKit's words where BuildKit has words.
//!
//! `Display` is what clients get to see, so it is complete. Errors are cloned: builds that wait for the same vertex share
//! its failure.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::graph::pb;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may do about an [`enum@Error`]; doors map it to HTTP and gRPC statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The request, the definition or the Dockerfile is wrong.
    InvalidArgument,
    /// Something that the build names does not exist.
    NotFound,
    /// The build may not do that (an entitlement is missing, a registry refuses).
    Denied,
    /// A registry, a host or the client does not answer.
    Unavailable,
    /// The client has gone or has cancelled.
    Cancelled,
    /// A step of the build failed.
    Failed,
    /// Skiff's own storage failed, or something else that is nobody's fault.
    Internal,
}

/// Where in a file of the user something is.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The file, with its text.
    pub source: pb::SourceInfo,
    /// The lines.
    pub ranges: Vec<pb::Range>,
}

/// Everything that can go wrong in a build.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// A request, definition or option makes no sense.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// A file, stage, image, secret or context does not exist.
    #[error("{message}")]
    NotFound {
        /// BuildKit's words.
        message: String,
    },
    /// The build may not do that.
    #[error("{message}")]
    Denied {
        /// BuildKit's words.
        message: String,
    },
    /// Somebody else does not answer.
    #[error("{message}")]
    Unavailable {
        /// Who, and what it said.
        message: String,
    },
    /// A step's process failed.
    #[error("process {command:?} did not complete successfully: exit code: {exit_code}")]
    Process {
        /// Its arguments, joined.
        command: String,
        /// Its exit code.
        exit_code: i32,
    },
    /// A vertex could not be done, for a reason that is no process's exit.
    #[error("{message}")]
    Failed {
        /// What was tried and why it failed.
        message: String,
    },
    /// An error at a place in the user's Dockerfile that no vertex stands for.
    #[error("{message}")]
    Source {
        /// What is wrong, in BuildKit's words.
        message: String,
        /// What kind of failure it is.
        code: Code,
        /// Where.
        location: Box<Location>,
    },
    /// A vertex failed.
    #[error("{cause}")]
    Vertex {
        /// The digest of the vertex.
        digest: String,
        /// Where the user's file asks for it, when the definition says so.
        location: Option<Box<Location>>,
        /// The failure.
        cause: Box<Error>,
    },
    /// The image store or a registry failed.
    #[error("{cause}")]
    Images {
        /// Its error.
        cause: Arc<skiff_images::Error>,
    },
    /// A file operation of Skiff's own failed.
    #[error("{op} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        cause: Arc<io::Error>,
    },
    /// The cache's database failed.
    #[error("build cache: {reason}")]
    Database {
        /// What it said.
        reason: String,
    },
    /// The client has gone or has cancelled.
    #[error("context canceled")]
    Cancelled,
}

impl Error {
    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into() }
    }

    /// Something that does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::NotFound { message: message.into() }
    }

    /// Something that could not be done.
    pub fn failed(message: impl Into<String>) -> Error {
        Error::Failed { message: message.into() }
    }

    /// Somebody who does not answer.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::Unavailable { message: message.into() }
    }

    /// A file operation that failed.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Error {
        Error::Io { op, path: path.into(), cause: Arc::new(cause.into()) }
    }

    /// Says what kind of failure this is.
    pub fn code(&self) -> Code {
        match self {
            Error::Invalid { .. } => Code::InvalidArgument,
            Error::Source { code, .. } => *code,
            Error::NotFound { .. } => Code::NotFound,
            Error::Denied { .. } => Code::Denied,
            Error::Unavailable { .. } => Code::Unavailable,
            Error::Process { .. } | Error::Failed { .. } => Code::Failed,
            Error::Vertex { cause, .. } => cause.code(),
            Error::Images { cause } => match cause.code() {
                skiff_images::Code::InvalidArgument => Code::InvalidArgument,
                skiff_images::Code::NotFound => Code::NotFound,
                skiff_images::Code::Unauthorized => Code::Denied,
                skiff_images::Code::Unavailable => Code::Unavailable,
                _ => Code::Internal,
            },
            Error::Cancelled => Code::Cancelled,
            Error::Io { .. } | Error::Database { .. } => Code::Internal,
        }
    }

    /// The vertex that failed, when it was one.
    pub fn vertex(&self) -> Option<&str> {
        match self {
            Error::Vertex { digest, .. } => Some(digest),
            _ => None,
        }
    }

    /// Where in the user's file the failure is: what clients show as an excerpt.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Error::Source { location, .. } => Some(location),
            Error::Vertex { location, cause, .. } => location.as_deref().or_else(|| cause.location()),
            _ => None,
        }
    }

    /// The exit code of the process that failed, when it was one.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Error::Process { exit_code, .. } => Some(*exit_code),
            Error::Vertex { cause, .. } => cause.exit_code(),
            _ => None,
        }
    }
}

impl From<skiff_images::Error> for Error {
    fn from(cause: skiff_images::Error) -> Error {
        Error::Images { cause: Arc::new(cause) }
    }
}
