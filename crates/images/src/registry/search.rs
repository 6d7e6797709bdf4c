//! `docker search`: the first version of the registry's protocol, which lives on for this alone.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::auth::form;
use super::endpoint::{Endpoint, Protocol};
use super::{Auth, Client, ERROR_BODY_LIMIT, Failure, Outgoing, Purpose, request_error};
use crate::error::Error;
use crate::manifest::{MANIFEST_LIMIT, parse_json};
use crate::reference::{DEFAULT_DOMAIN, Reference};
use crate::store::Store;

/// Docker Hub's index, which is not its registry.
const HUB_INDEX: &str = "index.docker.io";
const DEFAULT_LIMIT: i64 = 25;
const MAX_LIMIT: i64 = 100;

/// What to search for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Words, or `host[:port]/words` for another registry than Docker Hub.
    pub term: String,
    /// At most so many; 0 for the usual number.
    pub limit: i64,
    /// Credentials.
    pub auth: Option<Auth>,
}

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// Stars.
    pub star_count: i64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Its name.
    pub name: String,
    /// Said of no repository any more.
    pub is_automated: bool,
    /// What it says of itself.
    pub description: String,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

impl Store {
    /// Searches a registry's index.
    ///
    /// # Errors
    /// A term or limit that makes no sense; what the index refuses.
    pub async fn search(&self, search: Search) -> Result<Vec<SearchResult>, Error> {
        self.inner.client.search(search).await
    }
}

impl Client {
    async fn search(self: &Arc<Client>, search: Search) -> Result<Vec<SearchResult>, Error> {
        let invalid = |message: String| Error::Invalid { message };
        let limit = if search.limit == 0 { DEFAULT_LIMIT } else { search.limit };
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(invalid(format!("limit {limit} is outside the range of [1, {MAX_LIMIT}]")));
        }
        if search.term.contains("://") {
            return Err(invalid(format!(
                "invalid repository name: repository name ({}) should not have a scheme",
                search.term
            )));
        }
        let (index, term) = split(&search.term);
        let endpoint = match index {
            None => Endpoint { authority: HUB_INDEX.to_owned(), protocol: Protocol::Https, mirror: false },
            Some(host) => {
                let reference = Reference::parse(&format!("{host}/search"))?;
                self.endpoints(&reference).pop().ok_or(Error::Interrupted)?
            }
        };
        let reference = Reference::parse(&format!("{}/search", index.unwrap_or(DEFAULT_DOMAIN)))?;
        let auth = search.auth.as_ref().and_then(Auth::basic);
        let base = self.repository(&endpoint, &reference, search.auth, Purpose::Pull).await?.base;
        let limit = limit.to_string();
        let url = format!("{base}/v1/search?{}", form(&[("q", term), ("n", &limit)]));
        let failed = |reason: String| request_error("Get", &url, reason);
        let uri: Uri = url.parse().map_err(|_| failed("malformed address".to_owned()))?;
        let mut headers = HeaderMap::new();
        if let Some(mut value) = auth.and_then(|auth| http::HeaderValue::from_str(auth.expose()).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let response = self.send(Method::GET, &uri, &headers, &Outgoing::Nothing).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let _ = self.collect(response, ERROR_BODY_LIMIT, &url).await;
            return Err(Error::Registry { message: format!("Unexpected status code {}", status.as_u16()) });
        }
        let bytes = self.collect(response, MANIFEST_LIMIT, &url).await.map_err(Failure::into_error)?;
        let found: Results = parse_json("search results", &bytes)?;
        let mut found = found.results.unwrap_or_default();
        // What an index says of this is not to be trusted any more; Docker always says no.
        found.iter_mut().for_each(|result| result.is_automated = false);
        Ok(found)
    }
}

/// Splits `host[:port]/term`; Docker Hub has no host here.
fn split(term: &str) -> (Option<&str>, &str) {
    match term.split_once('/') {
        Some((DEFAULT_DOMAIN | HUB_INDEX, rest)) => (None, rest.strip_prefix("library/").unwrap_or(rest)),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, term.strip_prefix("library/").unwrap_or(term)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_index() {
        assert_eq!(split("nginx"), (None, "nginx"));
        assert_eq!(split("library/nginx"), (None, "nginx"));
        assert_eq!(split("docker.io/a/b"), (None, "a/b"));
        assert_eq!(split("me/nginx"), (None, "me/nginx"));
        assert_eq!(split("localhost:5000/a/b"), (Some("localhost:5000"), "a/b"));
    }
}
