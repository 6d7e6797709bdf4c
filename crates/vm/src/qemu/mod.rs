//! QEMU: boots the guest image, by hardware where that really works, else by translation.
//!
//! QEMU starts paused. Its monitor (QMP) is greeted, console and then the processor are let loose, and the guest must
//! show a first sign of life: a console byte, or the opening of the link's port. Each stage has a deadline of its
//! own, so that an accelerator that spins for ever costs seconds, once (see [`verdict`]).
//!
//! QEMU runs in a process group of its own and survives this process; [`Qemu::adopt`] finds it again.

pub mod args;
mod boot;
mod guest;
mod host;
pub mod message;
mod migrate;
pub mod qmp;
pub mod verdict;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

pub use self::host::find_program;
use self::{
    args::{Arch, Sandbox},
    boot::Attempt,
    guest::QemuGuest,
    verdict::{HostFacts, Verdict},
};
use crate::{
    Accelerator, Backend, Endpoint, Error, Guest, GuestConfig, Identity, Process, Progress, Restore, Result,
    Step,
    record::{Record, remove},
};

/// Where QEMU's files are.
#[derive(Debug, Clone)]
pub struct Files {
    /// Socket of the monitor.
    pub monitor: PathBuf,
    /// Socket of the console.
    pub console: PathBuf,
    /// Socket of the link's port.
    pub link: PathBuf,
    /// What the console said.
    pub console_log: PathBuf,
    /// What QEMU itself said.
    pub stderr_log: PathBuf,
    /// The remembered [`Verdict`].
    pub verdict: PathBuf,
    /// What is known of the running process.
    pub record: PathBuf,
}

/// How long each stage of the start may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From process start to the monitor's greeting.
    pub monitor: Duration,
    /// From there to the first sign of life, when the processor runs the guest.
    pub first_sign_hardware: Duration,
    /// The same when QEMU translates, on a machine that may be busy.
    pub first_sign_translated: Duration,
    /// From the greeting until a saved guest has been read.
    pub loaded: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            monitor: Duration::from_secs(15),
            first_sign_hardware: Duration::from_secs(4),
            first_sign_translated: Duration::from_secs(90),
            loaded: Duration::from_secs(60),
        }
    }
}

/// The QEMU backend.
#[derive(Debug)]
pub struct Qemu {
    program: Option<PathBuf>,
    files: Files,
    deadlines: Deadlines,
    accelerator: Option<Accelerator>,
    /// Virtual CPUs of a hardware-run guest when the settings name no number.
    default_cpus: u32,
    sandbox: Mutex<Sandbox>,
}

impl Qemu {
    /// Makes a backend that keeps its files at `files` and finds QEMU in `PATH`.
    pub fn new(files: Files) -> Self {
        let default_cpus = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        Self {
            program: None,
            files,
            deadlines: Deadlines::default(),
            accelerator: None,
            default_cpus: u32::try_from(default_cpus).unwrap_or(1),
            sandbox: Mutex::new(if cfg!(target_os = "linux") { Sandbox::On } else { Sandbox::Off }),
        }
    }

    /// Uses this program instead of the one in `PATH`.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Changes the deadlines.
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Tries this accelerator alone, whatever is known about it.
    #[must_use]
    pub fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = Some(accelerator);
        self
    }

    fn find(&self) -> Result<PathBuf> {
        match &self.program {
            Some(program) => Ok(program.clone()),
            None => find_program(Arch::host().program()),
        }
    }

    fn sandbox(&self) -> Sandbox {
        *self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(
        &self,
        program: &Path,
        facts: &HostFacts,
        config: &GuestConfig,
        accelerator: Accelerator,
        note: Option<String>,
        progress: Progress<'_>,
    ) -> Result<QemuGuest> {
        loop {
            let sandbox = self.sandbox();
            let attempt = Attempt {
                program,
                version: &facts.qemu,
                facts,
                config,
                accelerator,
                note: note.clone(),
                files: &self.files,
                deadlines: self.deadlines,
                default_cpus: self.default_cpus,
                sandbox,
            };
            progress(Step::StartingProcess { accelerator: Some(accelerator) });
            match attempt.boot(progress).await {
                // Builds without seccomp refuse the option by name.
                Err(Error::Ended { evidence, .. })
                    if sandbox == Sandbox::On && evidence.stderr.contains("sandbox") =>
                {
                    tracing::warn!("this QEMU cannot confine itself");
                    *self.sandbox.lock().unwrap_or_else(PoisonError::into_inner) = Sandbox::Off;
                }
                result => return result,
            }
        }
    }

    fn remember(&self, verdict: &Verdict) {
        if let Err(error) = verdict.save(&self.files.verdict) {
            tracing::warn!(%error, path = %self.files.verdict.display(), "verdict is not remembered");
        }
    }

    /// Ends a process of an earlier run that is of no use.
    async fn end(&self, identity: &Identity) -> Result<()> {
        if let Some(process) = Process::adopt(identity) {
            tracing::warn!(pid = identity.pid, "ending a guest that cannot be used any more");
            process.kill();
            if process.wait_for(Duration::from_secs(10)).await.is_none() {
                return Err(Error::Stuck { pid: identity.pid });
            }
        }
        Ok(())
    }

    /// Finds a QEMU that was started but not yet written down when its starter died.
    async fn unrecorded(&self) -> Option<Identity> {
        let (_stream, pid) = Endpoint::Unix(self.files.monitor.clone()).connect().await.ok()?;
        Identity::of(pid?)
    }
}

