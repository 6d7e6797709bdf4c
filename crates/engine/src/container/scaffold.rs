//! What Docker puts below every container's own files, whatever the image has there.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Tells programs that they are in a container.
const MARK: &str = ".dockerenv";
/// Directories that something is mounted on or in: an image may have files or symlinks there.
const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];

/// Prepares the upper directory of a new container over the layers `lower`, topmost first.
pub(super) fn make(upper: &Path, lower: &[PathBuf]) -> Result<()> {
    if top(lower, MARK).is_none() {
        let path = upper.join(MARK);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path);
        made.map_err(|error| Error::file("create", &path, &error))?;
    }
    for name in DIRECTORIES {
        if top(lower, name).is_some_and(|metadata| !metadata.is_dir()) {
            let path = upper.join(name);
            let made = DirBuilder::new().mode(0o755).create(&path);
            made.map_err(|error| Error::file("create", &path, &error))?;
        }
    }
    Ok(())
}

/// What the layers together have under a name in their root.
fn top(lower: &[PathBuf], name: &str) -> Option<std::fs::Metadata> {
    let found = lower.iter().find_map(|layer| std::fs::symlink_metadata(layer.join(name)).ok())?;
    // A character device 0:0 is overlayfs's way to say that there is nothing.
    let is_whiteout = found.file_type().is_char_device() && found.rdev() == 0;
    (!is_whiteout).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_directory_is_covered_by_one_and_the_mark_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let [upper, high, low] = ["upper", "high", "low"].map(|name| scratch.path().join(name));
        for dir in [&upper, &high.join("dev"), &low] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::os::unix::fs::symlink("/tmp", high.join("proc")).unwrap();
        std::fs::write(low.join("sys"), "").unwrap();
        std::fs::write(low.join("dev"), "").unwrap();
        make(&upper, &[high, low]).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".dockerenv", "proc", "sys"]);
        assert!(upper.join("proc").symlink_metadata().unwrap().is_dir());
    }

    #[test]
    fn an_images_own_mark_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let [upper, low] = ["upper", "low"].map(|name| scratch.path().join(name));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&low).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", low.join(MARK)).unwrap();
        make(&upper, &[low]).unwrap();
        assert!(!upper.join(MARK).exists());
    }
}
