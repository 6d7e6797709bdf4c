//! The database `images.redb`: which images, names, layers and seeds are committed.
//!
//! Five tables of JSON records. Everything is read once at open and kept in memory by the store; every change
//! is one transaction, on disk before it is answered.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use crate::digest::Digest;
use crate::error::Error;

type Table = TableDefinition<'static, &'static str, &'static str>;
const META: Table = TableDefinition::new("meta");
const IMAGES: Table = TableDefinition::new("images");
const NAMES: Table = TableDefinition::new("names");
const LAYERS: Table = TableDefinition::new("layers");
const SEEDS: Table = TableDefinition::new("seeds");
/// Came later than the others: an older database has none.
const KEPT: Table = TableDefinition::new("kept");
const SCHEMA: &str = "1";

/// What is kept of an image; its id is the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub layers: Vec<Digest>,
    /// Manifests and manifest lists kept as blobs, beside the configuration.
    pub manifests: Vec<Digest>,
    /// Blobs that the manifest names, lowest layer first; empty when there is no manifest.
    #[serde(default)]
    pub layer_blobs: Vec<Digest>,
    pub last_tagged: Option<i64>,
    #[serde(default)]
    pub parent: Option<String>,
    /// Removed by force while a stopped container needs its layers: shown nowhere, kept until the container goes.
    #[serde(default)]
    pub hidden: bool,
}

/// What is kept of a layer; its diff id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Bytes of its files.
    pub size: u64,
    /// The blob that it was made from, compressed or not.
    pub blob: Option<Digest>,
    /// Bytes of that blob.
    pub blob_size: u64,
}

/// Everything that is committed.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub images: HashMap<String, ImageRecord>,
    pub names: BTreeMap<String, String>,
    pub layers: HashMap<Digest, LayerRecord>,
    pub seeds: HashMap<String, String>,
    pub kept: HashMap<String, Kept>,
}

/// One change of the metadata; all of it happens or nothing.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub put_images: Vec<(String, ImageRecord)>,
    pub delete_images: Vec<String>,
    pub put_names: Vec<(String, String)>,
    pub delete_names: Vec<String>,
    pub put_layers: Vec<(Digest, LayerRecord)>,
    pub delete_layers: Vec<Digest>,
    pub put_seeds: Vec<(String, String)>,
    pub put_kept: Vec<(String, Kept)>,
    pub delete_kept: Vec<String>,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.put_images.is_empty()
            && self.delete_images.is_empty()
            && self.put_names.is_empty()
            && self.delete_names.is_empty()
            && self.put_layers.is_empty()
            && self.delete_layers.is_empty()
            && self.put_seeds.is_empty()
            && self.put_kept.is_empty()
            && self.delete_kept.is_empty()
    }
}

/// The open database.
pub(crate) struct Metadata {
    root: PathBuf,
    /// Locked for as long as the store is open: the database's own lock begins too late for its making.
    _lock: OwnedFd,
    /// `None` after a failed write: redb wants to be opened anew then, once there is space again.
    database: Mutex<Option<Database>>,
}

impl Metadata {
    /// Opens or makes the database and reads all of it.
    pub fn open(root: &Path) -> Result<(Metadata, Committed), Error> {
        let lock = lock(root)?;
        let database = open_database(root)?;
        let committed = read(&database)?;
        let database = Mutex::new(Some(database));
        Ok((Metadata { root: root.to_owned(), _lock: lock, database }, committed))
    }

    /// Commits a change; when this returns it is on disk.
    pub fn commit(&self, change: &Change) -> Result<(), Error> {
        if change.is_empty() {
            return Ok(());
        }
        let mut slot = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => open_database(&self.root)?,
        };
        // On failure the database is dropped here, and opened again by the next commit.
        write(&database, change)?;
        *slot = Some(database);
        Ok(())
    }
}

/// Takes the store's root for this process; the lock goes with the descriptor.
fn lock(root: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|e| Error::io("open", root, e))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(Errno::WOULDBLOCK) => Err(Error::InUse { path: root.to_owned() }),
        Err(e) => Err(Error::io("lock", root, e)),
    }
}

