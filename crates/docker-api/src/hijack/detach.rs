//! The keys that detach a terminal (`ctrl-p,ctrl-q`), and watching for them in what is typed.

use thiserror::Error;

/// `ctrl-p,ctrl-q`.
pub(crate) const DEFAULT: &[u8] = &[16, 17];

/// A key that Docker's notation doesn't have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Unknown character: '{key}'")]
pub(crate) struct UnknownKey {
    key: String,
}

/// Turns Docker's notation into the bytes that a terminal sends.
///
/// Keys are separated by commas; each is one ASCII character or `ctrl-` and one of `a`–`z @ [ \ ] ^ _`.
pub(crate) fn parse(keys: &str) -> Result<Vec<u8>, UnknownKey> {
    keys.split(',').map(byte).collect()
}

fn byte(key: &str) -> Result<u8, UnknownKey> {
    let unknown = || UnknownKey { key: key.to_owned() };
    if let [byte] = key.as_bytes() {
        return if byte.is_ascii() { Ok(*byte) } else { Err(unknown()) };
    }
    match key.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some([b'@']) => Ok(0),
        Some([sign @ b'['..=b'_']) => Ok(sign - b'[' + 27),
        _ => Err(unknown()),
    }
}

/// Watches input for the detach keys, across reads.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    /// How many of the keys were the last bytes typed; they are held back until it is clear that they are no detach.
    matched: usize,
}

/// What to do after some input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Pass these bytes on.
    Pass(Vec<u8>),
    /// Pass these bytes on, then detach.
    Detach(Vec<u8>),
}

impl Watch {
    /// Makes a watch; without keys it passes everything.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Looks at the next input.
    pub fn feed(&mut self, input: &[u8]) -> Verdict {
        let mut pass = Vec::with_capacity(input.len() + self.matched);
        if self.keys.is_empty() {
            pass.extend_from_slice(input);
            return Verdict::Pass(pass);
        }
        for &byte in input {
            // Fall back to the longest start of the keys that still fits, as a repeated first key does.
            while self.matched > 0 && byte != self.keys[self.matched] {
                let shorter = self.longest_border(self.matched);
                pass.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Verdict::Detach(pass);
                }
            } else {
                pass.push(byte);
            }
        }
        Verdict::Pass(pass)
    }

    /// Returns what is held back when the input ends.
    pub fn finish(&mut self) -> &[u8] {
        let held = std::mem::take(&mut self.matched);
        &self.keys[..held]
    }

    fn longest_border(&self, length: usize) -> usize {
        (0..length)
            .rev()
            .find(|&shorter| self.keys[..shorter] == self.keys[length - shorter..length])
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_notation_is_understood() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("ctrl-@,a,ctrl-[,ctrl-_,ctrl-\\").unwrap(), [0, b'a', 27, 31, 28]);
        assert_eq!(parse("ctrl-A").unwrap_err().to_string(), "Unknown character: 'ctrl-A'");
        for keys in ["", "ctrl-", "ab", "ctrl-1", "ctrl-p,", "é"] {
            assert!(parse(keys).is_err(), "{keys}");
        }
    }

    #[test]
    fn keys_detach_across_reads() {
        let mut watch = Watch::new(DEFAULT.to_vec());
        assert_eq!(watch.feed(b"ls\x10"), Verdict::Pass(b"ls".to_vec()));
        assert_eq!(watch.feed(b"\x11rest"), Verdict::Detach(Vec::new()));
    }

    #[test]
    fn a_broken_off_sequence_is_passed_on() {
        let mut watch = Watch::new(DEFAULT.to_vec());
        assert_eq!(watch.feed(b"\x10"), Verdict::Pass(Vec::new()));
        assert_eq!(watch.feed(b"x"), Verdict::Pass(b"\x10x".to_vec()));
        assert_eq!(watch.feed(b"\x10\x10"), Verdict::Pass(b"\x10".to_vec()));
        assert_eq!(watch.finish(), b"\x10");
        assert_eq!(watch.finish(), b"");
    }

    #[test]
    fn repeated_keys_match_at_their_last_chance() {
        let mut watch = Watch::new(b"aab".to_vec());
        assert_eq!(watch.feed(b"aaab"), Verdict::Detach(b"a".to_vec()));
    }

    proptest! {
        #[test]
        fn detaches_at_the_first_occurrence_and_loses_nothing(
            keys in proptest::collection::vec(0u8..3, 0..4),
            input in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..5), 0..6),
        ) {
            let typed = input.concat();
            let first = (!keys.is_empty()).then(|| typed.windows(keys.len()).position(|window| window == keys)).flatten();
            let mut watch = Watch::new(keys);
            let mut passed = Vec::new();
            let mut detached = false;
            for part in &input {
                match watch.feed(part) {
                    Verdict::Pass(bytes) => passed.extend(bytes),
                    Verdict::Detach(bytes) => {
                        passed.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            prop_assert_eq!(detached, first.is_some());
            if !detached {
                passed.extend(watch.finish());
            }
            prop_assert_eq!(&passed[..], &typed[..first.unwrap_or(typed.len())]);
        }
    }
}
