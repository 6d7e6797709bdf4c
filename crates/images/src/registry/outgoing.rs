//! The body of a request: made anew for each attempt, and counted while it goes out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;

/// How much of a file is read at once.
const CHUNK: usize = 128 << 10;

/// A body as hyper's client takes it.
pub(super) type OutgoingBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a request carries.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    Nothing,
    Bytes(Bytes),
    /// A file, whole, with a count of the bytes of it that are out.
    File {
        path: PathBuf,
        sent: Sent,
    },
}

/// How many bytes have gone out so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Outgoing {
    /// Makes the body for one attempt.
    pub(super) async fn open(&self) -> Result<(OutgoingBody, Sent), String> {
        let whole = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let (path, sent) = match self {
            Self::Nothing => return Ok((whole(Bytes::new()), Sent::default())),
            Self::Bytes(bytes) => return Ok((whole(bytes.clone()), Sent::default())),
            Self::File { path, sent } => (path, sent.clone()),
        };
        let file = tokio::fs::File::open(path).await.map_err(|e| format!("open {}: {e}", path.display()))?;
        sent.0.store(0, Ordering::Relaxed);
        let pieces = stream::try_unfold((file, sent.clone()), |(mut file, sent)| async move {
            let mut buffer = Vec::with_capacity(CHUNK);
            (&mut file).take(CHUNK as u64).read_to_end(&mut buffer).await?;
            if buffer.is_empty() {
                return Ok(None);
            }
            sent.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            Ok(Some((Frame::data(Bytes::from(buffer)), (file, sent))))
        });
        Ok((StreamBody::new(pieces).boxed_unsync(), sent))
    }
}
