//! The spec that Docker gives a container whose creator asks for nothing special.

use crate::capability::{DEFAULT_CAPABILITIES, default_capabilities};
use crate::seccomp;
use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process,
    Root, Spec, User,
};

/// Kernel files that a container cannot read (moby, `daemon/pkg/oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel settings that a container cannot change.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's defaults: mounts, masked and read-only paths, capabilities, seccomp profile, all namespaces of its own.
///
/// The process has no command, root as user and `/` as working directory; the root file system is writable.
pub fn default_spec() -> Spec {
    let mut process = Process::default();
    process
        .set_args(None)
        .set_env(Some(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()]))
        .set_cwd("/".into())
        .set_user(User::default())
        .set_terminal(Some(false))
        .set_no_new_privileges(Some(false))
        .set_rlimits(None)
        .set_capabilities(Some(default_capabilities(DEFAULT_CAPABILITIES)));
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(false));
    let strings = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces())
        .masked_paths(strings(&MASKED))
        .readonly_paths(strings(&READ_ONLY))
        .seccomp(seccomp::docker_default())
        .build();
    let mut spec = Spec::default();
    spec.set_process(Some(process))
        .set_root(Some(root))
        .set_hostname(None)
        .set_mounts(Some(mounts()))
        .set_linux(linux.ok());
    spec
}

fn namespaces() -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    [T::Mount, T::Uts, T::Pid, T::Ipc, T::Cgroup, T::Network]
        .into_iter()
        .filter_map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().ok())
        .collect()
}

fn mounts() -> Vec<Mount> {
    let list: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ];
    list.into_iter()
        .filter_map(|(destination, kind, source, options)| {
            let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
            MountBuilder::default()
                .destination(destination)
                .typ(kind)
                .source(source)
                .options(options)
                .build()
                .ok()
        })
        .collect()
}
