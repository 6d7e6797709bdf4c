use crate::setup::*;
use oci_spec::runtime::{Capability, LinuxNamespaceType};
use skiff_runtime::{RootFs, default_capabilities};
use std::collections::HashMap;
use std::path::Path;

const KINDS: [&str; 6] = ["mnt", "uts", "pid", "ipc", "cgroup", "net"];

fn own_namespaces() -> Vec<String> {
    let link = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    KINDS.iter().map(|kind| link(kind).display().to_string()).collect()
}

fn print_namespaces() -> String {
    KINDS.map(|kind| format!("readlink /proc/self/ns/{kind}")).join(";")
}

#[test]
fn every_namespace_is_separate() {
    let text = Box::new().sh(&print_namespaces()).text();
    for (inside, outside) in text.lines().zip(own_namespaces()) {
        assert_ne!(inside, outside);
    }
}

#[test]
fn namespaces_left_out_are_the_hosts() {
    let mut spec = spec(&["sh", "-c", &print_namespaces()]);
    for kind in [LinuxNamespaceType::Pid, LinuxNamespaceType::Ipc, LinuxNamespaceType::Network] {
        share(&mut spec, kind);
    }
    let text = Box::new().run(spec).text();
    let same: Vec<&str> = text
        .lines()
        .zip(own_namespaces())
        .filter(|(inside, outside)| inside == outside)
        .map(|(inside, _)| inside.split(':').next().unwrap())
        .collect();
    assert_eq!(same, ["pid", "ipc", "net"]);
}

#[test]
fn namespaces_are_joined_by_path() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let mut spec = spec(&["sh", "-c", &print_namespaces()]);
    let kinds = [LinuxNamespaceType::Pid, LinuxNamespaceType::Ipc, LinuxNamespaceType::Network];
    for namespace in linux(&mut spec).namespaces_mut().as_mut().unwrap() {
        if kinds.contains(&namespace.typ()) {
            let path = format!("/proc/{}/ns/{}", first.0.pid, namespace.typ());
            namespace.set_path(Some(path.into()));
        }
    }
    let text = container.run(spec).text();
    for (line, kind) in text.lines().zip(KINDS) {
        let first = std::fs::read_link(format!("/proc/{}/ns/{kind}", first.0.pid)).unwrap();
        let is_joined = ["pid", "ipc", "net"].contains(&kind);
        assert_eq!(line == first.display().to_string(), is_joined, "{kind}");
    }
}

#[test]
fn the_command_is_pid_1_and_sees_only_itself() {
    assert_eq!(Box::new().sh("echo $$; ls -d /proc/[0-9]* | wc -l").text(), "1\n3");
}

#[test]
fn host_and_domain_name_are_set() {
    let mut spec = spec(&["sh", "-c", "hostname; cat /proc/sys/kernel/domainname"]);
    spec.set_hostname(Some("harbour".into())).set_domainname(Some("example.org".into()));
    assert_eq!(Box::new().run(spec).text(), "harbour\nexample.org");
}

#[test]
fn masked_paths_are_empty_and_settings_read_only() {
    let script = "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l;
        echo 1 >/proc/sys/kernel/panic || echo refused; echo b >/proc/sysrq-trigger || echo refused;
        mkdir /sys/fs/x || echo refused";
    let outcome = Box::new().sh(script);
    assert_eq!(
        outcome.out.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "refused", "refused", "refused"]
    );
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
}

#[test]
fn capabilities_are_dockers() {
    let status = Box::new().sh("grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status").text();
    let fields: HashMap<&str, &str> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
    assert_eq!(fields["CapEff"], "00000000a80425fb");
    assert_eq!(fields["CapPrm"], "00000000a80425fb");
    assert_eq!(fields["CapBnd"], "00000000a80425fb");
    assert_eq!(fields["CapInh"], "0000000000000000");
    assert_eq!(fields["CapAmb"], "0000000000000000");
    assert_eq!((fields["Seccomp"], fields["NoNewPrivs"]), ("2", "0"));
}

#[test]
fn a_user_has_no_capabilities_except_ambient_ones() {
    let container = Box::new();
    let mut spec = spec(&["grep", "-E", "^Cap(Eff|Amb|Bnd)", "/proc/self/status"]);
    process(&mut spec).user_mut().set_uid(1000).set_gid(1000);
    let zero = "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000";
    assert_eq!(container.run(spec.clone()).text(), zero);
    let mut sets = default_capabilities([Capability::NetBindService]);
    let one: oci_spec::runtime::Capabilities = [Capability::NetBindService].into_iter().collect();
    sets.set_inheritable(Some(one.clone())).set_ambient(Some(one));
    process(&mut spec).set_capabilities(Some(sets));
    let bind = "CapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000400";
    assert_eq!(container.run(spec).text(), bind);
}

