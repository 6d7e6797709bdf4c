//! A file that is hashed while it is written.

use std::fs::File;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Writes to a file, and hashes and counts what it writes.
pub(crate) struct HashedFile {
    file: File,
    hasher: Sha256,
    written: u64,
}

impl HashedFile {
    pub fn new(file: File) -> Self {
        Self { file, hasher: Sha256::new(), written: 0 }
    }

    /// Returns digest and size of what was written.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hasher), self.written)
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
