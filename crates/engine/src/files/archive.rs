//! Copies in and out of a container: `docker cp`.

use std::io::BufReader;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use skiff_images::archive::{Extract, Mounts, Overwrite, Packer, extract, open_inside, resolve};
use skiff_images::layer::LayerError;
use tokio::io::AsyncRead;

use super::transfer::{self, ByteStream};
use super::view::{Part, View};
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result, chain};
use crate::state::Record;

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions as stat(2) has them.
    pub mode: u32,
    /// When it was changed last, RFC 3339.
    pub modified: String,
    /// Where a link leads in the end, else empty.
    pub link_target: String,
}

/// Files on their way out.
pub struct Archive {
    /// What is at the path.
    pub stat: PathStat,
    /// A tar stream.
    pub bytes: ByteStream,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("stat", &self.stat).finish_non_exhaustive()
    }
}

/// How files are put into a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutArchive {
    /// The directory that they go to.
    pub path: String,
    /// Everything shall belong to the container's user.
    pub copy_owner: bool,
    /// A directory may not take the place of something else, and the other way round.
    pub keep_kinds: bool,
}

/// A path as its user wrote it, taken apart as Docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePath {
    /// From the slash on, without dots.
    clean: String,
    /// What was written after it: nothing, `/` or `/.`.
    suffix: &'static str,
}

impl ArchivePath {
    /// Takes a path apart; a relative one counts from the root.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let suffix = match path.rsplit('/').next() {
            _ if parts.is_empty() => "",
            Some(".") => "/.",
            Some("") if path.len() > 1 => "/",
            _ => "",
        };
        Self { clean: format!("/{}", parts.join("/")), suffix }
    }

    /// The name that the archive gives it.
    fn name(&self) -> &str {
        match (self.suffix, self.clean.as_str()) {
            ("/.", _) => ".",
            (_, "/") => "/",
            (_, path) => path.rsplit('/').next().unwrap_or(path),
        }
    }

    fn whole(&self) -> String {
        format!("{}{}", self.clean, self.suffix)
    }
}

impl Engine {
    /// Says what is at a path of a container.
    ///
    /// # Errors
    /// When there is nothing.
    pub async fn container_path(&self, id: &str, path: &str) -> Result<PathStat> {
        let container = self.container(id)?;
        let view = self.view(&container, Part::Everything).await?;
        let missing = missing(id, path);
        let path = ArchivePath::parse(path);
        blocking(move || locate(&view.root, &path, &missing).map(|(_, stat)| stat)).await
    }

    /// Reads what is at a path of a container.
    ///
    /// # Errors
    /// When there is nothing.
    pub async fn container_archive(&self, id: &str, path: &str) -> Result<Archive> {
        let container = self.container(id)?;
        let view = self.view(&container, Part::Everything).await?;
        let missing = missing(id, path);
        let path = ArchivePath::parse(path);
        let archive = blocking(move || {
            let (node, stat) = locate(&view.root, &path, &missing)?;
            let name = path.name().to_owned();
            let bytes = transfer::stream(move |out| {
                let mut packer = Packer::new(out);
                packer.add(node, name.as_bytes(), Mounts::Included)?;
                packer.finish()?;
                drop(view);
                Ok(())
            })?;
            Ok(Archive { stat, bytes })
        })
        .await?;
        self.container_event(&container.record(), "archive-path", &[]);
        Ok(archive)
    }

    /// Unpacks an archive in a directory of a container.
    ///
    /// # Errors
    /// When there is no such directory, it is read-only, or the archive is none. What was unpacked before stays.
    pub async fn put_container_archive(
        &self,
        id: &str,
        options: PutArchive,
        archive: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        let container = self.container(id)?;
        let view = self.view(&container, Part::Everything).await?;
        let record = container.record();
        let missing = missing(id, &options.path);
        let config = std::sync::Arc::clone(&record);
        transfer::receive(archive, move |source| {
            let directory = directory(&view, &config, &options.path, &missing)?;
            let owner =
                match config.config.user.as_deref().filter(|user| options.copy_owner && !user.is_empty()) {
                    Some(user) => Some(owner(&view, user)?),
                    None => None,
                };
            let overwrite = if options.keep_kinds { Overwrite::SameKind } else { Overwrite::Anything };
            let how = Extract { directory: &directory, overwrite, owner };
            extract(BufReader::with_capacity(128 << 10, source), &view.root, how)
                .map_err(|error| refused(&error))
        })
        .await?;
        self.container_event(&record, "extract-to-dir", &[]);
        Ok(())
    }

    /// Reads the whole root file system of a container, without what is mounted in it.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn export_container(&self, id: &str) -> Result<ByteStream> {
        let container = self.container(id)?;
        let view = self.view(&container, Part::RootFs).await?;
        let bytes = transfer::stream(move |out| {
            let mut packer = Packer::new(out);
            let View { root, .. } = &view;
            packer.add(root.try_clone()?, b"", Mounts::LeftOut)?;
            packer.finish()?;
            drop(view);
            Ok(())
        })?;
        self.container_event(&container.record(), "export", &[]);
        Ok(bytes)
    }
}

