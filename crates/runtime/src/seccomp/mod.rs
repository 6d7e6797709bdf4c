//! Seccomp: Docker's default profile, profiles in Docker's JSON, and a compiler for both.

mod bpf;
mod docker;
mod json;
mod syscalls;

pub use json::from_docker_json;

use crate::capability::DEFAULT_CAPABILITIES;
use oci_spec::runtime::{
    Capabilities, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag,
    LinuxSeccompOperator,
};
use skiff_linux_sys::child::{Listener, Step};
use skiff_linux_sys::seccomp::Instruction;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It uses something that is not supported.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it uses.
        what: &'static str,
    },
    /// It looks at an argument that no system call has.
    #[error("system call {name} has no argument {index}")]
    Argument {
        /// The system call.
        name: String,
        /// The argument's index.
        index: usize,
    },
    /// The filter is longer than the kernel takes.
    #[error("the filter has {length} instructions, the kernel takes 4096")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The process that decides on notifications cannot be reached.
    #[error("seccomp listener at {}", path.display())]
    Listener {
        /// The profile's `listenerPath`.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A JSON text is no profile.
    #[error("decoding seccomp profile failed")]
    Json {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A JSON profile contradicts itself or names something unknown.
    #[error("seccomp profile: {what}")]
    Profile {
        /// What is wrong with it.
        what: String,
    },
}

/// How many compiled filters are kept; one machine uses a handful of profiles.
const KEPT: usize = 16;

/// Docker's default profile for a container with Docker's default capabilities.
pub fn docker_default() -> LinuxSeccomp {
    docker_default_for(&DEFAULT_CAPABILITIES.into_iter().collect())
}

/// Docker's default profile for a container with these capabilities: some bring system calls with them.
pub fn docker_default_for(capabilities: &Capabilities) -> LinuxSeccomp {
    docker::profile(bpf::native(), capabilities)
}

/// Compiles a profile to a filter for this machine.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<Instruction>, Error> {
    bpf::compile(profile, bpf::native())
}

/// As [`compile`], with the result kept for the next container that has the same profile.
pub(crate) fn compile_cached(profile: &LinuxSeccomp) -> Result<Arc<[Instruction]>, Error> {
    static CACHE: Mutex<Vec<(LinuxSeccomp, Arc<[Instruction]>)>> = Mutex::new(Vec::new());
    let lock = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, filter)) = lock().iter().find(|(known, _)| known == profile) {
        return Ok(Arc::clone(filter));
    }
    let filter: Arc<[Instruction]> = compile(profile)?.into();
    let mut cache = lock();
    if cache.len() == KEPT {
        cache.remove(0);
    }
    cache.push((profile.clone(), Arc::clone(&filter)));
    Ok(filter)
}

/// The step that installs a profile.
pub(crate) fn step(profile: &LinuxSeccomp) -> Result<Step, Error> {
    if notifies(profile) && profile.listener_path().is_none() {
        return Err(Error::Profile { what: "SCMP_ACT_NOTIFY needs a listenerPath".to_owned() });
    }
    let (listener, extra) = match notifies(profile) {
        true => (Listener::Parent, NEW_LISTENER),
        false => (Listener::None, 0),
    };
    Ok(Step::Seccomp { filter: compile_cached(profile)?, flags: flags(profile) | extra, listener })
}

/// Sends a filter's listener to the process that decides, with what the spec says of it (runtime-spec, config-linux.md,
/// "The Container Process State").
pub(crate) fn hand_over(
    profile: &LinuxSeccomp,
    listener: &OwnedFd,
    pid: i32,
    state: &[u8],
) -> Result<(), Error> {
    let path = profile.listener_path().clone().unwrap_or_default();
    let failed = |source| Error::Listener { path: path.clone(), source };
    let state: serde_json::Value = serde_json::from_slice(state).map_err(|source| Error::Json { source })?;
    let document = serde_json::json!({
        "ociVersion": state.get("ociVersion"),
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": profile.listener_metadata().clone().unwrap_or_default(),
        "state": state,
    });
    let socket = std::os::unix::net::UnixStream::connect(&path).map_err(failed)?;
    let text = document.to_string();
    let sent =
        skiff_linux_sys::fd_passing::send(&socket, text.as_bytes(), &[listener.as_fd()]).map_err(failed)?;
    if sent < text.len() {
        use std::io::Write as _;
        (&socket).write_all(&text.as_bytes()[sent..]).map_err(failed)?;
    }
    Ok(())
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (linux/seccomp.h).
const NEW_LISTENER: u32 = 1 << 3;

/// Whether a profile has calls decided by a process outside of the container.
pub(crate) fn notifies(profile: &LinuxSeccomp) -> bool {
    use oci_spec::runtime::LinuxSeccompAction::ScmpActNotify as Notify;
    profile.default_action() == Notify
        || profile.syscalls().iter().flatten().any(|rule| rule.action() == Notify)
}

/// Makes a condition; the OCI type has no setters.
fn argument(index: usize, op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let builder = match value_two {
        Some(second) => builder.value_two(second),
        None => builder,
    };
    // The builder has a default for every field and checks none.
    builder.build().unwrap_or_default()
}

/// The flags for seccomp(2).
pub(crate) fn flags(profile: &LinuxSeccomp) -> u32 {
    profile.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                // A clone has one thread: there is nothing to synchronise.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies(profile) => 1 << 5,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
            }
    })
}
