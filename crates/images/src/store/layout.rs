//! Where things are on disk, and how they get there.
//!
//! ```text
//! ROOT/images.redb          metadata
//! ROOT/blobs/sha256/HEX     configurations, manifests, layer blobs of committed images
//! ROOT/layers/HEX/          an unpacked layer, named by its diff id
//! ROOT/partial/HEX          layer blobs that are not (or not yet) part of an image, complete or not
//! ROOT/staging/             whatever is being made; emptied at open
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use crate::digest::Digest;
use crate::error::Error;
use crate::tree;

/// Downloads that nobody has resumed for this long are given up.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The directories of one store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// A path in the staging directory that is removed when dropped, unless it has been moved away.
#[derive(Debug)]
pub(crate) struct Staged(PathBuf);

impl Staged {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = tree::remove_path(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "staged files not removed; the next start will");
        }
    }
}

impl Layout {
    /// Makes the directories where they are missing and empties the staging directory.
    pub fn open(root: &Path) -> Result<Layout, Error> {
        for name in ["blobs/sha256", "layers", "partial", "staging"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
            // Layers hold set-user-id programs of unknown age: nobody else may reach them.
            rustix::fs::chmod(&path, Mode::RWXU).map_err(|e| Error::io("chmod", &path, e))?;
        }
        let layout = Layout { root: root.to_owned() };
        for (name, path) in list(&root.join("staging"))? {
            tracing::debug!(name, "left-over of an interrupted operation removed");
            tree::remove_path(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(layout)
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// Returns where a blob is, whether an image has it or not.
    pub fn stored(&self, digest: &Digest) -> PathBuf {
        let blob = self.blob(digest);
        if blob.exists() { blob } else { self.partial(digest) }
    }

    /// Returns the staging directory.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Returns an unused path in the staging directory.
    pub fn stage(&self) -> Staged {
        // Of the whole process: what a closed store still clears away is never another one's.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Staged(self.root.join("staging").join(number.to_string()))
    }

    /// Makes an empty directory in the staging directory, with the mode that a container's root has.
    pub fn stage_directory(&self) -> Result<Staged, Error> {
        let staged = self.stage();
        fs::create_dir(staged.path()).map_err(|e| Error::io("create", staged.path(), e))?;
        rustix::fs::chmod(staged.path(), Mode::from_raw_mode(0o755))
            .map_err(|e| Error::io("chmod", staged.path(), e))?;
        Ok(staged)
    }

    /// Moves a finished file or directory to its place; an existing one is as good and stays.
    pub fn publish(&self, from: &Path, to: &Path) -> Result<(), Error> {
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            to,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(Error::io("publish", to, e)),
        }
    }

    /// Writes a small blob to its place.
    pub fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let path = self.blob(digest);
        if path.exists() {
            return Ok(());
        }
        let staged = self.stage();
        fs::write(staged.path(), bytes).map_err(|e| Error::io("write", staged.path(), e))?;
        self.publish(staged.path(), &path)
    }

    /// Waits until everything written so far is on disk: contents, names, attributes.
    ///
    /// One call for a whole image is far cheaper than one for each of its files.
    pub fn sync(&self) -> Result<(), Error> {
        let fd =
            rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| Error::io("open", &self.root, e))?;
        rustix::fs::syncfs(&fd).map_err(|e| Error::io("sync", &self.root, e))
    }

    /// Takes a layer's directory out of sight; its files go when the result is dropped.
    pub fn take_layer(&self, diff_id: &Digest) -> Result<Staged, Error> {
        let path = self.layer(diff_id);
        let staged = self.stage();
        match fs::rename(&path, staged.path()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
            _ => Ok(staged),
        }
    }

    /// Removes a blob; a missing one is fine.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), Error> {
        remove_file(&self.blob(digest))
    }

    /// Removes the download of a blob; a missing one is fine.
    pub fn remove_partial(&self, digest: &Digest) -> Result<(), Error> {
        remove_file(&self.partial(digest))
    }

    /// Brings the directories in line with the metadata after a crash.
    ///
    /// Layers that no image has are removed. Blobs that no image has were about to be committed: they go back
    /// to the downloads, where the next pull finds, checks and uses them.
    pub fn sweep(
        &self,
        keep_layer: impl Fn(&Digest) -> bool,
        keep_blob: impl Fn(&Digest) -> bool,
    ) -> Result<(), Error> {
        let digest = |name: &str| format!("sha256:{name}").parse::<Digest>().ok();
        for (name, path) in list(&self.root.join("layers"))? {
            match digest(&name) {
                Some(diff_id) if keep_layer(&diff_id) => {}
                Some(diff_id) => drop(self.take_layer(&diff_id)?),
                None => tree::remove_path(&path).map_err(|e| Error::io("remove", &path, e))?,
            }
        }
        for (name, path) in list(&self.root.join("blobs/sha256"))? {
            match digest(&name) {
                Some(blob) if keep_blob(&blob) => {}
                Some(blob) => {
                    let partial = self.partial(&blob);
                    fs::rename(&path, &partial).map_err(|e| Error::io("move", &path, e))?;
                }
                None => remove_file(&path)?,
            }
        }
        let now = SystemTime::now();
        for (_, path) in list(&self.root.join("partial"))? {
            let modified = fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(now);
            if now.duration_since(modified).is_ok_and(|age| age > PARTIAL_AGE) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn list(path: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let fail = |e| Error::io("list", path, e);
    let mut names = Vec::new();
    for item in fs::read_dir(path).map_err(fail)? {
        let item = item.map_err(fail)?;
        names.push((item.file_name().to_string_lossy().into_owned(), item.path()));
    }
    Ok(names)
}
