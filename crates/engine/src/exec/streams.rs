//! An exec's streams: from its pipes or terminal to its client and back.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::Exec;
use super::start::Ours;
use crate::container::Writer;
use crate::log::reader::ChunkStream;
use crate::log::{Chunk, Stream};
use crate::options::InputWriter;

/// Pieces of output that may wait for a slow client; after that the process waits.
const WAITING: usize = 16;
const PIECE: usize = 32 << 10;

/// Connects a client.
pub(super) fn connect(
    exec: &Arc<Exec>,
    ours: Ours,
    runtime: &Handle,
) -> io::Result<(ChunkStream, Option<InputWriter>)> {
    let _entered = runtime.enter();
    let (chunks, receiver) = mpsc::channel(WAITING);
    let Ours { stdin, stdout, stderr, master } = ours;
    let input = match (&master, stdin) {
        (Some(master), _) if exec.config.attach_stdin == Some(true) => Some(feed(master, exec, runtime)?),
        (None, Some(stdin)) => Some(feed(&stdin, exec, runtime)?),
        _ => None,
    };
    for (stream, end) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr), (Stream::Stdout, master)] {
        if let Some(end) = end {
            runtime.spawn(pump(reader(end)?, stream, Some(chunks.clone()), exec.ended.subscribe()));
        }
    }
    let ended = exec.ended.subscribe();
    let output = stream::unfold((receiver, ended), |(mut receiver, mut ended)| async move {
        match receiver.recv().await {
            Some(chunk) => Some((Ok(chunk), (receiver, ended))),
            None => {
                // The end of the stream says that the exit code can be asked for.
                let _ = ended.wait_for(|ended| *ended).await;
                None
            }
        }
    });
    Ok((output.boxed(), input))
}

/// Reads a terminal that has no client.
pub(super) fn discard(exec: &Arc<Exec>, ours: Ours, runtime: &Handle) -> io::Result<()> {
    let _entered = runtime.enter();
    if let Some(master) = ours.master {
        runtime.spawn(pump(reader(master)?, Stream::Stdout, None, exec.ended.subscribe()));
    }
    Ok(())
}

fn reader(fd: OwnedFd) -> io::Result<Receiver> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // Unchecked, because a terminal's master does as well as a pipe here.
    Receiver::from_owned_fd_unchecked(fd)
}

/// Moves output until its end, or until the process has ended and nothing is left: somebody else may hold the other
/// side open for ever. A client that goes away does not stop the process: its output is dropped from then on.
async fn pump(
    end: Receiver,
    stream: Stream,
    mut chunks: Option<mpsc::Sender<Chunk>>,
    mut ended: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        let last_look = *ended.borrow();
        // The last look asks the kernel itself: tokio may not have heard of the last bytes yet.
        let read = match last_look {
            true => rustix::io::read(&end, &mut buffer).map_err(io::Error::from),
            false => end.try_read(&mut buffer),
        };
        match read {
            Ok(0) => return,
            Ok(length) => {
                if let Some(sender) = &chunks {
                    let bytes = Bytes::copy_from_slice(&buffer[..length]);
                    if sender.send(Chunk { stream, bytes }).await.is_err() {
                        chunks = None;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !last_look => {
                tokio::select! {
                    ready = end.readable() => if ready.is_err() {
                        return;
                    },
                    () = over(&mut ended) => {}
                }
            }
            // Nothing is left, or (EIO) nobody has the terminal open any more.
            Err(_) => return,
        }
    }
}

async fn over(ended: &mut watch::Receiver<bool>) {
    // An error means that the exec is forgotten, which it is only after its end.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Copies a client's input into the process until either ends.
fn feed(target: &OwnedFd, exec: &Arc<Exec>, runtime: &Handle) -> io::Result<InputWriter> {
    let target = Writer::new(target)?;
    let (client, mut ours) = tokio::io::duplex(64 << 10);
    let mut ended = exec.ended.subscribe();
    runtime.spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = tokio::select! {
                read = ours.read(&mut buffer) => read.unwrap_or(0),
                () = over(&mut ended) => 0,
            };
            if read == 0 || target.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::new(client))
}
