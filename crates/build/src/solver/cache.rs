//! What was done before: records in the image store, which keeps their layers.
//!
//! A record is one output of one vertex. It is found by any of its keys; a key is a digest of the operation and of what
//! it was given, by content. Records are written behind the builds' backs: a build that is killed may lose its last
//! ones and nothing else.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use skiff_images::{Digest, Held, Kept, Store};

use crate::error::Result;

/// The uses of a record are written again at most so often.
const TOUCH: u64 = 60;

/// The durable part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// `regular`, `source.local`, `exec.cachemount`, ….
    pub kind: String,
    pub description: String,
    #[serde(default)]
    pub parents: Vec<String>,
    /// All keys that it is found by.
    pub keys: Vec<String>,
    /// How many of its layers it has made itself.
    #[serde(default)]
    pub own: usize,
    /// Bytes of what is no layer.
    #[serde(default)]
    pub size: u64,
    /// Seconds since 1970.
    pub created: u64,
    pub last_used: u64,
    #[serde(default)]
    pub uses: u64,
    #[serde(skip)]
    pub layers: Vec<Digest>,
}

#[derive(Default)]
struct State {
    records: HashMap<String, Record>,
    index: HashMap<String, String>,
    put: HashSet<String>,
    delete: Vec<String>,
    /// Layers of records that are not written yet.
    held: HashMap<String, Held>,
}

/// The cache.
pub(crate) struct Cache {
    images: Store,
    state: Mutex<State>,
    /// Held while writing.
    writing: Mutex<()>,
}

pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

impl Cache {
    pub fn open(images: Store) -> Cache {
        let mut state = State::default();
        for (id, kept) in images.kept() {
            match serde_json::from_str::<Record>(&kept.data) {
                Ok(record) => {
                    let record = Record { layers: kept.layers, ..record };
                    for key in &record.keys {
                        state.index.insert(key.clone(), id.clone());
                    }
                    state.records.insert(id, record);
                }
                Err(error) => {
                    tracing::warn!(%error, "record of the build cache is unreadable and goes");
                    state.delete.push(id);
                }
            }
        }
        Cache { images, state: Mutex::new(state), writing: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a record by one of its keys, and notes its use.
    pub fn find(self: &Arc<Cache>, key: &str) -> Option<(String, Record)> {
        let mut state = self.state();
        let id = state.index.get(key)?.clone();
        let record = state.records.get_mut(&id)?;
        record.uses += 1;
        let before = record.last_used;
        record.last_used = seconds();
        let found = record.clone();
        if found.last_used.saturating_sub(before) > TOUCH {
            state.put.insert(id.clone());
        }
        Some((id, found))
    }

    /// Adds a key to a record.
    pub fn alias(self: &Arc<Cache>, id: &str, key: &str) {
        let mut state = self.state();
        let Some(record) = state.records.get_mut(id) else { return };
        if !record.keys.iter().any(|have| have == key) {
            record.keys.push(key.to_owned());
            state.index.insert(key.to_owned(), id.to_owned());
            state.put.insert(id.to_owned());
            drop(state);
            self.write_soon();
        }
    }

    /// Adds a record, in place of one that has the same id. `held` are its layers.
    pub fn add(self: &Arc<Cache>, id: &str, record: Record, held: Held) {
        {
            let mut state = self.state();
            if let Some(old) = state.records.remove(id) {
                for key in &old.keys {
                    state.index.remove(key);
                }
            }
            for key in &record.keys {
                state.index.insert(key.clone(), id.to_owned());
            }
            let record = Record { layers: held.layers().cloned().collect(), ..record };
            state.records.insert(id.to_owned(), record);
            state.put.insert(id.to_owned());
            state.held.insert(id.to_owned(), held);
        }
        self.write_soon();
    }

    /// Removes records; it is done when this returns. Blocks.
    pub fn remove(&self, ids: &[String]) -> Result<()> {
        {
            let mut state = self.state();
            for id in ids {
                let Some(record) = state.records.remove(id) else { continue };
                for key in &record.keys {
                    if state.index.get(key) == Some(id) {
                        state.index.remove(key);
                    }
                }
                state.put.remove(id);
                state.held.remove(id);
                state.delete.push(id.clone());
            }
        }
        self.write()
    }

    /// All records.
    pub fn all(&self) -> Vec<(String, Record)> {
        self.state().records.iter().map(|(id, record)| (id.clone(), record.clone())).collect()
    }

    /// When and by what layers were made, by diff id.
    pub fn makers(&self) -> HashMap<String, (u64, String)> {
        let state = self.state();
        let mut makers: HashMap<String, (u64, String)> = HashMap::new();
        for record in state.records.values() {
            for layer in record.layers.iter().rev().take(record.own) {
                let made = makers.entry(layer.to_string());
                let made = made.or_insert_with(|| (record.created, record.description.clone()));
                // The first one to make it made it.
                if record.created < made.0 {
                    *made = (record.created, record.description.clone());
                }
            }
        }
        makers
    }

    pub fn get(&self, id: &str) -> Option<Record> {
        self.state().records.get(id).cloned()
    }

    fn write_soon(self: &Arc<Cache>) {
        let cache = Arc::clone(self);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn_blocking(move || {
            if let Err(error) = cache.write() {
                tracing::warn!(%error, "build cache can't be written; the next build writes it");
            }
        });
    }

    /// Writes what has changed. Blocks.
    pub fn write(&self) -> Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (put, delete, held) = {
            let mut state = self.state();
            let put: Vec<(String, Kept)> = std::mem::take(&mut state.put)
                .into_iter()
                .filter_map(|id| {
                    let record = state.records.get(&id)?;
                    let data = serde_json::to_string(record).expect("records have string keys only");
                    Some((id, Kept { layers: record.layers.clone(), data }))
                })
                .collect();
            (put, std::mem::take(&mut state.delete), std::mem::take(&mut state.held))
        };
        if put.is_empty() && delete.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = put.iter().map(|(id, _)| id.clone()).collect();
        if let Err(error) = self.images.keep(put, delete.clone()) {
            let mut state = self.state();
            state.put.extend(ids);
            state.delete.extend(delete);
            for (id, layers) in held {
                state.held.entry(id).or_insert(layers);
            }
            return Err(error.into());
        }
        Ok(())
    }
}
