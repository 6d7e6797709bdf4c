//! What can go wrong: errors of the specification for clients, and those of starting.

use std::io;
use std::path::PathBuf;

use http::StatusCode;

/// Why the registry can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file can't be used.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The address can't be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Certificate or key can't be used.
    #[error("using certificate {} and key {}: {reason}", certificate.display(), key.display())]
    Tls {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Io { op, path: path.into(), source }
    }
}

/// What a client is told, with the specification's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The specification's code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// More about it.
    pub detail: serde_json::Value,
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Refusal {
        Refusal { status, code, message: message.to_owned(), detail: serde_json::Value::Null }
    }

    /// Says what exactly it is about.
    #[must_use]
    pub fn about(mut self, detail: impl Into<serde_json::Value>) -> Refusal {
        self.detail = detail.into();
        self
    }

    /// A blob that is not in the repository.
    pub fn blob_unknown() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    /// An upload that makes no sense.
    pub fn upload_invalid(why: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "blob upload invalid").about(why)
    }

    /// A piece that does not follow the ones before it.
    pub fn range_invalid() -> Refusal {
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", "invalid content range")
    }

    /// An upload that there isn't.
    pub fn upload_unknown() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    }

    /// A digest that is none, or not that of the content.
    pub fn digest_invalid(why: &str) -> Refusal {
        let message = "provided digest did not match uploaded content";
        Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message).about(why)
    }

    /// A manifest that refers to what is not there.
    pub fn manifest_blob_unknown(digest: &str) -> Refusal {
        let message = "blob unknown to registry";
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message).about(digest)
    }

    /// A manifest that is none.
    pub fn manifest_invalid(why: impl Into<serde_json::Value>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "manifest invalid").about(why)
    }

    /// A manifest that there isn't.
    pub fn manifest_unknown(reference: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown").about(reference)
    }

    /// A name that is none.
    pub fn name_invalid(name: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", "invalid repository name").about(name)
    }

    /// A repository that there isn't.
    pub fn name_unknown(name: &str) -> Refusal {
        let message = "repository name not known to registry";
        Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
            .about(serde_json::json!({ "name": name }))
    }

    /// A tag that is none.
    pub fn tag_invalid(tag: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", "manifest tag did not match URI").about(tag)
    }

    /// A body that is too large.
    pub fn size_invalid(why: &str) -> Refusal {
        let message = "provided length did not match content length";
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message).about(why)
    }

    /// A client that did not say who it is.
    pub fn unauthorized() -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
    }

    /// What the client may not do.
    pub fn denied(why: &str) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, "DENIED", "requested access to the resource is denied").about(why)
    }

    /// What the registry does not do.
    pub fn unsupported() -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported.")
    }

    /// A path that means nothing.
    pub fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "404 page not found")
    }

    /// A failure of the registry's own. What it was is logged, not told.
    pub fn internal(op: &'static str, error: &io::Error) -> Refusal {
        if error.kind() == io::ErrorKind::StorageFull {
            let message = "no space left on the registry's device";
            return Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", message);
        }
        tracing::error!(op, %error, "a request failed");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "unknown error")
    }
}
