//! From what the watcher reports to what the guest is told.

use std::sync::PoisonError;
use std::time::Duration;

use crate::abi::{notify_inode, notify_name};
use crate::coherence::Notice;
use crate::host::{Facts, Kind, S_IFDIR, S_IFREG, Seen, What};
use crate::nodes::{Node, Settled, stamp};
use crate::server::{Ghost, GhostKind, Server};

/// How long the second half of a move may lag behind the first.
const MOVE_LAG: Duration = Duration::from_millis(2);

/// The first half of a move.
struct Left {
    number: u32,
    parent: u64,
    name: Box<[u8]>,
    directory: bool,
}

impl Server {
    /// Reads what the watcher has seen and queues what the guest must be told. All that happened on the host before the
    /// call is queued when it returns.
    pub(crate) fn drain(&self) {
        let Some(watcher) = &self.coherence.watcher else { return };
        let _order = self.coherence.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Option<Left> = None;
        for attempt in 0..2 {
            let mut seen = Vec::new();
            if let Err(errno) = watcher.read(|one| seen.push(one)) {
                tracing::warn!(error = crate::host::words(errno), "watcher can't be read");
                seen.push(Seen::Overflow);
            }
            self.coherence.wait_for_names();
            for one in seen {
                self.sort(one, &mut left);
            }
            if left.is_none() || attempt == 1 {
                break;
            }
            watcher.wait(MOVE_LAG);
        }
        self.left_for_good(&mut left);
        if self.coherence.has_lost() {
            self.rescan();
        }
    }

    /// What left and did not come is gone.
    fn left_for_good(&self, left: &mut Option<Left>) {
        if let Some(Left { parent, name, directory, .. }) = left.take() {
            self.foreign_removal(parent, &name, directory);
        }
    }

    fn sort(&self, seen: Seen, left: &mut Option<Left>) {
        let (watch, what, name, directory) = match seen {
            Seen::Overflow => {
                self.left_for_good(left);
                return self.rescan();
            }
            Seen::Ended { watch } => return self.nodes.end_watch(watch),
            Seen::Entry { watch, what, name, directory } => (watch, what, name, directory),
        };
        let Some(parent) = self.nodes.watched(watch) else { return };
        let Some(name) = name else {
            return self.coherence.send(Notice::Kernel(notify_inode(parent.id)));
        };
        if !matches!(what, What::MovedTo(number) if left.as_ref().is_some_and(|left| left.number == number)) {
            self.left_for_good(left);
        }
        if !matches!(what, What::Content | What::Attributes | What::Closed)
            && self.coherence.seen_own(watch, what, &name)
        {
            return;
        }
        match what {
            What::Made => self.foreign_arrival(&parent, &name, directory),
            What::Removed => self.foreign_removal(parent.id, &name, directory),
            What::MovedFrom(number) => *left = Some(Left { number, parent: parent.id, name, directory }),
            What::MovedTo(_) => match left.take() {
                Some(from) => self.foreign_move(from, &parent, &name),
                None => self.foreign_arrival(&parent, &name, directory),
            },
            What::Content | What::Attributes | What::Closed => self.changed(&parent, &name, what),
        }
    }

    fn tell(&self, parent: u64, name: &[u8], kind: GhostKind) {
        self.coherence.send(Notice::Ghost(Ghost { parent, name: name.into(), kind }));
    }

    fn kernel(&self, notice: Vec<u8>) {
        self.coherence.send(Notice::Kernel(notice));
    }

    fn facts_of(&self, parent: &Node, name: &[u8]) -> Option<Facts> {
        self.nodes.object(parent).and_then(|above| above.child(name)?.facts()).ok()
    }

    fn foreign_arrival(&self, parent: &Node, name: &[u8], directory: bool) {
        // One that has gone again is told all the same: its end will be too.
        let kind = if directory { S_IFDIR | 0o755 } else { S_IFREG | 0o644 };
        let mode = self.facts_of(parent, name).map_or(kind, |facts| facts.attr.mode);
        self.coherence.arrives(parent.id, name);
        self.kernel(notify_name(parent.id, name));
        self.tell(parent.id, name, GhostKind::Made { mode });
        self.kernel(notify_inode(parent.id));
    }

    fn foreign_removal(&self, parent: u64, name: &[u8], directory: bool) {
        let kind = if directory { Kind::Directory } else { Kind::File };
        self.tell(parent, name, GhostKind::Removed { kind });
        self.kernel(notify_inode(parent));
    }

