//! A byte stream from async code to a blocking reader, with back-pressure and a clear end.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::layer::{Carried, LayerError};

/// How many pieces may wait; network reads are some ten KiB each.
const DEPTH: usize = 32;

/// A piece of the stream, or its good end. A channel that closes without `End` was cancelled.
pub(crate) enum Chunk {
    Data(Bytes),
    End,
}

/// The reading side.
pub(crate) struct ChunkReader {
    receiver: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
    consumed: Arc<AtomicU64>,
}

/// Makes a stream; the counter tells how many bytes the reader has taken.
pub(crate) fn channel() -> (mpsc::Sender<Chunk>, ChunkReader, Arc<AtomicU64>) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let consumed = Arc::new(AtomicU64::new(0));
    let reader =
        ChunkReader { receiver, current: Bytes::new(), ended: false, consumed: Arc::clone(&consumed) };
    (sender, reader, consumed)
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Chunk::Data(data)) => self.current = data,
                Some(Chunk::End) => self.ended = true,
                None => return Err(io::Error::other(Carried(LayerError::Interrupted))),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
        self.consumed.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buf.len());
        buf[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}
