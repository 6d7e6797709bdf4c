//! Contents of files of contexts, by their hashes.
//!
//! ```text
//! ROOT/files/ab/HASH   contents
//! ROOT/staging/N       being written; emptied at open
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Smaller files are kept in memory until their hash is known: most of them are here already.
const IN_MEMORY: usize = 1 << 20;

/// The contents.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    next: AtomicU64,
    /// Files that are known to be here.
    known: Mutex<HashSet<String>>,
}

/// A file that is being received.
#[derive(Debug)]
pub(crate) struct Incoming {
    hasher: Sha256,
    size: u64,
    memory: Vec<u8>,
    file: Option<(File, PathBuf)>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some((_, path)) = self.file.take() {
            // The next open empties the directory.
            let _ = fs::remove_file(path);
        }
    }
}

impl Store {
    pub fn open(root: &Path) -> Result<Store> {
        let staging = root.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &staging, error));
            }
            _ => {}
        }
        for directory in [&staging, &root.join("files")] {
            fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        }
        Ok(Store { root: root.to_owned(), next: AtomicU64::new(0), known: Mutex::default() })
    }

    /// A path in the staging directory that nobody else uses.
    pub fn stage(&self) -> PathBuf {
        self.root.join("staging").join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub fn path(&self, hash: &str) -> PathBuf {
        self.root.join("files").join(&hash[..2]).join(hash)
    }

    /// Whether contents are here, all `size` bytes of them: a power cut may leave a name without its data.
    pub fn has(&self, hash: &str, size: u64) -> bool {
        // Both under the lock: see `sweep`.
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.contains(hash) || fs::metadata(self.path(hash)).is_ok_and(|file| file.len() == size)
    }

    pub fn begin(&self) -> Incoming {
        Incoming { hasher: Sha256::new(), size: 0, memory: Vec::new(), file: None }
    }

    pub fn write(&self, incoming: &mut Incoming, bytes: &[u8]) -> Result<()> {
        incoming.hasher.update(bytes);
        incoming.size += bytes.len() as u64;
        if incoming.file.is_none() {
            if incoming.memory.len() + bytes.len() <= IN_MEMORY {
                incoming.memory.extend_from_slice(bytes);
                return Ok(());
            }
            let path = self.stage();
            let mut file = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
            file.write_all(&incoming.memory).map_err(|error| Error::io("write", &path, error))?;
            incoming.memory = Vec::new();
            incoming.file = Some((file, path));
        }
        if let Some((file, path)) = &mut incoming.file {
            file.write_all(bytes).map_err(|error| Error::io("write", &*path, error))?;
        }
        Ok(())
    }

    /// Keeps what was received; returns its size and hash.
    pub fn finish(&self, mut incoming: Incoming) -> Result<(u64, String)> {
        let hash = hex::encode(std::mem::take(&mut incoming.hasher).finalize());
        if !self.has(&hash, incoming.size) {
            let path = self.path(&hash);
            let directory = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
            let from = match &incoming.file {
                Some((_, from)) => from.clone(),
                None => {
                    let from = self.stage();
                    fs::write(&from, &incoming.memory).map_err(|error| Error::io("write", &from, error))?;
                    from
                }
            };
            fs::rename(&from, &path).map_err(|error| Error::io("rename", &path, error))?;
        }
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(hash.clone());
        Ok((incoming.size, hash))
    }

    /// Removes all contents but those that are needed, unless somebody is receiving some; returns the bytes that were
    /// freed.
    ///
    /// `busy` is asked under the lock that [`Store::has`] takes: who begins afterwards waits, and finds nothing that is
    /// about to go.
    pub fn sweep(&self, needed: &HashSet<&str>, busy: impl FnOnce() -> bool) -> Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if busy() {
            return Ok(0);
        }
        let mut freed = 0;
        let files = self.root.join("files");
        let list = |path: &Path| fs::read_dir(path).map_err(|error| Error::io("list", path, error));
        for shard in list(&files)? {
            let shard = shard.map_err(|error| Error::io("list", &files, error))?.path();
            if !shard.is_dir() {
                // Nothing of ours.
                fs::remove_file(&shard).map_err(|error| Error::io("remove", &shard, error))?;
                continue;
            }
            for file in list(&shard)? {
                let file = file.map_err(|error| Error::io("list", &shard, error))?;
                let name = file.file_name();
                let Some(hash) = name.to_str().filter(|hash| !needed.contains(hash)) else { continue };
                freed += file.metadata().map_or(0, |m| m.len());
                fs::remove_file(file.path()).map_err(|error| Error::io("remove", file.path(), error))?;
                known.remove(hash);
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_lost_their_data_are_received_again() {
        let root = tempfile::tempdir().unwrap();
        let receive = |store: &Store| {
            let mut incoming = store.begin();
            store.write(&mut incoming, b"contents").unwrap();
            store.finish(incoming).unwrap()
        };
        let (size, hash) = receive(&Store::open(root.path()).unwrap());
        let again = Store::open(root.path()).unwrap();
        assert!(again.has(&hash, size));
        fs::write(again.path(&hash), "").unwrap();
        assert!(!again.has(&hash, size));
        receive(&again);
        assert_eq!(fs::read(again.path(&hash)).unwrap(), b"contents");
    }

    #[test]
    fn a_sweep_takes_what_is_not_needed_and_what_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let keep = |bytes: &[u8]| {
            let mut incoming = store.begin();
            store.write(&mut incoming, bytes).unwrap();
            store.finish(incoming).unwrap().1
        };
        let (one, two) = (keep(b"one"), keep(b"two2"));
        fs::write(root.path().join("files/.stray"), "").unwrap();
        assert_eq!(store.sweep(&HashSet::from([one.as_str()]), || true).unwrap(), 0);
        assert_eq!(store.sweep(&HashSet::from([one.as_str()]), || false).unwrap(), 4);
        assert!(store.has(&one, 3) && !store.has(&two, 4));
        assert!(!root.path().join("files/.stray").exists());
    }
}
