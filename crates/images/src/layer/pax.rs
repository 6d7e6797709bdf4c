//! PAX records: `length key=value\n`, where the value may be any bytes.

/// Splits the records of an extended header; `None` when one is malformed.
///
/// Lengths count, not line ends: the values of binary attributes contain line ends.
pub(super) fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    // Some writers pad the header with zero bytes.
    while bytes.first().is_some_and(|b| *b != 0) {
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let length = number(&bytes[..digits])?;
        let length = usize::try_from(length).ok()?;
        if bytes.get(digits) != Some(&b' ') || length > bytes.len() || length < digits + 4 {
            return None;
        }
        let record = bytes[digits + 1..length].strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// Parses an unsigned decimal number.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses a time, `[-]seconds[.fraction]`, into seconds and nanoseconds.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(number(parts.next()?)?).ok()?;
    let nanos = match parts.next() {
        None | Some(b"") => 0,
        Some(fraction) => {
            let mut nine = [b'0'; 9];
            let n = fraction.len().min(9);
            nine[..n].copy_from_slice(&fraction[..n]);
            u32::try_from(number(&nine)?).ok()?
        }
    };
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_may_contain_line_ends_and_equal_signs() {
        assert_eq!(records(b"11 a=b\nc=d\n6 x=y\n"), Some(vec![(&b"a"[..], &b"b\nc=d"[..]), (b"x", b"y")]));
        assert_eq!(records(b"99 a=b\n"), None);
        assert_eq!(records(b"7 a=b\n"), None);
        assert_eq!(records(b"5 ab\n"), None);
    }

    #[test]
    fn times_before_1970_are_understood() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.x"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = records(&bytes);
            let _ = time(&bytes);
        }
    }
}
