//! A small HTTP server whose answers are a function of the request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub lie: Lie,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    Nothing,
    /// The head says another length.
    Length(usize),
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
    /// The connection is closed without a word.
    Silence,
    /// Nothing comes after so many bytes of the body, and the connection stays open.
    Stall(usize),
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), lie: Lie::Nothing }
    }

    pub fn lying(mut self, lie: Lie) -> Answer {
        self.lie = lie;
        self
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

pub struct Server {
    pub port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, log) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let for_task = Arc::clone(&log);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&for_task));
                tokio::spawn(async move { serve(stream, &*answer, &log).await });
            }
        });
        Server { port, log, task }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

async fn serve(
    stream: TcpStream,
    answer: &(impl Fn(&Asked) -> Answer + Sync),
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.ok().filter(|n| *n > 0)?;
        let line = String::from_utf8(line).ok()?;
        let mut words = line.split(' ');
        let mut asked =
            Asked { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Asked::default() };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        asked.body = String::from_utf8(body).ok()?;
        log.lock().unwrap().push(asked.clone());
        let answer = answer(&asked);
        if answer.lie == Lie::Silence {
            return None;
        }
        let length = match answer.lie {
            Lie::Length(length) => length,
            _ => answer.body.len(),
        };
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {length}\r\n", answer.status);
        for (name, value) in answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
        let sent = match answer.lie {
            Lie::Cut(sent) | Lie::Stall(sent) => sent.min(answer.body.len()),
            Lie::Nothing | Lie::Length(_) | Lie::Silence => answer.body.len(),
        };
        stream.write_all(&answer.body[..sent]).await.ok()?;
        stream.flush().await.ok()?;
        match answer.lie {
            Lie::Nothing => {}
            Lie::Length(_) | Lie::Cut(_) | Lie::Silence => return None,
            Lie::Stall(_) => std::future::pending().await,
        }
    }
}
