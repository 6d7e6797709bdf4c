//! Go's `os.FileMode`, which is what file modes are on this wire: the permission bits are Unix', the others are not.

use rustix::fs::FileType;

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;

/// A file's type and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// What it is.
    pub kind: FileType,
    /// The lower twelve bits as Unix has them.
    pub permissions: u32,
}

impl Mode {
    /// Reads a mode from the wire; `None` when its type bits make no file type.
    pub fn from_go(mode: u32) -> Option<Self> {
        let kind = match mode & TYPE {
            0 => FileType::RegularFile,
            DIR => FileType::Directory,
            SYMLINK => FileType::Symlink,
            DEVICE => FileType::BlockDevice,
            both if both == DEVICE | CHAR_DEVICE => FileType::CharacterDevice,
            NAMED_PIPE => FileType::Fifo,
            SOCKET => FileType::Socket,
            _ => return None,
        };
        let mut permissions = mode & 0o777;
        for (theirs, ours) in [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)] {
            if mode & theirs != 0 {
                permissions |= ours;
            }
        }
        Some(Self { kind, permissions })
    }

    /// Reads `st_mode`.
    pub fn from_unix(mode: u32) -> Self {
        Self { kind: FileType::from_raw_mode(mode), permissions: mode & 0o7777 }
    }

    /// Writes a mode for the wire.
    pub fn to_go(self) -> u32 {
        let mut mode = self.permissions & 0o777;
        for (theirs, ours) in [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)] {
            if self.permissions & ours != 0 {
                mode |= theirs;
            }
        }
        mode | match self.kind {
            FileType::RegularFile => 0,
            FileType::Directory => DIR,
            FileType::Symlink => SYMLINK,
            FileType::BlockDevice => DEVICE,
            FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
            FileType::Fifo => NAMED_PIPE,
            FileType::Socket => SOCKET,
            _ => IRREGULAR,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_setuid_file_and_a_sticky_directory_are_what_go_writes() {
        let file = Mode { kind: FileType::RegularFile, permissions: 0o4755 };
        assert_eq!(file.to_go(), 0x80_01ed);
        let tmp = Mode { kind: FileType::Directory, permissions: 0o1777 };
        assert_eq!(tmp.to_go(), 0x8010_01ff);
        assert_eq!(Mode::from_go(0x8010_01ff), Some(tmp));
        assert_eq!(Mode::from_go(0x0800_01ff).map(|mode| mode.kind), Some(FileType::Symlink));
        assert_eq!(Mode::from_go(DIR | SYMLINK), None);
    }

    proptest! {
        #[test]
        fn a_mode_that_is_read_is_written_as_it_was(mode: u32) {
            if let Some(read) = Mode::from_go(mode) {
                prop_assert_eq!(Mode::from_go(read.to_go()), Some(read));
                prop_assert!(read.permissions <= 0o7777);
            }
        }
    }
}