    fn foreign_move(&self, from: Left, parent: &Node, name: &[u8]) {
        let moved = self.nodes.named(from.parent, &from.name);
        if let (Some(moved), Some(there)) = (&moved, self.nodes.named(parent.id, name))
            && moved.id == there.id
        {
            // The guest has met it under its new name already.
            self.kernel(notify_name(parent.id, name));
        }
        let kind = if from.directory { Kind::Directory } else { Kind::File };
        self.coherence.arrives(parent.id, name);
        let to = GhostKind::Moved { parent: parent.id, name: name.into(), kind };
        self.tell(from.parent, &from.name, to);
        self.kernel(notify_inode(from.parent));
        if parent.id != from.parent {
            self.kernel(notify_inode(parent.id));
        }
    }

    fn changed(&self, parent: &Node, name: &[u8], what: What) {
        // In this order: a name that has not arrived any more is one that has a node.
        let arrived = self.coherence.has_arrived(parent.id, name);
        let node = self.nodes.named(parent.id, name);
        // Between a change of the guest's own and its stamp, nobody looks.
        let changes = node.as_ref().map(|node| node.changes());
        let Some(facts) = self.facts_of(parent, name) else {
            drop(changes);
            // It has gone on since. If others have done that, it is told next, and this before it.
            if node.is_some() || arrived {
                let known = node.and_then(|node| self.nodes.object(&node).ok()?.facts().ok());
                let (size, mode) =
                    known.map_or((0, 0o644), |facts| (facts.attr.size, facts.attr.mode & 0o7777));
                match what {
                    What::Content => self.tell(parent.id, name, GhostKind::Content { size }),
                    What::Attributes => self.tell(parent.id, name, GhostKind::Attributes { mode }),
                    _ => {}
                }
            }
            return;
        };
        let kind = facts.kind();
        if let (Some(node), Some(mut changes)) = (&node, changes)
            && node.ident == facts.ident
        {
            if what == What::Closed {
                if std::mem::take(&mut changes.modified) {
                    self.tell(parent.id, name, GhostKind::Closed);
                }
                return;
            }
            let now = Some(stamp(&facts.attr));
            let known = match changes.settled {
                Settled::Not => false,
                Settled::Own => changes.last == now && !changes.foreign,
                Settled::Told(told) => changes.last == now && !changes.foreign && told == what,
            };
            if known {
                return;
            }
            (changes.last, changes.settled, changes.foreign) = (now, Settled::Told(what), false);
            changes.modified |= what == What::Content;
            self.kernel(notify_inode(node.id));
        }
        match what {
            What::Closed if kind == Kind::File => self.tell(parent.id, name, GhostKind::Closed),
            What::Closed => {}
            What::Content if kind == Kind::File => {
                self.tell(parent.id, name, GhostKind::Content { size: facts.attr.size });
            }
            // Permissions of symlinks can't be set, not even to what they are.
            _ if kind != Kind::Symlink => {
                self.tell(parent.id, name, GhostKind::Attributes { mode: facts.attr.mode & 0o7777 });
            }
            _ => {}
        }
    }

    /// Reports were lost: whatever the guest knows is compared with what is.
    pub(crate) fn rescan(&self) {
        tracing::info!(
            count = self.nodes.count_all(),
            "watcher has lost reports: looking at everything that the guest knows"
        );
        self.coherence.expect_nothing();
        let mut names = self.nodes.all_names();
        for parent in self.nodes.all_watched() {
            self.kernel(notify_inode(parent.id));
            for (name, node) in names.remove(&parent.id).unwrap_or_default() {
                match self.facts_of(&parent, &name) {
                    None => self.foreign_removal(parent.id, &name, node.kind == Kind::Directory),
                    Some(facts) if facts.ident != node.ident => {
                        self.foreign_removal(parent.id, &name, node.kind == Kind::Directory);
                        self.foreign_arrival(&parent, &name, facts.kind() == Kind::Directory);
                    }
                    Some(facts) => {
                        let last = node.changes().last;
                        match last {
                            Some(last) if last != stamp(&facts.attr) => {
                                self.changed(&parent, &name, What::Content)
                            }
                            Some(_) => {}
                            // Of another daemon's time: whether it has changed, nobody knows.
                            None => self.kernel(notify_inode(node.id)),
                        }
                    }
                }
            }
            self.new_names(&parent);
        }
    }

    /// Names that are there and that the guest may believe not to be.
    fn new_names(&self, parent: &Node) {
        let how = crate::host::How { read: true, ..Default::default() };
        let listed = self.nodes.object(parent).and_then(|object| object.open(how)?.entries());
        for entry in listed.unwrap_or_default() {
            let own = matches!(&*entry.name, b"." | b"..");
            if !own && self.nodes.named(parent.id, &entry.name).is_none() {
                self.kernel(notify_name(parent.id, &entry.name));
            }
        }
    }
}
