//! What this host offers to QEMU: the program, its version, the accelerator, the time-stamp counter.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::verdict::HostFacts;
use crate::{Accelerator, Error, Result};

/// Finds a program by its name in `PATH`, and where package managers put things beside it.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    let usual: &[&str] = if cfg!(target_os = "macos") {
        &["/opt/homebrew/bin", "/usr/local/bin"]
    } else if cfg!(windows) {
        &["C:\\Program Files\\qemu"]
    } else {
        // A Linux desktop starts programs with the system's directories in PATH; a macOS or Windows one does not.
        &[]
    };
    env::split_paths(&path)
        .chain(usual.iter().map(PathBuf::from))
        .map(|dir| dir.join(&file))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::ProgramMissing { program: name.to_owned(), hint: install_hint().to_owned() })
}

fn install_hint() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install qemu"
    } else if cfg!(windows) {
        "winget install SoftwareFreedomConservancy.QEMU"
    } else if cfg!(target_arch = "aarch64") {
        "apt install qemu-system-arm (Debian, Ubuntu), or your distribution's QEMU package"
    } else {
        "apt install qemu-system-x86 (Debian, Ubuntu), or your distribution's QEMU package"
    }
}

/// Asks the program for its version, such as `10.0.2`.
pub(super) fn program_version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
    Ok(parse_version(&String::from_utf8_lossy(&output.stdout)))
}

/// `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)` → `10.0.2`; unknown wording stays as it is.
fn parse_version(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let version = line.split_once("version ").map_or(line, |(_, rest)| rest);
    version.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Names a program's file as it is now.
pub(super) fn file_identity(program: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(program) else { return program.display().to_string() };
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default().as_nanos();
    format!("{} {} {modified}", program.display(), metadata.len())
}

/// Gathers what a verdict on the accelerator depends on.
pub(super) fn facts(qemu_version: &str) -> HostFacts {
    HostFacts { kernel: kernel_release(), qemu: qemu_version.to_owned(), cpu: cpu_model() }
}

fn kernel_release() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname().release().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    {
        env::consts::OS.to_owned()
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo_field(&info, "model name").unwrap_or(env::consts::ARCH).to_owned()
}

fn cpuinfo_field<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == field).then_some(value.trim())
    })
}

/// Gives this host's hardware accelerator, or why there is none.
pub(super) fn hardware() -> std::result::Result<Accelerator, String> {
    if cfg!(target_os = "macos") {
        return Ok(Accelerator::Hvf);
    }
    if cfg!(windows) {
        return Ok(Accelerator::Whpx);
    }
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(Accelerator::Kvm),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("/dev/kvm is missing (no hardware virtualisation, or the kvm module is not loaded)"
                .to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err("no permission for /dev/kvm (add yourself to the group kvm)".to_owned())
        }
        Err(error) => Err(format!("/dev/kvm cannot be opened: {error}")),
    }
}

/// Gives the frequency of the time-stamp counter within one per cent, which is what Linux accepts as an early value.
pub(super) fn tsc_khz() -> Option<u32> {
    cpuid_tsc_khz().or_else(|| bogomips_khz(&std::fs::read_to_string("/proc/cpuinfo").ok()?))
}

#[cfg(target_arch = "x86_64")]
fn cpuid_tsc_khz() -> Option<u32> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    // Leaf 15h: EAX denominator, EBX numerator, ECX crystal clock in Hz, each zero if unknown.
    let leaf = __cpuid(0x15);
    if leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0 {
        return None;
    }
    u32::try_from(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) / 1000).ok()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpuid_tsc_khz() -> Option<u32> {
    None
}

/// On x86 with a constant counter, bogomips is twice its frequency in MHz.
fn bogomips_khz(info: &str) -> Option<u32> {
    let constant = cpuinfo_field(info, "flags")?.split_whitespace().any(|flag| flag == "constant_tsc");
    let mips: f64 = cpuinfo_field(info, "bogomips")?.parse().ok()?;
    // The range rules out absurd values; the cast is exact within it.
    (constant && (400.0..20_000.0).contains(&mips)).then_some((mips * 500.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_names_itself_and_the_package() {
        let error = find_program("qemu-system-none").unwrap_err();
        assert_eq!(error.to_string(), "qemu-system-none was not found in PATH");
        assert!(error.hint().unwrap().contains("qemu"));
    }

    #[test]
    fn version_is_taken_from_the_first_line() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10)\nCopyright"), "10.0.2");
        assert_eq!(parse_version(""), "");
    }

    #[test]
    fn counter_frequency_comes_from_bogomips_only_when_constant() {
        let info = "processor\t: 0\nflags\t\t: fpu constant_tsc\nbogomips\t: 5192.30\n";
        assert_eq!(bogomips_khz(info), Some(2_596_150));
        assert_eq!(bogomips_khz("flags\t: fpu\nbogomips\t: 5192.30\n"), None);
        assert_eq!(bogomips_khz("flags : constant_tsc\nbogomips : 0.00\n"), None);
    }
}
