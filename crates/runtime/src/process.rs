//! The part that `create` and `exec` share: streams, user, capabilities, seccomp, command.

use crate::capability;
use crate::created::Command;
use crate::error::Error;
use crate::io::Io;
use crate::mounts::c_string;
use crate::seccomp;
use oci_spec::runtime::{Linux, PosixRlimitType, Process};
use skiff_linux_sys::child::{Console, Program, Step, WindowSize};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// The file creation mask that runc gives when the spec has none.
const DEFAULT_UMASK: u32 = 0o022;

pub(crate) fn push_oom_score(process: &Process, program: &mut Program) {
    if let Some(score) = process.oom_score_adj() {
        program.push(Step::OomScore(score.to_string().into_bytes()), "setting oom_score_adj");
    }
}

/// Opens the terminal, if there is to be one; needs the root and its `/dev/pts`.
pub(crate) fn push_terminal(io: &Io, console: Console, program: &mut Program) {
    if let Io::Terminal { size } = io {
        let size = size.map(|(columns, rows)| WindowSize { columns, rows });
        program.push(Step::Terminal { size, console }, "opening the terminal");
    }
}

/// Adds everything from the limits to the command. The root must be in place.
pub(crate) fn push_tail(
    process: &Process,
    linux: Option<&Linux>,
    io: Io,
    program: &mut Program,
) -> Result<Command, Error> {
    for limit in process.rlimits().iter().flatten() {
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
    program.push(Step::CloseAll, "closing descriptors");
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
    let groups = user.additional_gids().clone().unwrap_or_default();
    program.push(Step::User { uid: user.uid(), gid: user.gid(), groups }, "setting the user");
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Docker gives a user other than root what the spec lists as effective only with ambient capabilities: execve
    // clears the rest, and so it does here.
    let capabilities = Step::Capabilities {
        effective: mask(|sets| sets.effective()),
        permitted: mask(|sets| sets.permitted()),
        inheritable: mask(|sets| sets.inheritable()),
        ambient: mask(|sets| sets.ambient()),
    };
    let filter = linux.and_then(|linux| linux.seccomp().as_ref()).map(seccomp::compile_cached).transpose()?;
    let flags = linux.and_then(|linux| linux.seccomp().as_ref()).map_or(0, seccomp::flags);
    // Waiting comes before the filter, which may forbid reading; without no_new_privs a filter needs a privilege that
    // the final capabilities lack.
    program.push(Step::Ready, "waiting for the start");
    let seccomp = filter.map(|filter| Step::Seccomp { filter, flags });
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
