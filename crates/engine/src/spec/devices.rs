//! Device nodes beyond the usual ones.

use std::path::Path;

use bollard_stubs::models::HostConfig;
use oci_spec::runtime::LinuxDevice;
use rustix::fs::{FileType, major, minor, stat};
use serde_json::json;

use crate::error::{Error, Result};

/// The devices that a container is given; a privileged one gets all of the machine's.
pub fn all(host: &HostConfig) -> Result<Option<Vec<LinuxDevice>>> {
    let mut devices = Vec::new();
    if host.privileged == Some(true) {
        below(Path::new("/dev"), &mut devices);
    }
    for mapping in host.devices.iter().flatten() {
        let source = mapping.path_on_host.as_deref().unwrap_or("");
        let target = mapping.path_in_container.as_deref().filter(|path| !path.is_empty()).unwrap_or(source);
        let path = Path::new(source);
        if path.is_dir() {
            for mut device in listed(path) {
                if let Ok(rest) = device.path().strip_prefix(path).map(Path::to_path_buf) {
                    device.set_path(Path::new(target).join(rest));
                    devices.push(device);
                }
            }
            continue;
        }
        let device = node(path, Path::new(target)).ok_or_else(|| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{source}\": no such file or directory"
            ))
        })?;
        devices.push(device);
    }
    Ok((!devices.is_empty()).then_some(devices))
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
