//! config.md and config-linux.md of the runtime spec, section by section (docs/runtime.md has the table).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::bundle::Bundle;

/// Runs the container and gives its lines.
#[track_caller]
fn lines(bundle: &Bundle) -> Vec<String> {
    bundle.run().ok().out.lines().map(str::to_owned).collect()
}

#[test]
fn process_user_umask_rlimits_and_oom_score() {
    let mut bundle = Bundle::new(
        "id -u; id -g; id -G; umask; ulimit -n; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status",
    );
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [7, 8]});
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    bundle.config["process"]["oomScoreAdj"] = 123.into();
    bundle.config["process"]["noNewPrivileges"] = true.into();
    assert_eq!(lines(&bundle), ["5", "6", "6 7 8", "0077", "100", "123", "NoNewPrivs:\t1"]);
}

#[test]
fn process_capabilities_in_five_sets() {
    let mut bundle = Bundle::new("grep ^Cap /proc/self/status");
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let sets = lines(&bundle);
    let wanted = [
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000002021",
        "CapAmb:\t0000000000000020",
    ];
    assert_eq!(sets, wanted);
}

#[test]
fn process_scheduler_io_priority_and_personality() {
    let mut bundle = Bundle::new("uname -m; ionice; cut -d' ' -f19,41 /proc/self/stat");
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    let shown = lines(&bundle);
    assert!(shown[0] == "i686" || shown[0] == "armv8l", "{shown:?}");
    assert!(shown[1].starts_with("idle"), "{shown:?}");
    // proc_pid_stat(5): nice, policy (3 is SCHED_BATCH).
    assert_eq!(shown[2], "5 3");
    bundle.config["process"]["ioPriority"]["priority"] = 9.into();
    bundle.run().fails("process.ioPriority.priority 9");
}

#[test]
fn namespaces_are_made_joined_or_left_to_the_host() {
    let mut bundle =
        Bundle::new("for n in cgroup ipc mnt net pid uts time; do readlink /proc/self/ns/$n; done");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for (line, kind) in lines(&bundle).iter().zip(["cgroup", "ipc", "mnt", "net", "pid", "uts", "time"]) {
        assert_ne!(*line, own(kind), "{kind} is the host's");
    }
    // Joined by path: those of a container that runs; left out: the host's.
    let donor = Bundle::new("exec sleep 1000");
    donor.oci(&["run", "-d", "box"]).ok();
    let pid = donor.state()["pid"].to_string();
    let theirs = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
    for kind in ["ipc", "network", "pid", "uts"] {
        let file = if kind == "network" { "net" } else { kind };
        bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
    }
    bundle.namespace("cgroup", None);
    bundle.config["hostname"] = json!(null);
    let seen = lines(&bundle);
    assert_eq!(seen[0], own("cgroup"));
    for (line, kind) in [(1, "ipc"), (3, "net"), (4, "pid"), (5, "uts")] {
        assert_eq!(seen[line], theirs(kind), "{kind}");
    }
    bundle.namespace("uts", None);
    bundle.config["hostname"] = json!("name");
    bundle.run().fails("private UTS namespace");
}

#[test]
fn a_time_namespace_has_clocks_of_its_own() {
    let mut bundle = Bundle::new("cut -d. -f1 /proc/uptime");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5}});
    let uptime: u64 = lines(&bundle)[0].parse().unwrap();
    assert!(uptime > 1_000_000, "{uptime}");
    bundle.config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    bundle.run().fails("linux.timeOffsets");
}

