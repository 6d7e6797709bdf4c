//! A handle on a link, whatever carries it.

use std::future::Future;

use serde_json::Value;

use crate::mux;
#[cfg(unix)]
use crate::unix;
use crate::{BoxStream, CloseReason, Error, OpenError, Reply, ReplyCode, StreamHeader};

/// A way to open streams and to accept them; clones are handles on the same link.
///
/// The link ends with the transport underneath, with [`Link::close`], or when the last handle and the last stream are
/// dropped.
#[derive(Debug, Clone)]
pub struct Link {
    inner: Inner,
}

#[derive(Debug, Clone)]
pub(crate) enum Inner {
    Mux(mux::Handle),
    #[cfg(unix)]
    Unix(unix::Handle),
}

impl Link {
    pub(crate) fn new(inner: Inner) -> Link {
        Link { inner }
    }

    /// Opens a stream: sends the header and waits for the reply. Dropping the future withdraws the question.
    ///
    /// # Errors
    /// [`OpenError::Refused`] with the peer's code and message, [`OpenError::Link`] when no answer came.
    pub async fn open(&self, header: &StreamHeader) -> Result<BoxStream, OpenError> {
        Ok(self.open_with_data(header).await?.0)
    }

    /// Opens a stream and returns the reply as well, for services that put data in it.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub async fn open_with_data(&self, header: &StreamHeader) -> Result<(BoxStream, Reply), OpenError> {
        let service = header.service();
        let opened: Result<(BoxStream, Reply), Error> = match &self.inner {
            Inner::Mux(handle) => {
                handle.open(header).await.map(|(stream, reply)| (Box::new(stream) as BoxStream, reply))
            }
            #[cfg(unix)]
            Inner::Unix(handle) => {
                handle.open(header).await.map(|(stream, reply)| (Box::new(stream) as BoxStream, reply))
            }
        };
        let (stream, reply) = opened.map_err(|source| OpenError::Link { service, source })?;
        match reply.code {
            ReplyCode::Ok => Ok((stream, reply)),
            code => Err(OpenError::Refused { service, code, message: reply.message }),
        }
    }

    /// Waits for the next stream that the peer opens. Several callers may wait at once.
    ///
    /// # Errors
    /// [`Error::Closed`] once the link has ended.
    pub async fn accept(&self) -> Result<Incoming, Error> {
        match &self.inner {
            Inner::Mux(handle) => {
                let (header, offer) = handle.accept().await?;
                Ok(Incoming { header, offer: Offer::Mux(offer) })
            }
            #[cfg(unix)]
            Inner::Unix(handle) => {
                let (header, stream) = handle.accept().await?;
                Ok(Incoming { header, offer: Offer::Unix(stream) })
            }
        }
    }

    /// Ends the link and every stream on it.
    pub fn close(&self) {
        match &self.inner {
            Inner::Mux(handle) => handle.close(),
            #[cfg(unix)]
            Inner::Unix(handle) => handle.close(),
        }
    }

    /// Waits until the link has ended and its transport is free again, and says why.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        let mut receiver = match &self.inner {
            Inner::Mux(handle) => handle.closed(),
            #[cfg(unix)]
            Inner::Unix(handle) => handle.closed(),
        };
        async move {
            match receiver.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or(CloseReason::Local),
                Err(_) => CloseReason::Local,
            }
        }
    }
}

/// A stream that the peer asks for.
///
/// It must be answered before the deadline of the transport; dropping it refuses it.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked for.
    pub header: StreamHeader,
    offer: Offer,
}

#[derive(Debug)]
enum Offer {
    Mux(mux::Offer),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Incoming {
    /// Says yes and returns the stream.
    ///
    /// # Errors
    /// [`Error::Withdrawn`] when the peer gave up or the deadline passed, [`Error::Closed`] when the link ended.
    pub async fn accept(self, data: Option<Value>) -> Result<BoxStream, Error> {
        match self.offer {
            Offer::Mux(offer) => Ok(Box::new(offer.accept(data)?)),
            #[cfg(unix)]
            Offer::Unix(mut stream) => {
                crate::write_reply(&mut stream, &Reply::ok(data)).await?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Says no.
    ///
    /// A link that ended meanwhile is no error: the peer has its answer.
    pub async fn refuse(self, code: ReplyCode, message: impl Into<String>) {
        // A refusal with the code for yes would leave the peer with a stream that nobody has.
        let code = if code == ReplyCode::Ok { ReplyCode::Internal } else { code };
        let reply = Reply::refused(code, message);
        match self.offer {
            Offer::Mux(offer) => offer.refuse(&reply),
            #[cfg(unix)]
            Offer::Unix(mut stream) => {
                if let Err(error) = crate::write_reply(&mut stream, &reply).await {
                    tracing::debug!(%error, "refusal not delivered");
                }
            }
        }
    }
}