#[async_trait]
impl Backend for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn cannot_save(&self) -> Option<&'static str> {
        None
    }

    async fn start(&self, config: &GuestConfig, progress: Progress<'_>) -> Result<Box<dyn Guest>> {
        let program = self.find()?;
        let probed = program.clone();
        let version = tokio::task::spawn_blocking(move || host::program_version(&probed))
            .await
            .unwrap_or_else(|_| Ok(String::new()))?;
        let facts = host::facts(&version);
        let plan = match self.accelerator {
            Some(accelerator) => verdict::Plan { attempts: vec![accelerator], note: None },
            None => {
                let plan = verdict::plan(
                    host::hardware(),
                    Verdict::load(&self.files.verdict).as_ref(),
                    &facts,
                    config.retry_accelerator,
                );
                match &config.restore {
                    None => plan,
                    // A boot would be a better start than this.
                    Some(Restore { template: true, key, .. })
                        if plan.attempts.first() != Some(&key.accelerator) =>
                    {
                        return Err(Error::Changed { what: "the accelerator" });
                    }
                    Some(Restore { template: true, key, .. }) => {
                        verdict::Plan { attempts: vec![key.accelerator], note: plan.note }
                    }
                    // It slept as it ran.
                    Some(restore) => verdict::Plan { attempts: vec![restore.key.accelerator], note: None },
                }
            }
        };
        let mut note = plan.note;
        let mut failed = None;
        let last = plan.attempts.len() - 1;
        for (index, accelerator) in plan.attempts.into_iter().enumerate() {
            match self.attempt(&program, &facts, config, accelerator, note.clone(), progress).await {
                Ok(guest) => {
                    // Only now is it known that the accelerator was at fault, not the image.
                    if config.restore.is_some() {
                        // It shows nothing about booting.
                    } else if let Some((accelerator, reason)) = failed {
                        self.remember(&Verdict::new(accelerator, Some(reason), facts));
                    } else if accelerator.is_hardware() {
                        self.remember(&Verdict::new(accelerator, None, facts));
                    }
                    return Ok(Box::new(guest));
                }
                Err(error @ (Error::Deadline { .. } | Error::Ended { .. } | Error::Monitor { .. }))
                    if index < last =>
                {
                    let reason = error.to_string();
                    tracing::warn!(%error, "accelerator does not run the guest");
                    progress(Step::AcceleratorFailed { accelerator, reason: reason.clone() });
                    note = Some(format!("{accelerator} does not run guests here: {reason}"));
                    failed = Some((accelerator, reason));
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("a plan has a last attempt, and that one returns")
    }

    async fn adopt(&self) -> Result<Option<Box<dyn Guest>>> {
        let Some(record) = Record::load(&self.files.record) else {
            if let Some(identity) = self.unrecorded().await {
                self.end(&identity).await?;
            }
            self.files.clean(None);
            return Ok(None);
        };
        let Some(process) = Process::adopt(&record.process) else {
            self.files.clean(Some(&record));
            return Ok(None);
        };
        match QemuGuest::adopt(process, &record, &self.files).await {
            Ok(guest) => Ok(Some(Box::new(guest))),
            Err(error) => {
                tracing::warn!(%error, pid = record.process.pid, "running guest is of no use");
                self.end(&record.process).await?;
                self.files.clean(Some(&record));
                Ok(None)
            }
        }
    }
}

impl Files {
    /// Removes what a guest leaves on the host, except logs and the verdict.
    fn clean(&self, record: Option<&Record>) {
        if record.is_none_or(|r| matches!(r.link, Endpoint::Unix(_))) {
            for path in [&self.monitor, &self.console, &self.link] {
                remove(path);
            }
        }
        remove(&self.record);
    }

    /// Chooses where the channels of a new guest are.
    fn endpoints(&self) -> std::io::Result<[Endpoint; 3]> {
        if cfg!(unix) {
            return Ok([&self.monitor, &self.console, &self.link].map(|path| Endpoint::Unix(path.clone())));
        }
        // QEMU takes no ready socket here: let the system choose ports, all held until all are chosen.
        let bind = || std::net::TcpListener::bind(("127.0.0.1", 0));
        let held = [bind()?, bind()?, bind()?];
        let [a, b, c] = &held;
        Ok([Endpoint::Tcp(a.local_addr()?), Endpoint::Tcp(b.local_addr()?), Endpoint::Tcp(c.local_addr()?)])
    }
}