#[test]
fn a_user_namespace_maps_ids() {
    let mut bundle = Bundle::new(
        "cat /proc/self/uid_map; id -u; touch /tmp/made; chown 5:6 /tmp/made; : > /dev/null; \
         grep CapEff /proc/self/status; hostname",
    );
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    fs::set_permissions(bundle.rootfs("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let seen = lines(&bundle);
    assert_eq!(seen[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(seen[1..], ["0", "CapEff:\t00000000a80425fb", "skiff"]);
    let made = fs::metadata(bundle.rootfs("tmp/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_005, 100_006));
    // A further command is in it, too.
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.oci(&["run", "-d", "box"]).ok();
    let inside =
        bundle.oci(&["exec", "--user", "7", "box", "sh", "-c", "id -u; cat /proc/self/uid_map"]).ok();
    assert!(inside.out.starts_with("7\n") && inside.out.contains("100000"), "{}", inside.out);
    bundle.oci(&["delete", "-f", "box"]).ok();
    bundle.config["linux"]["uidMappings"] = json!([]);
    bundle.run().fails("linux.uidMappings");
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    let mut donor = Bundle::new("exec sleep 1000");
    donor.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    donor.config["linux"]["uidMappings"] = map.clone();
    donor.config["linux"]["gidMappings"] = map;
    fs::set_permissions(donor.path(), fs::Permissions::from_mode(0o755)).unwrap();
    donor.oci(&["run", "-d", "box"]).ok();
    let pid = donor.state()["pid"].to_string();
    let mut bundle = Bundle::new("cat /proc/self/uid_map; echo $$; hostname; readlink /proc/self/ns/net");
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    bundle.namespace("user", Some(&format!("/proc/{pid}/ns/user")));
    let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().display().to_string();
    let seen = lines(&bundle);
    assert_eq!(seen[0].split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
    assert_eq!(seen[1..3], ["1", "skiff"]);
    assert_ne!(seen[3], theirs, "its network is the donor's");
    // And one of its own kinds with it: the network belongs to that user namespace.
    bundle.namespace("network", Some(&format!("/proc/{pid}/ns/net")));
    assert_eq!(lines(&bundle)[3], theirs);
}

#[test]
fn mounts_bind_with_attributes_and_propagation() {
    let mut bundle = Bundle::new(
        "grep ' /data' /proc/self/mountinfo | cut -d' ' -f5,6; touch /data/x || echo refused; \
         touch /data/inner/x || echo refused inside; touch /tmp/fresh/x && cat /tmp/fresh/from-image",
    );
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("inner")).unwrap();
    fs::create_dir_all(bundle.rootfs("tmp/fresh")).unwrap();
    fs::write(bundle.rootfs("tmp/fresh/from-image"), "copied\n").unwrap();
    let path = source.path().to_str().unwrap().to_owned();
    bundle.mounts().extend([
        json!({"destination": "/data", "type": "bind", "source": path, "options": ["rbind", "rro", "nosuid", "rslave"]}),
        json!({"destination": "/tmp/fresh", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"]}),
    ]);
    let seen = lines(&bundle);
    assert!(seen[0].starts_with("/data ro,nosuid"), "{seen:?}");
    assert_eq!(seen[1..], ["refused", "refused inside", "copied"]);
    assert!(!bundle.rootfs("tmp/fresh/x").exists(), "the tmpfs's file is in the image");
}

#[test]
fn mounts_show_ids_through_a_mapping() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "").unwrap();
    std::os::unix::fs::chown(source.path().join("file"), Some(1000), Some(1000)).unwrap();
    let mut bundle = Bundle::new("stat -c %u:%g /data/file; touch /data/made");
    let map = json!([{"containerID": 1000, "hostID": 7000, "size": 10}, {"containerID": 0, "hostID": 0, "size": 1}]);
    bundle.mounts().push(json!({"destination": "/data", "type": "bind", "source": source.path(),
        "options": ["bind", "idmap"], "uidMappings": map, "gidMappings": map}));
    assert_eq!(lines(&bundle), ["7000:7000"]);
    assert_eq!(fs::metadata(source.path().join("made")).unwrap().uid(), 0);
}

#[test]
fn root_is_read_only_and_propagates_as_asked() {
    let mut bundle =
        Bundle::new("touch /x || echo refused; grep ' / / ' /proc/self/mountinfo | grep -c shared:");
    bundle.config["root"]["readonly"] = true.into();
    bundle.config["linux"]["rootfsPropagation"] = "shared".into();
    let done = bundle.run();
    assert!(done.out.starts_with("refused\n"), "{} {}", done.out, done.err);
    bundle.config["linux"]["rootfsPropagation"] = "sideways".into();
    bundle.run().fails("linux.rootfsPropagation");
}

#[test]
fn devices_are_made_and_filtered() {
    let mut bundle = Bundle::new(
        "stat -c '%F %t:%T %a %u' /dev/fuse; true < /dev/fuse && echo open; true < /dev/null && echo null",
    );
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
        "fileMode": 0o640, "uid": 3, "gid": 0}]);
    bundle.config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]});
    let seen = bundle.run();
    assert!(seen.out.starts_with("character special file a:e5 640 3\n"), "{}", seen.out);
    assert!(seen.out.contains("null\n"), "{}\n{}", seen.out, seen.err);
    // Where the host can open the device, the rule alone decides.
    assert_eq!(seen.out.contains("open\n"), fs::File::open("/dev/fuse").is_ok(), "{}", seen.err);
    let rule = bundle.config["linux"]["resources"]["devices"].as_array_mut().unwrap().pop().unwrap();
    let seen = bundle.run();
    assert!(seen.out.ends_with("null\n") && !seen.out.contains("open\n"), "{}", seen.out);
    bundle.config["linux"]["resources"]["devices"].as_array_mut().unwrap().push(rule);
    bundle.config["linux"]["resources"]["devices"][1]["access"] = "x".into();
    bundle.run().fails("linux.resources.devices[1]");
}

