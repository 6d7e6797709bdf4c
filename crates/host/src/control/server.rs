//! The daemon's side of the control socket.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use skiff_link::{Args, BoxStream, StreamHeader, copy_both};
use skiff_machine::{DiskSize, Error as MachineError, Machine, Phase, host_memory_mib};
use skiff_settings::{IdleAction, Paths, Settings};
use tokio::sync::{Notify, Semaphore, broadcast};

use super::{
    Configuration, DaemonStatus, Event, Failure, GuestStatus, LogSource, MachineState, MachineStatus,
    Progress, Request, Status, Version,
    configuration::InForce,
    logs,
    wire::{LineReader, write},
};
use crate::{diagnose, doctor, explain::Explain, listen::Listener, proxy::failure};

/// Connections at once; more wait in the socket's queue.
const CONNECTIONS: usize = 256;
/// How long a client may take to send its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a report in one message.
const PIECE: usize = 32 << 10;

/// What the control socket tells and steers.
pub(crate) struct Server {
    pub(crate) machine: Machine,
    pub(crate) paths: Paths,
    pub(crate) docker_socket: PathBuf,
    pub(crate) image_version: Option<String>,
    pub(crate) explain: Explain,
    pub(crate) settings: InForce,
    pub(crate) started: Instant,
    /// Told when a client wants the daemon to end.
    pub(crate) shutdown: Arc<Notify>,
}

