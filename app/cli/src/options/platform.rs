//! Platforms as users write them, and as the API wants them in queries.

use serde_json::{Map, Value};

use crate::error::Error;

/// Turns `os[/architecture[/variant]]` into the object that queries carry.
///
/// # Errors
/// When it is no platform.
pub fn encode(text: &str) -> Result<String, Error> {
    let wrong = || Error::plain(format!("invalid platform: {text:?}: it is OS[/ARCHITECTURE[/VARIANT]]"));
    let parts: Vec<&str> = text.split('/').collect();
    let is_word = |part: &&str| {
        !part.is_empty()
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    if parts.len() > 3 || !parts.iter().all(is_word) {
        return Err(wrong());
    }
    let (os, rest) = parts.split_first().ok_or_else(wrong)?;
    let mut fields = Map::from_iter([("os".to_owned(), Value::from(*os))]);
    let architecture = rest.first().copied().unwrap_or(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    });
    fields.insert("architecture".to_owned(), architecture.into());
    if let Some(variant) = rest.get(1) {
        fields.insert("variant".to_owned(), (*variant).into());
    }
    Ok(Value::from(fields).to_string())
}

/// The same for a flag that may not be given.
///
/// # Errors
/// As [`encode`].
pub fn query(flag: Option<&str>) -> Result<Option<String>, Error> {
    flag.map(encode).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_an_object_in_a_query() {
        assert_eq!(
            encode("linux/arm64/v8").unwrap(),
            r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
        );
        assert!(encode("linux").unwrap().contains(r#""os":"linux""#));
        for wrong in ["", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(encode(wrong).is_err(), "{wrong:?}");
        }
    }
}
