//! Why a guest did not start.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::{Accelerator, qemu::qmp};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stage of the start, each with its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The process is up and its monitor greets.
    Monitor,
    /// The guest has shown its first sign of life.
    FirstSign,
    /// The process answers on its sockets.
    Socket,
    /// A saved guest has been read.
    Loaded,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Monitor => "the virtual machine's monitor to answer",
            Self::FirstSign => "the guest's first sign of life",
            Self::Socket => "the engine's socket",
            Self::Loaded => "the saved guest to be read",
        })
    }
}

/// What the guest and its program said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// End of the guest's console.
    pub console: String,
    /// End of the program's error output.
    pub stderr: String,
}

impl Evidence {
    /// Joins what there is for a log or a message's detail.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (title, body) in [("error output", &self.stderr), ("console", &self.console)] {
            if !body.trim().is_empty() {
                text.push_str(&format!("--- {title} ---\n{}\n", body.trim_end()));
            }
        }
        text
    }
}

/// Why a guest could not be started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program that runs guests is not installed.
    #[error("{program} was not found in PATH")]
    ProgramMissing {
        /// Its file name.
        program: String,
        /// How to get it.
        hint: String,
    },
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process ended during the start.
    #[error("the guest's process ended ({status}) while waiting for {stage}{}", first_line(evidence))]
    Ended {
        /// What was awaited.
        stage: Stage,
        /// How it ended.
        status: String,
        /// Last words.
        evidence: Box<Evidence>,
    },
    /// A stage took too long.
    #[error("waited {} s in vain for {stage}{}", after.as_secs_f32(), with_accelerator(*accelerator))]
    Deadline {
        /// What was awaited.
        stage: Stage,
        /// How long.
        after: Duration,
        /// How instructions were executed.
        accelerator: Option<Accelerator>,
        /// Last words.
        evidence: Box<Evidence>,
    },
    /// The monitor refused a command or broke off.
    #[error("the virtual machine's monitor failed at {command}")]
    Monitor {
        /// The command.
        command: &'static str,
        /// Why.
        #[source]
        source: qmp::Error,
    },
    /// A file could not be used.
    #[error("cannot {op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process of an earlier run is in the way and cannot be ended.
    #[error("process {pid} of an earlier run does not end")]
    Stuck {
        /// The process.
        pid: u32,
    },
    /// A saved guest belongs to another machine.
    #[error("{what} is not the same as when the guest was saved")]
    Changed {
        /// What differs.
        what: &'static str,
    },
    /// The guest could not be written or read.
    #[error("the guest cannot be {what}: {reason}")]
    Migration {
        /// `saved` or `restored`.
        what: &'static str,
        /// QEMU's reason.
        reason: String,
    },
    /// The host cannot do what the backend needs.
    #[error("{what} is not available on this system")]
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
}

/// The first telling line of the program's error output, since it usually names the cause.
fn first_line(evidence: &Evidence) -> String {
    match evidence.stderr.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}

fn with_accelerator(accelerator: Option<Accelerator>) -> String {
    accelerator.map(|a| format!(" ({a})")).unwrap_or_default()
}

impl Error {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { hint, .. } => Some(hint.clone()),
            Self::Ended { evidence, .. } if evidence.stderr.contains("lock") => {
                Some("another process uses the data disk; stop the other virtual machine first".to_owned())
            }
            Self::Ended { .. } | Self::Deadline { .. } => {
                Some("see `skiff machine logs` for the guest's console".to_owned())
            }
            Self::Stuck { pid } => Some(format!("end process {pid} by hand and try again")),
            _ => None,
        }
    }

    /// Gives the last words of the guest and its program, when the error has them.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Ended { evidence, .. } | Self::Deadline { evidence, .. } => Some(evidence),
            _ => None,
        }
    }
}
