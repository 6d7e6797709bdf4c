//! What can go wrong, in the words of Docker and runc where users know them.

use std::io;
use std::path::PathBuf;

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec asks for something that makes no sense or is not supported.
    #[error("{what}")]
    Spec {
        /// What is wrong with it.
        what: String,
    },
    /// The source of a bind mount cannot be opened.
    #[error("bind source path cannot be used: {}", path.display())]
    BindSource {
        /// The path on the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root file system cannot be mounted.
    #[error("root file system cannot be mounted: {what}")]
    RootFs {
        /// The part that failed.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace that should be joined cannot be.
    #[error("namespace cannot be joined: {what}")]
    Namespace {
        /// Which one.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ids of a user namespace cannot be mapped.
    #[error("ids of the user namespace cannot be mapped: {what}")]
    Mapping {
        /// The file or helper that refused.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A hook failed. The text is complete; there is no source behind it.
    #[error("error running {kind} hook #{index}: {what}")]
    Hook {
        /// At what point of the container's life it runs.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// How it failed.
        what: String,
    },
    /// The seccomp profile cannot be compiled.
    #[error("seccomp profile cannot be used")]
    Seccomp {
        /// Why.
        #[from]
        source: crate::seccomp::Error,
    },
    /// The process cannot be cloned.
    #[error("process cannot be cloned")]
    Clone {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step of the child's setup failed.
    #[error("{what}")]
    Setup {
        /// What the step does.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The command cannot be executed. The text is complete; there is no source behind it.
    #[error("{}", exec_text(path, *reason, *errno))]
    Exec {
        /// The command as the spec has it.
        path: String,
        /// At what point it failed.
        reason: ExecFailure,
        /// With which error.
        errno: i32,
    },
    /// The child ended before it was set up, by a signal or because memory ran out.
    #[error("container process ended before it was started")]
    Died,
    /// The conversation with the child failed.
    #[error("container process cannot be reached")]
    Channel {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup file cannot be read or written.
    #[error("cgroup: {}", path.display())]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// At what point executing a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecFailure {
    /// A name without a slash is in no directory of `$PATH`.
    NotInPath,
    /// The path given does not exist.
    Missing,
    /// The path given is a directory or has no execute permission.
    NotExecutable,
    /// The kernel refused to run the file.
    Refused,
}

fn exec_text(path: &str, reason: ExecFailure, errno: i32) -> String {
    let why = errno_text(errno);
    match reason {
        ExecFailure::NotInPath => format!("exec: \"{path}\": executable file not found in $PATH"),
        ExecFailure::Missing => format!("exec: \"{path}\": stat {path}: {why}"),
        ExecFailure::NotExecutable => format!("exec: \"{path}\": {why}"),
        ExecFailure::Refused => format!("exec {path}: {why}"),
    }
}

/// The system's text of an error number as Go programs print it: lower case, without the number.
pub(crate) fn errno_text(errno: i32) -> String {
    io_text(&io::Error::from_raw_os_error(errno))
}

fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl Error {
    /// The exit code that Docker gives to a container whose start failed like this: 127, 126 or 128.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { reason: ExecFailure::NotInPath, .. } => 127,
            Self::Exec { errno: libc::ENOENT, .. } => 127,
            Self::Exec { .. } => 126,
            // Docker looks for these texts anywhere in the message, a working directory's error included.
            Self::Setup { source, .. } => match source.raw_os_error() {
                Some(libc::ENOENT) => 127,
                Some(libc::EACCES | libc::EISDIR) => 126,
                _ => 128,
            },
            _ => 128,
        }
    }

    /// The whole chain in one line, in the form that Docker prints.
    pub fn docker_text(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            match error.downcast_ref::<io::Error>() {
                Some(io) => text.push_str(&io_text(io)),
                None => text.push_str(&error.to_string()),
            }
            next = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(reason: ExecFailure, errno: i32) -> Error {
        Error::Exec { path: "/x".into(), reason, errno }
    }

    #[test]
    fn exec_errors_have_dockers_words_and_codes() {
        let cases = [
            (ExecFailure::NotInPath, libc::ENOENT, "exec: \"/x\": executable file not found in $PATH", 127),
            (ExecFailure::NotInPath, libc::EACCES, "exec: \"/x\": executable file not found in $PATH", 127),
            (ExecFailure::Missing, libc::ENOENT, "exec: \"/x\": stat /x: no such file or directory", 127),
            (ExecFailure::NotExecutable, libc::EACCES, "exec: \"/x\": permission denied", 126),
            (ExecFailure::NotExecutable, libc::EISDIR, "exec: \"/x\": is a directory", 126),
            (ExecFailure::Refused, libc::ENOEXEC, "exec /x: exec format error", 126),
        ];
        for (reason, errno, text, code) in cases {
            let error = exec(reason, errno);
            assert_eq!((error.to_string().as_str(), error.exit_code()), (text, code));
        }
    }

    #[test]
    fn docker_text_ends_with_the_cause() {
        let source = io::Error::from_raw_os_error(libc::ENOENT);
        let error =
            Error::Setup { what: "chdir to cwd (\"/nodir\") set in config.json failed".into(), source };
        let text = "chdir to cwd (\"/nodir\") set in config.json failed: no such file or directory";
        assert_eq!(error.docker_text(), text);
    }
}
