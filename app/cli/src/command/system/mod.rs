//! Commands about the engine.

pub mod df;
pub mod events;
pub mod info;
pub mod prune;
pub mod version;

use clap::Subcommand;

use super::Context;
use crate::error::Error;

/// Commands with the same name at the top and under `system`.
#[derive(Debug, Subcommand)]
pub enum Shared {
    Events(events::Events),
    Info(info::Info),
}

impl Shared {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Shared::Events(args) => events::run(context, args).await,
            Shared::Info(args) => info::run(context, args).await,
        }
    }
}

/// Everything under `system`.
#[derive(Debug, Subcommand)]
pub enum System {
    #[command(flatten)]
    Shared(Shared),
    Df(df::Df),
    Prune(prune::Prune),
}

impl System {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            System::Shared(command) => command.run(context).await,
            System::Df(args) => df::run(context, args).await,
            System::Prune(args) => prune::run(context, args).await,
        }
    }
}
