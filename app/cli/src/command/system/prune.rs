//! `system prune`.

use clap::Args;

use crate::api::{Client, Query};
use crate::command::image::remove::print_removed;
use crate::command::{Context, confirm};
use crate::error::Error;
use crate::format::units;
use crate::format::value::Value;
use crate::options::filter;
use crate::terminal::print_line;

/// Remove unused data
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff system prune [OPTIONS]")]
pub struct Prune {
    /// Remove all unused images not just dangling ones
    #[arg(short = 'a', long)]
    all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

/// Carries `system prune` out.
pub async fn run(context: &Context, args: &Prune) -> Result<(), Error> {
    if args.volumes && args.filter.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Error::plain("the \"until\" filter is not supported with \"--volumes\""));
    }
    if !args.force {
        confirm(&warning(args))?;
    }
    let client = context.client().await?;
    let mut reclaimed = 0;
    reclaimed +=
        prune(&client, "containers", &args.filter, "ContainersDeleted", "Deleted Containers:").await?;
    reclaimed += prune(&client, "networks", &args.filter, "NetworksDeleted", "Deleted Networks:").await?;
    if args.volumes {
        reclaimed += prune(&client, "volumes", &args.filter, "VolumesDeleted", "Deleted Volumes:").await?;
    }
    let mut filters = args.filter.clone();
    filters.push(format!("dangling={}", !args.all));
    reclaimed += prune(&client, "images", &filters, "ImagesDeleted", "Deleted Images:").await?;
    print_line(format_args!("Total reclaimed space: {}", units::size(reclaimed)));
    Ok(())
}

/// Prunes one kind, tells what is gone and returns the bytes.
async fn prune(
    client: &Client,
    kind: &str,
    filters: &[String],
    field: &str,
    title: &str,
) -> Result<i64, Error> {
    let filters = filter::encode(filters).map_err(Error::plain)?;
    let answer = client.post(&format!("/{kind}/prune"), &Query::new().maybe("filters", filters)).await?;
    let removed = answer.list(field);
    if !removed.is_empty() {
        print_line(title);
        if removed.iter().all(|item| matches!(item, Value::String(_))) {
            removed.iter().for_each(print_line);
        } else {
            print_removed(removed);
        }
        print_line("");
    }
    Ok(answer.int("SpaceReclaimed"))
}

fn warning(args: &Prune) -> String {
    let mut text =
        "This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
                    container\n"
            .to_owned();
    if args.volumes {
        text.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    text.push_str(if args.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    if !args.filter.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        args.filter.iter().for_each(|filter| text.push_str(&format!("  - {filter}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_names_everything_that_goes() {
        let mut args = Prune { all: false, filter: vec!["label=a".to_owned()], force: false, volumes: true };
        let text = warning(&args);
        assert!(text.contains("anonymous volumes") && text.contains("dangling images"), "{text}");
        assert!(text.ends_with("filtered with:\n  - label=a\n"), "{text}");
        args.all = true;
        assert!(warning(&args).contains("all images without"), "{text}");
    }
}
