//! Terminals, and the wait for a command that belongs to this process.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use skiff_linux_sys::{SignalFd, fd_passing, signal};
use skiff_runtime::Io;

/// Signals that go on to the command.
const FORWARDED: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::WINCH];

/// A terminal of the size that the process wants, or of ours.
pub fn io(process: Option<&Process>) -> Io {
    let wanted = process.and_then(|process| process.console_size());
    let number = |size: u64| u16::try_from(size).unwrap_or(u16::MAX);
    let size = match wanted {
        Some(size) => Some((number(size.width()), number(size.height()))),
        None => tcgetwinsize(io::stdin()).ok().map(|size| (size.ws_col, size.ws_row)),
    };
    Io::Terminal { size }
}

/// Sends a terminal's master to the socket at `path`, as runc does: with the terminal's name as the message.
pub fn send(master: BorrowedFd<'_>, path: &Path) -> anyhow::Result<()> {
    let socket =
        UnixStream::connect(path).with_context(|| format!("connect to console socket {}", path.display()))?;
    fd_passing::send(&socket, b"/dev/ptmx", &[master]).context("send the terminal")?;
    Ok(())
}

/// Waits for a child of ours.
pub fn reap(pid: i32) -> Option<u8> {
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).ok()??;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
}

/// The wait for a command in the foreground; signals that arrive before it begins are not lost.
pub struct Forward(Option<SignalFd>);

impl Forward {
    /// Prepares the wait, if there is to be one, before the command runs.
    pub fn prepare(foreground: bool) -> anyhow::Result<Self> {
        let numbers: Vec<i32> = FORWARDED.iter().map(|signal| signal.as_raw()).collect();
        foreground.then(|| SignalFd::new(&numbers)).transpose().map(Self).context("block signals")
    }

    /// Passes signals and, with a terminal, bytes on until the process has ended; returns its exit code.
    pub fn until_end(self, pid: i32, pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> anyhow::Result<u8> {
        let Some(signals) = self.0 else { return Ok(0) };
        let raw = master.as_ref().and_then(|_| Raw::set());
        let result = serve(&signals, pidfd, master.as_ref());
        drop(raw);
        result?;
        reap(pid).context("the command's exit code is not known")
    }
}

fn serve(signals: &SignalFd, pidfd: BorrowedFd<'_>, master: Option<&OwnedFd>) -> anyhow::Result<()> {
    let stdin = io::stdin();
    let (mut input, mut output) = (master.is_some(), master.is_some());
    loop {
        let mut events =
            vec![PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        if let (Some(master), true) = (master, output) {
            events.push(PollFd::new(master, PollFlags::IN));
            if input {
                events.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the command"),
        }
        let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
        drop(events);
        if ready[0] {
            pass_on(signals, pidfd, master)?;
        }
        if let Some(master) = master {
            if ready.get(2) == Some(&true) {
                output = copy(master.as_fd(), &mut io::stdout());
            }
            if ready.get(3) == Some(&true) {
                let mut writer = std::fs::File::from(master.try_clone()?);
                input = copy(stdin.as_fd(), &mut writer);
            }
        }
        // What it wrote last comes first: the terminal is read until it has nothing more.
        if ready[1] && (!output || ready.get(2) != Some(&true)) {
            return Ok(());
        }
    }
}

fn pass_on(signals: &SignalFd, pidfd: BorrowedFd<'_>, master: Option<&OwnedFd>) -> anyhow::Result<()> {
    while let Some(received) = signals.read().context("read a signal")? {
        if received.signal == Signal::WINCH.as_raw() {
            if let (Some(master), Ok(size)) = (master, tcgetwinsize(io::stdin())) {
                let _ = tcsetwinsize(master, size);
            }
            continue;
        }
        // Gone already: the wait is about to end.
        let _ = signal::send(pidfd, received.signal);
    }
    Ok(())
}

/// Copies what can be read at once; false at the end.
fn copy(from: BorrowedFd<'_>, to: &mut impl Write) -> bool {
    let mut buffer = [0u8; 32 * 1024];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(length) => to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_ok(),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        // EIO: no process has the terminal open any more.
        Err(_) => false,
    }
}

/// Our own terminal, in raw mode as long as this lives.
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
