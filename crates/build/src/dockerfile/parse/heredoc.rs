//! Here-documents: `<<EOF`, `<<-"EOF"`, `3<<EOF`.

use std::fmt::Write as _;

use crate::dockerfile::expand::{Lex, Variables};

/// One here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, and its file name.
    pub name: String,
    /// The descriptor that the shell gives it.
    pub descriptor: u32,
    /// Whether variables in it are expanded: its word is not quoted.
    pub expand: bool,
    /// Whether leading tabs are taken off: `<<-`.
    pub chomp: bool,
    /// Its lines.
    pub content: String,
}

impl Heredoc {
    /// Reads one word; nothing when it begins no here-document.
    pub fn parse(word: &str) -> Option<Heredoc> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let rest = word[digits..].strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let nothing = Variables::default();
        let mut lex = Lex::new('\\').skip_unset();
        let plain = lex.expand(rest, &nothing).ok()?.words;
        lex = lex.raw_quotes();
        let raw = lex.expand(rest, &nothing).ok()?.words;
        // A quoted word is one word with quotes and the same word without them.
        let ([name], [raw]) = (plain.as_slice(), raw.as_slice()) else { return None };
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        Some(Heredoc {
            expand: quotes(name) == quotes(raw),
            name: name.clone(),
            descriptor: word[..digits].parse().unwrap_or(0),
            chomp,
            content: String::new(),
        })
    }

    /// Finds those that a line begins.
    pub fn in_line(line: &str) -> Vec<Heredoc> {
        let lex = Lex::new('\\').skip_unset().raw_quotes().raw_escapes();
        let Ok(expanded) = lex.expand(line, &Variables::default()) else { return Vec::new() };
        expanded.words.iter().filter_map(|word| Heredoc::parse(word)).collect()
    }

    /// The content as a file: without leading tabs for `<<-`.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        let mut text = String::with_capacity(self.content.len());
        for line in self.content.split_inclusive('\n') {
            text.push_str(line.trim_start_matches('\t'));
        }
        text
    }

    /// Puts it back after its line, as the shell reads it.
    pub fn append_to(&self, line: &mut String) {
        let _ = write!(line, "\n{}{}", self.content, self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_begins_a_heredoc() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", 0, true, false))),
            ("<<-EOF", Some(("EOF", 0, true, true))),
            ("<<\"EOF\"", Some(("EOF", 0, false, false))),
            ("<<'EOF'", Some(("EOF", 0, false, false))),
            ("<<E\"O\"F", Some(("EOF", 0, false, false))),
            ("<<-'a b'", Some(("a b", 0, false, true))),
            ("3<<EOF", Some(("EOF", 3, true, false))),
            ("<<EOF1", Some(("EOF1", 0, true, false))),
            ("<<", None),
            ("<<-", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("a<<EOF", None),
            ("<<a b", None),
            ("<<\"EOF", None),
        ] {
            let found = Heredoc::parse(word);
            let found = found.as_ref().map(|h| (h.name.as_str(), h.descriptor, h.expand, h.chomp));
            assert_eq!(found, expected, "{word:?}");
        }
    }

    #[test]
    fn a_line_begins_several() {
        let names = |line: &str| Heredoc::in_line(line).into_iter().map(|h| h.name).collect::<Vec<_>>();
        assert_eq!(names("COPY <<a <<b /x/"), ["a", "b"]);
        assert_eq!(names("RUN cat <<a | sed s/x/y/ > z <<'b'"), ["a", "b"]);
        assert_eq!(names("RUN echo \"<<a\""), Vec::<String>::new());
        assert_eq!(names("RUN echo '<<a"), Vec::<String>::new());
        assert_eq!(names("RUN <<a\\ b"), ["a b"]);
    }

    #[test]
    fn a_chomped_one_has_no_leading_tabs() {
        let mut doc = Heredoc::parse("<<-E").unwrap();
        doc.content = "\ta\n\t\tb\n c\n".into();
        assert_eq!(doc.text(), "a\nb\n c\n");
    }
}
