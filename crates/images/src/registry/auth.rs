//! Credentials, challenges and tokens (distribution specification, token authentication).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;

use super::Delegated;
use crate::error::Error;

/// A secret that shows in no log and no message.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Returns the secret itself, to be handed to whom it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Credentials for a registry, as the Docker API carries them in `X-Registry-Auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Auth {
    /// User name.
    #[serde(default)]
    pub username: String,
    /// Password, or an access token used as one.
    #[serde(default)]
    pub password: Secret,
    /// A refresh token that stands for user and password.
    #[serde(default, rename = "identitytoken")]
    pub identity_token: Secret,
    /// A bearer token to be sent as it is.
    #[serde(default, rename = "registrytoken")]
    pub registry_token: Secret,
    /// Who has the login, when it is somebody else.
    #[serde(skip)]
    pub delegate: Option<Delegated>,
}

impl Auth {
    /// Reads the header `X-Registry-Auth`: JSON in base64, with the URL alphabet or the usual one.
    ///
    /// Empty credentials, which clients send for anonymous access, give `None`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the header is not that.
    pub fn from_header(header: &str) -> Result<Option<Auth>, Error> {
        let header = header.trim();
        if header.is_empty() {
            return Ok(None);
        }
        let wrong =
            |reason: String| Error::Invalid { message: format!("invalid X-Registry-Auth header: {reason}") };
        let bytes = URL_SAFE
            .decode(header)
            .or_else(|_| STANDARD.decode(header))
            .or_else(|_| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header))
            .map_err(|e| wrong(e.to_string()))?;
        let auth: Auth = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        Ok(Some(auth).filter(|auth| !auth.is_empty()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
            && self.delegate.is_none()
    }

    /// Returns the value of a basic `Authorization` header, if there is a user.
    pub(crate) fn basic(&self) -> Option<Secret> {
        let pair = format!("{}:{}", self.username, self.password.expose());
        (!self.username.is_empty()).then(|| Secret(format!("Basic {}", STANDARD.encode(pair))))
    }

    pub(crate) fn identity(&self) -> Option<&Secret> {
        Some(&self.identity_token).filter(|token| !token.is_empty())
    }

    /// Returns the value of a bearer `Authorization` header, if a ready token was given.
    pub(crate) fn bearer(&self) -> Option<Secret> {
        (!self.registry_token.is_empty()).then(|| bearer(self.registry_token.expose()))
    }
}

/// Makes a bearer `Authorization` value.
pub(crate) fn bearer(token: &str) -> Secret {
    Secret(format!("Bearer {token}"))
}

/// What a registry wants to see, from `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

impl Challenge {
    /// Parses one header value; of several challenges the first known one counts.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope, mut error) = (None, None, None, None);
        let mut rest = parameters;
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = value(after.trim_start());
            match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                "error" => error = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Challenge::Bearer { realm: realm?, service, scope, error })
    }
}

/// Reads a token or a quoted string and returns what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// What a token server answers.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    pub expires_in: Option<u64>,
    pub refresh_token: Option<Secret>,
}

impl TokenAnswer {
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref().or(self.access_token.as_deref()).filter(|token| !token.is_empty())
    }
}

/// Encodes pairs for a query or a form.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(b).to_string()
                }
                _ => format!("%{b:02X}"),
            })
            .collect()
    };
    pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let text =
            r#"Bearer realm="https://auth/token",service="reg \"x\"", scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope, error }) = Challenge::parse(text) else {
            panic!("not a bearer challenge")
        };
        assert_eq!(realm, "https://auth/token");
        assert_eq!(service.as_deref(), Some("reg \"x\""));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(error, None);
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }

    #[test]
    fn the_header_of_the_docker_cli_is_read_and_secrets_stay_hidden() {
        let header = URL_SAFE.encode(r#"{"username":"u","password":"pw","serveraddress":"x"}"#);
        let auth = Auth::from_header(&header).unwrap().unwrap();
        assert_eq!(auth.basic().unwrap().expose(), "Basic dTpwdw==");
        assert!(!format!("{auth:?}").contains("pw"));
        assert_eq!(Auth::from_header(&URL_SAFE.encode("{}")).unwrap(), None);
        assert_eq!(Auth::from_header("").unwrap(), None);
        assert!(Auth::from_header("%%%").is_err());
    }

    proptest! {
        #[test]
        fn any_challenge_parses_or_fails_without_panic(text in ".{0,100}") {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer realm={text}"));
        }
    }
}
