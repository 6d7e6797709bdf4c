//! From text to lines of instructions: comments, continuations, here-documents, and each instruction's way of writing its
//! arguments. What the arguments mean is the concern of [`instruction`](super::instruction).

pub mod directive;
mod heredoc;
mod node;
pub mod words;

use directive::Directives;
pub use heredoc::Heredoc;
pub use node::{Arguments, Node};

use super::fault::{At as _, Fault, Lines, Result};

/// The longest line, in bytes: BuildKit's.
const MAX_LINE: usize = 65_535;
/// How many here-documents one instruction may begin.
const MAX_HEREDOCS: usize = 1_000;
/// The largest Dockerfile, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// A Dockerfile that was read.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Its instructions, in order.
    pub nodes: Vec<Node>,
    /// What escapes letters and continues lines: `\`, or a backquote.
    pub escape: char,
    /// Instructions with empty lines between their continuations.
    pub empty_continuations: Vec<Lines>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// What can't be read as one, with its lines.
pub fn parse(text: &str) -> Result<Parsed> {
    if text.len() > MAX_FILE {
        return Err(Fault::new(format!("the Dockerfile is larger than {} MiB", MAX_FILE >> 20)));
    }
    let mut input = Input { text: text.strip_prefix('\u{feff}').unwrap_or(text), line: 0 };
    let mut directives = Directives::default();
    let mut escape = '\\';
    let mut nodes = Vec::new();
    let mut empty_continuations = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    while let Some(raw) = input.next()? {
        let first = input.line;
        let line = raw.trim_end_matches(['\r', '\n']).trim_start();
        let was_directive = directives.take(line, first, "#").at(Lines::new(first, first))?;
        if was_directive {
            if let Some(set) = directives.get("escape").filter(|set| set.lines.start == first) {
                escape = escape_token(&set.value).at(set.lines)?;
            }
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        if line.is_empty() {
            comments.clear();
            continue;
        }
        let (mut logical, mut continued) = without_continuation(line, escape);
        let mut has_empty = false;
        while continued {
            let Some(raw) = input.next()? else { break };
            let line = raw.trim_end_matches(['\r', '\n']);
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let (part, more) = without_continuation(line, escape);
            logical.push_str(&part);
            continued = more;
        }
        if has_empty {
            empty_continuations.push(Lines::new(first, input.line));
        }
        let mut node = Node::parse(&logical, escape).at(Lines::new(first, input.line))?;
        if node.may_have_heredocs() {
            let begun = Heredoc::in_line(&logical);
            if begun.len() > MAX_HEREDOCS {
                let message = format!("more than {MAX_HEREDOCS} here-documents in one instruction");
                return Err(Fault::new(message).at(Lines::new(first, input.line)));
            }
            for heredoc in begun {
                node.heredocs.push(input.heredoc(heredoc, first)?);
            }
        }
        node.lines = Lines::new(first, input.line);
        node.comments = std::mem::take(&mut comments);
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err(Fault::new("file with no instructions").at(Lines::new(input.line, input.line)));
    }
    Ok(Parsed { nodes, escape, empty_continuations })
}

fn escape_token(value: &str) -> Result<char> {
    match value {
        "`" => Ok('`'),
        "\\" => Ok('\\'),
        _ => Err(Fault::new(format!("invalid escape token '{value}' does not match ` or \\"))),
    }
}

/// Takes the escape from the end of a line that continues: it is the last letter but blanks, and not escaped itself.
fn without_continuation(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

struct Input<'a> {
    text: &'a str,
    line: u32,
}

impl<'a> Input<'a> {
    /// Returns the next line with its end.
    fn next(&mut self) -> Result<Option<&'a str>> {
        if self.text.is_empty() {
            return Ok(None);
        }
        let end = self.text.find('\n').map_or(self.text.len(), |at| at + 1);
        let (line, rest) = self.text.split_at(end);
        self.line += 1;
        if line.len() > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            return Err(Fault::new(message).at(Lines::new(self.line, self.line)));
        }
        self.text = rest;
        Ok(Some(line))
    }

    /// Reads the lines of a here-document.
    fn heredoc(&mut self, mut heredoc: Heredoc, first: u32) -> Result<Heredoc> {
        while let Some(raw) = self.next()? {
            let mut line = raw.trim_end_matches(['\r', '\n']);
            if heredoc.chomp {
                line = line.trim_start_matches('\t');
            }
            if line == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.content.push_str(raw);
        }
        Err(Fault::new("unterminated heredoc").at(Lines::new(first, self.line)))
    }
}

#[cfg(test)]
mod tests;
