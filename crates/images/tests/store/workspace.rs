//! A store in a directory of its own, and looks at what lies there.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use skiff_images::{Config, Progress, ProgressEvent, Store, Timeouts};

/// A place for a store; gone when dropped.
pub struct Workspace {
    directory: tempfile::TempDir,
}

impl Workspace {
    pub fn new() -> Workspace {
        Workspace { directory: tempfile::tempdir().unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    pub fn config(&self) -> Config {
        config(&self.root())
    }

    pub fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    /// Names in one of the store's directories.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root().join(directory))
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Bytes in the partial directory.
    pub fn partial_bytes(&self) -> u64 {
        let directory = self.root().join("partial");
        self.names("partial").iter().map(|name| directory.join(name).metadata().unwrap().len()).sum()
    }

    /// Checks that nothing of a failed operation shows.
    pub fn assert_clean(&self) {
        assert_eq!(self.names("layers"), [""; 0]);
        assert_eq!(self.names("staging"), [""; 0]);
        assert_eq!(self.names("blobs/sha256"), [""; 0]);
    }
}

/// A configuration that gives up quickly.
pub fn config(root: &Path) -> Config {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(1500),
        retry: Duration::from_millis(20),
    };
    Config { timeouts, ..Config::new(root) }
}

/// Collects progress.
#[derive(Default)]
pub struct Events(Mutex<Vec<ProgressEvent>>);

impl Events {
    pub fn statuses(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|e| e.status.clone()).collect()
    }

    pub fn has(&self, status: &str) -> bool {
        self.statuses().iter().any(|s| s == status)
    }
}

impl Progress for Events {
    fn event(&self, event: ProgressEvent) {
        self.0.lock().unwrap().push(event);
    }
}
