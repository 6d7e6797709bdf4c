//! Kernel settings of the calling thread's network namespace.

use std::fs;

use crate::Error;

/// Writes `value` to `/proc/sys/net/<name>` unless it is there already.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{name}");
    match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        _ => fs::write(&path, value).map_err(|source| Error::Setting { path, source }),
    }
}

/// Like [`set`], but a kernel without the setting is fine.
pub fn set_if_present(name: &str, value: &str) -> Result<(), Error> {
    match set(name, value) {
        Err(Error::Setting { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
