//! The native engine: `skiff-agent serve`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::leftovers::{
    Before, bridge_name, command_line, kill_hard, network_bridges, processes, table_name, tree,
};
use crate::{DockerCli, Leftovers, binaries, http, nftables, wait_until};

/// How long the engine may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// `serve` gives its engine 15 s to stop all containers.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A running `skiff-agent serve` with a directory of its own. Dropped, it takes its containers along.
pub struct NativeEngine {
    directory: TempDir,
    mirrors: Vec<String>,
    child: Option<Child>,
    before: Before,
}

impl NativeEngine {
    /// Starts it with an empty root and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        Self::with_mirrors(&[])
    }

    /// The same with registry mirrors.
    pub fn with_mirrors(mirrors: &[String]) -> anyhow::Result<Self> {
        Self::below(&std::env::temp_dir(), mirrors)
    }

    /// The same with its directory in another one: on a small disk.
    pub fn below(place: &Path, mirrors: &[String]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("skiff-engine-")
            .tempdir_in(place)
            .context("make the engine's directory")?;
        let mut engine = Self { directory, mirrors: mirrors.to_vec(), child: None, before: Before::now() };
        engine.start_again()?;
        Ok(engine)
    }

    /// Starts `serve` on the same root, after [`stop`](Self::stop) or [`kill_all`](Self::kill_all).
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let agent = binaries::agent()?;
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_path())
            .context("open the engine's log")?;
        let mut command = Command::new(&agent);
        command.arg("serve").arg("--root").arg(self.root()).arg("--socket").arg(self.socket());
        for mirror in &self.mirrors {
            command.arg("--registry-mirror").arg(mirror);
        }
        let child = command
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", agent.display()))?;
        self.child = Some(child);
        self.wait_ready(START_PATIENCE)
    }

    /// Waits until `/_ping` is answered.
    pub fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let socket = self.socket();
        let mut ended = None;
        let result = wait_until("the engine to answer", patience, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let up =
                http::unix_request("GET", &socket, "/_ping", &[]).is_ok_and(|answer| answer.status == 200);
            (up || ended.is_some()).then_some(())
        });
        match (result, ended) {
            (_, Some(status)) => bail!("skiff-agent serve ended with {status}\n{}", self.log_tail()),
            (Err(error), None) => bail!("{error}\n{}", self.log_tail()),
            (Ok(()), None) => Ok(()),
        }
    }

    /// The engine's data directory.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The Docker API's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// A docker CLI for this engine.
    pub fn docker(&self) -> anyhow::Result<DockerCli> {
        DockerCli::new(&self.socket())
    }

    /// The process id of `skiff-agent serve`, the supervisor.
    pub fn supervisor_pid(&self) -> anyhow::Result<i32> {
        Ok(self.child.as_ref().context("the engine is stopped")?.id().cast_signed())
    }

    /// The process id of `skiff-agent engine`, waiting for it after a restart.
    pub fn engine_pid(&self) -> anyhow::Result<i32> {
        let supervisor = self.supervisor_pid()?;
        wait_until("the engine process", START_PATIENCE, || {
            tree(supervisor).into_iter().find(|pid| is_engine(*pid))
        })
    }

    /// kill -9 of the engine process alone, then waits until its successor answers.
    pub fn kill_engine(&mut self) -> anyhow::Result<()> {
        let old = self.engine_pid()?;
        kill_hard(old);
        wait_until("the killed engine to be gone", START_PATIENCE, || (!is_engine(old)).then_some(()))?;
        self.wait_ready(START_PATIENCE)
    }

    /// kill -9 of the supervisor, the engine and every container, as a power cut would.
    pub fn kill_all(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The supervisor first: it would restart the engine.
            let pids = tree(child.id().cast_signed());
            let _ = child.kill();
            pids.into_iter().for_each(kill_hard);
            let _ = child.wait();
        }
        processes(&self.root()).into_iter().for_each(kill_hard);
    }

    /// SIGTERM, as a service manager would; fails unless it ends with code 0.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).context("signal the engine")?;
        let ended = wait_until("the engine to stop", STOP_PATIENCE, || child.try_wait().ok().flatten());
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("skiff-agent serve ended with {status}\n{}", self.log_tail()),
            Err(error) => {
                self.child = Some(child);
                bail!("{error}\n{}", self.log_tail())
            }
        }
    }

    /// What of this engine is on the machine now.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(&self.root(), &self.before)
    }

    /// Waits until nothing is left but (if it runs) the engine itself; what remains after `patience` is the error.
    pub fn expect_no_leftovers(&self, patience: Duration) -> anyhow::Result<()> {
        let look = || match self.child {
            Some(_) => self.leftovers().beside_idle_engine(),
            None => self.leftovers(),
        };
        if wait_until("cleanup", patience, || look().is_empty().then_some(())).is_err() {
            bail!("something is left over after {:.0} s\n{}", patience.as_secs_f64(), look());
        }
        Ok(())
    }

    /// The last lines of the engine's log.
    pub fn log_tail(&self) -> String {
        log_tail("engine log", &self.log_path())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("engine.log")
    }
}

/// Whether this is an engine. A process of a container that is on its way to its command line still has the engine's, but
/// the name of the thread that it was cloned from.
fn is_engine(pid: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim() == "skiff-agent" && command_line(pid).contains("skiff-agent engine")
}

impl Drop for NativeEngine {
    fn drop(&mut self) {
        if self.child.is_some() && self.stop().is_err() {
            self.kill_all();
        }
        let root = self.root();
        processes(&root).into_iter().for_each(kill_hard);
        for mount in &self.leftovers().mounts {
            let _ = rustix::mount::unmount(Path::new(mount), rustix::mount::UnmountFlags::DETACH);
        }
        // Veth ends go with the containers' namespaces.
        let mut bridges = network_bridges(&root);
        bridges.push(bridge_name(&root));
        for bridge in bridges {
            let _ = Command::new("ip").args(["link", "del", &bridge]).stderr(Stdio::null()).status();
        }
        nftables::delete(&table_name(&root));
    }
}

/// The last lines of a log file, indented under a title.
pub fn log_tail(title: &str, path: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let mut tail = format!("  {title} ({} lines, the last {}):\n", lines.len(), lines.len().min(LINES));
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        tail.push_str(&format!("    | {line}\n"));
    }
    tail
}
