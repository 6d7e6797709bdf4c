//! Processes on Linux: pidfd, `/proc/PID/stat`, boot id.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt, unix::process::ExitStatusExt},
    process::{Command, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::Identity;

#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl Handle {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(super) fn terminate(&self) {
        // ESRCH: it is gone already, which is what was asked for.
        let _ = pidfd_send_signal(&self.0, Signal::TERM);
    }

    pub(super) fn kill(&self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// Blocks until the process is gone; a pidfd becomes readable then (pidfd_open(2)).
    pub(super) fn wait_gone(&self, _identity: &Identity) {
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), counted after the name, which may hold blanks and brackets.
pub(super) fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    // A zombie is as good as gone.
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18).map(str::to_owned)
}

pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

pub(super) fn detach(command: &mut Command) {
    command.process_group(0);
}

pub(super) fn signal(status: &ExitStatus) -> Option<i32> {
    status.signal()
}
