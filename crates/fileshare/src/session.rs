//! One mount's stream: requests in, answers and notices out.
//!
//! ```text
//!  stream ──► reader ──► short operations, one after the other ──┐
//!                └─────► long ones, on threads of their own ─────┴─► stream
//!  watcher thread ──► queue ──► notices, one ghost operation at a time ─► stream
//! ```
//!
//! Messages are FUSE's own: each begins with its length. The guest half adds two that the kernel does not know, one that
//! begins a stream and one that says that a ghost operation is done.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::abi::{Header, IN_HEADER, MAX_REQUEST, Op};
use crate::coherence::Notice;
use crate::server::{GhostKind, Server};

/// Bytes that requests under way may hold.
const BUDGET: u32 = 32 << 20;
/// Requests up to this length are read and handled at once: handing them over would cost more.
const SHORT: usize = 64 << 10;
/// How long the guest may take for one ghost operation. Under emulation a busy guest may stall for seconds.
const GHOST_PATIENCE: Duration = Duration::from_secs(20);
/// How often the watcher's thread looks whether its mount is still there.
const WATCHER_LOOKS: Duration = Duration::from_secs(5);
/// Opcode with which the guest half says that a ghost operation is done.
const GHOST_DONE: u32 = 0x5346_0002;
/// Times that an operation is tried which a lookup in the same moment has spoilt.
const GHOST_TRIES: u32 = 3;
/// `EEXIST`.
const EXISTS: u32 = 17;

/// Why a mount's stream ended, if not by the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream failed.
    #[error("the stream of a shared directory failed")]
    Stream(#[from] io::Error),
    /// The guest broke the rules.
    #[error("the guest sent a request of {length} bytes, which is none")]
    Length {
        /// What it said the length was.
        length: u32,
    },
}

/// Whose mount a stream serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// A new one.
    New,
    /// One that a daemon before this one has served.
    Again,
}

/// What the first message of a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The thread of the guest that performs ghost operations.
    pub ghost_thread: u32,
    /// Whose mount it is.
    pub mount: Mount,
}

type Writer<S> = Arc<Mutex<WriteHalf<S>>>;

