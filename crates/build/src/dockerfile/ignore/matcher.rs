//! Patterns of paths as moby's patternmatcher has them: `*`, `?`, `[…]`, `**`, and `!` for exceptions, the last that
//! fits deciding.

use crate::dockerfile::fault::{Fault, Result};

use super::clean;

/// Patterns in their order.
#[derive(Debug, Clone)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    exception: bool,
    tokens: Vec<Token>,
    /// `**…` without another special letter: what the path has to end with.
    suffix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Letter(char),
    /// `?`: one letter of a name.
    One,
    /// `*`: letters of one name.
    Name,
    /// `**/`: any number of directories, also none.
    Directories,
    /// `**` at the end: everything.
    Rest,
    /// `[…]`.
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Matcher {
    /// Takes patterns.
    ///
    /// # Errors
    /// One that is none.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Matcher> {
        let mut compiled = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (exception, pattern) = match pattern.strip_prefix('!') {
                Some("") => return Err(Fault::new("illegal exclusion pattern: \"!\"")),
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            compiled.push(Pattern { exception, ..Pattern::compile(pattern)? });
        }
        Ok(Matcher { patterns: compiled })
    }

    /// Says whether a path, or a directory that it is in, is what the patterns say.
    pub fn matches(&self, path: &str) -> bool {
        let path = clean(path);
        let mut matched = false;
        for pattern in &self.patterns {
            // One that can't change the outcome isn't tried.
            if pattern.exception != matched {
                continue;
            }
            let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
            if pattern.matches(&path) || ends.into_iter().any(|end| pattern.matches(&path[..end])) {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// Says whether there is a pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl Pattern {
    fn compile(text: &str) -> Result<Pattern> {
        let mut tokens = Vec::new();
        let mut letters = text.chars().peekable();
        while let Some(c) = letters.next() {
            match c {
                '*' if letters.peek() == Some(&'*') => {
                    letters.next();
                    if letters.peek() == Some(&'/') {
                        letters.next();
                    }
                    tokens.push(if letters.peek().is_none() { Token::Rest } else { Token::Directories });
                }
                '*' => tokens.push(Token::Name),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(class(&mut letters)?),
                '\\' => match letters.next() {
                    Some(escaped) => tokens.push(Token::Letter(escaped)),
                    None => return Err(syntax()),
                },
                c => tokens.push(Token::Letter(c)),
            }
        }
        let plain = |tokens: &[Token]| tokens.iter().all(|t| matches!(t, Token::Letter(_)));
        let suffix = match tokens.split_first() {
            Some((Token::Directories, rest)) if plain(rest) && !text.contains('\\') => {
                text.strip_prefix("**").map(str::to_owned)
            }
            _ => None,
        };
        Ok(Pattern { exception: false, tokens, suffix })
    }

    fn matches(&self, path: &str) -> bool {
        if let Some(suffix) = &self.suffix {
            return path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path);
        }
        // The positions in the pattern that the letters read so far lead to: no backtracking, so no pattern is slow.
        let mut reached = vec![false; self.tokens.len() + 1];
        let mut next = vec![false; self.tokens.len() + 1];
        self.arrive(&mut reached, 0);
        for c in path.chars() {
            next.fill(false);
            for (position, token) in self.tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
                match token {
                    Token::Letter(letter) if *letter == c => self.arrive(&mut next, position + 1),
                    Token::One if c != '/' => self.arrive(&mut next, position + 1),
                    Token::Name if c != '/' => self.arrive(&mut next, position),
                    Token::Rest => self.arrive(&mut next, position),
                    Token::Directories => {
                        // What has begun a directory must end it: the rest can only begin after a slash.
                        next[position] = true;
                        if c == '/' {
                            self.arrive(&mut next, position + 1);
                        }
                    }
                    Token::Class { not, ranges }
                        if ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not =>
                    {
                        self.arrive(&mut next, position + 1);
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut reached, &mut next);
        }
        reached[self.tokens.len()]
    }

    /// Comes to a position, and to those after it as long as what is between may be empty.
    fn arrive(&self, reached: &mut [bool], mut position: usize) {
        reached[position] = true;
        while let Some(Token::Name | Token::Rest | Token::Directories) = self.tokens.get(position) {
            position += 1;
            reached[position] = true;
        }
    }
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token> {
    let not = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match letters.peek() {
            None => return Err(syntax()),
            Some(']') if !ranges.is_empty() => {
                letters.next();
                return Ok(Token::Class { not, ranges });
            }
            Some(_) => {}
        }
        let from = class_letter(letters)?;
        let to = match letters.next_if_eq(&'-') {
            Some(_) => class_letter(letters)?,
            None => from,
        };
        ranges.push((from, to));
    }
}

fn class_letter(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char> {
    match letters.next() {
        None | Some('-' | ']') => Err(syntax()),
        Some('\\') => letters.next().ok_or_else(syntax),
        Some(c) => Ok(c),
    }
}

fn syntax() -> Fault {
    Fault::new("syntax error in pattern")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(patterns: &[&str], path: &str) -> bool {
        Matcher::new(patterns).unwrap().matches(path)
    }

    #[test]
    fn one_pattern_fits_what_the_documentation_says() {
        for (pattern, path, expected) in [
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "somedir/temp", true),
            ("*/temp*", "a/b/temp", false),
            ("*/*/temp*", "somedir/subdir/temporary.txt", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("temp?", "tempab", false),
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.go", "main.go", true),
            ("**/*.go", "a/b/c.go", true),
            ("**/*.go", "a/b/c.god", false),
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/", "file/", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/dir2/file", true),
            ("**/file", "dir/file", true),
            ("**/file", "dir/dir2/file.txt", false),
            ("**file*", "dir/file.txt", true),
            ("**/**/*.txt", "dir/dir2/file.txt", true),
            ("**/**/*.txt2", "dir/dir2/file.txt", false),
            ("a**/*.txt", "a/file.txt", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abc.def", true),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("a\\b", "ab", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("./bar.*", "bar.", true),
            ("./bar.*", "bar.txt", true),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[^a-c]x", "dx", true),
            ("[\\]a]x", "]x", true),
            (".", "a", false),
            ("docs", "docs/a/b", true),
            ("docs", "docsx", false),
            ("docs/", "docs/a", true),
            ("/docs", "docs", false),
            ("a/../b", "b", true),
        ] {
            assert_eq!(matches(&[pattern], path), expected, "{pattern:?} {path:?}");
        }
    }

    #[test]
    fn the_last_pattern_that_fits_decides() {
        for (patterns, path, expected) in [
            (&["*.md", "!README.md"][..], "README.md", false),
            (&["*.md", "!README.md"], "b.md", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
            (&["!a", "a"], "a", true),
            (&["docs", "!docs/keep"], "docs/keep/x", false),
            (&["docs", "!docs/keep"], "docs/x", true),
            (&["**", "!src/**"], "src/a/b", false),
            (&["**", "!src/**"], "other", true),
            (&["*", "!*.go"], "main.go", false),
            (&["!nothing"], "x", false),
            (&["  a  ", ""], "a", true),
            (&[][..], "a", false),
        ] {
            assert_eq!(matches(patterns, path), expected, "{patterns:?} {path:?}");
        }
    }

    #[test]
    fn patterns_that_are_none_are_refused() {
        for pattern in ["[", "[]", "[^", "a[b-", "[-x]", "[x-]", "a\\", "[a"] {
            assert_eq!(Matcher::new(&[pattern]).unwrap_err().message, "syntax error in pattern", "{pattern}");
        }
        assert_eq!(Matcher::new(&["!"]).unwrap_err().message, "illegal exclusion pattern: \"!\"");
    }

    proptest! {
        #[test]
        fn no_pattern_panics_and_plain_ones_fit_themselves(
            pattern in "[a-c/*?\\\\\\[\\]^!.-]{0,20}", path in "[a-c/.]{0,20}", name in "[a-z]{1,8}(/[a-z]{1,8}){0,3}",
        ) {
            if let Ok(matcher) = Matcher::new(&[&pattern]) {
                matcher.matches(&path);
            }
            prop_assert!(matches(&[&name], &name));
            prop_assert!(matches(&["**"], &name));
        }
    }
}
