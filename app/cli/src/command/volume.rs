//! `volume`.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::container::inspect::{Kind, objects};
use super::volume_files::{self, Browse, Copy, Export, Import};
use super::{Context, confirm, each, name_in_path, report_pruned};
use crate::api::Query;
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::options::{environment, filter};
use crate::terminal::{print, print_line};

/// Everything under `volume`.
#[derive(Debug, Subcommand)]
pub enum Volume {
    Browse(Browse),
    Cp(Copy),
    Create(Create),
    Export(Export),
    Import(Import),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(List),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

/// Create a volume
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume create [OPTIONS] [VOLUME]")]
pub struct Create {
    /// Specify volume driver name
    #[arg(short = 'd', long, value_name = "string", default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short = 'o', long, value_name = "map")]
    opt: Vec<String>,
    /// Name
    #[arg(value_name = "VOLUME", hide = true)]
    name: Option<String>,
}

/// Display detailed information on one or more volumes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume inspect [OPTIONS] VOLUME [VOLUME...]")]
pub struct Inspect {
    #[doc = include_str!("format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
    /// Volumes
    #[arg(required = true, value_name = "VOLUME", hide = true)]
    names: Vec<String>,
}

/// List volumes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume ls [OPTIONS]")]
pub struct List {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Only display volume names
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// Remove unused local volumes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume prune [OPTIONS]")]
pub struct Prune {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short = 'a', long)]
    all: bool,
    /// Provide filter values (e.g. "label=<label>")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
}

/// Remove one or more volumes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume rm [OPTIONS] VOLUME [VOLUME...]")]
pub struct Remove {
    /// Force the removal of one or more volumes
    #[arg(short = 'f', long)]
    force: bool,
    /// Volumes
    #[arg(required = true, value_name = "VOLUME", hide = true)]
    names: Vec<String>,
}

const TITLES: &[(&str, &str)] = &[
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

impl Volume {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Volume::Browse(args) => volume_files::browse(context, args).await,
            Volume::Cp(args) => volume_files::copy(context, args).await,
            Volume::Create(args) => create(context, args).await,
            Volume::Export(args) => volume_files::export(context, args).await,
            Volume::Import(args) => volume_files::import(context, args).await,
            Volume::Inspect(args) => {
                objects(context, &[Kind::Volume], &args.names, args.format.as_deref(), &Query::new()).await
            }
            Volume::Ls(args) => list(context, args).await,
            Volume::Prune(args) => prune(context, args).await,
            Volume::Rm(args) => remove(context, args).await,
        }
    }
}

async fn create(context: &Context, args: &Create) -> Result<(), Error> {
    let (labels, options): (HashMap<_, _>, HashMap<_, _>) =
        (environment::map(&args.label), environment::map(&args.opt));
    let body = json!({
        "Name": args.name.as_deref().unwrap_or_default(),
        "Driver": args.driver,
        "DriverOpts": options,
        "Labels": labels,
    });
    let client = context.client().await?;
    let answer = client.post_json("/volumes/create", &Query::new(), &body).await?;
    print_line(answer.text("Name"));
    Ok(())
}

async fn list(context: &Context, args: &List) -> Result<(), Error> {
    let format = if args.quiet && args.format.is_none() { Some("{{.Name}}") } else { args.format.as_deref() };
    let layout = Layout::new(format, "{{.Driver}}\t{{.Name}}")?;
    let filters = filter::encode(&args.filter).map_err(Error::plain)?;
    let client = context.client().await?;
    let answer = client.get("/volumes", &Query::new().maybe("filters", filters)).await?;
    let mut volumes: Vec<&Value> = answer.list("Volumes").iter().collect();
    volumes.sort_by_key(|volume| volume.text("Name").to_owned());
    let rows: Vec<Row> = volumes
        .into_iter()
        .map(|volume| {
            let labels = volume.entries("Labels");
            let mut texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            texts.sort();
            Row {
                fields: vec![
                    ("Availability", Value::from("N/A")),
                    ("Driver", Value::from(volume.text("Driver"))),
                    ("Group", Value::from("N/A")),
                    ("Labels", Value::from(texts.join(","))),
                    ("Links", Value::from("N/A")),
                    ("Mountpoint", Value::from(volume.text("Mountpoint"))),
                    ("Name", Value::from(volume.text("Name"))),
                    ("Scope", Value::from(volume.text("Scope"))),
                    ("Size", Value::from("N/A")),
                    ("Status", Value::from("N/A")),
                ],
                labels: labels.to_vec(),
            }
        })
        .collect();
    print(&layout.render(TITLES, &rows)?);
    Ok(())
}

async fn prune(context: &Context, args: &Prune) -> Result<(), Error> {
    let mut filters = args.filter.clone();
    if args.all {
        filters.push("all=true".to_owned());
    }
    let filters = filter::encode(&filters).map_err(Error::plain)?;
    if !args.force {
        confirm(if args.all {
            "This will remove all local volumes not used by at least one container."
        } else {
            "This will remove anonymous local volumes not used by at least one container."
        })?;
    }
    let client = context.client().await?;
    let answer = client.post("/volumes/prune", &Query::new().maybe("filters", filters)).await?;
    report_pruned("Deleted Volumes:", answer.list("VolumesDeleted"), answer.int("SpaceReclaimed"));
    Ok(())
}

async fn remove(context: &Context, args: &Remove) -> Result<(), Error> {
    let client = context.client().await?;
    let query = Query::new().flag("force", args.force);
    each(&args.names, "", async |name| {
        client.delete(&format!("/volumes/{}", name_in_path(name)), &query).await?;
        print_line(name);
        Ok(())
    })
    .await
}
