//! Getting and keeping tokens: what a 401 asks for, from whom, and for how long it lasts.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::auth::{self, Auth, Challenge, Secret, TokenAnswer};
use super::uri::shown_url;
use super::{Delegate, Failure, Outgoing, Purpose, Repository, request_error};
use crate::digest::Digest;
use crate::error::Error;

const TOKEN_LIMIT: u64 = 1 << 20;

/// What a token is good for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    base: String,
    repository: String,
    user: String,
    /// Digest of the credentials: a token must not outlive a change of the password.
    credentials: String,
    /// A token to pull is of no use to push.
    purpose: Purpose,
}

impl Repository {
    fn token_key(&self) -> TokenKey {
        let auth = self.auth.clone().unwrap_or_default();
        let delegate = auth.delegate.as_ref().map_or_else(String::new, |delegate| delegate.0.id());
        let secrets = format!("{}\0{}\0{delegate}", auth.password.expose(), auth.identity_token.expose());
        TokenKey {
            base: self.base.clone(),
            repository: self.reference.path().to_owned(),
            user: auth.username,
            credentials: Digest::of(secrets.as_bytes()).to_string(),
            purpose: self.purpose,
        }
    }

    /// Takes the token that came with the last login, or an empty one.
    pub(super) fn refresh_token(&self) -> Secret {
        let mut kept = self.client.refresh_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&self.token_key()).unwrap_or_default()
    }

    pub(super) fn known_authorization(&self) -> Option<Secret> {
        if let Some(bearer) = self.auth.as_ref().and_then(Auth::bearer) {
            return Some(bearer);
        }
        let tokens = self.client.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(&self.token_key())
            .filter(|(_, until)| *until > Instant::now())
            .map(|(token, _)| token.clone())
    }

    /// Gets what a 401 asks for; `None` when the challenge says that asking again is no use.
    pub(super) async fn answer_challenge(
        &self,
        response: &Response<Incoming>,
        url: &str,
    ) -> Result<Option<Secret>, Failure> {
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let (value, seconds) = match bearer.or(challenges.first()) {
            None => return Ok(None),
            Some(Challenge::Basic) => {
                let lent = self.lent().await?;
                let basic = lent.as_ref().or(self.auth.as_ref()).and_then(Auth::basic);
                let value = basic.ok_or_else(|| {
                    let Error::Request { method, url, reason } =
                        request_error("Get", url, "no basic auth credentials".to_owned())
                    else {
                        return Failure::Final(Error::Interrupted);
                    };
                    Failure::Final(Error::RegistryUnauthorized {
                        message: format!("{method} \"{url}\": {reason}"),
                    })
                })?;
                (value, 3600)
            }
            Some(Challenge::Bearer { realm, service, scope, .. }) => {
                self.fetch_token(realm, service.as_deref(), scope.as_deref()).await?
            }
        };
        let until = Instant::now() + Duration::from_secs(seconds * 9 / 10);
        let mut tokens = self.client.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > Instant::now());
        tokens.insert(self.token_key(), (value.clone(), until));
        Ok(Some(value))
    }

    fn delegate(&self) -> Option<&dyn Delegate> {
        Some(&*self.auth.as_ref()?.delegate.as_ref()?.0)
    }

    /// Asks whoever has the login for it.
    async fn lent(&self) -> Result<Option<Auth>, Failure> {
        let Some(delegate) = self.delegate() else { return Ok(None) };
        // Without a login it is nobody.
        let login = delegate.login().await.map(|login| Some(login.unwrap_or_default()));
        login.map_err(|message| Failure::Final(Error::RegistryUnauthorized { message }))
    }

    /// Asks the token server.
    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<(Secret, u64), Failure> {
        let rights = if self.purpose == Purpose::Push { "pull,push" } else { "pull" };
        let own_scope = format!("repository:{}:{rights}", self.reference.path());
        let scope = match self.purpose {
            Purpose::Login => scope,
            Purpose::Pull | Purpose::Describe | Purpose::Push => Some(scope.unwrap_or(&own_scope)),
        };
        let fail = |reason: &str| Failure::Final(request_error("Get", realm, reason.to_owned()));
        let realm_uri: Uri = realm.parse().map_err(|_| fail("malformed token realm"))?;
        let plain = realm_uri.scheme_str() == Some("http");
        if !plain && realm_uri.scheme_str() != Some("https") {
            return Err(fail("malformed token realm"));
        }
        if let Some(delegate) = self.delegate() {
            let scopes: Vec<&str> = scope.into_iter().collect();
            let fetched = delegate.token(realm, service.unwrap_or_default(), &scopes).await;
            let fetched =
                fetched.map_err(|message| Failure::Final(Error::RegistryUnauthorized { message }))?;
            if let Some((token, seconds)) = fetched {
                return Ok((auth::bearer(token.expose()), seconds.clamp(10, 86_400)));
            }
        }
        let lent = self.lent().await?;
        let login = lent.as_ref().or(self.auth.as_ref());
        if plain && self.base.starts_with("https:") && login.is_some_and(|login| !login.is_empty()) {
            return Err(fail("refusing to send credentials over plain http"));
        }
        let identity = login.and_then(Auth::identity);
        let mut pairs: Vec<(&str, &str)> = service.map(|s| ("service", s)).into_iter().collect();
        pairs.extend(scope.map(|scope| ("scope", scope)));
        if self.purpose == Purpose::Login {
            pairs.extend([("offline_token", "true"), ("client_id", "skiff")]);
        }
        let mut headers = HeaderMap::new();
        let (method, uri, body) = if let Some(token) = identity {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
                ("client_id", "skiff"),
            ]);
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-www-form-urlencoded"));
            (Method::POST, realm_uri, Outgoing::Bytes(Bytes::from(auth::form(&pairs))))
        } else {
            if let Some(auth) = login
                && let Some(basic) = auth.basic()
            {
                pairs.push(("account", &auth.username));
                if let Ok(mut value) = http::HeaderValue::from_str(basic.expose()) {
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
            }
            let separator = if realm.contains('?') { '&' } else { '?' };
            let uri = format!("{realm}{separator}{}", auth::form(&pairs))
                .parse()
                .map_err(|_| fail("malformed token realm"))?;
            (Method::GET, uri, Outgoing::Nothing)
        };
        let response = self.client.send(method, &uri, &headers, &body).await.map_err(Failure::Again)?;
        let status = response.status();
        if status != StatusCode::OK {
            return match status {
                // Docker's words for a wrong password.
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(Failure::Final(Error::RegistryUnauthorized {
                        message: format!(
                            "Get \"{}\": unauthorized: incorrect username or password",
                            shown_url(&uri)
                        ),
                    }))
                }
                _ => Err(self.refusal(response).await),
            };
        }
        let bytes = self.client.collect(response, TOKEN_LIMIT, realm).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|_| fail("malformed token answer"))?;
        if self.purpose == Purpose::Login
            && let Some(refresh) = &answer.refresh_token
        {
            let mut kept = self.client.refresh_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(self.token_key(), refresh.clone());
        }
        let token = answer
            .token()
            .ok_or_else(|| fail("authorization server did not include a token in the response"))?;
        // The specification's default is sixty seconds.
        Ok((auth::bearer(token), answer.expires_in.unwrap_or(60).clamp(10, 86_400)))
    }
}
