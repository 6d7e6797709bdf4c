//! Points in time: printing them, and reading `--since`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::units::human_duration;

/// Words how long ago a Unix time was: `2 minutes ago`.
pub fn ago(unix_seconds: i64, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(unix_seconds).max(0);
    format!("{} ago", human_duration(Duration::from_secs(seconds.unsigned_abs())))
}

/// Prints a Unix time as Docker's lists do: `2026-11-23 22:00:00 +0000 UTC`, local time.
pub fn list_date(unix_seconds: i64) -> String {
    match Timestamp::from_second(unix_seconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
        Err(_) => unix_seconds.to_string(),
    }
}

/// Prints a time with nanoseconds as `events` does: `2026-11-23T22:00:00.000000000Z`, local time.
pub fn event_date(unix_nanoseconds: i128) -> String {
    match Timestamp::from_nanosecond(unix_nanoseconds) {
        Ok(time) => {
            let text = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
            text.strip_suffix("+00:00").map_or(text.clone(), |utc| format!("{utc}Z"))
        }
        Err(_) => unix_nanoseconds.to_string(),
    }
}

/// Turns what a user gives to `--since` and `--until` into seconds since 1970 with a fraction: a duration
/// before now (`42m`, `1h30m`), a date with or without time and zone, or a Unix time.
pub fn moment(text: &str, now: Timestamp) -> Result<String, String> {
    if let Ok(duration) = crate::options::duration::parse(text) {
        let at = now.as_nanosecond() - duration.as_nanos() as i128;
        return Ok(seconds(at));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(seconds(time.as_nanosecond()));
    }
    if text.contains(['-', ':']) {
        let civil = if let Ok(date) = text.parse::<jiff::civil::Date>() {
            Ok(date.to_datetime(jiff::civil::Time::midnight()))
        } else {
            text.parse::<DateTime>()
        };
        return match civil.and_then(|civil| TimeZone::system().to_timestamp(civil)) {
            Ok(time) => Ok(seconds(time.as_nanosecond())),
            Err(_) => Err(format!("failed to parse value as time or duration: {text:?}")),
        };
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) && fraction.len() <= 9 && whole.len() < 18 {
        return Ok(text.to_owned());
    }
    Err(format!("failed to parse value as time or duration: {text:?}"))
}

fn seconds(nanoseconds: i128) -> String {
    format!("{}.{:09}", nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_durations_dates_or_unix_times() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(moment("10s", now).unwrap(), "999990.000000000");
        assert_eq!(moment("1h30m", now).unwrap(), "994600.000000000");
        assert_eq!(moment("1970-01-02T00:00:00Z", now).unwrap(), "86400.000000000");
        assert_eq!(moment("1970-01-02T00:00:00.5+00:00", now).unwrap(), "86400.500000000");
        assert_eq!(moment("1136073845.000000001", now).unwrap(), "1136073845.000000001");
        assert!(moment("yesterday", now).is_err());
        assert!(moment("-5", now).is_err());
        assert!(moment("", now).is_err());
    }

    #[test]
    fn ago_never_looks_into_the_future() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(ago(500, now), "Less than a second ago");
        assert_eq!(ago(40, now), "About a minute ago");
    }
}
