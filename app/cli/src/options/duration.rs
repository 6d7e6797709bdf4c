//! Go's durations: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// Parses a duration that is not negative.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {text:?}")),
                other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
            };
        rest = &rest[unit..];
    }
    // Go's durations are 64-bit nanoseconds.
    if total > i64::MAX as f64 / 1e9 {
        return Err(invalid());
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

/// Parses a duration into nanoseconds, for the API.
pub fn nanoseconds(text: &str) -> Result<i64, String> {
    parse(text).map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        assert_eq!(nanoseconds("1h30m").unwrap(), 5400 * 1_000_000_000);
        assert_eq!(nanoseconds("1.5s").unwrap(), 1_500_000_000);
        assert_eq!(nanoseconds("300ms").unwrap(), 300_000_000);
        assert_eq!(nanoseconds("0").unwrap(), 0);
        assert_eq!(parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        for bad in ["", "s", "-1s", "1..2s", "99999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