fn missing(id: &str, path: &str) -> String {
    format!("Could not find the file {path} in container {id}")
}

/// Opens what is at a path, not following a link at its end.
pub(super) fn locate(root: &OwnedFd, path: &ArchivePath, missing: &str) -> Result<(OwnedFd, PathStat)> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT => Error::not_found(missing),
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => {
            Error::invalid(format!("lstat {}: {}", path.whole(), words(errno)))
        }
        errno => Error::internal(format!("lstat {}", path.whole()), &std::io::Error::from(errno)),
    };
    let node = open_inside(root, path.whole().as_bytes(), OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
    let status = rustix::fs::fstat(&node).map_err(failed)?;
    let link_target = match FileType::from_raw_mode(status.st_mode) {
        FileType::Symlink => {
            let target = resolve(root, path.clean.as_bytes()).map_err(failed)?;
            String::from_utf8_lossy(&target).into_owned()
        }
        _ => String::new(),
    };
    let nanoseconds = i32::try_from(status.st_mtime_nsec).unwrap_or(0);
    let modified = jiff::Timestamp::new(status.st_mtime, nanoseconds).unwrap_or_default();
    let stat = PathStat {
        name: path.name().to_owned(),
        size: status.st_size,
        mode: status.st_mode,
        modified: modified.to_string(),
        link_target,
    };
    Ok((node, stat))
}

/// Finds the directory that an archive goes to and checks that it may.
fn directory(view: &View, record: &Record, path: &str, missing: &str) -> Result<Vec<u8>> {
    let directory = extraction_point(&view.root, path, missing)?;
    check_writable(record, &String::from_utf8_lossy(&directory))?;
    Ok(directory)
}

/// Finds the directory that an archive goes to.
pub(super) fn extraction_point(root: &OwnedFd, path: &str, missing: &str) -> Result<Vec<u8>> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT => Error::not_found(missing),
        errno => Error::invalid(format!("lstat {path}: {}", words(errno))),
    };
    let directory = resolve(root, ArchivePath::parse(path).clean.as_bytes()).map_err(failed)?;
    let node = open_inside(root, &directory, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
    let status = rustix::fs::fstat(&node).map_err(failed)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Err(Error::invalid("extraction point is not a directory"));
    }
    Ok(directory)
}

fn check_writable(record: &Record, path: &str) -> Result<()> {
    let below = |destination: &str| {
        path.strip_prefix(destination.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounts = record.mounts.iter().filter(|mount| below(&mount.destination));
    match mounts.max_by_key(|mount| mount.destination.len()) {
        Some(mount) if mount.writable => Ok(()),
        Some(_) => Err(Error::invalid("mounted volume is marked read-only")),
        None if record.host_config.readonly_rootfs == Some(true) => {
            Err(Error::invalid("container rootfs is marked read-only"))
        }
        None => Ok(()),
    }
}

/// The numbers of the container's user, by the container's own files.
fn owner(view: &View, user: &str) -> Result<(u32, u32)> {
    let open = |file: &str| {
        let node = open_inside(&view.root, file.as_bytes(), OFlags::PATH)?;
        let status = rustix::fs::fstat(&node)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        use std::os::fd::AsRawFd;
        std::fs::File::open(format!("/proc/self/fd/{}", node.as_raw_fd()))
    };
    let identity = skiff_runtime::user::resolve(open, user, &[]);
    identity.map(|identity| (identity.uid, identity.gid)).map_err(|error| Error::invalid(chain(&error)))
}

pub(super) fn refused(error: &LayerError) -> Error {
    match error {
        LayerError::Storage { cause, .. } => {
            let full = std::io::ErrorKind::StorageFull;
            let code = if cause.kind() == full { Code::Unavailable } else { Code::Internal };
            Error::new(code, error.to_string())
        }
        error => Error::invalid(error.to_string()),
    }
}

pub(super) fn words(errno: Errno) -> String {
    crate::volumes::words_of(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_keep_their_ends() {
        for (path, whole, name) in [
            ("/", "/", "/"),
            ("", "/", "/"),
            (".", "/", "/"),
            ("etc/passwd", "/etc/passwd", "passwd"),
            ("/a/../b//c", "/b/c", "c"),
            ("/../../x", "/x", "x"),
            ("/dir/", "/dir/", "dir"),
            ("/dir/.", "/dir/.", "."),
            ("/dir/x/..", "/dir", "dir"),
        ] {
            let parsed = ArchivePath::parse(path);
            assert_eq!((parsed.whole().as_str(), parsed.name()), (whole, name), "{path}");
        }
    }
}
