//! `explain`: why something is as it is.

use clap::{Args, Subcommand};

use super::context::control_failed;
use super::{Context, doctor};
use crate::error::Error;

/// Everything under `explain`.
#[derive(Debug, Subcommand)]
pub enum Explain {
    Port(Port),
}

/// Tell who listens on a port of this host, which container it leads to, and where a connection dies
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff explain port PORT")]
pub struct Port {
    /// Port
    #[arg(value_name = "PORT", hide = true, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

impl Explain {
    /// Carries the command out; anything bad ends with 1.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        let Explain::Port(args) = self;
        let findings = context.daemon().await?.explain_port(args.port).await.map_err(control_failed)?;
        doctor::report(&findings)
    }
}
