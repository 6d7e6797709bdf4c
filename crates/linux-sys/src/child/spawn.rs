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
    Listener = 4,
    Respawned = 5,
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
    /// Whether its files in `/proc` belong to it at first, as the mapping of its ids by its parent needs.
    pub dumpable: bool,
    /// Descriptors above the standard streams that are the child's by inheritance.
    pub inherited: u32,
    pub command: &'a Vectors,
    /// Those of the hooks, in the order of their steps.
    pub hooks: &'a [Vectors],
}

/// Arguments and environment as `execve` takes them.
pub(super) struct Vectors {
    pub arguments: Vec<*const libc::c_char>,
    pub environment: Vec<*const libc::c_char>,
}

/// A child that was cloned.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    channel: OwnedFd,
    terminal: Option<OwnedFd>,
    listener: Option<OwnedFd>,
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
        /// The exit code, if the step was [`Step::Hook`] and the hook ran; 128 more than the signal that ended it.
        hook: Option<u32>,
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
        let Some(Step::Execute { arguments, environment, .. }) = self.program.steps.last() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last step must execute a file"));
        };
        let command = Vectors::new(arguments, environment);
        let hooks: Vec<Vectors> = self
            .program
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Hook { arguments, environment, .. } => Some(Vectors::new(arguments, environment)),
                _ => None,
            })
            .collect();
        let mut keep: Vec<u32> = self.program.fds.iter().map(|fd| fd.as_raw_fd() as u32).collect();
        keep.push(theirs.as_raw_fd() as u32);
        keep.sort_unstable();
        let prepared = Prepared {
            steps: &self.program.steps,
            keep: &keep,
            dumpable: self.new.contains(Namespaces::USER),
            inherited: self.program.inherited,
            command: &command,
            hooks: &hooks,
        };
        let (pid, pidfd) = match self.pid_namespace {
            None => self.clone(&prepared, theirs.as_fd())?,
            Some(namespace) => self.clone_in(namespace, &prepared, theirs.as_fd())?,
        };
        Ok(Child { pid, pidfd, channel: ours, terminal: None, listener: None })
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

impl Vectors {
    fn new(arguments: &[CString], environment: &[CString]) -> Self {
        Self { arguments: pointers(arguments), environment: pointers(environment) }
    }
}

/// Lets a child go on that waits in [`Step::Accept`], and waits until it has executed its file.
///
/// `channel` is a connection to the socket that it listens on.
pub fn start_at(channel: BorrowedFd<'_>) -> Result<(), Failure> {
    go(channel)?;
    match next(channel)? {
        None => Ok(()),
        Some(_) => Err(Failure::Channel(io::ErrorKind::InvalidData.into())),
    }
}

fn go(channel: BorrowedFd<'_>) -> Result<(), Failure> {
    match fd_passing::send(channel, &[1], &[]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Died),
        Err(error) => Err(Failure::Channel(error)),
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

    /// Waits until the child has reached its next [`Step::Ready`].
    pub fn ready(&mut self) -> Result<(), Failure> {
        loop {
            match next(self.channel.as_fd())? {
                Some(Event::Ready) => return Ok(()),
                Some(Event::Terminal(fd)) => self.terminal = Some(fd),
                Some(Event::Listener(fd)) => self.listener = Some(fd),
                Some(Event::Respawned(fd)) => self.replace(fd)?,
                None => return Err(Failure::Died),
            }
        }
    }

    /// The child goes on in another process, a child of this one, too; the first has ended or is about to.
    fn replace(&mut self, pidfd: OwnedFd) -> Result<(), Failure> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        // One that is somebody else's child is reaped there.
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let text = std::fs::read_to_string(path).map_err(Failure::Channel)?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
        self.pid = pid.filter(|pid| *pid > 0).ok_or(Failure::Died)?;
        self.pidfd = pidfd;
        Ok(())
    }

    /// Lets a ready child go on, and waits until it has executed its file.
    pub fn start(&mut self) -> Result<(), Failure> {
        start_at(self.channel.as_fd())
    }

    /// Lets a ready child go on to its next [`Step::Ready`] or [`Step::Accept`], without waiting for it.
    pub fn resume(&mut self) -> Result<(), Failure> {
        go(self.channel.as_fd())
    }

    /// The descriptor for the notifications of the child's seccomp filter, once.
    pub fn take_listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }

    /// The master of the child's terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Keeps the descriptor of the process and closes the channel; a child that was not started exits.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }
}

fn next(channel: BorrowedFd<'_>) -> Result<Option<Event>, Failure> {
    let mut bytes = [0u8; size_of::<Report>()];
    let message = match fd_passing::receive(channel, &mut bytes) {
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
        (4, Some(fd)) => Ok(Some(Event::Listener(fd))),
        (5, Some(fd)) => Ok(Some(Event::Respawned(fd))),
        (3, None) => Err(Failure::Step {
            index: word(4) as usize,
            source: io::Error::from_raw_os_error(word(8) as i32),
            execute: ExecuteFailure::from_detail(word(12)),
            hook: (word(8) == 0).then(|| word(12)),
        }),
        _ => Err(Failure::Channel(io::ErrorKind::InvalidData.into())),
    }
}

enum Event {
    Ready,
    Terminal(OwnedFd),
    Listener(OwnedFd),
    Respawned(OwnedFd),
}
