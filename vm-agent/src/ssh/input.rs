//! A client's bytes on their way to a slow reader.
//!
//! russh gives a channel new window as soon as data arrives, not when it is read, and serves both directions of a
//! connection in one loop. A handler that waits for a reader therefore stops the reader's output too, and `cat` with
//! much input never ends. So what arrives is queued without bound, and the more is queued, the later the next packet is
//! taken: the loop goes on, and the queue stays small all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Bytes that may wait without slowing the client down.
const FREE: usize = 4 << 20;
/// Bytes over [`FREE`] that cost the client one millisecond for each packet (of at most 32 KiB).
const PER_MILLISECOND: usize = 64 << 10;

/// What waits on the channels of one connection.
#[derive(Clone, Default)]
pub struct Backlogs(Arc<Mutex<HashMap<ChannelId, Arc<Backlog>>>>);

impl Backlogs {
    /// Starts counting what waits on a channel.
    pub fn open(&self, channel: ChannelId) -> Arc<Backlog> {
        let backlog = Arc::new(Backlog::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(channel, Arc::clone(&backlog));
        backlog
    }

    /// Forgets a channel that has ended.
    pub fn close(&self, channel: ChannelId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }

    /// Holds the connection up for as long as the channel's backlog calls for.
    pub async fn ease(&self, channel: ChannelId) {
        let backlog = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&channel).cloned();
        if let Some(backlog) = backlog {
            backlog.ease().await;
        }
    }
}

/// The bytes that wait on one channel.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: AtomicUsize,
    read: Notify,
}

impl Backlog {
    async fn ease(&self) {
        let over = self.waiting.load(Ordering::Relaxed).saturating_sub(FREE);
        if over > 0 {
            let pause = Duration::from_millis((over / PER_MILLISECOND) as u64 + 1);
            // A reader that reads ends the pause early.
            let _ = tokio::time::timeout(pause, self.read.notified()).await;
        }
    }
}

/// Where a session puts its client's bytes; dropping it is the end of input.
#[derive(Debug)]
pub struct Input {
    queue: UnboundedSender<Bytes>,
    backlog: Arc<Backlog>,
}

impl Input {
    /// Starts to pass bytes on to a writer, which is shut down after the last one.
    pub fn to(writer: impl AsyncWrite + Send + 'static, backlog: Arc<Backlog>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(pass_on(waiting, writer, Arc::clone(&backlog)));
        Self { queue, backlog }
    }

    /// Queues bytes. A reader that has closed its end does not care for more.
    pub fn push(&self, bytes: Bytes) {
        let length = bytes.len();
        // Counted first: the reader must not take off what was not yet put on.
        self.backlog.waiting.fetch_add(length, Ordering::Relaxed);
        if self.queue.send(bytes).is_err() {
            self.backlog.waiting.fetch_sub(length, Ordering::Relaxed);
        }
    }
}

async fn pass_on(mut waiting: UnboundedReceiver<Bytes>, writer: impl AsyncWrite, backlog: Arc<Backlog>) {
    let mut writer = std::pin::pin!(writer);
    while let Some(bytes) = waiting.recv().await {
        let written = writer.write_all(&bytes).await;
        backlog.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        backlog.read.notify_one();
        if written.is_err() {
            break;
        }
    }
    let _ = writer.shutdown().await;
    // What is left has no reader any more.
    waiting.close();
    while let Ok(bytes) = waiting.try_recv() {
        backlog.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    backlog.read.notify_one();
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_stands_still_slows_the_client_but_never_stops_it() {
        let (mut reader, writer) = tokio::io::duplex(1024);
        let backlog = Arc::new(Backlog::default());
        let input = Input::to(writer, Arc::clone(&backlog));
        let packet = Bytes::from(vec![7; 32 << 10]);
        let count = FREE / packet.len() + 32;
        let mut pauses = Vec::new();
        for _ in 0..count {
            input.push(packet.clone());
            let asked = std::time::Instant::now();
            backlog.ease().await;
            pauses.push(asked.elapsed());
        }
        let last = pauses.last().unwrap();
        assert!(*last >= Duration::from_millis(16), "the last packet waited {last:?}");

        drop(input);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), count * packet.len());
        assert_eq!(backlog.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_holds_nothing_up() {
        let (reader, writer) = tokio::io::duplex(1024);
        drop(reader);
        let backlog = Arc::new(Backlog::default());
        let input = Input::to(writer, Arc::clone(&backlog));
        for _ in 0..1000 {
            input.push(Bytes::from(vec![7; 32 << 10]));
            backlog.ease().await;
            tokio::task::yield_now().await;
        }
        assert_eq!(backlog.waiting.load(Ordering::Relaxed), 0);
    }
}
