//! `desktop.json`: what the window remembers.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::frame::Frame;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// What is kept from one start to the next. What is missing has its default, what is unknown is left alone by being ignored:
/// an older window must not lose what a newer one wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Whether containers that end badly are told of.
    pub notifications: bool,
    /// Whether closing the window leaves the program in the tray.
    pub keep_in_tray: bool,
    /// Where the window was.
    pub frame: Option<Frame>,
    /// Whether it filled the screen.
    pub maximized: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { notifications: true, keep_in_tray: false, frame: None, maximized: false }
    }
}

impl Memory {
    /// Reads the file. One that is missing, or makes no sense, is as a first start: a window that does not open because of
    /// where it was yesterday helps nobody.
    pub fn read(path: &Path) -> Self {
        let read = || -> io::Result<Self> {
            let file = std::fs::File::open(path)?;
            Ok(serde_json::from_reader(io::Read::take(file, LONGEST))?)
        };
        read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "what the window remembered can't be read");
            }
            Self::default()
        })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`] when it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        replace(path, &text)
    }
}

/// Puts a file in the place of another.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new: PathBuf = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&new);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_makes_no_sense_is_a_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desktop.json");
        assert_eq!(Memory::read(&path), Memory::default());
        let frame = Some(Frame { x: -5, y: 7, width: 900, height: 600 });
        let memory = Memory { notifications: false, keep_in_tray: true, frame, maximized: true };
        memory.write(&path).unwrap();
        assert_eq!(Memory::read(&path), memory);
        std::fs::write(&path, r#"{"notifications": false, "later": [1]}"#).unwrap();
        assert_eq!(Memory::read(&path), Memory { notifications: false, ..Memory::default() });
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Memory::read(&path), Memory::default());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
        assert!(memory.write(&dir.path().join("none/desktop.json")).is_err());
    }
}
