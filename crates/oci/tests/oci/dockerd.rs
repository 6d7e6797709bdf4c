//! Debian's dockerd, with its containerd and shim, running containers by this runtime.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::bundle::{Bundle, Done, output};

/// The script's exit code for "not possible here".
const NOT_HERE: i32 = 77;
/// Fetching Debian's packages takes most of it, once.
const PATIENCE: Duration = Duration::from_secs(300);

/// A dockerd that knows the runtime `skiff`. It ends with the value.
struct Dockerd {
    directory: tempfile::TempDir,
    script: Child,
}

impl Dockerd {
    /// Starts it; `None`, with the reason on standard error, where the machine does not allow it.
    fn start() -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("skiff-dockerd-").tempdir().unwrap();
        let runtime = directory.path().join("skiff-oci");
        symlink(env!("CARGO_BIN_EXE_skiff-oci"), &runtime).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/reference");
        let mut command = Command::new(script);
        command.arg(directory.path()).arg("--add-runtime").arg(format!("skiff={}", runtime.display()));
        let script = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut dockerd = Self { directory, script };
        let deadline = Instant::now() + PATIENCE;
        while dockerd.run(&["version"]).code != 0 {
            if let Some(status) = dockerd.script.try_wait().unwrap() {
                assert_eq!(status.code(), Some(NOT_HERE), "{}", dockerd.log());
                return None;
            }
            assert!(Instant::now() < deadline, "dockerd does not answer: {}", dockerd.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(dockerd)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("dockerd.log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    fn run(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", self.directory.path()).env_remove("DOCKER_CONTEXT");
        let done = output(command);
        Done {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&done.stdout).into_owned(),
            err: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.script);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.script.wait();
    }
}

#[test]
fn dockerd_runs_containers_with_this_runtime() {
    let Some(dockerd) = Dockerd::start() else { return };
    let bundle = Bundle::new("");
    let archive = bundle.path().join("image.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(bundle.rootfs("")).arg("-cf").arg(&archive).arg(".");
    assert!(pack.status().unwrap().success());
    dockerd.run(&["import", archive.to_str().unwrap(), "box:1"]).ok();

    let with = |more: &[&str]| dockerd.run(&[&["run", "--rm", "--runtime", "skiff"], more].concat());
    let alone = |more: &[&str]| with(&[&["--network", "none"], more].concat());
    assert_eq!(alone(&["box:1", "echo", "hello"]).ok().out, "hello\n");
    assert_eq!(alone(&["box:1", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(alone(&["-t", "box:1", "tty"]).ok().out.trim(), "/dev/pts/0");
    // In the words that dockerd turns into exit codes.
    alone(&["box:1", "nosuchprogram"]).fails("executable file not found in $PATH");
    assert_eq!(alone(&["box:1", "nosuchprogram"]).code, 127);
    assert_eq!(alone(&["box:1", "/tmp"]).code, 126);
    let confined = ["--read-only", "--user", "5", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    let script = "id -u; touch /x 2>/dev/null || echo no; grep -c ^Seccomp:.2 /proc/self/status";
    assert_eq!(alone(&[&confined[..], &["box:1", "sh", "-c", script]].concat()).ok().out, "5\nno\n1\n");
    assert_eq!(
        alone(&["--privileged", "box:1", "sh", "-c", "mount -t tmpfs x /tmp && echo on"]).ok().out,
        "on\n"
    );
    // A link of the daemon's bridge, moved into the namespace between create and start by a hook of dockerd's.
    assert!(with(&["box:1", "cat", "/proc/net/dev"]).ok().out.contains("eth0"));

    let start =
        ["run", "-d", "--name", "one", "--runtime", "skiff", "--network", "none", "box:1", "sleep", "1000"];
    dockerd.run(&start).ok();
    assert_eq!(dockerd.run(&["exec", "--user", "6", "one", "id", "-u"]).ok().out, "6\n");
    assert_eq!(dockerd.run(&["exec", "one", "sh", "-c", "exit 4"]).code, 4);
    // 126 before Docker 28.
    assert!(matches!(dockerd.run(&["exec", "one", "nosuchprogram"]).code, 126 | 127));
    assert!(dockerd.run(&["top", "one"]).ok().out.contains("sleep 1000"));
    dockerd.run(&["pause", "one"]).ok();
    assert!(dockerd.run(&["ps"]).ok().out.contains("(Paused)"));
    dockerd.run(&["unpause", "one"]).ok();
    dockerd.run(&["kill", "one"]).ok();
    assert_eq!(dockerd.run(&["wait", "one"]).ok().out, "137\n");
    dockerd.run(&["start", "one"]).ok();
    dockerd.run(&["stop", "-t", "1", "one"]).ok();
    dockerd.run(&["rm", "one"]).ok();
    assert_eq!(dockerd.run(&["ps", "-aq"]).ok().out, "");
}
