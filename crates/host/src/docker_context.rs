//! The docker CLI's context named `skiff`.
//!
//! A context is a file `contexts/meta/<sha256 of its name>/meta.json` in the CLI's configuration directory. The user's
//! choice of the current context (`config.json`) is not ours to touch.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skiff_settings::env::{DOCKER_CONFIG, HOME};

/// Name of the context.
pub const NAME: &str = "skiff";

/// Finds the docker CLI's configuration directory: `DOCKER_CONFIG`, else `~/.docker`.
pub fn config_dir() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = if cfg!(windows) { "USERPROFILE" } else { HOME };
    set(DOCKER_CONFIG).map(PathBuf::from).or_else(|| Some(PathBuf::from(set(home)?).join(".docker")))
}

/// Gives the address by which docker clients name a socket.
pub fn endpoint(socket: &Path) -> String {
    if cfg!(windows) {
        format!("npipe://{}", socket.display().to_string().replace('\\', "/"))
    } else {
        format!("unix://{}", socket.display())
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The context was missing, or led elsewhere.
    Yes,
    /// It was right already.
    No,
}

/// Writes the context for `socket` below the configuration directory `config`, if that is needed.
///
/// # Errors
/// Fails when the file cannot be written; the old one is whole then.
pub fn write(config: &Path, socket: &Path) -> io::Result<Written> {
    let dir = config.join("contexts").join("meta").join(hex::encode(Sha256::digest(NAME)));
    let path = dir.join("meta.json");
    let host = endpoint(socket);
    let old: Value =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    if old["Name"] == NAME && old["Endpoints"]["docker"]["Host"] == host.as_str() {
        return Ok(Written::No);
    }
    let meta = json!({
        "Name": NAME,
        "Metadata": {"Description": "Skiff"},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
    });
    std::fs::create_dir_all(&dir)?;
    let staging = dir.join(format!("meta.json.{}", std::process::id()));
    std::fs::write(&staging, meta.to_string())?;
    std::fs::rename(&staging, &path).inspect_err(|_| {
        let _ = std::fs::remove_file(&staging);
    })?;
    Ok(Written::Yes)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn context_is_written_once_and_again_when_the_socket_moves() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        std::fs::write(&config, r#"{"currentContext":"mine"}"#).unwrap();
        let socket = Path::new("/run/docker.sock");
        assert_eq!(write(dir.path(), socket).unwrap(), Written::Yes);
        assert_eq!(write(dir.path(), socket).unwrap(), Written::No);
        assert_eq!(write(dir.path(), Path::new("/run/other.sock")).unwrap(), Written::Yes);
        assert_eq!(std::fs::read_to_string(&config).unwrap(), r#"{"currentContext":"mine"}"#);
        let meta =
            dir.path().join("contexts/meta").join(hex::encode(Sha256::digest("skiff"))).join("meta.json");
        let meta: Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
        assert_eq!(meta["Endpoints"]["docker"]["Host"], "unix:///run/other.sock");
    }

    #[test]
    fn broken_context_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), Path::new("/a")).unwrap();
        let meta = dir.path().join("contexts/meta").join(hex::encode(Sha256::digest("skiff")));
        std::fs::write(meta.join("meta.json"), b"{").unwrap();
        assert_eq!(write(dir.path(), Path::new("/a")).unwrap(), Written::Yes);
        assert_eq!(std::fs::read_dir(meta).unwrap().count(), 1, "no staging file stays");
    }
}
