//! The namespace runtime as a command, with the arguments, states and exit codes that callers of runc know.
//!
//! It is a program of its own, `skiff-oci`, and part of the agent as `skiff-agent oci`. **Why a program of its own:** each
//! command starts it twice (`seal.rs`), and most of what a command takes is that start. One with the engine in it has ten times
//! as many pages to relocate; and less of what could be misused is in reach while a process is on its way into a container.
//!
//! There is no process of ours beside a running container: its first process becomes a child of the caller's subreaper,
//! and everything that later commands need to know is in its state directory (`state.rs`).
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod bundle;
mod cgroups;
mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod log;
mod processes;
mod run;
pub mod seal;
mod signals;
mod start;
mod state;
mod terminal;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The name under which the program is this command.
const NAME: &str = "skiff-oci";
/// The version of the runtime spec that states and features name.
const SPEC_VERSION: &str = "1.2.0";

/// Creates and runs containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = NAME, version, disable_help_subcommand = true)]
struct Program {
    #[command(flatten)]
    options: Options,
}

/// What `oci` takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Directory for the state of containers (default: /run/skiff-oci, or below $XDG_RUNTIME_DIR for other users)
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File that errors are written to, beside standard error
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How the log's lines are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    /// Log more
    #[arg(long, global = true)]
    debug: bool,
    /// Read cgroup paths as systemd's `slice:prefix:name`
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// Taken for the sake of callers: what is possible without privilege is found out
    #[arg(long, value_name = "MODE")]
    rootless: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a container; its command waits for `start`
    Create(create::Options),
    /// Run the command of a container that was made
    Start(start::Options),
    /// Make a container, run its command and wait for it
    Run(run::Options),
    /// Show a container's state as JSON
    State(list::Id),
    /// Send a signal to a container's first process
    Kill(kill::Options),
    /// Remove a container that has ended
    Delete(delete::Options),
    /// Run a further command in a running container
    Exec(exec::Options),
    /// Stop all processes of a container
    Pause(list::Id),
    /// Let the processes of a paused container go on
    Resume(list::Id),
    /// Show all containers
    List(list::Options),
    /// Show the processes of a container
    Ps(processes::Options),
    /// Change the limits of a container
    Update(update::Options),
    /// Show as JSON what this runtime can do
    Features,
    /// Write a configuration to start from into a bundle
    Spec(bundle::SpecOptions),
}

/// Whether a program of another name (the agent) was started as this command.
pub fn is_asked_for() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&name).file_name().is_some_and(|name| name == NAME)
}

/// Runs the command that the arguments ask for. To be called before the process does anything else.
pub fn main() -> ExitCode {
    // First of all, before the arguments are read: it starts the program anew.
    seal::ensure(c"skiff-oci");
    run(Program::parse().options)
}

/// Runs one command of a program whose file is protected: see [`seal::ensure`].
pub fn run(options: Options) -> ExitCode {
    let Options { global, command } = options;
    let what = command.verb();
    let failure_code = if what == "exec" { 255 } else { 1 };
    match dispatch(&global, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&global, &text(&error));
            ExitCode::from(failure_code)
        }
    }
}

/// The chain of an error in one line; the runtime's own errors in the words that callers look for.
fn text(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for part in error.chain() {
        if let Some(runtime) = part.downcast_ref::<skiff_runtime::Error>() {
            parts.push(runtime.docker_text());
            break;
        }
        parts.push(part.to_string());
    }
    parts.join(": ")
}

impl Command {
    fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::Run(_) => "run",
            Self::State(_) => "state",
            Self::Kill(_) => "kill",
            Self::Delete(_) => "delete",
            Self::Exec(_) => "exec",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::List(_) => "list",
            Self::Ps(_) => "ps",
            Self::Update(_) => "update",
            Self::Features => "features",
            Self::Spec(_) => "spec",
        }
    }
}

fn dispatch(global: &Global, command: Command) -> anyhow::Result<u8> {
    let store = || state::Store::open(global.root.clone());
    match command {
        Command::Create(options) => create::run(&store()?, global, options).map(|()| 0),
        Command::Start(options) => start::run(&store()?, &options).map(|()| 0),
        Command::Run(options) => run::run(&store()?, global, options),
        Command::State(id) => list::state(&store()?, &id).map(|()| 0),
        Command::Kill(options) => kill::run(&store()?, &options).map(|()| 0),
        Command::Delete(options) => delete::run(&store()?, &options).map(|()| 0),
        Command::Exec(options) => exec::run(&store()?, options),
        Command::Pause(id) => processes::freeze(&store()?, &id, true).map(|()| 0),
        Command::Resume(id) => processes::freeze(&store()?, &id, false).map(|()| 0),
        Command::List(options) => list::list(&store()?, &options).map(|()| 0),
        Command::Ps(options) => processes::list(&store()?, &options).map(|()| 0),
        Command::Update(options) => update::run(&store()?, &options).map(|()| 0),
        Command::Features => features::show().map(|()| 0),
        Command::Spec(options) => bundle::write_spec(&options).map(|()| 0),
    }
}
