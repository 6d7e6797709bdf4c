//! Sources of bind mounts: paths of the host, which need not be this machine.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::state::{Mount, MountKind, Record};

/// Where a path that a client named is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On this machine.
    Here(PathBuf),
    /// In a directory of the host that is mounted on this machine.
    Shared {
        /// Where it is mounted.
        root: PathBuf,
        /// The path below it, which leads through no symlinks.
        relative: PathBuf,
    },
}

/// Why a path can't be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// The reason and the way out, in words for the user.
    pub message: String,
}

/// Knows where the paths are that clients name as sources of bind mounts.
#[async_trait]
pub trait Sources: Send + Sync {
    /// Finds a path. When this returns, whatever was changed on the host before is seen on this machine.
    async fn locate(&self, path: &str) -> Result<Source, SourceError>;
}

/// Every path is of this machine: the engine runs where its users are.
#[derive(Debug, Default)]
pub struct LocalSources;

#[async_trait]
impl Sources for LocalSources {
    async fn locate(&self, path: &str) -> Result<Source, SourceError> {
        Ok(Source::Here(PathBuf::from(path)))
    }
}

const HELD: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Engine {
    fn locate(&self, mount: &Mount) -> Result<Source> {
        let located = self.0.runtime.block_on(self.0.config.sources.locate(&mount.source));
        located.map_err(|error| Error::new(Code::Forbidden, error.message))
    }

    /// Refuses binds of what is not shared, and those of what is not there where the client wants that. Blocks.
    pub(crate) fn check_sources(&self, mounts: &[Mount]) -> Result<()> {
        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
            let there = match self.locate(mount)? {
                Source::Here(path) => path.exists(),
                Source::Shared { root, relative } => match open_shared(&root, &relative) {
                    Err(Errno::NOENT) => false,
                    Err(errno) => return Err(unusable(mount, errno)),
                    Ok(_) => true,
                },
            };
            if mount.strict && !there {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    mount.source
                )));
            }
        }
        Ok(())
    }

    /// Makes the source of a bind, as Docker does, if it is missing and may be; opens it if it is no path of this machine
    /// under its own name. Blocks.
    pub(crate) fn open_source(&self, mount: &Mount) -> Result<Option<OwnedFd>> {
        let (root, relative) = match self.locate(mount)? {
            Source::Here(path) => {
                if !mount.strict && !path.exists() {
                    std::fs::create_dir_all(&path).map_err(|error| cannot_make(mount, &error))?;
                }
                if path == Path::new(&mount.source) {
                    return Ok(None);
                }
                return openat(CWD, &path, HELD, Mode::empty())
                    .map(Some)
                    .map_err(|errno| unusable(mount, errno));
            }
            Source::Shared { root, relative } => (root, relative),
        };
        match open_shared(&root, &relative) {
            Err(Errno::NOENT) if !mount.strict => {
                make_shared(&root, &relative).map_err(|errno| cannot_make(mount, &errno.into()))?;
                open_shared(&root, &relative)
            }
            other => other,
        }
        .map(Some)
        .map_err(|errno| unusable(mount, errno))
    }

    /// Opens the directory that a volume binds (`o=bind`), if it is no path of this machine. Blocks.
    pub(crate) fn open_device(&self, volume: &str) -> Result<Option<OwnedFd>> {
        let Some(record) = self.0.volumes.get(volume) else { return Ok(None) };
        let option = |name: &str| record.options.get(name).map_or("", String::as_str);
        let device = option("device");
        let binds = option("o").split(',').any(|word| matches!(word, "bind" | "rbind"));
        if !binds || !device.starts_with('/') {
            return Ok(None);
        }
        let failed = |why: String| {
            let message =
                format!("error while mounting volume '{volume}': failed to mount local volume: {why}");
            Error::new(Code::Internal, message)
        };
        let located = self.0.runtime.block_on(self.0.config.sources.locate(device));
        match located.map_err(|error| failed(error.message))? {
            Source::Here(_) => Ok(None),
            Source::Shared { root, relative } => {
                let opened = open_shared(&root, &relative);
                opened
                    .map(Some)
                    .map_err(|errno| failed(format!("mount {device}: {}", crate::volumes::words_of(errno))))
            }
        }
    }

    /// Waits until a container's binds show what was changed on the host before.
    pub(crate) async fn settle_sources(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
            // The container runs with it: whether the host still shares it matters no more.
            let _ = self.0.config.sources.locate(&mount.source).await;
        }
    }
}

fn unusable(mount: &Mount, errno: Errno) -> Error {
    let why = crate::volumes::words_of(errno);
    Error::new(Code::Internal, format!("error while mounting '{}': {why}", mount.source))
}

fn cannot_make(mount: &Mount, error: &std::io::Error) -> Error {
    let message = format!("error while creating mount source path '{}': {error}", mount.source);
    Error::new(Code::Internal, message)
}

/// The host has resolved the path's links: one that appears now is somebody's trick.
const STAY: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

fn open_shared(root: &Path, relative: &Path) -> Result<OwnedFd, Errno> {
    let root = openat(CWD, root, HELD | OFlags::DIRECTORY, Mode::empty())?;
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    openat2(&root, relative, HELD, Mode::empty(), STAY)
}

fn make_shared(root: &Path, relative: &Path) -> Result<(), Errno> {
    let mut at = openat(CWD, root, HELD | OFlags::DIRECTORY, Mode::empty())?;
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(Errno::INVAL) };
        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        at = openat2(&at, name, HELD, Mode::empty(), STAY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_made_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        make_shared(root.path(), Path::new("a/b")).unwrap();
        make_shared(root.path(), Path::new("a/b")).unwrap();
        open_shared(root.path(), Path::new("a/b")).unwrap();
        open_shared(root.path(), Path::new("")).unwrap();
        assert_eq!(open_shared(root.path(), Path::new("a/c")).unwrap_err(), Errno::NOENT);
        assert_eq!(open_shared(root.path(), Path::new("link/x")).unwrap_err(), Errno::LOOP);
        assert_eq!(make_shared(root.path(), Path::new("link/x")).unwrap_err(), Errno::LOOP);
        assert_eq!(make_shared(root.path(), Path::new("../x")).unwrap_err(), Errno::INVAL);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
