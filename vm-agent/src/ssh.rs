//! The SSH server behind the link's `shell` service: `skiff machine ssh`, port forwards of editors.
//!
//! A client proves itself with the per-install key that the daemon has sent over `control`. The host key is made for the
//! first client of a boot, and never before: a guest that starts from a template has none in common with another. The
//! private link, not the key, is what tells the client whom it talks to.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use russh::keys::{PrivateKey, PublicKey, PublicKeyBase64, ssh_key};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, MethodKind, MethodSet};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};

use self::input::{Backlog, Backlogs, Input};
use crate::pty::{PtyInput, PtyMaster};

mod input;

/// The keys that may log in, shared with the `control` service.
#[derive(Debug, Clone, Default)]
pub struct AuthorizedKeys(Arc<Mutex<Vec<PublicKey>>>);

impl AuthorizedKeys {
    /// Lets the holder of a key in; `line` is in the format of `authorized_keys` (sshd(8)).
    pub fn add(&self, line: &str) -> anyhow::Result<()> {
        let key = PublicKey::from_openssh(line.trim()).context("parse the public key")?;
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.iter().any(|known| known.key_data() == key.key_data()) {
            keys.push(key);
        }
        Ok(())
    }

    fn contains(&self, key: &PublicKey) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().any(|known| known.public_key_bytes() == key.public_key_bytes())
    }
}

/// Serves SSH connections.
#[derive(Clone)]
pub struct SshServer {
    config: Arc<OnceLock<Arc<russh::server::Config>>>,
    keys: AuthorizedKeys,
}

impl SshServer {
    /// Makes a server.
    pub fn new(keys: AuthorizedKeys) -> Self {
        Self { config: Arc::default(), keys }
    }

    /// The configuration, with a fresh host key the first time.
    fn config(&self) -> anyhow::Result<Arc<russh::server::Config>> {
        let mut seed = [0; 32];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .context("read random bytes")?;
        let config = self.config.get_or_init(|| {
            let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
            Arc::new(russh::server::Config {
                methods: MethodSet::from(&[MethodKind::PublicKey][..]),
                auth_rejection_time: std::time::Duration::from_millis(200),
                keys: vec![PrivateKey::from(pair)],
                window_size: 2 << 20,
                // Room for what arrives while a command does not read: a full buffer stalls the whole session.
                channel_buffer_size: 1024,
                ..Default::default()
            })
        });
        Ok(Arc::clone(config))
    }

    /// Serves one connection to its end.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> anyhow::Result<()> {
        let client = Client { keys: self.keys.clone(), backlogs: Backlogs::default() };
        let stream = never_blocked(stream);
        let session = russh::server::run_stream(self.config()?, stream, client).await?;
        session.await?;
        Ok(())
    }
}

/// Most bytes that may wait for a client to read them: its windows on a few dozen channels.
const OUTPUT: usize = 64 << 20;

/// A stream whose writer does not wait for the other end to read.
///
/// russh writes without reading, at both ends: once the stream's two directions are full, as with `cat` and much input,
/// each end waits for the other for ever. It is enough that one end always goes on. The window that the client grants
/// bounds what waits here.
fn never_blocked(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let (from_client, mut to_client) = tokio::io::split(stream);
    // Not `simplex`: its reader is not told when the writer is dropped, and the stream would stay open for ever.
    let (mut waiting, queue) = tokio::io::duplex(OUTPUT);
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut waiting, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    tokio::io::join(from_client, queue)
}

