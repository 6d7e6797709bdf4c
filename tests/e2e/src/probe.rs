//! What the probe in containers and the servers of the scenarios agree on.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use skiff_testkit::Image;
use skiff_testkit::image::{Compression, Layer};

/// Where the probe is in its image.
pub const PROBE: &str = "/bin/skiff-probe";

/// Bytes of each big transfer.
const TRANSFER: u64 = 256 << 20;

/// How many bytes a big transfer has: 256 MiB, or as many as `SKIFF_TRANSFER_BYTES` says.
pub fn transfer_size() -> u64 {
    std::env::var("SKIFF_TRANSFER_BYTES").ok().and_then(|size| size.parse().ok()).unwrap_or(TRANSFER)
}

/// A prime number of bytes: what is lost shifts everything after it.
const BLOCK: usize = 1_000_003;

/// A long row of bytes in which lost, doubled and exchanged ones are noticed: the same noise again and again.
#[derive(Debug)]
pub struct Pattern {
    block: Vec<u8>,
    place: u64,
}

impl Default for Pattern {
    fn default() -> Self {
        Self { block: skiff_testkit::image::noise(BLOCK, 7), place: 0 }
    }
}

impl Pattern {
    /// The longest part of the block that comes next.
    fn next(&mut self, most: usize) -> &[u8] {
        let start = (self.place % BLOCK as u64) as usize;
        let length = most.min(BLOCK - start);
        self.place += length as u64;
        &self.block[start..start + length]
    }

    /// Whether the next bytes are these.
    pub fn matches(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len());
            let (these, rest) = bytes.split_at(expected.len());
            if these != expected {
                return false;
            }
            bytes = rest;
        }
        true
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&mut self, to: &mut impl Write, count: u64) -> io::Result<()> {
        let end = self.place + count;
        while self.place < end {
            let most = (end - self.place).min(256 * 1024) as usize;
            to.write_all(self.next(most))?;
        }
        Ok(())
    }

    /// How many bytes were written or compared.
    pub fn place(&self) -> u64 {
        self.place
    }
}

/// An error in the words in which this host and a container are compared.
pub fn outcome(error: &io::Error) -> String {
    match error.kind() {
        // A socket's own patience and the system's have different names.
        io::ErrorKind::WouldBlock => "TimedOut".to_owned(),
        io::ErrorKind::Other => error.to_string(),
        kind => format!("{kind:?}"),
    }
}

/// A DNS answer: its code, whether it was cut, and the data of each record.
pub fn describe(answer: &[u8], question: usize) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let mut text = format!("code {}", word(2)? & 0x0f);
    if word(2)? & 0x0200 != 0 {
        text.push_str(" cut");
    }
    let mut at = question;
    for _ in 0..word(6)? {
        // Names of records are pointers, or labels.
        while !matches!(*answer.get(at)?, 0 | 0xc0..) {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let length = usize::from(word(at + 8)?);
        let _ = write!(text, " {}:", word(at)?);
        answer.get(at + 10..at + 10 + length)?.iter().for_each(|byte| {
            let _ = write!(text, "{byte:02x}");
        });
        at += 10 + length;
    }
    Some(text)
}

/// Busybox and the probe, with the libraries that it wants.
///
/// # Errors
/// When the probe was not built beside the tests.
pub fn image() -> anyhow::Result<Image> {
    let own = std::env::current_exe().context("this program has a path")?;
    let beside: Vec<PathBuf> =
        own.ancestors().skip(1).take(2).map(|directory| directory.join("skiff-probe")).collect();
    let probe =
        beside.into_iter().find(|path| path.is_file()).context("skiff-probe is not beside the tests")?;
    let mut layer = Layer::new().file(PROBE.trim_start_matches('/'), 0o755, &std::fs::read(&probe)?);
    let listed = Command::new("ldd").arg(&probe).output().context("start ldd")?;
    for word in
        String::from_utf8_lossy(&listed.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let bytes = std::fs::read(word).with_context(|| format!("read {word}"))?;
        layer = layer.file(word.trim_start_matches('/'), 0o755, &bytes);
    }
    Ok(Image::busybox()?.with_layer(layer, Compression::None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_notices_what_is_lost_or_exchanged() {
        let mut bytes = Vec::new();
        Pattern::default().write(&mut bytes, 2_600_000).unwrap();
        assert!(Pattern::default().matches(&bytes));
        let mut exchanged = bytes.clone();
        exchanged[70_000] ^= 1;
        assert!(!Pattern::default().matches(&exchanged));
        bytes.remove(300_000);
        assert!(!Pattern::default().matches(&bytes));
    }
}
