//! Options of a transfer as gRPC metadata. Values that a header can't carry go query-escaped, which a second key tells.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

/// What Go's `url.QueryEscape` leaves alone, besides letters and digits. Spaces may be `%20` as well as `+`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Adds an option with its values.
pub(crate) fn put(metadata: &mut MetadataMap, key: &'static str, values: &[String]) {
    let plain = values.iter().all(|value| {
        // Headers lose the white space around them.
        value.trim().len() == value.len() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    });
    let name = MetadataKey::from_static(key);
    for value in values {
        let text = if plain { value.clone() } else { utf8_percent_encode(value, ESCAPED).to_string() };
        if let Ok(value) = MetadataValue::try_from(text) {
            metadata.append(name.clone(), value);
        }
    }
    if !plain && let Ok(name) = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes()) {
        metadata.insert(name, MetadataValue::from_static("1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&str]) -> (Vec<String>, bool) {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "exclude-patterns", &values);
        let texts = metadata.get_all("exclude-patterns").iter();
        let texts = texts.map(|value| value.to_str().unwrap().to_owned()).collect();
        (texts, metadata.contains_key("exclude-patterns-encoded"))
    }

    #[test]
    fn plain_values_go_as_they_are_in_order() {
        assert_eq!(
            sent(&["!a", "**/*.rs", "50%"]),
            (vec!["!a".into(), "**/*.rs".into(), "50%".into()], false)
        );
        assert_eq!(sent(&[]), (Vec::new(), false));
    }

    #[test]
    fn one_value_beyond_a_header_escapes_all_of_them() {
        assert_eq!(sent(&["a b", "日"]), (vec!["a%20b".into(), "%E6%97%A5".into()], true));
        assert_eq!(sent(&[" a"]), (vec!["%20a".into()], true));
        assert_eq!(sent(&["a\nb"]), (vec!["a%0Ab".into()], true));
    }
}
