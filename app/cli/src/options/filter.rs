//! `--filter key=value`, as the API wants it: `{"key":["value"]}`.

use std::collections::BTreeMap;

/// Checks one filter on the command line.
pub fn check(filter: &str) -> Result<String, String> {
    match filter.contains('=') {
        true => Ok(filter.to_owned()),
        false => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// Parses filters into the API's JSON; nothing without filters.
pub fn encode(filters: &[String]) -> Result<Option<String>, String> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for filter in filters {
        let (key, value) = filter.split_once('=').ok_or_else(|| {
            format!("invalid filter '{filter}': bad format of filter (expected name=value)")
        })?;
        map.entry(key.trim().to_lowercase()).or_default().push(value.trim().to_owned());
    }
    if map.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string(&map).expect("a map of strings always serialises")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_key_gather() {
        let filters = ["Label=a=b".to_owned(), "label=c".to_owned(), "status = exited".to_owned()];
        assert_eq!(encode(&filters).unwrap().unwrap(), r#"{"label":["a=b","c"],"status":["exited"]}"#);
        assert_eq!(encode(&[]).unwrap(), None);
        assert!(encode(&["x".to_owned()]).is_err());
    }
}
