//! What a bundle or a caller smuggles in: capabilities, settings in values, variables of hooks, lengths, sockets. Published
//! flaws of runc and others since 2020; those about paths are in `escapes.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::bundle::Bundle;

/// CVE-2022-29162, CVE-2022-24769, CVE-2022-27649: inheritable capabilities come back with a file's own. CVE-2025-27612:
/// capabilities of an exec go to more sets than they should.
#[test]
fn no_process_has_inheritable_or_ambient_capabilities_that_nobody_asked_for() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.oci(&["run", "-d", "box"]).ok();
    let sets = |pid: &str, more: &[&str]| -> Vec<String> {
        let file = format!("/proc/{pid}/status");
        let arguments = [&["exec"], more, &["box", "grep", "^Cap", &file]].concat();
        let text = bundle.oci(&arguments).ok().out;
        text.lines().filter_map(|line| line.split('\t').nth(1).map(str::to_owned)).collect()
    };
    let none = "0000000000000000";
    let first = sets("1", &[]);
    let [inheritable, permitted, effective, bounding, ambient] = &first[..] else { panic!("{first:?}") };
    assert!(inheritable == none && ambient == none, "{first:?}");
    assert!(permitted != none && permitted == effective && permitted == bounding, "{first:?}");
    assert_eq!(sets("self", &[]), first);
    let more = sets("self", &["--cap", "CAP_SYS_TIME"]);
    let number = |set: &str| u64::from_str_radix(set, 16).unwrap();
    assert_eq!(number(&more[2]), number(effective) | 1 << 25);
    assert!(more[0] == none && more[4] == none, "{more:?}");
    // Another user has none of them, and the bounding set stays the container's.
    let user = sets("self", &["--user", "5"]);
    assert!(user[1] == none && user[2] == none && user[3] == *bounding, "{user:?}");
}

/// CVE-2022-0811: a setting's value brings further settings along, those of the host among them.
#[test]
fn a_settings_value_is_no_way_to_other_settings() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for value in
        ["1+kernel.core_pattern=|/evil", "1\nkernel.core_pattern=|/evil", "1,kernel.core_pattern=|/evil"]
    {
        let mut bundle = Bundle::new("cat /proc/sys/kernel/shm_rmid_forced");
        bundle.config["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": value});
        bundle.run();
    }
    for name in [
        "kernel/shm_rmid_forced/../core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.../../kernel/core_pattern",
    ] {
        let mut bundle = Bundle::new("true");
        bundle.config["linux"]["sysctl"] = json!({ name: "|/evil" });
        assert_ne!(bundle.run().code, 0, "{name} was taken");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// CVE-2025-23266: a hook, which runs on the host, gets the container's variables, `LD_PRELOAD` among them.
#[test]
fn hooks_get_no_variable_of_the_container() {
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/tmp/evil.so", "SMUGGLED=1"]);
    let seen = bundle.path().join("seen");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("env >>{}", seen.display())], "env": ["OWN=1"]});
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][kind] = json!([hook]);
    }
    bundle.run().ok();
    let seen = fs::read_to_string(seen).unwrap();
    assert_eq!(seen.matches("OWN=1").count(), 5, "{seen}");
    assert!(!seen.contains("LD_PRELOAD") && !seen.contains("SMUGGLED"), "{seen}");
}

/// CVE-2021-43784: a length of 16 bits overflows, and the end of a long path is read as something else.
#[test]
fn what_is_longer_than_any_field_is_refused_or_kept_whole() {
    let long = format!("/{}", "x/".repeat(40_000));
    let mut bundle = Bundle::new("echo ran");
    bundle.namespace("network", Some(&format!("{long}\0/proc/1/ns/net")));
    assert_ne!(bundle.run().code, 0);
    let mut bundle = Bundle::new("echo ran");
    bundle.namespace("network", Some(&long));
    bundle.run().fails("name too long");
    let mut bundle = Bundle::new("echo $LONG | wc -c");
    bundle.config["process"]["env"] = json!(["PATH=/bin", format!("LONG={}", "y".repeat(100_000))]);
    assert_eq!(bundle.run().ok().out.trim(), "100001");
}

/// CVE-2020-15257: a container with the host's network reaches an abstract socket of what manages it.
#[test]
fn there_is_no_abstract_socket_of_the_runtime() {
    let mut bundle =
        Bundle::new("while :; do cat /proc/net/unix; [ -e /tmp/stop ] && exit; done >/tmp/sockets");
    bundle.namespace("network", None);
    bundle.mounts().retain(|mount| mount["destination"] != "/sys");
    bundle.oci(&["run", "-d", "box"]).ok();
    for _ in 0..3 {
        bundle.oci(&["exec", "box", "true"]).ok();
    }
    fs::write(bundle.rootfs("tmp/stop"), "").unwrap();
    bundle.wait_for("stopped");
    let seen = bundle.read("tmp/sockets");
    let place = bundle.path().to_str().unwrap();
    let bad =
        seen.lines().find(|line| line.contains('@') && (line.contains(place) || line.contains("skiff-oci")));
    assert_eq!(bad, None);
    assert!(seen.contains("Path"), "the sockets of the host's network cannot be seen: {seen:.200}");
}

/// CVE-2024-45310: a neighbour swaps a directory for a link while a mount's destination is made below it, so that it is made
/// on the host.
#[test]
fn destinations_are_not_made_on_the_host_while_a_neighbour_swaps_what_is_above() {
    let host = tempfile::tempdir().unwrap();
    let shared = tempfile::tempdir().unwrap();
    fs::create_dir(shared.path().join("a")).unwrap();
    symlink(host.path(), shared.path().join("b")).unwrap();
    let mut bundle = Bundle::new("true");
    let source = bundle.path().join("config.json");
    bundle.mounts().extend([
        json!({"destination": "/shared", "type": "bind", "source": shared.path(), "options": ["rbind"]}),
        json!({"destination": "/shared/a/deep/directory", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/shared/a/file", "type": "bind", "source": source, "options": ["bind"]}),
    ]);
    let (a, b) = (shared.path().join("a"), shared.path().join("b"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, exchange);
            }
        });
        for _ in 0..40 {
            // Success or failure, as the race has it; what matters is the host.
            bundle.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0);
}

/// CVE-2023-25809: without a cgroup namespace the container of an ordinary user sees the host's hierarchy, and writes to it.
#[test]
fn the_hosts_cgroups_cannot_be_written_without_a_namespace_of_ones_own() {
    let script = "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name cgroup.kill); do \
        { echo 0 >$f; } 2>/dev/null && echo written $f; done; mkdir /sys/fs/cgroup/made 2>/dev/null && echo made; true";
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new(script);
        bundle.namespace("cgroup", None);
        if user_namespace {
            let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
            bundle.config["linux"]["uidMappings"] = map.clone();
            bundle.config["linux"]["gidMappings"] = map;
            bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        }
        assert_eq!(bundle.run().ok().out, "", "user namespace: {user_namespace}");
    }
}
