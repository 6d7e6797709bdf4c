//! The reverse proxy: requests in, the same requests out to a container.

use std::{net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
    header::{self, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use skiff_link::{BoxStream, copy_both};
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::TlsAcceptor;

use super::{Names, NoTarget, Target, page};

type Body = BoxBody<Bytes, hyper::Error>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Headers that are about one connection (RFC 9110, 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TRAILER, header::PROXY_AUTHENTICATE];

/// One connection of a client.
struct Client {
    names: Arc<Names>,
    from: SocketAddr,
    port: u16,
    is_tls: bool,
    /// The connection to a container, for the next request to the same one.
    kept: Mutex<Option<(SocketAddr, http1::SendRequest<Incoming>)>>,
}

/// Serves one connection to its end.
pub(super) async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    port: u16,
    names: Arc<Names>,
    acceptor: Option<TlsAcceptor>,
) -> Result<(), Failed> {
    stream.set_nodelay(true)?;
    let client = Arc::new(Client { names, from, port, is_tls: acceptor.is_some(), kept: Mutex::default() });
    match acceptor {
        Some(acceptor) => serve(Box::new(acceptor.accept(stream).await?), client).await,
        None => serve(Box::new(stream), client).await,
    }
}

async fn serve(stream: BoxStream, client: Arc<Client>) -> Result<(), Failed> {
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, std::convert::Infallible>(client.answer(request).await) }
    });
    auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
}

impl Client {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let host = host_of(&request);
        match self.forward(request, &host).await {
            Ok(response) => response,
            Err(error) => {
                let suffix =
                    if matches!(self.port, 80 | 443) { String::new() } else { format!(":{}", self.port) };
                let (status, text) = page::of(&error, &host, &suffix);
                let mut response =
                    Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
                *response.status_mut() = status;
                let html = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
        }
    }

    async fn forward(&self, mut request: Request<Incoming>, host: &str) -> Result<Response<Body>, NoTarget> {
        let target = self.names.find(host).await?;
        let broke = |error: hyper::Error| NoTarget::Dial {
            container: target.container.clone(),
            port: target.address.port(),
            reason: error.to_string(),
        };
        self.add_forwarded(request.headers_mut(), host);
        if request.version() == Version::HTTP_2 {
            let stream = self.names.connect(&target).await?;
            return through_http2(stream, request, host).await.map_err(broke);
        }
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let from_client = upgrade.then(|| hyper::upgrade::on(&mut request));
        if !upgrade {
            OF_ONE_CONNECTION.iter().for_each(|name| drop(request.headers_mut().remove(name)));
        }
        // Clients that speak to a proxy name the whole address; servers want the path.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        request.headers_mut().entry(header::HOST).or_insert(host);

        let mut sender = self.sender(&target).await?;
        let mut response = sender.send_request(request).await.map_err(broke)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(from_client) = from_client {
                let from_container = hyper::upgrade::on(&mut response);
                tokio::spawn(async move {
                    let (Ok(client), Ok(container)) = tokio::join!(from_client, from_container) else {
                        return;
                    };
                    if let Err(error) = copy_both(TokioIo::new(client), TokioIo::new(container)).await {
                        tracing::debug!(%error, "upgraded connection broke");
                    }
                });
            }
        } else {
            OF_ONE_CONNECTION.iter().for_each(|name| drop(response.headers_mut().remove(name)));
            *self.kept.lock().await = Some((target.address, sender));
        }
        Ok(response.map(BodyExt::boxed))
    }

    /// A connection to the container: the one of the last request, if it is good for another.
    async fn sender(&self, target: &Target) -> Result<http1::SendRequest<Incoming>, NoTarget> {
        if let Some((address, mut sender)) = self.kept.lock().await.take()
            && address == target.address
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = self.names.connect(target).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| NoTarget::Dial {
                container: target.container.clone(),
                port: target.address.port(),
                reason: error.to_string(),
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a container broke");
            }
        });
        Ok(sender)
    }

    /// Tells the container who asks for what, as reverse proxies do.
    fn add_forwarded(&self, headers: &mut HeaderMap, host: &str) {
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-forwarded-for", &self.from.ip().to_canonical().to_string());
        set("x-forwarded-host", host);
        set("x-forwarded-proto", if self.is_tls { "https" } else { "http" });
    }
}

/// A client that speaks HTTP/2 in the clear knows that the container does: gRPC, mostly.
async fn through_http2(
    stream: BoxStream,
    mut request: Request<Incoming>,
    host: &str,
) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a container broke");
        }
    });
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build();
    *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from_static("http://localhost/"));
    Ok(sender.send_request(request).await?.map(BodyExt::boxed))
}

/// The host that is asked for: HTTP/2 has it in the address, HTTP/1.1 in a header.
fn host_of<T>(request: &Request<T>) -> String {
    let header = || request.headers().get(header::HOST)?.to_str().ok().map(str::to_owned);
    request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(header)
        .unwrap_or_default()
}
