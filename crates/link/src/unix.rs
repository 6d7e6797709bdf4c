//! The transport where every stream is a connection of its own on a unix socket.
//!
//! Each side listens on one path and connects to the other's. There is no session to keep: a stream lives as long as
//! its connection, and the kernel does the flow control.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use crate::link::Inner;
use crate::{
    CloseReason, Error, Link, Reply, StreamHeader, read_header, read_reply, write_header, write_reply,
};

/// How long a connected peer may take to send its header.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// How long an opener waits for the reply.
const OPEN_DEADLINE: Duration = Duration::from_secs(75);

/// Connections that may be in the middle of their header, or wait for [`Link::accept`], at once.
const BACKLOG: usize = 256;

/// Listens on `listen` and opens streams by connecting to `peer`.
///
/// A stale socket at `listen` is replaced; the new one is accessible to this user alone and is removed when the link
/// ends. `peer` need not exist yet: it is connected to at every [`Link::open`]. A side that only opens passes no
/// `listen`, and its [`Link::accept`] waits for ever; a side that only accepts passes no `peer`.
///
/// # Errors
/// [`Error::Io`] when the socket cannot be bound, among others because another process listens on it.
pub fn link(listen: Option<&Path>, peer: Option<&Path>) -> Result<Link, Error> {
    // First of all: what is dropped after a failure must not remove another's socket.
    let listener = listen.map(bind).transpose()?;
    let (closed, _) = watch::channel(None);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let shared = Arc::new(Shared {
        peer: peer.map(Path::to_owned),
        incoming: Mutex::new(receiver),
        closed: closed.clone(),
        socket: listen.map(Path::to_owned),
    });
    match listener {
        Some(listener) => {
            tokio::spawn(accept_all(listener, sender, closed));
        }
        // The channel must stay open for `accept` to wait.
        None => {
            tokio::spawn(async move {
                let _ = closed.subscribe().wait_for(Option::is_some).await;
                drop(sender);
            });
        }
    }
    Ok(Link::new(Inner::Unix(Handle { shared })))
}

#[derive(Debug, Clone)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: Option<PathBuf>,
    incoming: Mutex<mpsc::Receiver<(StreamHeader, UnixStream)>>,
    closed: watch::Sender<Option<CloseReason>>,
    socket: Option<PathBuf>,
}

impl Shared {
    fn close(&self) {
        let first = self.closed.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert(CloseReason::Local);
            first
        });
        if first && let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Handle {
    pub(crate) async fn open(&self, header: &StreamHeader) -> Result<(UnixStream, Reply), Error> {
        if let Some(reason) = self.shared.closed.borrow().clone() {
            return Err(Error::Closed { reason });
        }
        let peer = self.shared.peer.as_deref().ok_or_else(|| Error::Io {
            action: "open a stream".to_owned(),
            source: io::Error::new(io::ErrorKind::Unsupported, "this side of the link only accepts streams"),
        })?;
        let opening = async {
            let mut stream = UnixStream::connect(peer)
                .await
                .map_err(|source| Error::Io { action: format!("connect to {}", peer.display()), source })?;
            write_header(&mut stream, header).await?;
            let reply = read_reply(&mut stream).await?;
            Ok((stream, reply))
        };
        let timed = tokio::time::timeout(OPEN_DEADLINE, opening).await;
        timed.unwrap_or(Err(Error::Unanswered { waited: OPEN_DEADLINE }))
    }

    pub(crate) async fn accept(&self) -> Result<(StreamHeader, UnixStream), Error> {
        let mut closed = self.closed();
        let mut incoming = self.shared.incoming.lock().await;
        tokio::select! {
            biased;
            _ = closed.wait_for(Option::is_some) => {}
            next = incoming.recv() => if let Some(next) = next {
                return Ok(next);
            }
        }
        let reason = self.shared.closed.borrow().clone().unwrap_or(CloseReason::HungUp);
        Err(Error::Closed { reason })
    }

    pub(crate) fn close(&self) {
        self.shared.close();
    }

    pub(crate) fn closed(&self) -> watch::Receiver<Option<CloseReason>> {
        self.shared.closed.subscribe()
    }
}

fn bind(path: &Path) -> Result<UnixListener, Error> {
    let io = |source| Error::Io { action: format!("listen on {}", path.display()), source };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            // Only a socket that nobody answers on is stale.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io(io::ErrorKind::AddrInUse.into()));
            }
            std::fs::remove_file(path).map_err(io)?;
        }
        Ok(_) => return Err(io(io::ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok(listener)
}

/// Reads each connection's header in a task of its own, so that a slow one holds nobody up.
async fn accept_all(
    listener: UnixListener,
    sender: mpsc::Sender<(StreamHeader, UnixStream)>,
    closed: watch::Sender<Option<CloseReason>>,
) {
    let mut end = closed.subscribe();
    let slots = Arc::new(Semaphore::new(BACKLOG));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = end.wait_for(Option::is_some) => return,
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        let (Ok(slot), Ok((stream, _))) = accepted else {
            // Out of descriptors: wait for some to come back instead of spinning.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let sender = sender.clone();
        let mut end = closed.subscribe();
        tokio::spawn(async move {
            let offered = async {
                if let Some(offer) = receive_header(stream).await {
                    let _ = sender.send(offer).await;
                }
            };
            tokio::select! {
                _ = end.wait_for(Option::is_some) => {}
                () = offered => {}
            }
            drop(slot);
        });
    }
}

async fn receive_header(mut stream: UnixStream) -> Option<(StreamHeader, UnixStream)> {
    match tokio::time::timeout(HEADER_DEADLINE, read_header(&mut stream)).await {
        Ok(Ok(header)) => Some((header, stream)),
        Ok(Err(Error::Frame { source })) => {
            let reply = Reply::refused(source.reply_code(), source.to_string());
            let _ = write_reply(&mut stream, &reply).await;
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "connection without a header");
            None
        }
        Err(_) => {
            tracing::debug!("connection without a header before the deadline");
            None
        }
    }
}
