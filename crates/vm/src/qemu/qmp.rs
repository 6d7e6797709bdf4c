//! A client of the QEMU machine protocol (QMP): JSON lines, replies matched by id, events broadcast.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Mutex as AsyncMutex, broadcast, oneshot, watch},
    task::AbortHandle,
};

use super::message::{Event, LINE_LIMIT, Message, parse};

/// A reply that takes longer means that QEMU's main loop hangs.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// Why the monitor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// QEMU closed the connection.
    #[error("connection closed")]
    Closed,
    /// The first line was not a greeting.
    #[error("no greeting")]
    NoGreeting,
    /// There was no reply in time.
    #[error("no reply within {} s", REPLY_DEADLINE.as_secs())]
    Deadline,
    /// QEMU refused the command.
    #[error("refused: {description} ({class})")]
    Refused {
        /// Class of the error.
        class: String,
        /// QEMU's reason.
        description: String,
    },
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, Error>>>>>;

/// A connection to a monitor, ready for commands.
pub struct Qmp {
    version: String,
    writer: AsyncMutex<Box<dyn AsyncWrite + Send + Unpin>>,
    pending: Pending,
    next_id: AtomicU64,
    events: broadcast::Sender<Event>,
    closed: watch::Receiver<bool>,
    reader: AbortHandle,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // The monitor serves one client: whoever comes next must find it free.
        self.reader.abort();
    }
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// Fails when the peer is no monitor; the caller sets the deadline.
    pub async fn connect(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, Error> {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let Some(line) = read_line(&mut reader).await? else { return Err(Error::Closed) };
        let Ok(Message::Greeting { version }) = parse(&line) else { return Err(Error::NoGreeting) };
        let pending = Pending::default();
        // Twice what one boot emits; a receiver that lags loses old events only.
        let (events, _) = broadcast::channel(64);
        let (closed_sender, closed) = watch::channel(false);
        let reading = tokio::spawn(read_loop(reader, Arc::clone(&pending), events.clone(), closed_sender));
        let qmp = Self {
            version,
            writer: AsyncMutex::new(Box::new(writer)),
            pending,
            next_id: AtomicU64::new(1),
            events,
            closed,
            reader: reading.abort_handle(),
        };
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Gives QEMU's version from the greeting.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs one command and waits for its reply.
    ///
    /// # Errors
    /// Fails when QEMU refuses, breaks off or does not reply in time.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut request = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let (sender, reply) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let forget = Forget { pending: &self.pending, id };
        if *self.closed.borrow() {
            return Err(Error::Closed);
        }
        let exchange = async {
            let line = format!("{request}\r\n");
            let mut writer = self.writer.lock().await;
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await?;
            drop(writer);
            reply.await.unwrap_or(Err(Error::Closed))
        };
        let result = tokio::time::timeout(REPLY_DEADLINE, exchange).await.unwrap_or(Err(Error::Deadline));
        drop(forget);
        result
    }

    /// Subscribes to events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until QEMU has closed the connection.
    pub async fn closed(&self) {
        // An error means that the reader is gone, which is the same.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }
}

/// Drops a reply slot, also when the caller gave up waiting.
struct Forget<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn read_loop(
    mut reader: impl AsyncBufRead + Unpin,
    pending: Pending,
    events: broadcast::Sender<Event>,
    closed: watch::Sender<bool>,
) {
    while let Ok(Some(line)) = read_line(&mut reader).await {
        let (id, result) = match parse(&line) {
            Ok(Message::Return { id, value }) => (id, Ok(value)),
            Ok(Message::Error { id, class, description }) => (id, Err(Error::Refused { class, description })),
            Ok(Message::Event(event)) => {
                tracing::debug!(op = %event.name, "monitor event");
                // Nobody listening is fine.
                let _ = events.send(event);
                continue;
            }
            Ok(Message::Greeting { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, "monitor line ignored");
                continue;
            }
        };
        let slot = id.and_then(|id| pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if let Some(slot) = slot {
            let _ = slot.send(result);
        }
    }
    closed.send_replace(true);
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Reads one line of bounded length; none at the end of the stream.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(LINE_LIMIT as u64).read_until(b'\n', &mut line).await?;
    if line.len() >= LINE_LIMIT && !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
    }
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] =
        b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 9}}}}\r\n";

    /// A monitor that answers each request line by what `answer` makes of it.
    fn monitor(answer: impl Fn(&Value) -> String + Send + 'static) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(GREETING).await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let request: Value = serde_json::from_str(&line).unwrap();
                let text = answer(&request);
                if text.is_empty() {
                    return;
                }
                writer.write_all(text.as_bytes()).await.unwrap();
            }
        });
        ours
    }

    #[tokio::test]
    async fn replies_reach_their_command_and_events_everybody() {
        let stream = monitor(|request| {
            let id = &request["id"];
            match request["execute"].as_str().unwrap() {
                "qmp_capabilities" => format!("{}\n", json!({"return": {}, "id": id})),
                "bad" => format!("{}\n", json!({"error": {"class": "GenericError", "desc": "no"}, "id": id})),
                name => format!(
                    "garbage\n{}\n{}\n{}\n",
                    json!({"event": "STOP", "data": {}}),
                    json!({"return": "for nobody", "id": 999}),
                    json!({"return": name, "id": id})
                ),
            }
        });
        let qmp = Qmp::connect(stream).await.unwrap();
        assert_eq!(qmp.version(), "9.1.0");
        let mut events = qmp.events();
        assert_eq!(qmp.execute("query-status", Value::Null).await.unwrap(), json!("query-status"));
        assert_eq!(events.recv().await.unwrap().name, "STOP");
        assert!(matches!(qmp.execute("bad", Value::Null).await, Err(Error::Refused { .. })));
    }

    #[tokio::test]
    async fn command_fails_at_once_when_the_monitor_hangs_up() {
        let stream = monitor(|request| match request["execute"].as_str().unwrap() {
            "qmp_capabilities" => format!("{}\n", json!({"return": {}, "id": request["id"]})),
            _ => String::new(),
        });
        let qmp = Qmp::connect(stream).await.unwrap();
        assert!(matches!(qmp.execute("quit", Value::Null).await, Err(Error::Closed)));
        qmp.closed().await;
        assert!(matches!(qmp.execute("quit", Value::Null).await, Err(Error::Closed | Error::Io(_))));
    }

    #[tokio::test]
    async fn something_else_on_the_socket_is_refused() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        assert!(matches!(Qmp::connect(ours).await, Err(Error::NoGreeting)));
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        assert!(matches!(Qmp::connect(ours).await, Err(Error::Closed)));
    }
}
