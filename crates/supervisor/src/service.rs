//! A program that the supervisor keeps running.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;

/// A run shorter than this counts as a failed start.
const STEADY: Duration = Duration::from_secs(5);
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name in logs.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// A service with its present process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) service: Service,
    pub(crate) child: Option<Child>,
    started: Instant,
    quick_ends: u32,
    pub(crate) start_at: Option<Instant>,
}

impl Running {
    pub(crate) fn new(service: Service) -> Self {
        let now = Instant::now();
        Self { service, child: None, started: now, quick_ends: 0, start_at: Some(now) }
    }

    /// Starts the process; `inherited` are handed over and named in the environment.
    pub(crate) fn start(&mut self, inherited: Option<[OwnedFd; 2]>) {
        self.started = Instant::now();
        self.start_at = None;
        let mut command = Command::new(&self.service.program);
        command.args(&self.service.args).stdin(Stdio::null());
        if let Some(fds) = &inherited {
            // This process has one thread and starts one program at a time: no other child can inherit them.
            for fd in fds {
                rustix::io::fcntl_setfd(fd, FdFlags::empty()).expect("a fresh descriptor takes flags");
            }
            command.env(crate::FD_VARIABLE, format!("{},{}", fds[0].as_raw_fd(), fds[1].as_raw_fd()));
        }
        match command.spawn() {
            Ok(child) => {
                tracing::info!(service = self.service.name, pid = child.id(), "service started");
                self.child = Some(child);
            }
            Err(error) => {
                tracing::error!(service = self.service.name, program = %self.service.program.display(), %error, "service does not start");
                self.ended();
            }
        }
    }

    /// Records that the process has ended and plans the next start.
    pub(crate) fn ended(&mut self) {
        self.child = None;
        let ran = self.started.elapsed();
        self.quick_ends = if ran < STEADY { self.quick_ends + 1 } else { 0 };
        self.start_at = Some(Instant::now() + pause(self.quick_ends));
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }
}

/// The pause before the next start: none after a steady run or the first quick end, then doubling.
fn pause(quick_ends: u32) -> Duration {
    match quick_ends {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(50).saturating_mul(1 << (n - 2).min(10)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_crash_costs_no_pause_and_a_crash_loop_is_slowed() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(50));
        assert_eq!(pause(5), Duration::from_millis(400));
        assert_eq!(pause(60), LONGEST_PAUSE);
    }
}
