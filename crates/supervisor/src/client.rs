//! The engine's end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::net::{RecvFlags, SendFlags};

use crate::protocol::{Answer, Entry, Error, ExitStatus, Notice, Request, receive, send};

/// The engine's connection to the supervisor. Cheap to clone; calls block for one round trip.
#[derive(Debug, Clone)]
pub struct Client {
    requests: Arc<Mutex<OwnedFd>>,
    notices: Arc<OwnedFd>,
}

impl Client {
    /// Takes over the sockets that [`FD_VARIABLE`](crate::FD_VARIABLE) names. Call it once, at start.
    ///
    /// # Errors
    /// [`Error::Environment`] when the process was not started by a supervisor.
    pub fn from_env() -> Result<Self, Error> {
        let missing = Error::Environment { variable: crate::FD_VARIABLE };
        let value = std::env::var(crate::FD_VARIABLE).map_err(|_| missing)?;
        let take = |text: &str| {
            let number = text.parse::<i32>().ok()?;
            skiff_linux_sys::inherited::take(number).ok()
        };
        let fds =
            value.split_once(',').and_then(|(requests, notices)| Some((take(requests)?, take(notices)?)));
        let (requests, notices) = fds.ok_or(Error::Environment { variable: crate::FD_VARIABLE })?;
        Ok(Self::connect(requests, notices))
    }

    /// Speaks over the given sockets.
    #[must_use]
    pub fn connect(requests: OwnedFd, notices: OwnedFd) -> Self {
        Self { requests: Arc::new(Mutex::new(requests)), notices: Arc::new(notices) }
    }

    /// Tells the supervisor that its child `pid` is `key` and lets it keep duplicates of `fds` under their names.
    ///
    /// # Errors
    /// When the connection fails or `key` is taken by a child that still runs.
    pub fn adopt(&self, key: &str, pid: i32, fds: &[(&str, BorrowedFd<'_>)]) -> Result<(), Error> {
        let fd_names = fds.iter().map(|(name, _)| (*name).to_owned()).collect();
        let raw: Vec<_> = fds.iter().map(|(_, fd)| *fd).collect();
        self.call(&Request::Adopt { key: key.to_owned(), pid, fd_names }, &raw)
    }

    /// Every child that was adopted and not forgotten.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let socket = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_fd(), &Request::List, &[], SendFlags::empty())?;
        let mut entries = Vec::new();
        loop {
            match receive::<Answer>(socket.as_fd(), RecvFlags::empty())?.0 {
                Answer::Entry(entry) => entries.push(entry),
                Answer::Done => return Ok(entries),
                Answer::Failed { message } => return Err(Error::Refused { message }),
            }
        }
    }

    /// Duplicates of the descriptors kept for `key`, with their names.
    ///
    /// # Errors
    /// When the connection fails or there is no such entry.
    pub fn fetch(&self, key: &str) -> Result<Vec<(String, OwnedFd)>, Error> {
        let socket = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_fd(), &Request::Fetch { key: key.to_owned() }, &[], SendFlags::empty())?;
        let (answer, fds) = receive::<Answer>(socket.as_fd(), RecvFlags::empty())?;
        match answer {
            Answer::Entry(entry) => Ok(entry.fd_names.into_iter().zip(fds).collect()),
            Answer::Done => Ok(Vec::new()),
            Answer::Failed { message } => Err(Error::Refused { message }),
        }
    }

    /// Drops the entry `key` and its descriptors. Unknown keys are no error.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn forget(&self, key: &str) -> Result<(), Error> {
        self.call(&Request::Forget { key: key.to_owned() }, &[])
    }

    /// Says that the engine listens.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn ready(&self) -> Result<(), Error> {
        self.call(&Request::Ready, &[])
    }

    /// Hands notices to the callbacks from a thread of its own until the supervisor goes: then `on_gone` runs once.
    ///
    /// An exit that happens around a restart may be seen twice, here and in [`list`](Self::list).
    pub fn watch(
        &self,
        mut on_exit: impl FnMut(String, ExitStatus) + Send + 'static,
        mut on_stop: impl FnMut() + Send + 'static,
        on_gone: impl FnOnce() + Send + 'static,
    ) {
        let notices = Arc::clone(&self.notices);
        thread::Builder::new()
            .name("supervisor-notices".to_owned())
            .spawn(move || {
                loop {
                    match receive::<Notice>(notices.as_fd(), RecvFlags::empty()) {
                        Ok((Notice::Exit { key, status }, _)) => on_exit(key, status),
                        Ok((Notice::Stop, _)) => on_stop(),
                        Err(error) => {
                            tracing::debug!(%error, "supervisor notices ended");
                            break on_gone();
                        }
                    }
                }
            })
            .expect("a process that starts up can start a thread");
    }

    fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let socket = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_fd(), request, fds, SendFlags::empty())?;
        match receive::<Answer>(socket.as_fd(), RecvFlags::empty())?.0 {
            Answer::Done | Answer::Entry(_) => Ok(()),
            Answer::Failed { message } => Err(Error::Refused { message }),
        }
    }
}
