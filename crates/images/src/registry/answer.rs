//! What a registry's refusals mean, in the words that Docker finds for them.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::Purpose;
use super::auth::Challenge;
use crate::error::Error;
use crate::reference::Reference;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Makes the error for an answer that is no success.
pub(super) fn refusal(
    reference: &Reference,
    purpose: Purpose,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let denied = |cause: &str| match purpose {
        Purpose::Pull => denied(reference, cause),
        Purpose::Describe | Purpose::Push | Purpose::Login => cause.to_owned(),
    };
    let mut errors: Vec<(String, String)> = serde_json::from_slice::<Errors>(body)
        .map(|e| e.errors.into_iter().map(|e| (e.code.to_ascii_uppercase(), e.message)).collect())
        .unwrap_or_default();
    let challenge = headers
        .get_all(http::header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| Challenge::parse(value.to_str().ok()?))
        .find_map(|challenge| match challenge {
            Challenge::Bearer { error, .. } => error,
            Challenge::Basic => None,
        });
    match challenge.as_deref() {
        // RFC 6750, section 3.1: the registry knows us, and it is not enough.
        Some("insufficient_scope") => {
            errors.insert(0, ("DENIED".to_owned(), "requested access to the resource is denied".to_owned()));
        }
        Some("invalid_token") if errors.is_empty() => {
            errors.push(("UNAUTHORIZED".to_owned(), "authentication required".to_owned()));
        }
        _ => {}
    }
    if status.is_server_error() {
        // As Docker, which reads no words out of a server's own failure.
        errors.clear();
    }
    let Some((code, message)) = errors.into_iter().next() else {
        return match status {
            StatusCode::UNAUTHORIZED => {
                Error::RegistryUnauthorized { message: "unauthorized: authentication required".to_owned() }
            }
            StatusCode::NOT_FOUND if matches!(purpose, Purpose::Pull | Purpose::Describe) => {
                Error::RegistryNotFound {
                    message: format!(
                        "manifest for {} not found: manifest unknown: manifest unknown",
                        reference.familiar()
                    ),
                }
            }
            StatusCode::FORBIDDEN => Error::RegistryNotFound {
                message: denied("denied: requested access to the resource is denied"),
            },
            StatusCode::TOO_MANY_REQUESTS => {
                Error::Registry { message: "toomanyrequests: too many requests".to_owned() }
            }
            _ => Error::Registry { message: format!("received unexpected HTTP status: {status}") },
        };
    };
    let shown = format!("{}: {message}", code.replace('_', " ").to_ascii_lowercase());
    match code.as_str() {
        "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" if purpose == Purpose::Describe => {
            Error::RegistryNotFound { message: shown }
        }
        "DENIED" => Error::RegistryNotFound { message: denied(&shown) },
        "MANIFEST_UNKNOWN" => Error::RegistryNotFound {
            message: format!("manifest for {} not found: {shown}", reference.familiar()),
        },
        "NAME_UNKNOWN" => Error::RegistryNotFound {
            message: format!("repository {} not found: {shown}", reference.familiar_name()),
        },
        "UNAUTHORIZED" => Error::RegistryUnauthorized { message: shown },
        _ => Error::Registry { message: shown },
    }
}

fn denied(reference: &Reference, cause: &str) -> String {
    format!(
        "pull access denied for {}, repository does not exist or may require 'docker login': {cause}",
        reference.familiar_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, challenge: Option<&str>, body: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some(challenge) = challenge {
            headers.insert(http::header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        }
        let reference = Reference::parse("x:y").unwrap();
        refusal(&reference, Purpose::Pull, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
            .to_string()
    }

    #[test]
    fn refusals_read_like_those_of_docker() {
        let unknown =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"y"}}]}"#;
        assert_eq!(
            text(404, None, unknown),
            "manifest for x:y not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            text(404, None, "<html>"),
            "manifest for x:y not found: manifest unknown: manifest unknown"
        );
        let denied = "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied";
        let required = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        assert_eq!(text(401, Some(r#"Bearer realm="r",error="insufficient_scope""#), required), denied);
        assert_eq!(
            text(
                403,
                None,
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#
            ),
            denied
        );
        assert_eq!(text(401, None, required), "unauthorized: authentication required");
        assert_eq!(text(500, None, required), "received unexpected HTTP status: 500 Internal Server Error");
        assert_eq!(text(500, None, ""), "received unexpected HTTP status: 500 Internal Server Error");
    }
}
