//! `--name=value` flags of instructions.

use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::suggest::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `true`, `false` or nothing.
    Bool,
    /// One value.
    Value,
    /// A value each time it is given.
    Values,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Takes flags as they are written.
    ///
    /// # Errors
    /// A flag that the instruction does not know, twice where once is meant, or without its value.
    pub fn parse(words: &[String], known: &[(&'static str, Takes)]) -> Result<Flags> {
        let mut flags = Flags::default();
        for word in words {
            let Some(body) = word.strip_prefix("--") else {
                return Err(Fault::new(format!("arg should start with -- : {word}")));
            };
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let fault = Fault::new(format!("unknown flag: --{name}"));
                return Err(suggest(fault, name, known.iter().map(|(known, _)| *known), true));
            };
            if *takes != Takes::Values && flags.value(name).is_some() {
                return Err(Fault::new(format!("duplicate flag specified: --{name}")));
            }
            let missing = || Fault::new(format!("missing a value on flag: --{name}"));
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some("")) | (_, None) => return Err(missing()),
                (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    text @ ("true" | "false") => text.to_owned(),
                    _ => {
                        return Err(Fault::new(format!(
                            "expecting boolean value for flag --{name}, not: {value}"
                        )));
                    }
                },
                (_, Some(value)) => value.to_owned(),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    /// Returns a flag's value when it is given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Returns a flag's value, or an empty text.
    pub fn text(&self, name: &str) -> String {
        self.value(name).unwrap_or_default().to_owned()
    }

    /// Returns all values of a flag.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }

    /// Returns what a switch says, when it is given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked() {
        let known = [("from", Takes::Value), ("link", Takes::Bool), ("exclude", Takes::Values)];
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            Flags::parse(&words, &known)
        };
        let flags = parse(&["--from=a=b", "--link", "--exclude=x", "--exclude=y"]).unwrap();
        assert_eq!(flags.text("from"), "a=b");
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.values("exclude"), ["x", "y"]);
        assert_eq!(parse(&["--link=FALSE"]).unwrap().switch("link"), Some(false));
        for (words, message) in [
            (&["--form=a"][..], "unknown flag: --form (did you mean from?)"),
            (&["--zzzzz"], "unknown flag: --zzzzz"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=1"], "expecting boolean value for flag --link, not: 1"),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from"),
            (&["from"], "arg should start with -- : from"),
        ] {
            assert_eq!(parse(words).unwrap_err().message, message);
        }
    }
}
