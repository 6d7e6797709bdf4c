//! Open directories, and files that the guest has made, by the number that it has for each. Other files it opens by
//! itself: see `opened`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::errno::{Errno, Result};
use crate::host::{DirEntry, File};

/// Most files that a guest may have open.
const MOST_OPEN: usize = 65_536;

/// Something open.
#[derive(Debug)]
pub struct Handle {
    /// The node that was opened.
    pub node: u64,
    /// The file.
    pub file: Arc<File>,
    /// Whether it was opened for writing.
    pub writes: bool,
    /// What a directory held when it was read from its beginning.
    pub entries: Mutex<Option<Arc<Vec<DirEntry>>>>,
}

/// All that is open.
#[derive(Debug)]
pub struct Handles {
    open: Mutex<(HashMap<u64, Arc<Handle>>, u64)>,
}

impl Default for Handles {
    fn default() -> Handles {
        // Zero is what an ignorant kernel would send.
        Handles { open: Mutex::new((HashMap::new(), 1)) }
    }
}

impl Handles {
    /// Takes an open file and gives its number.
    pub fn insert(&self, node: u64, file: File, writes: bool) -> Result<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.0.len() >= MOST_OPEN {
            return Err(Errno::NFILE);
        }
        let number = open.1;
        open.1 += 1;
        open.0.insert(
            number,
            Arc::new(Handle { node, file: Arc::new(file), writes, entries: Mutex::default() }),
        );
        Ok(number)
    }

    /// The handle with a number, if it was given out for this node.
    pub fn get(&self, number: u64, node: u64) -> Result<Arc<Handle>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0.get(&number).filter(|handle| handle.node == node).map(Arc::clone).ok_or(Errno::BADF)
    }

    /// Any handle of a node: an unlinked file is known by nothing else.
    pub fn of_node(&self, node: u64) -> Option<Arc<Handle>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0.values().find(|handle| handle.node == node).map(Arc::clone)
    }

    /// Closes a handle.
    pub fn remove(&self, number: u64, node: u64) -> Option<Arc<Handle>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.0.get(&number)?.node == node { open.0.remove(&number) } else { None }
    }
}
