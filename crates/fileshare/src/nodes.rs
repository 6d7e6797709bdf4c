//! The nodes: objects that the guest's kernel knows by number.
//!
//! A node is made by the first lookup of an object and ends when the kernel has forgotten every lookup of it. Names of
//! one object (hard links) share a node, so that the guest has one page cache for it. A node's descriptor may be closed
//! when there are too many; it is opened again by the node's last known name, if that still leads to the same object.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abi::{Attr, ROOT};
use crate::errno::{Errno, Result};
use crate::host::{Facts, Ident, Kind, Object, S_IFDIR, S_IFMT, What};
use crate::journal::{self, Journal, Record};

/// Most nodes that a guest may have.
const MOST_NODES: usize = 1 << 20;

/// Seconds for which the kernel may remember what a watcher will tell changes of.
pub const LONG: u64 = 86_400;
/// Seconds for which it may remember what nobody watches.
pub const SHORT: u64 = 1;

/// What changes with every change of a file.
pub type Stamp = (u64, (i64, u32), (i64, u32));

/// The stamp of some attributes. The times of a directory change with its entries, which have reports of their own.
pub fn stamp(attr: &Attr) -> Stamp {
    match attr.mode & S_IFMT {
        S_IFDIR => (u64::from(attr.mode), (0, 0), (0, 0)),
        _ => (attr.size, attr.mtime, attr.ctime),
    }
}

/// An object that the guest knows.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Its identity on the host.
    pub ident: Ident,
    /// What it is.
    pub kind: Kind,
    state: Mutex<State>,
    /// Held while a change of the guest's is made, so that the watcher can tell it from others.
    changing: Mutex<Changes>,
}

#[derive(Debug)]
struct State {
    object: Option<Arc<Object>>,
    parent: u64,
    name: Box<[u8]>,
    watch: Option<i32>,
    /// Its descriptor stays: no name leads to it any more, and the guest may have it open.
    kept: bool,
}

/// How the guest knows of a change.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It doesn't.
    #[default]
    Not,
    /// It has made the change itself.
    Own,
    /// It was told of the change, as this last. Another kind of change may have been made before anybody looked, with a
    /// report of its own.
    Told(What),
}

/// What is known about changes of a node; see `coherence`.
#[derive(Debug, Default)]
pub struct Changes {
    /// The newest stamp that was seen.
    pub last: Option<Stamp>,
    /// Whether the guest knows of that change.
    pub settled: Settled,
    /// Somebody else has changed the file just before the guest did.
    pub foreign: bool,
    /// A foreign change of content was told, and the file was not closed since.
    pub modified: bool,
}

