//! The published ways out of runc and its like since 2019, each with a bundle that tries.
//!
//! What must not happen is always the same: something of the host is read, written or mounted over.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use super::bundle::Bundle;

/// CVE-2019-5736: a command of `#!/proc/self/exe` makes the runtime execute itself inside the container, where others
/// open its file through `/proc` and write to it once it has ended.
#[test]
fn the_runtimes_own_file_cannot_be_written_through_proc() {
    let mut bundle = Bundle::new(
        "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do l=$(readlink $p/exe) || continue; \
           case $l in */busybox) ;; *) \
             if exec 9<$p/exe; then n=0; while [ $n -lt 50 ]; do n=$((n+1)); \
               e=$( { echo x >/proc/self/fd/9; } 2>&1) && echo WRITTEN >>/tmp/seen; echo \"$e\" >>/tmp/seen; done; exec 9<&-; fi;; \
           esac; done; done",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_PTRACE".into());
    }
    // A program of our own: if the attack succeeds it is not the test's that is lost.
    let program = bundle.path().join("skiff-oci");
    fs::copy(env!("CARGO_BIN_EXE_skiff-oci"), &program).unwrap();
    let before = fs::metadata(&program).unwrap().len();
    // The attacker brings what the program needs to run.
    let libraries = Command::new("ldd").arg(&program).output().unwrap();
    for path in
        String::from_utf8_lossy(&libraries.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let inside = bundle.rootfs(path.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        let _ = fs::copy(path, inside);
    }
    fs::write(bundle.rootfs("bin/evil"), "#!/proc/self/exe spec\n").unwrap();
    fs::set_permissions(bundle.rootfs("bin/evil"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    drop(bundle.command(&[]));
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--root", "state"]).args(arguments).current_dir(bundle.path());
        bundle.finish(command)
    };
    ours(&["run", "-d", "box"]).ok();
    for _ in 0..200 {
        ours(&["exec", "box", "/bin/evil"]);
        if bundle.read("tmp/seen").lines().count() > 200 {
            break;
        }
    }
    fs::write(bundle.rootfs("tmp/stop"), "").unwrap();
    let seen = bundle.read("tmp/seen");
    assert!(!seen.contains("WRITTEN"), "the program was written to");
    assert!(seen.contains("Read-only file system"), "the attack never came near the program: {seen:.300}");
    let after = fs::metadata(&program).unwrap().len();
    assert_eq!(before, after);
}

/// CVE-2024-21626: a descriptor of the runtime that is open during the change of directory, or inherited.
#[test]
fn no_descriptor_or_working_directory_leads_out() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.oci(&["run", "-d", "box"]).ok();
    for number in 3..16 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            let done = bundle.oci(&["exec", "--cwd", &cwd, "box", "ls", "/"]);
            assert_ne!(done.code, 0, "{cwd}: {}", done.out);
        }
    }
    bundle.oci(&["delete", "-f", "box"]).ok();
    bundle.config["process"]["args"] = json!(["ls", "-la", "."]);
    for number in 3..16 {
        bundle.config["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        let done = bundle.run();
        assert_ne!(done.code, 0, "fd {number}: {}", done.out);
    }
    // A link of the image as working directory leads nowhere else than a path.
    symlink("/proc/self/fd/7/..", bundle.rootfs("link")).unwrap();
    bundle.config["process"]["cwd"] = "/link".into();
    assert_ne!(bundle.run().code, 0);
}

