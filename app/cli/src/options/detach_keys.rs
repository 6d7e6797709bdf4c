//! The key sequence that leaves a container running: `ctrl-p,ctrl-q`.

/// Docker's sequence.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Parses a sequence into the bytes a terminal sends.
pub fn parse(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-") {
            Some(key) => match key.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                b"@" => Ok(0),
                [sign @ b'['..=b'_'] => Ok(sign - b'[' + 27),
                _ => Err(format!("Unknown character: '{key}'")),
            },
            None => match key.as_bytes() {
                [byte] if byte.is_ascii() => Ok(*byte),
                _ => Err(format!("Unknown character: '{key}'")),
            },
        })
        .collect()
}

/// Watches input for the sequence.
#[derive(Debug)]
pub struct Watcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Watcher {
    /// Watches for `keys`; an empty sequence never matches.
    pub fn new(keys: Vec<u8>) -> Watcher {
        Watcher { keys, matched: 0 }
    }

    /// Takes typed bytes; returns what goes on to the container, and whether the sequence is complete.
    /// Keys that began the sequence and did not finish it go on late, never lost.
    pub fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (input.to_vec(), false);
        }
        let mut out = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if byte == self.keys[0] && self.keys.len() > 1 {
                self.matched = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_control_letters_or_single_signs() {
        assert_eq!(parse(DEFAULT).unwrap(), [16, 17]);
        assert_eq!(parse("ctrl-@,ctrl-[,a").unwrap(), [0, 27, b'a']);
        for bad in ["", "ctrl-", "ctrl-P", "ab", "a,,b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_nothing_is_lost() {
        let mut watcher = Watcher::new(vec![16, 17]);
        assert_eq!(watcher.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watcher.feed(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(watcher.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watcher.feed(b"\x11z"), (Vec::new(), true));
    }
}
