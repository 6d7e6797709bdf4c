//! Cache mounts: directories that outlive the steps that use them.
//!
//! ```text
//! ROOT/mounts/HASH[-N]   what `RUN --mount=type=cache` of an id sees
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::cache::{Record, seconds};
use super::value::Viewed;
use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::files::act::Ownership;
use crate::files::copy::{Options, copy};
use crate::files::{Selection, read_only_root};
use crate::graph::pb::CacheSharingOpt;

/// All cache mounts.
pub(crate) struct CacheMounts {
    root: PathBuf,
    /// How many steps use a directory.
    users: Mutex<HashMap<String, usize>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A cache mount in use.
pub(crate) struct CacheMount {
    inner: Arc<Inner>,
    name: String,
    pub directory: OwnedFd,
    _lock: Option<OwnedMutexGuard<()>>,
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        let mut users = self.inner.mounts.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.name);
            }
        }
    }
}

/// The prefix of the records of cache mounts.
pub(crate) const RECORD: &str = "mount.";

impl CacheMounts {
    pub fn open(root: PathBuf) -> Result<CacheMounts> {
        std::fs::create_dir_all(&root).map_err(|error| Error::io("create", &root, error))?;
        for entry in std::fs::read_dir(&root).map_err(|error| Error::io("list", &root, error))?.flatten() {
            // One that was being made.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                remove(&entry.path())?;
            }
        }
        Ok(CacheMounts { root, users: Mutex::default(), locks: Mutex::default() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Says whether a step uses it.
    pub fn in_use(&self, name: &str) -> bool {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Removes one that nobody uses. Blocks.
    pub fn remove(&self, name: &str) -> Result<()> {
        let out_of_sight = self.root.join(format!(".{name}"));
        {
            let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            if users.contains_key(name) {
                return Ok(());
            }
            match std::fs::rename(self.path(name), &out_of_sight) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(|error| Error::io("remove", self.path(name), error))?,
            }
        }
        remove(&out_of_sight)
    }
}

fn remove(path: &Path) -> Result<()> {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let parent = read_only_root(parent).map_err(|error| Error::io("open", parent, error))?;
    skiff_images::archive::remove_tree(&parent, name.as_encoded_bytes())
        .map_err(|error| Error::io("remove", path, error))
}

/// Takes the mount of an id. A new one has what `seed` has at the path.
pub(crate) async fn take(
    inner: &Arc<Inner>,
    id: &str,
    sharing: CacheSharingOpt,
    seed: Option<(Viewed, String)>,
    description: String,
) -> Result<CacheMount> {
    let base = crate::graph::digest(id.as_bytes()).trim_start_matches("sha256:")[..32].to_owned();
    let lock = match sharing {
        CacheSharingOpt::Locked => {
            let lock = {
                let mut locks = inner.mounts.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
                Arc::clone(locks.entry(base.clone()).or_default())
            };
            Some(lock.lock_owned().await)
        }
        _ => None,
    };
    let name = {
        let mut users = inner.mounts.users.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = base.clone();
        if sharing == CacheSharingOpt::Private {
            let mut number = 0;
            while users.contains_key(&name) {
                number += 1;
                name = format!("{base}-{number}");
            }
        }
        *users.entry(name.clone()).or_default() += 1;
        name
    };
    let worker = Arc::clone(inner);
    let made = name.clone();
    let opened = blocking(move || {
        let path = worker.mounts.path(&made);
        if !path.exists() {
            make(&worker, &made, seed)?;
        }
        read_only_root(&path).map_err(|error| Error::io("open", &path, error))
    })
    .await;
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) => {
            let mut users = inner.mounts.users.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = users.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    users.remove(&name);
                }
            }
            return Err(error);
        }
    };
    let record_id = format!("{RECORD}{name}");
    let (now, old) = (seconds(), inner.cache.get(&record_id));
    let record = Record {
        kind: "exec.cachemount".to_owned(),
        description,
        parents: Vec::new(),
        keys: Vec::new(),
        own: 0,
        size: 0,
        created: old.as_ref().map_or(now, |old| old.created),
        last_used: now,
        uses: old.map_or(0, |old| old.uses) + 1,
        layers: Vec::new(),
    };
    inner.cache.add(&record_id, record, skiff_images::Held::nothing());
    Ok(CacheMount { inner: Arc::clone(inner), name, directory, _lock: lock })
}

/// Makes the directory; it gets its name only when it is whole.
fn make(inner: &Inner, name: &str, seed: Option<(Viewed, String)>) -> Result<()> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let new = inner.mounts.root.join(format!(".{name}.{number}"));
    let failed = |error: std::io::Error| Error::io("create", &new, error);
    std::fs::create_dir(&new).map_err(failed)?;
    let root = read_only_root(&new).map_err(failed)?;
    let (mut mode, mut owner) = (0o755, (0, 0));
    if let Some((viewed, path)) = seed {
        let view = &viewed.view;
        let resolved = view.resolve(path.as_bytes(), true).map_err(failed)?;
        if let Some(meta) = view.meta(&resolved).map_err(failed)? {
            (mode, owner) = (meta.mode, (meta.uid, meta.gid));
            let selection = Selection { path: path.into_bytes(), follow: true, ..Selection::default() };
            copy(
                view,
                &root,
                &Options {
                    selection: &selection,
                    destination: b"/",
                    ownership: Ownership::default(),
                    mode: None,
                    contents: true,
                    create: true,
                    unpack: false,
                    allow_empty: false,
                    replace: true,
                    required: &[],
                },
            )?;
        }
    }
    crate::files::copy::finish_root(&root, mode, owner)?;
    match std::fs::rename(&new, inner.mounts.path(name)) {
        // Somebody was quicker.
        Err(_) if inner.mounts.path(name).exists() => remove(&new),
        other => other.map_err(failed),
    }
}

/// Bytes of a directory's files. Blocks.
pub(crate) fn size(path: &Path) -> u64 {
    let mut todo = vec![path.to_owned()];
    let mut size = 0;
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => size += meta.len(),
                Err(_) => {}
            }
        }
    }
    size
}
