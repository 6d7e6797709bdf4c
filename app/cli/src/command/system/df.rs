//! `system df`.

use clap::Args;
use jiff::Timestamp;

use crate::api::Query;
use crate::command::Context;
use crate::command::image::list::{IMAGE_TITLES, rows as image_rows};
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::format::{time, units};
use crate::terminal::print;

/// Show disk usage
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff system df [OPTIONS]")]
pub struct Df {
    #[doc = include_str!("../format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short = 'v', long)]
    verbose: bool,
}

const COLUMNS: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const TITLES: &[(&str, &str)] = &[
    ("Active", "ACTIVE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
                      {{.UniqueSize}}\t{{.Containers}}";
const CONTAINERS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t\
                          {{.Status}}\t{{.Names}}";
const CONTAINER_TITLES: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Names", "NAMES"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];
const VOLUMES: &str = "{{.Name}}\t{{.Links}}\t{{.Size}}";
const VOLUME_TITLES: &[(&str, &str)] = &[("Links", "LINKS"), ("Name", "VOLUME NAME"), ("Size", "SIZE")];

/// Carries `system df` out.
pub async fn run(context: &Context, args: &Df) -> Result<(), Error> {
    if args.verbose && args.format.is_some() {
        return Err(Error::plain("the verbose and the format options conflict"));
    }
    let layout = Layout::new(args.format.as_deref(), COLUMNS)?;
    let client = context.client().await?;
    let usage = client.get("/system/df", &Query::new()).await?;
    if args.verbose {
        print(&verbose(&usage, Timestamp::now())?);
    } else {
        print(&layout.render(TITLES, &summary(&usage))?);
    }
    Ok(())
}

/// One line of the summary in numbers.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
}

fn summary(usage: &Value) -> Vec<Row> {
    let (images, containers) = (usage.list("Images"), usage.list("Containers"));
    let (volumes, cache) = (usage.list("Volumes"), usage.list("BuildCache"));
    let in_use = |image: &&Value| image.int("Containers") > 0;
    let layers = usage.int("LayersSize");
    // What an image that is used shares with others goes only with the last of them.
    let unique = |image: &Value| image.int("Size") - image.int("SharedSize").max(0);
    let used: i64 = images.iter().filter(in_use).map(unique).sum();
    let runs = |container: &&Value| matches!(container.text("State"), "running" | "paused" | "restarting");
    let written = |container: &Value| container.int("SizeRw");
    let data = |volume: &Value, key: &str| volume.get("UsageData").map_or(0, |data| data.int(key).max(0));
    let kinds = [
        Kind {
            name: "Images",
            total: images.len(),
            active: images.iter().filter(in_use).count(),
            size: layers,
            reclaimable: layers - used,
        },
        Kind {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(runs).count(),
            size: containers.iter().map(written).sum(),
            reclaimable: containers.iter().filter(|container| !runs(container)).map(written).sum(),
        },
        Kind {
            name: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|volume| data(volume, "RefCount") > 0).count(),
            size: volumes.iter().map(|volume| data(volume, "Size")).sum(),
            reclaimable: volumes
                .iter()
                .filter(|volume| data(volume, "RefCount") == 0)
                .map(|volume| data(volume, "Size"))
                .sum(),
        },
        Kind {
            name: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|entry| entry.flag("InUse")).count(),
            size: cache.iter().map(|entry| entry.int("Size")).sum(),
            reclaimable: cache
                .iter()
                .filter(|entry| !entry.flag("InUse"))
                .map(|entry| entry.int("Size"))
                .sum(),
        },
    ];
    let row = |kind: Kind| {
        let mut reclaimable = units::size_precise(kind.reclaimable);
        if kind.size > 0 {
            reclaimable.push_str(&format!(" ({}%)", kind.reclaimable * 100 / kind.size));
        }
        Row {
            fields: vec![
                ("Active", Value::from(kind.active.to_string())),
                ("Reclaimable", Value::from(reclaimable)),
                ("Size", Value::from(units::size_precise(kind.size))),
                ("TotalCount", Value::from(kind.total.to_string())),
                ("Type", Value::from(kind.name)),
            ],
            labels: Vec::new(),
        }
    };
    kinds.into_iter().map(row).collect()
}

