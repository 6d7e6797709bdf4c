//! How the arguments of instructions are taken apart, before any variable is known.

use crate::dockerfile::fault::{Fault, Result};

/// What BuildKit takes for white space between words: no newline.
pub fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at runs of blanks, at most into `limit` parts; the last one keeps its blanks.
pub fn split_blank(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while parts.len() + 1 < limit {
        let Some(at) = rest.find(is_blank) else { break };
        parts.push(&rest[..at]);
        rest = rest[at..].trim_start_matches(is_blank);
    }
    parts.push(rest);
    parts
}

/// Takes `--flag…` words from the beginning; returns them, without quotes and escapes, and what follows.
pub fn take_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, empty_is_fine, end) = take_flag(rest);
        rest = &rest[end..];
        if flag == "--" {
            return (flags, rest);
        }
        if empty_is_fine || !flag.is_empty() {
            flags.push(flag);
        }
        rest = rest.trim_start();
    }
    (flags, rest)
}

fn take_flag(text: &str) -> (String, bool, usize) {
    let (mut flag, mut quote, mut quoted) = (String::new(), None, false);
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (flag, quoted, at),
            ('\'' | '"', None) => {
                quote = Some(c);
                quoted = true;
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', _) => match letters.next() {
                Some((_, escaped)) => flag.push(escaped),
                None => quote = None,
            },
            (c, _) => flag.push(c),
        }
    }
    (flag, quoted, text.len())
}

/// Splits into words at white space outside of quotes. Quotes and escapes stay in the words.
pub fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quote, mut quoted) = (None, false);
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match quote {
            None if c.is_whitespace() => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
                continue;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        // Nothing is escaped between single quotes; an escape at the very end is dropped.
        if c == escape && quote != Some('\'') {
            match letters.next() {
                Some(escaped) => {
                    word.push(c);
                    word.push(escaped);
                }
                None => quote = None,
            }
            continue;
        }
        word.push(c);
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

/// One `key=value` of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
    /// Written `key value`, the old way.
    pub legacy: bool,
}

/// Takes the pairs of `ENV` and `LABEL` apart.
///
/// # Errors
/// A pair without its value.
pub fn pairs(text: &str, instruction: &str, escape: char) -> Result<Vec<Pair>> {
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let parts = split_blank(text, 2);
        let [key, value] = parts.as_slice() else {
            return Err(Fault::new(format!("{instruction} must have two arguments")));
        };
        return Ok(vec![Pair { key: (*key).to_owned(), value: (*value).to_owned(), legacy: true }]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned(), legacy: false }),
            None => Err(Fault::new(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// What a text is as a JSON array of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// An array; what follows it is ignored, as BuildKit does.
    Array(Vec<String>),
    /// Not JSON, or no array.
    No,
}

/// Reads a JSON array of strings.
///
/// # Errors
/// An array with something else in it.
pub fn json(text: &str) -> Result<Json> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(Json::No);
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<serde_json::Value>>();
    let Some(Ok(values)) = values.next() else { return Ok(Json::No) };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(Fault::new("when using JSON array syntax, arrays must be comprised of strings only")),
        })
        .collect::<Result<Vec<String>>>()
        .map(Json::Array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_no_word_starts_with_two_dashes() {
        for (text, flags, rest) in [
            ("--from=a b c", vec!["--from=a"], "b c"),
            ("  --a --b=c d", vec!["--a", "--b=c"], "d"),
            ("--a=\"b c\" d", vec!["--a=b c"], "d"),
            ("--a='b\\\\c' d", vec!["--a=b\\c"], "d"),
            ("-- --a", vec![], " --a"),
            ("-a", vec![], "-a"),
            ("--a\\ b c", vec!["--a b"], "c"),
            ("--a=\"b", vec!["--a=b"], ""),
            ("", vec![], ""),
        ] {
            let (found, left) = take_flags(text);
            assert_eq!((found, left), (flags.iter().map(|f| (*f).to_owned()).collect(), rest), "{text:?}");
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (text, words) in [
            ("a b", vec!["a", "b"]),
            ("a=\"b c\" d", vec!["a=\"b c\"", "d"]),
            ("a\\ b", vec!["a\\ b"]),
            ("'a \\' b", vec!["'a \\'", "b"]),
            ("\"a \\\" b\"", vec!["\"a \\\" b\""]),
            ("a\\", vec!["a"]),
            ("\"\" b", vec!["\"\"", "b"]),
            ("  ", vec![]),
            ("\"a b", vec!["\"a b"]),
        ] {
            assert_eq!(quoted_words(text, '\\'), words, "{text:?}");
        }
        assert_eq!(quoted_words("a` b\\", '`'), ["a` b\\"]);
    }

    #[test]
    fn pairs_are_old_or_new() {
        let pair = |key: &str, value: &str, legacy| Pair { key: key.into(), value: value.into(), legacy };
        assert_eq!(pairs("a b  c", "ENV", '\\').unwrap(), [pair("a", "b  c", true)]);
        assert_eq!(
            pairs("a=b c=\"d e\"", "ENV", '\\').unwrap(),
            [pair("a", "b", false), pair("c", "\"d e\"", false)]
        );
        assert_eq!(pairs("a", "ENV", '\\').unwrap_err().message, "ENV must have two arguments");
        assert_eq!(
            pairs("a=b c", "LABEL", '\\').unwrap_err().message,
            "Syntax error - can't find = in \"c\". Must be of the form: name=value"
        );
        assert_eq!(pairs("", "ENV", '\\').unwrap(), []);
    }

    #[test]
    fn json_is_an_array_of_strings() {
        let array = |values: &[&str]| Json::Array(values.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(json(" [\"a\", \"b\\n\"]").unwrap(), array(&["a", "b\n"]));
        assert_eq!(json("[]").unwrap(), array(&[]));
        assert_eq!(json("[\"a\"] trailing").unwrap(), array(&["a"]));
        assert_eq!(json("['a']").unwrap(), Json::No);
        assert_eq!(json("[a").unwrap(), Json::No);
        assert_eq!(json("{}").unwrap(), Json::No);
        assert!(json("[1]").is_err());
        assert!(json("[\"a\", [\"b\"]]").is_err());
        assert_eq!(json(&"[".repeat(100_000)).unwrap(), Json::No);
    }
}
