//! The same interface for a window of our own: its files, and streams that are carried by whoever made the window.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use http_body_util::{BodyExt as _, Limited};
use hyper::Method;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::answer::{harden, whole};
use crate::session::nonce;
use crate::stream::Gone;
use crate::upstream::{Purpose, Upstream};
use crate::{assets, docker, guard, stream};

/// Where the shell's calls go: a scheme of the shell's own, or a name that only the web view knows.
const SHELL: &str = "ipc: http://ipc.localhost";
/// Streams of one window at once.
const PIPES: usize = 512;
/// Messages of the page that wait until they are dealt with; then the page waits.
const WAITING: usize = 16;
/// Longest answer that is read for the shell itself, in bytes.
const LOOK: usize = 16 << 20;

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// JSON.
    Text(String),
    /// What an engine or a terminal says.
    Bytes(Bytes),
}

/// There is no such stream, or no place for one more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPipe {
    /// It has ended, or never was.
    #[error("the stream {id} is closed")]
    Closed {
        /// Its number.
        id: u32,
    },
    /// The page has too many.
    #[error("more than {PIPES} streams at once")]
    Many,
    /// A message is longer than any that a page of ours sends.
    #[error("a message of {size} bytes is too long")]
    Long {
        /// Its length in bytes.
        size: usize,
    },
}

/// What a window shows, and the streams of its page.
#[derive(Debug)]
pub struct Window {
    upstream: Upstream,
    pipes: Arc<Mutex<Pipes>>,
}

#[derive(Debug, Default)]
struct Pipes {
    last: u32,
    open: HashMap<u32, mpsc::Sender<Message>>,
}

impl Window {
    /// Makes one.
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream, pipes: Arc::default() }
    }

    /// Gives a file of the interface, `/` for the page itself, with the page's policy; the shell's own calls are what it may
    /// connect to beside its files.
    pub fn file(path: &str) -> Option<hyper::Response<Bytes>> {
        let mut response = assets::find(path, SHELL, &nonce())?;
        harden(&mut response);
        Some(response)
    }

    /// Whether there is an interface in this program.
    pub fn is_built() -> bool {
        assets::are_built()
    }

    /// Opens a stream; `hear` is told what it says, and returns `false` when the page is gone. `None` is its end. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`NoPipe::Many`] when the page has too many.
    pub fn open(&self, hear: impl FnMut(Option<Said>) -> bool + Send + 'static) -> Result<u32, NoPipe> {
        let (sender, from) = mpsc::channel(WAITING);
        let id = {
            let mut pipes = lock(&self.pipes);
            if pipes.open.len() >= PIPES {
                return Err(NoPipe::Many);
            }
            pipes.last = pipes.last.wrapping_add(1);
            let id = pipes.last;
            pipes.open.insert(id, sender);
            id
        };
        let (upstream, pipes) = (self.upstream.clone(), Arc::clone(&self.pipes));
        tokio::spawn(async move {
            stream::serve(&upstream, Pipe { from, hear: Box::new(hear) }).await;
            lock(&pipes).open.remove(&id);
        });
        Ok(id)
    }

    /// Hands a message of the page over; returns when there is place for the next one.
    ///
    /// # Errors
    /// [`NoPipe`] when the stream has ended or the message is too long.
    pub async fn say(&self, id: u32, said: Said) -> Result<(), NoPipe> {
        let message = match said {
            Said::Text(text) => Message::text(text),
            Said::Bytes(bytes) => Message::binary(bytes),
        };
        if message.len() > stream::LONGEST {
            return Err(NoPipe::Long { size: message.len() });
        }
        let sender = lock(&self.pipes).open.get(&id).cloned().ok_or(NoPipe::Closed { id })?;
        sender.send(message).await.map_err(|_| NoPipe::Closed { id })
    }

    /// Ends a stream; one that has ended stays as it is.
    pub fn close(&self, id: u32) {
        lock(&self.pipes).open.remove(&id);
    }

    /// Ends all streams: the page that had them has been left.
    pub fn close_all(&self) {
        lock(&self.pipes).open.clear();
    }

    /// Asks the engine for something that is only looked at; `None` while the guest does not run, or nobody answers.
    pub async fn look(&self, path: &str) -> Option<Bytes> {
        guard::path(path).ok()?;
        let request = docker::new(&Method::GET, path, whole("")).ok()?;
        let mut sender = self.upstream.engine(Purpose::Look).await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        Some(Limited::new(response.into_body(), LOOK).collect().await.ok()?.to_bytes())
    }
}

fn lock(pipes: &Mutex<Pipes>) -> std::sync::MutexGuard<'_, Pipes> {
    pipes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream as [`stream::serve`] wants it.
struct Pipe {
    from: mpsc::Receiver<Message>,
    hear: Box<dyn FnMut(Option<Said>) -> bool + Send>,
}

impl Stream for Pipe {
    type Item = Result<Message, Gone>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from.poll_recv(context).map(|message| message.map(Ok))
    }
}

impl Sink<Message> for Pipe {
    type Error = Gone;

    fn poll_ready(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Gone> {
        let said = match message {
            Message::Text(text) => Said::Text(text.to_string()),
            Message::Binary(bytes) => Said::Bytes(bytes),
            _ => return Ok(()),
        };
        if (self.hear)(Some(said)) { Ok(()) } else { Err(Gone::ConnectionClosed) }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = (self.hear)(None);
    }
}

#[cfg(all(test, unix))]
mod tests;
