//! Takes an archive apart into plain files in the staging directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::archive_limits;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{Compression, Decoder, Kind, LayerError, Limits, TarReader};
use crate::store::Layout;

const LINK_HOPS: usize = 8;
const BUFFER: usize = 256 << 10;

/// The files of an archive; dropped, they are gone.
pub(super) struct Spool {
    /// Keeps the directory until all images are loaded.
    _directory: crate::store::StagedPath,
    files: HashMap<String, Spooled>,
}

enum Spooled {
    File { path: PathBuf, size: u64 },
    Link { to: String },
}

impl Spool {
    /// Finds a file by its name in the archive, through links.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|(path, _)| path)
    }

    /// Reads a small file.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let (path, size) = self
            .find(name)
            .ok_or_else(|| Error::Archive { reason: format!("invalid archive: \"{name}\" is missing") })?;
        if size > limit {
            return Err(Error::Archive { reason: format!("invalid archive: \"{name}\" is too large") });
        }
        std::fs::read(path).map_err(|e| Error::io("read", path, e))
    }

    fn find(&self, name: &str) -> Option<(&Path, u64)> {
        let mut name = clean(name)?;
        for _ in 0..LINK_HOPS {
            match self.files.get(&name)? {
                Spooled::File { path, size } => return Some((path, *size)),
                Spooled::Link { to } => name.clone_from(to),
            }
        }
        None
    }
}

/// Reads a whole archive; only regular files and links matter.
pub(super) fn spool(layout: &Layout, limits: Limits, source: impl BufRead) -> Result<Spool, Error> {
    let limits = archive_limits(limits);
    let directory = layout.stage_directory()?;
    let mut spool = Spool { files: HashMap::new(), _directory: directory };
    let bad = |cause: LayerError| match cause {
        LayerError::Interrupted => Error::Interrupted,
        // Docker's words, the whole of them.
        cause @ LayerError::Truncated => Error::Archive { reason: cause.to_string() },
        cause => Error::Archive { reason: format!("invalid archive: {cause}") },
    };
    let decoder = Decoder::new(source).map_err(bad)?;
    let mut tar = TarReader::new(decoder);
    let mut buffer = vec![0; BUFFER];
    let (mut entries, mut bytes, mut names) = (0, 0, 0);
    while let Some(entry) = tar.next().map_err(bad)? {
        entries += 1;
        if entries > limits.entries {
            return Err(bad(LayerError::Limit { what: "entries", limit: limits.entries }));
        }
        let name = entry.name();
        let Some(key) = clean(&name) else {
            return Err(bad(LayerError::Entry {
                entry: name,
                reason: "path leads out of the archive".to_owned(),
            }));
        };
        let target = String::from_utf8_lossy(&entry.link).into_owned();
        names += (key.len() + target.len()) as u64;
        if names > limits.names {
            return Err(bad(LayerError::Limit { what: "bytes of names", limit: limits.names }));
        }
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                let path = spool._directory.path().join(entries.to_string());
                let mut file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
                loop {
                    let n = tar.read_data(&mut buffer).map_err(bad)?;
                    if n == 0 {
                        break;
                    }
                    bytes += n as u64;
                    if bytes > limits.bytes {
                        return Err(bad(LayerError::Limit { what: "bytes", limit: limits.bytes }));
                    }
                    file.write_all(&buffer[..n]).map_err(|e| Error::io("write", &path, e))?;
                }
                spool.files.insert(key, Spooled::File { path, size: entry.size });
            }
            Kind::HardLink => {
                if let Some(to) = clean(&target) {
                    spool.files.insert(key, Spooled::Link { to });
                }
            }
            Kind::Symlink => {
                // `docker save` once linked equal layers: ../ID/layer.tar
                let parent = key.rsplit_once('/').map_or("", |(parent, _)| parent);
                if let Some(to) = clean(&format!("{parent}/{target}")) {
                    spool.files.insert(key, Spooled::Link { to });
                }
            }
            _ => {}
        }
    }
    Ok(spool)
}

/// Looks whether a file starts like a compressed one.
pub(super) fn is_compressed(path: &Path) -> Result<bool, Error> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let decoder = Decoder::buffered(file)
        .map_err(|cause| Error::Archive { reason: format!("invalid archive: {cause}") })?;
    Ok(decoder.compression() != Compression::None)
}

/// Returns the digest and the size of a file.
pub(super) fn digest_of(path: &Path) -> Result<(Digest, u64), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        let n = file.read(&mut buffer).map_err(|e| Error::io("read", path, e))?;
        if n == 0 {
            return Ok((Digest::finish(hasher), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// Normalises a name by its text; `None` when it leads out.
fn clean(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
