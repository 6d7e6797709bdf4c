//! Credential helpers: programs named `docker-credential-NAME` that speak JSON on their standard streams.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::error::Error;

/// The name that stands for "the secret is a token".
const TOKEN: &str = "<token>";
/// What helpers print when they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

/// Asks a helper for the credentials of a registry.
pub fn get(helper: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let output = run(helper, "get", server.as_bytes())?;
    if !output.status.success() {
        let said = message(&output);
        return if said == NOT_FOUND { Ok(None) } else { Err(failed(helper, "get", &said)) };
    }
    let secret: Secret = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(helper, "get", &format!("unreadable answer: {error}")))?;
    let server = server.to_owned();
    Ok(Some(if secret.username == TOKEN {
        Credentials { identity_token: secret.secret, server, ..Credentials::default() }
    } else {
        Credentials { username: secret.username, password: secret.secret, server, ..Credentials::default() }
    }))
}

/// Hands credentials to a helper.
pub fn store(helper: &str, credentials: &Credentials) -> Result<(), Error> {
    let token = !credentials.identity_token.is_empty();
    let secret = Secret {
        server: credentials.server.clone(),
        username: if token { TOKEN.to_owned() } else { credentials.username.clone() },
        secret: if token { credentials.identity_token.clone() } else { credentials.password.clone() },
    };
    let text = serde_json::to_vec(&secret).expect("a secret is plain data");
    expect(helper, "store", &text)
}

/// Makes a helper forget a registry.
pub fn erase(helper: &str, server: &str) -> Result<(), Error> {
    expect(helper, "erase", server.as_bytes())
}

fn expect(helper: &str, verb: &str, input: &[u8]) -> Result<(), Error> {
    let output = run(helper, verb, input)?;
    let said = message(&output);
    if output.status.success() || said == NOT_FOUND { Ok(()) } else { Err(failed(helper, verb, &said)) }
}

fn run(helper: &str, verb: &str, input: &[u8]) -> Result<Output, Error> {
    let program = format!("docker-credential-{helper}");
    let fail = |error: std::io::Error| failed(helper, verb, &error.to_string());
    let mut child = Command::new(program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has its reasons, and its exit status tells them.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(fail)
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn failed(helper: &str, verb: &str, why: &str) -> Error {
    Error::plain(format!("credential helper docker-credential-{helper} {verb}: {why}"))
}
