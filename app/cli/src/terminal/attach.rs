//! Joins the user's input and output with an attached process.

use std::io::{self, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{RawMode, input, signals};
use crate::api::frames::{Frames, Output};
use crate::api::hijack::Stream;
use crate::api::{Client, Query};
use crate::error::Error;
use crate::options::detach_keys::Watcher;

/// What is joined.
#[derive(Debug)]
pub struct Join {
    /// The process has a terminal: its output is not framed.
    pub tty: bool,
    /// Input goes to the process.
    pub stdin: bool,
    /// Watches typed keys for the way out.
    pub detach: Option<Watcher>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ended {
    /// The process closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

impl Join {
    /// Enters raw mode where a terminal talks to a terminal.
    pub fn raw_mode(&self) -> Option<RawMode> {
        // Without a terminal on our side there is nothing to switch.
        (self.tty && self.stdin && super::stdin_is_terminal()).then(|| RawMode::enter().ok()).flatten()
    }

    /// Copies until the process's output ends (all of it has been written then) or the user leaves.
    pub async fn run(self, stream: Stream) -> Result<Ended, Error> {
        let (reader, writer) = tokio::io::split(stream);
        let input = self.stdin.then(input::stdin);
        join(reader, writer, input, self.detach, self.tty, &mut Terminal).await
    }
}

/// Takes what the process prints.
pub trait Sink {
    /// Writes bytes of one of the outputs.
    fn write(&mut self, output: Output, bytes: &[u8]) -> io::Result<()>;
}

/// Our own standard output and error.
struct Terminal;

impl Sink for Terminal {
    fn write(&mut self, output: Output, bytes: &[u8]) -> io::Result<()> {
        // A slow reader of ours slows the container, and nothing piles up here.
        tokio::task::block_in_place(|| match output {
            Output::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Output::Stderr | Output::System => io::stderr().lock().write_all(bytes),
        })
    }
}

async fn join(
    mut reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    detach: Option<Watcher>,
    tty: bool,
    sink: &mut impl Sink,
) -> Result<Ended, Error> {
    let feed = feed(writer, input, detach);
    let output = async {
        let mut frames = Frames::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                // The engine hung up hard; what the process printed before has been written.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(Error::plain(format!("reading the container's output: {error}"))),
            };
            write_out(&buffer[..count], tty, &mut frames, sink)?;
        }
    };
    tokio::select! {
        biased;
        result = output => result.map(|()| Ended::Output),
        () = feed => Ok(Ended::Detached),
    }
}

/// Writes a piece of a stream, taking frames apart where there are some.
pub fn write_out(bytes: &[u8], tty: bool, frames: &mut Frames, sink: &mut impl Sink) -> Result<(), Error> {
    let failed = |error: io::Error| Error::plain(format!("write /dev/stdout: {error}"));
    if tty {
        return sink.write(Output::Stdout, bytes).map_err(failed);
    }
    let mut result = Ok(());
    frames
        .feed(bytes, |output, bytes| {
            if result.is_ok() {
                result = sink.write(output, bytes);
            }
        })
        .map_err(|error| Error::plain(error.to_string()))?;
    result.map_err(failed)
}

/// Returns the sink that is our own output.
pub fn standard_output() -> impl Sink {
    Terminal
}

/// Passes input on and ends only when the user detaches.
async fn feed(
    mut writer: WriteHalf<Stream>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    detach: Option<Watcher>,
) {
    let mut detach = detach;
    if let Some(mut input) = input {
        while let Some(bytes) = input.recv().await {
            let (bytes, leave) = match &mut detach {
                Some(watcher) => watcher.feed(&bytes),
                None => (bytes, false),
            };
            if leave {
                return;
            }
            // A process that does not read any more is no reason to stop printing its output.
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    }
    // Dropping the half would do nothing, but the output decides when we are done.
    std::future::pending::<()>().await;
}

/// Keeps the size of a process's terminal like ours until dropped.
#[derive(Debug)]
pub struct Resizer(tokio::task::JoinHandle<()>);

impl Resizer {
    /// Sends the size to `path` (`/containers/ID/resize`, `/exec/ID/resize`) now and whenever it changes.
    pub fn start(client: &Client, path: String) -> Resizer {
        let client = client.clone();
        Resizer(tokio::spawn(async move {
            let mut changes = signals::resizes();
            // The process may not be up yet: the first size is sent again for a moment.
            for delay in [0, 10, 20, 50, 100, 200] {
                tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
                if send_size(&client, &path).await {
                    break;
                }
            }
            while changes.recv().await.is_some() {
                send_size(&client, &path).await;
            }
        }))
    }
}

impl Drop for Resizer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send_size(client: &Client, path: &str) -> bool {
    let Some((columns, rows)) = super::size() else { return true };
    client.post(path, &Query::new().with("h", rows).with("w", columns)).await.is_ok()
}
