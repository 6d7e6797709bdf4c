//! A bundle of one's own, and the program to run it with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A bundle with busybox, and a state directory beside it. Everything of it ends with it.
pub struct Bundle {
    directory: tempfile::TempDir,
    /// Its configuration.
    pub config: Value,
}

/// What a command of the runtime did.
pub struct Done {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Fails the test unless the command failed with these words.
    #[track_caller]
    pub fn fails(self, words: &str) -> Self {
        assert_ne!(self.code, 0, "succeeded: {}", self.out);
        assert!(self.err.contains(words), "stderr: {}", self.err);
        self
    }
}

impl Bundle {
    /// Makes a bundle whose command is a shell's script.
    pub fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let made = Self::program().args(["spec", "--bundle"]).arg(directory.path()).status().unwrap();
        assert!(made.success());
        let text = fs::read(directory.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", script]);
        // Tests run at the same time, each with a container of the same name.
        let place = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
        config["linux"]["cgroupsPath"] = format!("/skiff-test{place}/box").into();
        Self { directory, config }
    }

    fn program() -> Command {
        Command::new(env!("CARGO_BIN_EXE_skiff-oci"))
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the root file system.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.path().join("rootfs").join(path)
    }

    /// Writes the configuration and prepares a command of the runtime.
    pub fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Self::program();
        command.arg("--root").arg(self.path().join("state")).args(arguments).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime to its end. Its output goes to files: a container that lives on keeps them open.
    pub fn oci(&self, arguments: &[&str]) -> Done {
        self.finish(self.command(arguments))
    }

    /// Runs a prepared command to its end.
    pub fn finish(&self, mut command: Command) -> Done {
        let file = || tempfile::tempfile().unwrap();
        let (out, err) = (file(), file());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let status = command.status().unwrap();
        let code = status.code().unwrap_or(-1);
        Done { code, out: text(out), err: text(err) }
    }

    /// Runs the container in the foreground.
    pub fn run(&self) -> Done {
        self.oci(&["run", "box"])
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        wait_until(&format!("status {status}"), || self.state()["status"] == status);
    }

    /// The container's state.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.oci(&["state", "box"]).ok().out).unwrap()
    }

    /// What a container's process has written to a file of its root.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.rootfs(path)).unwrap_or_default()
    }

    /// The mounts of the configuration.
    pub fn mounts(&mut self) -> &mut Vec<Value> {
        self.config["mounts"].as_array_mut().unwrap()
    }

    /// Leaves a kind of namespace out, or gives it a path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|entry| entry["type"] != kind);
        if let Some(path) = path {
            list.push(json!({ "type": kind, "path": path }));
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "--force", "box"]);
    }
}

fn text(mut file: fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for something that another process does.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program and gives its output.
pub fn output(mut command: Command) -> Output {
    command.output().unwrap()
}
