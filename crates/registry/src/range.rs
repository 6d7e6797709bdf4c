//! `Range` and `Content-Range`.

use crate::error::{Refusal, Result};

/// Which bytes of a content a client wants: the first one and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// A part.
    Part {
        /// The first byte.
        start: u64,
        /// How many.
        length: u64,
    },
    /// What there isn't.
    Nothing,
}

/// Reads a `Range` for a content of a size. Several ranges, or another unit, are taken for no range at all.
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(range) = header.and_then(|header| header.strip_prefix("bytes=")) else { return Wanted::All };
    let Some((from, to)) = range.split_once('-') else { return Wanted::All };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (from.trim(), to.trim()) {
        ("", last) => match number(last) {
            Some(0) => return Wanted::Nothing,
            Some(last) => (size.saturating_sub(last), size),
            None => return Wanted::All,
        },
        (first, "") => match number(first) {
            Some(first) => (first, size),
            None => return Wanted::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            _ => return Wanted::All,
        },
    };
    if start >= size { Wanted::Nothing } else { Wanted::Part { start, length: end - start } }
}

/// Reads the `Content-Range` of a piece that is sent: `first-last`. Returns the first byte and how many.
pub fn sent(header: &str) -> Result<(u64, u64)> {
    let header = header.strip_prefix("bytes").map_or(header, |rest| rest.trim_start_matches([' ', '=']));
    let range = header.split('/').next().unwrap_or_default();
    let numbers = range.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    match numbers {
        Some((first, last)) if first <= last => Ok((first, last - first + 1)),
        _ => Err(Refusal::range_invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_within_the_content() {
        let part = |start, length| Wanted::Part { start, length };
        for (header, expected) in [
            (None, Wanted::All),
            (Some("bytes=0-9"), part(0, 10)),
            (Some("bytes=5-"), part(5, 95)),
            (Some("bytes=-10"), part(90, 10)),
            (Some("bytes=-1000"), part(0, 100)),
            (Some("bytes=90-1000"), part(90, 10)),
            (Some("bytes=100-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=9-5"), Wanted::All),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("items=0-1"), Wanted::All),
            (Some("bytes=x"), Wanted::All),
        ] {
            assert_eq!(wanted(header, 100), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(sent("0-9").unwrap(), (0, 10));
        assert_eq!(sent("bytes 5-5/*").unwrap(), (5, 1));
        for wrong in ["", "9-5", "x-y", "5"] {
            assert!(sent(wrong).is_err(), "{wrong}");
        }
    }
}
