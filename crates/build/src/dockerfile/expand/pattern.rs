//! `${v#p}`, `${v%p}` and `${v/p/r}`: shell patterns with `*`, `?` and escapes.

use regex::Regex;

use crate::dockerfile::fault::{Fault, Result};

/// Which end `#` and `%` cut from, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// As little as fits.
    Shortest,
    /// As much as fits.
    Longest,
}

/// Takes the part that a pattern fits off the beginning.
pub fn without_prefix(value: &str, pattern: &str, length: Length) -> Result<String> {
    let regex = compile(&tokens(pattern), true, length)?;
    Ok(match regex.find(value) {
        Some(found) => value[found.end()..].to_owned(),
        None => value.to_owned(),
    })
}

/// Takes the part that a pattern fits off the end.
pub fn without_suffix(value: &str, pattern: &str, length: Length) -> Result<String> {
    let mut pattern = tokens(pattern);
    pattern.reverse();
    let regex = compile(&pattern, true, length)?;
    let reversed: String = value.chars().rev().collect();
    Ok(match regex.find(&reversed) {
        Some(found) => reversed[found.end()..].chars().rev().collect(),
        None => value.to_owned(),
    })
}

/// Puts something else in place of what a pattern fits: the first time or each time.
pub fn replaced(value: &str, pattern: &str, replacement: &str, all: bool) -> Result<String> {
    let regex = compile(&tokens(pattern), false, Length::Longest)?;
    let replacement = regex::NoExpand(replacement);
    Ok(match all {
        true => regex.replace_all(value, replacement).into_owned(),
        false => regex.replace(value, replacement).into_owned(),
    })
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Any,
    One,
    Letter(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut letters = pattern.chars();
    while let Some(c) = letters.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Letter(letters.next().unwrap_or('\\')),
            c => Token::Letter(c),
        });
    }
    tokens
}

fn compile(pattern: &[Token], anchored: bool, length: Length) -> Result<Regex> {
    let mut text = String::from(if anchored { "(?s)^" } else { "(?s)" });
    for token in pattern {
        match (token, length) {
            (Token::Any, Length::Longest) => text.push_str(".*"),
            (Token::Any, Length::Shortest) => text.push_str(".*?"),
            (Token::One, _) => text.push('.'),
            (Token::Letter(c), _) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&text).map_err(|_| Fault::new("the pattern of a substitution is too large"))
}
