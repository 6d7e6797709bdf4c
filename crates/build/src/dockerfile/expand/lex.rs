//! Expands `$name`, `${name}` and their modifiers in a word, and takes its quotes away.

use std::collections::BTreeSet;

use super::pattern::{self, Length};
use super::variables::Variables;
use crate::dockerfile::fault::{Fault, Result};

/// How deep `${a:-${b:-…}}` may go.
const MAX_DEPTH: usize = 64;
/// How large the expansion of one word may become beyond its own size, in bytes.
const MAX_GROWTH: usize = 8 << 20;

/// Takes words apart, with the escape letter of a Dockerfile.
#[derive(Debug, Clone, Copy)]
pub struct Lex {
    escape: char,
    raw_quotes: bool,
    raw_escapes: bool,
    plain_quotes: bool,
    skip_unset: bool,
}

/// A word after its expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// All of it.
    pub text: String,
    /// The words that it has: blanks outside of quotes separate them, also those of variables' values.
    pub words: Vec<String>,
    /// The variables that were found.
    pub found: BTreeSet<String>,
    /// The variables that are not set, where nothing says what to take then.
    pub missing: BTreeSet<String>,
}

impl Lex {
    /// Makes one that takes quotes away and gives unset variables no text.
    pub fn new(escape: char) -> Lex {
        Lex { escape, raw_quotes: false, raw_escapes: false, plain_quotes: false, skip_unset: false }
    }

    /// Keeps quotes in the result.
    #[must_use]
    pub fn raw_quotes(self) -> Lex {
        Lex { raw_quotes: true, ..self }
    }

    /// Keeps escapes in the result.
    #[must_use]
    pub fn raw_escapes(self) -> Lex {
        Lex { raw_escapes: true, ..self }
    }

    /// Quotes are letters like others: in here-documents.
    #[must_use]
    pub fn plain_quotes(self) -> Lex {
        Lex { plain_quotes: true, ..self }
    }

    /// Leaves unset variables as they are written.
    #[must_use]
    pub fn skip_unset(self) -> Lex {
        Lex { skip_unset: true, ..self }
    }

    /// Expands a word.
    ///
    /// # Errors
    /// Quotes or braces without their end; an unknown modifier; `${name:?message}` of an unset variable.
    pub fn expand(&self, word: &str, variables: &Variables) -> Result<Expanded> {
        let mut reader = Reader {
            lex: *self,
            rest: word,
            variables,
            found: BTreeSet::new(),
            missing: BTreeSet::new(),
            budget: word.len() + MAX_GROWTH,
            depth: 0,
        };
        let (text, words) = reader
            .until(None, self.raw_escapes)
            .map_err(|fault| fault.within(&format!("failed to process {word:?}")))?;
        Ok(Expanded { text, words: words.finish(), found: reader.found, missing: reader.missing })
    }
}

struct Reader<'a> {
    lex: Lex,
    rest: &'a str,
    variables: &'a Variables,
    found: BTreeSet<String>,
    missing: BTreeSet<String>,
    budget: usize,
    depth: usize,
}

#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
    inside: bool,
}

