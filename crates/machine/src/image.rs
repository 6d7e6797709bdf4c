//! The guest image: a directory with kernel, initial RAM file system, disk template and a manifest of their hashes.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is none.
    #[error("no guest image in any of {}", places(looked))]
    Missing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file of it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest makes no sense.
    #[error("guest image manifest {} makes no sense", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is for another processor.
    #[error("the guest image in {} is for {found}, this machine is {wanted}", dir.display())]
    Architecture {
        /// The image.
        dir: PathBuf,
        /// Its architecture.
        found: String,
        /// This machine's.
        wanted: &'static str,
    },
    /// A file is not the one the manifest names.
    #[error("{} is damaged: {what} is {found}, the manifest says {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was compared.
        what: &'static str,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        found: String,
    },
}

fn places(looked: &[PathBuf]) -> String {
    looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What the manifest says; members that only builders need are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Manifest {
    version: String,
    arch: String,
    kernel: Entry,
    initramfs: Entry,
    disk: Entry,
    #[serde(default)]
    cmdline: String,
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Entry {
    file: String,
    sha256: String,
    bytes: Option<u64>,
    #[serde(default)]
    version: String,
}

/// A guest image that has been found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    dir: PathBuf,
    manifest: Manifest,
}

impl Image {
    /// Opens the first of the directories that holds a manifest.
    ///
    /// # Errors
    /// [`ImageError::Missing`] when none does, else what is wrong with the one that does.
    pub fn find(candidates: &[PathBuf]) -> Result<Self, ImageError> {
        match candidates.iter().find(|dir| dir.join("manifest.json").is_file()) {
            Some(dir) => Self::open(dir),
            None => Err(ImageError::Missing { looked: candidates.to_vec() }),
        }
    }

    /// Opens the image in `dir`.
    ///
    /// # Errors
    /// Fails when the manifest cannot be read or is for another machine.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        // Plain and absolute: QEMU runs elsewhere, and `..` in an error message helps nobody.
        let dir = dir.canonicalize().map_err(|source| ImageError::Read { path: dir.to_owned(), source })?;
        let path = dir.join("manifest.json");
        let text = std::fs::read(&path).map_err(|source| ImageError::Read { path: path.clone(), source })?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|source| ImageError::Manifest { path, source })?;
        let wanted = std::env::consts::ARCH;
        let found = match manifest.arch.as_str() {
            "arm64" => "aarch64",
            "amd64" => "x86_64",
            other => other,
        };
        if found != wanted {
            return Err(ImageError::Architecture { dir, found: manifest.arch, wanted });
        }
        Ok(Self { dir, manifest })
    }

    /// Gives the image's version.
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// Names the bytes that a guest is booted from.
    pub fn boot_id(&self) -> String {
        format!("{} {}", self.manifest.kernel.sha256, self.manifest.initramfs.sha256)
    }

    /// Gives the kernel's release.
    pub fn kernel_version(&self) -> &str {
        &self.manifest.kernel.version
    }

    /// Gives the kernel command line.
    pub fn cmdline(&self) -> &str {
        &self.manifest.cmdline
    }

    /// Checks the kernel and gives its path.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] when it is not what the manifest names.
    pub fn kernel(&self, memory: &Path) -> Result<PathBuf, ImageError> {
        self.check(&self.manifest.kernel, memory)
    }

    /// Checks the initial RAM file system and gives its path.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] when it is not what the manifest names.
    pub fn initramfs(&self, memory: &Path) -> Result<PathBuf, ImageError> {
        self.check(&self.manifest.initramfs, memory)
    }

    /// Checks the template of the data disk and gives its path.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] when it is not what the manifest names.
    pub fn disk_template(&self, memory: &Path) -> Result<PathBuf, ImageError> {
        self.check(&self.manifest.disk, memory)
    }

    /// Compares size and hash; a file whose hash was right and which has not changed since is not read again.
    fn check(&self, entry: &Entry, memory: &Path) -> Result<PathBuf, ImageError> {
        let path = self.dir.join(&entry.file);
        let read = |source| ImageError::Read { path: path.clone(), source };
        let damaged = |what, expected: &dyn ToString, found: &dyn ToString| ImageError::Damaged {
            path: path.clone(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        let metadata = std::fs::metadata(&path).map_err(read)?;
        if let Some(bytes) = entry.bytes
            && bytes != metadata.len()
        {
            return Err(damaged("its size", &bytes, &metadata.len()));
        }
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let seen = Checked {
            path: path.clone(),
            bytes: metadata.len(),
            modified_ns: modified
                .map(|d| u64::try_from(d.as_nanos()).unwrap_or_default())
                .unwrap_or_default(),
            sha256: entry.sha256.to_ascii_lowercase(),
        };
        let mut known = Checked::load(memory);
        if known.contains(&seen) {
            return Ok(path);
        }
        let found = sha256(&path).map_err(read)?;
        if found != seen.sha256 {
            return Err(damaged("its sha256", &seen.sha256, &found));
        }
        known.retain(|other| other.path != path);
        known.push(seen);
        Checked::save(&known, memory);
        Ok(path)
    }
}

/// A file whose hash was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Checked {
    path: PathBuf,
    bytes: u64,
    modified_ns: u64,
    sha256: String,
}