#[test]
fn sysctls_masked_and_readonly_paths() {
    let mut bundle = Bundle::new(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; wc -c < /proc/timer_list; ls -A /proc/acpi; ls -A /sys/firmware; \
         echo 1 > /proc/sys/net/ipv4/ip_forward || echo refused",
    );
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"});
    let seen = bundle.run();
    assert_eq!(seen.out, "1\n4096\n0\nrefused\n", "{}", seen.err);
    bundle.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    bundle.run().fails("vm.swappiness");
}

#[test]
fn hooks_of_all_kinds_run_where_and_when_the_spec_says() {
    let mut bundle = Bundle::new("echo command >> /tmp/order");
    let order = bundle.rootfs("tmp/order");
    let outside = bundle.path().join("states");
    let hook = |name: &str, place: &str| {
        let script =
            format!("echo {name} >> {place}; cat >> {}; echo >> {}", outside.display(), outside.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let host = order.to_str().unwrap();
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart", host),
        "createRuntime": hook("createRuntime", host),
        "createContainer": hook("createContainer", host),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c",
            "echo startContainer >> /tmp/order; cat > /tmp/start-state"], "env": ["PATH=/bin"]}],
        "poststart": hook("poststart", host),
        "poststop": hook("poststop", host),
    });
    bundle.config["annotations"] = json!({"key": "value"});
    bundle.oci(&["create", "box"]).ok();
    assert_eq!(bundle.read("tmp/order"), "prestart\ncreateRuntime\ncreateContainer\n");
    let pid = bundle.state()["pid"].clone();
    bundle.oci(&["start", "box"]).ok();
    bundle.wait_for("stopped");
    bundle.oci(&["delete", "box"]).ok();
    let mut seen: Vec<String> = bundle.read("tmp/order").lines().map(str::to_owned).collect();
    // The command and the hooks behind its start run at the same time.
    let last = seen.pop().unwrap();
    assert_eq!(last, "poststop");
    seen[4..].sort();
    assert_eq!(
        seen,
        ["prestart", "createRuntime", "createContainer", "startContainer", "command", "poststart"]
    );
    let states: Vec<serde_json::Value> = fs::read_to_string(&outside)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let statuses: Vec<&str> = states.iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["creating", "creating", "creating", "running", "stopped"]);
    assert!(states.iter().all(|state| state["id"] == "box" && state["annotations"]["key"] == "value"));
    assert_eq!(states[0]["pid"], pid);
    let inside: serde_json::Value = serde_json::from_str(&bundle.read("tmp/start-state")).unwrap();
    assert_eq!(inside["status"], "created");
}

#[test]
fn a_hook_that_fails_leaves_nothing_behind() {
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("true");
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]);
        bundle.oci(&["create", "box"]).fails(&format!("error running {kind} hook #0"));
        bundle.oci(&["state", "box"]).fails("does not exist");
    }
    let mut bundle = Bundle::new("touch /tmp/ran");
    bundle.config["hooks"]["startContainer"] = json!([{"path": "/bin/false"}]);
    bundle.oci(&["create", "box"]).ok();
    bundle.oci(&["start", "box"]).fails("startContainer hook #0: exit status 1");
    bundle.wait_for("stopped");
    assert!(!bundle.rootfs("tmp/ran").exists());
    bundle.config["hooks"] = json!({"poststop": [{"path": "relative"}]});
    bundle.oci(&["create", "other"]).fails("hooks.poststop[0].path");
}

