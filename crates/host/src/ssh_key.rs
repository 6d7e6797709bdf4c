//! The key of this installation: who has it may log in to the guest.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use russh::keys::ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error("cannot {op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{} holds no usable key (remove it to get a new one)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
    /// The system gives no random bytes.
    #[error("no random bytes for a new key")]
    Random(#[source] io::Error),
}

/// Reads the private key at `path`, making one if there is none; the file is for the user alone.
///
/// # Errors
/// Fails when the file cannot be read or written, or holds no key.
pub fn ensure(path: &Path) -> Result<PrivateKey, KeyError> {
    let failed = |op| move |source| KeyError::File { op, path: path.to_owned(), source };
    let format = |source| KeyError::Format { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => return PrivateKey::from_openssh(&text).map_err(format),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("read")(source)),
    }
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyError::Random(io::Error::other(error.to_string())))?;
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, "skiff").map_err(format)?;
    let text = key.to_openssh(LineEnding::LF).map_err(format)?;

    let staging = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&staging).map_err(failed("create"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&staging, path).map_err(failed("write"))?;
    Ok(key)
}

/// Gives the public half as a line of `authorized_keys`.
///
/// # Errors
/// Fails when the key cannot be written down.
pub fn public_line(key: &PrivateKey) -> Result<String, russh::keys::ssh_key::Error> {
    key.public_key().to_openssh()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_is_made_once_and_only_for_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_key");
        let key = ensure(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line = public_line(&key).unwrap();
        assert!(line.starts_with("ssh-ed25519 AAAA") && line.ends_with(" skiff"), "{line}");
        assert_eq!(public_line(&ensure(&path).unwrap()).unwrap(), line);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, "no key").unwrap();
        assert!(matches!(ensure(&path), Err(KeyError::Format { .. })));
    }
}
