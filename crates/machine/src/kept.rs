//! Files that are kept of a guest: written whole or not at all, and known again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// Longest accepted description in bytes.
const LONGEST: u64 = 1 << 20;
/// Tells backup programs that the directory is not worth keeping (the Cache Directory Tagging Specification).
const CACHE_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# Of Skiff's machine: worth nothing elsewhere or later.\n";

/// What is kept of a guest, for displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedInfo {
    /// What it takes on the host, in bytes.
    pub bytes: u64,
    /// When it was saved.
    pub at: SystemTime,
}

impl SavedInfo {
    /// Of a file, saved so many seconds after 1970.
    pub(crate) fn of(path: &Path, at: u64) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let bytes = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        let bytes = metadata.len();
        Some(Self { bytes, at: UNIX_EPOCH + Duration::from_secs(at) })
    }
}

/// Names the contents of a file, as far as looking at it from outside can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    inode: u64,
    length: u64,
    modified_ns: u64,
}

impl FileIdentity {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ns = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { inode, length: metadata.len(), modified_ns })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Makes a directory that backups leave out.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| file_error("make", path, source))?;
    let tag = path.join("CACHEDIR.TAG");
    fs::write(&tag, CACHE_TAG).map_err(|source| file_error("write", &tag, source))
}

/// Reads a description; nothing if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() <= LONGEST => Ok(Some(serde_json::from_slice(&fs::read(path)?)?)),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a description, on stable storage, so that a crash leaves the old one or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let staging = path.with_extension("new");
    let mut file = File::create(&staging)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&staging, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes what was written to a file last.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    // Windows wants a descriptor that could write for it.
    File::options().write(true).open(path)?.sync_all()
}

/// Makes names that came or went in a directory last.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Removes a file that need not exist.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn file_error(op: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { op, path: path.to_owned(), source }
}

/// The same, for `map_err`.
pub(crate) fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |source| Error::File { op, path, source }
}
