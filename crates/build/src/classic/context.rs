//! The context as an archive in the request's body.

use std::collections::HashSet;
use std::io::BufReader;
use std::sync::Arc;

use skiff_images::archive::{TarEntry, TarKind, read_entries};
use skiff_images::layer::LayerError;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::SyncIoBridge;

use crate::client::{ContextEntry, ContextSink as _, EntryKind, Wanted};
use crate::error::{Error, Result};
use crate::files::{Receiver, Tree};
use crate::solver::{Solver, blocking};

const BUFFER: usize = 256 << 10;

impl From<LayerError> for Error {
    fn from(error: LayerError) -> Error {
        Error::invalid(format!("Error processing tar file: {error}"))
    }
}

struct Receiving {
    receiver: Receiver,
    directories: HashSet<Vec<u8>>,
    number: u32,
    wanted: bool,
}

/// Receives the archive. A body that is a Dockerfile and no archive is a context of that file alone.
pub(super) async fn receive(
    solver: &Solver,
    key: &str,
    body: Box<dyn AsyncRead + Send + Unpin>,
) -> Result<Arc<Tree>> {
    let inner = Arc::clone(solver.inner());
    let key = key.to_owned();
    let bridge = SyncIoBridge::new(body.take(u64::MAX));
    blocking(move || {
        let receiver = Receiver::new(Arc::clone(&inner.files), inner.last_context(&key));
        let mut receiving = Receiving { receiver, directories: HashSet::new(), number: 0, wanted: false };
        let source = BufReader::with_capacity(BUFFER, bridge);
        read_entries(source, &mut receiving, Receiving::entry, Receiving::data)?;
        let tree = Arc::new(receiving.receiver.finish()?);
        inner.keep_context(&key, &tree, "context of a classic build".to_owned())?;
        Ok(tree)
    })
    .await
}

impl Receiving {
    fn entry(&mut self, entry: TarEntry) -> Result<()> {
        self.wanted = false;
        let outside = || Error::invalid(format!("path outside of the context: {}", entry.name()));
        let path = clean(&entry.path).ok_or_else(outside)?;
        if path.is_empty() {
            return Ok(());
        }
        self.parents(&path)?;
        let kind = match entry.kind {
            TarKind::File => EntryKind::File { size: entry.size },
            TarKind::Directory => EntryKind::Directory,
            TarKind::Symlink => EntryKind::Symlink { target: entry.link.clone() },
            TarKind::HardLink => EntryKind::HardLink { target: clean(&entry.link).ok_or_else(outside)? },
            TarKind::Char => EntryKind::Char { device: entry.device },
            TarKind::Block => EntryKind::Block { device: entry.device },
            TarKind::Fifo => EntryKind::Fifo,
        };
        if kind == EntryKind::Directory {
            self.directories.insert(path.clone());
        }
        self.number += 1;
        // Whose files they were on the client's machine says nothing here.
        let entry = ContextEntry {
            path,
            kind,
            mode: entry.mode,
            uid: 0,
            gid: 0,
            mtime: entry.mtime,
            xattrs: entry.xattrs,
        };
        // Times of archives are of seconds: a file may change within one.
        self.wanted = self.receiver.entry(self.number, entry, false)? == Wanted::Yes;
        Ok(())
    }

    /// Makes directories that the archive does not have.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        for (at, _) in path.iter().enumerate().filter(|(_, c)| **c == b'/') {
            if !self.directories.insert(path[..at].to_vec()) {
                continue;
            }
            self.number += 1;
            let entry = ContextEntry {
                path: path[..at].to_vec(),
                kind: EntryKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
                xattrs: Vec::new(),
            };
            self.receiver.entry(self.number, entry, false)?;
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        match (self.wanted, bytes.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => self.receiver.end(self.number),
            (true, false) => self.receiver.data(self.number, bytes),
        }
    }
}

/// A path without `.`, `..` and slashes at its ends; `None` for one that leads out.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}
