//! Files that are open because the guest reads or writes them just now.
//!
//! The guest's kernel opens and closes files by itself (a server that answers OPEN with `ENOSYS` is never asked again,
//! `FUSE_NO_OPEN_SUPPORT` in include/uapi/linux/fuse.h), so what is in its caches is opened, read and closed without a
//! message. What it does read or write comes with the node's number alone; the host's file is opened for it, and stays
//! open for as long as more comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::errno::Result;
use crate::host::File;

/// Most files that are kept open.
const MOST: usize = 128;
/// How long a file stays open after its last use. As long as it is open for writing the host can't execute it, and nobody
/// on the host is told that its writer has closed it.
const IDLE: Duration = Duration::from_millis(10);

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum For {
    /// To be read.
    Reading,
    /// To be written.
    Writing,
}

#[derive(Debug)]
struct Used {
    file: Arc<File>,
    last: Instant,
}

/// The files, by node.
#[derive(Debug, Default)]
pub struct Opened {
    files: Mutex<HashMap<(u64, For), Used>>,
    more: Notify,
}

impl Opened {
    fn files(&self) -> MutexGuard<'_, HashMap<(u64, For), Used>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's file if it is open.
    pub fn get(&self, node: u64, what: For) -> Option<Arc<File>> {
        let mut files = self.files();
        let used = files.get_mut(&(node, what))?;
        used.last = Instant::now();
        Some(Arc::clone(&used.file))
    }

    /// A node's file, opened by `open` if it is not.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn get_or_open(
        &self,
        node: u64,
        what: For,
        open: impl FnOnce() -> Result<File>,
    ) -> Result<Arc<File>> {
        if let Some(file) = self.get(node, what) {
            return Ok(file);
        }
        // Two that open it at once both have a file; one of them is kept.
        let file = Arc::new(open()?);
        let mut files = self.files();
        if files.len() >= MOST
            && let Some(oldest) = files.iter().min_by_key(|(_, used)| used.last).map(|(key, _)| *key)
        {
            files.remove(&oldest);
        }
        files.insert((node, what), Used { file: Arc::clone(&file), last: Instant::now() });
        drop(files);
        self.more.notify_one();
        Ok(file)
    }

    /// Closes a node's files: it is forgotten.
    pub fn forget(&self, node: u64) {
        let mut files = self.files();
        if !files.is_empty() {
            files.remove(&(node, For::Reading));
            files.remove(&(node, For::Writing));
        }
    }

    /// Closes what is not used any more, for as long as it is polled.
    pub async fn close_idle(&self) {
        loop {
            if self.files().is_empty() {
                self.more.notified().await;
            }
            tokio::time::sleep(IDLE).await;
            self.files().retain(|_, used| used.last.elapsed() < IDLE);
        }
    }
}
