//! The interpreter that the clone runs. It ends in `execve` or in `exit`.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::paths::{close, open_or_make};
use super::spawn::{Prepared, Report, ReportKind};
use super::{Console, FdRef, Listener, Step, hook, identity, mounts, schedule, terminal};
use crate::sys::{Errno, Result, call};

/// What steps leave for later steps.
struct State<'a> {
    prepared: &'a Prepared<'a>,
    channel: i32,
    root: i32,
    slave: Option<i32>,
    /// A `/proc` of the child's own.
    proc: Option<i32>,
    /// The file that takes the security label.
    label: Option<i32>,
    /// How many hooks have run.
    hooks: usize,
}

/// Ends the process if anything unwinds into it: the code above belongs to the parent.
struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        exit()
    }
}

pub(super) fn exit() -> ! {
    loop {
        // SAFETY: no memory is passed; the call does not return.
        let _ = unsafe { call!(libc::SYS_exit_group, super::NEVER_RAN) };
    }
}

/// Runs all steps. Called in the clone only.
pub(super) fn run(prepared: &Prepared<'_>, channel: i32) -> ! {
    let _exit = Exit;
    let mut state = State { prepared, channel, root: -1, slave: None, proc: None, label: None, hooks: 0 };
    if let Err(errno) = state.begin() {
        state.fail(0, errno, 0);
    }
    for (index, step) in prepared.steps.iter().enumerate() {
        let result = match step {
            Step::Execute { candidates, .. } => {
                let (errno, failure) = state.execute(candidates);
                state.fail(index, errno, failure.detail())
            }
            Step::FindCommand(candidates) => match find(candidates) {
                Ok(()) => Ok(()),
                Err((errno, failure)) => state.fail(index, errno, failure.detail()),
            },
            Step::Hook { path, stdin, timeout, .. } => match state.hook(path, *stdin, *timeout) {
                Ok(hook::End::Success) => Ok(()),
                // No error of the system, but the hook's own word.
                Ok(hook::End::Code(code)) => state.fail(index, Errno(0), code),
                Err(errno) => Err(errno),
            },
            other => state.step(other),
        };
        if let Err(errno) = result {
            state.fail(index, errno, 0);
        }
    }
    exit()
}

