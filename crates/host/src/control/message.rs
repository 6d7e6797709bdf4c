//! What goes over the control socket.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skiff_settings::{Effect, Settings};

/// What the daemon is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Version of the daemon; answered by [`Event::Version`].
    Version {},
    /// State of daemon and guest, without waking the guest; answered by [`Event::Status`].
    Status {},
    /// Start the guest if it does not run.
    Start {
        /// Forget that an accelerator failed before.
        #[serde(default)]
        retry_accelerator: bool,
    },
    /// Stop the guest and everything in it.
    Stop {},
    /// Save the guest with everything that runs in it, and end its process.
    Suspend {},
    /// Remove the template that starts begin with; the next boot makes another one.
    Prune {},
    /// Stop the guest, then start it.
    Restart {
        /// Forget that an accelerator failed before.
        #[serde(default)]
        retry_accelerator: bool,
    },
    /// Connect to the guest's SSH server, starting the guest if needed.
    Shell {},
    /// Connect to the engine without waking the guest or keeping it awake; answered by [`Event::Asleep`] when there is
    /// none.
    Engine {},
    /// Lines of a log; answered by [`Event::Log`].
    Logs {
        /// Which one.
        source: LogSource,
        /// How many of the last lines; none means all.
        #[serde(default)]
        tail: Option<u64>,
        /// Whether to go on with new lines until the client leaves.
        #[serde(default)]
        follow: bool,
    },
    /// Why a connection to a port of the host arrives or not, without waking the guest; answered by
    /// [`Event::Finding`], any number.
    Port {
        /// The port.
        port: u16,
    },
    /// How the network is doing, without waking the guest; answered by [`Event::Finding`], any number.
    Network {},
    /// What this host has and lacks, without waking the guest; answered by [`Event::Finding`], any number.
    Doctor {},
    /// The settings, and what of them is not true yet; answered by [`Event::Settings`].
    Settings {},
    /// Write other settings; answered as [`Request::Settings`]. Nothing starts anew by itself.
    Configure {
        /// All of them.
        settings: Box<Settings>,
    },
    /// Have the guest give back the free space of its disk; answered by [`Event::Reclaimed`].
    Reclaim {},
    /// Everything that helps to find out what is wrong, without what is private, and without waking the guest; answered by
    /// [`Event::Report`], any number.
    Diagnose {},
    /// Stop the guest and end the daemon.
    Shutdown {},
}

/// A log of the host side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// What the daemon did.
    Daemon,
    /// What the guest wrote to its console.
    Console,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Something is under way.
    Progress(Progress),
    /// A line of a log.
    Log {
        /// The line, without its end.
        line: String,
    },
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The answer to [`Request::Version`].
    Version(Version),
    /// Something that was found out.
    Finding(Finding),
    /// The answer to [`Request::Settings`].
    Settings(Box<Configuration>),
    /// The answer to [`Request::Reclaim`].
    Reclaimed {
        /// What the disk has become smaller by on the host, in bytes.
        bytes: u64,
    },
    /// A piece of a report; pieces of one name follow each other.
    Report {
        /// Name of the file.
        name: String,
        /// Its text.
        text: String,
    },
    /// The guest does not run.
    Asleep {},
    /// It is done.
    Done {},
    /// It could not be done.
    Error(Failure),
}

/// The settings, and what goes with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// What is set.
    pub settings: Settings,
    /// Where it is written.
    pub file: PathBuf,
    /// What has to start anew when a setting changes, by its place in the file.
    pub effects: HashMap<String, Effect>,
    /// Whether the guest runs with other settings than these.
    pub guest_pending: bool,
    /// Whether the daemon runs with other settings than these.
    pub daemon_pending: bool,
    /// Processors of this host.
    pub host_cpus: u32,
    /// Memory of this host in MiB.
    pub host_memory_mib: u64,
    /// Memory of the guest in MiB where none is set.
    pub usual_memory_mib: u64,
    /// Directories that are shared where none are set.
    pub usual_shares: Vec<PathBuf>,
    /// Proxies that the environment names, without passwords.
    pub environment: HashMap<String, String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Well.
    Good,
    /// It works, though not as well as it could; or it is worth knowing.
    Note,
    /// Badly.
    Bad,
}

/// Something that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How it is.
    pub grade: Grade,
    /// What it is, in one line.
    pub what: String,
    /// What the user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

