//! Tokens inside `{{ }}`.

use super::Error;

/// One token with its place in the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Byte offset in the source.
    pub offset: usize,
    /// Whether blank space stands before it: `.A .B` are two operands, `.A.B` is one.
    pub spaced: bool,
}

/// Kinds of tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `.Name`
    Field(String),
    /// `.` alone.
    Dot,
    /// `$` or `$name`, without the sign.
    Variable(String),
    /// A function's name or a keyword.
    Word(String),
    /// A quoted string, unquoted.
    Text(String),
    /// A number.
    Number(serde_json::Number),
    /// `( ) | , =`
    Sign(char),
    /// `:=`
    Declare,
}

/// A stretch of the source: text, or the inside of an action.
#[derive(Debug)]
pub enum Piece {
    /// Text to print.
    Text(String),
    /// Tokens of one action and where it starts.
    Action(Vec<Token>, usize),
}

/// Returns the line, from 1, of a byte offset.
pub fn line_of(source: &str, offset: usize) -> usize {
    source.as_bytes()[..offset.min(source.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn error(source: &str, offset: usize, message: impl Into<String>) -> Error {
    Error::Parse { line: line_of(source, offset), message: message.into() }
}

/// Splits the source into text and actions, applying the trim markers `{{-` and `-}}`.
pub fn split(source: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_start = false;
    loop {
        let open = source[at..].find("{{").map(|found| at + found);
        let mut text = &source[at..open.unwrap_or(source.len())];
        if trim_start {
            text = text.trim_start();
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(text.to_owned()));
            return Ok(pieces);
        };
        let mut inside = open + 2;
        let rest = &source[inside..];
        if rest.starts_with('-') && rest[1..].starts_with([' ', '\t', '\r', '\n']) {
            text = text.trim_end();
            inside += 1;
        }
        pieces.push(Piece::Text(text.to_owned()));
        if let Some(comment) = source[inside..].trim_start().strip_prefix("/*") {
            let start = source.len() - comment.len();
            let end = comment.find("*/").ok_or_else(|| error(source, open, "unclosed comment"))?;
            let rest = source[start + end + 2..].trim_start();
            trim_start = rest.starts_with("-}}");
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            let after = rest
                .strip_prefix("}}")
                .ok_or_else(|| error(source, open, "comment ends before closing delimiter"))?;
            at = source.len() - after.len();
            continue;
        }
        let (tokens, end, trim) = tokens(source, inside, open)?;
        trim_start = trim;
        pieces.push(Piece::Action(tokens, open));
        at = end;
    }
}

/// Reads tokens up to `}}`; returns them, the offset after it, and whether `-}}` closed the action.
fn tokens(source: &str, start: usize, open: usize) -> Result<(Vec<Token>, usize, bool), Error> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = start;
    loop {
        let blank = source[at..].len() - source[at..].trim_start().len();
        at += blank;
        let rest = &source[at..];
        if blank > 0 && rest.starts_with("-}}") {
            return Ok((tokens, at + 3, true));
        }
        if rest.starts_with("}}") {
            return Ok((tokens, at + 2, false));
        }
        let Some(first) = rest.chars().next() else { return Err(error(source, open, "unclosed action")) };
        let offset = at;
        let (kind, length) = match first {
            '.' if word_length(&rest[1..]) > 0 && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let length = word_length(&rest[1..]);
                (Kind::Field(rest[1..1 + length].to_owned()), 1 + length)
            }
            '.' => (Kind::Dot, 1),
            '$' => {
                let length = word_length(&rest[1..]);
                (Kind::Variable(rest[1..1 + length].to_owned()), 1 + length)
            }
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            '(' | ')' | '|' | ',' | '=' => (Kind::Sign(first), 1),
            '`' => {
                let end =
                    rest[1..].find('`').ok_or_else(|| error(source, at, "unterminated raw quoted string"))?;
                (Kind::Text(rest[1..1 + end].to_owned()), end + 2)
            }
            '"' => quoted(rest).ok_or_else(|| error(source, at, "unterminated quoted string"))?,
            '+' | '-' | '0'..='9' => {
                let length = 1 + rest[1..]
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'))
                    .unwrap_or(rest.len() - 1);
                let text = rest[..length].trim_start_matches('+');
                let number = serde_json::from_str(text)
                    .map_err(|_| error(source, at, format!("bad number syntax: {:?}", &rest[..length])))?;
                (Kind::Number(number), length)
            }
            _ if word_length(rest) > 0 => {
                let length = word_length(rest);
                (Kind::Word(rest[..length].to_owned()), length)
            }
            other => {
                return Err(error(
                    source,
                    at,
                    format!("unexpected {other:?} in command").replace('\'', "\""),
                ));
            }
        };
        tokens.push(Token {
            kind,
            offset,
            spaced: blank > 0 || bytes.get(offset.wrapping_sub(1)) == Some(&b'('),
        });
        at += length;
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Reads a double-quoted string at the start of `rest`; returns it and its length in the source.
fn quoted(rest: &str) -> Option<(Kind, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Kind::Text(out), at + 1)),
            '\n' => return None,
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '\\' => out.push('\\'),
                '"' => out.push('"'),
                'x' => out.push(hex(&mut chars, 2)?),
                'u' => out.push(hex(&mut chars, 4)?),
                _ => return None,
            },
            other => out.push(other),
        }
    }
    None
}

fn hex(chars: &mut impl Iterator<Item = (usize, char)>, digits: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..digits {
        code = code * 16 + chars.next()?.1.to_digit(16)?;
    }
    char::from_u32(code)
}
