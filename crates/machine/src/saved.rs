//! The guest that sleeps: its memory in a file, bound to the disk as it was.
//!
//! ```text
//! machine/generation       a number that every boot and every wake changes before the guest runs
//! machine/saved/ram.new    being written, of no use
//! machine/saved/ram        the guest's memory and devices
//! machine/saved/state.json what it depends on; with this file the state exists, without it there is none
//! ```
//!
//! A state is good once: the number has changed for good before the guest that it holds runs on. Whatever is in doubt makes
//! it no state, and costs a boot. Nothing here writes to the disk.
//!
//! The number is written in its place, always as long: making that last takes one block, whatever else the host's file
//! system has to do. Names that come and go would have to wait for all of it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use skiff_settings::Paths;
use skiff_vm::{Key, Restore};

use crate::{
    Error, SavedInfo,
    kept::{self, FileIdentity, failed},
};

/// Changes with what the files mean.
const FORMAT: u32 = 2;

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
        kept::make_directory(&self.directory)?;
        Ok(self.staging())
    }

    /// Makes what was written the state of the guest that stands still now. It exists whole afterwards, whatever happens,
    /// or not at all.
    pub(crate) fn commit(&self, key: Key) -> Result<(), Error> {
        let (staging, ram) = (self.staging(), self.ram());
        self.discard()?;
        // What the guest has written must be there whenever its memory is, and so must the number of both.
        for path in [&self.disk, &staging] {
            kept::sync(path).map_err(failed("write", path))?;
        }
        let generation = self.generation().map_err(failed("read", &self.generation))?;
        self.write_generation(generation, Lasting::Now).map_err(failed("write", &self.generation))?;
        if let Some(directory) = self.generation.parent() {
            kept::sync_directory(directory).map_err(failed("write", directory))?;
        }
        fs::rename(&staging, &ram).map_err(failed("write", &ram))?;
        let state = State {
            format: FORMAT,
            generation,
            disk: FileIdentity::of(&self.disk).map_err(failed("read", &self.disk))?,
            ram: FileIdentity::of(&ram).map_err(failed("read", &ram))?,
            key,
            at: kept::now(),
        };
        kept::write(&self.state(), &state).map_err(failed("write", &self.state()))
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
        Ok(Some(Restore { path: self.ram(), key: state.key, template: false }))
    }

    /// What a saved guest takes; this says nothing about whether it can be woken.
    pub(crate) fn info(&self) -> Option<SavedInfo> {
        SavedInfo::of(&self.ram(), self.read().ok()??.at)
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
        if self.state().exists() {
            // Whatever becomes of its files: they are of another number.
            self.write_generation(next, Lasting::Now).map_err(failed("write", &self.generation))?;
            self.remove()?;
        } else if let Err(error) = self.write_generation(next, Lasting::Later) {
            // It tells a state that is put back. A full disk must not keep the guest from starting.
            tracing::warn!(%error, path = %self.generation.display(), "generation of the disk is not written");
        }
        Ok(())
    }

    /// Throws the state away, for good.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        if self.state().exists() {
            self.remove()?;
            kept::sync_directory(&self.directory).map_err(failed("write", &self.directory))?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), Error> {
        let (state, ram) = (self.state(), self.ram());
        kept::remove(&state).map_err(failed("remove", &state))?;
        // Of no use without the other, so it costs nothing but space.
        if let Err(error) = kept::remove(&ram) {
            tracing::warn!(%error, path = %ram.display(), "saved memory is left behind");
        }
        Ok(())
    }

    /// Throws away what was not finished.
    pub(crate) fn discard_staged(&self) {
        if let Err(error) = kept::remove(&self.staging()) {
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
        kept::read(&self.state())
    }

    /// The disk's generation; that of one that was never used is zero.
    fn generation(&self) -> io::Result<u64> {
        match fs::read_to_string(&self.generation) {
            Ok(text) => text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn write_generation(&self, generation: u64, lasting: Lasting) -> io::Result<()> {
        let text = format!("{generation:0DIGITS$}\n");
        let is_there = fs::metadata(&self.generation).is_ok_and(|found| found.len() == text.len() as u64);
        // Within one sector: whole, or as it was.
        let mut file = File::options().write(true).create(true).truncate(!is_there).open(&self.generation)?;
        file.write_all(text.as_bytes())?;
        if lasting == Lasting::Later {
            return Ok(());
        }
        // Its name lasts since the commit.
        file.sync_data()
    }
}

/// Of the largest number.
const DIGITS: usize = 20;

/// When a file is on stable storage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Now,
    Later,
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

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
        fs::write(store.state().with_extension("new"), b"{\"format\":2").unwrap();
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
