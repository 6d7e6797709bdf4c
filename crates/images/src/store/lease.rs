//! Who holds a layer, and who is making one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use super::{Inner, LayerRecord};
use crate::digest::Digest;
use crate::error::Error;

/// Keeps a layer on disk until the image that it is for is committed, or the operation has failed.
pub(crate) struct LayerLease {
    store: Arc<Inner>,
    diff_id: Digest,
}

impl LayerLease {
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }
}

impl Drop for LayerLease {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.store.state();
            let holders =
                state.leases.get_mut(&self.diff_id).expect("a lease is counted until it is dropped");
            *holders -= 1;
            if *holders > 0 {
                return;
            }
            state.leases.remove(&self.diff_id);
            // Under the lock, so that nobody leases what is about to go: out of sight now, deleted after.
            let unwanted = !state.committed.layers.contains_key(&self.diff_id);
            let record = state.pending.remove(&self.diff_id);
            let was_removed = state.removed.remove(&self.diff_id);
            let blob = record.and_then(|record| record.blob).filter(|_| was_removed && unwanted);
            let blob = blob.filter(|blob| !state.needed_blobs().contains(blob));
            let blob = blob.map_or(Ok(()), |blob| self.store.layout.remove_blob(&blob));
            unwanted.then(|| blob.and_then(|()| self.store.layout.take_layer(&self.diff_id)))
        };
        if let Some(Err(error)) = removed {
            tracing::warn!(%error, "unused layer not removed; the next start will");
        }
    }
}

impl Inner {
    /// Leases a layer if it is there.
    pub fn lease(self: &Arc<Inner>, diff_id: &Digest) -> Option<LayerLease> {
        let mut state = self.state();
        if !state.committed.layers.contains_key(diff_id) && !state.pending.contains_key(diff_id) {
            return None;
        }
        *state.leases.entry(diff_id.clone()).or_default() += 1;
        Some(LayerLease { store: Arc::clone(self), diff_id: diff_id.clone() })
    }

    /// Puts a finished layer in its place and leases it.
    pub fn publish_layer(
        self: &Arc<Inner>,
        diff_id: &Digest,
        from: &Path,
        record: LayerRecord,
    ) -> Result<LayerLease, Error> {
        let mut state = self.state();
        self.layout.publish(from, &self.layout.layer(diff_id))?;
        if !state.committed.layers.contains_key(diff_id) {
            state.pending.insert(diff_id.clone(), record);
        }
        *state.leases.entry(diff_id.clone()).or_default() += 1;
        Ok(LayerLease { store: Arc::clone(self), diff_id: diff_id.clone() })
    }
}

/// Lets one operation at a time work on a layer or blob; the others then find it done.
#[derive(Default)]
pub(crate) struct WorkLocks {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// Held while working; worker threads keep clones, so that a cancelled operation's last write comes before the
/// next operation's first.
#[derive(Clone)]
pub(crate) struct WorkGuard {
    _guard: Arc<OwnedMutexGuard<()>>,
}

impl WorkLocks {
    /// Waits for the right to work on `key`.
    pub async fn lock(&self, key: &str) -> WorkGuard {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        WorkGuard { _guard: Arc::new(lock.lock_owned().await) }
    }
}
