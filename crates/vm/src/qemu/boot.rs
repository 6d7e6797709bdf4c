//! One attempt to boot, stage by stage.

use std::{
    fs::{File, OpenOptions},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::broadcast, time::Instant};

use super::{
    Deadlines, Files,
    args::{Arch, LINK_PORT, Machine, Sandbox},
    guest::{Found, QemuGuest},
    host,
    message::Event,
    migrate,
    qmp::Qmp,
    verdict::HostFacts,
};
use crate::{
    Accelerator, Console, Endpoint, Error, Evidence, GuestConfig, Identity, Key, Process, Progress, Result,
    Stage, Step, read_tail, record::Record,
};

/// How often a socket that is not there yet is tried.
const POLL: Duration = Duration::from_millis(3);
/// How much of QEMU's own output goes into messages.
const STDERR_TAIL: u64 = 2 << 10;

/// What one attempt needs.
pub(super) struct Attempt<'a> {
    pub(super) program: &'a Path,
    pub(super) version: &'a str,
    pub(super) facts: &'a HostFacts,
    pub(super) config: &'a GuestConfig,
    pub(super) accelerator: Accelerator,
    pub(super) note: Option<String>,
    pub(super) files: &'a Files,
    pub(super) deadlines: Deadlines,
    pub(super) default_cpus: u32,
    pub(super) sandbox: Sandbox,
}

/// Ends a process whose start did not come to its end, whether by an error or because nobody waits any more.
struct Unfinished<'a> {
    process: Option<Process>,
    files: &'a Files,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.kill();
            // The few milliseconds that a kill takes: whoever starts again at once needs the disk's lock.
            for _ in 0..200 {
                if process.exit().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            self.files.clean(None);
        }
    }
}

