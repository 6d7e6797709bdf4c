//! The inline cache: an image tells which of its layers were made by what, so that another machine need not.
//!
//! It is a list of keys with the number of layers, from the lowest on, that they stand for. Keys are digests of
//! operations and of the contents that they were given, so they mean the same on every machine.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::INLINE_CACHE;

/// More entries than any image has.
const MOST: usize = 4096;

/// One result that an image has in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// How many of the image's layers it is.
    pub layers: usize,
    /// The keys that it is found by.
    pub keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Inline {
    /// Tells our own form from BuildKit's, which is another.
    skiff: u32,
    entries: Vec<Entry>,
}

/// Makes what is put into the configuration.
pub(super) fn write(entries: &[Entry]) -> Option<Value> {
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
