//! The native backend: the agent runs on this very host, without a virtual machine.
//!
//! Linux only; elsewhere [`Native::start`](Backend::start) says so.

use std::{
    fs::OpenOptions,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Backend, Description, Endpoint, Error, Evidence, Exit, ExitReason, Guest, GuestConfig, Identity, Process,
    Progress, Result, Stage, Step, Transport, read_tail,
    record::{Record, remove},
};

/// How long the agent may take until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// A log that is larger is moved aside at the next start.
const LOG_LIMIT: u64 = 4 << 20;
/// How much of the log goes into messages.
const LOG_TAIL: u64 = 4 << 10;

/// Where the native backend's things are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The agent's program.
    pub agent: PathBuf,
    /// State directory of the engine.
    pub root: PathBuf,
    /// Docker API socket of the engine itself.
    pub api_socket: PathBuf,
    /// Where the agent listens for the link's streams.
    pub link: PathBuf,
    /// Where the daemon listens for the link's streams.
    pub host: PathBuf,
    /// What the agent says.
    pub log: PathBuf,
    /// What is known of the running process.
    pub record: PathBuf,
}

/// The native backend.
#[derive(Debug)]
pub struct Native {
    files: Files,
}

impl Native {
    /// Makes a backend with its things at `files`.
    pub fn new(files: Files) -> Self {
        Self { files }
    }

    fn command(&self, config: &GuestConfig) -> Command {
        let files = &self.files;
        let mut command = Command::new(&files.agent);
        command.arg("serve").arg("--root").arg(&files.root).arg("--socket").arg(&files.api_socket);
        command.arg("--link").arg(&files.link).arg("--host-link").arg(&files.host);
        command.arg("--publish-ip").arg(config.publish_ip.to_string());
        for pool in &config.address_pools {
            command.arg("--default-address-pool").arg(pool);
        }
        for mirror in &config.registry_mirrors {
            command.arg("--registry-mirror").arg(mirror);
        }
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&self, config: &GuestConfig) -> Result<Process> {
        let log = &self.files.log;
        let failed = |source| Error::File { op: "open", path: log.clone(), source };
        if std::fs::metadata(log).is_ok_and(|m| m.len() > LOG_LIMIT) {
            std::fs::rename(log, log.with_extension("log.1")).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let mut command = self.command(config);
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(failed)?).stderr(file);
        Process::spawn(&mut command)
            .map_err(|source| Error::Spawn { program: self.files.agent.clone(), source })
    }

    fn guest(&self, process: Process, adopted: bool) -> NativeGuest {
        NativeGuest { process, files: self.files.clone(), adopted, stopping: AtomicBool::new(false) }
    }

    async fn reachable(&self) -> bool {
        Endpoint::Unix(self.files.link.clone()).connect().await.is_ok()
    }
}

/// Ends a process whose start did not come to its end.
struct Unfinished<'a> {
    process: Option<Process>,
    files: &'a Files,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            // Asked, not forced: it may have containers to end already.
            process.terminate();
            remove(&self.files.record);
        }
    }
}

#[async_trait]
impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    async fn start(&self, config: &GuestConfig, progress: Progress<'_>) -> Result<Box<dyn Guest>> {
        if !cfg!(target_os = "linux") {
            return Err(Error::Unsupported { what: "the native backend" });
        }
        progress(Step::StartingProcess { accelerator: None });
        remove(&self.files.link);
        let mut unfinished = Unfinished { process: Some(self.spawn(config)?), files: &self.files };
        let process = unfinished.process.as_ref().expect("just put there");
        tracing::info!(pid = process.pid(), "agent started");
        if let Some(identity) = Identity::of(process.pid()) {
            let record = Record {
                process: identity,
                accelerator: None,
                accelerator_note: None,
                monitor: None,
                console: None,
                link: Endpoint::Unix(self.files.link.clone()),
                key: None,
                waking: false,
            };
            record.save(&self.files.record).map_err(|source| Error::File {
                op: "write",
                path: self.files.record.clone(),
                source,
            })?;
        }
        progress(Step::WaitingForGuest);
        let ready = async {
            while !self.reachable().await {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let evidence =
            || Box::new(Evidence { console: String::new(), stderr: read_tail(&self.files.log, LOG_TAIL) });
        let stage = Stage::Socket;
        tokio::select! {
            () = ready => {}
            status = process.wait() => {
                return Err(Error::Ended { stage, status: status.to_string(), evidence: evidence() });
            }
            () = tokio::time::sleep(READY_DEADLINE) => {
                return Err(Error::Deadline {
                    stage,
                    after: READY_DEADLINE,
                    accelerator: None,
                    evidence: evidence(),
                });
            }
        }
        progress(Step::GuestAlive);
        let process = unfinished.process.take().expect("taken only here");
        Ok(Box::new(self.guest(process, false)))
    }

    async fn adopt(&self) -> Result<Option<Box<dyn Guest>>> {
        let Some(record) = Record::load(&self.files.record) else { return Ok(None) };
        let Some(process) = Process::adopt(&record.process) else {
            remove(&self.files.record);
            return Ok(None);
        };
        // Killed while starting, it may not listen yet.
        for _ in 0..50 {
            if self.reachable().await {
                tracing::info!(pid = process.pid(), "running agent found");
                return Ok(Some(Box::new(self.guest(process, true))));
            }
            if process.wait_for(Duration::from_millis(100)).await.is_some() {
                break;
            }
        }
        self.guest(process, true).stop(Duration::from_secs(10)).await?;
        Ok(None)
    }
}

struct NativeGuest {
    process: Process,
    files: Files,
    adopted: bool,
    stopping: AtomicBool,
}

#[async_trait]
impl Guest for NativeGuest {
    fn description(&self) -> Description {
        Description {
            backend: "native".to_owned(),
            accelerator: None,
            accelerator_note: None,
            pid: self.process.pid(),
            version: None,
            adopted: self.adopted,
        }
    }

    async fn open_transport(&self) -> Result<Transport> {
        Ok(Transport::Unix { listen: self.files.host.clone(), peer: self.files.link.clone() })
    }

    async fn wait(&self) -> Exit {
        let status = self.process.wait().await;
        let reason =
            if self.stopping.load(Ordering::Relaxed) { ExitReason::Stopped } else { ExitReason::Died };
        Exit { reason, status: status.to_string(), tail: self.console_tail() }
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.process.terminate();
        if self.process.wait_for(grace).await.is_none() {
            tracing::warn!(pid = self.process.pid(), "agent does not end, ending it by force");
            self.process.kill();
            if self.process.wait_for(Duration::from_secs(10)).await.is_none() {
                return Err(Error::Stuck { pid: self.process.pid() });
            }
        }
        for path in [&self.files.link, &self.files.api_socket, &self.files.record] {
            remove(path);
        }
        Ok(())
    }

    fn console_tail(&self) -> String {
        read_tail(&self.files.log, LOG_TAIL)
    }
}
