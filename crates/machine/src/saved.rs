//! The guest that sleeps: its memory in a file, bound to the disk as it was.
//!
//! ```text
//! machine/generation       a number that every boot and every wake changes before the guest runs
//! machine/saved/ram.new    being written, of no use
//! machine/saved/ram        the guest's memory and devices
//! machine/saved/state.json what it depends on; with this file the state exists, without it there is none
//! ```
//!
//! A state is good once: it is gone before the guest that it holds runs on. Whatever is in doubt makes it no state, and
//! costs a boot. Nothing here writes to the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use skiff_settings::Paths;
use skiff_vm::{Key, Restore};

use crate::Error;

/// Changes with what the files mean.
const FORMAT: u32 = 1;
/// Longest accepted description in bytes.
const LONGEST: u64 = 1 << 20;
/// Tells backup programs that the directory is not worth keeping (the Cache Directory Tagging Specification).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The sleeping machine of Skiff: worth nothing elsewhere or later.\n";

/// What is written beside the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    /// Of the disk, when the guest was halted.
    generation: u64,
    disk: FileIdentity,
    ram: FileIdentity,
    key: Key,
    /// When, in seconds since 1970.
    at: u64,
}

/// Names the contents of a file, as far as looking at it from outside can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    inode: u64,
    length: u64,
    modified_ns: u64,
}

/// A saved guest, for displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedInfo {
    /// What it takes on the host, in bytes.
    pub bytes: u64,
    /// When it was saved.
    pub at: SystemTime,
}

/// Where the saved guest is kept.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
    generation: PathBuf,
    disk: PathBuf,
}

