//! The options of the local driver: `type`, `device` and `o`, which make a volume a mount of something else.

use std::collections::HashMap;
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};

use crate::error::{Code, Error, Result};

/// Fails when a volume can't be made with these options.
pub(crate) fn check(options: &HashMap<String, String>) -> Result<()> {
    let unknown = |key: &&String| !matches!(key.as_str(), "type" | "o" | "device" | "size");
    if let Some(key) = options.keys().filter(unknown).min() {
        return Err(Error::invalid(format!("invalid option: {key:?}")));
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    for (option, required) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(option) && !options.contains_key(required) {
            return Err(Error::invalid(format!("missing required option: {required:?}")));
        }
    }
    Ok(())
}

/// Whether the volume is a mount of something else.
pub(crate) fn needs_mount(options: &HashMap<String, String>) -> bool {
    ["type", "device"].iter().any(|key| options.get(*key).is_some_and(|value| !value.is_empty()))
}

/// Mounts what the options say on `data`. Blocks, for a network file system perhaps for minutes.
pub(crate) fn mount_on(data: &Path, options: &HashMap<String, String>) -> Result<()> {
    let failed = |why: String| {
        Error::new(
            Code::Internal,
            format!("error while mounting volume '{}': failed to mount local volume: {why}", data.display()),
        )
    };
    let get = |key: &str| options.get(key).map_or("", String::as_str);
    let (kind, device) = (get("type"), get("device"));
    if device.is_empty() {
        return Err(failed("missing device in volume options".to_owned()));
    }
    let mut words = Words::read(get("o"));
    if matches!(kind, "nfs" | "nfs4" | "cifs") {
        words.resolve_address().map_err(failed)?;
    }
    let shown = |errno: Errno| {
        let mut text = format!("mount {device}:{}", data.display());
        if !words.flags.is_empty() {
            text.push_str(&format!(", flags: {:#x}", words.flags.bits()));
        }
        if !words.data.is_empty() {
            text.push_str(&format!(", data: {}", words.shown_data()));
        }
        failed(format!("{text}: {}", words_of(errno)))
    };
    let text = CString::new(words.data.join(",")).map_err(|_| shown(Errno::INVAL))?;
    mount(device, data, kind, words.flags, text.as_c_str()).map_err(shown)?;
    let bind_readonly = MountFlags::BIND | MountFlags::RDONLY;
    let result = if words.flags.contains(bind_readonly) {
        // The kernel takes a bind's other flags only afterwards.
        mount_remount(data, words.flags, text.as_c_str())
    } else {
        Ok(())
    };
    result.and_then(|()| mount_change(data, words.propagation)).map_err(|errno| {
        let _ = rustix::mount::unmount(data, rustix::mount::UnmountFlags::DETACH);
        shown(errno)
    })
}

/// The `o` option: what of it are flags, and what the file system reads itself.
#[derive(Debug)]
struct Words {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    data: Vec<String>,
}

impl Words {
    fn read(text: &str) -> Self {
        let mut words = Self {
            flags: MountFlags::empty(),
            propagation: MountPropagationFlags::PRIVATE,
            data: Vec::new(),
        };
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (set, flag) = match word {
                "defaults" => continue,
                "ro" => (true, MountFlags::RDONLY),
                "rw" => (false, MountFlags::RDONLY),
                "nosuid" => (true, MountFlags::NOSUID),
                "suid" => (false, MountFlags::NOSUID),
                "nodev" => (true, MountFlags::NODEV),
                "dev" => (false, MountFlags::NODEV),
                "noexec" => (true, MountFlags::NOEXEC),
                "exec" => (false, MountFlags::NOEXEC),
                "sync" => (true, MountFlags::SYNCHRONOUS),
                "async" => (false, MountFlags::SYNCHRONOUS),
                "dirsync" => (true, MountFlags::DIRSYNC),
                "noatime" => (true, MountFlags::NOATIME),
                "atime" => (false, MountFlags::NOATIME),
                "nodiratime" => (true, MountFlags::NODIRATIME),
                "diratime" => (false, MountFlags::NODIRATIME),
                "relatime" => (true, MountFlags::RELATIME),
                "norelatime" => (false, MountFlags::RELATIME),
                "strictatime" => (true, MountFlags::STRICTATIME),
                "nostrictatime" => (false, MountFlags::STRICTATIME),
                "bind" => (true, MountFlags::BIND),
                "rbind" => (true, MountFlags::BIND | MountFlags::REC),
                "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                    words.propagation = propagation(word);
                    continue;
                }
                other => {
                    words.data.push(other.to_owned());
                    continue;
                }
            };
            words.flags.set(flag, set);
        }
        words
    }

    /// The kernel knows no names: `addr=server` becomes `addr=192.0.2.1`.
    fn resolve_address(&mut self) -> std::result::Result<(), String> {
        for word in &mut self.data {
            let Some(host) = word.strip_prefix("addr=").filter(|host| host.parse::<IpAddr>().is_err()) else {
                continue;
            };
            let unresolved = |why: String| format!("error resolving passed in network volume address: {why}");
            let found = (host, 0).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?;
            let first = found.map(|address| address.ip()).next();
            *word =
                format!("addr={}", first.ok_or_else(|| unresolved(format!("lookup {host}: no such host")))?);
        }
        Ok(())
    }

    /// For messages.
    fn shown_data(&self) -> String {
        let hidden = |word: &String| match word.split_once('=') {
            Some(("password", _)) => "password=********".to_owned(),
            _ => word.clone(),
        };
        self.data.iter().map(hidden).collect::<Vec<_>>().join(",")
    }
}

fn propagation(word: &str) -> MountPropagationFlags {
    let kind = match word.trim_start_matches('r') {
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        _ => MountPropagationFlags::PRIVATE,
    };
    if word.starts_with('r') { kind | MountPropagationFlags::REC } else { kind }
}

/// An error of the kernel as Go writes it: in lower case and without its number.
pub(crate) fn words_of(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        assert!(check(&options(&[])).is_ok());
        assert!(check(&options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])).is_ok());
        for (wrong, message) in [
            (options(&[("colour", "red")]), "invalid option: \"colour\""),
            (options(&[("type", "tmpfs")]), "missing required option: \"device\""),
            (options(&[("device", "/x")]), "missing required option: \"type\""),
            (options(&[("o", "bind")]), "missing required option: \"device\""),
            (options(&[("size", "1g")]), "quota size requested but no quota support"),
        ] {
            assert_eq!(check(&wrong).unwrap_err().message, message);
        }
        assert!(needs_mount(&options(&[("type", "none"), ("device", "/x")])));
        assert!(!needs_mount(&options(&[])));
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let words = Words::read("defaults,ro,bind,size=100m,rw,nosuid,password=secret,rslave,uid=7");
        assert_eq!(words.flags, MountFlags::BIND | MountFlags::NOSUID);
        assert_eq!(words.data, ["size=100m", "password=secret", "uid=7"]);
        assert_eq!(words.shown_data(), "size=100m,password=********,uid=7");
        assert_eq!(words.propagation, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
    }

    #[test]
    fn failed_mounts_are_told_in_dockers_words() {
        let wanted = options(&[("type", "none"), ("device", "/nowhere"), ("o", "bind")]);
        let error = mount_on(Path::new("/also/nowhere"), &wanted).unwrap_err();
        assert!(
            error.message.starts_with(
                "error while mounting volume '/also/nowhere': failed to mount local volume: mount \
                 /nowhere:/also/nowhere, flags: 0x1000: "
            ),
            "{error}"
        );
        assert_eq!(words_of(Errno::NODEV), "no such device");
    }
}
