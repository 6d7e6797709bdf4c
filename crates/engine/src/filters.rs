//! The `filters` parameter that lists, prunes and events share.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::Regex;

use crate::error::{Error, Result};

/// Named filters, each with its alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub HashMap<String, Vec<String>>);

impl From<HashMap<String, Vec<String>>> for Filters {
    fn from(map: HashMap<String, Vec<String>>) -> Self {
        Self(map)
    }
}

impl Filters {
    /// Fails when a filter is not among `known`, in Docker's words.
    pub(crate) fn check(&self, known: &[&str]) -> Result<()> {
        let mut unknown: Vec<_> = self.0.keys().filter(|name| !known.contains(&name.as_str())).collect();
        unknown.sort();
        match unknown.first() {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The alternatives of one filter; `None` when it is not given.
    pub(crate) fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice).filter(|values| !values.is_empty())
    }

    /// Whether `name` is not given or `test` holds for one of its alternatives.
    pub(crate) fn any(&self, name: &str, mut test: impl FnMut(&str) -> bool) -> bool {
        self.get(name).is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// A filter that is true or false.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some(values) = self.get(name) else { return Ok(None) };
        // As Docker reads it: what is neither counts for nothing beside what is.
        let said = |wanted: bool| values.iter().any(|value| parse_bool(value) == Some(wanted));
        match (said(true), said(false)) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => Err(Error::invalid(format!("invalid filter '{name}=[{}]'", values.join(" ")))),
        }
    }

    /// Whether every `label` filter (`key` or `key=value`) holds.
    pub(crate) fn labels(&self, labels: Option<&HashMap<String, String>>) -> bool {
        self.get("label").unwrap_or_default().iter().all(|wanted| label_matches(wanted, labels))
    }

    /// Whether none of the `label!` filters holds.
    pub(crate) fn not_labels(&self, labels: Option<&HashMap<String, String>>) -> bool {
        !self.get("label!").unwrap_or_default().iter().any(|wanted| label_matches(wanted, labels))
    }
}

fn label_matches(wanted: &str, labels: Option<&HashMap<String, String>>) -> bool {
    let Some(labels) = labels else { return false };
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "true" | "True" | "t" | "T" | "TRUE" => Some(true),
        "0" | "false" | "False" | "f" | "F" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Whether `pattern`, which is a regular expression, is found in `text`. One that is none is found in itself.
pub(crate) fn name_matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        /// The last pattern: a list asks for each of its entries.
        static LAST: RefCell<Option<(String, Option<Regex>)>> = const { RefCell::new(None) };
    }
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    if inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/')) {
        return plain_matches(pattern, text);
    }
    text == pattern
        || LAST.with_borrow_mut(|last| {
            if last.as_ref().is_none_or(|(known, _)| known != pattern) {
                *last = Some((pattern.to_owned(), Regex::new(pattern).ok()));
            }
            matches!(last, Some((_, Some(regex))) if regex.is_match(text))
        })
}

/// The same for patterns that have nothing special but the two anchors, without a regular expression.
fn plain_matches(pattern: &str, text: &str) -> bool {
    let (start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, needle) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    match (start, end) {
        (true, true) => text == needle,
        (true, false) => text.starts_with(needle),
        (false, true) => text.ends_with(needle),
        (false, false) => text.contains(needle),
    }
}

#[cfg(test)]
pub(crate) fn filters(pairs: &[(&str, &[&str])]) -> Filters {
    Filters(
        pairs
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.iter().map(|&v| v.to_owned()).collect()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_filters_are_refused_by_name() {
        let error = filters(&[("name", &["x"]), ("bogus", &["1"])]).check(&["name"]).unwrap_err();
        assert_eq!(error.message, "invalid filter 'bogus'");
    }

    #[test]
    fn label_filters_must_all_hold() {
        let labels = HashMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        assert!(filters(&[("label", &["a", "b="])]).labels(Some(&labels)));
        assert!(!filters(&[("label", &["a=2"])]).labels(Some(&labels)));
        assert!(!filters(&[("label", &["a", "c"])]).labels(Some(&labels)));
        assert!(!filters(&[("label", &["a"])]).labels(None));
        assert!(filters(&[]).labels(None));
    }

    #[test]
    fn alternatives_of_one_filter_are_joined_by_or() {
        let both = filters(&[("status", &["created", "exited"])]);
        assert!(both.any("status", |value| value == "exited"));
        assert!(!both.any("status", |value| value == "running"));
        assert!(both.any("name", |_| false));
    }

    #[test]
    fn boolean_filters_refuse_contradictions() {
        assert_eq!(filters(&[("dangling", &["true"])]).boolean("dangling").unwrap(), Some(true));
        assert!(filters(&[("dangling", &["true", "0"])]).boolean("dangling").is_err());
        assert!(filters(&[("dangling", &["maybe"])]).boolean("dangling").is_err());
    }

    #[test]
    fn names_match_as_substrings_with_anchors() {
        assert!(name_matches("eb", "/web"));
        assert!(name_matches("^/web$", "/web"));
        assert!(!name_matches("^web", "/web"));
        assert!(name_matches("web$", "/web"));
    }

    #[test]
    fn names_are_matched_as_regular_expressions() {
        for (pattern, name, fits) in [
            ("web", "my-web-1", true),
            ("^web$", "web", true),
            ("^web$", "web1", false),
            ("web[0-9]+$", "web12", true),
            ("a.c", "abc", true),
            ("^/a.*z$", "/abcz", true),
            ("[", "[", true),
            ("[", "a", false),
        ] {
            assert_eq!(name_matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
