//! `--log-driver` and `--log-opt`: which there are, and what they bound.

use std::collections::HashMap;

use bollard_stubs::models::HostConfigLogConfig;

use super::attributes;
use crate::error::{Error, Result};

/// What an output that nobody can read later may take on the disk: a reader that is attached gets that far behind.
const UNLOGGED: u64 = 64 << 20;
/// Docker's local driver rotates by itself: five files of 20 MB.
const LOCAL: u64 = 5 * 20_000_000;

/// The drivers by name, as `docker info` shows them.
pub const DRIVERS: [&str; 3] = ["json-file", "local", "none"];

/// Whether the container's log can be read.
pub fn is_readable(config: Option<&HostConfigLogConfig>) -> bool {
    config.and_then(|config| config.typ.as_deref()) != Some("none")
}

/// Checks a driver with its options, and returns the bound on the log's size; `None` when it has none.
pub fn limit(config: Option<&HostConfigLogConfig>) -> Result<Option<u64>> {
    let none = HashMap::new();
    let driver = config.and_then(|config| config.typ.as_deref()).filter(|name| !name.is_empty());
    let options = config.and_then(|config| config.config.as_ref()).unwrap_or(&none);
    let driver = driver.unwrap_or("json-file");
    if driver == "none" {
        return Ok(Some(UNLOGGED));
    }
    check_mode(options)?;
    let get = |key: &str| options.get(key).map(String::as_str);
    match driver {
        "json-file" => {
            let known =
                ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];
            if let Some(key) = unknown(options, &known) {
                return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver")));
            }
            attributes::check(options)?;
            let files = get("max-file").map_or(Ok(1), integer)?;
            if files < 1 {
                return Err(Error::invalid("max-file cannot be less than 1"));
            }
            // -1 is Docker's own value for "no bound".
            let size = get("max-size").filter(|text| *text != "-1").map(size).transpose()?;
            if size == Some(0) {
                return Err(Error::invalid("max-size must be a positive number"));
            }
            let compress = get("compress").map_or(Ok(false), boolean)?;
            if compress && (files == 1 || size.is_none()) {
                return Err(Error::invalid(
                    "compress cannot be true when max-file is less than 2 or max-size is not set",
                ));
            }
            Ok(size.map(|size| size.saturating_mul(files.unsigned_abs())))
        }
        "local" => {
            if let Some(key) = unknown(options, &["max-file", "max-size", "compress"]) {
                return Err(Error::invalid(format!("unknown log opt '{key}' for log driver local")));
            }
            let invalid = |key: &str, error: Error| {
                let value = get(key).unwrap_or_default();
                Error::invalid(format!("invalid value for {key}: {value}: {}", error.message))
            };
            let bytes = get("max-size").map(size).transpose().map_err(|error| invalid("max-size", error))?;
            let files =
                get("max-file").map(integer).transpose().map_err(|error| invalid("max-file", error))?;
            let compress = get("compress").map_or(Ok(true), boolean).map_err(|error| {
                Error::invalid(format!("invalid boolean value for compress: {}", error.message))
            })?;
            if files.is_some_and(|files| files < 0) {
                return Err(Error::invalid("max-file must not be negative"));
            }
            if compress && files.is_some_and(|files| files <= 1) {
                return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
            }
            let bytes = bytes.unwrap_or(LOCAL / 5).max(1);
            Ok(Some(bytes.saturating_mul(files.unwrap_or(5).max(1).unsigned_abs())))
        }
        other => Err(Error::invalid(format!(
            "error looking up logging plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

/// Output never waits for a reader here, so both modes are the same; their options are checked all the same.
fn check_mode(options: &HashMap<String, String>) -> Result<()> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(text) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err(Error::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ));
        }
        size(text).map_err(|error| {
            Error::invalid(format!("error parsing option max-buffer-size: {}", error.message))
        })?;
    }
    Ok(())
}

fn unknown<'a>(options: &'a HashMap<String, String>, known: &[&str]) -> Option<&'a str> {
    let everywhere =
        ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
    options.keys().map(String::as_str).filter(|key| !known.contains(key) && !everywhere.contains(key)).min()
}

fn integer(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

/// `10m`, `1.5GB`, `4096`: sizes in powers of 1000 (units.FromHumanSize of docker/go-units).
fn size(text: &str) -> Result<u64> {
    let invalid = || Error::invalid(format!("invalid size: '{text}'"));
    let end = text.rfind(|letter: char| letter.is_ascii_digit() || letter == '.').ok_or_else(invalid)? + 1;
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let power = match suffix.strip_suffix('b').map(|rest| rest.strip_suffix('i').unwrap_or(rest)) {
        Some(rest) => rest,
        None => suffix.as_str(),
    };
    let exponent = match power {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    if number < 0.0 { Err(invalid()) } else { Ok((number * 1000f64.powi(exponent)) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: &str, options: &[(&str, &str)]) -> Result<Option<u64>> {
        limit(Some(&HostConfigLogConfig {
            typ: Some(driver.to_owned()),
            config: Some(
                options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ),
        }))
    }

    #[test]
    fn bounds_are_those_of_the_options() {
        assert_eq!(limit(None).unwrap(), None);
        assert_eq!(with("json-file", &[]).unwrap(), None);
        assert_eq!(with("", &[("max-size", "10m")]).unwrap(), Some(10_000_000));
        assert_eq!(with("json-file", &[("max-size", "1.5kB"), ("max-file", "3")]).unwrap(), Some(4500));
        assert_eq!(with("json-file", &[("max-size", "-1"), ("mode", "non-blocking")]).unwrap(), None);
        assert_eq!(with("local", &[]).unwrap(), Some(100_000_000));
        assert_eq!(with("local", &[("max-size", "1k"), ("max-file", "2")]).unwrap(), Some(2000));
        assert_eq!(with("none", &[("anything", "goes")]).unwrap(), Some(UNLOGGED));
    }

    #[test]
    fn refusals_are_in_dockers_words() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 14] = [
            ("json-file", &[("bogus", "1")], "unknown log opt 'bogus' for json-file log driver"),
            ("json-file", &[("max-file", "0"), ("max-size", "1m")], "max-file cannot be less than 1"),
            ("json-file", &[("max-file", "x")], "strconv.Atoi: parsing \"x\": invalid syntax"),
            ("json-file", &[("max-size", "0")], "max-size must be a positive number"),
            ("json-file", &[("max-size", "ten")], "invalid size: 'ten'"),
            ("json-file", &[("compress", "maybe")], "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            (
                "json-file",
                &[("compress", "true"), ("max-size", "1m")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
            ("local", &[("labels", "a")], "unknown log opt 'labels' for log driver local"),
            ("local", &[("max-size", "x")], "invalid value for max-size: x: invalid size: 'x'"),
            ("local", &[("max-file", "1")], "compression cannot be enabled when max file count is 1"),
            ("journald", &[], r#"error looking up logging plugin journald: plugin "journald" not found"#),
            ("json-file", &[("mode", "fast")], "logger: logging mode not supported: fast"),
            (
                "json-file",
                &[("max-buffer-size", "1m")],
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            ("json-file", &[("labels-regex", "(")], "error parsing regexp: \"(\""),
        ];
        for (driver, options, message) in cases {
            assert_eq!(with(driver, options).unwrap_err().message, message, "{driver} {options:?}");
        }
    }
}
