//! Bytes between threads that block on files and streams that clients read and write.
//!
//! Each transfer has a thread of its own: a client that does not read must not take one from others.

use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::{Error, Result};

/// Bytes to come. Dropping it ends the work.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Bytes of one piece, and pieces that may wait for a slow client.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

/// Streams what `work` writes. Its error is the stream's last item.
pub(crate) fn stream(
    work: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Result<ByteStream> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let run = move || {
        let mut out = BufWriter::with_capacity(PIECE, Sender(sender.clone()));
        if let Err(error) = work(&mut out).and_then(|()| out.flush()) {
            tracing::debug!(%error, "archive ended early");
            // Nobody may be there any more to be told.
            let _ = sender.blocking_send(Err(error));
            // What is left in the buffer must not follow the error.
            drop(out.into_parts());
        }
    };
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(run);
    thread.map_err(|error| Error::internal("start a thread", &error))?;
    Ok(ReceiverStream::new(receiver).boxed())
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is read of an archive that is refused: a client that is cut off while it sends does not see why.
const READ_OUT: u64 = 256 << 20;

/// Lets `work` read a client's bytes.
pub(super) async fn receive<T: Send + 'static>(
    source: Box<dyn AsyncRead + Send + Unpin>,
    work: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let mut source = Receiver { source, runtime: Handle::current() };
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        let result = work(&mut source);
        if result.is_err() {
            let _ = io::copy(&mut Read::take(&mut source, READ_OUT), &mut io::sink());
        }
        // The caller may have gone with its client.
        let _ = done.send(result);
    });
    thread.map_err(|error| Error::internal("start a thread", &error))?;
    result.await.map_err(|error| Error::internal("archive thread", &error))?
}

struct Receiver {
    source: Box<dyn AsyncRead + Send + Unpin>,
    runtime: Handle,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.source.read(buffer))
    }
}
