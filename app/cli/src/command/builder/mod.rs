//! `builder`: builds and their cache.

use clap::{Args, Subcommand};

use crate::api::Query;
use crate::command::image::build;
use crate::command::{Context, confirm, report_pruned};
use crate::error::Error;
use crate::options::{bytes, filter};

/// Everything under `builder`.
#[derive(Debug, Subcommand)]
pub enum Builder {
    Build(Box<build::Build>),
    Prune(Prune),
}

/// Remove build cache
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff builder prune [OPTIONS]")]
pub struct Prune {
    /// Remove all unused build cache, not just dangling ones
    #[arg(short = 'a', long)]
    all: bool,
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    /// Amount of disk space to keep for cache
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    keep_storage: Option<i64>,
}

impl Builder {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Builder::Build(args) => build::run(context, args).await,
            Builder::Prune(args) => prune(context, args).await,
        }
    }
}

async fn prune(context: &Context, args: &Prune) -> Result<(), Error> {
    let filters = filter::encode(&args.filter).map_err(Error::plain)?;
    if !args.force {
        confirm(match args.all {
            true => "This will remove all build cache.",
            false => "This will remove all dangling build cache.",
        })?;
    }
    let query = Query::new()
        .maybe("all", args.all.then_some(1))
        .maybe("keep-storage", args.keep_storage)
        .maybe("filters", filters);
    let answer = context.client().await?.post("/build/prune", &query).await?;
    report_pruned("Deleted build cache objects:", answer.list("CachesDeleted"), answer.int("SpaceReclaimed"));
    Ok(())
}
