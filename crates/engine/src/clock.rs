//! Times as Docker writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Docker's "never": Go's zero time.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> u64 {
    to_ns(SystemTime::now())
}

/// A system time as nanoseconds since the Unix epoch.
pub fn to_ns(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn timestamp(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// RFC 3339 with as many digits of a second as needed; [`NEVER`] for `None`.
pub fn rfc3339(ns: Option<u64>) -> String {
    ns.map_or_else(|| NEVER.to_owned(), |ns| timestamp(ns).to_string())
}

/// RFC 3339 with nine digits, as in `docker logs --timestamps`.
pub fn rfc3339_fixed(ns: u64) -> String {
    format!("{:.9}", timestamp(ns))
}

/// Parses the time formats of `since` and `until`: seconds since the epoch with an optional fraction, RFC 3339, or the
/// beginning of it, in UTC then.
pub fn parse(text: &str) -> Option<u64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return u64::try_from(at.as_nanosecond()).ok();
    }
    if text.contains('-')
        && let Ok(at) = text.parse::<DateTime>()
        && let Ok(at) = TimeZone::UTC.to_timestamp(at)
    {
        return u64::try_from(at.as_nanosecond()).ok();
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// A duration in the words of `docker ps`: "About a minute", "3 hours" (units.HumanDuration of docker/go-units).
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (duration.as_secs_f64() / 3600.0).round());
    if seconds < 1 {
        "Less than a second".to_owned()
    } else if seconds == 1 {
        "1 second".to_owned()
    } else if seconds < 60 {
        format!("{seconds} seconds")
    } else if minutes == 1 {
        "About a minute".to_owned()
    } else if minutes < 60 {
        format!("{minutes} minutes")
    } else if hours == 1.0 {
        "About an hour".to_owned()
    } else if hours < 48.0 {
        format!("{hours} hours")
    } else if hours < 24.0 * 7.0 * 2.0 {
        format!("{} days", (hours / 24.0).floor())
    } else if hours < 24.0 * 30.0 * 2.0 {
        format!("{} weeks", (hours / 24.0 / 7.0).floor())
    } else if hours < 24.0 * 365.0 * 2.0 {
        format!("{} months", (hours / 24.0 / 30.0).floor())
    } else {
        format!("{} years", (duration.as_secs_f64() / 3600.0 / 24.0 / 365.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_docker_ps() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (3 * 86_400, "3 days"),
            (15 * 86_400, "2 weeks"),
            (70 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_parse_as_seconds_or_rfc3339() {
        assert_eq!(parse("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse("1700000000.25"), Some(1_700_000_000_250_000_000));
        assert_eq!(parse("1700000000.000000001"), Some(1_700_000_000_000_000_001));
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse("2023-11-14T22:13:20"), parse("2023-11-14T22:13:20Z"));
        assert_eq!(parse("2023-11-14"), parse("2023-11-14T00:00:00Z"));
        for wrong in ["", "abc", "1.2.3", "-5", "1.0000000000", "2023-13-01T00:00:00Z"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(rfc3339(None), NEVER);
        assert_eq!(rfc3339(Some(1_700_000_000_250_000_000)), "2023-11-14T22:13:20.25Z");
        assert_eq!(rfc3339_fixed(1_700_000_000_250_000_000), "2023-11-14T22:13:20.250000000Z");
    }
}