impl Checked {
    fn load(memory: &Path) -> Vec<Self> {
        std::fs::read(memory).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Forgetting costs one more reading, so a failure is only told.
    fn save(known: &[Self], memory: &Path) {
        let staging = memory.with_extension("new");
        let write = || -> io::Result<()> {
            std::fs::write(&staging, serde_json::to_vec_pretty(known)?)?;
            std::fs::rename(&staging, memory)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, path = %memory.display(), "checked hashes are not remembered");
        }
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path, arch: &str) {
        let kernel = b"kernel";
        std::fs::write(dir.join("vmlinux"), kernel).unwrap();
        std::fs::write(dir.join("initramfs"), b"").unwrap();
        let sha = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let manifest = serde_json::json!({
            "version": "1.2", "arch": arch, "cmdline": "quiet", "inputs": [],
            "kernel": {"file": "vmlinux", "sha256": sha(kernel), "bytes": 6, "version": "6.12"},
            "initramfs": {"file": "initramfs", "sha256": sha(b"").to_uppercase()},
            "disk": {"file": "data.ext4", "sha256": sha(b"x")},
        });
        std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    }

    #[test]
    fn sound_files_pass_and_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("checked.json");
        image(dir.path(), std::env::consts::ARCH);
        let image = Image::find(&[dir.path().join("none"), dir.path().to_owned()]).unwrap();
        assert_eq!((image.version(), image.cmdline(), image.kernel_version()), ("1.2", "quiet", "6.12"));
        let kernel = image.kernel(&memory).unwrap();
        image.initramfs(&memory).unwrap();
        assert_eq!(Checked::load(&memory).len(), 2);
        // Same size and time: taken from memory, which is the point.
        let time = std::fs::metadata(&kernel).unwrap().modified().unwrap();
        std::fs::write(&kernel, b"KERNEL").unwrap();
        File::options().write(true).open(&kernel).unwrap().set_modified(time).unwrap();
        image.kernel(&memory).unwrap();
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("checked.json");
        image(dir.path(), std::env::consts::ARCH);
        let image = Image::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("vmlinux"), b"kernal").unwrap();
        let error = image.kernel(&memory).unwrap_err().to_string();
        assert!(error.contains("vmlinux is damaged: its sha256 is "), "{error}");
        std::fs::write(dir.path().join("vmlinux"), b"kern").unwrap();
        let error = image.kernel(&memory).unwrap_err().to_string();
        assert!(error.ends_with("vmlinux is damaged: its size is 4, the manifest says 6"), "{error}");
        assert!(matches!(image.disk_template(&memory), Err(ImageError::Read { .. })));
    }

    #[test]
    fn image_of_another_machine_or_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Image::find(&[dir.path().to_owned()]), Err(ImageError::Missing { .. })));
        image(dir.path(), "s390x");
        assert!(matches!(Image::open(dir.path()), Err(ImageError::Architecture { .. })));
        std::fs::write(dir.path().join("manifest.json"), b"{}").unwrap();
        assert!(matches!(Image::open(dir.path()), Err(ImageError::Manifest { .. })));
    }
}
