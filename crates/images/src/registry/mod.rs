//! Registry client: manifests and blobs over HTTP (OCI distribution specification), nothing about images.
//!
//! One [`Client`] per store keeps connections and tokens. A [`Repository`] is one repository on one server.
//! Every wait has an end: connecting, the answer's head, and each piece of a body.

mod answer;
mod ask;
mod auth;
mod body;
mod connect;
mod delegate;
mod download;
mod endpoint;
mod login;
mod outgoing;
mod search;
mod tags;
mod tls;
mod token;
mod upload;
mod uri;
mod wait;
mod words;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use ask::Reply;
pub use auth::{Auth, Secret};
pub(crate) use body::BlobBody;
use connect::{ConnectError, Connector};
pub use connect::{Dial, Io, ProxyDial, TcpDial};
pub use delegate::{Delegate, Delegated};
pub use download::{Answer as DownloadAnswer, Download};
pub(crate) use endpoint::Endpoint;
use endpoint::{Endpoints, Protocol, host_of};
pub use login::LoggedIn;
use outgoing::OutgoingBody;
pub(crate) use outgoing::{Outgoing, Sent};
pub use search::{Search, SearchResult};
use tls::Tls;
pub use tls::Trust;
use token::TokenKey;
use uri::{authority, content_range_start, resolve, same_origin, shown_url};

use crate::config::{Config, Timeouts};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_LIMIT, OCI_INDEX, OCI_MANIFEST};
use crate::reference::Reference;

const MAX_REDIRECTS: usize = 10;
const MAX_ATTEMPTS: u32 = 5;
const MAX_RETRY_WAIT: Duration = Duration::from_secs(10);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
const ERROR_BODY_LIMIT: u64 = 64 << 10;
/// The words for a server that takes a request and does not answer.
const NO_ANSWER: &str = "net/http: timeout awaiting response headers";
/// How long a registry that may speak plain HTTP gets to answer a TLS greeting.
const TLS_PROBE: Duration = Duration::from_secs(2);

/// Talks to registries.
pub(crate) struct Client {
    http: legacy::Client<Connector, OutgoingBody>,
    connector: Connector,
    endpoints: Endpoints,
    pub timeouts: Timeouts,
    /// Insecure registries that turned out to speak TLS or not.
    speaks_tls: Mutex<HashMap<String, bool>>,
    tokens: Mutex<HashMap<TokenKey, (Secret, Instant)>>,
    /// What came with a token that a login asked for, until the login takes it.
    refresh_tokens: Mutex<HashMap<TokenKey, Secret>>,
}

/// One repository on one server.
#[derive(Clone)]
pub(crate) struct Repository {
    client: Arc<Client>,
    reference: Reference,
    /// `https://host:port`
    base: String,
    auth: Option<Auth>,
    purpose: Purpose,
}

/// What a repository is opened for: it decides which rights are asked for and how a refusal reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Pull,
    /// Only to look what is there.
    Describe,
    Push,
    Login,
}

/// A manifest as it came.
pub(crate) struct FetchedManifest {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: Option<String>,
}

impl Client {
    pub async fn proxies(&self) -> skiff_proxy::Variables {
        self.connector.dial.proxies().await
    }

