//! The engines that are measured: ours, and a dockerd where one is at hand.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::thread::LinkNameSpaceType;

use crate::http::Api;
use crate::process::{Running, guest_image, program};

/// The image that the containers are made of; our engine has it built in.
pub const IMAGE: &str = "skiff/toolbox";

/// Names the socket of a running dockerd to compare with.
const VARIABLE: &str = "SKIFF_BENCH_DOCKERD";

/// An engine under measurement.
pub struct Peer {
    /// How it is called in the figures.
    pub name: String,
    socket: PathBuf,
    /// What its processes have in their command lines.
    marks: Vec<String>,
    _process: Option<(Running, tempfile::TempDir)>,
}

impl Peer {
    /// Starts `skiff-agent serve` with a root of its own.
    pub fn skiff() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (root, socket) = (directory.path().join("root"), directory.path().join("docker.sock"));
        let log = File::create(directory.path().join("log"))?;
        let mut engine = Command::new(program("skiff-agent")?);
        engine.arg("serve").arg("--root").arg(&root).arg("--socket").arg(&socket);
        let process = Running(engine.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).spawn()?);
        Api::wait(&socket, Duration::from_secs(20))?;
        let mark = root.display().to_string();
        Ok(Self { name: "skiff".to_owned(), socket, marks: vec![mark], _process: Some((process, directory)) })
    }

    /// Finds the dockerd to compare with: the one that the environment names, or the machine's own.
    pub fn dockerd() -> anyhow::Result<Option<Self>> {
        let socket = std::env::var_os(VARIABLE).map_or_else(|| "/var/run/docker.sock".into(), PathBuf::from);
        Self::of_dockerd(&socket)
    }

    fn of_dockerd(socket: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(mut api) = Api::connect(socket) else { return Ok(None) };
        let version = api.call("GET", "/version", None)?;
        if version["Platform"]["Name"].as_str().is_some_and(|name| name.contains("Skiff")) {
            return Ok(None);
        }
        let archive = std::fs::read(guest_image()?.join("toolbox.tar")).context("read the toolbox image")?;
        api.call("POST", "/images/load", Some(&archive))?;
        let name = format!("dockerd {}", version["Version"].as_str().unwrap_or("?"));
        let marks = ["dockerd", "containerd", "docker-proxy"].map(str::to_owned).to_vec();
        Ok(Some(Self { name, socket: socket.to_owned(), marks, _process: None }))
    }

    /// Starts Debian's dockerd in namespaces of its own; the reason where that is not possible.
    pub fn reference() -> anyhow::Result<Result<Self, String>> {
        let directory = tempfile::tempdir()?;
        let (socket, log) = (directory.path().join("docker.sock"), directory.path().join("log"));
        let mut command = Command::new("tests/compat/reference");
        command.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log)?);
        let mut process = Running(command.spawn().context("run tests/compat/reference")?);
        // The first time it fetches packages.
        let deadline = Instant::now() + Duration::from_secs(300);
        while Api::wait(&socket, Duration::ZERO).is_err() {
            if process.0.try_wait()?.is_some() {
                return Ok(Err(std::fs::read_to_string(&log)?.trim().to_owned()));
            }
            if Instant::now() > deadline {
                return Ok(Err("it does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let peer = Self::of_dockerd(&socket)?.context("the reference engine is no dockerd")?;
        Ok(Ok(Self { _process: Some((process, directory)), ..peer }))
    }

    /// The network namespace that its process is in, where that is another than ours.
    pub fn network(&self) -> Option<PathBuf> {
        let mine = std::fs::read_link("/proc/self/ns/net").ok()?;
        let socket = self.socket.display().to_string();
        let is_its = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.starts_with("dockerd\0") && line.contains(&socket)
        };
        let pid = self.processes().into_iter().find(is_its)?;
        let network = PathBuf::from(format!("/proc/{pid}/ns/net"));
        (std::fs::read_link(&network).ok()? != mine).then_some(network)
    }

    /// How the environment names a dockerd.
    pub fn variable() -> &'static str {
        VARIABLE
    }

    /// A connection of its own.
    pub fn api(&self) -> anyhow::Result<Api> {
        Api::connect(&self.socket)
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What its processes have in their command lines.
    pub fn marks(&self) -> Vec<String> {
        self.marks.clone()
    }

    /// Does something in the network namespace of whoever listens on the socket: what is measured must be on its host. What
    /// is opened or started there stays there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let listener = rustix::net::sockopt::socket_peercred(&UnixStream::connect(&self.socket)?)?;
        let path = format!("/proc/{}/ns/net", listener.pid.as_raw_nonzero());
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        let enter = move || {
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).expect("the thread does not panic")
    }

    /// The memory of all its processes, shared pages counted in parts, in bytes; the containers' not.
    pub fn memory(&self) -> u64 {
        let pss = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        self.processes().iter().map(pss).sum()
    }

    /// The processor time of all its processes so far.
    pub fn processor(&self) -> Duration {
        let ticks = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split_whitespace().collect();
            let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            number(11) + number(12)
        };
        Duration::from_millis(self.processes().iter().map(ticks).sum::<u64>() * 10)
    }

    fn processes(&self) -> Vec<u32> {
        let own = std::process::id();
        let is_ours = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            *pid != own && self.marks.iter().any(|mark| line.contains(mark.as_str()))
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }
}
