//! `rmi`, `tag`, `image prune`.

use clap::Args;

use crate::api::Query;
use crate::command::{Context, confirm, each, name_in_path, report_pruned};
use crate::error::Error;
use crate::format::value::Value;
use crate::options::{filter, platform, reference};
use crate::terminal::{print_line, warn};

/// Remove one or more images
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff rmi [OPTIONS] IMAGE [IMAGE...]")]
pub struct Remove {
    /// Force removal of the image
    #[arg(short = 'f', long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove only the given platform variant, as os[/arch[/variant]]
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    platform: Vec<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE", hide = true)]
    images: Vec<String>,
}

/// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")]
pub struct Tag {
    /// Existing image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]", hide = true)]
    source: String,
    /// New name
    #[arg(value_name = "TARGET_IMAGE[:TAG]", hide = true)]
    target: String,
}

/// Remove unused images
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff image prune [OPTIONS]")]
pub struct Prune {
    /// Remove all unused images, not just dangling ones
    #[arg(short = 'a', long)]
    all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
}

/// Prints what a removal of images has untagged and deleted.
pub fn print_removed(list: &[Value]) {
    for item in list {
        for (key, value) in [("Untagged", item.text("Untagged")), ("Deleted", item.text("Deleted"))] {
            if !value.is_empty() {
                print_line(format_args!("{key}: {value}"));
            }
        }
    }
}

/// Carries `rmi` out.
pub async fn remove(context: &Context, args: &Remove) -> Result<(), Error> {
    let client = context.client().await?;
    let mut query = Query::new().flag("force", args.force).flag("noprune", args.no_prune);
    for wanted in &args.platform {
        query = query.with("platforms", platform::encode(wanted)?);
    }
    each(&args.images, "", async |image| {
        match client.delete(&format!("/images/{}", name_in_path(image)), &query).await {
            Ok(Value::List(removed)) => {
                print_removed(&removed);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if args.force && error.is_not_found() => {
                warn(error.chain());
                Ok(())
            }
            Err(error) => Err(error),
        }
    })
    .await
}

/// Carries `tag` out.
pub async fn tag(context: &Context, args: &Tag) -> Result<(), Error> {
    let (name, tag, digest) = reference::parts(&args.target);
    if digest.is_some() {
        return Err(Error::plain("refusing to create a tag with a digest reference"));
    }
    let client = context.client().await?;
    let query = Query::new().with("repo", name).with("tag", tag.unwrap_or("latest"));
    client.post(&format!("/images/{}/tag", name_in_path(&args.source)), &query).await?;
    Ok(())
}

/// Carries `image prune` out.
pub async fn prune(context: &Context, args: &Prune) -> Result<(), Error> {
    let mut filters = args.filter.clone();
    filters.push(format!("dangling={}", !args.all));
    let filters = filter::encode(&filters).map_err(Error::plain)?;
    if !args.force {
        confirm(if args.all {
            "This will remove all images without at least one container associated to them."
        } else {
            "This will remove all dangling images."
        })?;
    }
    let client = context.client().await?;
    let answer = client.post("/images/prune", &Query::new().maybe("filters", filters)).await?;
    let removed = answer.list("ImagesDeleted");
    if !removed.is_empty() {
        print_line("Deleted Images:");
        print_removed(removed);
        print_line("");
    }
    report_pruned("", &[], answer.int("SpaceReclaimed"));
    Ok(())
}
