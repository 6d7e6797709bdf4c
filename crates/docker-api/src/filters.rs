//! The `filters` query parameter: a JSON map from a filter's name to the values that it accepts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::ApiError;

/// Filters of a list, prune or events call, with names already checked against those that the call knows.
///
/// Values of one name are alternatives, except for `label`, where all must match; different names must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    values: BTreeMap<String, BTreeSet<String>>,
}

/// Both shapes on the wire: `{"name":{"value":true}}` (today's) and `{"name":["value"]}` (before API 1.22, and still
/// sent by docker-py and many scripts).
#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    Sets(BTreeMap<String, Option<BTreeMap<String, bool>>>),
    Lists(BTreeMap<String, Option<Vec<String>>>),
}

impl Filters {
    /// Parses the parameter; empty text means no filters.
    ///
    /// # Errors
    /// 400 when the text is no such map, or names a filter that isn't in `accepted`.
    pub(crate) fn parse(text: &str, accepted: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::parse_any(text)?;
        match filters.values.keys().find(|name| !accepted.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::bad_request(format!("invalid filter '{unknown}'"))),
            None => Ok(filters),
        }
    }

    /// Parses the parameter of a call that knows no filter as wrong.
    ///
    /// # Errors
    /// 400 when the text is no such map.
    pub(crate) fn parse_any(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wire: Option<Wire> =
            serde_json::from_str(text).map_err(|_| ApiError::bad_request("invalid filter"))?;
        let values: BTreeMap<String, BTreeSet<String>> = match wire {
            None => BTreeMap::new(),
            Some(Wire::Lists(lists)) => lists
                .into_iter()
                .map(|(name, values)| (name, values.unwrap_or_default().into_iter().collect()))
                .collect(),
            // dockerd ignores the booleans: `{"x": false}` counts as well.
            Some(Wire::Sets(sets)) => sets
                .into_iter()
                .map(|(name, values)| (name, values.unwrap_or_default().into_keys().collect()))
                .collect(),
        };
        Ok(Self { values })
    }

    /// Drops the filters that are not in `known`.
    pub(crate) fn retain(&mut self, known: &[&str]) {
        self.values.retain(|name, _| known.contains(&name.as_str()));
    }

    /// Makes filters from pairs, for tests and for defaults.
    pub fn from_pairs<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let mut filters = Self::default();
        for (name, value) in pairs {
            filters.add(name, value);
        }
        filters
    }

    /// Adds a value to a filter.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.values.entry(name.to_owned()).or_default().insert(value.to_owned());
    }

    /// Returns whether no filter is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns whether a filter of this name is set.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns the values of one filter; none when it isn't set.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Returns all filters by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.values.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_shapes_mean_the_same() {
        let sets = Filters::parse(r#"{"label":{"a=b":true,"c":true}}"#, &["label"]).unwrap();
        let lists = Filters::parse(r#"{"label":["a=b","c"]}"#, &["label"]).unwrap();
        assert_eq!(sets, lists);
        assert_eq!(sets.get("label").collect::<Vec<_>>(), ["a=b", "c"]);
        assert_eq!(sets.get("name").count(), 0);
    }

    #[test]
    fn nothing_is_no_filter() {
        for text in ["", "{}", "null"] {
            assert!(Filters::parse(text, &[]).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_refused_in_dockerds_words() {
        let error = Filters::parse(r#"{"colour":["red"]}"#, &["label"]).unwrap_err();
        assert_eq!((error.status.as_u16(), error.message.as_str()), (400, "invalid filter 'colour'"));
    }

    #[test]
    fn other_json_is_refused() {
        for text in ["[]", "1", r#"{"a":1}"#, r#"{"a":{"b":1}}"#, "{", "\u{0}"] {
            assert_eq!(Filters::parse(text, &["a"]).unwrap_err().message, "invalid filter", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            let _ = Filters::parse(&text, &["a", "label"]);
        }

        #[test]
        fn any_map_round_trips(map in proptest::collection::btree_map("[a-z]{1,4}", proptest::collection::btree_set(".{0,8}", 0..4), 0..4)) {
            let names: Vec<&str> = map.keys().map(String::as_str).collect();
            let lists = Filters::parse(&serde_json::to_string(&map).unwrap(), &names).unwrap();
            let sets: BTreeMap<_, BTreeMap<_, bool>> =
                map.iter().map(|(k, v)| (k, v.iter().map(|v| (v, true)).collect())).collect();
            prop_assert_eq!(&lists, &Filters::parse(&serde_json::to_string(&sets).unwrap(), &names).unwrap());
            for (name, values) in &map {
                prop_assert!(lists.get(name).eq(values.iter().map(String::as_str)));
            }
        }
    }
}