    pub fn new(config: &Config) -> Result<Arc<Client>, Error> {
        let tls = Tls::new(config)?;
        let endpoints = Endpoints::new(&config.mirrors, &config.insecure)?;
        let rules = endpoints.clone();
        let connector = Connector {
            dial: Arc::clone(&config.dial),
            tls,
            insecure: Arc::new(move |host, port| rules.is_insecure_at(host, port)),
            timeout: config.timeouts.connect,
        };
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4)
            .build(connector.clone());
        Ok(Arc::new(Client {
            http,
            connector,
            endpoints,
            timeouts: config.timeouts,
            speaks_tls: Mutex::default(),
            tokens: Mutex::default(),
            refresh_tokens: Mutex::default(),
        }))
    }

    /// Lists the servers to ask for a reference.
    pub fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        self.endpoints.of(reference)
    }

    /// Opens a repository; finds out first whether an insecure registry speaks TLS.
    pub async fn repository(
        self: &Arc<Client>,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<Auth>,
        purpose: Purpose,
    ) -> Result<Repository, Error> {
        let tls = match endpoint.protocol {
            Protocol::Http => false,
            Protocol::Https => true,
            Protocol::Either => self.probe(&endpoint.authority).await?,
        };
        Ok(Repository {
            client: Arc::clone(self),
            reference: reference.clone(),
            base: format!("{}://{}", if tls { "https" } else { "http" }, endpoint.authority),
            auth: auth.filter(|_| !endpoint.mirror),
            purpose,
        })
    }

    async fn probe(&self, authority: &str) -> Result<bool, Error> {
        let known = |map: &HashMap<String, bool>| map.get(authority).copied();
        if let Some(tls) = known(&self.speaks_tls.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(tls);
        }
        let port = authority.parse::<http::uri::Authority>().ok().and_then(|a| a.port_u16());
        let attempt = self.connector.connect(true, host_of(authority), port.unwrap_or(443));
        let tls = match tokio::time::timeout(TLS_PROBE, attempt).await {
            Ok(Ok(_)) => true,
            Ok(Err(error @ (ConnectError::Dial { .. } | ConnectError::NoSuchHost { .. })))
                if port.is_some() =>
            {
                return Err(request_error("Get", &format!("http://{authority}/v2/"), error.to_string()));
            }
            _ => false,
        };
        self.speaks_tls.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.to_owned(), tls);
        Ok(tls)
    }

    /// Sends one request and waits for the head of its answer.
    async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &HeaderMap,
        body: &Outgoing,
    ) -> Result<Response<Incoming>, Error> {
        let name = verb(&method);
        let mut request = Request::builder().method(method).uri(url.clone());
        if let Some(all) = request.headers_mut() {
            all.extend(headers.clone());
            all.insert(
                USER_AGENT,
                http::HeaderValue::from_static(concat!("skiff/", env!("CARGO_PKG_VERSION"))),
            );
            if let Some(host) = url.authority().and_then(|a| a.as_str().parse().ok()) {
                all.insert(HOST, host);
            }
        }
        let failed = |reason: String| request_error(name, &shown_url(url), reason);
        let (body, sent) = body.open().await.map_err(&failed)?;
        let request = request.body(body).map_err(|e| failed(e.to_string()))?;
        // Connecting has its own limit inside; this one is for a server that accepts and says nothing, or that
        // stops taking what is sent.
        let limit = self.timeouts.stall + self.timeouts.connect;
        let mut answer = std::pin::pin!(self.http.request(request));
        let mut before = sent.bytes();
        let answer = loop {
            match tokio::time::timeout(limit, &mut answer).await {
                Err(_) if sent.bytes() > before => before = sent.bytes(),
                ended => break ended,
            }
        };
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => match connect_error(&error) {
                Some(reason) => {
                    let shown = match url.path().starts_with("/v2/") {
                        true => format!("{}://{}/v2/", url.scheme_str().unwrap_or_default(), authority(url)),
                        false => shown_url(url),
                    };
                    Err(request_error(name, &shown, reason))
                }
                None => Err(failed(words::of(&error))),
            },
            Err(_) => Err(failed(NO_ANSWER.to_owned())),
        }
    }
}

