//! Processes on Windows, through the system's own tools: starts and ends are rare.

use std::{
    io,
    os::windows::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use super::Identity;

/// `CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP` (process creation flags of CreateProcess).
const DETACHED: u32 = 0x0800_0000 | 0x0000_0200;

#[derive(Debug)]
pub(super) struct Handle(u32);

impl Handle {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self(pid))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0))
    }

    /// Console programs without a window cannot be asked.
    pub(super) fn terminate(&self) {
        self.kill();
    }

    pub(super) fn kill(&self) {
        let _ = Command::new("taskkill")
            .args(["/F", "/PID", &self.0.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .creation_flags(DETACHED)
            .status();
    }

    pub(super) fn wait_gone(&self, identity: &Identity) {
        while identity.is_alive() {
            std::thread::sleep(Duration::from_millis(1000));
        }
    }
}

pub(super) fn start_time(pid: u32) -> Option<String> {
    let script = format!("(Get-Process -Id {pid} -ErrorAction Stop).StartTime.ToFileTimeUtc()");
    let output = Command::new("powershell")
        .args(["-NoProfile", "-NonInteractive", "-Command", &script])
        .creation_flags(DETACHED)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

pub(super) fn boot_id() -> String {
    String::new()
}

pub(super) fn detach(command: &mut Command) {
    command.creation_flags(DETACHED);
}

pub(super) fn signal(_status: &ExitStatus) -> Option<i32> {
    None
}
