//! Checking credentials: what `docker login` asks of the engine.

use http::{Method, StatusCode};

use super::endpoint::Endpoint;
use super::{Auth, Client, Failure, Outgoing, Purpose, request_error};
use crate::error::Error;
use crate::reference::Reference;
use std::sync::Arc;

/// Credentials that a registry has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggedIn {
    /// A token to keep instead of the password, where the registry gives one.
    pub identity_token: super::Secret,
}

impl Client {
    /// Asks a registry, `host[:port]` or one of Docker's own addresses, whether it takes the credentials.
    ///
    /// # Errors
    /// [`Error::RegistryUnauthorized`] when it does not.
    pub async fn login(self: &Arc<Client>, server: &str, auth: Auth) -> Result<LoggedIn, Error> {
        let registry = registry_of(server);
        // Any repository will do: none is asked for.
        let reference = Reference::parse(&format!("{registry}/login"))?;
        let endpoint: Endpoint = self.endpoints(&reference).pop().ok_or(Error::Interrupted)?;
        let repository = self.repository(&endpoint, &reference, Some(auth), Purpose::Login).await?;
        let url = format!("{}/v2/", repository.base);
        let answer = repository.request(Method::GET, &url, &http::HeaderMap::new(), &Outgoing::Nothing).await;
        let answer = answer.map_err(Failure::into_error)?;
        match answer.status() {
            StatusCode::OK => Ok(LoggedIn { identity_token: repository.refresh_token() }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::RegistryUnauthorized {
                message: format!("Get \"{url}\": unauthorized: incorrect username or password"),
            }),
            status => Err(request_error("Get", &url, format!("received unexpected HTTP status: {status}"))),
        }
    }
}

/// Takes scheme and path off what users and their configuration files call a registry.
fn registry_of(server: &str) -> &str {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_under_all_their_addresses() {
        for (server, registry) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://reg.test:5000/v2/", "reg.test:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(server), registry, "{server}");
        }
    }
}
