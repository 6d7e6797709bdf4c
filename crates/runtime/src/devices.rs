//! What a container finds in `/dev`.

use crate::error::Error;
use crate::mounts::{c_string, directory};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use skiff_linux_sys::child::{Program, Step};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Devices that every container has (runtime-spec, config-linux.md, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Adds steps for the default devices and links and for the devices of the spec.
pub(crate) fn push(spec: &Spec, program: &mut Program) -> Result<(), Error> {
    for (name, major, minor) in DEFAULT {
        let step = Step::Device {
            directory: directory(c"dev"),
            name: c_string(name)?,
            host: c_string(format!("/dev/{name}"))?,
            mode: libc::S_IFCHR | 0o666,
            number: number(major, minor),
            uid: 0,
            gid: 0,
        };
        program.push(step, format!("creating device /dev/{name}"));
    }
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for device in devices.into_iter().flatten() {
        if device.path() != Path::new("/dev/ptmx") {
            push_device(device, program)?;
        }
    }
    for (name, target) in LINKS {
        let step =
            Step::Link { directory: directory(c"dev"), name: c_string(name)?, target: c_string(target)? };
        program.push(step, format!("creating link /dev/{name}"));
    }
    Ok(())
}

fn push_device(device: &LinuxDevice, program: &mut Program) -> Result<(), Error> {
    let path = device.path();
    let invalid = |what: &str| Error::Spec { what: format!("device {}: {what}", path.display()) };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid("not an absolute path of a file"));
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(invalid("type \"a\" is for rules, not for devices")),
    };
    let part = |n: i64| u32::try_from(n).map_err(|_| invalid("device number out of range"));
    let (major, minor) = match device.typ() {
        LinuxDeviceType::P => (0, 0),
        _ => (part(device.major())?, part(device.minor())?),
    };
    let step = Step::Device {
        directory: directory(&c_string(parent.as_os_str().as_bytes())?),
        name: c_string(name.as_bytes())?,
        host: c_string(path.as_os_str().as_bytes())?,
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
        number: number(major, minor),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    };
    program.push(step, format!("creating device {}", path.display()));
    Ok(())
}

/// The kernel's encoding of a device number for mknodat(2) (`new_encode_dev`, 32 bits).
fn number(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_the_kernel_wants_them() {
        assert_eq!(number(1, 3), 0x103);
        assert_eq!(number(259, 0x12345), 0x12345 & 0xff | 259 << 8 | 0x12300 << 12);
        assert_eq!(number(259, 1), rustix::fs::makedev(259, 1));
    }
}
