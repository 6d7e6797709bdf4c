//! `ps`.

use clap::Args;
use jiff::Timestamp;

use crate::api::Query;
use crate::command::Context;
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::format::{time, units};
use crate::options::filter;
use crate::terminal::print;

/// List containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff ps [OPTIONS]")]
pub struct List {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("../format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "int", default_value_t = -1)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short = 'l', long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short = 's', long)]
    size: bool,
}

const COLUMNS: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// Carries `ps` out.
pub async fn run(context: &Context, args: &List) -> Result<(), Error> {
    let columns = if args.size { format!("{COLUMNS}\t{{{{.Size}}}}") } else { COLUMNS.to_owned() };
    let format = match &args.format {
        None if args.quiet => Some("{{.ID}}".to_owned()),
        Some(format) if args.quiet && (format == "table" || format.is_empty()) => Some("{{.ID}}".to_owned()),
        other => other.clone(),
    };
    let layout = Layout::new(format.as_deref(), &columns)?;
    let size = args.size || format.as_deref().is_some_and(|format| format.contains(".Size"));
    let last = if args.latest { 1 } else { args.last };
    let query = Query::new()
        .flag("all", args.all)
        .maybe("limit", (last > 0).then_some(last))
        .flag("size", size)
        .maybe("filters", filter::encode(&args.filter).map_err(Error::plain)?);
    let client = context.client().await?;
    let Value::List(containers) = client.get("/containers/json", &query).await? else {
        return Err(Error::plain("the engine sent no list of containers"));
    };
    let now = Timestamp::now();
    let rows: Vec<Row> = containers.iter().map(|container| row(container, !args.no_trunc, now)).collect();
    print(&layout.render(TITLES, &rows)?);
    Ok(())
}

fn row(container: &Value, truncate: bool, now: Timestamp) -> Row {
    let id = container.text("Id");
    let created = container.int("Created");
    let command = container.text("Command");
    let command = if truncate { units::ellipsis(command, 20) } else { command.to_owned() };
    let names: Vec<&str> = container
        .list("Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        // `/other/alias` is a link, not a name of its own.
        .filter(|name| !truncate || !name.contains('/'))
        .collect();
    let mounts: Vec<String> = container
        .list("Mounts")
        .iter()
        .map(|mount| match mount.text("Name") {
            "" => mount.text("Source"),
            name => name,
        })
        .map(|name| if truncate { units::ellipsis(name, 15) } else { name.to_owned() })
        .collect();
    let local = container.list("Mounts").iter().filter(|mount| mount.text("Driver") == "local").count();
    let networks: Vec<&str> = container
        .get("NetworkSettings")
        .map(|settings| settings.entries("Networks").iter().map(|(name, _)| name.as_str()).collect())
        .unwrap_or_default();
    let labels = container.entries("Labels");
    let mut label_text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    label_text.sort();
    let size = units::size(container.int("SizeRw"));
    let size = match container.int("SizeRootFs") {
        0 => size,
        root => format!("{size} (virtual {})", units::size(root)),
    };
    Row {
        fields: vec![
            ("Command", Value::from(format!("{command:?}"))),
            ("CreatedAt", Value::from(time::list_date(created))),
            ("ID", Value::from(if truncate { units::short_id(id) } else { id.to_owned() })),
            ("Image", Value::from(image(container, truncate))),
            ("Labels", Value::from(label_text.join(","))),
            ("LocalVolumes", Value::from(local.to_string())),
            ("Mounts", Value::from(mounts.join(","))),
            ("Names", Value::from(names.join(","))),
            ("Networks", Value::from(networks.join(","))),
            ("Platform", Value::Null),
            ("Ports", Value::from(super::port::summary(container.list("Ports")))),
            ("RunningFor", Value::from(time::ago(created, now))),
            ("Size", Value::from(size)),
            ("State", Value::from(container.text("State"))),
            ("Status", Value::from(container.text("Status"))),
        ],
        labels: labels.to_vec(),
    }
}

fn image(container: &Value, truncate: bool) -> String {
    match container.text("Image") {
        "" => "<no image>".to_owned(),
        image if truncate && image == container.text("ImageID") => units::short_id(image),
        image if truncate => image.split_once('@').map_or(image, |(name, _)| name).to_owned(),
        image => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_looks_like_docker_s() {
        let container = Value::parse(
            br#"{"Id":"0123456789abcdef","Names":["/web","/db/web"],"Image":"busybox","ImageID":"sha256:1",
            "Command":"sh -c 'echo hello; sleep 100'","Created":1000,"State":"running","Status":"Up 2 minutes",
            "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],"Labels":{"a":"b"},
            "Mounts":[],"NetworkSettings":{"Networks":{"bridge":{}}},"SizeRw":12}"#,
        )
        .unwrap();
        let rows = [row(&container, true, Timestamp::from_second(1130).unwrap())];
        let table = Layout::new(None, COLUMNS).unwrap().render(TITLES, &rows).unwrap();
        assert_eq!(
            table,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES\n\
             0123456789ab   busybox   \"sh -c 'echo hello; …\"   2 minutes ago   Up 2 minutes   0.0.0.0:8080->80/tcp   web\n"
        );
        let names =
            Layout::new(Some("{{.Names}} {{.Label \"a\"}} {{.Networks}} {{.Size}}"), COLUMNS).unwrap();
        assert_eq!(names.render(TITLES, &rows).unwrap(), "web b bridge 12B\n");
    }
}