impl Finding {
    /// Something that is well.
    pub fn good(what: impl Into<String>) -> Self {
        Self { grade: Grade::Good, what: what.into(), way_out: None }
    }

    /// Something that is worth knowing.
    pub fn note(what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { grade: Grade::Note, what: what.into(), way_out: Some(way_out.into()) }
    }

    /// Something that is wrong.
    pub fn bad(what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { grade: Grade::Bad, what: what.into(), way_out: Some(way_out.into()) }
    }
}

/// A step that has been reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is happening, for people.
    pub step: String,
    /// Milliseconds since the guest's start began.
    pub elapsed_ms: u64,
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The reason, in one line.
    pub message: String,
    /// What the user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last words of the guest, where they help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Failure {
    /// Makes a failure from an error and its sources, in one line.
    pub fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { message: chain(error), hint: None, detail: None }
    }
}

/// Joins an error and its sources by colons.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Where it serves the Docker API.
    pub docker_socket: PathBuf,
}

/// State of daemon and guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// The guest.
    pub machine: MachineStatus,
}

/// State of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Where it serves the Docker API.
    pub docker_socket: PathBuf,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// The states of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// It does not run; the next use starts it.
    Stopped,
    /// It boots.
    Starting,
    /// It runs.
    Running,
    /// It shuts down.
    Stopping,
    /// It failed; the next use tries again.
    Failed,
    /// It is being saved.
    Suspending,
    /// It is saved; the next use wakes it.
    Asleep,
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Suspending => "suspending",
            Self::Asleep => "asleep",
        })
    }
}

/// State of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Where it is in its life.
    pub state: MachineState,
    /// Seconds since it came to this state.
    pub since_seconds: u64,
    /// Why it is in this state, where that is worth telling.
    pub reason: Option<String>,
    /// `qemu` or `native`.
    pub backend: String,
    /// `kvm`, `hvf`, `whpx` or `tcg`; none without a virtual machine.
    pub accelerator: Option<String>,
    /// Why the accelerator is not the best one.
    pub accelerator_note: Option<String>,
    /// Process id on the host.
    pub pid: Option<u32>,
    /// Milliseconds that the last start took.
    pub boot_ms: Option<u64>,
    /// Connections that keep the guest awake.
    pub connections: u64,
    /// Version of the guest image; none without a virtual machine.
    pub image_version: Option<String>,
    /// Virtual processors; none without a virtual machine or where the backend chooses.
    pub cpus: Option<u32>,
    /// Memory of the guest in MiB; none without a virtual machine.
    pub memory_mib: Option<u64>,
    /// Upper bound of the data disk in bytes; none without a virtual machine.
    pub disk_bytes: Option<u64>,
    /// What the data disk takes on the host in bytes; none before the first start.
    pub disk_used_bytes: Option<u64>,
    /// Seconds of idleness after which the guest is stopped; none for never.
    pub idle_stop_seconds: Option<u64>,
    /// Whether it sleeps then instead.
    #[serde(default)]
    pub idle_sleeps: bool,
    /// What a guest that is asleep takes on the host in bytes.
    #[serde(default)]
    pub saved_bytes: Option<u64>,
    /// Seconds since it was saved.
    #[serde(default)]
    pub saved_seconds: Option<u64>,
    /// Why the guest cannot sleep here.
    #[serde(default)]
    pub cannot_sleep: Option<String>,
    /// Whether the last start was a wake.
    #[serde(default)]
    pub woken: bool,
    /// Why a guest that was asleep was booted instead.
    #[serde(default)]
    pub wake_note: Option<String>,
    /// What the template that starts begin with takes on the host in bytes.
    #[serde(default)]
    pub template_bytes: Option<u64>,
    /// Seconds since it was made.
    #[serde(default)]
    pub template_seconds: Option<u64>,
    /// Whether the last start began with the template.
    #[serde(default)]
    pub templated: bool,
    /// Why it did not, where there is something to tell.
    #[serde(default)]
    pub template_note: Option<String>,
    /// What the guest says of itself, when it runs and answers.
    pub guest: Option<GuestStatus>,
}

/// What the guest says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Version of the agent.
    pub version: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Seconds since it booted.
    pub uptime_seconds: f64,
    /// Containers that run.
    pub containers_running: u64,
}
