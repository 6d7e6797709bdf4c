//! Requests to web servers that are no registries, by the same connections: what a version control system says over HTTP.

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::download::Download;
use super::outgoing::Outgoing;
use super::uri::{resolve, same_origin, shown_url};
use super::{Client, MAX_REDIRECTS, request_error};
use crate::error::Error;
use crate::store::Store;

/// What a server answers.
#[derive(Debug)]
pub struct Reply {
    /// The status, 200 or another.
    pub status: u16,
    /// The address that answered in the end.
    pub url: String,
    /// The body.
    pub body: Download,
}

impl Store {
    /// Asks an `http` or `https` address: by `POST` when there is a body, else by `GET`, whose redirects are followed. Another
    /// server than the first gets no `Authorization`.
    ///
    /// # Errors
    /// An address or a header that is none; a server that does not answer.
    pub async fn ask(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Option<Vec<u8>>,
    ) -> Result<Reply, Error> {
        self.inner.client.ask(url, headers, body).await
    }
}

impl Client {
    async fn ask(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Option<Vec<u8>>,
    ) -> Result<Reply, Error> {
        let wrong = |reason: &str| Error::Invalid { message: format!("invalid address \"{url}\": {reason}") };
        let mut uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|_| wrong("a header has a name that is none"))?;
            let mut value: HeaderValue =
                value.parse().map_err(|_| wrong("a header has a value that is none"))?;
            value.set_sensitive(name == AUTHORIZATION);
            sent.insert(name, value);
        }
        let (method, outgoing) = match body {
            Some(bytes) => (Method::POST, Outgoing::Bytes(Bytes::from(bytes))),
            None => (Method::GET, Outgoing::Nothing),
        };
        for _ in 0..=MAX_REDIRECTS {
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
                return Err(wrong("neither http nor https"));
            }
            let response = self.send(method.clone(), &uri, &sent, &outgoing).await?;
            let status = response.status().as_u16();
            if method == Method::GET && matches!(status, 301 | 302 | 303 | 307 | 308) {
                let location =
                    response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let next = resolve(&uri, location).ok_or_else(|| wrong("malformed redirect"))?;
                if !same_origin(&uri, &next) {
                    sent.remove(AUTHORIZATION);
                }
                uri = next;
                continue;
            }
            let body = Download::of(response.into_body(), self.timeouts.stall, shown_url(&uri));
            return Ok(Reply { status, url: uri.to_string(), body });
        }
        Err(request_error("Get", url, "stopped after 10 redirects".to_owned()))
    }
}
