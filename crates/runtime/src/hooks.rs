//! Programs that run at certain points of a container's life (runtime-spec, config.md, "POSIX-platform Hooks").

use crate::error::Error;
use crate::mounts::c_string;
use oci_spec::runtime::{Hook, Hooks};
use rustix::fs::MemfdFlags;
use skiff_linux_sys::child::{FdRef, Program, Step};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a hook with a time limit is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How much of a failed hook's words goes into the error.
const MOST_WORDS: u64 = 4096;

/// Runs hooks in turn outside of the container; each reads `state` from its standard input.
///
/// # Errors
/// [`Error::Hook`] for the first that fails; those after it are not run.
pub fn run_hooks(kind: &'static str, hooks: Option<&Vec<Hook>>, state: &[u8]) -> Result<(), Error> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        run(hook, state).map_err(|what| Error::Hook { kind, index, what })?;
    }
    Ok(())
}

fn run(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", hook.path().display());
    let mut command = Command::new(hook.path());
    let mut arguments = hook.args().iter().flatten();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    for entry in hook.env().iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    // Files, not pipes: a hook need not read its input, and nobody reads its words until it has ended.
    let (stdin, words) = (memory(state).map_err(text)?, memory(b"").map_err(text)?);
    let mut words = std::fs::File::from(words);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::null());
    command.stderr(Stdio::from(words.try_clone().map_err(text)?));
    let mut child = command.spawn().map_err(text)?;
    let status = wait(&mut child, hook.timeout()).map_err(text)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if words.seek(SeekFrom::Start(0)).is_ok() {
        let _ = words.take(MOST_WORDS).read_to_string(&mut said);
    }
    Err(format!("{status}, stderr: {}", said.trim_end()))
}

fn wait(child: &mut Child, timeout: Option<i64>) -> std::io::Result<std::process::ExitStatus> {
    let Some(limit) = timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|&limit| limit > 0)
    else {
        return child.wait();
    };
    let deadline = Instant::now() + Duration::from_secs(limit);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other(format!("hook ran past specified timeout of {limit}s")));
        }
        std::thread::sleep(LOOK);
    }
}

/// A file in memory with these bytes, to be read from the start.
pub(crate) fn memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("skiff-hook", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Adds steps for hooks that the container's own process runs; `stdin` has their input by then.
pub(crate) fn push(
    kind: &str,
    hooks: Option<&Vec<Hook>>,
    stdin: FdRef,
    program: &mut Program,
) -> Result<(), Error> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        let path = c_string(hook.path().as_os_str().as_bytes())?;
        let strings = |list: &Option<Vec<String>>| {
            list.iter().flatten().map(|text| c_string(text.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let mut arguments = strings(hook.args())?;
        if arguments.is_empty() {
            arguments.push(path.clone());
        }
        let timeout =
            hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()).filter(|&limit| limit > 0);
        let step = Step::Hook {
            path,
            arguments,
            environment: strings(hook.env())?,
            stdin,
            timeout: timeout.map(|seconds| seconds.saturating_mul(1000)),
        };
        program.push(step, format!("error running {kind} hook #{index}"));
    }
    Ok(())
}

/// Refuses hooks whose path is not absolute, by name.
pub(crate) fn check(hooks: &Hooks) -> Result<(), Error> {
    let kinds = [
        ("prestart", deprecated(hooks)),
        ("createRuntime", hooks.create_runtime().as_ref()),
        ("createContainer", hooks.create_container().as_ref()),
        ("startContainer", hooks.start_container().as_ref()),
        ("poststart", hooks.poststart().as_ref()),
        ("poststop", hooks.poststop().as_ref()),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.into_iter().flatten().enumerate() {
            if !hook.path().is_absolute() {
                let what =
                    format!("hooks.{kind}[{index}].path \"{}\" is not absolute", hook.path().display());
                return Err(Error::Spec { what });
            }
        }
    }
    Ok(())
}

/// The hooks that `createRuntime` has replaced, which Docker and others still use.
#[allow(deprecated)]
pub(crate) fn deprecated(hooks: &Hooks) -> Option<&Vec<Hook>> {
    hooks.prestart().as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(json: &str) -> Vec<Hook> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let json = format!(
            r#"[{{"path":"/bin/sh","args":["hook","-c","cat > {0}; echo $A-$HOME >> {0}"],"env":["A=1"]}}]"#,
            file.path().display()
        );
        run_hooks("poststop", Some(&hook(&json)), b"{state}\n").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "{state}\n1-\n");
    }

    #[test]
    fn the_first_failure_ends_it_with_the_hooks_words() {
        let json = r#"[{"path":"/bin/sh","args":["sh","-c","exit 0"]},
            {"path":"/bin/sh","args":["sh","-c","echo no >&2; exit 3"]},{"path":"/nonexistent"}]"#;
        let error = run_hooks("poststart", Some(&hook(json)), b"").unwrap_err().to_string();
        assert!(error.contains("poststart hook #1") && error.contains("3, stderr: no"), "{error}");
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let json = r#"[{"path":"/bin/sh","args":["sh","-c","sleep 100"],"timeout":1}]"#;
        let error = run_hooks("poststop", Some(&hook(json)), b"").unwrap_err().to_string();
        assert!(error.contains("timeout of 1s"), "{error}");
    }
}