#[test]
fn no_new_privileges_works_together_with_seccomp() {
    let mut spec = spec(&["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"]);
    process(&mut spec).set_no_new_privileges(Some(true)).user_mut().set_uid(1000);
    assert_eq!(Box::new().run(spec).text(), "NoNewPrivs:\t1\nSeccomp:\t2");
}

/// Makes a system call by number in a container on the machine's own root, which has perl.
fn errno_of(call: &str, unconfined: bool) -> i32 {
    let script = format!("$! = 0; syscall({call}); print $! + 0;");
    let mut spec = spec(&["perl", "-e", &script]);
    if unconfined {
        linux(&mut spec).set_seccomp(None);
    }
    try_run(&spec, RootFs::Dir("/".into())).unwrap().text().parse().unwrap()
}

#[test]
fn the_default_profile_refuses_and_hides_system_calls() {
    assert_eq!(errno_of(&format!("{}, 0, 0", libc::SYS_clone3), false), libc::ENOSYS);
    assert_eq!(errno_of(&format!("{}, 0, 0", libc::SYS_clone3), true), libc::EINVAL);
    assert_eq!(errno_of(&format!("{}, {}", libc::SYS_unshare, libc::CLONE_NEWUSER), false), libc::EPERM);
    assert_eq!(errno_of(&format!("{}, {}", libc::SYS_unshare, libc::CLONE_NEWUSER), true), 0);
    assert_eq!(errno_of(&format!("{}, 40, 1, 0", libc::SYS_socket), false), libc::EPERM);
    assert_eq!(errno_of(&format!("{}, 1, 1, 0", libc::SYS_socket), false), 0);
}

#[test]
fn unconfined_has_no_filter() {
    let mut spec = spec(&["grep", "Seccomp:", "/proc/self/status"]);
    linux(&mut spec).set_seccomp(None);
    assert_eq!(Box::new().run(spec).text(), "Seccomp:\t0");
}

#[test]
fn sysctls_are_set_in_own_namespaces_only() {
    let container = Box::new();
    let mut spec = spec(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    let set = |spec: &mut oci_spec::runtime::Spec, name: &str| {
        linux(spec).set_sysctl(Some(HashMap::from([(name.to_owned(), "77".to_owned())])));
    };
    set(&mut spec, "net.ipv4.ip_unprivileged_port_start");
    assert_eq!(container.run(spec.clone()).text(), "77");
    set(&mut spec, "vm.swappiness");
    let error = container.try_run(&spec).unwrap_err().to_string();
    assert_eq!(error, "sysctl \"vm.swappiness\" is not in a separate kernel namespace");
    set(&mut spec, "net.ipv4.ip_unprivileged_port_start");
    share(&mut spec, LinuxNamespaceType::Network);
    assert!(container.try_run(&spec).is_err());
}

#[test]
fn the_hosts_mounts_are_out_of_reach() {
    let container = Box::new();
    let mounts = container.sh("cat /proc/self/mountinfo").text();
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(points[0], "/");
    assert!(
        points.iter().all(|p| *p == "/" || ["/proc", "/dev", "/sys"].iter().any(|d| p.starts_with(d))),
        "{points:?}"
    );
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1);
    assert!(
        !std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&*container.path().to_string_lossy())
    );
}

#[test]
fn a_container_can_be_made_inside_a_chroot() {
    // A root that is no mount cannot be pivoted away; neither can an initramfs. The test process itself must be in
    // one, so it is run again there.
    let container = Box::new();
    if std::env::var_os("SKIFF_TEST_CHROOT").is_some() {
        assert_eq!(container.sh("echo $$; ls -d /work /home 2>/dev/null | wc -l").text(), "1\n0");
        return;
    }
    let script = "mount --make-rprivate / && mkdir \"$1\"/r && mount --rbind / \"$1\"/r && mkdir -p \"$1\"/r/tmp && \
        exec chroot \"$1\"/r/../r \"$2\" --exact isolation::a_container_can_be_made_inside_a_chroot";
    let outside = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(outside.path())
        .arg(std::env::current_exe().unwrap())
        .env("SKIFF_TEST_CHROOT", "1")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(Path::new("/").exists());
}
