//! `attach` and `logs`.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;

use super::{Change, Container};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::log;
use crate::log::reader::{ChunkStream, From, ReadOptions, Until};
use crate::options::{AttachOptions, AttachStreams, InputWriter, Logs, LogsOptions};
use crate::state::Status;

/// How long a start has to lie back before a log is read as it is. dockerd's starts take longer than this all by
/// themselves, and clients that start a container and read its log know it no other way.
const FIRST_WORDS: Duration = Duration::from_millis(100);

/// What a client may have typed ahead of the container's reading.
const TYPED_AHEAD: usize = 64 << 10;

/// Waits until a container that was just started has had time for its first words, or has ended.
async fn first_words(container: &Container) {
    let mut changes = container.changes.subscribe();
    let exits = changes.borrow().exits;
    let record = container.record();
    let Some(began) = record.state.started_at.filter(|_| record.state.is_running()) else { return };
    let age = Duration::from_nanos(clock::now_ns().saturating_sub(began));
    if let Some(rest) = FIRST_WORDS.checked_sub(age) {
        let ended = changes.wait_for(|change| change.exits != exits || !change.running);
        let _ = tokio::time::timeout(rest, ended).await;
    }
}

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// When neither stream is wanted or the log driver keeps nothing.
    pub async fn container_logs(&self, id: &str, options: LogsOptions) -> Result<Logs> {
        if !options.stdout && !options.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let container = self.container(id)?;
        let record = container.record();
        if !log::options::is_readable(record.host_config.log_config.as_ref()) {
            return Err(Error::new(
                Code::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        if !options.follow {
            first_words(&container).await;
        }
        let read = ReadOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            from: options.tail.map_or(From::Beginning, From::Tail),
            until: if options.follow { Until::PresentRunEnds } else { Until::Present },
            since: options.since,
            before: options.until,
            timestamps: options.timestamps,
            prefix: options.details.then(|| log::attributes::prefix(&record)),
            lines: true,
        };
        Ok(Logs { output: read_log(&container, read).await?, tty: record.config.tty == Some(true) })
    }

    /// Connects to a container's streams, running or not yet.
    ///
    /// # Errors
    /// When the container is paused or about to restart.
    pub async fn attach_container(&self, id: &str, options: AttachOptions) -> Result<AttachStreams> {
        let container = self.container(id)?;
        let record = container.record();
        match record.state.status {
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let tty = record.config.tty == Some(true);
        let read = ReadOptions {
            stdout: options.stdout,
            // A terminal has one stream: who wants either gets it.
            stderr: options.stderr,
            from: if options.logs { From::Beginning } else { From::Now },
            until: if options.stream { Until::RunEnds } else { Until::Present },
            since: None,
            before: None,
            timestamps: false,
            prefix: None,
            lines: false,
        };
        let read = if tty { ReadOptions { stdout: options.stdout || options.stderr, ..read } } else { read };
        let output = read_log(&container, read).await?;
        let wants_input = options.stdin && options.stream && record.config.open_stdin == Some(true);
        let input = wants_input.then(|| self.input(&container));
        self.container_event(&record, "attach", &[]);
        let (engine, detached) = (self.clone(), Arc::clone(&container));
        Ok(AttachStreams {
            output,
            input,
            tty,
            detach_keys: None,
            on_detach: Some(Box::new(move || engine.container_event(&detached.record(), "detach", &[]))),
        })
    }

    /// A way into the container's stdin, now or once it runs.
    fn input(&self, container: &Arc<Container>) -> InputWriter {
        let (client, ours) = tokio::io::duplex(TYPED_AHEAD);
        let container = Arc::clone(container);
        self.0.runtime.spawn(async move {
            if let Err(error) = feed(&container, ours).await {
                // The process has closed its stdin, or ended: what was typed has nowhere to go.
                tracing::debug!(%error, container = container.id, "input ended early");
            }
            if container.record().config.stdin_once == Some(true)
                && let Some(run) = container.run().as_mut()
            {
                run.stdin = None;
            }
        });
        Box::new(client)
    }
}

async fn read_log(container: &Arc<Container>, options: ReadOptions) -> Result<ChunkStream> {
    let container = Arc::clone(container);
    blocking(move || {
        container
            .log
            .read(&options)
            .map_err(|error| Error::file("read the log in", container.log.dir(), &error))
    })
    .await
}

/// Copies a client's input into the container until either ends.
async fn feed(container: &Arc<Container>, mut client: DuplexStream) -> io::Result<()> {
    let mut changes = container.changes.subscribe();
    let before = changes.borrow_and_update().clone();
    let is_over = move |change: &Change| {
        change.removed || change.exits > before.exits || change.failures > before.failures
    };
    // An error means that the container is gone altogether.
    let _ = changes.wait_for(|change| change.running || is_over(change)).await;
    let Some(target) =
        container.run().as_ref().and_then(|run| run.master.clone().or_else(|| run.stdin.clone()))
    else {
        return Ok(());
    };
    let target = Writer::new(&target)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = client.read(&mut buffer) => read?,
            () = over(&mut changes, &is_over) => 0,
        };
        if read == 0 {
            return Ok(());
        }
        target.write_all(&buffer[..read]).await?;
    }
}

async fn over(changes: &mut watch::Receiver<Change>, is_over: &(impl Fn(&Change) -> bool + Sync)) {
    let _ = changes.wait_for(is_over).await;
}

/// A pipe or terminal that is written without blocking a thread.
pub(crate) struct Writer(Sender);

impl Writer {
    /// A writer over a duplicate of `fd`.
    pub fn new(fd: &OwnedFd) -> io::Result<Self> {
        let fd = fd.try_clone()?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        // Unchecked, because a terminal's master does as well as a pipe here.
        Ok(Self(Sender::from_owned_fd_unchecked(fd)?))
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