fn verbose(usage: &Value, now: Timestamp) -> Result<String, Error> {
    let images: Vec<Row> =
        usage.list("Images").iter().flat_map(|image| image_rows(image, false, true, now)).collect();
    let container = |container: &Value| {
        let name = container.list("Names").first().map(ToString::to_string).unwrap_or_default();
        let local = container.list("Mounts").iter().filter(|mount| mount.text("Driver") == "local").count();
        Row {
            fields: vec![
                ("Command", Value::from(format!("\"{}\"", units::ellipsis(container.text("Command"), 20)))),
                ("ID", Value::from(units::short_id(container.text("Id")))),
                ("Image", Value::from(container.text("Image"))),
                ("LocalVolumes", Value::from(local.to_string())),
                ("Names", Value::from(name.trim_start_matches('/'))),
                ("RunningFor", Value::from(time::ago(container.int("Created"), now))),
                ("Size", Value::from(units::size(container.int("SizeRw")))),
                ("Status", Value::from(container.text("Status"))),
            ],
            labels: Vec::new(),
        }
    };
    let volume = |volume: &Value| {
        let data = |key: &str| volume.get("UsageData").map_or(-1, |data| data.int(key));
        Row {
            fields: vec![
                ("Links", Value::from(data("RefCount").to_string())),
                ("Name", Value::from(volume.text("Name"))),
                ("Size", Value::from(units::size_precise(data("Size").max(0)))),
            ],
            labels: Vec::new(),
        }
    };
    let containers: Vec<Row> = usage.list("Containers").iter().map(container).collect();
    let volumes: Vec<Row> = usage.list("Volumes").iter().map(volume).collect();
    let cache: i64 = usage.list("BuildCache").iter().map(|entry| entry.int("Size")).sum();
    let table = |columns: &str, titles: &[(&str, &str)], rows: &[Row]| {
        Layout::new(None, columns)?.render(titles, rows)
    };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache \
         usage: {}\n",
        table(IMAGES, IMAGE_TITLES, &images)?,
        table(CONTAINERS, CONTAINER_TITLES, &containers)?,
        table(VOLUMES, VOLUME_TITLES, &volumes)?,
        units::size_precise(cache),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Value {
        Value::parse(
            br#"{"LayersSize":4321000,
            "Images":[{"Id":"sha256:0123456789abcdef","RepoTags":["box:1"],"Created":1000,"Size":3000000,
                       "SharedSize":1000000,"Containers":1},
                      {"Id":"sha256:fedcba9876543210","RepoTags":[],"Created":1000,"Size":2000000,
                       "SharedSize":1000000,"Containers":0}],
            "Containers":[{"Id":"aaaaaaaaaaaaaaaa","Names":["/one"],"Image":"box:1","Command":"sleep 1000",
                           "State":"running","Status":"Up 1 second","SizeRw":100,"Created":1000,
                           "Mounts":[{"Driver":"local"}]},
                          {"Id":"bbbbbbbbbbbbbbbb","Names":["/two"],"Image":"box:1","Command":"true",
                           "State":"exited","Status":"Exited (0)","SizeRw":300,"Created":1000,"Mounts":[]}],
            "Volumes":[{"Name":"data","UsageData":{"Size":5000,"RefCount":1}},
                       {"Name":"idle","UsageData":{"Size":15000,"RefCount":0}}],
            "BuildCache":[]}"#,
        )
        .unwrap()
    }

    #[test]
    fn summary_tells_what_could_be_freed() {
        let text = Layout::new(None, COLUMNS).unwrap().render(TITLES, &summary(&usage())).unwrap();
        assert_eq!(
            text,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         4.321MB   2.321MB (53%)\n\
             Containers      2         1         400B      300B (75%)\n\
             Local Volumes   2         1         20kB      15kB (75%)\n\
             Build Cache     0         0         0B        0B\n"
        );
    }

    #[test]
    fn details_list_everything_with_its_size() {
        let text = verbose(&usage(), Timestamp::from_second(1060).unwrap()).unwrap();
        for part in [
            "box          1         0123456789ab   About a minute ago   3MB       1MB           2MB           1\n",
            "aaaaaaaaaaaa   box:1     \"sleep 1000\"   1               100B      About a minute ago   Up 1 second   one\n",
            "idle          0         15kB\n",
            "Build cache usage: 0B\n",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }
}
