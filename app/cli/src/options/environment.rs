//! `-e`, `--env-file`, `--label`, `--label-file`.

use std::path::Path;

use crate::error::Error;

/// What becomes of a name without `=`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bare {
    /// Takes the value from our own environment; an unset one is left out.
    FromEnvironment,
    /// Stays as it is.
    Keep,
}

/// Joins files and flags in Docker's order: files first, so that flags win.
pub fn collect(files: &[String], flags: &[String], bare: Bare) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        let bytes = std::fs::read(file).map_err(|source| Error::file(file, source))?;
        all.extend(lines(Path::new(file), &bytes, bare)?);
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(Error::plain(format!("invalid environment variable: {flag}")));
        }
        all.extend(resolve(flag, bare));
    }
    Ok(all)
}

fn resolve(entry: &str, bare: Bare) -> Option<String> {
    if entry.contains('=') || bare == Bare::Keep {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

fn lines(path: &Path, bytes: &[u8], bare: Bare) -> Result<Vec<String>, Error> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::plain(format!("env file {} contains invalid utf8 bytes", path.display())))?;
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line.trim(), |(name, _)| name.trim_start());
        if name.contains(char::is_whitespace) {
            return Err(Error::plain(format!(
                "invalid env file ({}): variable '{name}' contains whitespaces",
                path.display()
            )));
        }
        if name.is_empty() {
            return Err(Error::plain(format!(
                "invalid env file ({}): no variable name on line '{line}'",
                path.display()
            )));
        }
        all.extend(if line.contains('=') { Some(line.to_owned()) } else { resolve(name, bare) });
    }
    Ok(all)
}

/// Splits `key=value` entries; a key alone has an empty value.
pub fn map(entries: &[String]) -> std::collections::HashMap<String, String> {
    entries
        .iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        lines(Path::new("f"), text.as_bytes(), Bare::FromEnvironment).map_err(|error| error.to_string())
    }

    #[test]
    fn files_hold_comments_names_and_raw_values() {
        let text = "\u{feff}# note\n\nA=1 \n  B= x=y #z\nSKIFF_TEST_UNSET_NAME\r\n";
        assert_eq!(parse(text).unwrap(), ["A=1 ", "B= x=y #z"]);
        assert_eq!(parse("A B=1").unwrap_err(), "invalid env file (f): variable 'A B' contains whitespaces");
        assert_eq!(parse("=1").unwrap_err(), "invalid env file (f): no variable name on line '=1'");
    }

    #[test]
    fn flags_win_over_files_and_take_our_environment() {
        let path = std::env::var("PATH").unwrap();
        let got = collect(
            &[],
            &["PATH".into(), "A=".into(), "SKIFF_TEST_UNSET_NAME".into()],
            Bare::FromEnvironment,
        );
        assert_eq!(got.unwrap(), [format!("PATH={path}"), "A=".to_owned()]);
        assert!(collect(&[], &["=x".into()], Bare::FromEnvironment).is_err());
        assert_eq!(collect(&[], &["x".into()], Bare::Keep).unwrap(), ["x"]);
    }
}
