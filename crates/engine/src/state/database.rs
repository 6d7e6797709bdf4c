//! The database: one redb file, written in batches.
//!
//! Durability. Every commit is redb's `Immediate`: it is on the disk before [`Database::commit`] returns, because redb's
//! lazier levels live in the process's memory and would be lost with a killed engine. Commits that wait for each other
//! are joined: whoever gets the write lock takes along everything that is queued, so that many containers starting at
//! once share one sync.
//!
//! [`Database::later`] is for what can be found again without the database as long as the machine lives: that a
//! container runs, since when and as which process, is known to the supervisor. Such a change rides with the next commit
//! or is written within [`LATER`]; only if the machine itself dies within that time is it missing, and then the container
//! shows in the state before. Creation, exit and removal are always committed before they are answered.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};

/// How long a change that can be found again may wait.
const LATER: Duration = Duration::from_millis(25);

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Containers by id.
    Containers,
    /// Volumes by name.
    Volumes,
    /// Networks of users by id.
    Networks,
    /// Facts about the engine itself.
    Engine,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Containers => "containers",
            Self::Volumes => "volumes",
            Self::Networks => "networks",
            Self::Engine => "engine",
        })
    }
}

/// One change.
#[derive(Debug)]
pub struct Op {
    table: Table,
    key: String,
    value: Option<Vec<u8>>,
}

impl Op {
    /// Stores `value` under `key`.
    pub fn put(table: Table, key: &str, value: &impl serde::Serialize) -> Self {
        let value = serde_json::to_vec(value).expect("records are plain data");
        Self { table, key: key.to_owned(), value: Some(value) }
    }

    /// Removes `key`.
    pub fn delete(table: Table, key: &str) -> Self {
        Self { table, key: key.to_owned(), value: None }
    }
}

#[derive(Debug, Default)]
struct Queue {
    ops: Vec<Op>,
    /// Numbers of the newest queued and the newest written change.
    queued: u64,
    written: u64,
    /// The last batch that failed: its numbers and why.
    failed: Option<(u64, u64, String)>,
    lazy: bool,
}

/// The engine's database.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redb: redb::Database,
    queue: Mutex<Queue>,
    writer: Mutex<()>,
    wake: Condvar,
}

