//! HTTP on one connection: hands requests to the routes and gives answers their common headers.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SERVER, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tracing::Instrument;

use super::Connection;
use super::gate::{Gate, Verdict};
use super::grpc;
use crate::backend::TakeConnection;
use crate::body::{self, Body, BoxError};
use crate::error::{ApiError, Result};
use crate::hijack::{self, websocket::WebSocket};
use crate::route::{self, Answer, Hijack};
use crate::server::Server;
use crate::version::ApiVersion;

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const OS_TYPE: HeaderName = HeaderName::from_static("ostype");

/// Serves a connection until the client closes it, or until it is hijacked (a task of its own goes on then).
pub(crate) async fn serve<C: Connection>(server: Server, connection: C) -> Result<(), BoxError> {
    let verdict = Arc::new(Verdict::default());
    let gate = Gate::new(connection, verdict.clone());
    let service = service_fn(move |request| {
        let answer = answer::<C>(server.clone(), verdict.clone(), request);
        async move { Ok::<Response<Body>, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Names as Go writes them: some scripts look for `Api-Version` and no other spelling.
    builder.http1().title_case_headers(true);
    builder
        .http2()
        .initial_stream_window_size(grpc::STREAM_WINDOW)
        .initial_connection_window_size(grpc::CONNECTION_WINDOW);
    builder.serve_connection_with_upgrades(TokioIo::new(gate), service).await
}

async fn answer<C: Connection>(
    server: Server,
    verdict: Arc<Verdict>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    if grpc::is_call(&request) {
        // No task of its own: a call whose client goes away is cancelled.
        return grpc::answer(&*server.backend, request).await;
    }
    let bare = request.method() == Method::CONNECT;
    let upgrade = (bare || request.headers().contains_key(UPGRADE)).then(|| hyper::upgrade::on(&mut request));
    let span = tracing::debug_span!("request", op = %request.method(), path = request.uri().path());
    let (head, body) = request.into_parts();
    let body = body::Incoming::new(body, &head.headers);
    let body = body::read_ahead(body.map_err(BoxError::from).boxed_unsync()).await;
    let backend = server.backend.clone();
    // A task of its own: an operation once begun is finished, also when the client goes away.
    let routed = tokio::spawn(route::dispatch(backend, head, body).instrument(span)).await;
    let answer = routed.unwrap_or_else(|panic| {
        tracing::error!(error = %panic, "request handler panicked");
        Err(ApiError::internal("the engine failed while it served this request"))
    });
    let mut response = match (answer, upgrade) {
        (Ok(Answer::Hijack(hijack)), Some(upgrade)) => {
            verdict.hijacked();
            let response = if bare { bare_ok() } else { switching_protocols(&hijack) };
            tokio::spawn(take_over::<C>(upgrade, hijack));
            return decorate(response, &server);
        }
        (Ok(Answer::Upgrade(take)), Some(upgrade)) => {
            verdict.hijacked();
            tokio::spawn(upgraded::<C>(upgrade, take));
            return decorate(switching_to_http2(), &server);
        }
        (Ok(Answer::Hijack(_) | Answer::Upgrade(_)), None) => {
            error_response(&ApiError::bad_request("error attaching: this connection cannot be hijacked"))
        }
        (Ok(Answer::Http(response)), upgrade) => {
            if upgrade.is_some() {
                verdict.refused();
            }
            response
        }
        (Err(error), upgrade) => {
            if upgrade.is_some() {
                verdict.refused();
            }
            error_response(&error)
        }
    };
    if bare && response.status().is_success() {
        // hyper gives up a connection after a successful CONNECT.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    decorate(response, &server)
}

fn switching_protocols(hijack: &Hijack) -> Response<Body> {
    let mut response = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    if let Some(handshake) = &hijack.websocket {
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, handshake.accept.clone());
        if let Some(protocol) = &handshake.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        return response;
    }
    let format = if hijack.announce_multiplexed { route::MULTIPLEXED_STREAM } else { route::RAW_STREAM };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    response
}

fn switching_to_http2() -> Response<Body> {
    let mut response = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    response
}

fn bare_ok() -> Response<Body> {
    let mut response = body::empty(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, route::RAW_STREAM);
    response
}

async fn take_over<C: Connection>(upgrade: OnUpgrade, hijack: Hijack) {
    let Some((connection, early)) = taken::<C>(upgrade).await else { return };
    match hijack.websocket.as_ref().map(|handshake| handshake.frames) {
        Some(frames) => hijack::run(WebSocket::new(connection, early, frames), Bytes::new(), hijack).await,
        None => hijack::run(connection, early, hijack).await,
    }
}

async fn upgraded<C: Connection>(upgrade: OnUpgrade, take: TakeConnection) {
    if let Some((connection, early)) = taken::<C>(upgrade).await {
        let (reader, writer) = tokio::io::split(connection);
        let reader = AsyncReadExt::chain(io::Cursor::new(early), reader);
        take(Box::new(tokio::io::join(reader, writer))).await;
    }
}

/// The connection below hyper, and what was read of it and belongs to the new protocol.
async fn taken<C: Connection>(upgrade: OnUpgrade) -> Option<(C, Bytes)> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "client left before its connection was upgraded");
            return None;
        }
    };
    let Ok(parts) = auto::upgrade::downcast::<TokioIo<Gate<C>>>(upgraded) else {
        tracing::error!("an upgraded connection isn't the one that was served");
        return None;
    };
    let (connection, rest) = parts.io.into_inner().into_inner();
    // hyper may have read ahead of what the gate still holds.
    let early = if rest.is_empty() { parts.read_buf } else { [parts.read_buf, rest].concat().into() };
    Some((connection, early))
}

fn error_response(error: &ApiError) -> Response<Body> {
    if error.status == StatusCode::NOT_MODIFIED {
        return body::empty(error.status);
    }
    if error.status.is_server_error() {
        tracing::warn!(%error, status = error.status.as_u16(), "request failed");
    }
    body::json(error.status, &json!({ "message": error.message }))
        .unwrap_or_else(|_| body::empty(error.status))
}

fn decorate(mut response: Response<Body>, server: &Server) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static(ApiVersion::MAX_TEXT));
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers.insert(OS_TYPE, HeaderValue::from_static("linux"));
    headers.insert(SERVER, server.identity.clone());
    response
}
