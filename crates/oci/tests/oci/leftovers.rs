//! Nothing is left after a death that `delete --force` does not clean up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use skiff_runtime::Cgroup;

use super::bundle::{Bundle, wait_until};

/// What of a container is on the machine: its processes and its cgroup.
fn leftovers(bundle: &Bundle, cgroup: &Path) -> Vec<String> {
    let root = bundle.rootfs("").canonicalize().unwrap();
    let mut left: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            mounts.lines().any(|line| line.split(' ').nth(3) == root.to_str())
        })
        .map(|pid| format!("process {pid}"))
        .collect();
    if cgroup.exists() {
        left.push(cgroup.display().to_string());
    }
    left
}

/// Calls after which nothing outside of the process is different. What is outside changes by system calls alone, so a death
/// before each of the others is a death at every instruction.
const HARMLESS: [&str; 31] = [
    "access",
    "arch_prctl",
    "brk",
    "epoll_create1",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "geteuid",
    "getpid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "poll",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sigaltstack",
    "statfs",
    "statx",
];

/// Where a command can be killed: a call's name, and which of the calls of this name it is.
fn points(bundle: &Bundle, arguments: &[&str]) -> Vec<(String, usize)> {
    let trace = bundle.path().join("trace");
    bundle.finish(traced(bundle, &["-o", trace.to_str().unwrap()], arguments)).ok();
    let text = fs::read_to_string(trace).unwrap();
    // Before this the program has only started, twice, and read what it is to do.
    let mut begun = false;
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let mut points = Vec::new();
    for line in text.lines() {
        let name = line.split('(').next().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let count = seen.entry(name.to_owned()).or_default();
        *count += 1;
        begun |= name == "prctl" || name == "mkdir";
        if begun && !HARMLESS.contains(&name) {
            points.push((name.to_owned(), *count));
        }
    }
    assert!(points.len() > 10, "the trace shows next to nothing: {text}");
    points
}

/// A command of the runtime under strace, which sees none of the processes that it makes.
fn traced(bundle: &Bundle, options: &[&str], arguments: &[&str]) -> Command {
    let plain = bundle.command(arguments);
    let mut command = Command::new("strace");
    command.arg("-qq").args(options).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(bundle.path()).stdin(std::process::Stdio::null());
    command
}

#[test]
fn a_runtime_killed_at_any_instruction_leaves_nothing_that_delete_does_not_find() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let name = format!("skiff-test-{}", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = format!("/{name}/box").into();
    let parent = Cgroup::root().unwrap_or_else(|| PathBuf::from("/nonexistent")).join(&name);
    let cgroup = parent.join("box");
    let mut killed = 0;
    let before: [(&[&str], &[&[&str]]); 4] = [
        (&["create", "box"], &[]),
        (&["start", "box"], &[&["create", "box"]]),
        (&["exec", "--detach", "box", "sleep", "1000"], &[&["run", "--detach", "box"]]),
        (&["delete", "--force", "box"], &[&["run", "--detach", "box"]]),
    ];
    for (arguments, needed) in before {
        let prepare = || needed.iter().for_each(|needed| drop(bundle.oci(needed).ok()));
        let clean_up = |point: &str| {
            bundle.oci(&["delete", "--force", "box"]).ok();
            wait_until(&format!("the end of everything after {arguments:?} was killed at {point}"), || {
                leftovers(&bundle, &cgroup).is_empty()
            });
            assert!(!bundle.path().join("state/box").exists(), "{arguments:?} killed at {point}");
            assert!(
                !parent.exists(),
                "{arguments:?} killed at {point}: the directory above the cgroup is left"
            );
        };
        prepare();
        let points = points(&bundle, arguments);
        clean_up("no point");
        for (call, count) in points {
            prepare();
            let inject = format!("inject={call}:signal=SIGKILL:when={count}");
            let done = bundle.finish(traced(&bundle, &["-o", "/dev/null", "-e", &inject], arguments));
            // The calls of one run are not always those of the next.
            killed += usize::from(done.code == -1);
            clean_up(&format!("{call} {count}"));
        }
    }
    assert!(killed > 60, "strace has killed {killed} times only");
}

#[test]
fn a_container_lives_on_without_its_creator_and_dies_with_delete() {
    let mut bundle = Bundle::new("sleep 1000 & sleep 1001 & exec sleep 1002");
    // The hard case: no process namespace of its own whose end would end all.
    bundle.namespace("pid", None);
    bundle.mounts().retain(|mount| mount["destination"] != "/proc");
    bundle.config["linux"]["maskedPaths"] = serde_json::json!([]);
    bundle.config["linux"]["readonlyPaths"] = serde_json::json!([]);
    bundle.oci(&["create", "box"]).ok();
    bundle.oci(&["start", "box"]).ok();
    let count = || -> usize {
        let pids = bundle.oci(&["ps", "--format", "json", "box"]).ok().out;
        serde_json::from_str::<Vec<i32>>(&pids).unwrap().len()
    };
    if Cgroup::root().is_some() {
        wait_until("all processes", || count() == 3);
    }
    bundle.oci(&["delete", "--force", "box"]).ok();
    wait_until("their end", || leftovers(&bundle, Path::new("/nonexistent")).is_empty());
}
