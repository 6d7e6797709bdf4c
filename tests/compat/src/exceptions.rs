//! `exceptions.txt`: what may fail, each with its reason.
//!
//! ```text
//! docker-py: the reason, on one line
//!     tests/integration/one_test.py::Case::test
//! docker-py, sometimes: the reason of what fails on some machines only
//!     tests/integration/whole_file_test.py::*
//! ```

use std::cell::Cell;
use std::fs;

use anyhow::{Context, ensure};

use crate::workspace;

/// The exceptions of one suite.
#[derive(Debug)]
pub struct Exceptions(Vec<Exception>);

#[derive(Debug)]
struct Exception {
    pattern: String,
    reason: String,
    used: Cell<bool>,
}

impl Exceptions {
    /// Reads those of one suite.
    ///
    /// # Errors
    /// When the file can't be read or a line has no reason above it.
    pub fn of(suite: &str) -> anyhow::Result<Self> {
        let path = workspace().join("tests/compat/exceptions.txt");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(suite, &text)
    }

    fn parse(suite: &str, text: &str) -> anyhow::Result<Self> {
        let mut exceptions = Vec::new();
        let mut heading: Option<(&str, &str)> = None;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if let Some(pattern) = line.strip_prefix("    ") {
                let (of, reason) = heading.with_context(|| format!("no reason above {pattern}"))?;
                let (of, used) = match of.strip_suffix(", sometimes") {
                    Some(of) => (of, Cell::new(true)),
                    None => (of, Cell::new(false)),
                };
                if of == suite {
                    let (pattern, reason) = (pattern.trim().to_owned(), reason.trim().to_owned());
                    exceptions.push(Exception { pattern, reason, used });
                }
            } else {
                let (of, reason) = line.split_once(": ").with_context(|| format!("no suite in {line:?}"))?;
                ensure!(!reason.trim().is_empty(), "no reason in {line:?}");
                heading = Some((of, reason));
            }
        }
        Ok(Self(exceptions))
    }

    /// The reason why this test may fail.
    pub fn reason(&self, test: &str) -> Option<&str> {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => test.starts_with(start),
            None => test == pattern,
        };
        let found = self.0.iter().find(|exception| matches(&exception.pattern))?;
        found.used.set(true);
        Some(&found.reason)
    }

    /// Patterns that no failing test has asked for: they are to be struck out.
    pub fn unused(&self) -> Vec<&str> {
        self.0.iter().filter(|exception| !exception.used.get()).map(|exception| &*exception.pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\na: because\n    one::x\n    two::*\n\nb: other\n    three\n";

    #[test]
    fn a_test_has_the_reason_above_its_pattern() {
        let exceptions = Exceptions::parse("a", TEXT).unwrap();
        assert_eq!(exceptions.reason("two::anything"), Some("because"));
        assert_eq!(exceptions.reason("one::x::y"), None);
        assert_eq!(exceptions.reason("three"), None);
        assert_eq!(exceptions.unused(), ["one::x"]);
    }

    #[test]
    fn a_pattern_without_a_reason_is_refused() {
        assert!(Exceptions::parse("a", "    one\n").is_err());
        assert!(Exceptions::parse("a", "a: \n    one\n").is_err());
    }
}