#[test]
fn seccomp_decides_by_name_arguments_and_action() {
    let mut bundle = Bundle::new(
        "mkdir /tmp/a || echo refused; chmod 700 /tmp && echo changed; chmod 600 /tmp || echo refused",
    );
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": 0o600, "op": "SCMP_CMP_EQ"}]},
        {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 2, "value": 0o600, "op": "SCMP_CMP_EQ"}]}]});
    let done = bundle.run();
    assert_eq!(done.out, "refused\nchanged\nrefused\n");
    assert!(done.err.contains("No space left"), "{}", done.err);
    bundle.config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_KILL_PROCESS".into();
    assert!(bundle.run().err.contains("Bad system call"));
}

#[test]
fn a_seccomp_agent_gets_the_listener_and_decides() {
    let mut bundle = Bundle::new("mkdir /tmp/a; echo ended $?");
    let path = bundle.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "listenerMetadata": "words", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    bundle.oci(&["create", "box"]).ok();
    let (stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; 1 << 16];
    let message = skiff_linux_sys::fd_passing::receive(&stream, &mut buffer).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&buffer[..message.len]).unwrap();
    assert_eq!((&said["fds"], &said["metadata"]), (&json!(["seccompFd"]), &json!("words")));
    assert_eq!(said["state"]["id"], "box");
    // An agent that goes away: the kernel answers ENOSYS for it.
    drop(message.fds);
    bundle.oci(&["start", "box"]).ok();
    bundle.wait_for("stopped");
    assert!(!bundle.rootfs("tmp/a").exists());
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["sendmsg"]);
    bundle.oci(&["create", "other"]).fails("SCMP_ACT_NOTIFY for sendmsg");
}

#[test]
fn what_is_refused_is_refused_by_its_name() {
    let refused = [
        (json!({"intelRdt": {"closID": "x"}}), "linux.intelRdt"),
        (json!({"netDevices": {"eth0": {}}}), "linux.netDevices"),
        (json!({"cgroupsPath": "/a/../../b"}), "linux.cgroupsPath"),
        (json!({"resources": {"unified": {"../x": "1"}}}), "linux.resources.unified"),
        (json!({"namespaces": [{"type": "mount"}, {"type": "mount"}]}), "twice"),
        (json!({"namespaces": [{"type": "pid"}]}), "mount namespace of its own"),
    ];
    for (change, words) in refused {
        let mut bundle = Bundle::new("true");
        for (name, value) in change.as_object().unwrap() {
            bundle.config["linux"][name] = value.clone();
        }
        // Where there are no controllers, limits are not looked at.
        if words == "linux.resources.unified" && !skiff_runtime::Cgroup::limits("/sys/fs/cgroup".as_ref()) {
            continue;
        }
        bundle.run().fails(words);
        bundle.oci(&["state", "box"]).fails("does not exist");
    }
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["apparmorProfile"] = "some-profile".into();
    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        bundle.run().fails("process.apparmorProfile");
    }
    bundle.config["process"]["apparmorProfile"] = json!(null);
    bundle.config["linux"]["namespaces"][0]["type"] = "nonsense".into();
    bundle.run().fails("linux.namespaces[0].type");
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let bundle = Bundle::new("");
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let program = bundle.path().join("skiff-oci");
    fs::copy(env!("CARGO_BIN_EXE_skiff-oci"), &program).unwrap();
    std::os::unix::fs::chown(bundle.path(), Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::chown(bundle.rootfs(""), Some(1000), Some(1000)).unwrap();
    let script = "./skiff-oci --root user-state spec --rootless && \
        sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"sleep\", \"1000\"/' config.json && \
        ./skiff-oci --root user-state run -d box && ./skiff-oci --root user-state exec box id -u && \
        ./skiff-oci --root user-state exec box cat /proc/self/uid_map && \
        ./skiff-oci --root user-state delete -f box && ls user-state";
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", script]);
    command.current_dir(bundle.path()).env_remove("XDG_RUNTIME_DIR");
    let done = bundle.finish(command).ok();
    let words: Vec<&str> = done.out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1000", "1"]);
}
