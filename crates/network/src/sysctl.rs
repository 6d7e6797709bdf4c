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

/// Lets IPv6 packets pass through this machine.
///
/// The kernel stops listening to routers on interfaces that are to do so, unless they are told to go on: the machine would
/// lose its own way out.
pub fn forward_ipv6() -> Result<(), Error> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    if fs::read_to_string(format!("/proc/sys/net/{ALL}")).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let path = entry.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1")
            && let Err(error) = fs::write(&path, "2")
        {
            tracing::warn!(%error, path = %path.display(), "interface may stop listening to routers");
        }
    }
    set(ALL, "1")
}
