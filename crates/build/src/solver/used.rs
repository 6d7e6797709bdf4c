//! What a job has made or found made: what it can put into a cache for others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::value::Snapshot;

/// More results than a cache has in it.
const MOST: usize = 4096;
/// As many keys one result is found by at most.
const MOST_KEYS: usize = 16;

/// A result with the keys that it is found by.
#[derive(Debug, Clone)]
pub(crate) struct UsedResult {
    pub keys: Vec<String>,
    pub snapshot: Snapshot,
}

/// The results of a job.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<BTreeMap<String, UsedResult>>);

impl Used {
    pub fn add(&self, mut keys: Vec<String>, snapshot: &Snapshot) {
        keys.sort();
        keys.dedup();
        keys.truncate(MOST_KEYS);
        let Some(first) = keys.first().cloned() else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST || all.contains_key(&first) {
            all.insert(first, UsedResult { keys, snapshot: snapshot.clone() });
        }
    }

    pub fn all(&self) -> Vec<UsedResult> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