/// One connection: who may log in, and which requests are granted. What a session then does is in [`run_session`].
struct Client {
    keys: AuthorizedKeys,
    backlogs: Backlogs,
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(if self.keys.contains(key.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let backlog = self.backlogs.open(channel.id());
        reply.accept().await;
        tokio::spawn(run_session(channel, backlog));
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        _data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.backlogs.ease(channel).await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.backlogs.close(channel);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(()) };
        // Dropping the reply refuses the channel.
        let Ok(target) = tokio::net::TcpStream::connect((host, port)).await else { return Ok(()) };
        let backlog = self.backlogs.open(channel.id());
        reply.accept().await;
        tokio::spawn(forward(channel, target, backlog));
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _pixel_width: u32,
        _pixel_height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}

/// What a client asked for before its command starts.
#[derive(Default)]
struct Wishes {
    environment: Vec<(String, String)>,
    terminal: Option<(String, Winsize)>,
}

/// Serves one session channel: collects the wishes, runs the command, reports its end.
async fn run_session(mut channel: Channel<Msg>, backlog: Arc<Backlog>) {
    let mut wishes = Wishes::default();
    let command = loop {
        match channel.wait().await {
            Some(ChannelMsg::RequestPty { term, col_width, row_height, .. }) => {
                wishes.terminal = Some((term, window_size(col_width, row_height)));
            }
            Some(ChannelMsg::SetEnv { variable_name, variable_value, .. }) => {
                wishes.environment.push((variable_name, variable_value));
            }
            Some(ChannelMsg::RequestShell { .. }) => break None,
            Some(ChannelMsg::Exec { command, .. }) => break Some(command.to_vec()),
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    };
    let code = match run_command(&mut channel, wishes, command, backlog).await {
        Ok(code) => code,
        Err(error) => {
            let text = format!("skiff: {error:#}\r\n");
            let _ = channel.extended_data(1, text.as_bytes()).await;
            255
        }
    };
    // The client may have gone: then nobody is left to be told.
    let _ = channel.exit_status(code).await;
    let _ = channel.eof().await;
    let _ = channel.close().await;
}

async fn run_command(
    channel: &mut Channel<Msg>,
    wishes: Wishes,
    command: Option<Vec<u8>>,
    backlog: Arc<Backlog>,
) -> anyhow::Result<u32> {
    install_applets();
    let mut process = Command::new("/bin/busybox");
    process.arg("setsid");
    if wishes.terminal.is_some() {
        // Makes the pty the controlling terminal, which std can't do without unsafe code.
        process.arg("-c");
    }
    process.arg("/bin/sh");
    match command {
        Some(text) => {
            use std::os::unix::ffi::OsStringExt;
            process.arg("-c").arg(std::ffi::OsString::from_vec(text))
        }
        None => process.arg("-l"),
    };
    process
        .env_clear()
        .envs([
            ("HOME", "/root"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("USER", "root"),
            ("SHELL", "/bin/sh"),
        ])
        .envs(wishes.environment)
        .kill_on_drop(true)
        .current_dir("/");
    match wishes.terminal {
        Some((term, size)) => {
            process.env("TERM", term);
            with_terminal(channel, process, size, backlog).await
        }
        None => with_pipes(channel, process, backlog).await,
    }
}

async fn with_terminal(
    channel: &mut Channel<Msg>,
    mut process: Command,
    size: Winsize,
    backlog: Arc<Backlog>,
) -> anyhow::Result<u32> {
    let (master, slave) = open_pty(size).context("open a terminal")?;
    process
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    let mut child = process.spawn().context("start the shell")?;
    drop(process); // it holds the slave: the master would never see the end
    let master = Arc::new(PtyMaster::new(master)?);

    let mut output = channel.make_writer();
    let reader = Arc::clone(&master);
    let mut pump = tokio::spawn(async move {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if output.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = output.flush().await;
    });
    let input = Input::to(PtyInput(Arc::clone(&master)), backlog);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            message = channel.wait() => match message {
                Some(ChannelMsg::Data { data }) => input.push(data),
                Some(ChannelMsg::Eof) => input.push(Bytes::from_static(&[4])),
                Some(ChannelMsg::WindowChange { col_width, row_height, .. }) => master.resize(window_size(col_width, row_height))?,
                Some(ChannelMsg::Close) | None => {
                    child.kill().await?;
                    break child.wait().await?;
                }
                Some(_) => {}
            },
        }
    };
    // A background process may keep the terminal open; the shell's own output is there at once.
    if tokio::time::timeout(std::time::Duration::from_secs(1), &mut pump).await.is_err() {
        pump.abort();
    }
    Ok(exit_code(status))
}

async fn with_pipes(
    channel: &mut Channel<Msg>,
    mut process: Command,
    backlog: Arc<Backlog>,
) -> anyhow::Result<u32> {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = process.spawn().context("start the command")?;
    let mut input = Some(Input::to(child.stdin.take().context("piped")?, backlog));
    let stdout = tokio::spawn(pump(child.stdout.take().context("piped")?, channel.make_writer()));
    let stderr = tokio::spawn(pump(child.stderr.take().context("piped")?, channel.make_writer_ext(Some(1))));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            message = channel.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if let Some(input) = &input {
                        input.push(data);
                    }
                }
                Some(ChannelMsg::Eof) => input = None,
                Some(ChannelMsg::Close) | None => {
                    child.kill().await?;
                    break child.wait().await?;
                }
                Some(_) => {}
            },
        }
    };
    let _ = tokio::join!(stdout, stderr);
    Ok(exit_code(status))
}

/// Carries one forwarded connection.
async fn forward(channel: Channel<Msg>, target: tokio::net::TcpStream, backlog: Arc<Backlog>) {
    let (mut messages, writer) = channel.split();
    let (from_target, to_target) = target.into_split();
    let output = writer.make_writer();
    let output = tokio::spawn(async move {
        pump(from_target, output).await;
        let _ = writer.eof().await;
        writer
    });
    let mut input = Some(Input::to(to_target, backlog));
    loop {
        match messages.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if let Some(input) = &input {
                    input.push(data);
                }
            }
            Some(ChannelMsg::Eof) => {
                input = None;
                break;
            }
            Some(ChannelMsg::Close) | None => {
                output.abort();
                return;
            }
            Some(_) => {}
        }
    }
    drop(input);
    if let Ok(writer) = output.await {
        let _ = writer.close().await;
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, to: impl AsyncWrite) {
    let mut to = std::pin::pin!(to);
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "session output ended");
    }
}

fn open_pty(size: Winsize) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    rustix::termios::tcsetwinsize(&master, size)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
    Ok((master, slave))
}

fn window_size(columns: u32, rows: u32) -> Winsize {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize { ws_row: clamp(rows), ws_col: clamp(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

fn exit_code(status: std::process::ExitStatus) -> u32 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u32::try_from(code).unwrap_or(255)
}

/// Gives busybox its names, once: hundreds of links that a boot need not wait for.
fn install_applets() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let done = std::fs::create_dir_all("/root").and_then(|()| {
            std::process::Command::new("/bin/busybox").args(["--install", "-s", "/bin"]).status().map(drop)
        });
        if let Err(error) = done {
            tracing::warn!(%error, "debug shell has no commands");
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn dropping_a_session_ends_its_stream_after_the_last_byte() {
        let (mut client, stream) = tokio::io::duplex(16);
        let mut session = never_blocked(stream);
        session.write_all(&[7; 4096]).await.unwrap();
        drop(session);
        let mut all = Vec::new();
        let end = client.read_to_end(&mut all);
        tokio::time::timeout(std::time::Duration::from_secs(10), end).await.unwrap().unwrap();
        assert_eq!(all, [7; 4096]);
    }
}