impl State<'_> {
    /// What every child does first, before anything of the container is near.
    fn begin(&self) -> Result<()> {
        // A process of a joined pid namespace must not be able to trace what still has the host's files open.
        // One with a user namespace of its own joins none, and its files in /proc have to be its own.
        if !self.prepared.dumpable {
            identity::control(libc::PR_SET_DUMPABLE, 0, 0)?;
        }
        let mut first = 3u32.saturating_add(self.prepared.inherited);
        for &keep in self.prepared.keep {
            close_between(first, keep)?;
            first = first.max(keep.saturating_add(1));
        }
        close_between(first, u32::MAX)?;
        // SAFETY: no memory is passed.
        unsafe { call!(libc::SYS_umask, 0) }?;
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            // SAFETY: no memory is passed.
            Step::Join { fd, kinds } => unsafe { call!(libc::SYS_setns, fd.0, kinds.0) }.map(drop),
            // SAFETY: no memory is passed.
            Step::Leave(kinds) => unsafe { call!(libc::SYS_unshare, kinds.0) }.map(drop),
            Step::Respawn(kinds) => self.respawn(kinds.0),
            Step::HostName(name) => {
                // SAFETY: the name lives in the prepared steps and has the length given.
                unsafe { call!(libc::SYS_sethostname, name.as_c_str(), name.as_bytes().len()) }.map(drop)
            }
            Step::DomainName(name) => {
                // SAFETY: the name lives in the prepared steps and has the length given.
                unsafe { call!(libc::SYS_setdomainname, name.as_c_str(), name.as_bytes().len()) }.map(drop)
            }
            Step::Propagation(flags) => mounts::set_propagation(*flags),
            Step::AttachRoot { mount, present } => {
                self.root = mounts::tree(mount)?;
                mounts::attach_root(self.root, *present)
            }
            Step::CurrentRoot => {
                self.root = mounts::current_root()?;
                Ok(())
            }
            Step::PivotRoot => mounts::pivot(self.root),
            Step::Mount { source, target, changes } => mounts::mount(self.root, source, target, changes),
            Step::Device { directory, name, host, mode, number, uid, gid } => {
                let (mode, number, uid, gid) = (*mode, *number, *uid, *gid);
                mounts::device(self.root, directory, &mounts::Node { name, host, mode, number, uid, gid })
            }
            Step::Link { directory, name, target } => mounts::link(self.root, directory, name, target),
            Step::Mask(path) => mounts::mask(self.root, path),
            Step::ReadOnly(path) => mounts::read_only(self.root, path),
            Step::ReadOnlyRoot => mounts::read_only_root(self.root),
            Step::MakeDirectory(target) => {
                let made = open_or_make(self.root, target)?;
                if mounts::is_directory(&mounts::status(made.0)?) {
                    Ok(())
                } else {
                    Err(Errno(libc::ENOTDIR))
                }
            }
            Step::Sysctl { path, data } => {
                let proc = match self.proc {
                    Some(proc) => proc,
                    None => *self.proc.insert(mounts::own_proc(self.root)?),
                };
                let file = mounts::open_on_mount(proc, path, libc::O_WRONLY)?;
                write(file.0, data)
            }
            Step::WriteOwn { path, data } => {
                let file = open_own(path)?;
                let written = write(file, data);
                close(file);
                written
            }
            Step::OpenLabel(path) => {
                self.label = Some(open_own(path)?);
                Ok(())
            }
            Step::WriteLabel(data) => match self.label.take() {
                Some(file) => {
                    let written = write(file, data);
                    close(file);
                    written
                }
                None => Err(Errno(libc::EBADF)),
            },
            // SAFETY: no memory is passed.
            Step::Personality(domain) => unsafe { call!(libc::SYS_personality, *domain) }.map(drop),
            Step::IoPriority(value) => schedule::io_priority(*value),
            Step::Scheduler(attributes) => schedule::set(attributes),
            Step::Affinity(mask) => schedule::affinity(mask),
            Step::MemoryPolicy { mode, nodes } => schedule::memory_policy(*mode, nodes),
            Step::RootPropagation(flags) => mounts::change_propagation(*flags),
            Step::Limit { resource, soft, hard } => identity::limit(*resource, *soft, *hard),
            // SAFETY: no memory is passed.
            Step::Umask(mask) => unsafe { call!(libc::SYS_umask, *mask) }.map(drop),
            Step::Terminal { size, console } => {
                let pair = terminal::open(self.root, *size)?;
                if let Console::Mount { target } = console {
                    mounts::bind_over(self.root, pair.slave.0, target)?;
                }
                self.report(&Report::new(ReportKind::Terminal, 0, 0, 0), Some(pair.master.0))?;
                // The master's number is closed here, the slave's when the session has made it the streams.
                self.slave = Some(pair.slave.0);
                std::mem::forget(pair.slave);
                Ok(())
            }
            Step::Session => terminal::lead_session(self.slave),
            Step::Streams { stdin, stdout, stderr } => {
                terminal::duplicate(stdin.0, 0)?;
                terminal::duplicate(stdout.0, 1)?;
                terminal::duplicate(stderr.0, 2)
            }
            Step::OwnStreams(uid) => identity::own_streams(*uid),
            Step::CloseAll { keep } => self.close_all(keep),
            Step::ChangeDirectory(path) => change_directory(path),
            Step::BoundingSet(keep) => identity::bound(*keep),
            Step::User { uid, gid, groups } => identity::become_user(*uid, *gid, groups),
            Step::BecomeRoot(groups) => identity::become_root(groups),
            Step::Capabilities { effective, permitted, inheritable, ambient } => {
                let (effective, permitted, inheritable) = (*effective, *permitted, *inheritable);
                identity::set(identity::Sets { effective, permitted, inheritable })?;
                identity::set_ambient(*ambient)
            }
            Step::NoNewPrivileges => identity::control(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
            Step::Seccomp { filter, flags, listener } => {
                let len = filter.len() as u16;
                let filter = crate::seccomp::Filter { len, instructions: filter.as_ptr() };
                // SAFETY: the structure and the instructions live across the call, and the length is theirs.
                let done = unsafe {
                    call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, *flags, &raw const filter)
                };
                match (done, listener) {
                    (Ok(fd), Listener::Parent) => {
                        let sent = self.report(&Report::new(ReportKind::Listener, 0, 0, 0), Some(fd as i32));
                        close(fd as i32);
                        sent
                    }
                    (done, _) => done.map(drop),
                }
            }
            Step::Ready => self.wait(),
            Step::Accept(listener) => self.accept(listener.0),
            // Handled by the caller, which needs the details of a failure.
            Step::Execute { .. } | Step::Hook { .. } | Step::FindCommand(_) => Ok(()),
        }
    }

    /// Clones; returns in the clone only.
    fn respawn(&self, kinds: u64) -> Result<()> {
        let mut pidfd: i32 = -1;
        // SAFETY: all-zero bytes are a valid clone_args.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = kinds | (libc::CLONE_PIDFD | libc::CLONE_PARENT) as u64;
        arguments.pidfd = &raw mut pidfd as u64;
        // SAFETY: as for the clone that this one is made from: a copy of all memory, and nothing but system calls.
        let pid = unsafe { call!(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) }?;
        if pid == 0 {
            return Ok(());
        }
        let _ = self.report(&Report::new(ReportKind::Respawned, 0, 0, 0), Some(pidfd));
        exit()
    }

    fn hook(&mut self, path: &std::ffi::CStr, stdin: FdRef, timeout: Option<u32>) -> Result<hook::End> {
        let vectors = self.prepared.hooks.get(self.hooks).ok_or(Errno(libc::EINVAL))?;
        self.hooks += 1;
        hook::run(path, vectors, stdin.0, timeout)
    }

    fn close_all(&mut self, keep: &[FdRef]) -> Result<()> {
        let mut first = 3u32.saturating_add(self.prepared.inherited);
        let own = [Some(self.channel), self.label];
        loop {
            let kept = keep.iter().map(|fd| fd.0).chain(own.into_iter().flatten());
            let next = kept.filter_map(|fd| u32::try_from(fd).ok()).filter(|fd| *fd >= first).min();
            close_between(first, next.unwrap_or(u32::MAX))?;
            match next {
                Some(next) => first = next.saturating_add(1),
                None => break,
            }
        }
        self.root = -1;
        self.slave = None;
        self.proc = None;
        Ok(())
    }

    /// Waits for whoever starts the process, now that the one who created it is gone.
    fn accept(&mut self, listener: i32) -> Result<()> {
        close(self.channel);
        self.channel = -1;
        loop {
            // SAFETY: the peer's address is not asked for.
            let accepted = unsafe { call!(libc::SYS_accept4, listener, 0usize, 0usize, libc::SOCK_CLOEXEC) };
            self.channel = match accepted {
                Ok(fd) => fd as i32,
                Err(Errno(libc::EINTR | libc::ECONNABORTED)) => continue,
                Err(errno) => return Err(errno),
            };
            match self.word() {
                Ok(true) => break,
                // It ended before it said anything; the next one may.
                Ok(false) | Err(_) => close(self.channel),
            }
        }
        close(listener);
        Ok(())
    }

    /// Tells the parent that the process is set up and waits for its word.
    fn wait(&self) -> Result<()> {
        self.report(&Report::new(ReportKind::Ready, 0, 0, 0), None)?;
        if self.word()? { Ok(()) } else { exit() }
    }

    /// Waits for a word; false when the other end is closed.
    fn word(&self) -> Result<bool> {
        let mut word = [0u8; 1];
        loop {
            // SAFETY: the kernel writes at most one byte into the buffer.
            match unsafe { call!(libc::SYS_read, self.channel, word.as_mut_ptr(), 1) } {
                Ok(1) => return Ok(true),
                Ok(_) => return Ok(false),
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn report(&self, report: &Report, fd: Option<i32>) -> Result<()> {
        let Some(fd) = fd else {
            // SAFETY: the bytes are the report's.
            return unsafe { call!(libc::SYS_write, self.channel, &raw const *report, size_of::<Report>()) }
                .map(drop);
        };
        /// `struct cmsghdr` with room for one descriptor; `CMSG_SPACE(4)` is 24 on 64-bit machines.
        #[repr(C, align(8))]
        struct Rights {
            len: usize,
            level: i32,
            kind: i32,
            fd: i32,
        }
        let rights = Rights { len: 20, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd };
        let mut bytes =
            libc::iovec { iov_base: (&raw const *report).cast_mut().cast(), iov_len: size_of::<Report>() };
        let mut message = std::mem::MaybeUninit::<libc::msghdr>::zeroed();
        // SAFETY: all-zero bytes are a valid msghdr; every pointer set refers to a local that lives across the call.
        unsafe {
            let message = message.assume_init_mut();
            message.msg_iov = &raw mut bytes;
            message.msg_iovlen = 1;
            message.msg_control = (&raw const rights).cast_mut().cast();
            message.msg_controllen = size_of::<Rights>() as _;
            call!(libc::SYS_sendmsg, self.channel, &raw const *message, libc::MSG_NOSIGNAL)
        }
        .map(drop)
    }

    fn fail(&self, index: usize, errno: Errno, detail: u32) -> ! {
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let _ = self.report(&Report::new(ReportKind::Failed, step, errno.0, detail), None);
        exit()
    }

    /// Tries every candidate; returns only when none could be executed.
    fn execute(&self, candidates: &[std::ffi::CString]) -> (Errno, super::ExecuteFailure) {
        if let Err(errno) = reset_signals() {
            return (errno, super::ExecuteFailure::NotFound);
        }
        let mut last = (Errno(libc::ENOENT), super::ExecuteFailure::NotFound);
        for (index, path) in candidates.iter().enumerate() {
            let (arguments, environment) =
                (&self.prepared.command.arguments, &self.prepared.command.environment);
            // SAFETY: both arrays end in null and point to strings of the prepared steps.
            let errno = match unsafe {
                call!(libc::SYS_execve, path.as_c_str(), arguments.as_ptr(), environment.as_ptr())
            } {
                Ok(_) => Errno(libc::EINVAL),
                Err(errno) => errno,
            };
            match examine(path) {
                Ok(()) => return (errno, super::ExecuteFailure::Refused { candidate: index }),
                Err(Errno(found @ (libc::EISDIR | libc::EACCES))) => {
                    last = (Errno(found), super::ExecuteFailure::NotExecutable);
                }
                Err(found) => last = (found, super::ExecuteFailure::NotFound),
            }
        }
        last
    }
}

/// Whether one of the candidates can be executed; else the error of the last that is there, or of the last.
fn find(candidates: &[std::ffi::CString]) -> std::result::Result<(), (Errno, super::ExecuteFailure)> {
    let mut last = (Errno(libc::ENOENT), super::ExecuteFailure::NotFound);
    for path in candidates {
        match examine(path) {
            Ok(()) => return Ok(()),
            Err(Errno(found @ (libc::EISDIR | libc::EACCES))) => {
                last = (Errno(found), super::ExecuteFailure::NotExecutable);
            }
            Err(found) => last = (found, super::ExecuteFailure::NotFound),
        }
    }
    Err(last)
}

/// Whether the path is a file with an execute bit, by the error that a shell would give.
fn examine(path: &std::ffi::CStr) -> Result<()> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the path lives in the prepared steps.
    let fd = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) }? as i32;
    let seen = mounts::status(fd);
    close(fd);
    let seen = seen?;
    if mounts::is_directory(&seen) {
        return Err(Errno(libc::EISDIR));
    }
    if seen.stx_mode & 0o111 == 0 { Err(Errno(libc::EACCES)) } else { Ok(()) }
}