impl Attempt<'_> {
    pub(super) async fn boot(&self, progress: Progress<'_>) -> Result<QemuGuest> {
        let [monitor, console, link] = self.files.endpoints().map_err(|source| Error::File {
            op: "choose a port for",
            path: self.files.link.clone(),
            source,
        })?;
        for endpoint in [&monitor, &console, &link] {
            endpoint.remove();
        }
        let machine = Machine {
            arch: Arch::host(),
            accelerator: self.accelerator,
            name: &self.config.name,
            cpus: self.cpus(),
            memory_mib: self.config.memory_mib,
            kernel: &self.config.kernel,
            initramfs: &self.config.initramfs,
            cmdline: &self.config.cmdline,
            registry_mirrors: &self.config.registry_mirrors,
            disk: &self.config.disk,
            monitor: &monitor,
            console: &console,
            link: &link,
            tsc_khz: host::tsc_khz(),
            sandbox: self.sandbox,
            incoming: self.config.restore.is_some(),
        };
        let key = self.key(&machine);
        if let Some(restore) = &self.config.restore
            && let Some(what) = restore.key.difference(&key)
        {
            return Err(Error::Changed { what });
        }
        let mut unfinished = Unfinished { process: Some(self.spawn(&machine)?), files: self.files };
        let process = unfinished.process.as_ref().expect("just put there");
        let record = Record {
            process: Identity::of(process.pid()).unwrap_or(Identity {
                // It ended already; the record then names nobody, and the next stage tells how it ended.
                pid: process.pid(),
                started: String::new(),
                boot: String::new(),
            }),
            accelerator: Some(self.accelerator),
            accelerator_note: self.note.clone(),
            monitor: Some(monitor.clone()),
            console: Some(console.clone()),
            link,
            key: Some(key),
            waking: self.config.restore.is_some(),
        };
        record.save(&self.files.record).map_err(|source| Error::File {
            op: "write",
            path: self.files.record.clone(),
            source,
        })?;

        let result = self.stages(process, &monitor, &console, progress).await;
        let (qmp, console) = match result {
            Ok(parts) => parts,
            Err(error) => {
                // Gone for good before anybody tries again with the same disk.
                process.kill();
                process.wait_for(Duration::from_secs(5)).await;
                return Err(error);
            }
        };
        let process = unfinished.process.take().expect("taken only here");
        let halted = record.waking;
        Ok(QemuGuest::new(
            process,
            qmp,
            console,
            record,
            self.files,
            self.version,
            Found { adopted: false, halted },
        ))
    }

    /// What a guest that is saved depends on.
    fn key(&self, machine: &Machine<'_>) -> Key {
        let arguments = machine.lasting_arguments();
        Key {
            accelerator: self.accelerator,
            host: self.facts.clone(),
            program: host::file_identity(self.program),
            image: self.config.image_id.clone(),
            arguments: arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        }
    }

    fn cpus(&self) -> u32 {
        // A translated guest boots faster with one processor, and gains little from a second.
        let default = if self.accelerator.is_hardware() { self.default_cpus } else { 1 };
        self.config.cpus.unwrap_or(default).max(1)
    }

    fn spawn(&self, machine: &Machine<'_>) -> Result<Process> {
        let log = |truncate: bool| -> std::io::Result<File> {
            OpenOptions::new()
                .create(true)
                .append(!truncate)
                .write(true)
                .truncate(truncate)
                .open(&self.files.stderr_log)
        };
        let open = |truncate| {
            log(truncate).map_err(|source| Error::File {
                op: "open",
                path: self.files.stderr_log.clone(),
                source,
            })
        };
        drop(open(true)?);
        let mut command = Command::new(self.program);
        command.args(machine.arguments()).stdin(Stdio::null()).stdout(open(false)?).stderr(open(false)?);
        let process = Process::spawn(&mut command)
            .map_err(|source| Error::Spawn { program: self.program.to_owned(), source })?;
        tracing::info!(pid = process.pid(), accelerator = %self.accelerator, "virtual machine started");
        Ok(process)
    }

    async fn stages(
        &self,
        process: &Process,
        monitor: &Endpoint,
        console: &Endpoint,
        progress: Progress<'_>,
    ) -> Result<(Arc<Qmp>, Console)> {
        let greeted = async {
            loop {
                if let Ok((stream, _)) = monitor.connect().await
                    && let Ok(qmp) = Qmp::connect(stream).await
                {
                    return qmp;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let qmp = self.stage(Stage::Monitor, self.deadlines.monitor, process, None, greeted).await?;
        let (stream, _) = console.connect().await.map_err(|source| Error::File {
            op: "connect to",
            path: self.files.console.clone(),
            source,
        })?;
        let console = Console::start(stream, &self.files.console_log).map_err(|source| Error::File {
            op: "write",
            path: self.files.console_log.clone(),
            source,
        })?;
        if let Some(restore) = &self.config.restore {
            progress(Step::Loading);
            let load = migrate::load(&qmp, &restore.path);
            self.stage(Stage::Loaded, self.deadlines.loaded, process, Some(&console), load).await??;
            return Ok((Arc::new(qmp), console));
        }
        let events = qmp.events();
        qmp.execute("cont", Value::Null)
            .await
            .map_err(|source| Error::Monitor { command: "cont", source })?;
        progress(Step::WaitingForGuest);
        let sign = async {
            tokio::select! {
                () = console.first_byte() => {}
                () = link_port_opened(events) => {}
            }
        };
        let limit = if self.accelerator.is_hardware() {
            self.deadlines.first_sign_hardware
        } else {
            self.deadlines.first_sign_translated
        };
        self.stage(Stage::FirstSign, limit, process, Some(&console), sign).await?;
        progress(Step::GuestAlive);
        Ok((Arc::new(qmp), console))
    }

    /// Waits for one stage, for the process's end, or for the deadline, whichever is first.
    async fn stage<T>(
        &self,
        stage: Stage,
        limit: Duration,
        process: &Process,
        console: Option<&Console>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let started = Instant::now();
        tokio::select! {
            value = work => {
                tracing::debug!(elapsed_ms = started.elapsed().as_millis() as u64, ?stage, "stage reached");
                Ok(value)
            }
            status = process.wait() => {
                Err(Error::Ended { stage, status: status.to_string(), evidence: self.evidence(console) })
            }
            () = tokio::time::sleep(limit) => {
                let accelerator = Some(self.accelerator);
                Err(Error::Deadline { stage, after: limit, accelerator, evidence: self.evidence(console) })
            }
        }
    }

    fn evidence(&self, console: Option<&Console>) -> Box<Evidence> {
        Box::new(Evidence {
            console: console.map(Console::tail).unwrap_or_default(),
            stderr: read_tail(&self.files.stderr_log, STDERR_TAIL),
        })
    }
}

/// Waits until the guest has opened the link's port; pends for ever if the monitor hangs up.
async fn link_port_opened(mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) if event.name == "VSERPORT_CHANGE" && event.data["open"] == true => {
                // There is one port only; its name tells nothing more.
                tracing::debug!(port = LINK_PORT, "guest opened the port");
                return;
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
