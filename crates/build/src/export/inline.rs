//! The inline cache: an image tells which of its layers were made by what, so that another machine need not.
//!
//! It is a list of keys with the layers that they stand for: the number of them from the lowest on or, in caches whose
//! layers are not on top of each other, their places. Keys are digests of
//! operations and of the contents that they were given, so they mean the same on every machine.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::INLINE_CACHE;

/// More entries than any image has.
const MOST: usize = 4096;

/// One result that an image has in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The places of its layers among the image's; written as their number where they are the lowest ones.
    #[serde(with = "places")]
    pub layers: Vec<usize>,
    /// The keys that it is found by.
    pub keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Inline {
    /// Tells our own form from BuildKit's, which is another.
    skiff: u32,
    entries: Vec<Entry>,
}

mod places {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Places {
        Lowest(usize),
        These(Vec<usize>),
    }

    pub fn serialize<S: Serializer>(places: &[usize], to: S) -> Result<S::Ok, S::Error> {
        match places.iter().enumerate().all(|(at, place)| at == *place) {
            true => Places::Lowest(places.len()),
            false => Places::These(places.to_vec()),
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<usize>, D::Error> {
        Ok(match Places::deserialize(from)? {
            Places::Lowest(number) => (0..number.min(super::MOST)).collect(),
            Places::These(places) => places,
        })
    }
}

/// Makes what is put into the configuration.
pub(crate) fn write(entries: &[Entry]) -> Option<Value> {
    let inline = Inline { skiff: 1, entries: entries.to_vec() };
    serde_json::to_value(inline).ok().filter(|_| !entries.is_empty())
}

/// Reads it from a configuration; nothing where there is none of ours.
pub(crate) fn read(config: &[u8]) -> Vec<Entry> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let Some(inline) = config.get(INLINE_CACHE) else { return Vec::new() };
    match serde_json::from_value::<Inline>(inline.clone()) {
        Ok(inline) if inline.skiff == 1 && inline.entries.len() <= MOST => inline.entries,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let entry = |layers: &[usize]| Entry { layers: layers.to_vec(), keys: vec!["k".to_owned()] };
        let entries = [entry(&[0, 1]), entry(&[0, 2, 3])];
        let inline = write(&entries).unwrap();
        assert_eq!(inline["entries"][0]["layers"], 2, "as it was before there were places");
        assert_eq!(inline["entries"][1]["layers"], json!([0, 2, 3]));
        let config = json!({ INLINE_CACHE: inline }).to_string();
        assert_eq!(read(config.as_bytes()), entries);
        for other in ["{}", "[]", "", r#"{"moby.buildkit.cache.v0":"W10="}"#] {
            assert_eq!(read(other.as_bytes()), []);
        }
    }
}