impl Words {
    fn letter(&mut self, c: char) {
        if !c.is_whitespace() {
            self.raw(c);
        } else if self.inside && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.inside = false;
        }
    }

    fn raw(&mut self, c: char) {
        self.word.push(c);
        self.inside = true;
    }

    fn raw_text(&mut self, text: &str) {
        self.word.push_str(text);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Fault::new(format!("the expansion is larger than {} MiB", MAX_GROWTH >> 20))),
        }
    }

    /// Reads up to a letter, which is read as well, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Words)> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok((text, words));
            }
            match c {
                '\'' if !self.lex.plain_quotes => {
                    let part = self.single_quoted()?;
                    self.spend(part.len())?;
                    text.push_str(&part);
                    words.raw_text(&part);
                }
                '"' if !self.lex.plain_quotes => {
                    let part = self.double_quoted(raw_escapes)?;
                    self.spend(part.len())?;
                    text.push_str(&part);
                    words.raw_text(&part);
                }
                '$' => {
                    let part = self.dollar()?;
                    self.spend(part.len())?;
                    text.push_str(&part);
                    part.chars().for_each(|c| words.letter(c));
                }
                c if c == self.lex.escape => {
                    self.next();
                    if raw_escapes {
                        words.raw(c);
                        text.push(c);
                    }
                    let Some(escaped) = self.next() else { break };
                    words.raw(escaped);
                    text.push(escaped);
                }
                c => {
                    self.next();
                    words.letter(c);
                    text.push(c);
                }
            }
        }
        match stop {
            Some(stop) => {
                Err(Fault::new(format!("unexpected end of statement while looking for matching {stop}")))
            }
            None => Ok((text, words)),
        }
    }

    fn single_quoted(&mut self) -> Result<String> {
        self.next();
        let Some((inside, rest)) = self.rest.split_once('\'') else {
            self.rest = "";
            return Err(Fault::new("unexpected end of statement while looking for matching single-quote"));
        };
        self.rest = rest;
        Ok(if self.lex.raw_quotes { format!("'{inside}'") } else { inside.to_owned() })
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String> {
        self.next();
        let mut text = String::new();
        if self.lex.raw_quotes {
            text.push('"');
        }
        loop {
            match self.peek() {
                None => {
                    return Err(Fault::new(
                        "unexpected end of statement while looking for matching double-quote",
                    ));
                }
                Some('"') => {
                    self.next();
                    if self.lex.raw_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    let part = self.dollar()?;
                    self.spend(part.len())?;
                    text.push_str(&part);
                }
                Some(c) if c == self.lex.escape => {
                    self.next();
                    if raw_escapes {
                        text.push(c);
                    }
                    match self.peek() {
                        None => {}
                        // Only these can be escaped here; before others the escape is a letter.
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == self.lex.escape => {
                            self.next();
                            text.push(escaped);
                        }
                        Some(_) => text.push(c),
                    }
                }
                Some(c) => {
                    self.next();
                    text.push(c);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.look_up(&name) {
                None if self.lex.skip_unset => format!("${name}"),
                value => value.unwrap_or_default().to_owned(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(missing_brace()),
            Some('{' | '}' | ':') => return Err(Fault::new("syntax error: bad substitution")),
            Some(_) => {}
        }
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new("syntax error: substitutions are nested too deeply"));
        }
        self.depth += 1;
        let result = self.braces();
        self.depth -= 1;
        result
    }

    fn braces(&mut self) -> Result<String> {
        let name = self.name();
        let Some(mut modifier) = self.next() else { return Err(missing_brace()) };
        let mut sign = modifier.to_string();
        let empty_is_unset = modifier == ':';
        if empty_is_unset {
            let Some(next) = self.next() else { return Err(missing_brace()) };
            modifier = next;
            sign.push(next);
        }
        match modifier {
            '}' if !empty_is_unset => Ok(match self.look_up(&name) {
                None if self.lex.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default().to_owned(),
            }),
            '+' | '-' | '?' => self.conditional(&name, modifier, empty_is_unset, &sign),
            '#' | '%' if !empty_is_unset => self.cut(&name, modifier),
            '/' if !empty_is_unset => self.replace(&name),
            _ => Err(Fault::new(format!("unsupported modifier ({sign}) in substitution"))),
        }
    }

    /// Reads what follows a modifier up to the closing brace.
    fn operand(&mut self, stop: char, raw_escapes: bool) -> Result<String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.rest.is_empty() => Err(missing_brace()),
            Err(fault) => Err(fault),
        }
    }

    fn conditional(
        &mut self,
        name: &str,
        modifier: char,
        empty_is_unset: bool,
        sign: &str,
    ) -> Result<String> {
        let word = self.operand('}', false)?;
        let value = self.variables.get(name);
        if value.is_some() {
            self.found.insert(name.to_owned());
        } else if self.lex.skip_unset {
            return Ok(format!("${{{name}{sign}{word}}}"));
        }
        let usable = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, usable) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('-', None) => Ok(word),
            ('?', None) => {
                let why = match (word.as_str(), value) {
                    ("", None) => "is not allowed to be unset",
                    ("", Some(_)) => "is not allowed to be empty",
                    (word, _) => word,
                };
                Err(Fault::new(format!("{name}: {why}")))
            }
            (_, usable) => Ok(usable.unwrap_or_default().to_owned()),
        }
    }

    fn cut(&mut self, name: &str, modifier: char) -> Result<String> {
        let word = self.operand('}', true)?;
        let Some(value) = self.look_up(name) else {
            return Ok(if self.lex.skip_unset {
                format!("${{{name}{modifier}{word}}}")
            } else {
                String::new()
            });
        };
        let (pattern, length) = match word.strip_prefix(modifier) {
            Some(pattern) => (pattern, Length::Longest),
            None => (word.as_str(), Length::Shortest),
        };
        match modifier {
            '#' => pattern::without_prefix(value, pattern, length),
            _ => pattern::without_suffix(value, pattern, length),
        }
    }

    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand('/', true)?;
        let replacement = self.operand('}', false)?;
        let Some(value) = self.look_up(name) else {
            if !self.lex.skip_unset {
                return Ok(String::new());
            }
            let sign = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{sign}{pattern}/{replacement}}}"));
        };
        // The result is bounded before it is made: a replacement may stand for each letter.
        let most = value.len().saturating_add(1).saturating_mul(replacement.len().max(1));
        if most > MAX_GROWTH {
            self.spend(most)?;
        }
        pattern::replaced(value, &pattern, &replacement, all)
    }

    /// Reads a name: letters, digits and `_`; or only digits; or one special parameter.
    fn name(&mut self) -> String {
        let first = self.peek();
        if first.is_some_and(|c| c.is_numeric()) {
            return self.take_while(char::is_numeric);
        }
        if let Some(c) = first.filter(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')) {
            self.next();
            return c.to_string();
        }
        self.take_while(|c| c.is_alphanumeric() || c == '_')
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn look_up(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let seen = if value.is_some() { &mut self.found } else { &mut self.missing };
        seen.insert(name.to_owned());
        value
    }
}

fn missing_brace() -> Fault {
    Fault::new("syntax error: missing '}'")
}
