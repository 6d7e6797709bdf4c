//! Who may use the registry: HTTP basic authentication.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::bcrypt::Hash;

/// How many right answers are remembered, so that bcrypt's work is not done for each of an image's layers.
const MAX_REMEMBERED: usize = 1_000;

/// Users and their passwords. Nobody in it: everybody may do everything.
#[derive(Default)]
pub struct Users {
    passwords: HashMap<String, Password>,
    /// Hashes of what was right before.
    right: Mutex<HashSet<[u8; 32]>>,
}

enum Password {
    Plain(String),
    Bcrypt(Hash),
}

/// Why users can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A line has another hash than bcrypt's, or none.
    #[error("{}, line {line}: not `user:` and a bcrypt hash (make it with `htpasswd -B`)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// Not `user:password`.
    #[error("\"{user}\" is not user:password")]
    Pair {
        /// What is before the colon.
        user: String,
    },
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("count", &self.passwords.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Adds `user:password`.
    ///
    /// # Errors
    /// [`UsersError::Pair`] without a colon or without a name.
    pub fn add(&mut self, pair: &str) -> Result<(), UsersError> {
        match pair.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                self.passwords.insert(user.to_owned(), Password::Plain(password.to_owned()));
                Ok(())
            }
            _ => Err(UsersError::Pair { user: pair.split(':').next().unwrap_or_default().to_owned() }),
        }
    }

    /// Adds the users of a file that `htpasswd -B` wrote.
    ///
    /// # Errors
    /// When it can't be read or has other hashes in it.
    pub fn read(&mut self, path: &Path) -> Result<(), UsersError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| UsersError::Read { path: path.to_owned(), source })?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || UsersError::Line { path: path.to_owned(), line: number + 1 };
            let (user, hash) = line.split_once(':').ok_or_else(wrong)?;
            let hash = Hash::parse(hash).ok_or_else(wrong)?;
            self.passwords.insert(user.to_owned(), Password::Bcrypt(hash));
        }
        Ok(())
    }

    /// Says whether a password is asked for at all.
    pub fn is_empty(&self) -> bool {
        self.passwords.is_empty()
    }

    /// Says whether a request may be answered. Blocks for as long as a password's hash takes.
    pub(crate) fn allow(&self, credentials: Option<&(String, String)>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some((user, given)) = credentials else { return false };
        match self.passwords.get(user) {
            Some(Password::Plain(password)) => equal(password.as_bytes(), given.as_bytes()),
            Some(Password::Bcrypt(hash)) => {
                let key: [u8; 32] = Sha256::digest(format!("{user}\0{given}").as_bytes()).into();
                let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
                if right.contains(&key) {
                    return true;
                }
                drop(right);
                if !hash.verify(given.as_bytes()) {
                    return false;
                }
                right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
                if right.len() >= MAX_REMEMBERED {
                    right.clear();
                }
                right.insert(key);
                true
            }
            None => false,
        }
    }
}

/// What a request says about who sends it.
pub(crate) fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (user, password) = String::from_utf8(decoded)
        .ok()?
        .split_once(':')
        .map(|(user, password)| (user.to_owned(), password.to_owned()))?;
    Some((user, password))
}

/// Compares all of it: the time does not tell how much was right.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(user: &str, password: &str) -> (String, String) {
        (user.to_owned(), password.to_owned())
    }

    #[test]
    fn only_the_right_password_is_let_in() {
        let mut users = Users::default();
        assert!(users.allow(None));
        users.add("me:pass:word").unwrap();
        assert!(users.allow(Some(&pair("me", "pass:word"))));
        for wrong in [None, Some(pair("me", "pass")), Some(pair("you", "pass:word")), Some(pair("me", ""))] {
            assert!(!users.allow(wrong.as_ref()));
        }
        assert!(users.add("nobody").is_err());
        assert!(users.add(":x").is_err());
    }

    #[test]
    fn a_file_of_bcrypt_hashes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, "# users\nabc:$2y$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i\n")
            .unwrap();
        let mut users = Users::default();
        users.read(&path).unwrap();
        for _ in 0..2 {
            assert!(users.allow(Some(&pair("abc", "abc"))));
        }
        assert!(!users.allow(Some(&pair("abc", "abd"))));
        std::fs::write(&path, "abc:$apr1$x$y\n").unwrap();
        assert!(users.read(&path).unwrap_err().to_string().contains("line 1"));
    }
}
