//! Processes on other unix systems: plain signals, guarded by the start time that `ps` tells.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::Identity;

#[derive(Debug)]
pub(super) struct Handle(Pid);

impl Handle {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        test_kill_process(pid)?;
        Ok(Self(pid))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0))
    }

    pub(super) fn terminate(&self) {
        let _ = kill_process(self.0, Signal::TERM);
    }

    pub(super) fn kill(&self) {
        let _ = kill_process(self.0, Signal::KILL);
    }

    pub(super) fn wait_gone(&self, identity: &Identity) {
        while identity.is_alive() {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

pub(super) fn start_time(pid: u32) -> Option<String> {
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

pub(super) fn boot_id() -> String {
    String::new()
}

pub(super) fn detach(command: &mut Command) {
    command.process_group(0);
}

pub(super) fn signal(status: &ExitStatus) -> Option<i32> {
    status.signal()
}
