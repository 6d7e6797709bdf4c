//! Docker's default profile: what a container may call, depending on its capabilities.
//!
//! The outcome is that of `seccomp/default.json` of moby/profiles; the arrangement is our own. Everything that is not
//! allowed fails with `EPERM`, except `clone3`: it fails with `ENOSYS`, so that C libraries fall back to `clone`,
//! whose flags a filter can see.

use super::syscalls::Abi;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const ALLOWED: &str = include_str!("allowed.txt");

/// Calls that a capability brings with it.
const WITH_CAPABILITY: [(Capability, &[&str]); 14] = [
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// Tracing is safe to allow from Linux 4.8 on, and nothing older runs this runtime.
const TRACING: [&str; 3] = ["process_vm_readv", "process_vm_writev", "ptrace"];

/// Calls and conventions of one kind of machine.
fn of_machine(machine: Abi) -> (&'static [&'static str], &'static [Arch]) {
    match machine {
        Abi::Aarch64 | Abi::Arm => (
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ],
            &[Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        ),
        Abi::X86_64 | Abi::I386 | Abi::X32 => {
            (&["arch_prctl", "modify_ldt"], &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32])
        }
    }
}

/// Socket families past the first dozen that are allowed. Left out are obscure ones with a history of kernel bugs,
/// the kernel's crypto interface (38) and sockets to the hypervisor (40).
const FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// Families below this one (`AF_DECnet`) are allowed.
const FIRST_FAMILY_REFUSED: u64 = 12;

/// Execution domains: Linux and Linux32, each with and without 16-bit uname, and the question for the present one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The `CLONE_NEW*` flags of `clone`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const ENOSYS: u32 = 38;

pub(super) fn profile(machine: Abi, capabilities: &Capabilities) -> LinuxSeccomp {
    let (calls, architectures) = of_machine(machine);
    let words = ALLOWED.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let mut rules = vec![allow(words.chain(TRACING).chain(calls.iter().copied()), None)];
    let families = std::iter::once(condition(LinuxSeccompOperator::ScmpCmpLt, FIRST_FAMILY_REFUSED, None))
        .chain(FAMILIES.map(|family| condition(LinuxSeccompOperator::ScmpCmpEq, family, None)));
    rules.extend(families.map(|family| allow(["socket"], Some(family))));
    let personalities = PERSONALITIES.map(|p| condition(LinuxSeccompOperator::ScmpCmpEq, p, None));
    rules.extend(personalities.map(|personality| allow(["personality"], Some(personality))));
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(&capability) {
            rules.push(allow(names.iter().copied(), None));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let flags = condition(LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0));
        rules.push(allow(["clone"], Some(flags)));
        rules.push(rule(["clone3"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(architectures)
        .syscalls(rules)
        .build()
        .unwrap_or_else(|_| unreachable!("the builder checks nothing but what is set here"))
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>, condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, None, condition)
}

fn rule<'a>(
    names: impl IntoIterator<Item = &'a str>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    condition: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action).build().unwrap_or_default();
    rule.set_errno_ret(errno);
    rule.set_args(condition.map(|condition| vec![condition]));
    rule
}

fn condition(op: LinuxSeccompOperator, value: u64, second: Option<u64>) -> LinuxSeccompArg {
    super::argument(0, op, value, second)
}
