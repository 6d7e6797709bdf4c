//! The directories that a user shares with containers, and which of them holds a path.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::errno::Errno;
use crate::host::{self, Object};
use crate::server::{Access, Server};
use crate::session::Mount;

/// Most descriptors that the nodes of all shares hold together, as far as the host allows.
const MOST_OPEN: u64 = 200_000;

/// A directory that is shared with everything below it.
#[derive(Debug)]
pub struct Share {
    root: PathBuf,
    access: Access,
    mounted: Mutex<Weak<Server>>,
    /// Where its server writes down what the guest knows.
    journal: Option<PathBuf>,
}

impl Share {
    /// The directory, without symlinks in its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether containers may change it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The server of the guest's mount, if there is one.
    pub fn mounted(&self) -> Option<Arc<Server>> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Forgets a server whose stream has ended: it tells nobody anything any more, though its watcher may hold it for a moment.
    pub fn ended(&self, server: &Weak<Server>) {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if mounted.ptr_eq(server) {
            *mounted = Weak::new();
        }
    }
}

/// All shared directories.
#[derive(Debug)]
pub struct Shares {
    shares: Vec<Arc<Share>>,
    most_open: usize,
}

/// Where a path is.
#[derive(Debug, Clone)]
pub struct Located {
    /// The share that holds it.
    pub share: Arc<Share>,
    /// The path below the share's root, without symlinks as far as it exists.
    pub relative: PathBuf,
}

/// Why a path is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Denied {
    /// It is no absolute path.
    #[error("{path:?} is not an absolute path of this host")]
    NotAbsolute {
        /// The path.
        path: String,
    },
    /// It is in none of the shared directories.
    #[error("the path {path} is not shared from the host")]
    NotShared {
        /// The path.
        path: String,
    },
}

impl Shares {
    /// Shares these directories; one that is not there (or not a directory) is left out and told. What guests know of
    /// them is written down in `journals`, so that the next daemon finds it.
    pub fn new(roots: impl IntoIterator<Item = (PathBuf, Access)>, journals: Option<&Path>) -> Shares {
        let limit = host::raise_limits();
        let mut shares: Vec<Arc<Share>> = Vec::new();
        for (path, access) in roots {
            match std::fs::canonicalize(&path) {
                Ok(root) if shares.iter().any(|share| share.root == root) => {}
                Ok(root) if root.is_dir() => {
                    let name = format!("files-{:016x}.nodes", hash(root.as_os_str().as_encoded_bytes()));
                    let journal = journals.map(|directory| directory.join(name));
                    shares.push(Arc::new(Share { root, access, mounted: Mutex::default(), journal }));
                }
                _ => tracing::warn!(path = %path.display(), "directory to share is not there"),
            }
        }
        let most_open = usize::try_from(MOST_OPEN.min(limit / 2)).unwrap_or(1024) / shares.len().max(1);
        Shares { shares, most_open }
    }

    /// Finds the share that holds a path, which need not exist.
    ///
    /// # Errors
    /// [`Denied`], in words for the user.
    pub fn locate(&self, text: &str) -> Result<Located, Denied> {
        let path = native_path(text);
        if !path.is_absolute() {
            return Err(Denied::NotAbsolute { path: text.to_owned() });
        }
        let real = without_links(&path);
        // The innermost of several that hold it.
        let holding = self.shares.iter().filter(|share| real.starts_with(&share.root));
        let share = holding.max_by_key(|share| share.root.as_os_str().len());
        let denied = || Denied::NotShared { path: text.to_owned() };
        let share = share.ok_or_else(denied)?;
        let relative = real.strip_prefix(&share.root).map_err(|_| denied())?.to_owned();
        Ok(Located { share: Arc::clone(share), relative })
    }

    /// Makes the server for a mount of a share.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub fn mount(&self, share: &Share, mount: Mount) -> Result<Arc<Server>, Errno> {
        let server = Arc::new(Server::new(Object::open_root(&share.root)?, share.access, self.most_open)?);
        if let Some(journal) = &share.journal {
            server.remember(journal, mount);
        }
        *share.mounted.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&server);
        Ok(server)
    }
}

/// FNV-1a: a daemon of another release must find the same name.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, step)
}

/// Resolves the symlinks of a path as far as it exists; the rest stays as it is.
fn without_links(path: &Path) -> PathBuf {
    let mut rest: Vec<&std::ffi::OsStr> = Vec::new();
    let mut known = path;
    loop {
        if let Ok(real) = std::fs::canonicalize(known) {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (known.components().next_back(), known.parent()) {
            (Some(Component::Normal(name)), Some(parent)) => {
                rest.push(name);
                known = parent;
            }
            // A path that goes up through what is not there leads nowhere.
            _ => return PathBuf::new(),
        }
    }
}

/// The host's own form of a path that a client wrote.
fn native_path(text: &str) -> PathBuf {
    if cfg!(windows) { PathBuf::from(windows_path(text)) } else { PathBuf::from(text) }
}

/// `/c/Users`, `//c/Users` and `/mnt/c/Users` are what clients on Windows make of `C:\Users`.
fn windows_path(text: &str) -> String {
    let slashes = text.replace('\\', "/");
    let tail = slashes.strip_prefix("/host_mnt/").or_else(|| slashes.strip_prefix("/mnt/"));
    let tail = tail.unwrap_or_else(|| slashes.trim_start_matches('/'));
    let mut parts = tail.splitn(2, '/');
    match (parts.next(), parts.next()) {
        (Some(drive), rest) if slashes.starts_with('/') && drive.len() == 1 && drive.is_ascii() => {
            let rest = rest.unwrap_or("").replace('/', "\\");
            format!("{}:\\{rest}", drive.to_ascii_uppercase())
        }
        _ => slashes.replace('/', "\\"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_windows_clients_are_understood() {
        for (text, path) in [
            ("C:\\Users\\me", "C:\\Users\\me"),
            ("C:/Users/me", "C:\\Users\\me"),
            ("//c/Users/me", "C:\\Users\\me"),
            ("/c/Users", "C:\\Users"),
            ("/mnt/d/work", "D:\\work"),
            ("/host_mnt/c/x", "C:\\x"),
            ("/c", "C:\\"),
        ] {
            assert_eq!(windows_path(text), path, "{text}");
        }
    }

    #[test]
    fn a_path_is_found_in_the_innermost_share_and_nowhere_else() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), outer.path().join("out")).unwrap();
        std::os::unix::fs::symlink(&inner, outer.path().join("in")).unwrap();
        let roots = [outer.path().to_owned(), inner.clone()].map(|root| (root, Access::ReadWrite));
        let shares =
            Shares::new(roots.into_iter().chain([(PathBuf::from("/none/such"), Access::ReadOnly)]), None);
        let locate = |path: &Path| shares.locate(path.to_str().unwrap());
        let outer = std::fs::canonicalize(outer.path()).unwrap();

        let found = locate(&outer.join("a/b")).unwrap();
        assert_eq!((found.share.root(), found.relative.as_path()), (&*outer, Path::new("a/b")));
        let found = locate(&outer.join("in/x")).unwrap();
        assert_eq!((found.share.root(), found.relative.as_path()), (&*outer.join("inner"), Path::new("x")));
        assert_eq!(locate(&outer).unwrap().relative, Path::new(""));
        for outside in [outer.join("out/x"), outer.join("../x"), outer.join("none/../../x"), "/".into()] {
            assert!(matches!(locate(&outside), Err(Denied::NotShared { .. })), "{outside:?}");
        }
        assert!(matches!(shares.locate("relative"), Err(Denied::NotAbsolute { .. })));
    }
}
