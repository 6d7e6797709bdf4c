//! From a request to a backend call: one file per resource, one `match` on method and path in each.

mod archive;
mod build;
mod buildkit;
mod containers;
mod create;
mod exec;
mod images;
mod networks;
mod swarm;
mod system;
mod volumes;

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::backend::{AttachStreams, Backend, BodyReader, TakeConnection};
use crate::body::{self, Body};
use crate::error::{ApiError, Result};
use crate::hijack::websocket::Handshake;
use crate::query::Query;
use crate::version::ApiVersion;

pub(crate) use containers::{MULTIPLEXED_STREAM, RAW_STREAM};

/// What a route ends in.
pub(crate) enum Answer {
    /// An ordinary answer.
    Http(Response<Body>),
    /// The connection becomes a container's stdio.
    Hijack(Hijack),
    /// The connection becomes HTTP/2.
    Upgrade(TakeConnection),
}

/// A connection about to become a container's stdio.
#[derive(Debug)]
pub(crate) struct Hijack {
    pub streams: AttachStreams,
    /// The keys that detach, as bytes; empty turns detaching off.
    pub detach_keys: Vec<u8>,
    /// Whether output goes into frames.
    pub multiplexed: bool,
    /// Whether the answer may announce the multiplexed format by its own content type.
    pub announce_multiplexed: bool,
    /// Whether the client would lose output that arrives together with the answer's head.
    pub loses_early_output: bool,
    /// The client speaks WebSocket on the connection.
    pub websocket: Option<Handshake>,
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self::Http(response)
    }
}

/// A request, its path already taken apart.
pub(crate) struct Call {
    pub backend: Arc<dyn Backend>,
    pub version: ApiVersion,
    pub method: Method,
    pub query: Query,
    pub headers: HeaderMap,
    body: Body,
}

impl Call {
    /// Reads the JSON body.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        body::read_json(&self.headers, self.body).await
    }

    /// Reads the JSON body if there is one, and keeps the rest of the call.
    pub async fn take_optional_json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let body = std::mem::replace(&mut self.body, body::full(""));
        body::read_optional_json(&self.headers, body).await
    }

    /// Takes the body as a stream.
    pub fn into_reader(self) -> BodyReader {
        body::reader(self.body)
    }

    /// Returns whether the client loses what arrives together with the head of a hijacking answer.
    ///
    /// docker-py reads the head through a buffer and the output past it, straight from the socket. Programs on top of it
    /// give themselves other names (`tc-python/…`), so what its HTTP library says it accepts counts as well.
    pub fn loses_early_output(&self) -> bool {
        let starts = |name, start: &[u8]| {
            self.headers.get(name).is_some_and(|value| value.as_bytes().starts_with(start))
        };
        starts(USER_AGENT, b"docker-sdk-python/")
            || starts(ACCEPT, b"*/*") && starts(ACCEPT_ENCODING, b"gzip, deflate")
    }

    /// Returns whether the client asked to upgrade the connection.
    pub fn wants_upgrade(&self) -> bool {
        self.headers.contains_key(UPGRADE)
    }
}

/// Answers a request.
///
/// # Errors
/// Whatever the client is to be told.
pub(crate) async fn dispatch(backend: Arc<dyn Backend>, head: Parts, body: Body) -> Result<Answer> {
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let mut segments: Vec<&str> = path.strip_prefix('/').ok_or_else(page_not_found)?.split('/').collect();
    let mut version = ApiVersion::MAX;
    if let Some(text) = segments[0].strip_prefix('v').filter(|text| is_version(text)) {
        version = ApiVersion::negotiate(text)?;
        segments.remove(0);
    }
    if head.method == Method::OPTIONS {
        return Ok(body::empty(http::StatusCode::OK).into());
    }
    // The connection layer turns an upgrade-less POST that hijacks into a CONNECT (see `connection::gate`).
    let method = if head.method == Method::CONNECT { Method::POST } else { head.method };
    let call = Call {
        backend,
        version,
        method,
        query: Query::parse(head.uri.query().unwrap_or_default()),
        headers: head.headers,
        body,
    };
    match segments.as_slice() {
        ["containers", rest @ .., "exec"] if !rest.is_empty() => exec::create(call, &rest.join("/")).await,
        ["containers", rest @ ..] => containers::route(call, rest).await,
        ["commit"] if call.method == Method::POST => archive::commit(call).await,
        ["exec", rest @ ..] => exec::route(call, rest).await,
        ["images", rest @ ..] => images::route(call, rest).await,
        ["auth"] if call.method == Method::POST => images::login(call).await,
        ["distribution", name @ .., "json"] if !name.is_empty() && call.method == Method::GET => {
            images::distribution(call, &name.join("/")).await
        }
        // Skiff's own: what `skiff manifest` needs of the engine, which is the one that reaches registries.
        ["distribution", name @ .., "manifest"] if !name.is_empty() && call.method == Method::GET => {
            images::manifest(call, &name.join("/")).await
        }
        ["distribution", name @ .., "manifest"] if !name.is_empty() && call.method == Method::POST => {
            images::push_list(call, name.join("/")).await
        }
        ["build"] if call.method == Method::POST && call.query.get("version") == Some("2") => {
            buildkit::build(call).await
        }
        ["build", "cancel"] if call.method == Method::POST => buildkit::cancel(call).await,
        ["build", rest @ ..] => build::route(call, rest).await,
        ["grpc"] if call.method == Method::POST => buildkit::grpc(call),
        ["session"] if call.method == Method::POST => buildkit::session(call),
        ["networks", rest @ ..] => networks::route(call, rest).await,
        ["volumes", rest @ ..] => volumes::route(call, rest).await,
        path @ ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..] => {
            swarm::route(&call.method, path)
        }
        ["plugins", rest @ ..] => swarm::plugins(&call, rest),
        other => system::route(call, other).await,
    }
}

/// The answer to a method and path that nobody serves.
pub(crate) fn page_not_found() -> ApiError {
    ApiError::not_found("page not found")
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}