/// Reads the first message of a stream.
///
/// # Errors
/// When the stream ends before it, as one does that only asked for a place.
pub async fn attached(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Attached> {
    let mut bytes = [0; IN_HEADER];
    stream.read_exact(&mut bytes).await?;
    let header = Header::decode(&bytes);
    if Op::from_code(header.opcode) != Some(Op::Attach) || header.len as usize != IN_HEADER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mount = if header.uid == 0 { Mount::New } else { Mount::Again };
    Ok(Attached { ghost_thread: header.pid, mount })
}

/// Serves a mount until its stream ends. The stream's first message has been read.
///
/// # Errors
/// When the stream fails, or what comes is no request.
pub async fn serve<S>(server: Arc<Server>, ghost_thread: u32, stream: S) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    server.set_ghost_thread(ghost_thread);
    watch(&server);
    let (reader, writer) = tokio::io::split(stream);
    let writer: Writer<S> = Arc::new(Mutex::new(writer));
    let (done, performed) = mpsc::channel(16);
    let telling = tokio::spawn(tell(Arc::clone(&server), Arc::clone(&writer), performed));
    let closing = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.opened.close_idle().await }
    });
    // Short operations are done by the task that reads: each step to another thread would cost more than most of them.
    let result = read(server, reader, writer, done).await;
    telling.abort();
    closing.abort();
    match result {
        Err(Error::Stream(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        other => other,
    }
}

async fn read<S>(
    server: Arc<Server>,
    reader: tokio::io::ReadHalf<S>,
    writer: Writer<S>,
    done: mpsc::Sender<u32>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut reader = BufReader::with_capacity(SHORT, reader);
    let budget = Arc::new(Semaphore::new(BUDGET as usize));
    let mut short = vec![0; SHORT];
    loop {
        let mut bytes = [0; IN_HEADER];
        reader.read_exact(&mut bytes).await?;
        let header = Header::decode(&bytes);
        let length = header.len as usize;
        if !(IN_HEADER..=MAX_REQUEST).contains(&length) {
            return Err(Error::Length { length: header.len });
        }
        let rest = length - IN_HEADER;
        if header.opcode == GHOST_DONE {
            reader.read_exact(short.get_mut(..rest).ok_or(Error::Length { length: header.len })?).await?;
            // Nobody waits for one that comes too late.
            let _ = done.try_send(header.uid);
            continue;
        }
        let cost = length + answer_length(&header);
        if cost <= SHORT && !is_slow(&header) {
            reader.read_exact(&mut short[..rest]).await?;
            if let Some(answer) = server.handle(&header, &short[..rest]) {
                writer.lock().await.write_all(&answer).await?;
            }
            continue;
        }
        let cost = u32::try_from(cost).unwrap_or(BUDGET).min(BUDGET);
        let Ok(place) = Arc::clone(&budget).acquire_many_owned(cost).await else { return Ok(()) };
        let mut body = vec![0; rest];
        reader.read_exact(&mut body).await?;
        let (server, writer) = (Arc::clone(&server), Arc::clone(&writer));
        tokio::task::spawn_blocking(move || {
            let answer = server.handle(&header, &body);
            drop(body);
            if let Some(answer) = answer {
                // A stream that fails is met by its reader too.
                let _ = Handle::current().block_on(async { writer.lock().await.write_all(&answer).await });
            }
            drop(place);
        });
    }
}

/// Bytes that the answer may have beside others that are held. Reads count nothing: they are done by the reader, one at a
/// time.
fn answer_length(header: &Header) -> usize {
    match Op::from_code(header.opcode) {
        Some(Op::Read | Op::ReadDir | Op::ReadDirPlus) => 0,
        Some(Op::GetXattr | Op::ListXattr) => SHORT,
        _ => 4096,
    }
}

/// Whether an operation waits for the disk by its nature.
fn is_slow(header: &Header) -> bool {
    matches!(
        Op::from_code(header.opcode),
        Some(Op::FSync | Op::FSyncDir | Op::Fallocate | Op::CopyFileRange | Op::SyncFs)
    )
}

/// Tells the guest what there is to tell.
async fn tell<S: AsyncRead + AsyncWrite>(
    server: Arc<Server>,
    writer: Writer<S>,
    mut performed: mpsc::Receiver<u32>,
) {
    loop {
        match server.coherence.next().await {
            Notice::Kernel(bytes) => {
                if writer.lock().await.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Notice::Ghost(ghost) => {
                for _ in 0..GHOST_TRIES {
                    let Some(message) = server.ghost_message(&ghost) else { break };
                    while performed.try_recv().is_ok() {}
                    server.set_ghost(Some(ghost.clone()));
                    if writer.lock().await.write_all(&message).await.is_err() {
                        return;
                    }
                    let outcome = tokio::time::timeout(GHOST_PATIENCE, performed.recv()).await;
                    server.set_ghost(None);
                    match outcome {
                        // Somebody looked the new name up in this moment: it is dropped and made once more.
                        Ok(Some(EXISTS)) => {
                            let again = crate::abi::notify_name(ghost.parent, &ghost.name);
                            if writer.lock().await.write_all(&again).await.is_err() {
                                return;
                            }
                        }
                        Ok(Some(0)) => break,
                        Ok(Some(error)) => {
                            let name = String::from_utf8_lossy(&ghost.name);
                            tracing::debug!(error, path = %name, "host change is not seen in the guest");
                            break;
                        }
                        Ok(None) => return,
                        Err(_) => {
                            tracing::warn!("guest takes long to see a host change");
                            break;
                        }
                    }
                }
                match &ghost.kind {
                    GhostKind::Moved { parent, name, .. } => server.coherence.is_known(*parent, name),
                    GhostKind::Made { .. } => server.coherence.is_known(ghost.parent, &ghost.name),
                    _ => {}
                }
            }
            Notice::Barrier(reached) => {
                let _ = reached.send(());
            }
        }
    }
}

/// Starts the thread that reads the watcher for as long as the server lives.
fn watch(server: &Arc<Server>) {
    let weak: Weak<Server> = Arc::downgrade(server);
    let started = std::thread::Builder::new().name("file-watcher".to_owned()).spawn(move || {
        while let Some(server) = weak.upgrade() {
            let Some(watcher) = &server.coherence.watcher else { return };
            watcher.wait(WATCHER_LOOKS);
            server.drain();
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "host changes are not told to the guest");
    }
}

/// Waits until the guest has been told of everything that has happened on the host before this call.
pub async fn settle(server: &Arc<Server>) {
    let draining = Arc::clone(server);
    let _ = tokio::task::spawn_blocking(move || draining.drain()).await;
    let (reached, barrier) = tokio::sync::oneshot::channel();
    server.coherence.send(Notice::Barrier(reached));
    if tokio::time::timeout(GHOST_PATIENCE, barrier).await.is_err() {
        tracing::warn!("guest has not seen all host changes yet");
    }
}
