//! The nodes on the host's disk, so that a daemon that was killed knows what its guest still has.
//!
//! Each record is one write(2) behind the last: a process that dies leaves a whole file or half a record at its end, which
//! is not read. It need not survive the host's own end, which is the guest's too. The last record of a node counts.
//!
//! ```text
//! 0       1      9        17       25      33     34       36
//! ┌──────┬──────┬────────┬────────┬───────┬──────┬────────┬──────┐
//! │ what │ node │ parent │ device │ inode │ kind │ length │ name │   numbers are little-endian
//! └──────┴──────┴────────┴────────┴───────┴──────┴────────┴──────┘
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::host::{Ident, Kind};

const HEAD: usize = 36;
const KNOWN: u8 = 1;
const GONE: u8 = 2;
/// Records beyond four for each node that lives make the file worth writing anew.
const SLACK: usize = 10_000;

/// A node as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub id: u64,
    /// Its directory.
    pub parent: u64,
    /// Its object on the host.
    pub ident: Ident,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Box<[u8]>,
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
        Kind::Other => 3,
    }
}

impl Record {
    fn encode(&self, what: u8) -> Vec<u8> {
        let mut bytes = vec![what];
        for number in [self.id, self.parent, self.ident.0, self.ident.1] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(code(self.kind));
        bytes.extend((self.name.len() as u16).to_le_bytes());
        bytes.extend(&*self.name);
        bytes
    }

    /// Reads the record that `bytes` begins with; also what it says and how long it is.
    fn decode(bytes: &[u8]) -> Option<(u8, Record, usize)> {
        let head = bytes.get(..HEAD)?;
        let number =
            |at: usize| head[at..at + 8].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let kind = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Other]
            .into_iter()
            .find(|kind| code(*kind) == head[33])?;
        let length = usize::from(u16::from_le_bytes([head[34], head[35]]));
        let name = bytes.get(HEAD..HEAD + length)?.into();
        let record = Record { id: number(1), parent: number(9), ident: (number(17), number(25)), kind, name };
        Some((head[0], record, HEAD + length))
    }
}

/// Reads what a file says; a file that is not there says nothing.
pub fn load(path: &Path) -> Vec<Record> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut rest = &bytes[..];
    let mut nodes: HashMap<u64, Record> = HashMap::new();
    while let Some((what, record, length)) = Record::decode(rest) {
        match what {
            KNOWN => drop(nodes.insert(record.id, record)),
            GONE => drop(nodes.remove(&record.id)),
            _ => break,
        }
        rest = &rest[length..];
    }
    nodes.into_values().collect()
}

/// The file of one mount.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    records: usize,
}

impl Journal {
    /// Begins the file anew, with these nodes.
    pub fn begin<'a>(path: &Path, nodes: impl Iterator<Item = &'a Record>) -> Journal {
        let mut journal = Journal { path: path.to_owned(), file: None, records: 0 };
        if let Err(error) = journal.write_anew(nodes) {
            tracing::warn!(%error, path = %path.display(), "a killed daemon would not find its guest's files again");
        }
        journal
    }

    fn write_anew<'a>(&mut self, nodes: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        let mut bytes = Vec::new();
        self.records = 0;
        for record in nodes {
            bytes.extend(record.encode(KNOWN));
            self.records += 1;
        }
        file.write_all(&bytes)?;
        std::fs::rename(&new, &self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes down that a node is known, or has another place.
    pub fn known(&mut self, record: &Record) {
        self.append(&record.encode(KNOWN));
    }

    /// Writes down that a node is forgotten.
    pub fn gone(&mut self, record: &Record) {
        self.append(&Record { name: Box::default(), ..record.clone() }.encode(GONE));
    }

    fn append(&mut self, bytes: &[u8]) {
        self.records += 1;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            tracing::warn!(%error, path = %self.path.display(), "a killed daemon would not find its guest's files again");
            self.file = None;
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether most of the file is of the past, for this many nodes that live.
    pub fn is_stale(&self, living: usize) -> bool {
        self.records > 4 * living + SLACK
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(id: u64, name: &str) -> Record {
        Record { id, parent: 1, ident: (7, 1000 + id), kind: Kind::Directory, name: name.as_bytes().into() }
    }

    #[test]
    fn the_last_word_counts_and_half_a_record_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes");
        assert_eq!(load(&path), []);
        let mut journal = Journal::begin(&path, [record(2, "two")].iter());
        journal.known(&record(3, "three"));
        journal.known(&record(4, "four"));
        journal.known(&record(3, "drei"));
        journal.gone(&record(2, "two"));
        let sorted = || {
            let mut nodes = load(&path);
            nodes.sort_by_key(|node| node.id);
            nodes
        };
        assert_eq!(sorted(), [record(3, "drei"), record(4, "four")]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes[..], &record(5, "five").encode(KNOWN)[..20]].concat()).unwrap();
        assert_eq!(sorted(), [record(3, "drei"), record(4, "four")]);
        assert!(!journal.is_stale(2) && Journal { records: 99_999, ..journal }.is_stale(2));
    }

    proptest! {
        #[test]
        fn any_file_is_read_as_far_as_it_makes_sense(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("nodes"), &bytes).unwrap();
            prop_assert!(load(&directory.path().join("nodes")).len() <= bytes.len() / HEAD);
        }
    }
}
