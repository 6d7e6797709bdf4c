//! `HEALTHCHECK`, and durations as Go writes them.

use super::flags::{Flags, Takes};
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::parse::{Arguments, Node};

/// `HEALTHCHECK`. Durations are in nanoseconds; 0 is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: i64,
    /// How long a check may take.
    pub timeout: i64,
    /// How long failures do not count after the start.
    pub start_period: i64,
    /// Time between two checks while they do not count.
    pub start_interval: i64,
    /// How many failures make it unhealthy.
    pub retries: i64,
}

const FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];
const MILLISECOND: i64 = 1_000_000;

impl Health {
    /// Reads the instruction.
    pub fn parse(node: &Node) -> Result<Health> {
        let Arguments::Typed(kind, command) = &node.arguments else {
            return Err(Fault::new("HEALTHCHECK requires at least one argument"));
        };
        let kind = kind.to_uppercase();
        if kind == "NONE" {
            if **command != Arguments::None {
                return Err(Fault::new("HEALTHCHECK NONE takes no arguments"));
            }
            return Ok(Health { test: vec![kind], ..Health::default() });
        }
        let flags = Flags::parse(&node.flags, &FLAGS)?;
        if kind != "CMD" {
            return Err(Fault::new(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")));
        }
        let (kind, words) = match command.as_ref() {
            Arguments::Json(words) => ("CMD", words.clone()),
            Arguments::Words(words) => ("CMD-SHELL", words.clone()),
            _ => ("CMD", Vec::new()),
        };
        if words.is_empty() {
            return Err(Fault::new("Missing command after HEALTHCHECK CMD"));
        }
        let time = |name: &str| match flags.value(name) {
            None | Some("") => Ok(0),
            Some(text) => match duration(text)? {
                0 => Ok(0),
                time if time < MILLISECOND => {
                    Err(Fault::new(format!("Interval {name:?} cannot be less than 1ms")))
                }
                time => Ok(time),
            },
        };
        let retries = match flags.value("retries") {
            None | Some("") => 0,
            Some(text) => {
                let number: i32 = text
                    .parse()
                    .map_err(|_| Fault::new(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
                if number < 0 {
                    return Err(Fault::new(format!("--retries cannot be negative ({number})")));
                }
                i64::from(number)
            }
        };
        Ok(Health {
            test: [kind.to_owned()].into_iter().chain(words).collect(),
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("start-period")?,
            start_interval: time("start-interval")?,
            retries,
        })
    }
}

/// Reads a duration as Go does: `1h2m3.5s`, `300ms`. In nanoseconds.
///
/// # Errors
/// Something else, in Go's words.
pub fn duration(text: &str) -> Result<i64> {
    let invalid = || Fault::new(format!("time: invalid duration {text:?}"));
    let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1.0 } else { 1.0 }, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(Fault::new(format!("time: missing unit in duration {text:?}"))),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            unit => {
                return Err(Fault::new(format!("time: unknown unit {unit:?} in duration {text:?}")));
            }
        };
        rest = &rest[end..];
        total += number * unit;
    }
    let total = sign * total;
    if !total.is_finite() || total.abs() >= 9.2e18 {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within the range")]
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("1s", Ok(1_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            ("1h2m3s", Ok(3_723_000_000_000)),
            ("10ms", Ok(10_000_000)),
            ("-1s", Ok(-1_000_000_000)),
            ("", Err("time: invalid duration \"\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            ("s", Err("time: invalid duration \"s\"")),
            ("99999999999h", Err("time: invalid duration \"99999999999h\"")),
        ] {
            assert_eq!(duration(text).map_err(|f| f.message), expected.map_err(str::to_owned), "{text}");
        }
    }
}
