//! Security labels of AppArmor and SELinux, as far as the kernel has them.

use crate::error::Error;
use oci_spec::runtime::Process;
use skiff_linux_sys::child::{Program, Step};
use std::path::Path;

/// Where AppArmor takes the profile of the next execve, and where it did before Linux 5.8.
const APPARMOR: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// Whether the kernel confines by AppArmor.
pub(crate) fn apparmor_enabled() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with('Y')) && Path::new("/sys/kernel/security/apparmor").is_dir()
}

/// Whether the kernel confines by SELinux.
pub(crate) fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Opens the file that takes the label while the host's `/proc` is in place: what the container mounts there can't take
/// the writing (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn push_open(process: &Process, program: &mut Program) -> Result<(), Error> {
    if text(process).is_none() {
        return Ok(());
    }
    if apparmor(process).is_some() && !apparmor_enabled() {
        return Err(Error::Spec {
            what: "process.apparmorProfile: AppArmor is not enabled on the host".into(),
        });
    }
    if selinux(process).is_some() && !selinux_enabled() {
        return Err(Error::Spec { what: "process.selinuxLabel: SELinux is not enabled on the host".into() });
    }
    let path = match apparmor(process) {
        Some(_) if Path::new(APPARMOR[0]).exists() => c"/proc/self/attr/apparmor/exec",
        _ => c"/proc/self/attr/exec",
    };
    program.push(Step::OpenLabel(path.to_owned()), "opening the file for the security label");
    Ok(())
}

/// Writes the label: the last thing before the command.
pub(crate) fn push_write(process: &Process, program: &mut Program) {
    if let Some(text) = text(process) {
        program.push(Step::WriteLabel(text.into_bytes()), "setting the security label");
    }
}

fn text(process: &Process) -> Option<String> {
    apparmor(process).map(|profile| format!("exec {profile}")).or_else(|| selinux(process).map(str::to_owned))
}

fn apparmor(process: &Process) -> Option<&str> {
    process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty())
}

fn selinux(process: &Process) -> Option<&str> {
    process.selinux_label().as_deref().filter(|label| !label.is_empty())
}
