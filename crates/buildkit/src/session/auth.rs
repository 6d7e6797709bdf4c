//! The client's registry logins.

use async_trait::async_trait;
use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use skiff_build::{Credentials, Error, Result};
use skiff_images::{Auth, Secret};
use tonic::Code;

use super::SessionClient;
use super::caller::Caller;

const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
/// What clients know Docker Hub as.
const HUB: &str = "registry-1.docker.io";

/// A login is asked for each time it is needed, and a token fetched with it here. Clients can also fetch tokens
/// themselves (`FetchToken`); they do so at the same place and with the same login, and not all of them can.
#[async_trait]
impl Credentials for SessionClient {
    async fn registry(&self, host: &str) -> Result<Option<Auth>> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let session = self.session("").await?;
        if !session.supports(METHOD) {
            return Ok(None);
        }
        let host = if matches!(host, "docker.io" | "index.docker.io") { HUB } else { host };
        let mut client = AuthClient::with_origin(session.caller(), Caller::origin());
        let answer = session.call(client.credentials(CredentialsRequest { host: host.to_owned() })).await;
        let login = match answer {
            Ok(login) => login.into_inner(),
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => return Ok(None),
            Err(status) => {
                return Err(Error::unavailable(format!("credentials for {host}: {}", status.message())));
            }
        };
        // A secret without a user is an identity token.
        let secret = Secret::new(login.secret.clone());
        Ok(match (login.username.is_empty(), login.secret.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Auth { identity_token: secret, ..Auth::default() }),
            (false, _) => Some(Auth { username: login.username, password: secret, ..Auth::default() }),
        })
    }
}
