//! Requests and answers.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::{Endpoint, Query};
use crate::error::Error;
use crate::format::value::Value;

/// The newest API version this program knows.
const NEWEST: (u32, u32) = (1, 51);

/// A request's body.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A client of one engine.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    version: String,
}

/// Returns an empty body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

/// Returns a body read from `reader` while it is sent.
pub fn streamed(reader: impl AsyncRead + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(ReaderStream::with_capacity(reader, 256 * 1024).map_ok(Frame::data)))
}

impl Client {
    /// Pings the engine and agrees on an API version.
    pub async fn connect(endpoint: Endpoint) -> Result<Client, Error> {
        let mut client = Client { endpoint, version: String::new() };
        let response = client.send(Method::GET, "/_ping", &Query::new(), empty(), &[]).await?;
        let offered = response.headers().get("api-version").and_then(|value| value.to_str().ok());
        let (major, minor) = offered
            .and_then(|text| text.split_once('.'))
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .unwrap_or((1, 24));
        let (major, minor) = NEWEST.min((major, minor));
        client.version = format!("/v{major}.{minor}");
        Ok(client)
    }

    /// Returns the API version in use, as `1.51`.
    pub fn api_version(&self) -> &str {
        self.version.trim_start_matches("/v")
    }

    /// Returns the newest API version this program knows, as `1.51`.
    pub fn newest_api_version() -> String {
        format!("{}.{}", NEWEST.0, NEWEST.1)
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Connection { endpoint: self.endpoint.to_string(), source: source.into() }
    }

    /// Sends a request on a connection of its own and returns the answer, whatever its status.
    pub async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let io = self
            .endpoint
            .connect()
            .await
            .map_err(|source| Error::Unreachable { endpoint: self.endpoint.to_string(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    /// Builds a request.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body,
    ) -> Result<Request<Body>, Error> {
        let uri = format!("{}{path}{}", self.version, query.as_str());
        Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "docker")
            .header("user-agent", concat!("skiff/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| self.broken(error))
    }

    /// Sends a request and returns the answer, or the engine's error.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body,
        headers: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, Error> {
        let mut request = self.request(method, path, query, body)?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| self.broken(error))?;
            request.headers_mut().insert(*name, value);
        }
        let response = self.exchange(request).await?;
        self.check(response).await
    }

    /// Turns an answer of status 400 and above into the engine's error.
    pub async fn check(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let body = self.collect(response).await?;
        let message = match Value::parse(&body) {
            Ok(value) => value.text("message").trim().to_owned(),
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        let message = if message.is_empty() {
            status.canonical_reason().unwrap_or("no reason given").to_owned()
        } else {
            message
        };
        Err(Error::Daemon { status: status.as_u16(), message })
    }

    /// Reads the whole body.
    pub async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        Ok(response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes())
    }

    async fn value(&self, response: Response<Incoming>) -> Result<Value, Error> {
        let body = self.collect(response).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        Value::parse(&body).map_err(|error| self.broken(error))
    }

    /// Sends GET and reads JSON.
    pub async fn get(&self, path: &str, query: &Query) -> Result<Value, Error> {
        let response = self.send(Method::GET, path, query, empty(), &[]).await?;
        self.value(response).await
    }

    /// Sends POST without a body and reads JSON, if any.
    pub async fn post(&self, path: &str, query: &Query) -> Result<Value, Error> {
        let response = self.send(Method::POST, path, query, empty(), &[]).await?;
        self.value(response).await
    }

    /// Sends POST with JSON and reads JSON, if any.
    pub async fn post_json(&self, path: &str, query: &Query, body: &impl Serialize) -> Result<Value, Error> {
        let response = self
            .send(Method::POST, path, query, json(body), &[(CONTENT_TYPE.as_str(), "application/json")])
            .await?;
        self.value(response).await
    }

    /// Sends DELETE and reads JSON, if any.
    pub async fn delete(&self, path: &str, query: &Query) -> Result<Value, Error> {
        let response = self.send(Method::DELETE, path, query, empty(), &[]).await?;
        self.value(response).await
    }

    /// Reads an answer made of JSON documents one after the other.
    pub fn documents(
        &self,
        response: Response<Incoming>,
    ) -> impl Stream<Item = Result<Value, Error>> + Unpin {
        let client = self.clone();
        let body = BodyStream::new(response.into_body());
        let state = (body, Vec::<u8>::new(), client);
        Box::pin(futures_util::stream::unfold(state, |(mut body, mut buffer, client)| async move {
            loop {
                if let Some((value, used)) = first_document(&buffer) {
                    let item = value.map_err(|error| client.broken(error));
                    // After a document that is none, the rest can't be told apart.
                    buffer.drain(..if item.is_err() { buffer.len() } else { used });
                    return Some((item, (body, buffer, client)));
                }
                match body.next().await {
                    Some(Ok(frame)) => buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Some((Err(client.broken(error)), (body, Vec::new(), client))),
                    None if buffer.iter().all(u8::is_ascii_whitespace) => return None,
                    None => {
                        let error = client.broken("the answer ended in the middle of a document");
                        return Some((Err(error), (body, Vec::new(), client)));
                    }
                }
            }
        }))
    }
}

/// Returns a JSON body.
pub fn json(body: &impl Serialize) -> Body {
    full(serde_json::to_vec(body).expect("API bodies are plain data"))
}

/// Reads the first complete document of `buffer` and its length; nothing while it is incomplete.
fn first_document(buffer: &[u8]) -> Option<(Result<Value, serde_json::Error>, usize)> {
    let mut documents = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    match documents.next()? {
        Ok(value) => Some((Ok(value), documents.byte_offset())),
        Err(error) if error.is_eof() => None,
        Err(error) => Some((Err(error), 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_need_no_line_ends() {
        let (value, used) = first_document(br#"{"a":1}{"b":"#).unwrap();
        assert_eq!((value.unwrap().int("a"), used), (1, 7));
        assert!(first_document(br#"{"b":"#).is_none());
        assert!(first_document(b" \r\n").is_none());
        assert!(first_document(b"nonsense").unwrap().0.is_err());
    }
}
