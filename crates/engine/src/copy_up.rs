//! First use of a volume: what the image has at its mount point is copied into it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, fstat,
    mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Error, Result};

/// Two containers that start with one empty volume must not fill it at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Fills `data`, the directory of a volume, from `destination` in the layers `lower` (topmost first), unless there is
/// something in it already.
///
/// A marker beside the directory says that a copy has begun: one that a kill has cut short is done again.
pub(crate) fn copy_up(lower: &[PathBuf], destination: &str, data: &Path) -> Result<()> {
    let marker = data.with_file_name("copying");
    let is_empty =
        std::fs::read_dir(data).map_err(|error| Error::file("read volume", data, &error))?.next().is_none();
    if !is_empty && !marker.exists() {
        return Ok(());
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let failed = |error: io::Error| {
        Error::internal(format!("copy the image's {destination} to volume {}", data.display()), &error)
    };
    let root = merged(lower).map_err(|errno| failed(errno.into()))?;
    let source = openat2(
        &root,
        destination.trim_start_matches('/'),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let source = match source {
        Ok(source) => source,
        // Nothing there, or no directory: the volume stays empty.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(failed(errno.into())),
    };
    std::fs::write(&marker, "").map_err(|error| Error::file("write", &marker, &error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = openat(CWD, data, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    copy_directory(&source, &target).map_err(failed)?;
    std::fs::remove_file(&marker).map_err(|error| Error::file("remove", &marker, &error))
}

/// The layers as one tree, mounted nowhere: it lives as long as the descriptor.
pub(crate) fn merged(lower: &[PathBuf]) -> rustix::io::Result<OwnedFd> {
    let open =
        |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let layers: Vec<OwnedFd> = lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    if let [only] = layers.as_slice() {
        return only.try_clone().map_err(|_| Errno::MFILE);
    }
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in &layers {
        // By descriptor: fsconfig(2) takes 255 bytes at most, and paths may be longer.
        fsconfig_set_string(&context, c"lowerdir+", format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

fn copy_directory(source: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(source, target, name)?;
        }
    }
    let status = fstat(source)?;
    fchown(target, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))?;
    Ok(fchmod(target, Mode::from_raw_mode(status.st_mode))?)
}

fn copy_entry(source: &OwnedFd, target: &OwnedFd, name: &CStr) -> io::Result<()> {
    let status = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(status.st_mode);
    let owner = (Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)));
    let open = |at: &OwnedFd, flags: OFlags| {
        openat(at, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
    };
    let existing = |result: rustix::io::Result<()>| match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            existing(mkdirat(target, name, Mode::from_raw_mode(0o700)))?;
            let from = open(source, OFlags::RDONLY | OFlags::DIRECTORY)?;
            copy_directory(&from, &open(target, OFlags::RDONLY | OFlags::DIRECTORY)?)
        }
        FileType::RegularFile => {
            let mut from = File::from(open(source, OFlags::RDONLY)?);
            let mut to = File::from(open(target, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?);
            io::copy(&mut from, &mut to)?;
            fchown(to.as_fd(), owner.0, owner.1)?;
            Ok(fchmod(to.as_fd(), mode)?)
        }
        FileType::Symlink => {
            existing(symlinkat(readlinkat(source, name, Vec::new())?, target, name))?;
            Ok(chownat(target, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        kind => {
            existing(mknodat(target, name, kind, mode, status.st_rdev))?;
            Ok(chownat(target, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn empty_volume_is_filled_and_a_full_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir_all(layer.join("srv/sub")).unwrap();
        std::fs::write(layer.join("srv/sub/file"), "content").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", layer.join("srv/link")).unwrap();
        std::fs::set_permissions(layer.join("srv"), std::fs::Permissions::from_mode(0o750)).unwrap();
        let data = dir.path().join("volume/_data");
        std::fs::create_dir_all(&data).unwrap();
        copy_up(std::slice::from_ref(&layer), "/srv", &data).unwrap();
        assert_eq!(std::fs::read_to_string(data.join("sub/file")).unwrap(), "content");
        assert_eq!(std::fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o750);
        std::fs::write(layer.join("srv/late"), "").unwrap();
        copy_up(std::slice::from_ref(&layer), "/srv", &data).unwrap();
        assert!(!data.join("late").exists());
        // A copy that was cut short is done again.
        std::fs::write(data.with_file_name("copying"), "").unwrap();
        copy_up(&[layer], "/srv", &data).unwrap();
        assert!(data.join("late").exists());
    }
}
