//! The crate's error type: Docker's words where Docker has words.
//!
//! `Display` is what API clients get to see, so it is complete; there are no sources to chain behind it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What a caller may do about an [`enum@Error`]; the HTTP edge maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The request itself is wrong.
    InvalidArgument,
    /// The named image, tag or repository does not exist, or may not be seen.
    NotFound,
    /// The image is in use, or its name is.
    Conflict,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry can't be reached or does not answer properly.
    Unavailable,
    /// Skiff's own storage failed, or something else that is nobody's fault.
    Internal,
}

/// Everything that can go wrong with images.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A name is not an image reference.
    #[error(transparent)]
    Reference(#[from] crate::reference::ParseError),
    /// No image has this name or id.
    #[error("No such image: {reference}")]
    NoSuchImage {
        /// The familiar form of what was asked for.
        reference: String,
    },
    /// Removing is refused because somebody still needs the image.
    #[error("conflict: {message}")]
    Conflict {
        /// Docker's reason.
        message: String,
    },
    /// An argument other than a reference is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// There is nothing here to push under this name.
    #[error("{message}")]
    NotPushed {
        /// Docker's words.
        message: String,
    },
    /// The registry says that there is no such thing, or that we may not have it.
    #[error("{message}")]
    RegistryNotFound {
        /// The registry's words inside Docker's.
        message: String,
    },
    /// The registry refuses the credentials.
    #[error("{message}")]
    RegistryUnauthorized {
        /// The registry's words.
        message: String,
    },
    /// The registry answered, but not with what was asked for.
    #[error("{message}")]
    Registry {
        /// What it answered.
        message: String,
    },
    /// A request got no answer.
    #[error("{method} \"{url}\": {reason}")]
    Request {
        /// `Get` or `Post`.
        method: &'static str,
        /// The address asked.
        url: String,
        /// Why there is no answer, in the words of Docker's own errors.
        reason: String,
    },
    /// A manifest list holds nothing for the platform.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoMatchingManifest {
        /// The platform, normalised.
        platform: String,
    },
    /// The image is for another platform than the one asked for.
    #[error(
        "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    OtherPlatform {
        /// What the user called it.
        reference: String,
        /// The platform asked for, normalised.
        wanted: String,
        /// The image's own.
        actual: String,
    },
    /// The manifest is of the first form, which nobody reads any more.
    #[error(
        "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support is \
         disabled by default and will be removed in an upcoming release.{suggestion} More information at \
         https://docs.docker.com/go/deprecated-image-specs/"
    )]
    OldManifest {
        /// Whom to ask for another one, after a space; or nothing.
        suggestion: String,
    },
    /// A manifest or configuration makes no sense.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Layers are not those that the image's configuration names.
    #[error("layers from manifest don't match image configuration")]
    LayersMismatch,
    /// Bytes do not have the digest that names them.
    #[error("filesystem layer verification failed for digest {digest}")]
    DigestMismatch {
        /// The digest they should have.
        digest: String,
    },
    /// A manifest or configuration does not have the digest that names it.
    #[error("manifest verification failed for digest {digest}")]
    ManifestMismatch {
        /// The digest it should have.
        digest: String,
    },
    /// A layer's contents are not what the image's configuration promises.
    #[error("layer {layer}: wrong diff id calculated on extraction \"{actual}\"")]
    WrongDiffId {
        /// The diff id that the configuration names.
        layer: String,
        /// The diff id of the bytes.
        actual: String,
    },
    /// A layer can't be unpacked.
    #[error("failed to register layer: {layer}: {cause}")]
    Layer {
        /// The blob or diff id.
        layer: String,
        /// Which entry, and why.
        cause: crate::layer::LayerError,
    },
    /// An archive given to load or import is unusable.
    #[error("{reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// The byte stream given to load or import failed.
    #[error("reading the archive: {cause}")]
    Input {
        /// The stream's error.
        cause: io::Error,
    },
    /// A file operation of the store failed.
    #[error("{op} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The store is open already, most likely in another process.
    #[error("image store {} is in use by another process", path.display())]
    InUse {
        /// The store's root.
        path: PathBuf,
    },
    /// The metadata database failed.
    #[error("image database: {reason}")]
    Database {
        /// What it said.
        reason: String,
    },
    /// A worker went away, which happens when the process shuts down.
    #[error("the operation was interrupted")]
    Interrupted,
}

impl Error {
    /// Says what kind of failure this is.
    pub fn code(&self) -> Code {
        match self {
            Error::Reference(_)
            | Error::Invalid { .. }
            | Error::Archive { .. }
            | Error::Input { .. }
            | Error::OldManifest { .. } => Code::InvalidArgument,
            Error::NoSuchImage { .. }
            | Error::NotPushed { .. }
            | Error::RegistryNotFound { .. }
            | Error::NoMatchingManifest { .. }
            | Error::OtherPlatform { .. } => Code::NotFound,
            Error::Conflict { .. } => Code::Conflict,
            Error::RegistryUnauthorized { .. } => Code::Unauthorized,
            Error::Registry { .. } | Error::Request { .. } => Code::Unavailable,
            Error::Malformed { .. }
            | Error::DigestMismatch { .. }
            | Error::ManifestMismatch { .. }
            | Error::WrongDiffId { .. }
            | Error::LayersMismatch
            | Error::Layer { .. }
            | Error::Io { .. }
            | Error::InUse { .. }
            | Error::Database { .. }
            | Error::Interrupted => Code::Internal,
        }
    }

    /// Says whether the disk (or the user's share of it) is full.
    pub fn is_storage_full(&self) -> bool {
        let cause = match self {
            Error::Io { cause, .. } => cause,
            Error::Layer { cause: crate::layer::LayerError::Storage { cause, .. }, .. } => cause,
            _ => return false,
        };
        matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Wraps a file error with what was tried on which path.
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Error {
        Error::Io { op, path: path.into(), cause: cause.into() }
    }
}
