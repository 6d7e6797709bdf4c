//! The data disk: a sparse copy of the image's template, made longer to the size the user allows.
//!
//! The guest grows the file system to the length of the file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::Error;

/// Unit of the sparse copy; blocks of zeros become holes.
const BLOCK: usize = 64 << 10;

/// Sizes of the data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSize {
    /// What the guest sees, in bytes.
    pub length: u64,
    /// What the host has given, in bytes.
    pub used: u64,
}

impl DiskSize {
    /// Looks at the disk; none when there is none yet.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let used = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        let used = metadata.len();
        Some(Self { length: metadata.len(), used })
    }
}

/// Makes the disk if it is missing, and makes it longer if the settings ask for that.
pub(crate) fn prepare(
    disk: &Path,
    template: impl FnOnce() -> Result<PathBuf, Error>,
    disk_gib: u64,
) -> Result<(), Error> {
    let wanted = disk_gib.saturating_mul(1 << 30);
    match std::fs::metadata(disk) {
        Ok(metadata) => grow(disk, metadata.len(), wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let template = template()?;
            create(disk, &template, wanted)
        }
        Err(source) => Err(file_error("read", disk, source)),
    }
}

fn grow(disk: &Path, length: u64, wanted: u64) -> Result<(), Error> {
    if wanted < length {
        return Err(Error::DiskShrink { path: disk.to_owned(), length, wanted });
    }
    if wanted > length {
        tracing::info!(length, wanted, "data disk grows");
        let file =
            File::options().write(true).open(disk).map_err(|source| file_error("open", disk, source))?;
        file.set_len(wanted).map_err(|source| file_error("grow", disk, source))?;
    }
    Ok(())
}

/// Copies under another name and renames at the end: a disk that exists is whole.
fn create(disk: &Path, template: &Path, wanted: u64) -> Result<(), Error> {
    let staging = disk.with_extension("new");
    tracing::info!(path = %disk.display(), "data disk is made");
    let result = (|| {
        let mut source = File::open(template).map_err(|source| file_error("open", template, source))?;
        let length = source.metadata().map_err(|source| file_error("read", template, source))?.len();
        if wanted < length {
            return Err(Error::DiskShrink { path: disk.to_owned(), length, wanted });
        }
        let failed = |source| file_error("write", &staging, source);
        let mut target = File::create(&staging).map_err(failed)?;
        make_sparse(&staging);
        copy_sparse(&mut source, &mut target).map_err(failed)?;
        target.set_len(wanted).map_err(failed)?;
        target.sync_all().map_err(failed)?;
        std::fs::rename(&staging, disk).map_err(|source| file_error("rename", &staging, source))
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&staging);
    }
    result
}

fn copy_sparse(source: &mut File, target: &mut File) -> io::Result<()> {
    let mut buffer = vec![0_u8; BLOCK];
    loop {
        let count = read_full(source, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let data = &buffer[..count];
        if data.iter().all(|byte| *byte == 0) {
            target.seek(SeekFrom::Current(count as i64))?;
        } else {
            target.write_all(data)?;
        }
    }
}

fn read_full(source: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// NTFS keeps holes only in files that are marked so; elsewhere holes need nothing.
fn make_sparse(path: &Path) {
    if cfg!(windows) {
        let marked = std::process::Command::new("fsutil").args(["sparse", "setflag"]).arg(path).status();
        if !marked.is_ok_and(|status| status.success()) {
            tracing::warn!(path = %path.display(), "data disk is not sparse");
        }
    }
}

fn file_error(op: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(dir: &Path) -> PathBuf {
        let path = dir.join("data.ext4");
        let mut file = File::create(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        file.seek(SeekFrom::Start(3 << 20)).unwrap();
        file.write_all(b"superblock").unwrap();
        path
    }

    #[test]
    fn disk_is_a_sparse_copy_and_grows_but_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        let made_from = template(dir.path());
        prepare(&disk, || Ok(made_from), 2).unwrap();
        let size = DiskSize::of(&disk).unwrap();
        assert_eq!(size.length, 2 << 30);
        assert!(size.used < 1 << 20, "{size:?}");
        let mut bytes = [0; 10];
        let mut file = File::open(&disk).unwrap();
        file.seek(SeekFrom::Start(3 << 20)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"superblock");
        assert!(!dir.path().join("disk.new").exists());

        prepare(&disk, || panic!("the template is for the first start only"), 4).unwrap();
        assert_eq!(DiskSize::of(&disk).unwrap().length, 4 << 30);
        let error = prepare(&disk, || panic!("not needed"), 3).unwrap_err();
        assert!(error.to_string().ends_with("is 4 GiB, the settings ask for 3 GiB"), "{error}");
        assert_eq!(DiskSize::of(&disk).unwrap().length, 4 << 30);
    }

    #[test]
    fn half_made_disk_is_made_anew_and_a_failed_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        std::fs::write(dir.path().join("disk.new"), b"half").unwrap();
        assert!(prepare(&disk, || Ok(dir.path().join("none")), 1).is_err());
        assert!(!disk.exists() && !dir.path().join("disk.new").exists());
        let made_from = template(dir.path());
        prepare(&disk, || Ok(made_from), 1).unwrap();
        assert_eq!(DiskSize::of(&disk).unwrap().length, 1 << 30);
    }
}
