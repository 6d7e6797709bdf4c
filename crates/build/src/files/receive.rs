//! Receives a context: checks what is announced and stores what is new.

use std::collections::HashMap;
use std::sync::Arc;

use super::store::{Incoming, Store};
use super::tree::{Node, NodeKind, Tree};
use crate::client::{ContextEntry, ContextSink, EntryKind, Wanted};
use crate::error::{Error, Result};

const MOST_ENTRIES: usize = 4_000_000;
const LONGEST_PATH: usize = 4096;
/// Files that a sender may have begun and not ended.
const MOST_OPEN: usize = 4096;

/// Receives one transfer. A file whose data was wanted is part of the tree once it has ended.
pub(crate) struct Receiver {
    store: Arc<Store>,
    previous: Arc<Tree>,
    tree: Tree,
    open: HashMap<u32, (Vec<u8>, Node, Option<Incoming>)>,
    /// Hard links, made once their targets are complete.
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Receiver {
    /// Begins; `previous` is what the same client sent before.
    pub fn new(store: Arc<Store>, previous: Arc<Tree>) -> Receiver {
        Receiver { store, previous, tree: Tree::default(), open: HashMap::new(), links: Vec::new() }
    }

    /// Ends the transfer.
    pub fn finish(mut self) -> Result<Tree> {
        if let Some((path, ..)) = self.open.values().next() {
            return Err(Error::unavailable(format!("context ended inside of {}", text(path))));
        }
        for (path, target) in self.links {
            match self.tree.get(&target) {
                Some(node @ Node { kind: NodeKind::File { .. }, .. }) => {
                    let node = node.clone();
                    self.tree.insert(path, node);
                }
                _ => {
                    let (path, target) = (text(&path), text(&target));
                    return Err(Error::invalid(format!("{path} is a link to {target}, which was not sent")));
                }
            }
        }
        Ok(self.tree)
    }
}

impl ContextSink for Receiver {
    fn entry(&mut self, id: u32, entry: ContextEntry, trust_times: bool) -> Result<Wanted> {
        let ContextEntry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
        let wrong = |reason: &str| Error::invalid(format!("invalid path {}: {reason}", text(&path)));
        if path.is_empty() || path.len() > LONGEST_PATH || path.contains(&0) {
            return Err(wrong("not a path of a file"));
        }
        if path.split(|c| *c == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
            return Err(wrong("not clean"));
        }
        if let Some(slash) = path.iter().rposition(|c| *c == b'/')
            && !matches!(self.tree.get(&path[..slash]), Some(Node { kind: NodeKind::Directory, .. }))
        {
            return Err(wrong("its directory was not sent"));
        }
        if self.tree.len() + self.open.len() >= MOST_ENTRIES {
            return Err(Error::invalid("context has too many files"));
        }
        let node = |kind| Node { kind, mode: mode & 0o7777, uid, gid, mtime, xattrs: xattrs.clone() };
        let kind = match kind {
            EntryKind::File { size } => {
                let new = node(NodeKind::File { size, hash: String::new() });
                if trust_times
                    && let Some(old @ Node { kind: NodeKind::File { size: had, hash }, .. }) =
                        self.previous.get(&path)
                    && (*had, old.mtime, old.mode, old.uid, old.gid) == (size, mtime, new.mode, uid, gid)
                    && self.store.has(hash, size)
                {
                    let old = old.clone();
                    self.tree.insert(path, old);
                    return Ok(Wanted::No);
                }
                if self.open.len() >= MOST_OPEN && !trust_times {
                    return Err(Error::invalid("too many files are sent at once"));
                }
                if self.open.contains_key(&id) {
                    return Err(Error::invalid(format!("number {id} was announced twice")));
                }
                self.open.insert(id, (path, new, None));
                return Ok(Wanted::Yes);
            }
            EntryKind::HardLink { target } => {
                self.links.push((path, target));
                return Ok(Wanted::No);
            }
            EntryKind::Directory => NodeKind::Directory,
            EntryKind::Symlink { target } => {
                if target.is_empty() || target.len() > LONGEST_PATH || target.contains(&0) {
                    return Err(wrong("invalid link target"));
                }
                NodeKind::Symlink { target }
            }
            EntryKind::Fifo => NodeKind::Fifo,
            EntryKind::Char { device } => NodeKind::Char { device },
            EntryKind::Block { device } => NodeKind::Block { device },
        };
        let node = node(kind);
        self.tree.insert(path, node);
        Ok(Wanted::No)
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> Result<()> {
        let (_, _, incoming) = self.open.get_mut(&id).ok_or_else(|| unknown(id))?;
        let incoming = incoming.get_or_insert_with(|| self.store.begin());
        self.store.write(incoming, bytes)
    }

    fn end(&mut self, id: u32) -> Result<()> {
        let (path, mut node, incoming) = self.open.remove(&id).ok_or_else(|| unknown(id))?;
        let incoming = incoming.unwrap_or_else(|| self.store.begin());
        let (size, hash) = self.store.finish(incoming)?;
        node.kind = NodeKind::File { size, hash };
        self.tree.insert(path, node);
        Ok(())
    }
}

fn unknown(id: u32) -> Error {
    Error::invalid(format!("data for number {id}, which was not asked for"))
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
