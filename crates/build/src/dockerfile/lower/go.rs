//! Values as Go's `fmt` prints them: history entries have them.

use std::fmt::Write as _;

/// `%q` of a text.
pub fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if c == '"' { out.push_str("\\\"") } else { escape(c, &mut out) }
    }
    out.push('"');
    out
}

/// `%q` of a list.
pub fn quote_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a list.
pub fn list(texts: &[String]) -> String {
    format!("[{}]", texts.join(" "))
}

/// `%q` of a number: the letter of that number.
pub fn quote_letter(number: i64) -> String {
    let letter = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let mut out = String::from('\'');
    if letter == '\'' {
        out.push_str("\\'")
    } else {
        escape(letter, &mut out)
    }
    out.push('\'');
    out
}

fn escape(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if c < ' ' || c == '\u{7f}' => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c if c.is_control() => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// A duration of nanoseconds: `1h30m0s`, `1.5s`, `20ms`.
pub fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |whole: u64, rest: u64, digits: usize| match rest {
        0 => whole.to_string(),
        rest => format!("{whole}.{:0digits$}", rest).trim_end_matches('0').to_owned(),
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total / 1_000, total % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total / 1_000_000, total % 1_000_000, 6)),
        _ => {
            let (seconds, rest) = (total / 1_000_000_000, total % 1_000_000_000);
            let (minutes, seconds) = (seconds / 60, fraction(seconds % 60, rest, 9));
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_in_go() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (2_000, "2µs"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_050_000_000, "1.05s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
        assert_eq!(quote_list(&["a".into(), "b c".into()]), "[\"a\" \"b c\"]");
        assert_eq!(
            (quote_letter(3), quote_letter(10), quote_letter(65)),
            ("'\\x03'".into(), "'\\n'".into(), "'A'".into())
        );
        assert_eq!(quote_letter(-1), "'\u{fffd}'");
    }
}
