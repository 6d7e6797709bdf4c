//! The parent's side: cloning, and the conversation with the child.
#![expect(unsafe_code, reason = "clone3 and the signal mask around it")]

use super::{ExecuteFailure, Program, Step, run};
use crate::fd_passing;
use crate::namespace::{self, Namespaces};
use crate::sys::call;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `CLONE_CLEAR_SIGHAND` (linux/sched.h): the child starts with default signal handlers.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP` (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Who reaps the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The calling process.
    Caller,
    /// The calling process's own parent (`CLONE_PARENT`).
    CallersParent,
}

/// How a program is turned into a process.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// What the child does.
    pub program: &'a Program,
    /// Namespaces that are made for it.
    pub new: Namespaces,
    /// A namespace file or pidfd whose pid namespace the child is born in.
    pub pid_namespace: Option<BorrowedFd<'a>>,
    /// A cgroup v2 directory the child is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Its parent.
    pub parent: Parent,
}

/// What kind of message the child sends.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum ReportKind {
    Ready = 1,
    Terminal = 2,
    Failed = 3,
}

/// A message of the child.
#[repr(C)]
pub(super) struct Report([u32; 4]);

impl Report {
    pub(super) fn new(kind: ReportKind, step: u32, errno: i32, detail: u32) -> Self {
        Self([kind as u32, step, errno as u32, detail])
    }
}

/// Everything the child reads, in memory that exists before it does.
pub(super) struct Prepared<'a> {
    pub steps: &'a [Step],
    /// Descriptors that stay open at first, ascending.
    pub keep: &'a [u32],
    pub arguments: &'a [*const libc::c_char],
    pub environment: &'a [*const libc::c_char],
}

/// A child that was cloned.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    channel: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// Why a child did not get as far as it should.
#[derive(Debug)]
pub enum Failure {
    /// A step failed.
    Step {
        /// Its index in the program.
        index: usize,
        /// The error.
        source: io::Error,
        /// More, if the step was [`Step::Execute`].
        execute: ExecuteFailure,
    },
    /// The child ended without a word.
    Died,
    /// The conversation with it failed.
    Channel(io::Error),
}

impl Spawn<'_> {
    /// Clones the child, which starts with its steps at once.
    pub fn spawn(&self) -> io::Result<Child> {
        let (ours, theirs) = fd_passing::pair()?;
        let theirs =
            if theirs.as_raw_fd() < 3 { rustix::io::fcntl_dupfd_cloexec(&theirs, 3)? } else { theirs };
        let (arguments, environment) = match self.program.steps.last() {
            Some(Step::Execute { arguments, environment, .. }) => {
                (pointers(arguments), pointers(environment))
            }
            _ => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last step must execute a file"));
            }
        };
        let mut keep: Vec<u32> = self.program.fds.iter().map(|fd| fd.as_raw_fd() as u32).collect();
        keep.push(theirs.as_raw_fd() as u32);
        keep.sort_unstable();
        let prepared = Prepared {
            steps: &self.program.steps,
            keep: &keep,
            arguments: &arguments,
            environment: &environment,
        };
        let (pid, pidfd) = match self.pid_namespace {
            None => self.clone(&prepared, theirs.as_fd())?,
            Some(namespace) => self.clone_in(namespace, &prepared, theirs.as_fd())?,
        };
        Ok(Child { pid, pidfd, channel: ours, terminal: None })
    }

    /// Clones from a thread of its own, since joining a pid namespace changes the thread for good.
    fn clone_in(
        &self,
        namespace: BorrowedFd<'_>,
        prepared: &Prepared<'_>,
        channel: BorrowedFd<'_>,
    ) -> io::Result<(i32, OwnedFd)> {
        /// Lets the thread below borrow what only looks unsharable.
        struct Shared<'a, 'b>(&'a Prepared<'b>);
        // SAFETY: the raw pointers inside are read-only views of vectors that the waiting caller keeps alive.
        unsafe impl Send for Shared<'_, '_> {}
        let shared = Shared(prepared);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("clone".into()).spawn_scoped(scope, move || {
                let shared = shared;
                namespace::join(namespace, Namespaces::PID)?;
                self.clone(shared.0, channel)
            })?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the cloning thread panicked")))
        })
    }

    fn clone(&self, prepared: &Prepared<'_>, channel: BorrowedFd<'_>) -> io::Result<(i32, OwnedFd)> {
        let mut pidfd: i32 = -1;
        // SAFETY: all-zero bytes are a valid clone_args.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = self.new.0 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
        arguments.pidfd = &raw mut pidfd as u64;
        match self.parent {
            Parent::Caller => arguments.exit_signal = libc::SIGCHLD as u64,
            // With CLONE_PARENT the signal is the one the caller itself was cloned with; clone3 insists on 0.
            Parent::CallersParent => arguments.flags |= libc::CLONE_PARENT as u64,
        }
        if let Some(cgroup) = self.cgroup {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = cgroup.as_raw_fd() as u64;
        }
        let channel = channel.as_raw_fd();
        // No handler of ours may run in the child: it would write to pipes that the parent reads.
        let mask = block_signals()?;
        // SAFETY: without CLONE_VM the child has its own copy of all memory and returns here on a copy of this stack;
        // it calls nothing but `run`, which keeps to what a clone of a process with threads may do.
        let result = unsafe { call!(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        if result == Ok(0) {
            run::run(prepared, channel);
        }
        restore_signals(mask)?;
        let pid = result? as i32;
        // SAFETY: the kernel has put a new descriptor there, since the clone succeeded.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn block_signals() -> io::Result<u64> {
    let all = u64::MAX;
    let mut before = 0u64;
    // SAFETY: the kernel's signal set is eight bytes, which both addresses hold.
    unsafe { call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut before, 8) }?;
    Ok(before)
}

fn restore_signals(mask: u64) -> io::Result<()> {
    // SAFETY: the kernel's signal set is eight bytes.
    unsafe { call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0usize, 8) }?;
    Ok(())
}

impl Child {
    /// Its process id in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The descriptor of the process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until the child has reached [`Step::Ready`].
    pub fn ready(&mut self) -> Result<(), Failure> {
        loop {
            match self.next()? {
                Some(Event::Ready) => return Ok(()),
                Some(Event::Terminal(fd)) => self.terminal = Some(fd),
                None => return Err(Failure::Died),
            }
        }
    }

    /// Lets a ready child go on, and waits until it has executed its file.
    pub fn start(&mut self) -> Result<(), Failure> {
        match fd_passing::send(&self.channel, &[1], &[]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Failure::Died),
            Err(error) => return Err(Failure::Channel(error)),
        }
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(Failure::Channel(io::ErrorKind::InvalidData.into())),
        }
    }

    /// The master of the child's terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Keeps the descriptor of the process and closes the channel; a child that was not started exits.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }

    fn next(&self) -> Result<Option<Event>, Failure> {
        let mut bytes = [0u8; size_of::<Report>()];
        let message = match fd_passing::receive(&self.channel, &mut bytes) {
            Ok(message) => message,
            // The child died with our word unread in its queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Failure::Died),
            Err(error) => return Err(Failure::Channel(error)),
        };
        if message.len == 0 {
            return Ok(None);
        }
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut fds = message.fds.into_iter();
        match (word(0), fds.next()) {
            (1, None) => Ok(Some(Event::Ready)),
            (2, Some(fd)) => Ok(Some(Event::Terminal(fd))),
            (3, None) => Err(Failure::Step {
                index: word(4) as usize,
                source: io::Error::from_raw_os_error(word(8) as i32),
                execute: match word(12) {
                    0 => ExecuteFailure::NotFound,
                    1 => ExecuteFailure::NotExecutable,
                    candidate => ExecuteFailure::Refused { candidate: candidate as usize - 2 },
                },
            }),
            _ => Err(Failure::Channel(io::ErrorKind::InvalidData.into())),
        }
    }
}

enum Event {
    Ready,
    Terminal(OwnedFd),
}
