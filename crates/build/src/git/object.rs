//! What is in objects: commits, trees, and differences to other objects.

use super::Id;
use crate::error::{Error, Result};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    /// Its word, as names of objects are made with it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
            Kind::Tag => "tag",
        }
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub mode: u32,
    pub name: String,
    pub id: Id,
}

pub(super) fn damaged(what: &str) -> Error {
    Error::failed(format!("git: the repository is damaged: {what}"))
}

/// The value of a line `KEY ID` in the head of a commit or tag.
pub(super) fn header(object: &[u8], key: &str) -> Option<Id> {
    let head = object.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    head.filter_map(|line| std::str::from_utf8(line).ok())
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(Id::parse)
}

/// Reads a tree. Names that lead elsewhere are refused.
pub(super) fn tree(mut bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let wrong = || damaged("a tree is cut off");
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let end = bytes.iter().position(|byte| *byte == 0).filter(|end| *end > space).ok_or_else(wrong)?;
        let mode =
            std::str::from_utf8(&bytes[..space]).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        let name = String::from_utf8(bytes[space + 1..end].to_vec());
        let name = name.map_err(|_| damaged("a file has a name that is no text"))?;
        let id = bytes.get(end + 1..end + 21).and_then(|id| id.try_into().ok()).ok_or_else(wrong)?;
        if matches!(name.as_str(), "" | "." | "..") || name.contains('/') || name.eq_ignore_ascii_case(".git")
        {
            return Err(damaged(&format!("a file is named {name:?}")));
        }
        entries.push(Entry { mode: mode.ok_or_else(wrong)?, name, id: Id(id) });
        bytes = &bytes[end + 21..];
    }
    Ok(entries)
}

/// Makes an object of another one and what differs. `limit` is what it may be long.
pub(super) fn apply(base: &[u8], delta: &[u8], limit: u64) -> Result<Vec<u8>> {
    let wrong = || damaged("a difference leads outside");
    let mut at = 0;
    let mut number = || -> Result<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *delta.get(at).ok_or_else(wrong)?;
            at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).ok_or_else(wrong)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            if shift > 56 {
                return Err(wrong());
            }
        }
    };
    let (from, length) = (number()?, number()?);
    if from != base.len() as u64 || length > limit {
        return Err(wrong());
    }
    let mut made = Vec::with_capacity(usize::try_from(length.min(1 << 20)).unwrap_or(0));
    while let Some(&code) = delta.get(at) {
        at += 1;
        if code & 0x80 == 0 {
            let piece = delta.get(at..at + usize::from(code)).filter(|piece| !piece.is_empty());
            made.extend_from_slice(piece.ok_or_else(wrong)?);
            at += usize::from(code);
        } else {
            let mut bytes = |bits: u8, count: u8| -> Result<usize> {
                let mut value = 0;
                for bit in 0..count {
                    if bits & (1 << bit) != 0 {
                        value |= usize::from(*delta.get(at).ok_or_else(wrong)?) << (8 * bit);
                        at += 1;
                    }
                }
                Ok(value)
            };
            let offset = bytes(code & 0x0f, 4)?;
            let size = match bytes(code >> 4 & 0x07, 3)? {
                0 => 0x10000,
                size => size,
            };
            let end = offset.checked_add(size).ok_or_else(wrong)?;
            made.extend_from_slice(base.get(offset..end).ok_or_else(wrong)?);
        }
        if made.len() as u64 > length {
            return Err(wrong());
        }
    }
    if made.len() as u64 == length { Ok(made) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trees_are_read_and_names_that_lead_elsewhere_refused() {
        let entry = |mode: &str, name: &str| [format!("{mode} {name}\0").as_bytes(), &[7; 20]].concat();
        let read = tree(&[entry("100644", "a"), entry("40000", "b c")].concat()).unwrap();
        assert_eq!(read[1], Entry { mode: 0o40000, name: "b c".to_owned(), id: Id([7; 20]) });
        for name in ["..", ".", "", "a/b", ".git", ".GIT"] {
            assert!(tree(&entry("100644", name)).is_err(), "{name:?}");
        }
        assert!(tree(b"100644 a\0short").is_err());
    }

    #[test]
    fn differences_copy_and_insert() {
        // From 5 bytes to 7: two of the base from its third, and "new".
        let delta = [&[5, 7, 0x91, 2, 2, 3][..], b"new", &[0x90, 2]].concat();
        assert_eq!(apply(b"abcde", &delta, 100).unwrap(), b"cdnewab");
        assert!(apply(b"abcde", &delta, 6).is_err(), "too long");
        assert!(apply(b"abcd", &delta, 100).is_err(), "another base");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(base in prop::collection::vec(any::<u8>(), 0..64), delta in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = tree(&delta);
            let _ = header(&delta, "tree");
            let _ = apply(&base, &delta, 1 << 16);
        }
    }
}
