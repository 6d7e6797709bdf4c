//! Programs with captured output and a deadline.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::wait_until;

/// A program with its arguments and environment, ready to be run.
#[derive(Debug, Clone)]
pub struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    variables: BTreeMap<OsString, OsString>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line as one would type it.
    pub command: String,
    /// Exit code; 128 + n for signal n.
    pub code: i32,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
}

/// A program that still runs. It is killed when dropped.
pub struct Running {
    command: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
    stdin: Option<std::process::ChildStdin>,
}

impl Program {
    /// Names a program; it inherits the environment of the test.
    pub fn new(name: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            arguments: Vec::new(),
            variables: BTreeMap::new(),
            stdin: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs another program, without the arguments so far, in the same environment.
    #[must_use]
    pub fn as_program(mut self, name: impl Into<OsString>) -> Self {
        self.name = name.into();
        self.arguments.clear();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Feeds these bytes to standard input, then closes it. Without, standard input is `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets the time after which [`run`](Self::run) kills the program and fails. Default: 60 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The command line as one would type it.
    pub fn command_line(&self) -> String {
        let mut line = self.name.to_string_lossy().into_owned();
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            line.push(' ');
            if text.is_empty()
                || text.contains(|c: char| c.is_whitespace() || "'\"$;|&<>*?()\\{}".contains(c))
            {
                line.push_str(&format!("'{}'", text.replace('\'', r"'\''")));
            } else {
                line.push_str(&text);
            }
        }
        line
    }

    /// Prepares the standard library's command.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.arguments).envs(&self.variables);
        command
    }

    /// Runs to the end. A non-zero exit code is not an error here.
    pub fn run(&self) -> anyhow::Result<Finished> {
        let mut running = self.start()?;
        match &self.stdin {
            Some(bytes) => {
                let (bytes, stdin) = (bytes.clone(), running.stdin.take());
                // A program that ends without reading everything gives EPIPE here, which is its right.
                let feeder = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&bytes)));
                let finished = running.finish(self.timeout);
                if finished.is_ok() {
                    let _ = feeder.join();
                }
                finished
            }
            None => running.finish(self.timeout),
        }
    }

    /// Starts in the background. With [`stdin`](Self::stdin) set, input is a pipe for [`Running::write`].
    pub fn start(&self) -> anyhow::Result<Running> {
        let input = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .command()
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.command_line()))?;
        let stdin = child.stdin.take();
        let stdout = Capture::of(child.stdout.take().context("stdout is a pipe")?);
        let stderr = Capture::of(child.stderr.take().context("stderr is a pipe")?);
        Ok(Running { command: self.command_line(), child, stdout, stderr, stdin })
    }
}

impl Finished {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless the exit code is `code`.
    pub fn exits(self, code: i32) -> anyhow::Result<Self> {
        if self.code != code {
            bail!("expected exit code {code}\n{self}");
        }
        Ok(self)
    }

    /// Fails unless the exit code is 0.
    pub fn ok(self) -> anyhow::Result<Self> {
        self.exits(0)
    }

    /// Fails unless standard output is exactly `text`.
    pub fn prints(self, text: &str) -> anyhow::Result<Self> {
        if self.stdout != text.as_bytes() {
            bail!("expected stdout {text:?}\n{self}");
        }
        Ok(self)
    }

    /// Fails unless standard output contains `text`.
    pub fn shows(self, text: &str) -> anyhow::Result<Self> {
        if !self.out().contains(text) {
            bail!("expected {text:?} in stdout\n{self}");
        }
        Ok(self)
    }

    /// Fails unless standard error contains `text`.
    pub fn complains(self, text: &str) -> anyhow::Result<Self> {
        if !self.err().contains(text) {
            bail!("expected {text:?} in stderr\n{self}");
        }
        Ok(self)
    }

    /// Fails unless standard output has so many lines.
    pub fn has_lines(self, count: usize) -> anyhow::Result<Self> {
        if self.out().lines().count() != count {
            bail!("expected {count} lines in stdout\n{self}");
        }
        Ok(self)
    }

    /// Fails unless `text` is on either output: docker's exec writes some of its errors to the container's output.
    pub fn complains_anywhere(self, text: &str) -> anyhow::Result<Self> {
        if !self.err().contains(text) && !self.out().contains(text) {
            bail!("expected {text:?} in stdout or stderr\n{self}");
        }
        Ok(self)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  command: {}", self.command)?;
        writeln!(f, "  exit code: {}", self.code)?;
        block(f, "stdout", &self.stdout)?;
        block(f, "stderr", &self.stderr)
    }
}

fn block(f: &mut fmt::Formatter<'_>, title: &str, bytes: &[u8]) -> fmt::Result {
    const SHOWN: usize = 3000;
    writeln!(f, "  {title} ({} bytes):", bytes.len())?;
    let tail = &bytes[bytes.len().saturating_sub(SHOWN)..];
    String::from_utf8_lossy(tail).lines().try_for_each(|line| writeln!(f, "    | {line}"))
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Writes to standard input (a pipe only if the program was given some).
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is not a pipe")?;
        stdin.write_all(bytes).with_context(|| format!("write to {}", self.command))
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Everything on standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes().clone()
    }

    /// Waits until standard output contains `text`.
    pub fn wait_for(&self, text: &str, patience: Duration) -> anyhow::Result<()> {
        if self.stdout.wait_for(patience, |bytes| contains(bytes, text.as_bytes())) {
            return Ok(());
        }
        bail!("waited {:.1} s in vain for {text:?}\n{}", patience.as_secs_f64(), self.so_far());
    }

    /// Waits until standard error contains `text`.
    pub fn wait_for_complaint(&self, text: &str, patience: Duration) -> anyhow::Result<()> {
        if self.stderr.wait_for(patience, |bytes| contains(bytes, text.as_bytes())) {
            return Ok(());
        }
        bail!("waited {:.1} s in vain for {text:?} on stderr\n{}", patience.as_secs_f64(), self.so_far());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {}", self.command))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end; after `patience` it is killed and this fails with what it said so far.
    pub fn finish(mut self, patience: Duration) -> anyhow::Result<Finished> {
        let mut status = None;
        let ended = wait_until("the end", patience, || {
            status = self.child.try_wait().ok().flatten();
            status
        });
        let Ok(status) = ended else {
            bail!("still running after {:.1} s\n{}", patience.as_secs_f64(), self.so_far());
        };
        // Background children of the program may hold the pipes open for ever: don't wait for them without end.
        self.stdout.wait_for_end(Duration::from_secs(5));
        self.stderr.wait_for_end(Duration::from_secs(5));
        Ok(self.finished(code(status)))
    }

    fn so_far(&self) -> Finished {
        self.finished(-1)
    }

    fn finished(&self, code: i32) -> Finished {
        Finished {
            command: self.command.clone(),
            code,
            stdout: self.stdout.bytes().clone(),
            stderr: self.stderr.bytes().clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shell's view of an exit status: 128 + n for signal n.
pub fn code(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Whether `needle` occurs in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle)
}

/// Bytes collected by a thread.
pub(crate) struct Capture {
    shared: Arc<(Mutex<State>, Condvar)>,
    _thread: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    pub(crate) fn of(mut from: impl Read + Send + 'static) -> Self {
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = from.read(&mut buffer);
                let mut state = theirs.0.lock().unwrap_or_else(PoisonError::into_inner);
                match read {
                    Ok(count) if count > 0 => state.bytes.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // A terminal gives EIO when its other side is closed.
                    _ => state.ended = true,
                }
                theirs.1.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        Self { shared, _thread: thread }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> impl std::ops::Deref<Target = Vec<u8>> + '_ {
        Bytes(self.state())
    }

    /// Waits until `enough` holds of the bytes; gives up at the end of the stream or of `patience`.
    pub(crate) fn wait_for(&self, patience: Duration, enough: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if enough(&state.bytes) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return false;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn wait_for_end(&self, patience: Duration) {
        self.wait_for(patience, |_| false);
    }
}

struct Bytes<'a>(MutexGuard<'a, State>);

impl std::ops::Deref for Bytes<'_> {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0.bytes
    }
}
