//! The interpreter that the clone runs. It ends in `execve` or in `exit`.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::paths::{close, open_in_root, open_or_make};
use super::spawn::{Prepared, Report, ReportKind};
use super::{Console, ExecuteFailure, Links, Step, identity, mounts, terminal};
use crate::sys::{Errno, Result, call};

/// What steps leave for later steps.
struct State<'a> {
    prepared: &'a Prepared<'a>,
    channel: i32,
    root: i32,
    slave: Option<i32>,
}

/// Ends the process if anything unwinds into it: the code above belongs to the parent.
struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        exit()
    }
}

fn exit() -> ! {
    loop {
        // SAFETY: no memory is passed; the call does not return.
        let _ = unsafe { call!(libc::SYS_exit_group, super::NEVER_RAN) };
    }
}

/// Runs all steps. Called in the clone only.
pub(super) fn run(prepared: &Prepared<'_>, channel: i32) -> ! {
    let _exit = Exit;
    let mut state = State { prepared, channel, root: -1, slave: None };
    if let Err(errno) = state.begin() {
        state.fail(0, errno, 0);
    }
    for (index, step) in prepared.steps.iter().enumerate() {
        let result = match step {
            Step::Execute { candidates, .. } => {
                let (errno, failure) = state.execute(candidates);
                let detail = match failure {
                    ExecuteFailure::NotFound => 0,
                    ExecuteFailure::NotExecutable => 1,
                    ExecuteFailure::Refused { candidate } => 2u32.saturating_add(candidate as u32),
                };
                state.fail(index, errno, detail)
            }
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
        identity::control(libc::PR_SET_DUMPABLE, 0, 0)?;
        let mut first = 3u32;
        for &keep in self.prepared.keep {
            close_between(first, keep)?;
            first = keep.saturating_add(1);
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
                self.root = mount.0;
                mounts::attach_root(mount.0, *present)
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
            Step::WriteFile { path, data } => {
                let file = open_in_root(self.root, path, libc::O_WRONLY, Links::Refuse)?;
                write(file.0, data)
            }
            Step::OomScore(data) => {
                let path = c"/proc/self/oom_score_adj";
                let flags = libc::O_WRONLY | libc::O_CLOEXEC;
                // SAFETY: the string is a constant.
                let file = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) }? as i32;
                let written = write(file, data);
                close(file);
                written
            }
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
            Step::CloseAll => self.close_all(),
            Step::ChangeDirectory(path) => change_directory(path),
            Step::BoundingSet(keep) => identity::bound(*keep),
            Step::User { uid, gid, groups } => identity::become_user(*uid, *gid, groups),
            Step::Capabilities { effective, permitted, inheritable, ambient } => {
                let (effective, permitted, inheritable) = (*effective, *permitted, *inheritable);
                identity::set(identity::Sets { effective, permitted, inheritable })?;
                identity::set_ambient(*ambient)
            }
            Step::NoNewPrivileges => identity::control(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
            Step::Seccomp { filter, flags } => {
                let len = filter.len() as u16;
                let filter = crate::seccomp::Filter { len, instructions: filter.as_ptr() };
                // SAFETY: the structure and the instructions live across the call, and the length is theirs.
                unsafe { call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, *flags, &raw const filter) }
                    .map(drop)
            }
            Step::Ready => self.wait(),
            // Handled by the caller, which needs the details of a failure.
            Step::Execute { .. } => Ok(()),
        }
    }

    fn close_all(&mut self) -> Result<()> {
        let channel = u32::try_from(self.channel).unwrap_or(3);
        close_between(3, channel)?;
        close_between(channel.saturating_add(1), u32::MAX)?;
        self.root = -1;
        self.slave = None;
        Ok(())
    }

    /// Tells the parent that the process is set up and waits for its word.
    fn wait(&self) -> Result<()> {
        self.report(&Report::new(ReportKind::Ready, 0, 0, 0), None)?;
        let mut word = [0u8; 1];
        loop {
            // SAFETY: the kernel writes at most one byte into the buffer.
            match unsafe { call!(libc::SYS_read, self.channel, word.as_mut_ptr(), 1) } {
                Ok(1) => return Ok(()),
                Ok(_) => exit(),
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
    fn execute(&self, candidates: &[std::ffi::CString]) -> (Errno, ExecuteFailure) {
        if let Err(errno) = reset_signals() {
            return (errno, ExecuteFailure::NotFound);
        }
        let mut last = (Errno(libc::ENOENT), ExecuteFailure::NotFound);
        for (index, path) in candidates.iter().enumerate() {
            let (arguments, environment) = (self.prepared.arguments, self.prepared.environment);
            // SAFETY: both arrays end in null and point to strings of the prepared steps.
            let errno = match unsafe {
                call!(libc::SYS_execve, path.as_c_str(), arguments.as_ptr(), environment.as_ptr())
            } {
                Ok(_) => Errno(libc::EINVAL),
                Err(errno) => errno,
            };
            match examine(path) {
                Ok(()) => return (errno, ExecuteFailure::Refused { candidate: index }),
                Err(Errno(found @ (libc::EISDIR | libc::EACCES))) => {
                    last = (Errno(found), ExecuteFailure::NotExecutable);
                }
                Err(found) => last = (found, ExecuteFailure::NotFound),
            }
        }
        last
    }
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
fn reset_signals() -> Result<()> {
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
