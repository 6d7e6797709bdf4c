//! Contents by digest, and which repository has which. All of it blocks.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Refusal, Result};
use crate::manifest::Manifest;
use crate::name::{Algorithm, Digest, Reference};

/// The directory of a registry.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Held while links change, so that nothing is deleted that is about to be linked.
    links: Mutex<()>,
    /// Uploads that a request writes to.
    writing: Mutex<HashSet<String>>,
}

/// A manifest that was found.
#[derive(Debug)]
pub struct Found {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An upload that one request has to itself.
#[derive(Debug)]
pub struct Upload {
    store: Arc<Store>,
    id: String,
    path: PathBuf,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Upload {
    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has.
    pub fn size(&self) -> Result<u64> {
        let metadata = fs::metadata(&self.path).map_err(|error| Refusal::internal("stat upload", &error))?;
        Ok(metadata.len())
    }

    /// Throws it away.
    pub fn cancel(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|error| Refusal::internal("remove upload", &error))
    }
}

type Io<T> = io::Result<T>;

/// How long an upload waits for its next piece.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

fn sync_dir(path: &Path) -> Io<()> {
    // Directories can't be opened for this everywhere; there the rename is all that can be had.
    match File::open(path) {
        Ok(dir) => dir.sync_all().or(Ok(())),
        Err(_) => Ok(()),
    }
}

fn missing_is<T>(result: Io<T>, fallback: T) -> Io<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fallback),
        other => other,
    }
}

