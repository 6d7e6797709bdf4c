//! The agent: supervisor, engine and link router, in the guest or on a Linux host. Wiring only.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};

mod data_disk;
mod engine;
mod held;
mod init;
mod layout;
mod link;
mod logging;
mod modules;
mod pty;
mod query;
mod serve;
mod ssh;
mod supervise;

/// Runs Linux containers: inside the Skiff guest, or directly on a Linux host with `serve`.
#[derive(Debug, Parser)]
#[command(name = "skiff-agent", version, disable_help_subcommand = true)]
struct Command {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run the engine on this host in the foreground, until SIGTERM
    Serve(serve::Options),
    /// Create and run containers from OCI bundles, as runc does; also under the name skiff-oci
    Oci(Box<skiff_oci::Options>),
    /// Be the guest's init (PID 1)
    Supervise,
    /// Serve the Docker API; started by the supervisor
    #[command(hide = true)]
    Engine(engine::Options),
    /// Route streams between host and engine; started by the supervisor
    #[command(hide = true)]
    Link(link::Options),
}

fn main() -> std::process::ExitCode {
    if init::is_asked_for() {
        return init::run().into();
    }
    if skiff_oci::is_asked_for() {
        return skiff_oci::main();
    }
    // Before the arguments are read: it starts the program anew.
    if std::env::args_os().nth(1).is_some_and(|role| role == "oci") {
        skiff_oci::seal::ensure(c"skiff-agent");
    }
    // The kernel starts /init without arguments.
    let role = if supervise::is_init() { Role::Supervise } else { Command::parse().role };
    let result = match role {
        Role::Serve(options) => serve::run(options),
        Role::Oci(options) => return skiff_oci::run(*options),
        Role::Supervise => supervise::run(),
        Role::Engine(options) => engine::run(options),
        Role::Link(options) => link::run(options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skiff-agent: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
