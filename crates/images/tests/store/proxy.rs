//! A TCP proxy that counts, cuts, stalls, and hides the `Range` header.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What to do with the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Nothing,
    /// Close the connection after so many bytes of answers.
    Cut(u64),
    /// Stop passing bytes after so many, but keep the connection.
    Stall(u64),
}

#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    down: AtomicU64,
    troubles_left: AtomicI64,
    troubles_done: AtomicUsize,
    hide_range: bool,
    ranges: Mutex<Vec<String>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy that makes the trouble `times` times, on connections that carry enough bytes.
    pub async fn start(upstream: u16, trouble: Trouble, times: i64, hide_range: bool) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            down: AtomicU64::new(0),
            troubles_left: AtomicI64::new(times),
            troubles_done: AtomicUsize::new(0),
            hide_range,
            ranges: Mutex::default(),
        });
        let for_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream, trouble, Arc::clone(&for_task)));
            }
        });
        Proxy { port, shared, task }
    }

    /// Bytes of answers so far.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    pub fn troubles(&self) -> usize {
        self.shared.troubles_done.load(Ordering::SeqCst)
    }

    /// The `Range` headers that clients have sent.
    pub fn ranges(&self) -> Vec<String> {
        self.shared.ranges.lock().unwrap().clone()
    }
}

async fn pass(client: TcpStream, upstream: u16, trouble: Trouble, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let for_up = Arc::clone(&shared);
    let up = tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n) = from_client.read(&mut buffer).await {
            if n == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if let Some(line) = text.lines().find(|l| l.to_ascii_lowercase().starts_with("range:")) {
                for_up.ranges.lock().unwrap().push(line.to_owned());
                if for_up.hide_range {
                    let at = text.find(line).unwrap();
                    buffer[at] = b'x';
                }
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    loop {
        let n = match from_server.read(&mut buffer).await {
            Ok(n) if n > 0 => n as u64,
            _ => break,
        };
        let (limit, stall) = match trouble {
            Trouble::Nothing => (u64::MAX, false),
            Trouble::Cut(at) => (at, false),
            Trouble::Stall(at) => (at, true),
        };
        let reached = passed + n >= limit;
        let trouble = reached && shared.troubles_left.fetch_sub(1, Ordering::SeqCst) > 0;
        let n = if trouble { limit - passed } else { n };
        if to_client.write_all(&buffer[..n as usize]).await.is_err() {
            break;
        }
        passed += n;
        shared.down.fetch_add(n, Ordering::SeqCst);
        if trouble {
            shared.troubles_done.fetch_add(1, Ordering::SeqCst);
            if stall {
                std::future::pending::<()>().await;
            }
            break;
        }
        if reached {
            // No trouble left: never look at the limit again.
            let copied = tokio::io::copy(&mut Counting(&mut from_server, &shared), &mut to_client).await;
            drop(copied);
            break;
        }
    }
    up.abort();
}

/// Counts what a reader gives.
struct Counting<'a, R>(&'a mut R, &'a Shared);

impl<R: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Counting<'_, R> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = std::pin::Pin::new(&mut *self.0).poll_read(cx, buf);
        self.1.down.fetch_add((buf.filled().len() - before) as u64, Ordering::SeqCst);
        result
    }
}
