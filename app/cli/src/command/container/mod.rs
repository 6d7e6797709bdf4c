//! Container commands: one file per verb or family of verbs.

pub mod attach;
pub mod config;
pub mod copy;
pub mod create;
pub mod devices;
pub mod exec;
pub mod files;
pub mod inspect;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod networks;
pub mod port;
pub mod prune;
pub mod run;
pub mod session;
pub mod stats;
pub mod top;
pub mod update;

use clap::Subcommand;

use super::Context;
use crate::error::Error;

/// Commands with the same name at the top and under `container`.
#[derive(Debug, Subcommand)]
pub enum Shared {
    Attach(attach::Attach),
    Commit(files::Commit),
    Cp(copy::Copy),
    Create(Box<create::Create>),
    Diff(files::Diff),
    Exec(exec::Exec),
    Export(files::Export),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    Pause(lifecycle::Pause),
    Port(port::Port),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    Rm(lifecycle::Rm),
    Run(Box<run::Run>),
    Start(attach::Start),
    Stats(stats::Stats),
    Stop(lifecycle::Stop),
    Top(top::Top),
    Unpause(lifecycle::Unpause),
    Update(Box<update::Update>),
    Wait(lifecycle::Wait),
}

/// Everything under `container`.
#[derive(Debug, Subcommand)]
pub enum Container {
    #[command(flatten)]
    Shared(Shared),
    /// Display detailed information on one or more containers
    Inspect(inspect::InspectContainer),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::List),
    Prune(prune::Prune),
}

impl Shared {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Shared::Attach(args) => attach::attach(context, args).await,
            Shared::Commit(args) => files::commit(context, args).await,
            Shared::Cp(args) => copy::run(context, args).await,
            Shared::Diff(args) => files::diff(context, args).await,
            Shared::Export(args) => files::export(context, args).await,
            Shared::Create(args) => create::run(context, args).await,
            Shared::Exec(args) => exec::run(context, args).await,
            Shared::Kill(args) => lifecycle::kill(context, args).await,
            Shared::Logs(args) => logs::run(context, args).await,
            Shared::Pause(args) => lifecycle::pause(context, args).await,
            Shared::Port(args) => port::run(context, args).await,
            Shared::Rename(args) => lifecycle::rename(context, args).await,
            Shared::Restart(args) => lifecycle::restart(context, args).await,
            Shared::Rm(args) => lifecycle::rm(context, args).await,
            Shared::Run(args) => run::run(context, args).await,
            Shared::Start(args) => attach::start(context, args).await,
            Shared::Stats(args) => stats::run(context, args).await,
            Shared::Stop(args) => lifecycle::stop(context, args).await,
            Shared::Top(args) => top::run(context, args).await,
            Shared::Unpause(args) => lifecycle::unpause(context, args).await,
            Shared::Update(args) => update::run(context, args).await,
            Shared::Wait(args) => lifecycle::wait(context, args).await,
        }
    }
}

impl Container {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Container::Shared(command) => command.run(context).await,
            Container::Inspect(args) => inspect::container(context, args).await,
            Container::Ls(args) => list::run(context, args).await,
            Container::Prune(args) => prune::run(context, args).await,
        }
    }
}
