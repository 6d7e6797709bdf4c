//! A process that outlives us and may be found again.
//!
//! A process id alone names nobody: it may have been reused. So an [`Identity`] carries the start time and the boot
//! as well, and signals go through a descriptor of the process (pidfd) where the system has one.

use std::{
    fmt, io,
    process::{Child, Command},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod platform;
#[cfg(all(unix, not(target_os = "linux")))]
#[path = "unix.rs"]
mod platform;
#[cfg(windows)]
#[path = "windows.rs"]
mod platform;

/// Names one process for longer than its id does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When it started, in the system's own words.
    pub started: String,
    /// Which boot of the system this was, where the system tells.
    pub boot: String,
}

impl Identity {
    /// Takes the identity of a running process.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: platform::start_time(pid)?, boot: platform::boot_id() })
    }

    /// Tells whether exactly this process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessExit {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Unknown, since it was not our child.
    Unknown,
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit code unknown"),
        }
    }
}

/// A process: our child, or one that an earlier process of ours started.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: platform::Handle,
    exit: watch::Receiver<Option<ProcessExit>>,
}

impl Process {
    /// Starts a process in a process group of its own.
    ///
    /// # Errors
    /// Fails as `fork` and `exec` do.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        platform::detach(command);
        let mut child = command.spawn()?;
        let pid = child.id();
        let handle = match platform::Handle::open(pid) {
            Ok(handle) => handle,
            Err(error) => {
                // Without a handle it could never be stopped safely.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let (sender, exit) = watch::channel(None);
        // A thread, not a task: it reaps the child even when no runtime is left to poll.
        std::thread::Builder::new().name(format!("wait-{pid}")).spawn(move || {
            sender.send_replace(Some(reap(child)));
        })?;
        Ok(Self { pid, handle, exit })
    }

    /// Takes hold of a running process, if it still is the one that `identity` names.
    pub fn adopt(identity: &Identity) -> Option<Self> {
        let pid = identity.pid;
        let handle = platform::Handle::open(pid).ok()?;
        // Checked after the handle exists: from here on the id cannot come to mean another process.
        if !identity.is_alive() {
            return None;
        }
        let watcher = handle.try_clone().ok()?;
        let (sender, exit) = watch::channel(None);
        let identity = identity.clone();
        std::thread::Builder::new()
            .name(format!("wait-{pid}"))
            .spawn(move || {
                watcher.wait_gone(&identity);
                sender.send_replace(Some(ProcessExit::Unknown));
            })
            .ok()?;
        Some(Self { pid, handle, exit })
    }

    /// Gives the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives how the process ended, if it has.
    pub fn exit(&self) -> Option<ProcessExit> {
        *self.exit.borrow()
    }

    /// Waits for the end of the process.
    pub async fn wait(&self) -> ProcessExit {
        let mut exit = self.exit.clone();
        // The sender lives in the waiting thread, which always sends before it ends.
        match exit.wait_for(Option::is_some).await {
            Ok(value) => value.unwrap_or(ProcessExit::Unknown),
            Err(_) => ProcessExit::Unknown,
        }
    }

    /// Waits for the end of the process, but not for ever.
    pub async fn wait_for(&self, limit: Duration) -> Option<ProcessExit> {
        tokio::time::timeout(limit, self.wait()).await.ok()
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        if self.exit().is_none() {
            self.handle.terminate();
        }
    }

    /// Ends the process by force.
    pub fn kill(&self) {
        if self.exit().is_none() {
            self.handle.kill();
        }
    }
}

fn reap(mut child: Child) -> ProcessExit {
    match child.wait() {
        Ok(status) => match (status.code(), platform::signal(&status)) {
            (Some(code), _) => ProcessExit::Code(code),
            (None, Some(signal)) => ProcessExit::Signal(signal),
            (None, None) => ProcessExit::Unknown,
        },
        Err(_) => ProcessExit::Unknown,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exit_code_and_signal_of_a_child_are_told() {
        let process = Process::spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(process.wait().await, ProcessExit::Code(7));
        let process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        process.kill();
        assert_eq!(process.wait().await, ProcessExit::Signal(9));
        assert_eq!(process.wait().await, ProcessExit::Signal(9), "every caller gets it");
    }

    #[tokio::test]
    async fn process_is_adopted_only_when_it_is_the_same_one() {
        let process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        let identity = Identity::of(process.pid()).unwrap();
        let stale = Identity { started: "1".to_owned(), ..identity.clone() };
        assert!(Process::adopt(&stale).is_none(), "a reused id must never be touched");
        let adopted = Process::adopt(&identity).unwrap();
        adopted.terminate();
        assert_eq!(adopted.wait().await, ProcessExit::Unknown);
        assert_eq!(process.wait().await, ProcessExit::Signal(15));
        assert!(!identity.is_alive());
        assert!(Process::adopt(&identity).is_none());
    }
}
