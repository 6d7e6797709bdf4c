//! Listens, lets in who may, and sends each request its way.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::answer::{Body, Refusal, harden, json, whole};
use crate::session::{Sessions, nonce};
use crate::upstream::Upstream;
use crate::{assets, control, docker, guard, stream};

/// Connections at once; more wait in the socket's queue.
const CONNECTIONS: usize = 512;
/// How long a connection may take to say what it wants.
const HEAD: Duration = Duration::from_secs(30);
/// Longest request for a session in bytes.
const TOKEN: usize = 1 << 10;
/// What a socket speaks.
const PROTOCOL: &str = "skiff";
/// What makes a WebSocket's key an answer (RFC 6455, 1.3).
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The interface is not in this program.
    #[error("this program was built without its web interface")]
    NotBuilt,
    /// The port can't be had.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port; 0 for any.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotBuilt => {
                Some("run scripts/build, which builds the interface first (it needs npm)".to_owned())
            }
            Self::Listen { port: 0, .. } => None,
            Self::Listen { .. } => {
                Some("choose another one with --port, or leave that out for any".to_owned())
            }
        }
    }
}

/// A dashboard that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    cookie: String,
    sessions: Sessions,
    upstream: Upstream,
}

/// Makes links that let somebody in, once.
#[derive(Debug, Clone)]
pub struct Links(Arc<State>);

impl Links {
    /// Makes a link; the one before it no longer works, if nobody has used it.
    pub fn make(&self) -> String {
        // What follows the hash stays in the browser: no log and no referrer has it.
        format!("http://{}/#token={}", self.0.address, self.0.sessions.token())
    }
}

impl Server {
    /// Listens on a port of 127.0.0.1; 0 is any.
    ///
    /// # Errors
    /// When the port can't be had, or the interface is not in this program.
    pub async fn bind(port: u16, upstream: Upstream) -> Result<Self, Error> {
        if !assets::are_built() {
            return Err(Error::NotBuilt);
        }
        Self::listen(port, upstream).await.map_err(|source| Error::Listen { port, source })
    }

    async fn listen(port: u16, upstream: Upstream) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        // Cookies don't know ports: two dashboards would take turns with one.
        let cookie = format!("skiff-{}", address.port());
        let state = State { address, cookie, sessions: Sessions::default(), upstream };
        Ok(Self { listener, state: Arc::new(state) })
    }

    /// The maker of links.
    pub fn links(&self) -> Links {
        Links(Arc::clone(&self.state))
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let state = Arc::clone(&self.state);
                    tokio::spawn(async move {
                        serve(client, state).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(client: TcpStream, state: Arc<State>) {
    let _ = client.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move {
            let mut response = answer(&state, request).await.unwrap_or_else(|refusal| refusal.answer());
            harden(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection has ended");
    }
}

async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let host = guard::host(request.headers())?.to_owned();
    let path = request.uri().path().to_owned();
    let is_socket = path == "/stream";
    guard::origin(request.headers(), request.method(), &host, is_socket)?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_api = path == "/control" || path.starts_with("/docker/") || is_socket;
    if !is_api {
        return match path.as_str() {
            "/session" if *request.method() == Method::POST => open(state, request).await,
            _ if is_read => Ok(assets::answer(&path, &host, &nonce())),
            _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "there is nothing to be changed here")),
        };
    }
    if !state.sessions.admits(request.headers(), &state.cookie) {
        return Err(Refusal::session("this browser has no session: open a new link of `skiff dashboard`"));
    }
    if is_socket {
        return upgrade(state, request);
    }
    if path == "/control" {
        if *request.method() != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "requests to the daemon are posted"));
        }
        return control::answer(&state.upstream, request).await;
    }
    let whole_path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let forwarded = whole_path.strip_prefix("/docker").unwrap_or_default().to_owned();
    docker::forward(&state.upstream, request, &forwarded).await
}

/// Takes a token for a session.
async fn open(state: &State, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        token: String,
    }
    let body = Limited::new(request.into_body(), TOKEN).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let given = serde_json::from_slice::<Given>(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let session = state.sessions.open(&given.token).ok_or_else(|| {
        Refusal::session("this link has been used, or is not the newest: open a new one of `skiff dashboard`")
    })?;
    let mut response = json(StatusCode::OK, &json!({ "key": session.key.reveal() }));
    let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", state.cookie, session.cookie.reveal());
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Makes a connection a WebSocket.
fn upgrade(state: &Arc<State>, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let accept = accept(request.headers()).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "this is for WebSockets of version 13 that speak `skiff`")
    })?;
    let coming = hyper::upgrade::on(&mut request);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let Ok(upgraded) = coming.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(stream::LONGEST))
            .max_frame_size(Some(stream::LONGEST));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        stream::serve(&state.upstream, socket).await;
    });
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// What a client's handshake is answered with, if it is one.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    let is_handshake = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        && has(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?;
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT);
    HeaderValue::from_str(&STANDARD.encode(hash.finalize())).ok()
}

#[cfg(all(test, unix))]
mod tests;
