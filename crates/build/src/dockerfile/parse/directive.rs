//! Parser directives: `# syntax=`, `# escape=`, `# check=` in the first lines.

use std::collections::BTreeMap;

use crate::dockerfile::fault::{Fault, Lines, Result};

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// All of its value.
    pub value: String,
    /// Its line.
    pub lines: Lines,
}

/// Reads directives, line by line from the first one until a line is none.
#[derive(Debug, Default)]
pub struct Directives {
    found: BTreeMap<&'static str, Directive>,
    done: bool,
}

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

impl Directives {
    /// Takes the next line; says whether it was a directive.
    ///
    /// # Errors
    /// A directive that was there before.
    pub fn take(&mut self, line: &str, number: u32, comment: &str) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = split(line, comment) else {
            self.done = true;
            return Ok(false);
        };
        if self.found.contains_key(name) {
            return Err(Fault::new(format!("only one {name} parser directive can be used")));
        }
        let directive = Directive { value: value.to_owned(), lines: Lines::new(number, number) };
        self.found.insert(name, directive);
        Ok(true)
    }

    /// Returns a directive by its name.
    pub fn get(&self, name: &str) -> Option<&Directive> {
        self.found.get(name)
    }
}

fn split<'a>(line: &'a str, comment: &str) -> Option<(&'static str, &'a str)> {
    let (name, value) = line.strip_prefix(comment)?.trim_start().split_once('=')?;
    let name = name.trim_end().to_ascii_lowercase();
    let value = value.trim();
    let known = KNOWN.iter().find(|known| **known == name)?;
    (!value.is_empty()).then_some((known, value))
}

/// Finds a directive of a file by itself, without the rest of the file being correct.
///
/// `# name=value`, or for `syntax` also `// syntax=value` and `{"syntax": "value"}`; a first line `#!…` is skipped.
pub fn find(text: &str, name: &str) -> Option<Directive> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (first, text) = match text.split_once('\n') {
        Some((shebang, rest)) if shebang.starts_with("#!") => (2, rest),
        _ => (1, text),
    };
    let comments: &[&str] = if name == "syntax" { &["#", "//"] } else { &["#"] };
    for comment in comments {
        let mut directives = Directives::default();
        for (number, line) in (first..).zip(text.lines()) {
            if !matches!(directives.take(line, number, comment), Ok(true)) {
                break;
            }
        }
        if let Some(found) = directives.get(name) {
            return Some(found.clone());
        }
    }
    if name != "syntax" || !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get(name)?.as_str()?.to_owned();
    Some(Directive { value, lines: Lines::new(first, first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> Option<String> {
        find(text, name).map(|d| d.value)
    }

    #[test]
    fn directives_are_found_at_the_top_only() {
        for (text, expected) in [
            ("# syntax=docker/dockerfile:1\nFROM a", Some("docker/dockerfile:1")),
            ("#syntax = docker/dockerfile:1 \nFROM a", Some("docker/dockerfile:1")),
            ("#  SYNTAX=a b\nFROM a", Some("a b")),
            ("# escape=`\n# syntax=x\n", Some("x")),
            ("# about\n# syntax=x\n", None),
            ("\n# syntax=x\n", None),
            ("FROM a\n# syntax=x\n", None),
            ("# syntax=\nFROM a", None),
            ("// syntax=x\n{", Some("x")),
            ("{\"syntax\": \"x\"}", Some("x")),
            ("#!/usr/bin/env x\n# syntax=y\n", Some("y")),
            ("\u{feff}# syntax=x\n", Some("x")),
            ("# unknown=1\n# syntax=x\n", None),
        ] {
            assert_eq!(value(text, "syntax").as_deref(), expected, "{text:?}");
        }
        assert_eq!(value("# check=skip=all;error=true\n", "check").as_deref(), Some("skip=all;error=true"));
        assert_eq!(find("#!x\n# check=a\n", "check").unwrap().lines, Lines::new(2, 2));
    }
}