impl Repository {
    /// Fetches a manifest by tag or digest; a digest is verified.
    pub async fn manifest(
        &self,
        tag_or_digest: &str,
        want: Option<&Digest>,
    ) -> Result<FetchedManifest, Error> {
        let url = format!("{}/v2/{}/manifests/{tag_or_digest}", self.base, self.reference.path());
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.manifest_once(&url, &accept).await {
                Ok(manifest) => {
                    return match want {
                        Some(want) if *want != manifest.digest => {
                            Err(Error::ManifestMismatch { digest: want.to_string() })
                        }
                        _ => Ok(manifest),
                    };
                }
                Err(Failure::Again(error)) if attempt < 3 => {
                    tracing::debug!(%error, attempt, "manifest request is repeated");
                    tokio::time::sleep(self.client.backoff(attempt)).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    async fn manifest_once(&self, url: &str, accept: &str) -> Result<FetchedManifest, Failure> {
        let response = self.get(url, Some(accept), None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(|v| v.split(';').next().unwrap_or(v).trim().to_owned());
        let bytes = self.client.collect(response, MANIFEST_LIMIT, url).await?;
        Ok(FetchedManifest { digest: Digest::of(&bytes), bytes, media_type })
    }

    /// Starts reading a blob at an offset.
    ///
    /// # Errors
    /// [`Failure::Again`] for what may pass; the caller counts the attempts.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobBody, Failure> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.reference.path());
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.get(&url, None, range.as_deref()).await?;
        let offset = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => content_range_start(response.headers()).unwrap_or(offset),
            // The range was not to its taking: from the start, then.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => return Err(Failure::RangeRefused),
            _ => return Err(self.refusal(response).await),
        };
        Ok(BlobBody { body: response.into_body(), stall: self.client.timeouts.stall, url, offset })
    }

    /// Fetches a small blob whole and verifies it.
    pub async fn small_blob(&self, digest: &Digest, size: u64, limit: u64) -> Result<Vec<u8>, Error> {
        let too_large = || Error::Malformed {
            what: format!("blob {digest}"),
            reason: format!("more than {limit} bytes"),
        };
        if size > limit {
            return Err(too_large());
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = match self.blob(digest, 0).await {
                Ok(mut body) => body.collect(limit).await,
                Err(failure) => Err(failure),
            };
            match result {
                Ok(bytes) if Digest::of(&bytes) == *digest => return Ok(bytes),
                Ok(_) => return Err(Error::ManifestMismatch { digest: digest.to_string() }),
                Err(Failure::Again(error)) if attempt < MAX_ATTEMPTS => {
                    tracing::debug!(%error, attempt, "blob request is repeated");
                    tokio::time::sleep(self.client.backoff(attempt)).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn refusal(&self, response: Response<Incoming>) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.client.collect(response, ERROR_BODY_LIMIT, &self.base).await.unwrap_or_default();
        let error = answer::refusal(&self.reference, self.purpose, status, &headers, &body);
        if status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
        {
            Failure::Again(error)
        } else {
            Failure::Final(error)
        }
    }

    /// Sends a GET, answering one challenge, waiting when told to, following redirects.
    async fn get(
        &self,
        url: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ACCEPT, accept), (RANGE, range)] {
            if let Some(value) = value.and_then(|v| v.parse().ok()) {
                headers.insert(name, value);
            }
        }
        self.request(Method::GET, url, &headers, &Outgoing::Nothing).await
    }

    /// Sends a request, answering one challenge, waiting when told to, following redirects of what only reads.
    async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: &Outgoing,
    ) -> Result<Response<Incoming>, Failure> {
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| {
            Failure::Final(request_error(verb(&method), url, e.to_string()))
        })?;
        // An upload may be sent elsewhere, where our credentials have no business.
        let ours = same_origin(&uri, &self.base.parse().unwrap_or_default());
        let mut authorization = self.known_authorization().filter(|_| ours);
        let (mut challenged, mut waited) = (false, 0);
        loop {
            let sent = self.follow(&method, uri.clone(), headers, body, authorization.as_ref());
            let response = sent.await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !challenged && ours => {
                    challenged = true;
                    match self.answer_challenge(&response, url).await? {
                        Some(value) => authorization = Some(value),
                        None => return Ok(response),
                    }
                }
                StatusCode::TOO_MANY_REQUESTS if waited + 1 < MAX_ATTEMPTS => {
                    let told = wait::retry_after(response.headers(), SystemTime::now());
                    waited += 1;
                    let wait = told.unwrap_or_else(|| self.client.backoff(waited));
                    if wait > MAX_RETRY_AFTER {
                        return Ok(response);
                    }
                    tracing::info!(registry = %self.base, seconds = wait.as_secs(), "registry asks to wait");
                    tokio::time::sleep(wait).await;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Follows redirects; credentials go to the registry itself and nowhere else.
    async fn follow(
        &self,
        method: &Method,
        start: Uri,
        headers: &HeaderMap,
        body: &Outgoing,
        authorization: Option<&Secret>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut uri = start.clone();
        for _ in 0..MAX_REDIRECTS {
            let mut headers = headers.clone();
            if let Some(value) = authorization.filter(|_| same_origin(&uri, &start)) {
                let mut value: http::HeaderValue = value.expose().parse().map_err(|_| {
                    Failure::Final(Error::RegistryUnauthorized {
                        message: "unauthorized: malformed token".to_owned(),
                    })
                })?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            let response =
                self.client.send(method.clone(), &uri, &headers, body).await.map_err(
                    |error| match error {
                        // Who took the whole time once will do so again.
                        Error::Request { ref reason, .. } if reason == NO_ANSWER => Failure::Final(error),
                        error => Failure::Again(error),
                    },
                )?;
            let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirects || !method.is_safe() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            uri = resolve(&uri, location).ok_or_else(|| {
                let reason = "malformed redirect".to_owned();
                Failure::Final(request_error(verb(method), &shown_url(&uri), reason))
            })?;
        }
        let reason = "stopped after 10 redirects".to_owned();
        Err(Failure::Final(request_error(verb(method), &shown_url(&start), reason)))
    }
}

impl Client {
    /// Returns how long to wait before the next attempt.
    pub fn backoff(&self, attempt: u32) -> Duration {
        (self.timeouts.retry * 2u32.saturating_pow(attempt.saturating_sub(1).min(16))).min(MAX_RETRY_WAIT)
    }

    async fn collect(&self, response: Response<Incoming>, limit: u64, url: &str) -> Result<Vec<u8>, Failure> {
        let mut body = BlobBody {
            body: response.into_body(),
            stall: self.timeouts.stall,
            url: url.to_owned(),
            offset: 0,
        };
        body.collect(limit).await
    }
}

/// Whether trying again may help.
#[derive(Debug)]
pub(crate) enum Failure {
    Again(Error),
    Final(Error),
    /// The server does not give that part of the blob.
    RangeRefused,
}

impl Failure {
    pub fn into_error(self) -> Error {
        match self {
            Failure::Again(error) | Failure::Final(error) => error,
            Failure::RangeRefused => {
                Error::Registry { message: "requested range not satisfiable".to_owned() }
            }
        }
    }
}

/// The method as Docker's errors write it.
fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "Head",
        "POST" => "Post",
        "PATCH" => "Patch",
        "PUT" => "Put",
        _ => "Get",
    }
}

pub(crate) fn request_error(method: &'static str, url: &str, reason: String) -> Error {
    Error::Request { method, url: url.to_owned(), reason }
}

fn connect_error(error: &legacy::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(connect) = error.downcast_ref::<ConnectError>() {
            return Some(connect.to_string());
        }
        source = error.source();
    }
    None
}
