//! Registry credentials, where the docker CLI keeps them: `config.json`, or a credential helper that it names.
//!
//! Both programs read and write the same places, so a login with either is a login for both.

mod file;
mod helper;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use skiff_host::docker_context::config_dir;

pub use file::ConfigFile;

use crate::error::Error;
use crate::options::reference;

/// The name under which Docker Hub's credentials are kept.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Credentials of one registry, as the engine's API takes them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// A token that stands for both.
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    /// The registry.
    #[serde(rename = "serveraddress", skip_serializing_if = "String::is_empty")]
    pub server: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Returns the header `X-Registry-Auth` for an image, if its registry was logged in to.
///
/// # Errors
/// When the configuration or a helper can't be read: a pull without credentials would fail for a wrong reason.
pub fn header_for(image: &str) -> Result<Option<String>, Error> {
    let Some(directory) = config_dir() else { return Ok(None) };
    let (name, _, _) = reference::parts(image);
    let found = ConfigFile::read(&directory)?.get(registry_of(name))?;
    Ok(found.map(|credentials| {
        URL_SAFE.encode(serde_json::to_vec(&credentials).expect("credentials are plain data"))
    }))
}

/// Returns all credentials by registry, for a build, which may pull from any of them (`X-Registry-Config`).
///
/// # Errors
/// When the configuration can't be read. What a helper does not tell is left out: the build may not need it.
pub fn all() -> Result<std::collections::BTreeMap<String, Credentials>, Error> {
    let Some(directory) = config_dir() else { return Ok(Default::default()) };
    let file = ConfigFile::read(&directory)?;
    let known = file.servers().into_iter();
    Ok(known.filter_map(|server| file.get(&server).ok().flatten().map(|found| (server, found))).collect())
}

/// Returns the name under which the credentials for an image's registry are kept.
fn registry_of(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => server_key(first),
        _ => DOCKER_HUB,
    }
}

/// Returns the name under which the credentials for a registry are kept, as the user wrote it.
pub fn server_key(server: &str) -> &str {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lead_to_the_name_of_their_registry() {
        for (image, registry) in [
            ("busybox", DOCKER_HUB),
            ("me/busybox", DOCKER_HUB),
            ("docker.io/me/busybox", DOCKER_HUB),
            ("localhost/x", "localhost"),
            ("reg.test:5000/a/b", "reg.test:5000"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
        assert_eq!(server_key("https://reg.test/v2/"), "reg.test");
        assert_eq!(server_key("https://index.docker.io/v1/"), DOCKER_HUB);
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials { password: "geheim".to_owned(), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("geheim"));
    }
}
