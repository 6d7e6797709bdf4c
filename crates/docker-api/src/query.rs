//! The query string, read as dockerd reads it.

use crate::backend::{TerminalSize, UnixTime};
use crate::error::{ApiError, Result};
use crate::filters::Filters;

/// The parameters of a request in order; a name may come several times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes the text after the `?`.
    pub fn parse(text: &str) -> Self {
        Self { pairs: form_urlencoded::parse(text.as_bytes()).into_owned().collect() }
    }

    /// Returns the first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the first value of that name unless it is empty: dockerd treats empty as absent.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns every value of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads a switch: anything but nothing, `0`, `no`, `false` and `none` is on.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    /// Reads a switch with a value for when it isn't given at all (given but empty is off).
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, is_true)
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// 400 in the words of Go's `strconv`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.filled(name).map(atoi).transpose()
    }

    /// Reads a terminal's size from `h` and `w`.
    ///
    /// # Errors
    /// 400 when either is missing or no number.
    pub fn terminal_size(&self) -> Result<TerminalSize> {
        let read = |name| {
            let value = atoi(self.get(name).unwrap_or_default())?;
            Ok::<_, ApiError>(u16::try_from(value.max(0)).unwrap_or(u16::MAX))
        };
        Ok(TerminalSize { height: read("h")?, width: read("w")? })
    }

    /// Reads a time in seconds since 1970 with an optional fraction.
    ///
    /// # Errors
    /// 400 when it is no such number.
    pub fn time(&self, name: &str) -> Result<Option<UnixTime>> {
        self.filled(name).map(unix_time).transpose()
    }

    /// Reads the `filters` parameter.
    ///
    /// # Errors
    /// 400 when it isn't valid or names a filter that isn't in `accepted`.
    pub fn filters(&self, accepted: &[&str]) -> Result<Filters> {
        Filters::parse(self.get("filters").unwrap_or_default(), accepted)
    }

    /// Reads the `filters` parameter, keeping only those filters that are in `known`.
    ///
    /// # Errors
    /// 400 when it isn't valid.
    pub fn known_filters(&self, known: &[&str]) -> Result<Filters> {
        let mut filters = Filters::parse_any(self.get("filters").unwrap_or_default())?;
        filters.retain(known);
        Ok(filters)
    }
}

fn is_true(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

fn atoi(value: &str) -> Result<i64> {
    value
        .parse()
        .map_err(|_| ApiError::bad_request(format!("strconv.Atoi: parsing {value:?}: invalid syntax")))
}

fn unix_time(value: &str) -> Result<UnixTime> {
    let invalid =
        |part: &str| ApiError::bad_request(format!("strconv.ParseInt: parsing {part:?}: invalid syntax"));
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let whole: i64 = seconds.parse().map_err(|_| invalid(seconds))?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(fraction));
    }
    // "5" is half a second; digits past the ninth are below a nanosecond.
    let nanoseconds = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(UnixTime { seconds: whole, nanoseconds })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn switches_are_read_as_dockerd_reads_them() {
        let query = Query::parse("a=1&b=true&c=True&d=0&e=false&f=no&g=None&h=&i&j=yes&k=%20TRUE%20");
        for name in ["a", "b", "c", "j", "k"] {
            assert!(query.flag(name), "{name}");
        }
        for name in ["d", "e", "f", "g", "h", "i", "absent"] {
            assert!(!query.flag(name), "{name}");
        }
        assert!(query.flag_or("absent", true));
        assert!(!query.flag_or("h", true));
    }

    #[test]
    fn times_have_nine_digits_of_fraction() {
        let time = |text: &str| Query::parse(&format!("t={text}")).time("t");
        assert_eq!(time("12").unwrap(), Some(UnixTime { seconds: 12, nanoseconds: 0 }));
        assert_eq!(time("12.5").unwrap(), Some(UnixTime { seconds: 12, nanoseconds: 500_000_000 }));
        assert_eq!(time("-1.000000001").unwrap(), Some(UnixTime { seconds: -1, nanoseconds: 1 }));
        assert_eq!(time("1.0000000019").unwrap(), Some(UnixTime { seconds: 1, nanoseconds: 1 }));
        assert_eq!(time("").unwrap(), None);
        assert_eq!(
            time("yesterday").unwrap_err().message,
            "strconv.ParseInt: parsing \"yesterday\": invalid syntax"
        );
        assert_eq!(time("1.x").unwrap_err().status, 400);
    }

    #[test]
    fn sizes_need_two_numbers() {
        let size = |text| Query::parse(text).terminal_size();
        assert_eq!(size("h=24&w=80").unwrap(), TerminalSize { height: 24, width: 80 });
        assert_eq!(size("h=24").unwrap_err().message, "strconv.Atoi: parsing \"\": invalid syntax");
        assert_eq!(size("h=a&w=80").unwrap_err().status, 400);
        assert_eq!(size("h=-1&w=99999").unwrap(), TerminalSize { height: 0, width: u16::MAX });
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,100}") {
            let query = Query::parse(&text);
            let _ = (query.flag("a"), query.integer("a"), query.terminal_size());
            let _ = (Query::parse(&format!("t={text}")).time("t"), query.all("a").count());
        }
    }
}
