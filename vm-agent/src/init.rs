//! `docker-init`: the process with id 1 of a container that was made with `--init`.
//!
//! The engine binds this program read-only to `/sbin/docker-init`; under that name it starts the command, passes
//! signals on, reaps what nobody else reaps, and ends with the command's exit code (128+n after signal n), as tini does.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpgrp, kill_process, kill_process_group, wait};
use rustix::termios::{isatty, tcsetpgrp};
use skiff_linux_sys::{SignalFd, signal, unblock_all};

/// The name under which the program is this process.
const NAME: &str = "docker-init";
/// Between the program and the command, in the process that becomes the command.
const BECOME: &str = "--become";

/// Signals that report a fault of this process itself or the terminal's opinion of it: not the command's business.
const KEPT: [i32; 9] = [
    Signal::FPE.as_raw(),
    Signal::ILL.as_raw(),
    Signal::SEGV.as_raw(),
    Signal::BUS.as_raw(),
    Signal::ABORT.as_raw(),
    Signal::TRAP.as_raw(),
    Signal::SYS.as_raw(),
    Signal::TTIN.as_raw(),
    Signal::TTOU.as_raw(),
];
/// The last signal's number.
const LAST: i32 = 64;
/// The C library's own, which its masks leave out.
const RESERVED: [i32; 2] = [32, 33];

/// Whether the program was started as a container's init.
pub fn is_asked_for() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&name).file_name().is_some_and(|name| name == NAME)
}

/// Runs the command to its end and returns its exit code.
pub fn run() -> u8 {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let marker = args.next();
    let Some((command, arguments)) = split(args) else {
        eprintln!("{NAME}: no command given: {NAME} -- COMMAND [ARGUMENT…]");
        return 1;
    };
    if marker.is_some_and(|marker| marker == BECOME) {
        let Err(error) = replace(&command, &arguments);
        return complain(&command, &error);
    }
    match serve(&program, &command, &arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            1
        }
    }
}

fn split(mut args: impl Iterator<Item = OsString>) -> Option<(OsString, Vec<OsString>)> {
    let command = args.next()?;
    Some((command, args.collect()))
}

/// Becomes the command, in the terminal's foreground if there is one.
fn replace(command: &OsString, arguments: &[OsString]) -> io::Result<Infallible> {
    if isatty(io::stdin()) {
        // A process of another group that changes the terminal is stopped unless it blocks the signal.
        let _blocked = SignalFd::new(&[Signal::TTOU.as_raw()])?;
        tcsetpgrp(io::stdin(), getpgrp())?;
    }
    unblock_all()?;
    Err(Command::new(command).args(arguments).exec())
}

/// Says why the command can't run, and gives the shell's exit code for it.
fn complain(command: &OsString, error: &io::Error) -> u8 {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    eprintln!("{NAME}: exec {} failed: {text}", command.to_string_lossy());
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

fn serve(program: &OsString, command: &OsString, arguments: &[OsString]) -> anyhow::Result<u8> {
    // Before the child: one that ends at once must not be missed.
    let forwarded: Vec<i32> =
        (1..=LAST).filter(|number| !KEPT.contains(number) && !RESERVED.contains(number)).collect();
    let signals = SignalFd::new(&forwarded).context("block signals")?;
    // This program once more: the signals are blocked for what it starts, too, until it says otherwise.
    let mut child = Command::new(program);
    let child = child.arg(BECOME).arg(command).args(arguments).process_group(0).spawn();
    let child = Pid::from_child(&child.context("start the command")?);
    loop {
        let mut events = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for signals"),
        }
        while let Some(received) = signals.read().context("read a signal")? {
            if received.signal == Signal::CHILD.as_raw() {
                continue;
            }
            // Gone already: its end is reported below.
            let _ = forward(child, received.signal);
        }
        // Every turn: many ends may be reported by one signal.
        if let Some(status) = reap(child)? {
            return Ok(code(status));
        }
    }
}

/// Passes a signal on to the command.
fn forward(child: Pid, number: i32) -> io::Result<()> {
    match Signal::from_named_raw(number) {
        // A terminal's stop is for everything that runs on it.
        Some(Signal::TSTP) => Ok(kill_process_group(child, Signal::TSTP)?),
        Some(named) => Ok(kill_process(child, named)?),
        None => {
            let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())?;
            signal::send(std::os::fd::AsFd::as_fd(&pidfd), number)
        }
    }
}

/// Reaps everything that has ended; returns the command's status when it is among it.
fn reap(child: Pid) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => ended = Some(ExitStatus::from_raw(status.as_raw())),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("reap"),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }

    #[test]
    fn a_command_is_needed() {
        assert_eq!(split(std::iter::empty()), None);
        let words = ["sh", "-c"].map(OsString::from);
        assert_eq!(split(words.clone().into_iter()), Some((words[0].clone(), vec![words[1].clone()])));
    }
}
