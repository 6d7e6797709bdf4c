//! What the host has to give.

/// Gives the host's memory in MiB; a system that does not tell counts as 4 GiB.
pub fn host_memory_mib() -> u64 {
    platform().filter(|mib| *mib > 0).unwrap_or(4096)
}

#[cfg(target_os = "linux")]
fn platform() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// The first line is `MemTotal:  24690688 kB` (proc_meminfo(5)).
#[cfg(target_os = "linux")]
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(target_os = "macos")]
fn platform() -> Option<u64> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok()? >> 20)
}

#[cfg(windows)]
fn platform() -> Option<u64> {
    let script = "(Get-CimInstance Win32_ComputerSystem).TotalPhysicalMemory";
    let output = std::process::Command::new("powershell")
        .args(["-NoProfile", "-NonInteractive", "-Command", script])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok()? >> 20)
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
fn platform() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(parse_meminfo("MemTotal:       24690688 kB\nMemFree: 1 kB\n"), Some(24112));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
        assert!(host_memory_mib() >= 64);
    }
}
