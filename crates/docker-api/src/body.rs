//! Bodies of requests and answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::io::StreamReader;

use crate::backend::{BodyReader, ByteStream};
use crate::error::{ApiError, Result};
use crate::go_json;

/// What may go wrong with a body while it is read or written.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way in or out.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The most bytes of JSON that a request may carry. Images come as streams and have no limit.
const JSON_LIMIT: usize = 8 << 20;

/// The largest body that is read even if nobody wants it.
const READ_AHEAD_LIMIT: u64 = 64 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long a client that sends what nobody wants is listened to.
const LINGER: Duration = Duration::from_secs(5);

/// A body on its way in that is read on when nobody wants it any more: a client that is still sending would see a broken
/// connection instead of the answer.
pub(crate) struct Incoming {
    body: Option<hyper::body::Incoming>,
    /// The client sends nothing before it is asked to.
    waits: bool,
}

impl Incoming {
    pub fn new(body: hyper::body::Incoming, head: &HeaderMap) -> Incoming {
        Incoming { body: Some(body), waits: head.contains_key(EXPECT) }
    }
}

impl hyper::body::Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(hyper::body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let ended = self.waits || hyper::body::Body::is_end_stream(self);
        if let (Some(mut body), false, Ok(runtime)) = (self.body.take(), ended, Handle::try_current()) {
            runtime.spawn(async move {
                let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                let _ = tokio::time::timeout(LINGER, rest).await;
            });
        }
    }
}

/// Makes a body of bytes at hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Makes a body of bytes to come.
pub(crate) fn stream(bytes: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync()
}

/// Makes an answer of JSON, ended by a newline as Go's encoder does.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>> {
    let mut response = Response::new(full(json_line(value)?));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// Makes an answer of bytes to come. The first ones are awaited: an error before them is the answer.
pub(crate) async fn bytes(mut bytes: ByteStream, content_type: HeaderValue) -> Result<Response<Body>> {
    let first = bytes.next().await.transpose().map_err(|error| ApiError::internal(error.to_string()))?;
    let rest = bytes.map_err(BoxError::from);
    let mut response = Response::new(stream(futures_util::stream::iter(first.map(Ok)).chain(rest)));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Makes an answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Makes an answer of JSON documents to come, one a line.
///
/// The first one is awaited: when it is an error, it is the answer. An error later on is a last line in the form of
/// `late_error`.
pub(crate) async fn json_lines<T>(
    mut items: impl Stream<Item = Result<T>> + Send + Unpin + 'static,
    late_error: fn(&ApiError) -> Option<Value>,
) -> Result<Response<Body>>
where
    T: Serialize + Send + 'static,
{
    let first = items.next().await.transpose()?;
    Ok(json_stream(futures_util::stream::iter(first.map(Ok)).chain(items), late_error))
}

/// Makes an answer of JSON documents to come, whose headers are sent at once.
pub(crate) fn json_stream<T: Serialize + Send + 'static>(
    items: impl Stream<Item = Result<T>> + Send + 'static,
    late_error: fn(&ApiError) -> Option<Value>,
) -> Response<Body> {
    let lines = items.filter_map(move |item| {
        let line = match item {
            Ok(item) => Some(json_line(&item)),
            Err(error) => late_error(&error).map(|last| json_line(&last)),
        };
        std::future::ready(line.map(|line| line.map_err(BoxError::from)))
    });
    let mut response = Response::new(stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn json_line(value: &impl Serialize) -> Result<Bytes> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| ApiError::internal(format!("cannot write the answer as JSON: {error}")))?;
    line.push(b'\n');
    Ok(line.into())
}

/// Reads a JSON body.
///
/// # Errors
/// 400 in dockerd's words: no body, another content type, no JSON, not the expected JSON, more than one document.
pub(crate) async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T> {
    check_content_type(headers, &body)?;
    parse_json(&collect(body).await?)
}

/// Reads a JSON body that may be missing.
///
/// # Errors
/// As [`read_json`], but for a missing body.
pub(crate) async fn read_optional_json<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T> {
    check_content_type(headers, &body)?;
    let bytes = collect(body).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse_json(&bytes) }
}

/// Turns JSON into a type.
///
/// # Errors
/// 400, see [`read_json`].
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
    }
    let mut documents = serde_json::Deserializer::from_slice(bytes);
    let document = Value::deserialize(&mut documents).map_err(|error| invalid_json(&error))?;
    documents.end().map_err(|_| ApiError::bad_request("unexpected content after JSON"))?;
    go_json::from_value(document).map_err(|error| invalid_json(&error))
}

/// The refusal of a document that is none, or not the expected one.
pub(crate) fn invalid_json(error: &serde_json::Error) -> ApiError {
    if error.is_eof() {
        return ApiError::bad_request("invalid JSON: unexpected EOF");
    }
    ApiError::bad_request(format!("invalid JSON: {error}"))
}

/// Makes a request's body a reader for those who want it as it comes.
pub(crate) fn reader(body: Body) -> BodyReader {
    let bytes = TryStreamExt::map_err(BodyStream::new(body), io::Error::other)
        .try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok())));
    Box::new(StreamReader::new(Box::pin(bytes)))
}

/// Reads a small body whether or not anybody wants it.
///
/// hyper closes a connection on which a body was left unread, and many clients send `{}` where none is expected.
pub(crate) async fn read_ahead(body: Body) -> Body {
    match hyper::body::Body::size_hint(&body).exact() {
        Some(1..=READ_AHEAD_LIMIT) => match body.collect().await {
            Ok(collected) => full(collected.to_bytes()),
            Err(error) => stream(futures_util::stream::once(std::future::ready(Err(error)))),
        },
        _ => body,
    }
}

async fn collect(body: Body) -> Result<Bytes> {
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large");
    if hyper::body::Body::size_hint(&body).lower() > JSON_LIMIT as u64 {
        return Err(too_large());
    }
    let mut limited = std::pin::pin!(Limited::new(body, JSON_LIMIT));
    let mut bytes = BytesMut::new();
    while let Some(frame) = limited.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                ApiError::bad_request(format!("cannot read the request body: {error}"))
            }
        })?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

fn check_content_type(headers: &HeaderMap, body: &Body) -> Result<()> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        let empty = hyper::body::Body::is_end_stream(body)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        return if empty {
            Ok(())
        } else {
            Err(ApiError::bad_request("malformed Content-Type header (): mime: no media type"))
        };
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        )))
    }
}