impl Store {
    /// Opens a directory, or makes it. What was being sent when it was closed is gone.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn open(root: PathBuf) -> std::result::Result<Store, Error> {
        let uploads = root.join("uploads");
        if let Err(error) = fs::remove_dir_all(&uploads)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::io("removing", uploads, error));
        }
        for dir in ["uploads", "repositories", "blobs/sha256", "blobs/sha512"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|error| Error::io("making", dir, error))?;
        }
        Ok(Store { root, links: Mutex::default(), writing: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a content is.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm.name()).join(&digest.hex)
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root.join("repositories").join(name)
    }

    fn blob_link(&self, name: &str, digest: &Digest) -> PathBuf {
        self.repository(name).join("_blobs").join(digest.file())
    }

    fn manifest_link(&self, name: &str, digest: &Digest) -> PathBuf {
        self.repository(name).join("_manifests").join(digest.file())
    }

    fn tag_path(&self, name: &str, tag: &str) -> PathBuf {
        self.repository(name).join("_tags").join(tag)
    }

    fn referrer_path(&self, name: &str, subject: &Digest, digest: &Digest) -> PathBuf {
        self.repository(name).join("_referrers").join(subject.file()).join(digest.file())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write(&self, path: &Path, data: &[u8]) -> Io<()> {
        let aside = self.root.join("uploads").join(format!("file-{}", new_id()?));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&aside)?;
        file.write_all(data)?;
        file.sync_all()?;
        self.place(&aside, path).inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }

    fn place(&self, from: &Path, to: &Path) -> Io<()> {
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
            fs::rename(from, to)?;
            sync_dir(dir)?;
        }
        Ok(())
    }

    /// Says whether a repository has anything.
    pub fn exists(&self, name: &str) -> bool {
        let repository = self.repository(name);
        ["_manifests", "_blobs"].iter().any(|links| repository.join(links).is_dir())
    }

    /// The size of a repository's blob.
    pub fn blob_size(&self, name: &str, digest: &Digest) -> Result<u64> {
        if !self.blob_link(name, digest).exists() && !self.manifest_link(name, digest).exists() {
            return Err(Refusal::blob_unknown());
        }
        match fs::metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(_) => Err(Refusal::blob_unknown()),
        }
    }

    /// Throws away uploads that nobody has gone on with for a long time.
    fn sweep(&self) -> Io<()> {
        let dir = self.root.join("uploads");
        for name in entries(&dir)? {
            let path = dir.join(&name);
            let age = fs::metadata(&path).and_then(|metadata| metadata.modified())?.elapsed();
            let used = self.writing.lock().unwrap_or_else(PoisonError::into_inner).contains(&name);
            if !used && age.is_ok_and(|age| age > ABANDONED) {
                missing_is(fs::remove_file(path), ())?;
            }
        }
        Ok(())
    }

    /// Begins an upload; returns its id.
    pub fn begin(&self) -> Result<String> {
        if let Err(error) = self.sweep() {
            tracing::debug!(%error, "old uploads can't be swept");
        }
        let made = || -> Io<String> {
            let id = new_id()?;
            OpenOptions::new().write(true).create_new(true).open(self.root.join("uploads").join(&id))?;
            Ok(id)
        };
        made().map_err(|error| Refusal::internal("begin upload", &error))
    }

    /// Takes an upload for one request.
    pub fn upload(self: &Arc<Store>, id: &str) -> Result<Upload> {
        let sane = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let path = self.root.join("uploads").join(id);
        if !sane || !path.is_file() {
            return Err(Refusal::upload_unknown());
        }
        if !self.writing.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned()) {
            return Err(Refusal::upload_invalid("another request writes to this upload"));
        }
        Ok(Upload { store: Arc::clone(self), id: id.to_owned(), path })
    }

    /// Makes an upload a blob of a repository, when it is what it should be. `found` is its digest.
    pub fn finish(&self, name: &str, upload: &Upload, wanted: &Digest, found: &Digest) -> Result<()> {
        if wanted != found {
            let _ = fs::remove_file(upload.path());
            return Err(Refusal::digest_invalid(&format!("{wanted} was promised, {found} was sent")));
        }
        let place = || -> Io<()> {
            File::open(upload.path())?.sync_all()?;
            let _links = self.lock();
            let blob = self.blob_path(wanted);
            if blob.is_file() {
                fs::remove_file(upload.path())?;
            } else {
                self.place(upload.path(), &blob)?;
            }
            self.write(&self.blob_link(name, wanted), b"")
        };
        place().map_err(|error| Refusal::internal("finish upload", &error))
    }

    /// Links a blob of another repository. Says whether there is one.
    pub fn mount(&self, name: &str, from: &str, digest: &Digest) -> Result<bool> {
        let _links = self.lock();
        if self.blob_size(from, digest).is_err() {
            return Ok(false);
        }
        self.write(&self.blob_link(name, digest), b"")
            .map(|()| true)
            .map_err(|error| Refusal::internal("mount blob", &error))
    }

    /// Removes a blob from a repository.
    pub fn delete_blob(&self, name: &str, digest: &Digest) -> Result<()> {
        let _links = self.lock();
        match fs::remove_file(self.blob_link(name, digest)) {
            Ok(()) => self.collect(digest).map_err(|error| Refusal::internal("delete blob", &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::blob_unknown()),
            Err(error) => Err(Refusal::internal("delete blob", &error)),
        }
    }

    /// Deletes a content that no repository links to. The lock is held.
    fn collect(&self, digest: &Digest) -> Io<()> {
        let linked = self
            .names()?
            .iter()
            .any(|name| self.blob_link(name, digest).exists() || self.manifest_link(name, digest).exists());
        if linked {
            return Ok(());
        }
        missing_is(fs::remove_file(self.blob_path(digest)), ())
    }

    /// Finds a manifest.
    pub fn manifest(&self, name: &str, reference: &Reference) -> Result<Found> {
        let shown = match reference {
            Reference::Tag(tag) => tag.clone(),
            Reference::Digest(digest) => digest.to_string(),
        };
        let unknown = || Refusal::manifest_unknown(&shown);
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                let text = fs::read_to_string(self.tag_path(name, tag)).map_err(|_| unknown())?;
                Digest::parse(text.trim()).map_err(|_| unknown())?
            }
        };
        let media_type = fs::read_to_string(self.manifest_link(name, &digest)).map_err(|_| unknown())?;
        let bytes = fs::read(self.blob_path(&digest)).map_err(|_| unknown())?;
        Ok(Found { digest, media_type, bytes })
    }

    /// Takes a manifest; returns its digest.
    pub fn put_manifest(
        &self,
        name: &str,
        reference: &Reference,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> Result<Digest> {
        let digest = match reference {
            Reference::Digest(digest) => {
                let found = Digest::of(digest.algorithm, bytes);
                if found != *digest {
                    return Err(Refusal::digest_invalid(&format!("{digest} was promised, {found} was sent")));
                }
                found
            }
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, bytes),
        };
        let _links = self.lock();
        for blob in &manifest.blobs {
            self.blob_size(name, blob).map_err(|_| Refusal::manifest_blob_unknown(&blob.to_string()))?;
        }
        for child in &manifest.manifests {
            if !self.manifest_link(name, child).exists() {
                return Err(Refusal::manifest_blob_unknown(&child.to_string()));
            }
        }
        let write = || -> Io<()> {
            self.write(&self.blob_path(&digest), bytes)?;
            self.write(&self.manifest_link(name, &digest), manifest.media_type.as_bytes())?;
            if let Some(subject) = &manifest.subject {
                let descriptor = manifest.descriptor(&digest, bytes.len()).to_string();
                self.write(&self.referrer_path(name, subject, &digest), descriptor.as_bytes())?;
            }
            if let Reference::Tag(tag) = reference {
                self.write(&self.tag_path(name, tag), digest.to_string().as_bytes())?;
            }
            Ok(())
        };
        write().map_err(|error| Refusal::internal("put manifest", &error))?;
        Ok(digest)
    }

    /// Removes a tag, or a manifest with all of its tags.
    pub fn delete_manifest(&self, name: &str, reference: &Reference) -> Result<()> {
        let internal = |error: io::Error| Refusal::internal("delete manifest", &error);
        let _links = self.lock();
        let found = self.manifest(name, reference)?;
        match reference {
            Reference::Tag(tag) => fs::remove_file(self.tag_path(name, tag)).map_err(internal),
            Reference::Digest(digest) => {
                for tag in self.tags(name)? {
                    let path = self.tag_path(name, &tag);
                    if fs::read_to_string(&path).is_ok_and(|text| text == digest.to_string()) {
                        fs::remove_file(&path).map_err(internal)?;
                    }
                }
                fs::remove_file(self.manifest_link(name, digest)).map_err(internal)?;
                let subject = Manifest::parse(&found.bytes, None).ok().and_then(|manifest| manifest.subject);
                if let Some(subject) = subject {
                    missing_is(fs::remove_file(self.referrer_path(name, &subject, digest)), ())
                        .map_err(internal)?;
                }
                self.collect(digest).map_err(internal)
            }
        }
    }

    /// The tags of a repository, in order.
    pub fn tags(&self, name: &str) -> Result<Vec<String>> {
        entries(&self.repository(name).join("_tags")).map_err(|error| Refusal::internal("list tags", &error))
    }

    /// What refers to a manifest.
    pub fn referrers(&self, name: &str, subject: &Digest) -> Result<Vec<Value>> {
        let dir = self.repository(name).join("_referrers").join(subject.file());
        let files = entries(&dir).map_err(|error| Refusal::internal("list referrers", &error))?;
        let read = |file: String| serde_json::from_slice(&fs::read(dir.join(file)).ok()?).ok();
        Ok(files.into_iter().filter_map(read).collect())
    }

    /// All repositories that have anything, in order.
    pub fn catalog(&self) -> Result<Vec<String>> {
        let names = self.names().map_err(|error| Refusal::internal("list repositories", &error))?;
        Ok(names.into_iter().filter(|name| !self.manifests_of(name).is_empty()).collect())
    }

    fn manifests_of(&self, name: &str) -> Vec<String> {
        entries(&self.repository(name).join("_manifests")).unwrap_or_default()
    }

    fn names(&self) -> Io<Vec<String>> {
        let mut names = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(name) = todo.pop() {
            for entry in entries(&self.repository(&name))? {
                if entry.starts_with('_') {
                    if names.last() != Some(&name) {
                        names.push(name.clone());
                    }
                } else {
                    todo.push(if name.is_empty() { entry } else { format!("{name}/{entry}") });
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn entries(dir: &Path) -> Io<Vec<String>> {
    let read = match fs::read_dir(dir) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in read {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn new_id() -> Io<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex::encode(bytes))
}
