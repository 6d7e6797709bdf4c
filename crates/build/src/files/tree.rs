//! A directory tree by its content: names and what they are, with the hashes of files.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::dockerfile::IgnoreMatcher;
use crate::error::{Error, Result};

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeKind {
    /// A regular file, whose contents are in the [`Store`](super::Store).
    File {
        size: u64,
        hash: String,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Char {
        device: (u32, u32),
    },
    Block {
        device: (u32, u32),
    },
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tree. Paths are relative, without a slash at either end; the root itself has no node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(Vec<u8>, Node)>", into = "Vec<(Vec<u8>, Node)>")]
pub(crate) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Reckoned once: a context of many files is asked for it by every source that is made of it.
    digest: Digest,
}

/// A digest that is kept once it was reckoned. It says nothing about whether trees are equal.
#[derive(Debug, Clone, Default)]
struct Digest(OnceLock<String>);

impl PartialEq for Digest {
    fn eq(&self, _: &Digest) -> bool {
        true
    }
}

impl Eq for Digest {}

impl From<Vec<(Vec<u8>, Node)>> for Tree {
    fn from(nodes: Vec<(Vec<u8>, Node)>) -> Tree {
        Tree { nodes: nodes.into_iter().collect(), digest: Digest::default() }
    }
}

impl From<Tree> for Vec<(Vec<u8>, Node)> {
    fn from(tree: Tree) -> Vec<(Vec<u8>, Node)> {
        tree.nodes.into_iter().collect()
    }
}

impl Tree {
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub fn insert(&mut self, path: Vec<u8>, node: Node) {
        self.digest = Digest::default();
        self.nodes.insert(path, node);
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The hashes of all files.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().filter_map(|node| match &node.kind {
            NodeKind::File { hash, .. } => Some(hash.as_str()),
            _ => None,
        })
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        let size = |node: &Node| match node.kind {
            NodeKind::File { size, .. } => size,
            _ => 0,
        };
        self.nodes.values().map(size).sum()
    }

    /// The tree without what patterns exclude.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn without(&self, patterns: &[String]) -> Result<Tree> {
        let matcher = IgnoreMatcher::new(patterns).map_err(|error| Error::invalid(error.to_string()))?;
        let mut left = Tree::default();
        for (path, node) in &self.nodes {
            if matcher.matches(&String::from_utf8_lossy(path)) {
                continue;
            }
            // What is not excluded brings the directories that it is in.
            for (at, _) in path.iter().enumerate().filter(|(_, c)| **c == b'/') {
                if let (None, Some(parent)) = (left.nodes.get(&path[..at]), self.nodes.get(&path[..at])) {
                    left.nodes.insert(path[..at].to_vec(), parent.clone());
                }
            }
            left.nodes.insert(path.clone(), node.clone());
        }
        Ok(left)
    }

    /// The names in a directory, in order.
    pub fn list(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut names = Vec::new();
        let mut from = Bound::Included(prefix.clone());
        while let Some((path, _)) = self.nodes.range((from, Bound::Unbounded)).next() {
            let Some(name) = path.strip_prefix(prefix.as_slice()) else { break };
            match name.iter().position(|c| *c == b'/') {
                None => {
                    if !name.is_empty() {
                        names.push(name.to_vec());
                    }
                    from = Bound::Excluded(path.clone());
                }
                // What is below a directory is skipped at once: the letter after the slash comes after all of it.
                Some(slash) => {
                    let mut after = prefix.clone();
                    after.extend_from_slice(&name[..slash]);
                    after.push(b'/' + 1);
                    from = Bound::Included(after);
                }
            }
        }
        names
    }

    /// The digest of everything but modification times.
    pub fn digest(&self) -> String {
        let reckon = || {
            let mut hasher = Sha256::new();
            for (path, node) in &self.nodes {
                hash_node(&mut hasher, path, node);
            }
            hex::encode(hasher.finalize())
        };
        self.digest.0.get_or_init(reckon).clone()
    }
}

/// Adds a node to a digest, whatever its times.
fn hash_node(hasher: &mut Sha256, path: &[u8], node: &Node) {
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(path);
    match &node.kind {
        NodeKind::File { hash, .. } => part(format!("f{hash}").as_bytes()),
        NodeKind::Directory => part(b"d"),
        NodeKind::Symlink { target } => {
            part(b"l");
            part(target);
        }
        NodeKind::Fifo => part(b"p"),
        NodeKind::Char { device } => part(format!("c{}:{}", device.0, device.1).as_bytes()),
        NodeKind::Block { device } => part(format!("b{}:{}", device.0, device.1).as_bytes()),
    }
    part(format!("{:o}:{}:{}", node.mode, node.uid, node.gid).as_bytes());
    for (key, value) in &node.xattrs {
        part(key);
        part(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(kind: NodeKind) -> Node {
        Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }

    #[test]
    fn times_do_not_change_the_digest_and_modes_do() {
        let mut tree = Tree::default();
        tree.insert(b"a".to_vec(), node(NodeKind::Directory));
        let mut later = tree.clone();
        later.insert(b"a".to_vec(), Node { mtime: (5, 6), ..node(NodeKind::Directory) });
        assert_eq!(tree.digest(), later.digest());
        later.insert(b"a".to_vec(), Node { mode: 0o755, ..node(NodeKind::Directory) });
        assert_ne!(tree.digest(), later.digest());
    }

    proptest! {
        #[test]
        fn a_directory_lists_exactly_what_is_in_it(paths in proptest::collection::btree_set("[a\\-0](/[a\\-0]){0,3}", 0..20)) {
            let mut tree = Tree::default();
            for path in &paths {
                tree.insert(path.as_bytes().to_vec(), node(NodeKind::Directory));
            }
            for directory in paths.iter().map(String::as_str).chain([""]) {
                let wanted: Vec<Vec<u8>> = paths
                    .iter()
                    .filter_map(|path| match directory {
                        "" => Some(path.as_str()),
                        _ => path.strip_prefix(directory)?.strip_prefix('/'),
                    })
                    .filter(|name| !name.contains('/'))
                    .map(|name| name.as_bytes().to_vec())
                    .collect();
                prop_assert_eq!(tree.list(directory.as_bytes()), wanted);
            }
        }
    }
}
