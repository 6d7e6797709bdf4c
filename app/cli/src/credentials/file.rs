//! The docker CLI's `config.json`: read as far as credentials go, written with everything else left as it was.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::{Credentials, helper};
use crate::error::Error;

/// The file's contents.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl ConfigFile {
    /// Reads `config.json` in `directory`; a missing one is empty.
    ///
    /// # Errors
    /// When it can't be read or is not JSON.
    pub fn read(directory: &Path) -> Result<ConfigFile, Error> {
        let path = directory.join("config.json");
        let content = match std::fs::read(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(source) => return Err(Error::File { path, source }),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::File { path: path.clone(), source: error.into() })?,
        };
        Ok(ConfigFile { path, content })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the program that keeps the credentials of a registry, if one does.
    pub fn helper(&self, server: &str) -> Option<&str> {
        let of_server = self.content.get("credHelpers").and_then(|helpers| helpers.get(server));
        of_server.or_else(|| self.content.get("credsStore"))?.as_str().filter(|name| !name.is_empty())
    }

    /// The registries that have credentials, here or with a helper.
    pub fn servers(&self) -> Vec<String> {
        let keys =
            |name: &str| self.content.get(name).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let mut servers: Vec<String> = keys("auths").chain(keys("credHelpers")).cloned().collect();
        servers.sort();
        servers.dedup();
        servers
    }

    /// Finds the credentials of a registry.
    ///
    /// # Errors
    /// When a helper fails.
    pub fn get(&self, server: &str) -> Result<Option<Credentials>, Error> {
        if let Some(name) = self.helper(server) {
            return helper::get(name, server);
        }
        let entries = self.content.get("auths").and_then(Value::as_object);
        // Older programs wrote addresses where hosts belong.
        let entry = entries.and_then(|entries| {
            entries.get(server).or_else(|| {
                entries.iter().find(|(key, _)| super::server_key(key) == server).map(|(_, entry)| entry)
            })
        });
        Ok(entry.and_then(|entry| credentials(server, entry)))
    }

    /// Keeps the credentials of a registry; returns whether they lie in the file itself.
    ///
    /// # Errors
    /// When the file can't be written or a helper fails.
    pub fn put(&mut self, credentials: &Credentials) -> Result<bool, Error> {
        let server = credentials.server.as_str();
        if let Some(name) = self.helper(server) {
            helper::store(name, credentials)?;
            return Ok(false);
        }
        let mut entry = Map::new();
        if credentials.identity_token.is_empty() {
            let pair = format!("{}:{}", credentials.username, credentials.password);
            entry.insert("auth".to_owned(), STANDARD.encode(pair).into());
        } else {
            entry.insert("auth".to_owned(), STANDARD.encode(format!("{}:", credentials.username)).into());
            entry.insert("identitytoken".to_owned(), credentials.identity_token.clone().into());
        }
        let entries = self.content.entry("auths").or_insert_with(|| json!({}));
        if !entries.is_object() {
            *entries = json!({});
        }
        entries[server] = entry.into();
        self.write()?;
        Ok(true)
    }

    /// Forgets the credentials of a registry; returns whether there were any.
    ///
    /// # Errors
    /// When the file can't be written or a helper fails.
    pub fn remove(&mut self, server: &str) -> Result<bool, Error> {
        if let Some(name) = self.helper(server) {
            let known = helper::get(name, server)?.is_some();
            helper::erase(name, server)?;
            return Ok(known);
        }
        let Some(entries) = self.content.get_mut("auths").and_then(Value::as_object_mut) else {
            return Ok(false);
        };
        let before = entries.len();
        entries.retain(|key, _| super::server_key(key) != server);
        let removed = entries.len() != before;
        if removed {
            self.write()?;
        }
        Ok(removed)
    }

    /// Replaces the file as a whole, readable by its owner only.
    fn write(&self) -> Result<(), Error> {
        let fail = |source| Error::File { path: self.path.clone(), source };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(fail)?;
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, tabs);
        self.content.serialize(&mut serializer).map_err(|error| fail(error.into()))?;
        // A link is somebody's choice of another place: the file behind it is replaced, not the link.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let new = target.with_extension(format!("json.{}", std::process::id()));
        let written = private_file(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        let done = written.and_then(|()| std::fs::rename(&new, &target));
        if done.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        done.map_err(fail)
    }
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)
}

/// Reads one entry of `auths`.
fn credentials(server: &str, entry: &Value) -> Option<Credentials> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = Credentials {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        server: server.to_owned(),
    };
    if let Ok(pair) = STANDARD.decode(text("auth"))
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((username, password)) = pair.split_once(':')
    {
        found.username = username.to_owned();
        found.password = password.trim_end_matches('\0').to_owned();
    }
    (!found.username.is_empty() || !found.identity_token.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(server: &str) -> Credentials {
        Credentials {
            username: "me".to_owned(),
            password: "a:b".to_owned(),
            server: server.to_owned(),
            ..Credentials::default()
        }
    }

    #[test]
    fn a_login_is_kept_and_forgotten_and_nothing_else_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"currentContext":"mine","auths":{"https://old.test/v1/":{"auth":"eDp5"}}}"#,
        )
        .unwrap();
        let mut file = ConfigFile::read(directory.path()).unwrap();
        assert_eq!(file.get("old.test").unwrap().unwrap().password, "y");
        assert!(file.put(&user("reg.test:5000")).unwrap());
        let mut file = ConfigFile::read(directory.path()).unwrap();
        assert_eq!(file.get("reg.test:5000").unwrap(), Some(user("reg.test:5000")));
        assert!(file.remove("reg.test:5000").unwrap());
        assert!(!file.remove("reg.test:5000").unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"currentContext\": \"mine\"") && text.contains("old.test"), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_broken_file_is_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), "{").unwrap();
        let error = ConfigFile::read(directory.path()).unwrap_err();
        assert!(error.to_string().ends_with("config.json"), "{error}");
    }
}