/// Opens the database. A new one gets its name only when it is whole: a kill in between leaves a file that no
/// later start could read.
fn open_database(root: &Path) -> Result<Database, Error> {
    let path = root.join("images.redb");
    if !path.exists() {
        let new = root.join("images.redb.new");
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &new, e)),
            _ => {}
        }
        make_database(&new)?;
        std::fs::rename(&new, &path).map_err(|e| Error::io("rename", &new, e))?;
        let directory = std::fs::File::open(root).and_then(|directory| directory.sync_all());
        directory.map_err(|e| Error::io("sync", root, e))?;
    }
    let database = Database::open(&path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: root.to_owned() },
        other => failed(other),
    })?;
    let transaction = database.begin_read().map_err(failed)?;
    let schema = transaction.open_table(META).map_err(failed)?.get("schema").map_err(failed)?;
    match schema.as_ref().map(|schema| schema.value()) {
        Some(SCHEMA) => {}
        other => {
            let other = other.unwrap_or("none");
            return Err(Error::Database { reason: format!("written by another version (schema {other})") });
        }
    }
    drop(schema);
    Ok(database)
}

/// Makes an empty database; when this returns it is on disk.
fn make_database(path: &Path) -> Result<(), Error> {
    let database = Database::create(path).map_err(failed)?;
    let transaction = database.begin_write().map_err(failed)?;
    transaction.open_table(META).map_err(failed)?.insert("schema", SCHEMA).map_err(failed)?;
    for table in [IMAGES, NAMES, LAYERS, SEEDS, KEPT] {
        transaction.open_table(table).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

fn read(database: &Database) -> Result<Committed, Error> {
    let transaction = database.begin_read().map_err(failed)?;
    let rows = |table: Table| -> Result<Vec<(String, String)>, Error> {
        let table = match transaction.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(failed)?,
        };
        let mut rows = Vec::new();
        for row in table.iter().map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            rows.push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok(rows)
    };
    fn record<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
        serde_json::from_str(text)
            .map_err(|e| Error::Database { reason: format!("record of {key} is damaged: {e}") })
    }
    let mut committed = Committed::default();
    for (key, value) in rows(IMAGES)? {
        committed.images.insert(key.clone(), record(&key, &value)?);
    }
    for (key, value) in rows(LAYERS)? {
        let digest = key.parse().map_err(|e| Error::Database { reason: format!("layer key {key}: {e}") })?;
        committed.layers.insert(digest, record(&key, &value)?);
    }
    committed.names = rows(NAMES)?.into_iter().collect();
    committed.seeds = rows(SEEDS)?.into_iter().collect();
    for (key, value) in rows(KEPT)? {
        committed.kept.insert(key.clone(), record(&key, &value)?);
    }
    Ok(committed)
}

fn write(database: &Database, change: &Change) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(failed)?;
    let images = change.put_images.iter().map(|(k, v)| (k.clone(), json(v))).collect();
    let layers = change.put_layers.iter().map(|(k, v)| (k.to_string(), json(v))).collect();
    let gone_layers: Vec<String> = change.delete_layers.iter().map(Digest::to_string).collect();
    table(&transaction, IMAGES, &change.delete_images, images)?;
    table(&transaction, NAMES, &change.delete_names, change.put_names.clone())?;
    table(&transaction, LAYERS, &gone_layers, layers)?;
    table(&transaction, SEEDS, &[], change.put_seeds.clone())?;
    let kept = change.put_kept.iter().map(|(k, v)| (k.clone(), json(v))).collect();
    table(&transaction, KEPT, &change.delete_kept, kept)?;
    transaction.commit().map_err(failed)
}

fn table(
    transaction: &WriteTransaction,
    definition: Table,
    delete: &[String],
    put: Vec<(String, String)>,
) -> Result<(), Error> {
    if delete.is_empty() && put.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(definition).map_err(failed)?;
    for key in delete {
        table.remove(key.as_str()).map_err(failed)?;
    }
    for (key, value) in put {
        table.insert(key.as_str(), value.as_str()).map_err(failed)?;
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records have string keys only")
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Database { reason: error.to_string() }
}
