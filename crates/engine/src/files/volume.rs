//! Files of a volume, without a container around them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, readlinkat, statat};
use skiff_images::archive::{Extract, Mounts, Overwrite, Packer, extract, open_inside, resolve};
use tokio::io::AsyncRead;

use super::archive::{Archive, ArchivePath, PathStat, extraction_point, locate, refused, words};
use super::transfer;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// As many files of a directory are listed.
const MOST: usize = 20_000;

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its name; bytes that are no text are replaced.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions as stat(2) has them.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was changed last, RFC 3339.
    pub modified: String,
    /// Where a link leads; empty for what is none.
    pub target: String,
}

/// A volume's directory, held open; one that is a mount stays mounted as long.
struct Opened {
    root: OwnedFd,
    engine: Engine,
    name: String,
    holder: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.engine.0.volumes.release(&self.name, &self.holder);
    }
}

impl Engine {
    /// Opens a volume. Blocks.
    fn open_volume(&self, name: &str) -> Result<Opened> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Containers' ids are hexadecimal: this is nobody's.
        let holder = format!("files-{}", LAST.fetch_add(1, Ordering::Relaxed));
        self.0.volumes.hold(name, &holder, None)?;
        let data = self.0.volumes.data(name);
        match open(&data) {
            Ok(root) => Ok(Opened { root, engine: self.clone(), name: name.to_owned(), holder }),
            Err(error) => {
                self.0.volumes.release(name, &holder);
                Err(error)
            }
        }
    }

    /// Lists a directory of a volume, in the order of the names, and says whether there is more.
    ///
    /// # Errors
    /// When there is no such volume, or no such directory in it.
    pub async fn volume_files(&self, name: &str, path: &str) -> Result<(Vec<VolumeFile>, bool)> {
        let (engine, name, path) = (self.clone(), name.to_owned(), path.to_owned());
        blocking(move || {
            let volume = engine.open_volume(&name)?;
            list(&volume.root, &path, &missing(&name, &path))
        })
        .await
    }

    /// Says what is at a path of a volume.
    ///
    /// # Errors
    /// When there is nothing.
    pub async fn volume_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let (engine, name, path) = (self.clone(), name.to_owned(), path.to_owned());
        blocking(move || {
            let volume = engine.open_volume(&name)?;
            locate(&volume.root, &ArchivePath::parse(&path), &missing(&name, &path)).map(|(_, stat)| stat)
        })
        .await
    }

    /// Reads what is at a path of a volume.
    ///
    /// # Errors
    /// When there is nothing.
    pub async fn volume_archive(&self, name: &str, path: &str) -> Result<Archive> {
        let (engine, name, path) = (self.clone(), name.to_owned(), path.to_owned());
        blocking(move || {
            let volume = engine.open_volume(&name)?;
            let parsed = ArchivePath::parse(&path);
            let (node, stat) = locate(&volume.root, &parsed, &missing(&name, &path))?;
            // The root has no name of its own: what is in it is what is wanted.
            let first = if stat.name == "/" { ".".to_owned() } else { stat.name.clone() };
            let bytes = transfer::stream(move |out| {
                let mut packer = Packer::new(out);
                packer.add(node, first.as_bytes(), Mounts::LeftOut)?;
                packer.finish()?;
                drop(volume);
                Ok(())
            })?;
            Ok(Archive { stat, bytes })
        })
        .await
    }

    /// Unpacks an archive in a directory of a volume.
    ///
    /// # Errors
    /// When there is no such volume or directory, or the archive is none. What was unpacked before stays.
    pub async fn put_volume_archive(
        &self,
        name: &str,
        path: &str,
        archive: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        let (engine, name, path) = (self.clone(), name.to_owned(), path.to_owned());
        transfer::receive(archive, move |source| {
            let volume = engine.open_volume(&name)?;
            let directory = extraction_point(&volume.root, &path, &missing(&name, &path))?;
            let how = Extract { directory: &directory, overwrite: Overwrite::Anything, owner: None };
            extract(std::io::BufReader::with_capacity(128 << 10, source), &volume.root, how)
                .map_err(|error| refused(&error))
        })
        .await
    }
}

fn missing(name: &str, path: &str) -> String {
    format!("Could not find the file {path} in volume {name}")
}

fn open(data: &Path) -> Result<OwnedFd> {
    rustix::fs::open(data, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::file("open", data, &errno.into()))
}

fn list(root: &OwnedFd, path: &str, missing: &str) -> Result<(Vec<VolumeFile>, bool)> {
    let failed = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::NOENT => Error::not_found(missing),
        errno => Error::invalid(format!("open {path}: {}", words(errno))),
    };
    let place = resolve(root, path.as_bytes()).map_err(failed)?;
    let directory = open_inside(root, &place, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let mut files = Vec::new();
    let mut cut = false;
    for entry in Dir::read_from(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if files.len() >= MOST {
            cut = true;
            break;
        }
        // What has gone in the meantime is not there.
        let Ok(status) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let target = match FileType::from_raw_mode(status.st_mode) {
            FileType::Symlink => readlinkat(&directory, name, Vec::new())
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default(),
            _ => String::new(),
        };
        let nanoseconds = i32::try_from(status.st_mtime_nsec).unwrap_or(0);
        files.push(VolumeFile {
            name: name.to_string_lossy().into_owned(),
            size: status.st_size,
            mode: status.st_mode,
            uid: status.st_uid,
            gid: status.st_gid,
            modified: jiff::Timestamp::new(status.st_mtime, nanoseconds).unwrap_or_default().to_string(),
            target,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((files, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_listed_without_leaving_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, outside) = (directory.path().join("volume"), directory.path().join("outside"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        std::fs::write(volume.join("b"), "four").unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("a")).unwrap();
        std::os::unix::fs::symlink("sub", volume.join("to-sub")).unwrap();
        let root = open(&volume).unwrap();
        let (files, cut) = list(&root, "/", "missing").unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!((names.as_slice(), cut), (["a", "b", "sub", "to-sub"].as_slice(), false));
        assert_eq!(files[0].target, outside.to_str().unwrap());
        assert_eq!(files[1].size, 4);
        assert!(list(&root, "/to-sub", "missing").unwrap().0.is_empty());
        assert_eq!(list(&root, "/../../outside", "missing").unwrap_err().to_string(), "missing");
        assert!(list(&root, "/a", "missing").is_err());
        assert!(list(&root, "/b", "missing").unwrap_err().to_string().contains("not a directory"));
    }
}