impl Database {
    /// Opens or makes the database. After a kill redb repairs the file by itself; it is small, so that takes no time.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let redb = redb::Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                Error::new(Code::Unavailable, format!("{} is in use by another engine", path.display()))
            }
            error => Error::internal(format!("open {}", path.display()), &error),
        })?;
        let inner =
            Arc::new(Inner { redb, queue: Mutex::default(), writer: Mutex::default(), wake: Condvar::new() });
        let writer = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || {
                while let Some(inner) = writer.upgrade() {
                    inner.write_lazily();
                }
            })
            .map_err(|error| Error::internal("start the database's thread", &error))?;
        Ok(Self(inner))
    }

    /// Everything in a table.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>> {
        let problem = |error: redb::Error| Error::internal("read the database", &error);
        let transaction = self.0.redb.begin_read().map_err(|error| problem(error.into()))?;
        let table = match transaction.open_table(table.definition()) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(problem(error.into())),
        };
        let mut all = Vec::new();
        for entry in table.iter().map_err(|error| problem(error.into()))? {
            let (key, value) = entry.map_err(|error| problem(error.into()))?;
            match serde_json::from_slice(value.value()) {
                Ok(value) => all.push(value),
                Err(error) => return Err(Error::internal(format!("record {}", key.value()), &error)),
            }
        }
        Ok(all)
    }

    /// Writes changes; they are on the disk when this returns. Blocks for one sync.
    pub fn commit(&self, ops: impl IntoIterator<Item = Op>) -> Result<()> {
        let inner = &self.0;
        let ticket = {
            let mut queue = lock(&inner.queue);
            for op in ops {
                queue.ops.push(op);
                queue.queued += 1;
            }
            queue.queued
        };
        let _writing = lock(&inner.writer);
        if lock(&inner.queue).written < ticket {
            inner.write();
        }
        match &lock(&inner.queue).failed {
            Some((from, to, message)) if (*from..=*to).contains(&ticket) => {
                Err(Error::new(Code::Unavailable, format!("the change could not be stored: {message}")))
            }
            _ => Ok(()),
        }
    }

    /// Writes a change soon. See the module for which ones may.
    pub fn later(&self, op: Op) {
        let mut queue = lock(&self.0.queue);
        queue.ops.push(op);
        queue.queued += 1;
        if !queue.lazy {
            queue.lazy = true;
            self.0.wake.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn write_lazily(&self) {
        let queue = lock(&self.queue);
        // A while, not for ever: the thread ends with the last handle.
        let (queue, _) = self
            .wake
            .wait_timeout_while(queue, Duration::from_secs(5), |queue| !queue.lazy)
            .unwrap_or_else(PoisonError::into_inner);
        if !queue.lazy {
            return;
        }
        drop(queue);
        thread::sleep(LATER);
        let _writing = lock(&self.writer);
        let waiting = {
            let mut queue = lock(&self.queue);
            queue.lazy = false;
            !queue.ops.is_empty()
        };
        if waiting {
            self.write();
        }
    }

    /// Writes all that is queued. The caller holds the writer's lock.
    fn write(&self) {
        let (ops, from, to) = {
            let mut queue = lock(&self.queue);
            (std::mem::take(&mut queue.ops), queue.written + 1, queue.queued)
        };
        let result = self.transact(&ops);
        let mut queue = lock(&self.queue);
        queue.written = to;
        if let Err(error) = result {
            tracing::error!(%error, "database commit failed");
            queue.failed = Some((from, to, error.to_string()));
        }
    }

    fn transact(&self, ops: &[Op]) -> Result<(), redb::Error> {
        let transaction = self.redb.begin_write()?;
        for table in [Table::Containers, Table::Volumes, Table::Networks, Table::Engine] {
            let mut ours = ops.iter().filter(|op| op.table == table).peekable();
            if ours.peek().is_none() {
                continue;
            }
            let mut open = transaction.open_table(table.definition())?;
            for op in ours {
                match &op.value {
                    Some(value) => open.insert(op.key.as_str(), value.as_slice())?,
                    None => open.remove(op.key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir) -> Database {
        Database::open(&dir.path().join("test.redb")).unwrap()
    }

    fn put(key: &str, value: u32) -> Op {
        Op::put(Table::Volumes, key, &value)
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        database.commit([put("a", 1), put("b", 2)]).unwrap();
        database.commit([Op::delete(Table::Volumes, "a")]).unwrap();
        drop(database);
        // The writing thread may hold the file for the rest of its wait.
        let values = (0..100)
            .find_map(|_| match Database::open(&dir.path().join("test.redb")) {
                Ok(database) => Some(database.all::<u32>(Table::Volumes).unwrap()),
                Err(_) => {
                    thread::sleep(Duration::from_millis(100));
                    None
                }
            })
            .unwrap();
        assert_eq!(values, [2]);
    }

    #[test]
    fn later_changes_keep_their_order_with_commits() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        database.later(put("a", 1));
        database.commit([put("a", 2)]).unwrap();
        assert_eq!(database.all::<u32>(Table::Volumes).unwrap(), [2]);
        database.later(put("a", 3));
        thread::sleep(LATER * 8);
        assert_eq!(database.all::<u32>(Table::Volumes).unwrap(), [3]);
    }

    #[test]
    fn parallel_commits_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        thread::scope(|scope| {
            for thread in 0..8 {
                let database = &database;
                scope.spawn(move || {
                    for at in 0..10 {
                        database.commit([put(&format!("{thread}-{at}"), at)]).unwrap();
                    }
                });
            }
        });
        assert_eq!(database.all::<u32>(Table::Volumes).unwrap().len(), 80);
    }
}
