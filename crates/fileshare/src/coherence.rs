//! What keeps the guest's caches true: the watcher, which changes are the guest's own, and what is to be told.
//!
//! ```text
//!   guest's request ──► expect ──► system call ──► inotify ─┐
//!   host's programs ──────────────► system call ──► inotify ─┴► Server::drain ──► own? nothing
//!                                                                   └► notices, then a ghost operation ──► guest
//! ```
//!
//! A watch reports everything, the guest's own changes too. Those of names are told apart by what was expected before
//! the system call, those of content by the stamp after it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{Notify, oneshot};

use crate::host::{Object, Watcher, What};
use crate::server::{Ghost, GhostKind};

/// Most notices that wait to be told. Beyond it, the guest is told to forget everything.
const MOST_WAITING: usize = 262_144;

/// Something for the guest.
#[derive(Debug)]
pub enum Notice {
    /// A FUSE notification for its kernel.
    Kernel(Vec<u8>),
    /// A change for its programs to see.
    Ghost(Ghost),
    /// Somebody waits until all before has been told.
    Barrier(oneshot::Sender<()>),
}

type Expected = HashMap<(i32, What, Box<[u8]>), u32>;
type Arrived = HashMap<(u64, Box<[u8]>), u32>;

/// The state of watching and telling, of one mount.
#[derive(Debug)]
pub struct Coherence {
    /// Absent where the host has no watcher left: caches then expire by time.
    pub watcher: Option<Watcher>,
    expected: Mutex<Expected>,
    waiting: Mutex<VecDeque<Notice>>,
    more: Notify,
    /// Held while changes are read and sorted, so that they stay in order.
    pub reading: Mutex<()>,
    /// Held by the guest's requests that make, move or remove names, until the names are known.
    naming: RwLock<()>,
    /// Names that others have made and that the guest does not know yet: how often each has yet to be told.
    arrived: Mutex<Arrived>,
    lost: AtomicBool,
}

/// A move is expected without its number, which nobody knows before.
fn without_number(what: What) -> What {
    match what {
        What::MovedFrom(_) => What::MovedFrom(0),
        What::MovedTo(_) => What::MovedTo(0),
        other => other,
    }
}

impl Coherence {
    /// Begins to watch nothing.
    pub fn new() -> Coherence {
        let watcher = Watcher::new()
            .inspect_err(|errno| {
                tracing::warn!(error = crate::host::words(*errno), "host directories can't be watched")
            })
            .ok();
        Coherence {
            watcher,
            expected: Mutex::default(),
            waiting: Mutex::default(),
            more: Notify::new(),
            reading: Mutex::default(),
            naming: RwLock::default(),
            arrived: Mutex::default(),
            lost: AtomicBool::new(false),
        }
    }

    /// Watches a directory, if the host has a watch left.
    pub fn watch(&self, directory: &Object) -> Option<i32> {
        match self.watcher.as_ref()?.add(directory) {
            Ok(watch) => Some(watch),
            Err(errno) => {
                tracing::debug!(error = crate::host::words(errno), "directory is not watched");
                None
            }
        }
    }

    /// Watches a directory no longer.
    pub fn unwatch(&self, watch: i32) {
        if let Some(watcher) = &self.watcher {
            watcher.remove(watch);
        }
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects a report of a change that is about to be made.
    pub fn expect(&self, watch: i32, what: What, name: &[u8]) {
        *self.expected().entry((watch, without_number(what), name.into())).or_default() += 1;
    }

    /// Whether a report was expected; it is no longer afterwards.
    pub fn seen_own(&self, watch: i32, what: What, name: &[u8]) -> bool {
        let mut expected = self.expected();
        let key = (watch, without_number(what), name.into());
        let Some(count) = expected.get_mut(&key) else { return false };
        *count -= 1;
        if *count == 0 {
            expected.remove(&key);
        }
        true
    }

    /// Begins a change of names by the guest; it lasts as long as the guard.
    pub fn name(&self) -> RwLockReadGuard<'_, ()> {
        self.naming.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the names of all changes are known whose reports have been read.
    pub fn wait_for_names(&self) {
        drop(self.naming.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a name that somebody else has made, before it is queued.
    pub fn arrives(&self, parent: u64, name: &[u8]) {
        *self.arrived().entry((parent, name.into())).or_default() += 1;
    }

    /// Takes note that the guest has been told of a name that somebody else has made, and knows it.
    pub fn is_known(&self, parent: u64, name: &[u8]) {
        let mut arrived = self.arrived();
        let key = (parent, name.into());
        let Some(count) = arrived.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            arrived.remove(&key);
        }
    }

    /// Whether somebody else has made a name that the guest has not been told of yet.
    pub fn has_arrived(&self, parent: u64, name: &[u8]) -> bool {
        self.arrived().contains_key(&(parent, name.into()))
    }

    /// Forgets what was expected: reports were lost.
    pub fn expect_nothing(&self) {
        self.expected().clear();
        self.arrived().clear();
    }

    /// Queues a notice.
    pub fn send(&self, notice: Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let barrier = matches!(notice, Notice::Barrier(_));
        if waiting.len() >= MOST_WAITING && !barrier {
            self.lost.store(true, Ordering::Relaxed);
            return;
        }
        if let (Notice::Ghost(new), Some(Notice::Ghost(last))) = (&notice, waiting.back())
            && new == last
            && matches!(
                new.kind,
                GhostKind::Content { .. } | GhostKind::Attributes { .. } | GhostKind::Closed
            )
        {
            // As inotify itself merges equal neighbours.
            return;
        }
        waiting.push_back(notice);
        drop(waiting);
        self.more.notify_one();
    }

    /// Whether notices were lost since the last call.
    pub fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }

    /// Waits for the next notice.
    pub async fn next(&self) -> Notice {
        loop {
            if let Some(notice) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return notice;
            }
            self.more.notified().await;
        }
    }
}
