//! `machine`: the guest that containers run in.

pub mod ssh;
pub mod status;

use clap::{Args, Subcommand};
use skiff_host::control::{LogRequest, LogSource};

use super::Context;
use super::context::{ProgressLine, control_failed};
use crate::error::Error;
use crate::format::units;
use crate::terminal::{print_line, warn};

/// Everything under `machine`.
#[derive(Debug, Subcommand)]
pub enum Machine {
    Logs(Logs),
    Prune(Prune),
    Reclaim(Reclaim),
    Restart(Restart),
    Resume(Resume),
    Ssh(ssh::Ssh),
    Start(Start),
    Status(status::Status),
    Stop(Stop),
    Suspend(Suspend),
}

/// Start the machine
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine start [OPTIONS]")]
pub struct Start {
    /// Try hardware virtualization again even if it failed before
    #[arg(long)]
    retry_accelerator: bool,
}

/// Stop the machine and everything in it, also of one that is asleep
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine stop [OPTIONS]")]
pub struct Stop {
    /// End the host daemon as well
    #[arg(long)]
    daemon: bool,
}

/// Save the machine with everything that runs in it, until something needs it again
///
/// Connections between containers go on when it wakes; those to the host and to the outside end, as with a restart of the
/// network. Published ports stay bound: whoever connects wakes the machine. `machine stop` throws the saved state away.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine suspend")]
pub struct Suspend {}

/// Wake the machine, or start one that is stopped
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine resume")]
pub struct Resume {}

/// Remove the template that the machine is started from
///
/// The next start boots the machine and makes another one. What sleeps is removed by `machine stop`.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine prune")]
pub struct Prune {}

/// Give free space of the machine's disk back to this computer now
///
/// This also happens by itself every few minutes while the machine runs.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine reclaim")]
pub struct Reclaim {}

/// Stop the machine and start it again
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine restart [OPTIONS]")]
pub struct Restart {
    /// Try hardware virtualization again even if it failed before
    #[arg(long)]
    retry_accelerator: bool,
}

/// Show the console of the machine or the log of the host daemon
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine logs [OPTIONS]")]
pub struct Logs {
    /// Show the host daemon's log instead of the console
    #[arg(long)]
    daemon: bool,
    /// Follow log output
    #[arg(short = 'f', long)]
    follow: bool,
    /// Number of lines to show from the end of the log
    #[arg(short = 'n', long, value_name = "string", default_value = "all", value_parser = tail)]
    tail: Tail,
}

#[derive(Debug, Clone, Copy)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => number
            .parse()
            .map(|count| Tail(Some(count)))
            .map_err(|_| "must be a number or \"all\"".to_owned()),
    }
}

impl Machine {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Machine::Logs(args) => logs(context, args).await,
            Machine::Prune(_) => prune(context).await,
            Machine::Reclaim(_) => reclaim(context).await,
            Machine::Restart(args) => restart(context, args).await,
            Machine::Resume(_) => start(context, &Start { retry_accelerator: false }).await,
            Machine::Ssh(args) => ssh::run(context, args).await,
            Machine::Start(args) => start(context, args).await,
            Machine::Status(args) => status::run(context, args).await,
            Machine::Stop(args) => stop(context, args).await,
            Machine::Suspend(_) => suspend(context).await,
        }
    }
}

async fn start(context: &Context, args: &Start) -> Result<(), Error> {
    let control = context.daemon().await?;
    let mut line = ProgressLine::new();
    control.start(args.retry_accelerator, |step| line.show(&step)).await.map_err(control_failed)
}

async fn prune(context: &Context) -> Result<(), Error> {
    context.daemon().await?.prune().await.map_err(control_failed)
}

async fn suspend(context: &Context) -> Result<(), Error> {
    let paths = context.paths()?;
    let control =
        skiff_host::control::Client::connect(&paths.control_socket()).await.map_err(control_failed)?;
    let mut line = ProgressLine::new();
    control.suspend(|step| line.show(&step)).await.map_err(control_failed)
}

async fn reclaim(context: &Context) -> Result<(), Error> {
    let bytes = context.daemon().await?.reclaim().await.map_err(control_failed)?;
    print_line(format!("Total reclaimed space: {}", units::size(i64::try_from(bytes).unwrap_or(i64::MAX))));
    Ok(())
}

async fn restart(context: &Context, args: &Restart) -> Result<(), Error> {
    let control = context.daemon().await?;
    let mut line = ProgressLine::new();
    control.restart(args.retry_accelerator, |step| line.show(&step)).await.map_err(control_failed)
}

/// Stopping starts no daemon only to stop nothing.
async fn stop(context: &Context, args: &Stop) -> Result<(), Error> {
    let paths = context.paths()?;
    let control = match skiff_host::control::Client::connect(&paths.control_socket()).await {
        Ok(control) => control,
        Err(skiff_host::control::ClientError::NotRunning { .. }) => {
            warn("the daemon is not running: there is nothing to stop");
            return Ok(());
        }
        Err(error) => return Err(control_failed(error)),
    };
    let done = if args.daemon { control.shutdown(|_| {}).await } else { control.stop(|_| {}).await };
    done.map_err(control_failed)
}

async fn logs(context: &Context, args: &Logs) -> Result<(), Error> {
    let paths = context.paths()?;
    let source = if args.daemon { LogSource::Daemon } else { LogSource::Console };
    match skiff_host::control::Client::connect(&paths.control_socket()).await {
        Ok(control) => {
            let request = LogRequest { source, tail: args.tail.0, follow: args.follow };
            control.logs(request, print_line).await.map_err(control_failed)
        }
        // Logs are wanted most when nothing runs: read the file itself.
        Err(_) => {
            let path = if args.daemon { paths.daemon_log() } else { paths.console_log() };
            let bytes = std::fs::read(&path).map_err(|source| Error::file(&path, source))?;
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let count = args.tail.0.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
            lines[lines.len().saturating_sub(count)..].iter().for_each(print_line);
            Ok(())
        }
    }
}
