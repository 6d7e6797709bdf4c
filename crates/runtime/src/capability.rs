//! Capabilities by name and number.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// Names in the order of their numbers (linux/capability.h), without the prefix.
const NAMES: [(&str, Capability); 41] = {
    use Capability as C;
    [
        ("CHOWN", C::Chown),
        ("DAC_OVERRIDE", C::DacOverride),
        ("DAC_READ_SEARCH", C::DacReadSearch),
        ("FOWNER", C::Fowner),
        ("FSETID", C::Fsetid),
        ("KILL", C::Kill),
        ("SETGID", C::Setgid),
        ("SETUID", C::Setuid),
        ("SETPCAP", C::Setpcap),
        ("LINUX_IMMUTABLE", C::LinuxImmutable),
        ("NET_BIND_SERVICE", C::NetBindService),
        ("NET_BROADCAST", C::NetBroadcast),
        ("NET_ADMIN", C::NetAdmin),
        ("NET_RAW", C::NetRaw),
        ("IPC_LOCK", C::IpcLock),
        ("IPC_OWNER", C::IpcOwner),
        ("SYS_MODULE", C::SysModule),
        ("SYS_RAWIO", C::SysRawio),
        ("SYS_CHROOT", C::SysChroot),
        ("SYS_PTRACE", C::SysPtrace),
        ("SYS_PACCT", C::SysPacct),
        ("SYS_ADMIN", C::SysAdmin),
        ("SYS_BOOT", C::SysBoot),
        ("SYS_NICE", C::SysNice),
        ("SYS_RESOURCE", C::SysResource),
        ("SYS_TIME", C::SysTime),
        ("SYS_TTY_CONFIG", C::SysTtyConfig),
        ("MKNOD", C::Mknod),
        ("LEASE", C::Lease),
        ("AUDIT_WRITE", C::AuditWrite),
        ("AUDIT_CONTROL", C::AuditControl),
        ("SETFCAP", C::Setfcap),
        ("MAC_OVERRIDE", C::MacOverride),
        ("MAC_ADMIN", C::MacAdmin),
        ("SYSLOG", C::Syslog),
        ("WAKE_ALARM", C::WakeAlarm),
        ("BLOCK_SUSPEND", C::BlockSuspend),
        ("AUDIT_READ", C::AuditRead),
        ("PERFMON", C::Perfmon),
        ("BPF", C::Bpf),
        ("CHECKPOINT_RESTORE", C::CheckpointRestore),
    ]
};

/// The capabilities that Docker leaves to a container.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The sets that a process gets from a list of capabilities: bounding, permitted and effective, as in Docker.
pub fn default_capabilities(list: impl IntoIterator<Item = Capability>) -> LinuxCapabilities {
    let set: Capabilities = list.into_iter().collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()));
    sets.set_permitted(Some(set.clone()));
    sets.set_effective(Some(set));
    sets.set_inheritable(None);
    sets.set_ambient(None);
    sets
}

/// Every capability that can be given away: those of the calling process.
///
/// On a machine that is itself confined they are fewer than the kernel knows.
pub fn all_capabilities() -> Vec<Capability> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let own = own.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    let held = NAMES.iter().enumerate().filter(|(bit, _)| own & (1 << bit) != 0);
    held.map(|(_, &(_, capability))| capability).collect()
}

/// Finds a capability by name, with or without `CAP_`, in any case.
pub fn capability_from_name(name: &str) -> Option<Capability> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().find(|(known, _)| *known == name).map(|&(_, capability)| capability)
}

/// The name of a capability, with `CAP_`.
pub fn capability_name(capability: Capability) -> String {
    let name = NAMES.iter().find(|(_, known)| *known == capability).map_or("", |(name, _)| name);
    format!("CAP_{name}")
}

/// The bit mask of a set.
pub(crate) fn mask(set: Option<&Capabilities>) -> u64 {
    let Some(set) = set else { return 0 };
    NAMES.iter().enumerate().filter(|(_, (_, c))| set.contains(c)).fold(0, |mask, (bit, _)| mask | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_has_dockers_mask() {
        assert_eq!(mask(Some(&DEFAULT_CAPABILITIES.into_iter().collect())), 0xa804_25fb);
    }

    #[test]
    fn names_are_found_with_and_without_prefix() {
        assert_eq!(capability_from_name("cap_net_admin"), Some(Capability::NetAdmin));
        assert_eq!(capability_from_name("NET_ADMIN"), Some(Capability::NetAdmin));
        assert_eq!(capability_from_name("nonsense"), None);
        assert_eq!(capability_name(Capability::Bpf), "CAP_BPF");
    }
}
