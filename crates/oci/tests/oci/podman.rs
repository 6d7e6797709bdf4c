//! Debian's podman with this runtime. It keeps everything below a directory of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::bundle::{Done, output, wait_until};

/// A podman of the test's own with one image, `box`.
struct Podman {
    directory: tempfile::TempDir,
    runtime: PathBuf,
}

impl Podman {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let runtime = path.join("skiff-oci");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_skiff-oci"), &runtime).unwrap();
        // Machines that are themselves confined can't raise the limits to podman's defaults.
        let conf = "[containers]\ndefault_ulimits=[\"nofile=512:512\",\"nproc=4096:4096\"]\n";
        fs::write(path.join("containers.conf"), conf).unwrap();
        fs::write(path.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        fs::create_dir_all(path.join("image/bin")).unwrap();
        fs::create_dir_all(path.join("image/tmp")).unwrap();
        fs::copy("/bin/busybox", path.join("image/bin/busybox")).unwrap();
        for name in
            ["sh", "sleep", "cat", "id", "tty", "echo", "test", "touch", "true", "ls", "kill", "hostname"]
        {
            std::os::unix::fs::symlink("busybox", path.join("image/bin").join(name)).unwrap();
        }
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(path.join("image")).arg("-cf").arg(path.join("image.tar")).arg(".");
        assert!(pack.status().unwrap().success());
        let podman = Self { directory, runtime };
        podman.run(&["import", "image.tar", "localhost/box"]).ok();
        podman
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = self.directory.path();
        let mut command = Command::new("podman");
        for (option, place) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(path.join(place));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.arg("--runtime").arg(&self.runtime).args(arguments);
        command.env("CONTAINERS_CONF", path.join("containers.conf")).current_dir(path);
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        let done = output(self.command(arguments));
        Done {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&done.stdout).into_owned(),
            err: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for arguments in [["pod", "rm", "-f", "-t", "0", "-a"].as_slice(), &["rm", "-f", "-t", "0", "-a"]] {
            let _ = self.command(arguments).output();
        }
        // Podman's own cgroup, empty now unless another podman runs.
        if let Some(root) = skiff_runtime::Cgroup::root() {
            let _ = fs::remove_dir(root.join("libpod_parent"));
        }
    }
}

#[test]
fn podman_runs_execs_checks_and_pods() {
    let podman = Podman::new();
    let image = "localhost/box";
    let run = ["run", "--rm", "--network", "none"];
    let with = |more: &[&str]| podman.run(&[&run, more].concat());
    assert_eq!(with(&[image, "echo", "hello"]).ok().out, "hello\n");
    assert_eq!(with(&[image, "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(with(&[image, "nosuchprogram"]).code, 127);
    assert_eq!(with(&[image, "/tmp"]).code, 126);
    assert_eq!(
        with(&["--read-only", "--user", "5", image, "sh", "-c", "id -u; touch /x || echo no"]).ok().out,
        "5\nno\n"
    );
    let given = with(&[
        "-v",
        &format!("{}:/given:ro", podman.directory.path().display()),
        image,
        "ls",
        "/given/policy.json",
    ]);
    given.ok();

    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "disable"];
    podman
        .run(
            &[&["run", "-d", "--name", "one", "--network", "none"], &health[..], &[image, "sleep", "1000"]]
                .concat(),
        )
        .ok();
    assert_eq!(podman.run(&["exec", "--user", "6", "one", "id", "-u"]).ok().out, "6\n");
    assert_eq!(podman.run(&["exec", "one", "sh", "-c", "exit 4"]).code, 4);
    assert_eq!(podman.run(&["exec", "-t", "one", "tty"]).ok().out.trim(), "/dev/pts/0");
    assert_ne!(podman.run(&["healthcheck", "run", "one"]).code, 0);
    podman.run(&["exec", "one", "touch", "/tmp/well"]).ok();
    podman.run(&["healthcheck", "run", "one"]).ok();
    assert!(podman.run(&["ps"]).ok().out.contains("Up "));
    podman.run(&["stop", "-t", "1", "one"]).ok();
    podman.run(&["start", "one"]).ok();
    podman.run(&["kill", "one"]).ok();
    assert_eq!(podman.run(&["wait", "one"]).ok().out, "137\n");
    podman.run(&["rm", "one"]).ok();

    let pod = ["pod", "create", "--name", "pod", "--network", "none", "--hostname", "podhost"];
    podman.run(&[&pod[..], &["--infra-image", image, "--infra-command", "sleep 1000"]].concat()).ok();
    for (name, script) in [("left", "echo ready > /tmp/x; sleep 1000"), ("right", "sleep 1000")] {
        podman.run(&["run", "-d", "--pod", "pod", "--name", name, image, "sh", "-c", script]).ok();
    }
    wait_until("the pod's container", || podman.run(&["exec", "left", "cat", "/tmp/x"]).out == "ready\n");
    for name in ["left", "right"] {
        assert_eq!(podman.run(&["exec", name, "hostname"]).ok().out, "podhost\n");
    }
    podman.run(&["pod", "rm", "-f", "-t", "0", "pod"]).ok();
    assert_eq!(podman.run(&["ps", "-aq"]).ok().out, "");
}

#[test]
fn podman_builds_images_by_this_runtime() {
    let mut podman = Podman::new();
    let path = podman.directory.path().to_owned();
    // Which commands the build gives to the runtime.
    let recorder = path.join("recorder");
    let runtime = podman.runtime.display();
    fs::write(
        &recorder,
        format!("#!/bin/sh\necho \"$*\" >>{}/calls\nexec {runtime} \"$@\"\n", path.display()),
    )
    .unwrap();
    fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755)).unwrap();
    podman.runtime = recorder;
    let steps = "FROM localhost/box\nRUN id -u >/tmp/built && test -e /proc/self\nUSER 33\nRUN test \"$(id -u)\" = 33\n\
        CMD [\"cat\", \"/tmp/built\"]\n";
    fs::write(path.join("Dockerfile"), steps).unwrap();
    let build =
        ["build", "--network", "none", "--signature-policy", "policy.json", "-t", "localhost/built", "."];
    podman.run(&build).ok();
    let calls = fs::read_to_string(path.join("calls")).unwrap();
    for verb in ["create", "start", "delete"] {
        let count = calls.lines().filter(|line| line.split(' ').any(|word| word == verb)).count();
        assert_eq!(count, 2, "{verb} is called once for each step:\n{calls}");
    }
    assert_eq!(podman.run(&["run", "--rm", "--network", "none", "localhost/built"]).ok().out, "0\n");
    fs::write(path.join("Dockerfile"), "FROM localhost/box\nRUN exit 9\n").unwrap();
    podman.run(&build).fails("exit status 9");
}