/// CVE-2021-30465 and what came before: the image makes a mount's destination a link to the host, or swaps it meanwhile.
#[test]
fn mount_destinations_cannot_lead_out_of_the_root() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("target")).unwrap();
    let mut bundle = Bundle::new("cat /proc/self/mountinfo | wc -l");
    let link = bundle.rootfs("escape");
    symlink(host.path().join("target"), &link).unwrap();
    symlink("../../../../../../../..", bundle.rootfs("up")).unwrap();
    let up = format!("/up{}/made", host.path().display());
    bundle.mounts().extend([
        json!({"destination": "/escape/inner", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": up, "type": "tmpfs", "source": "tmpfs"}),
    ]);
    bundle.run().ok();
    assert!(
        fs::read_dir(host.path().join("target")).unwrap().next().is_none(),
        "a directory was made outside"
    );
    assert!(!host.path().join("made").exists());

    // The race: a neighbour with the same directory swaps it for a link while the container is made.
    let mut bundle = Bundle::new("true");
    let shared = tempfile::tempdir().unwrap();
    fs::create_dir(shared.path().join("a")).unwrap();
    symlink("/", shared.path().join("b")).unwrap();
    bundle.mounts().extend([
        json!({"destination": "/shared", "type": "bind", "source": shared.path(), "options": ["rbind"]}),
        json!({"destination": "/shared/a/tmp", "type": "tmpfs", "source": "tmpfs"}),
    ]);
    let (a, b) = (shared.path().join("a"), shared.path().join("b"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    // Where the mount would go if the link were followed, or if it showed on the host.
    let mounted = || -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .filter(|point| {
                *point == "/tmp"
                    || a.parent().is_some_and(|shared| point.starts_with(shared.to_str().unwrap()))
            })
            .map(str::to_owned)
            .collect()
    };
    let before = mounted();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &a,
                    rustix::fs::CWD,
                    &b,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        for _ in 0..40 {
            // Success or failure, as the race has it; what matters is the host.
            bundle.run();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(mounted(), before);
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: `/proc` or `/sys` of the image is a link, so that what masks and
/// protects them would cover something else.
#[test]
fn proc_and_sys_are_never_mounted_through_a_link() {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new("echo escaped");
        fs::remove_dir(bundle.rootfs(name)).unwrap();
        fs::create_dir(bundle.rootfs("elsewhere")).unwrap();
        symlink("elsewhere", bundle.rootfs(name)).unwrap();
        let done = bundle.run();
        assert!(done.code != 0 && !done.out.contains("escaped"), "{name}: {}{}", done.out, done.err);
    }
}

/// CVE-2025-31133: the null device that masks a file is replaced by the image. CVE-2025-52565: so is the console.
#[test]
fn masks_and_the_console_use_nothing_of_the_image() {
    let mut bundle = Bundle::new("wc -c < /proc/timer_list; cat /tmp/secret || true");
    // Without a /dev of its own the image's nodes stay in view.
    bundle.mounts().retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(bundle.rootfs("tmp/secret"), "").unwrap();
    symlink("/proc/sysrq-trigger", bundle.rootfs("dev/null")).unwrap();
    let done = bundle.run();
    assert!(done.out.starts_with("0\n"), "{}{}", done.out, done.err);

    let mut bundle = Bundle::new("echo escaped");
    bundle.mounts().retain(|mount| mount["destination"] != "/dev");
    bundle.config["process"]["terminal"] = true.into();
    symlink("/proc/sys/kernel/core_pattern", bundle.rootfs("dev/console")).unwrap();
    let path = bundle.path().join("console.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let done = bundle.oci(&["create", "--console-socket", path.to_str().unwrap(), "box"]);
    assert_ne!(done.code, 0, "the terminal was mounted through a link");
}

/// CVE-2019-16884, CVE-2025-52881: something of the container's is mounted where settings and labels are written.
#[test]
fn settings_are_written_to_the_kernel_and_nothing_else() {
    let decoy = tempfile::tempdir().unwrap();
    fs::create_dir_all(decoy.path().join("net/ipv4")).unwrap();
    fs::write(decoy.path().join("net/ipv4/ip_forward"), "untouched").unwrap();
    let mut bundle = Bundle::new("cat /proc/sys/net/ipv4/ip_forward");
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    // A bind over /proc is refused; a tmpfs is not a bind.
    bundle.mounts().push(
        json!({"destination": "/proc/sys", "type": "bind", "source": decoy.path(), "options": ["bind"]}),
    );
    bundle.run().fails("inside /proc");
    bundle.mounts().pop();
    bundle.mounts().push(json!({"destination": "/proc/sys/net", "type": "tmpfs", "source": "tmpfs"}));
    let done = bundle.run();
    // The setting went to the kernel: nothing was made in what covers it.
    assert!(done.err.contains("No such file"), "{}{}", done.out, done.err);
    assert_eq!(fs::read_to_string(decoy.path().join("net/ipv4/ip_forward")).unwrap(), "untouched");
}

/// CVE-2022-0492: a release agent of a cgroup v1 hierarchy, which the kernel runs on the host as root.
#[test]
fn no_cgroup_hierarchy_can_be_mounted_or_changed() {
    let bundle = Bundle::new(
        "mkdir /tmp/c; mount -t cgroup -o memory none /tmp/c && echo mounted; \
         unshare -Urm sh -c 'mount -t cgroup -o memory none /tmp/c && echo mounted inside'; \
         find /sys/fs/cgroup -name release_agent | grep . && echo visible; \
         for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo $$ > $f && echo moved; done; true",
    );
    let done = bundle.run().ok();
    assert_eq!(done.out, "", "{}", done.err);
}

/// CVE-2016-9962, CVE-2024-21626: a process of the container traces the one that joins it, before that has let go of
/// the host's descriptors.
#[test]
fn what_joins_a_container_cannot_be_looked_into_before_it_is_inside() {
    let mut bundle = Bundle::new(
        "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || \
           for f in $p/fd/*; do l=$(readlink $f) && case $l in */state*|*config.json*|*rootfs*) echo $l >> /tmp/seen;; esac; done; \
         done; done",
    );
    bundle.config["process"]["capabilities"] = json!({"bounding": [], "effective": [], "permitted": []});
    bundle.oci(&["run", "-d", "box"]).ok();
    for _ in 0..30 {
        bundle.oci(&["exec", "box", "true"]).ok();
    }
    fs::write(bundle.rootfs("tmp/stop"), "").unwrap();
    assert_eq!(bundle.read("tmp/seen"), "");
    bundle.wait_for("stopped");
}

/// Moby's lesson of 2024: a bind's destination that does not exist is made inside the root whatever its dangling links say.
#[test]
fn dangling_links_of_the_image_make_nothing_on_the_host() {
    let host = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new("true");
    let outside = host.path().join("made");
    symlink(&outside, bundle.rootfs("etc/file")).unwrap();
    symlink(&outside, bundle.rootfs("etc/directory")).unwrap();
    let source = bundle.path().join("config.json");
    bundle
        .mounts()
        .push(json!({"destination": "/etc/file", "type": "bind", "source": source, "options": ["bind"]}));
    bundle.config["process"]["cwd"] = "/etc/directory/deep".into();
    bundle.run();
    assert!(!outside.exists() && host.path().read_dir().unwrap().next().is_none());
}
