//! Decoding of requests. Everything is checked: what comes may be hostile.

use super::{IN_HEADER, MAX_NAME};
use crate::errno::{Errno, Result};

/// `fuse_in_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole request.
    pub len: u32,
    /// What is asked for.
    pub opcode: u32,
    /// Number that the answer repeats.
    pub unique: u64,
    /// The file that it is about.
    pub nodeid: u64,
    /// Who asks.
    pub uid: u32,
    /// Who asks.
    pub gid: u32,
    /// The thread that asks, as the mounting process sees it.
    pub pid: u32,
}

impl Header {
    /// Reads the header of a request.
    pub fn decode(bytes: &[u8; IN_HEADER]) -> Header {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Header {
            len: word(0),
            opcode: word(4),
            unique: long(8),
            nodeid: long(16),
            uid: word(24),
            gid: word(28),
            pid: word(32),
        }
    }
}

/// The arguments of a request, read from front to back.
#[derive(Debug, Clone)]
pub struct In<'a> {
    rest: &'a [u8],
}

impl<'a> In<'a> {
    /// Begins behind the header.
    pub fn new(bytes: &'a [u8]) -> In<'a> {
        In { rest: bytes }
    }

    /// Takes so many bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over so many bytes.
    pub fn skip(&mut self, count: usize) -> Result<()> {
        self.bytes(count).map(drop)
    }

    /// Takes a 32-bit number.
    pub fn u32(&mut self) -> Result<u32> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*taken))
    }

    /// Takes a 64-bit number.
    pub fn u64(&mut self) -> Result<u64> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*taken))
    }

    /// Takes bytes up to a NUL, which must be there.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// Takes the name of a directory entry: one that leads nowhere but into its directory.
    pub fn name(&mut self) -> Result<&'a [u8]> {
        let name = self.text()?;
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// `fuse_setattr_in`.
#[derive(Debug, Clone, Copy)]
pub struct SetAttr {
    /// Which of the others count (`fattr`).
    pub valid: u32,
    /// An open file.
    pub fh: u64,
    /// New length.
    pub size: u64,
    /// New time of last access, seconds and nanoseconds.
    pub atime: (u64, u32),
    /// New time of last change of content.
    pub mtime: (u64, u32),
    /// New permissions.
    pub mode: u32,
    /// New owner.
    pub uid: u32,
    /// New group.
    pub gid: u32,
}

impl SetAttr {
    /// Reads the arguments.
    pub fn decode(input: &mut In<'_>) -> Result<SetAttr> {
        let valid = input.u32()?;
        input.skip(4)?;
        let fh = input.u64()?;
        let size = input.u64()?;
        input.skip(8)?;
        let (atime, mtime) = (input.u64()?, input.u64()?);
        input.skip(8)?;
        let (atime_nanos, mtime_nanos) = (input.u32()?, input.u32()?);
        input.skip(4)?;
        let mode = input.u32()?;
        input.skip(4)?;
        let (uid, gid) = (input.u32()?, input.u32()?);
        input.skip(4)?;
        Ok(SetAttr {
            valid,
            fh,
            size,
            atime: (atime, atime_nanos),
            mtime: (mtime, mtime_nanos),
            mode,
            uid,
            gid,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"unended"] {
            assert_eq!(In::new(bad).name(), Err(Errno::INVAL), "{bad:?}");
        }
        let long = [b'x'; 256].into_iter().chain([0]).collect::<Vec<_>>();
        assert_eq!(In::new(&long).name(), Err(Errno::NAMETOOLONG));
        assert_eq!(In::new(b"...\0rest").name(), Ok(&b"..."[..]));
    }

    proptest! {
        #[test]
        fn any_arguments_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SetAttr::decode(&mut In::new(&bytes));
            if let Ok(name) = In::new(&bytes).name() {
                prop_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"..");
            }
        }
    }
}