fn close_between(first: u32, end: u32) -> Result<()> {
    if first >= end {
        return Ok(());
    }
    // SAFETY: the interpreter decides over all descriptors of the child; those it needs are outside the range.
    unsafe { call!(libc::SYS_close_range, first, end.saturating_sub(1), 0) }.map(drop)
}

/// Opens a file of the process's own through the `/proc` that is mounted at the moment.
fn open_own(path: &std::ffi::CStr) -> Result<i32> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the path lives in the prepared steps.
    unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) }.map(|fd| fd as i32)
}

fn write(fd: i32, data: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads the slice.
    let written = unsafe { call!(libc::SYS_write, fd, data.as_ptr(), data.len()) }?;
    if written == data.len() { Ok(()) } else { Err(Errno(libc::EIO)) }
}

/// Changes directory and refuses one that lies outside the root, where a magic link could lead (CVE-2024-21626).
fn change_directory(path: &std::ffi::CStr) -> Result<()> {
    // SAFETY: the path lives in the prepared steps.
    unsafe { call!(libc::SYS_chdir, path) }?;
    let mut cwd = [0u8; 4096];
    // SAFETY: the kernel writes at most the length given.
    match unsafe { call!(libc::SYS_getcwd, cwd.as_mut_ptr(), cwd.len()) } {
        Ok(_) if cwd.first() == Some(&b'/') => Ok(()),
        Ok(_) | Err(Errno(libc::ENOENT)) => Err(Errno(libc::EXDEV)),
        Err(errno) => Err(errno),
    }
}

/// Gives ignored signals their default action and unblocks all; `execve` itself resets handlers.
pub(super) fn reset_signals() -> Result<()> {
    // The kernel's sigaction is shorter than this on both machines; zero is SIG_DFL without flags.
    let default = [0u64; 8];
    for signal in 1..=64i32 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: the structure is larger than what the kernel reads; the old action is not asked for.
            unsafe { call!(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8) }?;
        }
    }
    let none = 0u64;
    // SAFETY: the kernel's signal set is eight bytes.
    unsafe { call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0usize, 8) }.map(drop)
}
