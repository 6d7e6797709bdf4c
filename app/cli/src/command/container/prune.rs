//! `container prune`.

use clap::Args;

use crate::api::Query;
use crate::command::{Context, confirm, report_pruned};
use crate::error::Error;
use crate::options::filter;

/// Remove all stopped containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff container prune [OPTIONS]")]
pub struct Prune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
}

/// Carries `container prune` out.
pub async fn run(context: &Context, args: &Prune) -> Result<(), Error> {
    let filters = filter::encode(&args.filter).map_err(Error::plain)?;
    if !args.force {
        confirm("This will remove all stopped containers.")?;
    }
    let client = context.client().await?;
    let answer = client.post("/containers/prune", &Query::new().maybe("filters", filters)).await?;
    report_pruned("Deleted Containers:", answer.list("ContainersDeleted"), answer.int("SpaceReclaimed"));
    Ok(())
}
