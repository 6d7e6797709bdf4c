//! Files from the web, by the same connections that registries are reached by.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, LAST_MODIFIED, LOCATION};
use http::{HeaderMap, Method, Uri};
use tokio::io::{AsyncRead, ReadBuf};

use super::outgoing::Outgoing;
use super::uri::{resolve, shown_url};
use super::wait::date;
use super::{BlobBody, Client, MAX_REDIRECTS, request_error};
use crate::error::Error;
use crate::store::Store;

/// What the server says about a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Its name, when the server gives one.
    pub filename: Option<String>,
    /// When it was changed, seconds since 1970.
    pub modified: Option<i64>,
    /// Its bytes.
    pub length: Option<u64>,
}

/// A file that arrives.
pub struct Download {
    /// The body while nobody waits for it, else the wait.
    state: State,
    rest: Bytes,
}

/// What a read gives: the body again, and its next piece if there is one.
type Piece = (Box<BlobBody>, Result<Option<Bytes>, Error>);

enum State {
    Idle(Option<Box<BlobBody>>),
    Waiting(BoxFuture<'static, Piece>),
}

impl Store {
    /// Fetches `http` and `https` addresses, following redirects. Nothing of the user's is sent along.
    ///
    /// # Errors
    /// An address that is none, a server that does not answer or answers with an error.
    pub async fn download(&self, url: &str) -> Result<(Download, Answer), Error> {
        self.inner.client.download(url).await
    }
}

impl Client {
    async fn download(&self, url: &str) -> Result<(Download, Answer), Error> {
        let wrong = |reason: &str| Error::Invalid { message: format!("invalid address \"{url}\": {reason}") };
        let mut uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        for _ in 0..=MAX_REDIRECTS {
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
                return Err(wrong("neither http nor https"));
            }
            let shown = shown_url(&uri);
            let response = self.send(Method::GET, &uri, &HeaderMap::new(), &Outgoing::Nothing).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let location =
                    response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
                uri = resolve(&uri, location).ok_or_else(|| wrong("malformed redirect"))?;
                continue;
            }
            if !status.is_success() {
                return Err(Error::Registry {
                    message: format!("invalid response status {} of {shown}", status.as_u16()),
                });
            }
            let answer = answer(response.headers());
            return Ok((Download::of(response.into_body(), self.timeouts.stall, shown), answer));
        }
        Err(request_error("Get", url, "stopped after 10 redirects".to_owned()))
    }
}

impl Download {
    /// A body that must go on at least every `stall`.
    pub(super) fn of(body: hyper::body::Incoming, stall: Duration, url: String) -> Self {
        let body = BlobBody { body, stall: stall.max(Duration::from_secs(1)), url, offset: 0 };
        Self { state: State::Idle(Some(Box::new(body))), rest: Bytes::new() }
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}

fn answer(headers: &HeaderMap) -> Answer {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let filename = text(CONTENT_DISPOSITION).and_then(|value| {
        let given = value.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
        let name = given.trim_matches('"').rsplit('/').next()?.to_owned();
        Some(name).filter(|name| !matches!(name.as_str(), "" | "." | ".."))
    });
    let modified = text(LAST_MODIFIED).and_then(date);
    Answer { filename, modified, length: text(CONTENT_LENGTH).and_then(|value| value.parse().ok()) }
}

impl AsyncRead for Download {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.rest.has_remaining() {
                let length = self.rest.remaining().min(buffer.remaining());
                let piece = self.rest.split_to(length);
                buffer.put_slice(&piece);
                return Poll::Ready(Ok(()));
            }
            match &mut self.state {
                State::Idle(body) => {
                    let Some(mut body) = body.take() else { return Poll::Ready(Ok(())) };
                    let wait = async move {
                        let next = body.next().await;
                        (body, next)
                    };
                    self.state = State::Waiting(wait.boxed());
                }
                State::Waiting(wait) => {
                    let (body, next) = std::task::ready!(wait.poll_unpin(cx));
                    match next {
                        Ok(Some(bytes)) => {
                            self.state = State::Idle(Some(body));
                            self.rest = bytes;
                        }
                        Ok(None) => {
                            self.state = State::Idle(None);
                            return Poll::Ready(Ok(()));
                        }
                        Err(error) => {
                            self.state = State::Idle(None);
                            return Poll::Ready(Err(io::Error::other(error.to_string())));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_name_time_and_length() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DISPOSITION, "attachment; filename=\"../../a.tar\"".parse().unwrap());
        headers.insert(LAST_MODIFIED, "Thu, 01 Jan 1970 00:01:40 GMT".parse().unwrap());
        headers.insert(CONTENT_LENGTH, "7".parse().unwrap());
        let wanted = Answer { filename: Some("a.tar".to_owned()), modified: Some(100), length: Some(7) };
        assert_eq!(answer(&headers), wanted);
    }
}
