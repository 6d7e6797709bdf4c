//! The part that `create` and `exec` share: streams, user, capabilities, seccomp, command.

use crate::capability;
use crate::created::Command;
use crate::error::Error;
use crate::io::Io;
use crate::mounts::c_string;
use crate::scheduling;
use crate::seccomp;
use crate::{hooks, label};
use oci_spec::runtime::{Hook, Linux, PosixRlimitType, Process};
use skiff_linux_sys::child::{Console, FdRef, Groups, Program, Step, WindowSize};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// The file creation mask that runc gives when the spec has none.
const DEFAULT_UMASK: u32 = 0o022;

pub(crate) fn push_oom_score(process: &Process, program: &mut Program) {
    if let Some(score) = process.oom_score_adj() {
        let path = c"/proc/self/oom_score_adj".to_owned();
        program.push(Step::WriteOwn { path, data: score.to_string().into_bytes() }, "setting oom_score_adj");
    }
}

/// What the part after the mounts needs to know.
pub(crate) struct Tail<'a> {
    pub process: &'a Process,
    pub linux: Option<&'a Linux>,
    pub io: Io,
    pub groups: Groups,
    /// Whether the process sets its own limits; else the parent does, with its privileges.
    pub limits: bool,
    /// The socket on which the process waits to be started when its creator has gone.
    pub accept: Option<OwnedFd>,
    /// Hooks that run just before the command, and what they read.
    pub hooks: Option<(&'a Vec<Hook>, FdRef)>,
}

/// Opens the terminal, if there is to be one; needs the root and its `/dev/pts`.
pub(crate) fn push_terminal(io: &Io, console: Console, program: &mut Program) {
    if let Io::Terminal { size } = io {
        let size = size.map(|(columns, rows)| WindowSize { columns, rows });
        program.push(Step::Terminal { size, console }, "opening the terminal");
    }
}

/// Sets limits of a process that has given up the privilege for it, from outside.
pub(crate) fn limit_from_outside(process: &Process, pid: i32) -> Result<(), Error> {
    for limit in process.rlimits().iter().flatten() {
        skiff_linux_sys::limits::set(pid, resource(limit.typ()), limit.soft(), limit.hard())
            .map_err(|source| Error::Setup { what: format!("setting rlimit {}", limit.typ()), source })?;
    }
    Ok(())
}

/// What a process in a new user namespace cannot do to itself any more.
pub(crate) fn adjust_from_outside(process: &Process, pid: i32) -> Result<(), Error> {
    let privileged = crate::mapping::is_privileged();
    if let Some(score) = process.oom_score_adj() {
        match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
            Ok(()) => {}
            // Only a privileged user can make a process a less likely victim.
            Err(_) if !crate::mapping::owns_machine() => {}
            Err(source) => return Err(Error::Setup { what: "setting oom_score_adj".into(), source }),
        }
    }
    if privileged { limit_from_outside(process, pid) } else { Ok(()) }
}

