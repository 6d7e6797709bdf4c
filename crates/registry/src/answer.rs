//! Answers.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::error::Refusal;

/// The body of an answer.
pub type Body = BoxBody<Bytes, io::Error>;
/// The header with a content's digest.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const PIECE: usize = 256 << 10;

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Empty::new().map_err(|never| match never {}).boxed())
}

fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// An answer with bytes.
pub fn bytes(status: StatusCode, media_type: &str, data: Vec<u8>) -> Response<Body> {
    let length = data.len();
    let response = with_body(status, Full::new(Bytes::from(data)).map_err(|never| match never {}).boxed());
    with(with(response, CONTENT_TYPE, media_type), CONTENT_LENGTH, &length.to_string())
}

/// An answer with JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    bytes(status, "application/json", value.to_string().into_bytes())
}

/// An answer with a part of a file.
pub fn file(status: StatusCode, file: tokio::fs::File, length: u64) -> Response<Body> {
    let pieces = ReaderStream::with_capacity(file.take(length), PIECE);
    let body = BodyExt::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))));
    with(with_body(status, body), CONTENT_LENGTH, &length.to_string())
}

/// Adds a header; one that can't be a header is left out.
pub fn with(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The specification's answer to what went wrong.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let mut error = json!({"code": refusal.code, "message": refusal.message});
    if !refusal.detail.is_null() {
        error["detail"] = refusal.detail.clone();
    }
    let response = json(refusal.status, &json!({ "errors": [error] }));
    match refusal.status {
        StatusCode::UNAUTHORIZED => with(response, WWW_AUTHENTICATE, "Basic realm=\"skiff\""),
        _ => response,
    }
}