/// Serves the control socket until dropped.
pub(crate) async fn serve(listener: Listener, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok(client) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = server.connection(client).await {
                        tracing::debug!(%error, "control connection broke");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Server {
    async fn connection(&self, mut client: BoxStream) -> io::Result<()> {
        let mut lines = LineReader::default();
        let request = match tokio::time::timeout(REQUEST_DEADLINE, lines.read::<Request>(&mut client)).await {
            Ok(Ok(Some(request))) => request,
            // Somebody only looked whether we are here.
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                let message = format!("the request makes no sense: {error}");
                let failure = Failure { message, hint: None, detail: None };
                return write(&mut client, &Event::Error(failure)).await;
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        tracing::debug!(op = ?request, "control request");
        let result = match request {
            Request::Version {} => {
                write(&mut client, &Event::Version(self.version())).await?;
                Ok(())
            }
            Request::Status {} => {
                let status = self.status().await;
                write(&mut client, &Event::Status(Box::new(status))).await?;
                Ok(())
            }
            Request::Start { retry_accelerator } => {
                self.watched(&mut client, self.machine.start(retry_accelerator)).await?
            }
            Request::Stop {} => self.watched(&mut client, self.machine.stop()).await?,
            Request::Suspend {} => self.watched(&mut client, self.machine.suspend()).await?,
            Request::Prune {} => self.machine.prune().await.map_err(|error| failure(&error)),
            Request::Restart { retry_accelerator } => {
                let restart = async {
                    self.machine.stop().await?;
                    self.machine.start(retry_accelerator).await
                };
                self.watched(&mut client, restart).await?
            }
            Request::Shell {} => return self.shell(client).await,
            Request::Engine {} => return self.engine(client).await,
            Request::Logs { source, tail, follow } => {
                let path = match source {
                    LogSource::Daemon => self.paths.daemon_log(),
                    LogSource::Console => self.paths.console_log(),
                };
                logs::send(&mut client, &path, tail, follow).await?;
                Ok(())
            }
            Request::Port { port } => {
                for finding in self.explain.port(port).await {
                    write(&mut client, &Event::Finding(finding)).await?;
                }
                Ok(())
            }
            Request::Network {} => {
                for finding in self.explain.network().await {
                    write(&mut client, &Event::Finding(finding)).await?;
                }
                Ok(())
            }
            Request::Doctor {} => {
                for finding in doctor::check(&self.paths).await {
                    write(&mut client, &Event::Finding(finding)).await?;
                }
                Ok(())
            }
            Request::Settings {} => configured(&mut client, self.settings.configuration()).await?,
            Request::Configure { settings } => {
                configured(&mut client, self.settings.configure(&settings)).await?
            }
            Request::Reclaim {} => self.reclaim(&mut client).await?,
            Request::Diagnose {} => {
                for part in diagnose::report(&self.paths).await {
                    let mut rest = part.text.as_str();
                    while !rest.is_empty() {
                        let (piece, more) = rest.split_at(rest.floor_char_boundary(PIECE));
                        let event = Event::Report { name: part.name.to_owned(), text: piece.to_owned() };
                        write(&mut client, &event).await?;
                        rest = more;
                    }
                }
                Ok(())
            }
            Request::Shutdown {} => {
                let result = self.watched(&mut client, self.machine.stop()).await?;
                self.shutdown.notify_one();
                result
            }
        };
        write(&mut client, &last(result)).await
    }

    /// Sends the steps of a start or stop while it is under way.
    async fn watched<T>(
        &self,
        client: &mut BoxStream,
        work: impl Future<Output = Result<T, Arc<MachineError>>>,
    ) -> io::Result<Result<T, Failure>> {
        let mut progress = self.machine.progress();
        // Whoever comes late hears at least where a start is.
        if self.machine.snapshot().phase == Phase::Starting
            && let Some(step) = self.machine.snapshot().progress
        {
            write(client, &step_event(step)).await?;
        }
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                step = progress.recv() => match step {
                    Ok(step) => write(client, &step_event(step)).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break work.await,
                },
                result = &mut work => break result,
            }
        };
        while let Ok(step) = progress.try_recv() {
            write(client, &step_event(step)).await?;
        }
        Ok(result.map_err(|error| failure(&error)))
    }

    async fn reclaim(&self, client: &mut BoxStream) -> io::Result<Result<(), Failure>> {
        let refuse =
            |message: &str| Ok(Err(Failure { message: message.to_owned(), hint: None, detail: None }));
        let size = || DiskSize::of(&self.paths.disk()).map_or(0, |disk| disk.used);
        if self.image_version.is_none() {
            return refuse("an engine on this computer has no disk of its own");
        }
        let before = size();
        match self.machine.reclaim().await {
            Ok(()) => {
                let bytes = before.saturating_sub(size());
                write(client, &Event::Reclaimed { bytes }).await?;
                Ok(Ok(()))
            }
            Err(_) if self.machine.running_link().is_none() => {
                refuse("the guest does not run, and its disk is as small as it can be without it")
            }
            Err(error) => Ok(Err(Failure::new(&error))),
        }
    }

    async fn shell(&self, mut client: BoxStream) -> io::Result<()> {
        let lease = match self.watched(&mut client, self.machine.lease()).await? {
            Ok(lease) => lease,
            Err(failure) => return write(&mut client, &Event::Error(failure)).await,
        };
        match lease.open(&StreamHeader { args: Args::Shell {} }).await {
            Ok(guest) => {
                write(&mut client, &Event::Done {}).await?;
                copy_both(client, guest).await?;
                Ok(())
            }
            Err(error) => write(&mut client, &Event::Error(Failure::new(&error))).await,
        }
    }

    /// A stream without a lease, as the daemon's own looks at containers are.
    async fn engine(&self, mut client: BoxStream) -> io::Result<()> {
        let Some(link) = self.machine.running_link() else {
            write(&mut client, &Event::Asleep {}).await?;
            return write(&mut client, &Event::Done {}).await;
        };
        match link.open(&StreamHeader { args: Args::Api {} }).await {
            Ok(engine) => {
                write(&mut client, &Event::Done {}).await?;
                copy_both(client, engine).await?;
                Ok(())
            }
            Err(error) => write(&mut client, &Event::Error(Failure::new(&error))).await,
        }
    }

    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            docker_socket: self.docker_socket.clone(),
        }
    }

    async fn status(&self) -> Status {
        let Version { version, pid, docker_socket } = self.version();
        let daemon = DaemonStatus {
            version,
            pid,
            uptime_seconds: self.started.elapsed().as_secs(),
            docker_socket,
            state_dir: self.paths.state().to_owned(),
            log: self.paths.daemon_log(),
        };
        Status { daemon, machine: self.machine_status().await }
    }

    async fn machine_status(&self) -> MachineStatus {
        let settings = Settings::load(&self.paths.settings()).unwrap_or_default();
        let containers = self.machine.guest_status().await;
        let snapshot = self.machine.snapshot();
        let description = snapshot.description;
        let guest = snapshot.hello.zip(containers).map(|(hello, status)| GuestStatus {
            version: hello.version,
            kernel: hello.kernel,
            uptime_seconds: hello.uptime + snapshot.since.elapsed().as_secs_f64(),
            containers_running: status.containers_running,
        });
        let is_virtual = self.image_version.is_some();
        let disk = DiskSize::of(&self.paths.disk()).filter(|_| is_virtual);
        let saved = self.machine.saved().filter(|_| is_virtual);
        let template = self.machine.template().filter(|_| is_virtual);
        let cannot_sleep = self.machine.cannot_save();
        MachineStatus {
            state: state(snapshot.phase),
            since_seconds: snapshot.since.elapsed().as_secs(),
            reason: snapshot.reason.map(|error| failure(&error).message),
            backend: self.machine.backend().to_owned(),
            accelerator: description.as_ref().and_then(|d| d.accelerator).map(|a| a.to_string()),
            accelerator_note: description.as_ref().and_then(|d| d.accelerator_note.clone()),
            pid: description.as_ref().map(|d| d.pid),
            boot_ms: snapshot.boot.map(|boot| u64::try_from(boot.as_millis()).unwrap_or(u64::MAX)),
            connections: self.machine.connections(),
            image_version: self.image_version.clone(),
            cpus: settings.machine.cpus.filter(|_| is_virtual),
            memory_mib: is_virtual.then(|| settings.machine.memory_mib_for(host_memory_mib())),
            disk_bytes: is_virtual.then(|| disk.map_or(settings.machine.disk_gib << 30, |disk| disk.length)),
            disk_used_bytes: disk.map(|disk| disk.used),
            idle_stop_seconds: settings.daemon.idle_stop().map(|limit| limit.as_secs()),
            idle_sleeps: cannot_sleep.is_none() && settings.daemon.idle == IdleAction::Sleep,
            saved_bytes: saved.map(|saved| saved.bytes),
            saved_seconds: saved.map(|saved| saved.at.elapsed().unwrap_or_default().as_secs()),
            cannot_sleep: cannot_sleep.map(str::to_owned),
            woken: snapshot.woken,
            wake_note: snapshot.wake_note,
            template_bytes: template.map(|template| template.bytes),
            template_seconds: template.map(|template| template.at.elapsed().unwrap_or_default().as_secs()),
            templated: snapshot.templated,
            template_note: snapshot.template_note,
            guest,
        }
    }
}

async fn configured(
    client: &mut BoxStream,
    found: Result<Configuration, Failure>,
) -> io::Result<Result<(), Failure>> {
    match found {
        Ok(found) => {
            write(client, &Event::Settings(Box::new(found))).await?;
            Ok(Ok(()))
        }
        Err(failure) => Ok(Err(failure)),
    }
}

fn last(result: Result<(), Failure>) -> Event {
    match result {
        Ok(()) => Event::Done {},
        Err(failure) => Event::Error(failure),
    }
}

fn step_event(step: skiff_machine::Progress) -> Event {
    let elapsed_ms = u64::try_from(step.elapsed.as_millis()).unwrap_or(u64::MAX);
    Event::Progress(Progress { step: step.step, elapsed_ms })
}

fn state(phase: Phase) -> MachineState {
    match phase {
        Phase::Stopped => MachineState::Stopped,
        Phase::Starting => MachineState::Starting,
        Phase::Running => MachineState::Running,
        Phase::Stopping => MachineState::Stopping,
        Phase::Failed => MachineState::Failed,
        Phase::Suspending => MachineState::Suspending,
        Phase::Asleep => MachineState::Asleep,
    }
}
