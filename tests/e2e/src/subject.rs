//! An engine under test, whatever runs it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use skiff_testkit::process::Finished;
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Image, NativeEngine, Registry, binaries, http};

/// A running engine with `busybox:latest` loaded, and a registry it can reach.
pub struct Subject {
    /// The docker CLI for this engine.
    pub docker: DockerCli,
    /// A registry on the host's loopback, also configured as mirror of Docker Hub.
    pub registry: Registry,
    /// How much longer things may take than on a native engine.
    pub slowness: u32,
    /// Whether the engine is in a guest, so that this host is not its own.
    pub in_guest: bool,
    machine: Machine,
}

enum Machine {
    Serve(NativeEngine),
    Daemon(DaemonUnderTest),
}

impl Subject {
    /// `skiff-agent serve` on this host.
    pub fn serve() -> anyhow::Result<Self> {
        let registry = Registry::start()?;
        let engine = NativeEngine::with_mirrors(&[registry.url()])?;
        let docker = engine.docker()?;
        Self { docker, registry, slowness: 1, in_guest: false, machine: Machine::Serve(engine) }.prepared()
    }

    /// `skiff daemon` with the given backend.
    pub fn daemon(backend: Backend) -> anyhow::Result<Self> {
        let registry = Registry::start()?;
        let daemon = DaemonUnderTest::start(backend, &[registry.url()])?;
        Self::of_daemon(registry, daemon)
    }

    /// `skiff daemon` with a guest and a text as `settings.json`, which has the port for names; the registry is nobody's mirror.
    pub fn guest_with_settings(settings: impl Fn(u16) -> String) -> anyhow::Result<Self> {
        let registry = Registry::start()?;
        let daemon = DaemonUnderTest::start_with_names(Backend::Qemu, settings)?;
        Self::of_daemon(registry, daemon)
    }

    fn of_daemon(registry: Registry, daemon: DaemonUnderTest) -> anyhow::Result<Self> {
        let in_guest = daemon.backend() == Backend::Qemu;
        let slowness = if in_guest { 4 } else { 1 };
        let docker = daemon.docker()?;
        Self { docker, registry, slowness, in_guest, machine: Machine::Daemon(daemon) }.prepared()
    }

    fn prepared(self) -> anyhow::Result<Self> {
        let load = || -> anyhow::Result<()> {
            self.load(&Image::busybox()?, "busybox:latest")?;
            Ok(())
        };
        load().with_context(|| format!("prepare the engine\n{}", self.log_tail()))?;
        Ok(self)
    }

    /// Loads an image under a tag.
    pub fn load(&self, image: &Image, tag: &str) -> anyhow::Result<Finished> {
        self.docker.feed("load", image.archive(&[tag]))?.ok()
    }

    /// A patience of so many seconds on a native engine.
    pub fn patience(&self, seconds: u32) -> Duration {
        Duration::from_secs(u64::from(seconds * self.slowness))
    }

    /// Runs a container in the background that lives until it is killed.
    pub fn sleeper(&self, name: &str) -> anyhow::Result<()> {
        self.docker.run(&format!("run -d --name {name} busybox sleep 1000"))?.ok().map(drop)
    }

    /// A client that `scripts/fetch-clients` fetches (`docker-compose`), if it was.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let path = binaries::target_directory().join("tools").join(name);
        path.is_file().then_some(path)
    }

    /// The daemon, if there is one.
    pub fn daemon_under_test(&self) -> Option<&DaemonUnderTest> {
        match &self.machine {
            Machine::Serve(_) => None,
            Machine::Daemon(daemon) => Some(daemon),
        }
    }

    /// Whether the engine runs in a guest.
    pub fn is_guest(&self) -> bool {
        matches!(&self.machine, Machine::Daemon(daemon) if daemon.backend() == Backend::Qemu)
    }

    /// Whether the engine answers.
    pub fn answers(&self) -> bool {
        http::unix_request("GET", &self.socket(), "/_ping", &[]).is_ok_and(|answer| answer.status == 200)
    }

    /// Makes one call of the API, with a body of JSON if there is one.
    pub fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<http::Response> {
        http::unix_request(method, &self.socket(), path, body.as_bytes())
    }

    /// A connection to the API.
    pub fn connect(&self) -> anyhow::Result<UnixStream> {
        Ok(UnixStream::connect(self.socket())?)
    }

    /// A client that asks and then never reads its answer.
    pub fn deaf_client(&self, path: &str) -> anyhow::Result<UnixStream> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
        Ok(stream)
    }

    /// The bytes of memory that the engine's process has for itself; only a `serve` engine's can be seen.
    pub fn engine_memory(&self) -> anyhow::Result<Option<u64>> {
        let Machine::Serve(engine) = &self.machine else { return Ok(None) };
        private_memory(engine.engine_pid()?).map(Some)
    }

    /// The bytes of memory that the daemon has for itself, if there is one.
    pub fn daemon_memory(&self) -> anyhow::Result<Option<u64>> {
        match &self.machine {
            Machine::Serve(_) => Ok(None),
            Machine::Daemon(daemon) => private_memory(daemon.pid()?).map(Some),
        }
    }

    /// The engine's clock, in the form that `--since` and `--until` take. The guest's is not the host's.
    pub fn now(&self) -> anyhow::Result<String> {
        Ok(self.docker.args(&["info", "--format", "{{.SystemTime}}"])?.ok()?.out().trim().to_owned())
    }

    /// Removes all containers, and the networks that were made for them.
    pub fn remove_containers(&self) -> anyhow::Result<()> {
        let ids = self.docker.run("ps -aq --no-trunc")?.ok()?.out();
        if !ids.trim().is_empty() {
            self.docker.command("rm -f -v").args(ids.split_whitespace()).run()?.ok()?;
        }
        self.docker.run("network prune -f")?.ok()?;
        Ok(())
    }

    /// The last lines of every log there is.
    pub fn log_tail(&self) -> String {
        match &self.machine {
            Machine::Serve(engine) => engine.log_tail(),
            Machine::Daemon(daemon) => daemon.log_tail(),
        }
    }

    /// Fails if anything but the idle engine is on the machine; only a `serve` engine can be looked into.
    pub fn expect_no_leftovers(&self) -> anyhow::Result<()> {
        match &self.machine {
            Machine::Serve(engine) => engine.expect_no_leftovers(Duration::from_secs(10)),
            Machine::Daemon(_) => Ok(()),
        }
    }

    fn socket(&self) -> PathBuf {
        match &self.machine {
            Machine::Serve(engine) => engine.socket(),
            Machine::Daemon(daemon) => daemon.socket(),
        }
    }

    /// The directory all of this engine's files are in.
    pub fn is_below(&self, path: &Path) -> bool {
        match &self.machine {
            Machine::Serve(engine) => path.starts_with(engine.root()),
            Machine::Daemon(daemon) => path.starts_with(daemon.state()),
        }
    }
}

/// The bytes of memory that a process has for itself.
fn private_memory(pid: i32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024)
}
