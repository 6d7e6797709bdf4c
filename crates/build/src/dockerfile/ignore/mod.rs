//! `.dockerignore`: the file, and the patterns that it has in common with `--exclude`.

mod matcher;

pub use matcher::Matcher;

use super::fault::{Fault, Result};

/// The largest ignore file, in patterns.
const MAX_PATTERNS: usize = 10_000;

/// Reads an ignore file: one pattern each line, as the matcher and the client's file sync take them.
///
/// # Errors
/// More patterns than anybody needs.
pub fn read(text: &str) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (except, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, line),
        };
        if line.is_empty() {
            continue;
        }
        let mut pattern = if pattern.is_empty() { String::new() } else { clean(pattern) };
        // An absolute path is one below the context.
        if pattern.len() > 1 && pattern.starts_with('/') {
            pattern.remove(0);
        }
        if except {
            pattern.insert(0, '!');
        }
        patterns.push(pattern);
        if patterns.len() > MAX_PATTERNS {
            return Err(Fault::new(format!("more than {MAX_PATTERNS} patterns")));
        }
    }
    Ok(patterns)
}

/// Go's `path.Clean`: no `.`, no empty parts, `..` resolved as text.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_patterns() {
        let text = "\u{feff}# comment\n\n  /temp?/ \n*/temp*\n!README.md\n! /a/../b/\n #not\n/\n!\n.\n";
        assert_eq!(read(text).unwrap(), ["temp?", "*/temp*", "!README.md", "!b", "#not", "/", "!", "."]);
        assert_eq!(read("a\r\nb\r\n").unwrap(), ["a", "b"]);
    }

    #[test]
    fn paths_are_cleaned_as_go_does_it() {
        for (path, expected) in [
            ("", "."),
            ("a/b", "a/b"),
            ("a//b/", "a/b"),
            ("./a/.", "a"),
            ("a/..", "."),
            ("a/../../b", "../b"),
            ("/../a", "/a"),
            ("/", "/"),
            ("..", ".."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