/// Adds everything from the limits to the command. The root must be in place.
pub(crate) fn push_tail(tail: Tail<'_>, program: &mut Program) -> Result<Command, Error> {
    let Tail { process, linux, io, .. } = tail;
    for limit in process.rlimits().iter().flatten().filter(|_| tail.limits) {
        let step = Step::Limit { resource: resource(limit.typ()), soft: limit.soft(), hard: limit.hard() };
        program.push(step, format!("setting rlimit {}", limit.typ()));
    }
    if let Io::Pipes(stdio) = io {
        let mut keep = |fd| program.keep(fd).map_err(|source| Error::Clone { source });
        let (stdin, stdout, stderr) = (keep(stdio.stdin)?, keep(stdio.stdout)?, keep(stdio.stderr)?);
        program.push(Step::Streams { stdin, stdout, stderr }, "setting up the standard streams");
    }
    program.push(Step::Session, "making a session");
    let user = process.user();
    program.push(Step::OwnStreams(user.uid()), "giving the standard streams to the user");
    let listener = tail
        .accept
        .map(|listener| program.keep(listener).map_err(|source| Error::Clone { source }))
        .transpose()?;
    let keep = listener.into_iter().chain(tail.hooks.map(|(_, stdin)| stdin)).collect();
    program.push(Step::CloseAll { keep }, "closing descriptors");
    let cwd = c_string(process.cwd().as_os_str().as_bytes())?;
    let label = format!("chdir to cwd (\"{}\") set in config.json failed", process.cwd().display());
    program.push(Step::ChangeDirectory(cwd), label);
    program.push(Step::Umask(user.umask().unwrap_or(DEFAULT_UMASK)), "setting the umask");

    let sets = process.capabilities().as_ref();
    let mask =
        |pick: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<oci_spec::runtime::Capabilities>| {
            capability::mask(sets.and_then(|sets| pick(sets).as_ref()))
        };
    program.push(Step::BoundingSet(mask(|sets| sets.bounding())), "dropping capabilities");
    scheduling::push(process, linux, program)?;
    program.push(Step::User { uid: user.uid(), gid: user.gid(), groups: tail.groups }, "setting the user");
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Docker gives a user other than root what the spec lists as effective only with ambient capabilities: execve
    // clears the rest, and so it does here.
    let capabilities = Step::Capabilities {
        effective: mask(|sets| sets.effective()),
        permitted: mask(|sets| sets.permitted()),
        inheritable: mask(|sets| sets.inheritable()),
        // What is not inheritable, too, cannot be ambient (capabilities(7)): runc's callers list it all the same.
        ambient: mask(|sets| sets.ambient())
            & mask(|sets| sets.inheritable())
            & mask(|sets| sets.permitted()),
    };
    let profile = linux.and_then(|linux| linux.seccomp().as_ref());
    let mut filter = profile.map(seccomp::step).transpose()?;
    if profile.is_some_and(seccomp::notifies) {
        // Its listener has to be with its owner before the process waits: the one who created it delivers it.
        if no_new_privileges {
            program.push(Step::NoNewPrivileges, "setting no_new_privs");
        }
        if let Some(filter) = filter.take() {
            program.push(filter, "installing the seccomp filter");
        }
    }
    // Waiting comes before the filter, which may forbid reading; without no_new_privs a filter needs a privilege that
    // the final capabilities lack.
    if listener.is_some() {
        // Whoever creates a container for somebody else to start wants to know at once.
        program.push(Step::FindCommand(commands(process)?), "finding the command");
    }
    program.push(Step::Ready, "waiting for the start");
    if let Some(listener) = listener {
        program.push(Step::Accept(listener), "waiting for the start");
    }
    if let Some((list, stdin)) = tail.hooks {
        hooks::push("startContainer", Some(list), stdin, program)?;
    }
    label::push_write(process, program);
    let seccomp = filter;
    if no_new_privileges {
        program.push(capabilities, "setting capabilities");
        program.push(Step::NoNewPrivileges, "setting no_new_privs");
        if let Some(seccomp) = seccomp {
            program.push(seccomp, "installing the seccomp filter");
        }
    } else {
        if let Some(seccomp) = seccomp {
            program.push(seccomp, "installing the seccomp filter");
        }
        program.push(capabilities, "setting capabilities");
    }
    push_execute(process, program)
}

/// The paths that the command may have.
fn commands(process: &Process) -> Result<Vec<CString>, Error> {
    let Some(name) = process.args().as_ref().and_then(|arguments| arguments.first()) else {
        return Err(Error::Spec { what: "no command specified".into() });
    };
    let environment = process.env().clone().unwrap_or_default();
    candidates(name, &environment).into_iter().map(c_string).collect()
}

fn push_execute(process: &Process, program: &mut Program) -> Result<Command, Error> {
    let arguments = process.args().clone().unwrap_or_default();
    let Some(name) = arguments.first().cloned() else {
        return Err(Error::Spec { what: "no command specified".into() });
    };
    let environment = process.env().clone().unwrap_or_default();
    let candidates = candidates(&name, &environment);
    let strings =
        |list: &[String]| list.iter().map(|s| c_string(s.as_str())).collect::<Result<Vec<CString>, _>>();
    let step = Step::Execute {
        candidates: strings(&candidates)?,
        arguments: strings(&arguments)?,
        environment: strings(&environment)?,
    };
    program.push(step, "exec");
    Ok(Command { name, candidates })
}

/// The paths that a command's name may stand for, as `execvp` and Go's `LookPath` see it.
fn candidates(name: &str, environment: &[String]) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':')
        .filter(|_| !path.is_empty())
        .map(|directory| match directory {
            "" => format!("./{name}"),
            directory => format!("{}/{name}", directory.trim_end_matches('/')),
        })
        .collect()
}

fn resource(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match kind {
        R::RlimitCpu => libc::RLIMIT_CPU,
        R::RlimitFsize => libc::RLIMIT_FSIZE,
        R::RlimitData => libc::RLIMIT_DATA,
        R::RlimitStack => libc::RLIMIT_STACK,
        R::RlimitCore => libc::RLIMIT_CORE,
        R::RlimitRss => libc::RLIMIT_RSS,
        R::RlimitNproc => libc::RLIMIT_NPROC,
        R::RlimitNofile => libc::RLIMIT_NOFILE,
        R::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        R::RlimitAs => libc::RLIMIT_AS,
        R::RlimitLocks => libc::RLIMIT_LOCKS,
        R::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        R::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        R::RlimitNice => libc::RLIMIT_NICE,
        R::RlimitRtprio => libc::RLIMIT_RTPRIO,
        R::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_every_directory_of_path() {
        let env = ["HOME=/".to_owned(), "PATH=/usr/bin/::/bin".to_owned()];
        assert_eq!(candidates("ls", &env), ["/usr/bin/ls", "./ls", "/bin/ls"]);
        assert_eq!(candidates("./ls", &env), ["./ls"]);
        assert_eq!(candidates("ls", &[]), [""; 0]);
    }
}
