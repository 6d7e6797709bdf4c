//! Answers, and the headers that all of them have.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What a body may fail with.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What the page has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Code {
    /// The request is not from our page, or not well-formed.
    Refused,
    /// There is no such session, or it has ended.
    Session,
    /// The guest does not run, and looking does not start it.
    Asleep,
    /// The daemon does not run.
    Daemon,
    /// There is an engine only, and nothing to be asked of a daemon.
    Alone,
    /// The engine does not answer.
    Engine,
}

/// Why a request was not carried out by us. The engine's own errors pass as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    #[serde(serialize_with = "number")]
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    pub(crate) message: String,
}

fn number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Refusal {
    /// A request that is not ours to serve.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: Code::Refused, message: message.into() }
    }

    /// A request that has no session.
    pub(crate) fn session(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code: Code::Session, message: message.into() }
    }

    /// Somebody behind us is not there.
    pub(crate) fn away(code: Code, message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code, message: message.into() }
    }

    /// The answer to it.
    pub(crate) fn answer(&self) -> Response<Body> {
        json(self.status, self)
    }
}

/// Makes a body of bytes.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Answers with JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// Sets one header.
pub(crate) fn set<B>(response: &mut Response<B>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// Adds what every answer has: it is for our page alone, is what it says it is, and is not kept.
pub(crate) fn harden<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What comes from a container must stay text, even where somebody opens it in a tab of its own.
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
