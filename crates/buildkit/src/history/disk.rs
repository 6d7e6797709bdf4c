//! The history on disk: a directory for each build.
//!
//! ```text
//!  HASH-OF-REF/record              BuildHistoryRecord
//!  HASH-OF-REF/sha256-DIGEST       its blobs: what was told, provenance, the image's configuration, the error
//!  new-…                           one that is being written; swept
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;
use prost::Message;
use skiff_images::Digest;

use super::Blob;

const RECORD: &str = "record";
/// Larger than any record that was written.
const LARGEST: u64 = 16 << 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

/// A blob's file. Digests are our own or were checked: no part of them leads anywhere.
fn file_of(digest: &str) -> String {
    digest.replace(':', "-")
}

impl Disk {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn place(&self, name: &str) -> PathBuf {
        let digest = Digest::of(name.as_bytes()).to_string();
        self.root.join(digest.trim_start_matches("sha256:"))
    }

    /// Reads everything; removes what is unfinished or unreadable.
    pub fn read(&self) -> Vec<(BuildHistoryRecord, BTreeMap<String, Blob>)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            match read_one(&path) {
                Ok((record, blobs)) if self.place(&record.r#ref) == path => found.push((record, blobs)),
                Ok(_) => discard(&path),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "entry of the build history is unreadable and goes");
                    discard(&path);
                }
            }
        }
        found
    }

    /// Writes a build, in place of one that has the same name.
    pub fn write(
        &self,
        record: &BuildHistoryRecord,
        blobs: &BTreeMap<String, Vec<u8>>,
    ) -> io::Result<BTreeMap<String, Blob>> {
        let place = self.place(&record.r#ref);
        let new = self.root.join(format!("new-{}", place.file_name().unwrap_or_default().display()));
        let written = (|| {
            discard(&new);
            std::fs::create_dir_all(&new)?;
            for (digest, bytes) in blobs {
                std::fs::write(new.join(file_of(digest)), bytes)?;
            }
            std::fs::write(new.join(RECORD), record.encode_to_vec())?;
            discard(&place);
            std::fs::rename(&new, &place)
        })();
        if let Err(error) = written {
            discard(&new);
            return Err(error);
        }
        Ok(blobs
            .iter()
            .map(|(digest, bytes)| {
                (digest.clone(), Blob { path: place.join(file_of(digest)), size: bytes.len() as u64 })
            })
            .collect())
    }

    /// Writes a record whose blobs stay what they are.
    pub fn rewrite(&self, record: &BuildHistoryRecord) -> io::Result<()> {
        let place = self.place(&record.r#ref);
        let new = place.join("new");
        std::fs::write(&new, record.encode_to_vec())?;
        std::fs::rename(&new, place.join(RECORD))
    }

    pub fn remove(&self, name: &str) {
        discard(&self.place(name));
    }
}

fn discard(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "entry of the build history can't be removed")
        }
    }
}

fn read_one(place: &Path) -> io::Result<(BuildHistoryRecord, BTreeMap<String, Blob>)> {
    let path = place.join(RECORD);
    let length = std::fs::metadata(&path)?.len();
    if length > LARGEST {
        return Err(io::Error::other(format!("a record of {length} bytes")));
    }
    let record = BuildHistoryRecord::decode(std::fs::read(&path)?.as_slice()).map_err(io::Error::other)?;
    let mut blobs = BTreeMap::new();
    for digest in digests(&record) {
        let path = place.join(file_of(&digest));
        // A blob that has gone is one that can't be read; the record stays worth reading.
        if let Ok(about) = std::fs::metadata(&path) {
            blobs.insert(digest, Blob { path, size: about.len() });
        }
    }
    Ok((record, blobs))
}

/// The blobs that a record names.
fn digests(record: &BuildHistoryRecord) -> Vec<String> {
    let results = record.result.iter().chain(record.results.values());
    let of_results = results.flat_map(|result| {
        result.result_deprecated.iter().chain(&result.attestations).chain(result.results.values())
    });
    let all = record.logs.iter().chain(&record.external_error).chain(&record.trace).chain(of_results);
    all.map(|descriptor| descriptor.digest.clone())
        .filter(|digest| digest.parse::<Digest>().is_ok())
        .collect()
}
