//! `daemon`: the host daemon in the foreground.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use skiff_host::daemon as host;
use skiff_settings::{BackendChoice, Paths};

use super::Context;
use crate::error::Error;

/// Where the engine runs.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Backend {
    Auto,
    Qemu,
    Native,
}

/// Run the host daemon in the foreground
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff daemon [OPTIONS]")]
pub struct Daemon {
    /// Where the engine runs: "auto", "qemu" (in a guest), "native" (on this Linux host)
    #[arg(long, value_name = "string")]
    backend: Option<Backend>,
    /// State directory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Docker socket to listen on
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Registry to ask before docker.io; may be given more than once
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Leave the docker CLI's configuration alone: write no context
    #[arg(long)]
    no_context: bool,
}

/// Carries `daemon` out.
pub async fn run(context: &Context, args: &Daemon) -> Result<(), Error> {
    let paths = match &args.state {
        Some(state) => Paths::discover(Some(state)).map_err(|source| Error::Host {
            message: "using the state directory".to_owned(),
            hint: None,
            source: Some(Box::new(source)),
        })?,
        None => context.paths()?,
    };
    let mut options = host::Options::new(paths);
    options.backend = args.backend.map(|backend| match backend {
        Backend::Auto => BackendChoice::Auto,
        Backend::Qemu => BackendChoice::Qemu,
        Backend::Native => BackendChoice::Native,
    });
    options.docker_socket = match &args.socket {
        Some(path) => Some(std::path::absolute(path).map_err(|source| Error::file(path, source))?),
        None => None,
    };
    options.registry_mirrors = args.registry_mirror.clone();
    if args.no_context {
        options.docker_config = None;
    }
    host::run(options).await.map_err(|error| Error::Host {
        message: "the daemon has ended".to_owned(),
        hint: error.hint(),
        source: Some(Box::new(error)),
    })
}
