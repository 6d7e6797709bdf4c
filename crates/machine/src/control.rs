//! The control service of the guest: JSON lines over a `control` stream.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"hello"}` | `{"version":…,"kernel":…,"uptime":seconds,"held":whether it stands before its data disk}` |
//! | `{"op":"time","unix_ns":…}` | `{}`; the guest's clock is set |
//! | `{"op":"authorize","key":"ssh-ed25519 …"}` | `{}`; the key may log in over `shell` |
//! | `{"op":"status"}` | `{"containers_running":…,"connections":…}` |
//! | `{"op":"listeners","container":id}` | `{"listeners":[{"transport":"tcp","address":…},…]}` |
//! | `{"op":"sleep"}` | `{}`; containers stand still and memory that nobody needs is free, until `wake` or half a minute later |
//! | `{"op":"wake","unix_ns":…,"seed":hex}` | `{}`; the clock is set, the random pool has the seed, and containers go on; the data disk is opened if it is not yet |
//! | `{"op":"template"}` | `{}` once the guest stands before its data disk with everything else done |
//! | `{"op":"trim"}` | `{}`; free blocks of the data disk are given back |
//! | `{"op":"shutdown"}` | `{}`; the guest stops its containers and powers off |
//!
//! Any answer may be `{"error":"reason"}` instead. Unknown members are ignored on both sides.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use skiff_link::{Args, BoxStream, Link, OpenError, StreamHeader};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Longest accepted answer.
const LINE_LIMIT: u64 = 64 << 10;
/// An agent that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// The same when it has a disk to write, or to mend.
const DISK_DEADLINE: Duration = Duration::from_secs(60);

/// What the guest is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Who are you?
    Hello,
    /// Set the clock.
    Time {
        /// Nanoseconds since 1970.
        unix_ns: u64,
    },
    /// Let a key log in.
    Authorize {
        /// The public key as in `authorized_keys`.
        key: String,
    },
    /// What is going on?
    Status,
    /// Who listens inside a container?
    Listeners {
        /// Its id or name.
        container: String,
    },
    /// Let containers stand still and free memory, since the guest will be saved.
    Sleep,
    /// Get ready to be saved as a template.
    Template,
    /// Set the clock, stir the random pool, open the data disk, and let containers go on that stand still.
    Wake {
        /// Nanoseconds since 1970.
        unix_ns: u64,
        /// Random bytes, in hexadecimal digits.
        seed: String,
    },
    /// Give free blocks of the data disk back.
    Trim,
    /// Power off.
    Shutdown,
}

/// What the guest says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Seconds since the guest booted.
    pub uptime: f64,
    /// Whether it stands before its data disk.
    pub held: bool,
}

/// What goes on in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Containers that run, or would if they were not paused.
    pub containers_running: u64,
    /// Those of them that are paused.
    pub containers_paused: u64,
    /// Connections to the engine.
    pub connections: u64,
}

/// A socket that waits inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// `tcp` or `udp`.
    pub transport: String,
    /// Where it waits, as the container sees it.
    pub address: SocketAddr,
}