impl Store {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { directory: paths.saved_dir(), generation: paths.generation(), disk: paths.disk() }
    }

    /// Where the memory is to be written for [`commit`](Self::commit).
    pub(crate) fn stage(&self) -> Result<PathBuf, Error> {
        fs::create_dir_all(&self.directory).map_err(|source| file_error("make", &self.directory, source))?;
        let tag = self.directory.join("CACHEDIR.TAG");
        fs::write(&tag, CACHE_TAG).map_err(|source| file_error("write", &tag, source))?;
        Ok(self.staging())
    }

    /// Makes what was written the state of the guest that stands still now. It exists whole afterwards, whatever happens,
    /// or not at all.
    pub(crate) fn commit(&self, key: Key) -> Result<(), Error> {
        let (staging, ram) = (self.staging(), self.ram());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| file_error("write", &path, source)
        };
        self.discard()?;
        // What the guest has written must be there whenever its memory is.
        // Windows wants a descriptor that could write for it.
        let disk = File::options().write(true).open(&self.disk);
        disk.and_then(|disk| disk.sync_all()).map_err(failed(&self.disk))?;
        fs::rename(&staging, &ram).map_err(failed(&ram))?;
        let state = State {
            format: FORMAT,
            generation: self.generation().map_err(failed(&self.generation))?,
            disk: FileIdentity::of(&self.disk).map_err(failed(&self.disk))?,
            ram: FileIdentity::of(&ram).map_err(failed(&ram))?,
            key,
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        let text =
            serde_json::to_vec_pretty(&state).map_err(io::Error::from).map_err(failed(&self.state()))?;
        replace(&self.state(), &text, Lasting::Now).map_err(failed(&self.state()))
    }

    /// Gives the guest that can be woken; nothing when there is none, and why when there was one.
    pub(crate) fn find(&self) -> Result<Option<Restore>, &'static str> {
        let state = match self.read() {
            Ok(Some(state)) => state,
            Ok(None) => return Ok(None),
            Err(_) => return Err("its description cannot be read"),
        };
        if state.format != FORMAT {
            return Err("another version saved it");
        }
        if self.generation().ok() != Some(state.generation) {
            return Err("the disk was used since");
        }
        if FileIdentity::of(&self.disk).ok() != Some(state.disk) {
            return Err("the disk is another one, or was changed since");
        }
        if FileIdentity::of(&self.ram()).ok() != Some(state.ram) {
            return Err("its memory is another one, or was changed since");
        }
        Ok(Some(Restore { path: self.ram(), key: state.key }))
    }

    /// What a saved guest takes; this says nothing about whether it can be woken.
    pub(crate) fn info(&self) -> Option<SavedInfo> {
        let state = self.read().ok()??;
        let metadata = fs::metadata(self.ram()).ok()?;
        #[cfg(unix)]
        let bytes = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        let bytes = metadata.len();
        Some(SavedInfo { bytes, at: UNIX_EPOCH + Duration::from_secs(state.at) })
    }

    /// Makes sure that no state that there is, or ever was, is good for the disk from here on. To be done before any guest
    /// runs with it.
    pub(crate) fn advance(&self) -> Result<(), Error> {
        let next = match self.generation() {
            Ok(generation) => generation.wrapping_add(1),
            // Unreadable: any number will do that was not there before.
            Err(_) => {
                u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
                    .unwrap_or(u64::MAX)
            }
        };
        // What must last is that the state is gone; the number only tells one that is put back. After a power cut it may be
        // the old one, or none, which is no good for any state either.
        let advanced = replace(&self.generation, next.to_string().as_bytes(), Lasting::Later);
        self.discard()?;
        // A full disk must not keep the guest from starting.
        if let Err(error) = advanced {
            tracing::warn!(%error, path = %self.generation.display(), "generation of the disk is not written");
        }
        Ok(())
    }

    /// Throws the state away.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        let state = self.state();
        match fs::remove_file(&state) {
            Ok(()) => sync_directory(&self.directory),
            Err(error) => Err(error),
        }
        .or_else(absent)
        .map_err(|source| file_error("remove", &state, source))?;
        let ram = self.ram();
        // Of no use without the other, so it costs nothing but space.
        if let Err(error) = fs::remove_file(&ram).or_else(absent) {
            tracing::warn!(%error, path = %ram.display(), "saved memory is left behind");
        }
        Ok(())
    }

    /// Throws away what was not finished.
    pub(crate) fn discard_staged(&self) {
        if let Err(error) = fs::remove_file(self.staging()).or_else(absent) {
            tracing::warn!(%error, path = %self.staging().display(), "half-written memory is left behind");
        }
    }

    fn staging(&self) -> PathBuf {
        self.directory.join("ram.new")
    }

    fn ram(&self) -> PathBuf {
        self.directory.join("ram")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn read(&self) -> io::Result<Option<State>> {
        let path = self.state();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= LONGEST => Ok(Some(serde_json::from_slice(&fs::read(path)?)?)),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The disk's generation; that of one that was never used is zero.
    fn generation(&self) -> io::Result<u64> {
        match fs::read_to_string(&self.generation) {
            Ok(text) => text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl FileIdentity {
    fn of(path: &Path) -> io::Result<Self> {
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

/// When a file is on stable storage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Now,
    Later,
}

/// Writes a file so that a crash of this process leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8], lasting: Lasting) -> io::Result<()> {
    let staging = path.with_extension("new");
    let mut file = File::create(&staging)?;
    file.write_all(bytes)?;
    if lasting == Lasting::Later {
        return fs::rename(&staging, path);
    }
    file.sync_all()?;
    fs::rename(&staging, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names that came or went in a directory last.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn file_error(op: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use skiff_vm::{Accelerator, qemu::verdict::HostFacts};

    use super::*;

    fn key() -> Key {
        Key {
            accelerator: Accelerator::Tcg,
            host: HostFacts::default(),
            program: "qemu".to_owned(),
            image: "image".to_owned(),
            arguments: Vec::new(),
        }
    }

    struct Setup {
        _directory: tempfile::TempDir,
        store: Store,
    }

    impl Setup {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let paths = Paths::discover_with(Some(directory.path()), |_| None).unwrap();
            paths.prepare().unwrap();
            let store = Store::new(&paths);
            fs::write(&store.disk, b"disk").unwrap();
            store.advance().unwrap();
            Self { _directory: directory, store }
        }

        fn saved() -> Self {
            let setup = Self::new();
            fs::write(setup.store.stage().unwrap(), b"memory").unwrap();
            setup.store.commit(key()).unwrap();
            setup
        }
    }

    #[test]
    fn a_state_is_found_with_its_key_until_it_is_used() {
        let Setup { store, .. } = &Setup::saved();
        let restore = store.find().unwrap().unwrap();
        assert_eq!((fs::read(&restore.path).unwrap(), restore.key), (b"memory".to_vec(), key()));
        assert!(store.info().unwrap().bytes > 0);
        store.advance().unwrap();
        assert_eq!(store.find(), Ok(None));
        assert!(store.info().is_none());
        let left: Vec<_> = fs::read_dir(&store.directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["CACHEDIR.TAG"]);
    }

    #[test]
    fn a_state_that_is_put_back_after_its_use_is_refused() {
        let Setup { store, .. } = &Setup::saved();
        let (state, ram) = (fs::read(store.state()).unwrap(), fs::read(store.ram()).unwrap());
        store.advance().unwrap();
        fs::write(store.state(), state).unwrap();
        fs::write(store.ram(), ram).unwrap();
        assert_eq!(store.find(), Err("the disk was used since"));
        // Nor is it good when nobody knows how often the disk was used.
        fs::remove_file(&store.generation).unwrap();
        assert_eq!(store.find(), Err("the disk was used since"));
        fs::write(&store.generation, "many").unwrap();
        assert_eq!(store.find(), Err("the disk was used since"));
        store.advance().unwrap();
        assert!(store.generation().unwrap() > 1_000_000);
    }

    #[test]
    fn a_disk_or_memory_that_changed_is_refused() {
        let touch = |path: &Path| {
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        };
        let Setup { store, .. } = &Setup::saved();
        touch(&store.disk);
        assert_eq!(store.find(), Err("the disk is another one, or was changed since"));
        let Setup { store, .. } = &Setup::saved();
        fs::remove_file(&store.disk).unwrap();
        assert_eq!(store.find(), Err("the disk is another one, or was changed since"));
        let Setup { store, .. } = &Setup::saved();
        fs::write(store.ram(), b"less").unwrap();
        assert_eq!(store.find(), Err("its memory is another one, or was changed since"));
    }

    #[test]
    fn files_of_a_save_that_was_killed_are_no_state() {
        let Setup { store, .. } = &Setup::new();
        fs::write(store.stage().unwrap(), b"mem").unwrap();
        assert_eq!(store.find(), Ok(None));
        fs::rename(store.staging(), store.ram()).unwrap();
        assert_eq!(store.find(), Ok(None));
        fs::write(store.state().with_extension("new"), b"{\"format\":1").unwrap();
        assert_eq!(store.find(), Ok(None));
        for text in ["", "{", "{\"format\":1}", "[]"] {
            fs::write(store.state(), text).unwrap();
            assert_eq!(store.find(), Err("its description cannot be read"), "{text}");
        }
        fs::write(store.stage().unwrap(), b"memory").unwrap();
        store.commit(key()).unwrap();
        assert!(store.find().unwrap().is_some());
        store.discard_staged();
        store.discard().unwrap();
        store.discard().unwrap();
        assert_eq!(store.find(), Ok(None));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_state_of_another_generation(text in "\\PC{0,200}") {
            let Setup { store, .. } = &Setup::new();
            store.stage().unwrap();
            fs::write(store.state(), text).unwrap();
            proptest::prop_assert!(!matches!(store.find(), Ok(Some(_))));
        }
    }
}
