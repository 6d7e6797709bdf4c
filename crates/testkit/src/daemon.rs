//! The host daemon: `skiff daemon`.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::engine::log_tail;
use crate::leftovers::{all_pids, command_line, kill_hard, tree};
use crate::{DockerCli, binaries, http, wait_until};

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This host.
    Native,
    /// A guest in QEMU.
    Qemu,
}

/// A running `skiff daemon` with a state directory of its own. Dropped, it takes its guest along.
pub struct DaemonUnderTest {
    backend: Backend,
    directory: TempDir,
    mirrors: Vec<String>,
    variables: Vec<(String, String)>,
    names_port: u16,
    /// Files that it sees in the place of others.
    files: Vec<(PathBuf, PathBuf)>,
    /// The network namespace that it is in, by the name that `ip netns` gave it.
    namespace: Option<String>,
    child: Option<Child>,
}

impl DaemonUnderTest {
    /// Starts it with empty state and waits until the engine answers; with QEMU that boots the guest.
    pub fn start(backend: Backend, mirrors: &[String]) -> anyhow::Result<Self> {
        if backend == Backend::Qemu {
            binaries::guest_image()?;
        }
        let mut daemon = Self::new(backend)?;
        daemon.mirrors = mirrors.to_vec();
        daemon.names_port = crate::free_port()?;
        // Daemons side by side would take turns with the ports that they have by default.
        daemon.write_settings(&format!("{{\"names\": {{\"port\": {}}}}}", daemon.names_port))?;
        daemon.start_again()?;
        Ok(daemon)
    }

