//! Layers: from a compressed tar stream to a directory that serves as an overlay's lower directory.
//!
//! ```text
//! bytes ─► decompress ─► hash (diff id), tee ─► tar headers ─► applier ─► directory
//! ```
//! Nothing here trusts the stream: sizes and counts are capped, and every path is resolved by the kernel
//! inside the directory (see `applier`).

mod applier;
mod decompress;
mod metadata;
mod pax;
mod tarstream;
mod times;

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::digest::Digest;

pub(crate) use applier::{OUTSIDE, clean};
pub(crate) use decompress::{Compression, Decoder};
pub use tarstream::{Entry, Kind};
pub(crate) use tarstream::{TarReader, XATTR_PREFIX};
pub(crate) use times::clamp_times;

/// What a layer may at most contain.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Bytes after decompression.
    pub bytes: u64,
    /// Bytes of names that have to be kept in memory to the end.
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 4_000_000, bytes: 1 << 40, names: 256 << 20 }
    }
}

/// Why a layer can't be unpacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The bytes are not what their first bytes promise.
    #[error("decompressing: {cause}")]
    Decompress {
        /// The decoder's words.
        cause: io::Error,
    },
    /// The stream ended inside an entry.
    #[error("unexpected EOF")]
    Truncated,
    /// A header is no tar header.
    #[error("invalid tar header after entry \"{after}\": {reason}")]
    Header {
        /// The last good entry, or nothing.
        after: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry is not acceptable.
    #[error("entry \"{entry}\": {reason}")]
    Entry {
        /// Its path in the archive.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry can't be stored.
    #[error("{op} \"{entry}\": {cause}")]
    Storage {
        /// What was tried.
        op: &'static str,
        /// The entry's path.
        entry: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The layer is larger than allowed.
    #[error("more than {limit} {what}")]
    Limit {
        /// `entries`, `bytes`, or the bytes of something.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// What is there may not be replaced, or would not be where it belongs.
    #[error("{message}")]
    Refused {
        /// Docker's words.
        message: String,
    },
    /// The bytes stopped coming because the operation was cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl LayerError {
    /// Says whether damaged bytes may be the reason, in which case their digest tells more.
    pub(crate) fn is_about_content(&self) -> bool {
        !matches!(self, LayerError::Storage { .. } | LayerError::Interrupted)
    }
}

/// What unpacking arrived at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the files.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// Unpacks a layer, compressed or not, into an empty directory.
///
/// Whiteouts become what overlayfs understands. `copy` receives the uncompressed bytes.
///
/// # Errors
/// [`LayerError`]; the directory is then half full and for the caller to remove.
pub fn unpack(
    source: impl BufRead,
    into: &Path,
    limits: Limits,
    copy: Option<&mut dyn Write>,
) -> Result<Unpacked, LayerError> {
    let decoder = Decoder::new(source)?;
    let reader =
        Measured { inner: decoder, hasher: Sha256::new(), copy, left: limits.bytes, limit: limits.bytes };
    let mut tar = TarReader::new(reader);
    let applied = applier::apply(&mut tar, into, limits)?;
    let mut reader = tar.into_inner();
    io::copy(&mut reader, &mut io::sink()).map_err(read_error)?;
    Ok(Unpacked { diff_id: Digest::finish(reader.hasher), size: applied.size, entries: applied.entries })
}

/// Hashes and counts the uncompressed bytes, and copies them where wanted.
struct Measured<'a, R> {
    inner: R,
    hasher: Sha256,
    copy: Option<&'a mut dyn Write>,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Measured<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(Carried(LayerError::Limit { what: "bytes", limit: self.limit }))
        })?;
        self.hasher.update(&buf[..n]);
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buf[..n]).map_err(|cause| {
                io::Error::other(Carried(LayerError::Storage {
                    op: "write",
                    entry: "compressed layer".to_owned(),
                    cause,
                }))
            })?;
        }
        Ok(n)
    }
}

/// Carries a layer error through a `Read`, whose own error type is fixed.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) struct Carried(pub LayerError);

/// Turns a read error back into what it means.
pub(crate) fn read_error(error: io::Error) -> LayerError {
    let error = match error.downcast::<Carried>() {
        Ok(Carried(inner)) => return inner,
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::Truncated,
        _ => LayerError::Decompress { cause: error },
    }
}
