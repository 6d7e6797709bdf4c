//! Commands about the engine.

pub mod events;
pub mod info;
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