    fn write_settings(&self, settings: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.state()).context("make the state directory")?;
        std::fs::write(self.state().join("settings.json"), settings).context("write the settings")
    }

    /// Starts it like [`start`](Self::start), with this text as `settings.json`.
    pub fn start_with_settings(backend: Backend, settings: &str) -> anyhow::Result<Self> {
        Self::start_with_files(backend, settings, &[])
    }

    /// Starts it with this text as `settings.json`, in a mount namespace where it, and all that it starts, sees the first
    /// file of each pair in the place of the second.
    pub fn start_with_files(
        backend: Backend,
        settings: &str,
        files: &[(&Path, &Path)],
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::new(backend)?;
        daemon.files = files.iter().map(|(this, that)| (this.to_path_buf(), that.to_path_buf())).collect();
        daemon.write_settings(settings)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// The same in a network namespace that `ip netns` made: that is the host's network then.
    pub fn start_in_namespace(
        backend: Backend,
        namespace: &str,
        files: &[(&Path, &Path)],
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::new(backend)?;
        daemon.files = files.iter().map(|(this, that)| (this.to_path_buf(), that.to_path_buf())).collect();
        daemon.namespace = Some(namespace.to_owned());
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it with a text as `settings.json` that has a free port for names.
    pub fn start_with_names(backend: Backend, settings: impl Fn(u16) -> String) -> anyhow::Result<Self> {
        let port = crate::free_port()?;
        let mut daemon = Self::start_with_settings(backend, &settings(port))?;
        daemon.names_port = port;
        Ok(daemon)
    }

    /// Starts it with this text as `settings.json` and more environment variables.
    pub fn start_with_variables(
        backend: Backend,
        settings: &str,
        variables: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::new(backend)?;
        daemon.variables = variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        daemon.write_settings(settings)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    fn new(backend: Backend) -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("skiff-daemon-").tempdir().context("make the state directory")?;
        let (mirrors, variables, names_port, files, namespace) = Default::default();
        Ok(Self { backend, directory, mirrors, variables, names_port, files, namespace, child: None })
    }

    /// Prepares a `skiff` command for this daemon; the words of `line` are split at spaces.
    pub fn skiff(&self, line: &str) -> anyhow::Result<crate::Program> {
        let words = line.split_whitespace().map(OsString::from);
        let state = ["--state".into(), self.state().into_os_string()];
        Ok(crate::Program::new(binaries::skiff()?).env("HOME", self.directory.path()).args(state).args(words))
    }

    /// Starts it with more environment variables and without waiting for anything.
    pub fn spawn_with(backend: Backend, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut daemon = Self::new(backend)?;
        daemon.variables = variables;
        daemon.spawn()?;
        Ok(daemon)
    }

    /// Starts it on the same state, after [`stop`](Self::stop) or [`kill_daemon`](Self::kill_daemon).
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready(self.start_patience())
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let skiff = binaries::skiff()?;
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_path())
            .context("open the daemon's log")?;
        let backend = match self.backend {
            Backend::Native => "native",
            Backend::Qemu => "qemu",
        };
        let mut command = self.command(&skiff);
        command
            .args(["daemon", "--backend", backend, "--state"])
            .arg(self.state())
            .arg("--socket")
            .arg(self.socket());
        for mirror in &self.mirrors {
            command.arg("--registry-mirror").arg(mirror);
        }
        if self.backend == Backend::Qemu {
            command.env("SKIFF_GUEST_IMAGE", binaries::guest_image()?);
        }
        let child = command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("HOME", self.directory.path())
            .env("DOCKER_CONFIG", self.directory.path().join("docker-config"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", skiff.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        if self.files.is_empty() && self.namespace.is_none() {
            return Command::new(program);
        }
        let mounts: String = self
            .files
            .iter()
            .map(|(this, that)| format!("mount --bind '{}' '{}' && ", this.display(), that.display()))
            .collect();
        let mut command = Command::new("unshare");
        if let Some(namespace) = &self.namespace {
            command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{namespace}")).arg("unshare");
        }
        command.args(["--mount", "sh", "-c", &format!("{mounts}exec \"$0\" \"$@\"")]).arg(program);
        command
    }

    /// Waits until `/_ping` is answered through the daemon.
    pub fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let socket = self.socket();
        let mut ended = None;
        let result = wait_until("the daemon to answer", patience, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let up =
                http::unix_request("GET", &socket, "/_ping", &[]).is_ok_and(|answer| answer.status == 200);
            (up || ended.is_some()).then_some(())
        });
        match (result, ended) {
            (_, Some(status)) => bail!("skiff daemon ended with {status}\n{}", self.log_tail()),
            (Err(error), None) => bail!("{error}\n{}", self.log_tail()),
            (Ok(()), None) => Ok(()),
        }
    }

    /// The port of loopback on which names of containers are served.
    pub fn names_port(&self) -> u16 {
        self.names_port
    }

    /// What runs the engine.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The daemon's state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The Docker socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// A docker CLI for this daemon.
    pub fn docker(&self) -> anyhow::Result<DockerCli> {
        DockerCli::new(&self.socket())
    }

    /// The daemon's process id.
    pub fn pid(&self) -> anyhow::Result<i32> {
        Ok(self.child.as_ref().context("the daemon is stopped")?.id().cast_signed())
    }

    /// QEMU's process id, waiting for it if need be. QEMU may outlive its daemon, so it is found by the state directory.
    pub fn qemu_pid(&self) -> anyhow::Result<i32> {
        wait_until("the QEMU process", Duration::from_secs(30), || self.qemu_pids().first().copied())
    }

    /// All QEMU processes of this state directory.
    pub fn qemu_pids(&self) -> Vec<i32> {
        let state = self.state().to_string_lossy().into_owned();
        let is_ours = |pid: &i32| {
            let line = command_line(*pid);
            line.split(' ').next().is_some_and(|program| program.contains("qemu-system"))
                && line.contains(&state)
        };
        all_pids().into_iter().filter(is_ours).collect()
    }

    /// kill -9 of the daemon alone.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the daemon is stopped")?;
        child.kill().context("kill the daemon")?;
        child.wait().context("wait for the daemon")?;
        Ok(())
    }

    /// SIGTERM; fails unless it ends with code 0.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).context("signal the daemon")?;
        match wait_until("the daemon to stop", Duration::from_secs(60), || child.try_wait().ok().flatten()) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("skiff daemon ended with {status}\n{}", self.log_tail()),
            Err(error) => {
                self.child = Some(child);
                bail!("{error}\n{}", self.log_tail())
            }
        }
    }

    /// The last lines of the daemon's log and of the guest's console.
    pub fn log_tail(&self) -> String {
        let mut text = log_tail("daemon log", &self.log_path());
        for path in logs_below(&self.state()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            text.push_str(&log_tail(&name, &path));
        }
        text
    }

    fn start_patience(&self) -> Duration {
        match self.backend {
            Backend::Native => Duration::from_secs(20),
            // TCG on a busy machine, behind a KVM that is tried first.
            Backend::Qemu => Duration::from_secs(120),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("daemon.log")
    }
}

impl Drop for DaemonUnderTest {
    fn drop(&mut self) {
        let pids = self.pid().map(tree).unwrap_or_default();
        if self.stop().is_err() {
            pids.into_iter().for_each(kill_hard);
            if let Some(child) = self.child.as_mut() {
                let _ = child.wait();
            }
        }
        self.qemu_pids().into_iter().for_each(kill_hard);
        crate::leftovers::processes(self.directory.path()).into_iter().for_each(kill_hard);
    }
}

fn logs_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && found.len() < 8 => found.extend(logs_below(&path)),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|end| end == "log") => {
                found.push(path)
            }
            _ => {}
        }
    }
    found
}
