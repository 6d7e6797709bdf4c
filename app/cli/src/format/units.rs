//! Sizes and durations the way Docker words them.

use std::time::Duration;

/// Formats like Go's `%.{digits}g` for the magnitudes of sizes (no exponent).
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 1.0 { 1 } else { value.abs().log10().floor() as usize + 1 };
    let decimals = digits.saturating_sub(whole);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn scaled(size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = size;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Formats bytes with powers of 1000 and three significant digits: `4.5MB`.
pub fn size(bytes: i64) -> String {
    scaled(bytes as f64, 1000.0, &DECIMAL, 3)
}

/// Formats bytes with powers of 1000 and four significant digits, as progress bars do: `1.234MB`.
pub fn size_precise(bytes: i64) -> String {
    scaled(bytes as f64, 1000.0, &DECIMAL, 4)
}

/// Formats bytes with powers of 1024: `7.656GiB`.
pub fn binary_size(bytes: i64) -> String {
    scaled(bytes as f64, 1024.0, &BINARY, 4)
}

/// Words a duration: `Less than a second`, `About a minute`, `3 hours`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (duration.as_secs_f64() / 3600.0 + 0.5) as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Cuts text to at most `limit` characters, the last one an ellipsis.
pub fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    if limit > 0 {
        short.push('…');
    }
    short
}

/// Shortens a container or image id to twelve digits, without its algorithm.
pub fn short_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_significant_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_261_000, "4.26MB"),
            (4_500_000, "4.5MB"),
            (123_456_789, "123MB"),
            (1_240_000_000, "1.24GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size_precise(1_234_567), "1.235MB");
        assert_eq!(binary_size(8_220_000_000), "7.655GiB");
        assert_eq!(binary_size(512 << 20), "512MiB");
    }

    #[test]
    fn durations_read_like_docker_s() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (61 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn ellipsis_counts_characters_not_bytes() {
        assert_eq!(ellipsis("äöüß", 4), "äöüß");
        assert_eq!(ellipsis("äöüßx", 4), "äöü…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
