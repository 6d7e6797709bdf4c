//! One instruction as it is written: its keyword, flags and arguments.

use super::heredoc::Heredoc;
use super::words::{self, Json, Pair};
use crate::dockerfile::fault::{Fault, Lines, Result};

/// How many flags one instruction may have.
const MAX_FLAGS: usize = 1_000;

/// An instruction as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The keyword, in the writer's case.
    pub keyword: String,
    /// `--flag[=value]` words.
    pub flags: Vec<String>,
    /// What follows.
    pub arguments: Arguments,
    /// Here-documents that belong to it.
    pub heredocs: Vec<Heredoc>,
    /// All of it, continuations joined.
    pub original: String,
    /// Its lines.
    pub lines: Lines,
    /// The comments right before it.
    pub comments: Vec<String>,
}

/// What follows the keyword and the flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Arguments {
    /// Nothing, or an unknown keyword's.
    #[default]
    None,
    /// Words, or one text.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `key=value` pairs.
    Pairs(Vec<Pair>),
    /// `HEALTHCHECK`: what kind, and its command.
    Typed(String, Box<Arguments>),
    /// `ONBUILD`: another instruction.
    Instruction(Box<Node>),
}

impl Node {
    /// Reads a line.
    ///
    /// # Errors
    /// Arguments that are not written as the keyword wants them.
    pub fn parse(line: &str, escape: char) -> Result<Node> {
        Node::parse_in(line, escape, false)
    }

    fn parse_in(line: &str, escape: char, onbuild: bool) -> Result<Node> {
        let parts = words::split_blank(line.trim(), 2);
        let keyword = parts[0].to_owned();
        let (flags, rest) = match parts.get(1) {
            Some(rest) => words::take_flags(rest),
            None => (Vec::new(), ""),
        };
        if flags.len() > MAX_FLAGS {
            return Err(Fault::new(format!("more than {MAX_FLAGS} flags in one instruction")));
        }
        let rest = rest.trim();
        let arguments = match keyword.to_ascii_lowercase().as_str() {
            "add" | "copy" | "volume" => json_or_list(rest)?,
            "cmd" | "entrypoint" | "run" | "shell" => json_or_text(rest)?,
            "env" => Arguments::Pairs(words::pairs(rest, "ENV", escape)?),
            "label" => Arguments::Pairs(words::pairs(rest, "LABEL", escape)?),
            "arg" => Arguments::Words(words::quoted_words(rest, escape)),
            "expose" | "from" => list(rest),
            "maintainer" | "stopsignal" | "user" | "workdir" => text(rest),
            "healthcheck" => typed(rest)?,
            // A chain of triggers is refused later: reading on would only cost stack.
            "onbuild" if onbuild => Arguments::None,
            "onbuild" if rest.is_empty() => Arguments::None,
            "onbuild" => Arguments::Instruction(Box::new(Node::parse_in(rest, escape, true)?)),
            _ => Arguments::None,
        };
        Ok(Node { keyword, flags, arguments, original: line.to_owned(), ..Node::default() })
    }

    /// Says whether here-documents are read after it.
    pub fn may_have_heredocs(&self) -> bool {
        if let Arguments::Instruction(inner) = &self.arguments {
            return inner.may_have_heredocs();
        }
        matches!(self.keyword.to_ascii_lowercase().as_str(), "add" | "copy" | "run")
            && !matches!(self.arguments, Arguments::Json(_))
    }
}

fn text(rest: &str) -> Arguments {
    if rest.is_empty() { Arguments::None } else { Arguments::Words(vec![rest.to_owned()]) }
}

fn list(rest: &str) -> Arguments {
    if rest.is_empty() {
        return Arguments::None;
    }
    Arguments::Words(words::split_blank(rest, usize::MAX).into_iter().map(str::to_owned).collect())
}

fn json_or_text(rest: &str) -> Result<Arguments> {
    Ok(match words::json(rest)? {
        Json::Array(values) => Arguments::Json(values),
        Json::No => text(rest),
    })
}

fn json_or_list(rest: &str) -> Result<Arguments> {
    Ok(match words::json(rest)? {
        Json::Array(values) => Arguments::Json(values),
        Json::No => list(rest),
    })
}

fn typed(rest: &str) -> Result<Arguments> {
    if rest.is_empty() {
        return Ok(Arguments::None);
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (kind, command) = rest.split_at(end);
    Ok(Arguments::Typed(kind.to_owned(), Box::new(json_or_text(command.trim_start())?)))
}
