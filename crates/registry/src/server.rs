//! Listens, with TLS or without.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::auth::Users;
use crate::error::Error;
use crate::route::{self, State};
use crate::store::Store;

/// How many connections there may be at the same time.
const MAX_CONNECTIONS: usize = 1_000;
/// How long a connection may take to say what it wants.
const HEAD: Duration = Duration::from_secs(30);

/// What a registry is started with.
#[derive(Debug)]
pub struct Options {
    /// The directory with all of it.
    pub root: PathBuf,
    /// Where to listen, `host:port`.
    pub address: String,
    /// Who may use it; nobody in it: everybody.
    pub users: Users,
    /// With which certificate.
    pub tls: Option<Tls>,
    /// Whether nothing may be changed.
    pub read_only: bool,
}

/// A certificate with its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, and those that lead to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the directory and listens.
    ///
    /// # Errors
    /// When the directory, the certificate or the address can't be used.
    pub async fn bind(options: Options) -> Result<Server, Error> {
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        let store = Store::open(options.root)?;
        let address = options.address;
        let listener = TcpListener::bind(&address)
            .await
            .map_err(|source| Error::Listen { address: address.clone(), source })?;
        let state =
            Arc::new(State { store: Arc::new(store), users: options.users, read_only: options.read_only });
        Ok(Server { listener, tls, state })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener
            .local_addr()
            .map_err(|source| Error::Listen { address: "the socket".to_owned(), source })
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptor is free, or the client has gone: there will be others.
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
            tokio::spawn(async move {
                connection(stream, tls, state).await;
                drop(place);
            });
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, state).await,
        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, state).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS session"),
            Err(_) => {}
        },
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(route::answer(state, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection has ended");
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let wrong =
        |reason: String| Error::Tls { certificate: tls.certificate.clone(), key: tls.key.clone(), reason };
    let certificates = read(&tls.certificate).map_err(&wrong)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| wrong(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?.collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(all) }
}
