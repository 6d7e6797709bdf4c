//! The client of the control socket, as the command line and the desktop use it.

use std::{
    io,
    path::{Path, PathBuf},
};

use skiff_link::BoxStream;

use super::{
    Event, Failure, Finding, LogSource, Progress, Request, Status, Version,
    wire::{LineReader, write},
};
use crate::listen;

/// Why the daemon could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens.
    #[error("the skiff daemon is not running (nothing listens on {})", path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
        /// Why the connection failed.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the connection to the skiff daemon")]
    Connection(#[from] io::Error),
    /// The daemon ended the connection in the middle of an answer.
    #[error("the skiff daemon hung up before its answer was complete")]
    HungUp,
    /// The daemon could not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl ClientError {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => failure.hint.clone(),
            Self::NotRunning { .. } => Some("start it with `skiff machine start`".to_owned()),
            Self::HungUp | Self::Connection(_) => Some("see `skiff machine logs --daemon`".to_owned()),
        }
    }
}

/// Which lines of which log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRequest {
    /// The log.
    pub source: LogSource,
    /// How many of the last lines; none means all.
    pub tail: Option<u64>,
    /// Whether to go on with new lines.
    pub follow: bool,
}

/// A connection to the daemon, good for one request.
pub struct Client {
    stream: BoxStream,
    lines: LineReader,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody listens there.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        match listen::connect(path).await {
            Ok(stream) => Ok(Self { stream, lines: LineReader::default() }),
            Err(source) => Err(ClientError::NotRunning { path: path.to_owned(), source }),
        }
    }

    /// Asks for the daemon's version.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn version(self) -> Result<Version, ClientError> {
        let mut version = None;
        self.run(&Request::Version {}, |event| {
            if let Event::Version(found) = event {
                version = Some(found);
            }
        })
        .await?;
        version.ok_or(ClientError::HungUp)
    }

    /// Asks for the state of daemon and guest; never wakes the guest.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn status(self) -> Result<Status, ClientError> {
        let mut status = None;
        self.run(&Request::Status {}, |event| {
            if let Event::Status(found) = event {
                status = Some(*found);
            }
        })
        .await?;
        status.ok_or(ClientError::HungUp)
    }

    /// Asks why a connection to a port of the host arrives or not; never wakes the guest.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn explain_port(self, port: u16) -> Result<Vec<Finding>, ClientError> {
        self.findings(&Request::Port { port }).await
    }

    /// Asks how the network is doing; never wakes the guest.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn network(self) -> Result<Vec<Finding>, ClientError> {
        self.findings(&Request::Network {}).await
    }

    /// Has the guest give back the free space of its disk; gives the bytes that the host has got.
    ///
    /// # Errors
    /// As [`Client::run`]; also when the guest does not run.
    pub async fn reclaim(self) -> Result<u64, ClientError> {
        let mut got = 0;
        self.run(&Request::Reclaim {}, |event| {
            if let Event::Reclaimed { bytes } = event {
                got = bytes;
            }
        })
        .await?;
        Ok(got)
    }

    async fn findings(self, request: &Request) -> Result<Vec<Finding>, ClientError> {
        let mut all = Vec::new();
        self.run(request, |event| {
            if let Event::Finding(finding) = event {
                all.push(finding);
            }
        })
        .await?;
        Ok(all)
    }

    /// Starts the guest if it does not run.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn start(
        self,
        retry_accelerator: bool,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<(), ClientError> {
        self.run(&Request::Start { retry_accelerator }, progress(on_progress)).await
    }

    /// Stops the guest.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn stop(self, on_progress: impl FnMut(Progress) + Send) -> Result<(), ClientError> {
        self.run(&Request::Stop {}, progress(on_progress)).await
    }

    /// Saves the guest and ends its process.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn suspend(self, on_progress: impl FnMut(Progress) + Send) -> Result<(), ClientError> {
        self.run(&Request::Suspend {}, progress(on_progress)).await
    }

    /// Removes the template that starts begin with.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn prune(self) -> Result<(), ClientError> {
        self.run(&Request::Prune {}, progress(|_| {})).await
    }

    /// Stops the guest and starts it again.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn restart(
        self,
        retry_accelerator: bool,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<(), ClientError> {
        self.run(&Request::Restart { retry_accelerator }, progress(on_progress)).await
    }

    /// Stops the guest and ends the daemon.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn shutdown(self, on_progress: impl FnMut(Progress) + Send) -> Result<(), ClientError> {
        self.run(&Request::Shutdown {}, progress(on_progress)).await
    }

    /// Reads a log line by line.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn logs(
        self,
        what: LogRequest,
        mut on_line: impl FnMut(String) + Send,
    ) -> Result<(), ClientError> {
        let LogRequest { source, tail, follow } = what;
        self.run(&Request::Logs { source, tail, follow }, |event| {
            if let Event::Log { line } = event {
                on_line(line);
            }
        })
        .await
    }

    /// Connects to the guest's SSH server, starting the guest if needed.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn shell(mut self, on_progress: impl FnMut(Progress) + Send) -> Result<BoxStream, ClientError> {
        self.exchange(&Request::Shell {}, progress(on_progress)).await?;
        Ok(self.stream)
    }

    /// Connects to the engine as one who only looks: this neither wakes the guest nor keeps it awake. Nothing is given when it
    /// does not run.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn engine(mut self) -> Result<Option<BoxStream>, ClientError> {
        let mut is_asleep = false;
        self.exchange(&Request::Engine {}, |event| is_asleep |= event == Event::Asleep {}).await?;
        Ok((!is_asleep).then_some(self.stream))
    }

    /// Sends any request and hands every event but the last to `on_event`.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when the daemon says so, else what happened to the connection.
    pub async fn run(
        mut self,
        request: &Request,
        on_event: impl FnMut(Event) + Send,
    ) -> Result<(), ClientError> {
        self.exchange(request, on_event).await
    }

    async fn exchange(
        &mut self,
        request: &Request,
        mut on_event: impl FnMut(Event) + Send,
    ) -> Result<(), ClientError> {
        write(&mut self.stream, request).await?;
        loop {
            match self.lines.read::<Event>(&mut self.stream).await? {
                Some(Event::Done {}) => return Ok(()),
                Some(Event::Error(failure)) => return Err(ClientError::Failed(failure)),
                Some(event) => on_event(event),
                None => return Err(ClientError::HungUp),
            }
        }
    }
}

fn progress(mut on_progress: impl FnMut(Progress) + Send) -> impl FnMut(Event) + Send {
    move |event| {
        if let Event::Progress(progress) = event {
            on_progress(progress);
        }
    }
}
