//! Signals by name and number, as the API's clients write them.

use crate::error::{Error, Result};

/// Signal numbers of Linux on the architectures that we build for (x86-64 and arm64 agree; signal(7)).
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The kill signal's number.
pub const KILL: i32 = 9;
/// The termination signal's number: what `stop` sends unless told otherwise.
pub const TERM: i32 = 15;

/// A signal's number from `KILL`, `SIGKILL`, `kill`, `9`, `SIGRTMIN+3`.
pub fn parse(text: &str) -> Result<i32> {
    lookup(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

fn lookup(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return ((1..=31).contains(&number) || REALTIME.contains(&number)).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == bare) {
        return Some(*number);
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(rest), _) => REALTIME.start() + offset(rest).filter(|by| *by >= 0)?,
        (_, Some(rest)) => REALTIME.end() + offset(rest).filter(|by| *by <= 0)?,
        _ => return None,
    };
    REALTIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_signal_is_known() {
        for (text, number) in [
            ("KILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("RTMAX", 64),
            ("64", 64),
            ("WINCH", 28),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for text in ["", "0", "65", "33", "SIGFOO", "RTMIN+31", "RTMAX+1", "-9"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("FOO").unwrap_err().message, "invalid signal: FOO");
    }

    proptest! {
        #[test]
        fn parsing_never_leaves_the_range_of_signals(text in "\\PC{0,12}") {
            if let Ok(number) = parse(&text) {
                prop_assert!((1..=64).contains(&number));
            }
        }
    }
}
