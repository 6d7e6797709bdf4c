//! Device nodes beyond the usual ones, and who may use which.

use std::path::Path;

use bollard_stubs::models::HostConfig;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::{FileType, major, minor, stat};
use serde_json::json;

use crate::error::{Error, Result};

/// What every container may use: the usual devices, its terminals, and nodes made of any other.
const USUAL: [(&str, i64, i64, &str); 11] = [
    ("c", -1, -1, "m"),
    ("b", -1, -1, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, -1, "rwm"),
];

/// The devices that a container is given; a privileged one gets all of the machine's.
pub fn all(host: &HostConfig) -> Result<Option<Vec<LinuxDevice>>> {
    let mut devices = Vec::new();
    if host.privileged == Some(true) {
        below(Path::new("/dev"), &mut devices);
    }
    devices.extend(mapped(host)?.into_iter().map(|(device, _)| device));
    Ok((!devices.is_empty()).then_some(devices))
}

/// Which devices a container may use; `None` when all.
pub fn rules(host: &HostConfig) -> Result<Option<Vec<LinuxDeviceCgroup>>> {
    if host.privileged == Some(true) {
        return Ok(None);
    }
    let mut rules = Vec::new();
    for (kind, major, minor, access) in USUAL {
        rules.extend(rule(kind, major, minor, access));
    }
    for (device, access) in mapped(host)? {
        let kind = if device.typ() == LinuxDeviceType::B { "b" } else { "c" };
        rules.extend(rule(kind, device.major(), device.minor(), &access));
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        let (kind, major, minor, access) = parse_rule(text)?;
        rules.extend(rule(kind, major, minor, access));
    }
    Ok(Some(rules))
}

fn rule(kind: &str, major: i64, minor: i64, access: &str) -> Option<LinuxDeviceCgroup> {
    serde_json::from_value(
        json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access }),
    )
    .ok()
}

/// Reads `c 1:3 rwm`; a star is any number, which is -1 here.
pub fn parse_rule(text: &str) -> Result<(&str, i64, i64, &str)> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words.as_slice() else { return Err(invalid()) };
    let number = |text: &str| match text {
        "*" => Some(-1),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u32>().ok().map(i64::from),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let fine = (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte));
    match (number(major), number(minor)) {
        (Some(major), Some(minor)) if fine => Ok((kind, major, minor, access)),
        _ => Err(invalid()),
    }
}

/// The devices that the user gives a container, each with what may be done with it.
fn mapped(host: &HostConfig) -> Result<Vec<(LinuxDevice, String)>> {
    let mut devices = Vec::new();
    for mapping in host.devices.iter().flatten() {
        let access = mapping.cgroup_permissions.clone().filter(|access| !access.is_empty());
        let access = access.unwrap_or_else(|| "rwm".to_owned());
        let source = mapping.path_on_host.as_deref().unwrap_or("");
        let target = mapping.path_in_container.as_deref().filter(|path| !path.is_empty()).unwrap_or(source);
        let path = Path::new(source);
        if path.is_dir() {
            for mut device in listed(path) {
                if let Ok(rest) = device.path().strip_prefix(path).map(Path::to_path_buf) {
                    device.set_path(Path::new(target).join(rest));
                    devices.push((device, access.clone()));
                }
            }
            continue;
        }
        let device = node(path, Path::new(target)).ok_or_else(|| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{source}\": no such file or directory"
            ))
        })?;
        devices.push((device, access));
    }
    Ok(devices)
}

fn listed(dir: &Path) -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    below(dir, &mut devices);
    devices
}

fn below(dir: &Path, devices: &mut Vec<LinuxDevice>) {
    // Mounts of their own in every container, and links.
    const SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", "console"];
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&path, devices),
            Ok(kind) if kind.is_symlink() => {}
            Ok(_) => devices.extend(node(&path, &path)),
            Err(_) => {}
        }
    }
}

fn node(source: &Path, target: &Path) -> Option<LinuxDevice> {
    let status = stat(source).ok()?;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    serde_json::from_value(json!({
        "path": target,
        "type": kind,
        "major": major(status.st_rdev),
        "minor": minor(status.st_rdev),
        "fileMode": status.st_mode & 0o7777,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_docker_writes_them() {
        assert_eq!(parse_rule("c 1:3 rwm").unwrap(), ("c", 1, 3, "rwm"));
        assert_eq!(parse_rule("a *:* r").unwrap(), ("a", -1, -1, "r"));
        for text in ["c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr", "c -1:3 r", "c  1:3 r", "c 1:3 "] {
            assert!(parse_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_privileged_containers_may_use_everything() {
        let host = HostConfig { privileged: Some(true), ..HostConfig::default() };
        assert!(rules(&host).unwrap().is_none());
        let host =
            HostConfig { device_cgroup_rules: Some(vec!["b 8:* rw".to_owned()]), ..HostConfig::default() };
        let last = rules(&host).unwrap().unwrap().pop().unwrap();
        assert_eq!((last.major(), last.minor(), last.access().as_deref()), (Some(8), Some(-1), Some("rw")));
    }
}