/// Why the guest did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream could not be opened.
    #[error("cannot reach the guest's control service")]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error("lost the guest's control service")]
    Io(#[from] io::Error),
    /// The answer makes no sense.
    #[error("the guest's answer makes no sense")]
    Answer(#[from] serde_json::Error),
    /// The guest hung up without an answer.
    #[error("the guest hung up without an answer")]
    HungUp,
    /// There was no answer in time.
    #[error("the guest did not answer in time")]
    Deadline,
    /// The guest refused.
    #[error("the guest refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
}

/// A conversation with the guest's control service.
pub struct Client {
    stream: BufReader<BoxStream>,
}

impl Client {
    /// Opens a control stream.
    ///
    /// # Errors
    /// Fails when the guest refuses or the link is gone.
    pub async fn open(link: &Link) -> Result<Self, Error> {
        let open = link.open(&StreamHeader { args: Args::Control {} });
        let stream = tokio::time::timeout(DEADLINE, open).await.map_err(|_| Error::Deadline)??;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks who the guest is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hello(&mut self) -> Result<Hello, Error> {
        self.ask(&Request::Hello).await
    }

    /// Sets the guest's clock to ours.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_time(&mut self) -> Result<(), Error> {
        self.tell(&Request::Time { unix_ns: now_ns() }).await
    }

    /// Lets a public key log in.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn authorize(&mut self, key: &str) -> Result<(), Error> {
        self.tell(&Request::Authorize { key: key.to_owned() }).await
    }

    /// Asks what goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.ask(&Request::Status).await
    }

    /// Asks who listens inside a container, by id or name.
    ///
    /// # Errors
    /// See [`Error`]; an older agent refuses.
    pub async fn listeners(&mut self, container: &str) -> Result<Vec<Listening>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            listeners: Vec<Listening>,
        }
        let request = Request::Listeners { container: container.to_owned() };
        Ok(self.ask::<Answer>(&request).await?.listeners)
    }

    /// Prepares the guest for being saved.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sleep(&mut self) -> Result<(), Error> {
        self.tell_patiently(&Request::Sleep).await
    }

    /// Tells the guest the time and gives it fresh randomness; one that stood still, or before its data disk, goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wake(&mut self) -> Result<(), Error> {
        let mut seed = [0; 64];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        self.tell_patiently(&Request::Wake { unix_ns: now_ns(), seed: hex::encode(seed) }).await
    }

    /// Waits until the guest can be saved as a template.
    ///
    /// # Errors
    /// See [`Error`]; an older agent refuses, and one that has opened its data disk.
    pub async fn template(&mut self) -> Result<(), Error> {
        self.tell_patiently(&Request::Template).await
    }

    /// Lets the guest give free blocks of its disk back.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn trim(&mut self) -> Result<(), Error> {
        self.tell(&Request::Trim).await
    }

    /// Asks the guest to stop its containers and to power off.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        self.tell(&Request::Shutdown).await
    }

    async fn tell(&mut self, request: &Request) -> Result<(), Error> {
        self.ask::<Value>(request).await.map(|_| ())
    }

    /// Asks for what may have to wait for the disk.
    async fn tell_patiently(&mut self, request: &Request) -> Result<(), Error> {
        let tell = self.exchange::<Value>(request);
        tokio::time::timeout(DISK_DEADLINE, tell).await.map_err(|_| Error::Deadline)?.map(|_| ())
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Error> {
        tokio::time::timeout(DEADLINE, self.exchange(request)).await.map_err(|_| Error::Deadline)?
    }

    async fn exchange<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Error> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.write_all(&line).await?;
        self.stream.flush().await?;
        line.clear();
        (&mut self.stream).take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(Error::HungUp);
        }
        let value: Value = serde_json::from_slice(&line)?;
        if let Some(reason) = value.get("error") {
            let reason = reason.as_str().map_or_else(|| reason.to_string(), str::to_owned);
            return Err(Error::Refused { reason });
        }
        Ok(serde_json::from_value(value)?)
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Good until the year 2554.
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        let text = |request: &Request| serde_json::to_string(request).unwrap();
        assert_eq!(text(&Request::Hello), r#"{"op":"hello"}"#);
        assert_eq!(text(&Request::Time { unix_ns: 5 }), r#"{"op":"time","unix_ns":5}"#);
        assert_eq!(text(&Request::Authorize { key: "k".into() }), r#"{"op":"authorize","key":"k"}"#);
        assert_eq!(
            text(&Request::Listeners { container: "web".into() }),
            r#"{"op":"listeners","container":"web"}"#
        );
        assert_eq!(text(&Request::Sleep), r#"{"op":"sleep"}"#);
        assert_eq!(
            text(&Request::Wake { unix_ns: 5, seed: "00ff".into() }),
            r#"{"op":"wake","unix_ns":5,"seed":"00ff"}"#
        );
        assert_eq!(text(&Request::Template), r#"{"op":"template"}"#);
        assert_eq!(text(&Request::Shutdown), r#"{"op":"shutdown"}"#);
    }

    #[test]
    fn answers_may_grow() {
        let hello: Hello =
            serde_json::from_str(r#"{"version":"1","kernel":"6.12","uptime":2.5,"new":1}"#).unwrap();
        assert_eq!(hello.uptime, 2.5);
        let status: Status = serde_json::from_str(r#"{"containers_running":3}"#).unwrap();
        assert_eq!((status.containers_running, status.connections), (3, 0));
    }
}
