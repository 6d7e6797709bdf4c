//! The client's registry logins.

use std::sync::Arc;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, FetchTokenRequest};
use skiff_build::{Credentials, Error, Result};
use skiff_images::{Auth, Delegate, Delegated, Secret};
use tonic::Code;

use super::caller::Caller;
use super::{Session, SessionClient};

const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
const TOKEN_METHOD: &str = "/moby.filesync.v1.Auth/FetchToken";
/// What clients know Docker Hub as.
const HUB: &str = "registry-1.docker.io";

/// What a client that fetches tokens itself takes us for.
const CLIENT_ID: &str = "buildkit-client";

/// A client that can fetches tokens itself (`FetchToken`), so that its login stays with it; of the others, and for
/// registries without tokens, the login is asked for each time it is needed.
#[async_trait]
impl Credentials for SessionClient {
    async fn registry(&self, host: &str) -> Result<Option<Auth>> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let session = self.session("").await?;
        let host = if matches!(host, "docker.io" | "index.docker.io") { HUB } else { host };
        if session.supports(TOKEN_METHOD) {
            let login = SessionLogin { session, host: host.to_owned() };
            return Ok(Some(Auth { delegate: Some(Delegated(Arc::new(login))), ..Auth::default() }));
        }
        ask(&session, host).await.map_err(Error::unavailable)
    }
}

/// Asks for the login itself.
async fn ask(session: &Session, host: &str) -> Result<Option<Auth>, String> {
    if !session.supports(METHOD) {
        return Ok(None);
    }
    let mut client = AuthClient::with_origin(session.caller(), Caller::origin());
    let answer = session.call(client.credentials(CredentialsRequest { host: host.to_owned() })).await;
    let login = match answer {
        Ok(login) => login.into_inner(),
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => return Ok(None),
        Err(status) => return Err(format!("credentials for {host}: {}", status.message())),
    };
    // A secret without a user is an identity token.
    let secret = Secret::new(login.secret.clone());
    Ok(match (login.username.is_empty(), login.secret.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Auth { identity_token: secret, ..Auth::default() }),
        (false, _) => Some(Auth { username: login.username, password: secret, ..Auth::default() }),
    })
}

/// The login of a client for one registry.
struct SessionLogin {
    session: Arc<Session>,
    host: String,
}

#[async_trait]
impl Delegate for SessionLogin {
    fn id(&self) -> String {
        format!("{} {}", self.session.id(), self.host)
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scopes: &[&str],
    ) -> Result<Option<(Secret, u64)>, String> {
        let mut client = AuthClient::with_origin(self.session.caller(), Caller::origin());
        let request = FetchTokenRequest {
            client_id: CLIENT_ID.to_owned(),
            host: self.host.clone(),
            realm: realm.to_owned(),
            service: service.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        match self.session.call(client.fetch_token(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if answer.token.is_empty() {
                    return Ok(None);
                }
                // The specification's default is sixty seconds.
                let seconds = u64::try_from(answer.expires_in).ok().filter(|seconds| *seconds > 0);
                Ok(Some((Secret::new(answer.token), seconds.unwrap_or(60))))
            }
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => {
                Err(format!("failed to authorize: failed to fetch oauth token: {}", status.message()))
            }
        }
    }

    async fn login(&self) -> Result<Option<Auth>, String> {
        ask(&self.session, &self.host).await
    }
}
