//! Errors with the lines that they are about.

use crate::error::{Code, Error, Location};
use crate::graph::pb;

/// What the parts of the frontend return.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// Lines of a Dockerfile, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lines {
    /// The first line.
    pub start: u32,
    /// The last line.
    pub end: u32,
}

/// Something that is wrong with a Dockerfile or with what it asks for, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What kind of failure it is.
    pub code: Code,
    /// Where; empty where no line is to blame.
    pub lines: Vec<Lines>,
}

impl Lines {
    /// One line or several.
    pub fn new(start: u32, end: u32) -> Lines {
        Lines { start, end: end.max(start) }
    }

    /// The same as a message.
    pub fn range(self) -> pb::Range {
        let position =
            |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        pb::Range { start: position(self.start), end: position(self.end) }
    }
}

impl Fault {
    /// Something that the Dockerfile or the request has wrong.
    pub fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), code: Code::InvalidArgument, lines: Vec::new() }
    }

    /// Says where it is, unless that is known already.
    #[must_use]
    pub fn at(mut self, lines: Lines) -> Fault {
        if self.lines.is_empty() {
            self.lines.push(lines);
        }
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn also_at(mut self, lines: Lines) -> Fault {
        if !self.lines.contains(&lines) {
            self.lines.push(lines);
        }
        self
    }

    /// Says first what was being done.
    #[must_use]
    pub fn within(mut self, what: &str) -> Fault {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Makes it an error of the crate, with the file that the lines are of.
    pub fn into_error(self, source: Option<&pb::SourceInfo>) -> Error {
        match source {
            Some(source) if !self.lines.is_empty() => Error::Source {
                message: self.message,
                code: self.code,
                location: Box::new(Location {
                    source: source.clone(),
                    ranges: self.lines.into_iter().map(Lines::range).collect(),
                }),
            },
            _ => match self.code {
                Code::NotFound => Error::not_found(self.message),
                Code::Unavailable => Error::unavailable(self.message),
                Code::Denied => Error::Denied { message: self.message },
                Code::Cancelled => Error::Cancelled,
                Code::Failed | Code::Internal => Error::failed(self.message),
                _ => Error::invalid(self.message),
            },
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { message: error.to_string(), code: error.code(), lines: Vec::new() }
    }
}

/// Adds the place to what may have failed.
pub trait At<T> {
    /// Says where it is, unless that is known already.
    ///
    /// # Errors
    /// The same error, with its place.
    fn at(self, lines: Lines) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, lines: Lines) -> Result<T> {
        self.map_err(|fault| fault.at(lines))
    }
}

/// Writes the lines of a file that an error or a warning is about, as BuildKit's clients print them:
///
/// ```text
/// Dockerfile:2
/// --------------------
///    1 |     FROM alpine
///    2 | >>> RUN false
/// --------------------
/// ```
pub fn excerpt(location: &Location) -> String {
    let text = String::from_utf8_lossy(&location.source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let line = |position: &Option<pb::Position>| {
        position.as_ref().and_then(|p| usize::try_from(p.line).ok()).unwrap_or(0)
    };
    let ranges: Vec<(usize, usize)> =
        location.ranges.iter().map(|r| (line(&r.start), line(&r.end).max(line(&r.start)))).collect();
    let (Some(first), Some(last)) = (ranges.iter().map(|r| r.0).min(), ranges.iter().map(|r| r.1).max())
    else {
        return String::new();
    };
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last.min(lines.len()));
    // Two lines of surroundings, four of them for one line; what is missing on one side is given to the other.
    let wanted = if start == end { 4 } else { 2 };
    let mut given = 0;
    while given < wanted {
        if start > 1 {
            start -= 1;
            given += 1;
        }
        if end < lines.len() {
            end += 1;
            given += 1;
        }
        given += 1;
    }
    let mut out = format!("{}:{first}\n--------------------\n", location.source.filename);
    for number in start..=end {
        let mark = if ranges.iter().any(|r| (r.0..=r.1).contains(&number)) { ">>>" } else { "   " };
        out.push_str(&format!(" {number:3} | {mark} {}\n", lines[number - 1]));
    }
    out.push_str("--------------------\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, lines: &[(u32, u32)]) -> String {
        let source = pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: text.as_bytes().to_vec(),
            ..Default::default()
        };
        let ranges = lines.iter().map(|(a, b)| Lines::new(*a, *b).range()).collect();
        excerpt(&Location { source, ranges })
    }

    #[test]
    fn an_excerpt_marks_the_lines_and_shows_their_surroundings() {
        assert_eq!(
            shown("FROM alpine\n\nRUN false\nRUN true\nRUN x", &[(3, 3)]),
            "Dockerfile:3\n--------------------\n   1 |     FROM alpine\n   2 |     \n   3 | >>> RUN false\n   4 |     \
             RUN true\n   5 |     RUN x\n--------------------\n"
        );
        assert_eq!(
            shown("a\nb\nc\nd\ne", &[(3, 4)]),
            "Dockerfile:3\n--------------------\n   2 |     b\n   3 | >>> c\n   4 | >>> d\n   5 |     e\n\
             --------------------\n"
        );
    }

    #[test]
    fn lines_outside_of_the_file_show_nothing() {
        assert_eq!(shown("a", &[(7, 7)]), "");
        assert_eq!(shown("a", &[]), "");
        assert!(shown("a\nb", &[(1, 900)]).contains(">>> b"));
    }

    #[test]
    fn the_first_place_stays() {
        let fault = Fault::new("x").at(Lines::new(1, 1)).at(Lines::new(2, 2)).also_at(Lines::new(3, 3));
        assert_eq!(fault.lines, [Lines::new(1, 1), Lines::new(3, 3)]);
    }
}