impl Node {
    fn new(id: u64, ident: Ident, kind: Kind, object: Option<Object>, parent: u64, name: &[u8]) -> Arc<Node> {
        let state =
            State { object: object.map(Arc::new), parent, name: name.into(), watch: None, kept: false };
        Arc::new(Node { id, ident, kind, state: Mutex::new(state), changing: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its parent's number and its name, as last known.
    pub fn place(&self) -> (u64, Box<[u8]>) {
        let state = self.state();
        (state.parent, state.name.clone())
    }

    /// The watch on a directory.
    pub fn watch(&self) -> Option<i32> {
        self.state().watch
    }

    /// Takes note of the watch on a directory.
    pub fn set_watch(&self, watch: Option<i32>) {
        self.state().watch = watch;
    }

    fn record(&self) -> Record {
        let (parent, name) = self.place();
        Record { id: self.id, parent, ident: self.ident, kind: self.kind, name }
    }

    /// Locks what is known about its changes.
    pub fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    lookups: u64,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<u64, Entry>,
    by_ident: HashMap<Ident, u64>,
    by_name: HashMap<(u64, Box<[u8]>), u64>,
    by_watch: HashMap<i32, u64>,
    /// Nodes with a descriptor, oldest first.
    opened: VecDeque<u64>,
    /// How many of them keep it.
    kept: usize,
    next: u64,
    journal: Option<Journal>,
}

/// A name in a directory, and what it leads to.
pub type Named = (Box<[u8]>, Arc<Node>);

/// All nodes of one mount.
#[derive(Debug)]
pub struct Nodes {
    table: Mutex<Table>,
    most_open: usize,
}

impl Nodes {
    /// Begins with the root; `most_open` is how many descriptors nodes may hold.
    pub fn new(root: Object, most_open: usize) -> Result<Nodes> {
        let facts = root.facts()?;
        let node = Node::new(ROOT, facts.ident, facts.kind(), Some(root), ROOT, b"");
        let mut table = Table { next: ROOT + 1, ..Table::default() };
        table.by_ident.insert(facts.ident, ROOT);
        table.by_id.insert(ROOT, Entry { node, lookups: 1 });
        Ok(Nodes { table: Mutex::new(table), most_open: most_open.max(16) })
    }

    /// Takes over what the last server of the same mount has written down, if it is to be taken over, and writes down what
    /// follows.
    pub fn remember(&self, path: &std::path::Path, mount: crate::session::Mount) {
        let mut table = self.table();
        let known = match mount {
            crate::session::Mount::New => Vec::new(),
            crate::session::Mount::Again => journal::load(path),
        };
        for Record { id, parent, ident, kind, name } in known {
            if id == ROOT || table.by_id.len() >= MOST_NODES {
                continue;
            }
            table.next = table.next.max(id + 1);
            table.by_ident.insert(ident, id);
            table.by_name.insert((parent, name.clone()), id);
            let node = Node::new(id, ident, kind, None, parent, &name);
            // The kernel takes all its lookups back at once, those that the last server has counted too.
            table.by_id.insert(id, Entry { node, lookups: 0 });
        }
        table.write_anew(path);
    }

    /// Every directory.
    pub fn directories(&self) -> Vec<Arc<Node>> {
        let table = self.table();
        let all = table.by_id.values().filter(|entry| entry.node.kind == Kind::Directory);
        all.map(|entry| Arc::clone(&entry.node)).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node with a number; one that was never given out is refused.
    pub fn get(&self, id: u64) -> Result<Arc<Node>> {
        self.table().by_id.get(&id).map(|entry| Arc::clone(&entry.node)).ok_or(Errno::STALE)
    }

    /// A directory's node.
    pub fn directory(&self, id: u64) -> Result<Arc<Node>> {
        let node = self.get(id)?;
        if node.kind == Kind::Directory { Ok(node) } else { Err(Errno::NOTDIR) }
    }

    /// The node that a name led to when the guest looked last.
    pub fn named(&self, parent: u64, name: &[u8]) -> Option<Arc<Node>> {
        let table = self.table();
        let id = table.by_name.get(&(parent, name.into()))?;
        table.by_id.get(id).map(|entry| Arc::clone(&entry.node))
    }

    /// The directory of a watch.
    pub fn watched(&self, watch: i32) -> Option<Arc<Node>> {
        let table = self.table();
        let id = table.by_watch.get(&watch)?;
        table.by_id.get(id).map(|entry| Arc::clone(&entry.node))
    }

    /// Takes note of a directory's watch.
    pub fn set_watch(&self, node: &Node, watch: i32) {
        self.table().by_watch.insert(watch, node.id);
        node.set_watch(Some(watch));
    }

    /// Forgets a watch that has ended.
    pub fn end_watch(&self, watch: i32) {
        let node = self.watched(watch);
        self.table().by_watch.remove(&watch);
        if let Some(node) = node.filter(|node| node.watch() == Some(watch)) {
            node.set_watch(None);
        }
    }

    /// Every directory that is watched.
    pub fn all_watched(&self) -> Vec<Arc<Node>> {
        let table = self.table();
        table
            .by_watch
            .values()
            .filter_map(|id| table.by_id.get(id))
            .map(|entry| Arc::clone(&entry.node))
            .collect()
    }

    /// The names that the guest has looked up and what they led to, by directory.
    pub fn all_names(&self) -> HashMap<u64, Vec<Named>> {
        let table = self.table();
        let mut all: HashMap<u64, Vec<Named>> = HashMap::new();
        for ((parent, name), id) in &table.by_name {
            if let Some(entry) = table.by_id.get(id) {
                all.entry(*parent).or_default().push((name.clone(), Arc::clone(&entry.node)));
            }
        }
        all
    }

    /// Counts a lookup of `object`, whose facts are `facts`, as `name` in `parent`. The flag says whether the node is new.
    pub fn enter(
        &self,
        parent: u64,
        name: &[u8],
        object: Object,
        facts: &Facts,
    ) -> Result<(Arc<Node>, bool)> {
        let mut table = self.table();
        if let Some(id) = table.by_ident.get(&facts.ident).copied()
            && let Some(entry) = table.by_id.get_mut(&id)
            && entry.node.kind == facts.kind()
        {
            entry.lookups += 1;
            let node = Arc::clone(&entry.node);
            if id != ROOT {
                let mut state = node.state();
                let moved = state.parent != parent || *state.name != *name;
                (state.parent, state.name) = (parent, name.into());
                if state.object.is_none() {
                    state.object = Some(Arc::new(object));
                    table.opened.push_back(id);
                }
                drop(state);
                table.by_name.insert((parent, name.into()), id);
                if moved {
                    table.note(&node);
                }
            }
            return Ok((node, false));
        }
        let node = table.insert(facts.ident, facts.kind(), Some(object), parent, name)?;
        // An inode number that was used again: the old node keeps its number, and finds its object gone.
        table.by_ident.insert(facts.ident, node.id);
        table.opened.push_back(node.id);
        self.close_oldest(&mut table);
        Ok((node, true))
    }

    /// A node for something that is there no more, for the guest to see it go.
    pub fn phantom(&self, parent: u64, name: &[u8], kind: Kind) -> Result<Arc<Node>> {
        let mut table = self.table();
        let ident = (u64::MAX, table.next);
        table.insert(ident, kind, None, parent, name)
    }

    /// Counts one more lookup of a node.
    pub fn count(&self, node: &Node) {
        if let Some(entry) = self.table().by_id.get_mut(&node.id) {
            entry.lookups += 1;
        }
    }

    fn close_oldest(&self, table: &mut Table) {
        while table.opened.len() > self.most_open {
            let Some(id) = table.opened.pop_front() else { return };
            let Some(entry) = table.by_id.get(&id) else { continue };
            let mut state = entry.node.state();
            if state.kept {
                // They are at most half of all: the loop ends.
                drop(state);
                table.opened.push_back(id);
            } else {
                state.object = None;
            }
        }
    }

    /// Takes lookups back; a directory that is forgotten with it leaves its watch to be removed.
    pub fn forget(&self, id: u64, lookups: u64) -> Option<i32> {
        if id == ROOT {
            return None;
        }
        let mut table = self.table();
        let entry = table.by_id.get_mut(&id)?;
        entry.lookups = entry.lookups.saturating_sub(lookups);
        if entry.lookups > 0 {
            return None;
        }
        let node = table.by_id.remove(&id)?.node;
        if table.by_ident.get(&node.ident) == Some(&id) {
            table.by_ident.remove(&node.ident);
        }
        let (place, watch) = (node.place(), node.watch());
        let table = &mut *table;
        if node.state().kept {
            table.kept -= 1;
        }
        if let Some(journal) = &mut table.journal {
            journal.gone(&node.record());
            if journal.is_stale(table.by_id.len()) {
                let path = journal.path().to_owned();
                table.write_anew(&path);
            }
        }
        if table.by_name.get(&place) == Some(&id) {
            table.by_name.remove(&place);
        }
        if let Some(watch) = watch {
            table.by_watch.remove(&watch);
        }
        // Numbers of forgotten nodes are few compared with what is open; they are swept when they are not.
        if table.opened.len() > 2 * table.by_id.len() + 64 {
            let Table { opened, by_id, .. } = &mut *table;
            opened.retain(|id| by_id.contains_key(id));
        }
        watch
    }

    /// Takes note that a name is gone.
    pub fn removed(&self, parent: u64, name: &[u8]) {
        let mut table = self.table();
        if let Some(id) = table.by_name.remove(&(parent, name.into())) {
            table.keep(id, self.most_open / 2);
        }
    }

    /// Takes note that a name has become another.
    pub fn moved(&self, from: (u64, &[u8]), to: (u64, &[u8]), exchange: bool) {
        let mut table = self.table();
        let (old, new) = ((from.0, Box::from(from.1)), (to.0, Box::from(to.1)));
        let there = table.by_name.remove(&new);
        if let Some(id) = table.by_name.remove(&old) {
            table.place(id, &new);
        }
        match there {
            Some(id) if exchange => table.place(id, &old),
            Some(id) => table.keep(id, self.most_open / 2),
            None => {}
        }
    }

    /// The object behind a node, opened anew if need be.
    pub fn object(&self, node: &Node) -> Result<Arc<Object>> {
        self.object_within(node, 0)
    }

    fn object_within(&self, node: &Node, depth: usize) -> Result<Arc<Object>> {
        // PATH_MAX over the shortest component.
        const DEEPEST: usize = 2048;
        if let Some(object) = &node.state().object {
            return Ok(Arc::clone(object));
        }
        if depth > DEEPEST {
            return Err(Errno::LOOP);
        }
        let (parent, name) = node.place();
        let above = self.get(parent).and_then(|parent| self.object_within(&parent, depth + 1))?;
        let object = above.child(&name).map_err(|_| Errno::STALE)?;
        if object.facts()?.ident != node.ident {
            return Err(Errno::STALE);
        }
        let object = Arc::new(object);
        let mut table = self.table();
        node.state().object = Some(Arc::clone(&object));
        table.opened.push_back(node.id);
        self.close_oldest(&mut table);
        Ok(object)
    }

    /// The path of a name below the root, as the guest knows it.
    pub fn path(&self, parent: u64, name: &[u8]) -> Option<Vec<u8>> {
        let table = self.table();
        let mut parts: Vec<Box<[u8]>> = vec![name.into()];
        let mut id = parent;
        while id != ROOT {
            let (above, name) = table.by_id.get(&id)?.node.place();
            parts.push(name);
            id = above;
            if parts.len() > 2048 {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// How many nodes there are.
    pub fn count_all(&self) -> usize {
        self.table().by_id.len()
    }
}

impl Table {
    /// Lets a node without a name keep its descriptor, if no more than `most` do.
    fn keep(&mut self, id: u64, most: usize) {
        let Some(entry) = self.by_id.get(&id).filter(|entry| entry.node.kind == Kind::File) else { return };
        let mut state = entry.node.state();
        if self.kept < most && state.object.is_some() && !state.kept {
            state.kept = true;
            self.kept += 1;
        }
    }

    fn insert(
        &mut self,
        ident: Ident,
        kind: Kind,
        object: Option<Object>,
        parent: u64,
        name: &[u8],
    ) -> Result<Arc<Node>> {
        if self.by_id.len() >= MOST_NODES {
            return Err(Errno::NFILE);
        }
        let id = self.next;
        self.next += 1;
        let node = Node::new(id, ident, kind, object, parent, name);
        self.by_name.insert((parent, name.into()), id);
        self.by_id.insert(id, Entry { node: Arc::clone(&node), lookups: 1 });
        self.note(&node);
        Ok(node)
    }

    fn note(&mut self, node: &Node) {
        if let Some(journal) = &mut self.journal {
            journal.known(&node.record());
        }
    }

    fn write_anew(&mut self, path: &std::path::Path) {
        let nodes: Vec<Record> = self
            .by_id
            .values()
            .filter(|entry| entry.node.id != ROOT)
            .map(|entry| entry.node.record())
            .collect();
        self.journal = Some(Journal::begin(path, nodes.iter()));
    }

    fn place(&mut self, id: u64, place: &(u64, Box<[u8]>)) {
        self.by_name.insert(place.clone(), id);
        if let Some(node) = self.by_id.get(&id).map(|entry| Arc::clone(&entry.node)) {
            {
                let mut state = node.state();
                (state.parent, state.name) = place.clone();
            }
            self.note(&node);
        }
    }
}
