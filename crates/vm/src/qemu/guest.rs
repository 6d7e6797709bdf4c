//! A guest that runs in QEMU.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use super::{Files, message::Event, migrate, qmp::Qmp};
use crate::{
    Console, Description, Endpoint, Error, Exit, ExitReason, Guest, Key, Process, Result, Stage, Transport,
    read_tail, record::Record,
};

/// How long a monitor of a running QEMU may take to greet.
const ADOPT_DEADLINE: Duration = Duration::from_secs(3);
/// QEMU's words for a guest that stood still for saving.
const HALTED: [&str; 3] = ["paused", "finish-migrate", "postmigrate"];
/// How long the last bytes of a dead process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(300);

pub(super) struct QemuGuest {
    process: Process,
    qmp: Arc<Qmp>,
    console: Console,
    link: Endpoint,
    files: Files,
    description: Description,
    reason: Arc<Mutex<Option<ExitReason>>>,
    record: Mutex<Record>,
    halted: AtomicBool,
}

/// How a guest came to us.
pub(super) struct Found {
    pub(super) adopted: bool,
    pub(super) halted: bool,
}

impl QemuGuest {
    pub(super) fn new(
        process: Process,
        qmp: Arc<Qmp>,
        console: Console,
        record: Record,
        files: &Files,
        version: &str,
        found: Found,
    ) -> Self {
        let reason = Arc::default();
        tokio::spawn(watch_shutdown(qmp.events(), Arc::clone(&reason)));
        let description = Description {
            backend: "qemu".to_owned(),
            accelerator: record.accelerator,
            accelerator_note: record.accelerator_note.clone(),
            pid: process.pid(),
            version: Some(version.to_owned()),
            adopted: found.adopted,
        };
        Self {
            process,
            qmp,
            console,
            link: record.link.clone(),
            files: files.clone(),
            description,
            reason,
            record: Mutex::new(record),
            halted: AtomicBool::new(found.halted),
        }
    }

    /// Takes over a running QEMU.
    pub(super) async fn adopt(process: Process, record: &Record, files: &Files) -> Result<Self> {
        let deadline = || Error::Deadline {
            stage: Stage::Monitor,
            after: ADOPT_DEADLINE,
            accelerator: record.accelerator,
            evidence: Box::default(),
        };
        let connect = |endpoint: &Option<Endpoint>| {
            let endpoint = endpoint.clone();
            async move {
                let endpoint = endpoint.ok_or(io::ErrorKind::NotFound)?;
                Ok::<_, io::Error>(endpoint.connect().await?.0)
            }
        };
        let failed =
            |source: io::Error| Error::File { op: "connect to", path: files.monitor.clone(), source };
        let greet = async {
            let stream = connect(&record.monitor).await.map_err(failed)?;
            Qmp::connect(stream)
                .await
                .map_err(|source| Error::Monitor { command: "qmp_capabilities", source })
        };
        let qmp = tokio::time::timeout(ADOPT_DEADLINE, greet).await.map_err(|_| deadline())??;
        let halted = match run_state(&qmp).await?.as_str() {
            "running" => false,
            // Whoever was to save it died.
            state if HALTED.contains(&state) && !record.waking => true,
            // Its starter died before it let the processor loose, or it waits to be thrown away.
            _ => return Err(Error::Unsupported { what: "a guest that is not running" }),
        };
        let stream = connect(&record.console).await.map_err(failed)?;
        let console = Console::start(stream, &files.console_log).map_err(|source| Error::File {
            op: "write",
            path: files.console_log.clone(),
            source,
        })?;
        let version = qmp.version().to_owned();
        tracing::info!(pid = process.pid(), "running virtual machine found");
        let found = Found { adopted: true, halted };
        Ok(Self::new(process, Arc::new(qmp), console, record.clone(), files, &version, found))
    }

    fn set_reason(&self, reason: ExitReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

async fn run_state(qmp: &Qmp) -> Result<String> {
    let failed = |source| Error::Monitor { command: "query-status", source };
    let answer = qmp.execute("query-status", Value::Null).await.map_err(failed)?;
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

/// Makes an empty file that nobody else may read: it will hold the guest's memory.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Keeps the reason of the shutdown, which QEMU tells before it ends.
async fn watch_shutdown(mut events: broadcast::Receiver<Event>, reason: Arc<Mutex<Option<ExitReason>>>) {
    loop {
        match events.recv().await {
            Ok(event) if event.name == "SHUTDOWN" => {
                let found = match event.data["reason"].as_str() {
                    Some("guest-shutdown") => ExitReason::Shutdown,
                    Some("guest-reset" | "guest-panic") => ExitReason::Reset,
                    _ => ExitReason::Stopped,
                };
                reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

#[async_trait]
impl Guest for QemuGuest {
    fn description(&self) -> Description {
        self.description.clone()
    }

    async fn open_transport(&self) -> Result<Transport> {
        match self.link.connect().await {
            Ok((stream, _)) => Ok(Transport::Stream(stream)),
            Err(source) => Err(Error::File { op: "connect to", path: self.files.link.clone(), source }),
        }
    }

    async fn wait(&self) -> Exit {
        let status = self.process.wait().await;
        // Both ends are read to their end first, so that nothing said is missed.
        let _ = tokio::time::timeout(LAST_WORDS, async {
            self.qmp.closed().await;
            self.console.ended().await;
        })
        .await;
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(ExitReason::Died);
        let mut tail = self.console.tail();
        tail.push_str(&read_tail(&self.files.stderr_log, 2 << 10));
        Exit { reason, status: status.to_string(), tail }
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        if self.process.exit().is_none() {
            self.set_reason(ExitReason::Stopped);
            // An error means that it is ending or hangs; the next lines deal with both.
            let _ = tokio::time::timeout(grace, self.qmp.execute("quit", Value::Null)).await;
            if self.process.wait_for(grace).await.is_none() {
                tracing::warn!(pid = self.process.pid(), "virtual machine does not quit, ending it by force");
                self.process.kill();
            }
            if self.process.wait_for(Duration::from_secs(10)).await.is_none() {
                return Err(Error::Stuck { pid: self.process.pid() });
            }
        }
        self.files.clean(None);
        Ok(())
    }

    fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    async fn save(&self, path: &Path) -> Result<Key> {
        let key = self.record.lock().unwrap_or_else(PoisonError::into_inner).key.clone();
        let key = key.ok_or(Error::Unsupported { what: "saving a guest that an older version started" })?;
        let failed = |source| Error::File { op: "write", path: path.to_owned(), source };
        create_private(path).map_err(failed)?;
        self.halted.store(true, Ordering::Relaxed);
        migrate::run(&self.qmp, "stop", Value::Null).await?;
        // QEMU has flushed the disk and lets go of it.
        migrate::save(&self.qmp, path).await?;
        Ok(key)
    }

    async fn resume(&self) -> Result<()> {
        migrate::call_off(&self.qmp).await?;
        migrate::run(&self.qmp, "cont", Value::Null).await?;
        self.halted.store(false, Ordering::Relaxed);
        let record = {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut record.waking, false).then(|| record.clone())
        };
        if let Some(record) = record
            && let Err(error) = record.save(&self.files.record)
        {
            // Whoever finds it while it is being saved will end it, and it boots then.
            tracing::warn!(%error, "record of the guest is not written");
        }
        Ok(())
    }

    fn console_tail(&self) -> String {
        self.console.tail()
    }
}
