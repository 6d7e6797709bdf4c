//! Query strings.

use std::fmt::Write;

/// Percent-encodes everything but unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string never fails");
        }
    }
    out
}

/// A query under construction.
#[derive(Debug, Clone, Default)]
pub struct Query(String);

impl Query {
    /// Starts an empty query.
    pub fn new() -> Query {
        Query::default()
    }

    /// Adds a key and value.
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Query {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&encode(&value.to_string()));
        self
    }

    /// Adds a key and value where there is one.
    pub fn maybe(self, key: &str, value: Option<impl std::fmt::Display>) -> Query {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds `key=1` where the flag is set.
    pub fn flag(self, key: &str, set: bool) -> Query {
        if set { self.with(key, 1) } else { self }
    }

    /// Returns the query with its question mark, or an empty string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        let query = Query::new().with("a", "x y/ä").flag("b", true).flag("c", false).maybe("d", None::<i32>);
        assert_eq!(query.as_str(), "?a=x%20y%2F%C3%A4&b=1");
    }
}
