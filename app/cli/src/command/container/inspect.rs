//! `inspect`: what the engine knows about an object, as it says it.

use clap::{Args, ValueEnum};

use crate::api::{Client, Query};
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::value::Value;
use crate::template::Template;
use crate::terminal::{print, warn};

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum Kind {
    /// Containers.
    Container,
    /// Images.
    Image,
    /// Networks.
    Network,
    /// Volumes.
    Volume,
}

impl Kind {
    fn path(self, name: &str) -> String {
        let name = name_in_path(name);
        match self {
            Kind::Container => format!("/containers/{name}/json"),
            Kind::Image => format!("/images/{name}/json"),
            Kind::Network => format!("/networks/{name}"),
            Kind::Volume => format!("/volumes/{name}"),
        }
    }
}

/// Return low-level information on container engine objects
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff inspect [OPTIONS] NAME|ID [NAME|ID...]")]
pub struct Inspect {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short = 's', long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "string")]
    kind: Option<Kind>,
    /// Names
    #[arg(required = true, value_name = "NAME", hide = true)]
    names: Vec<String>,
}

/// Display detailed information on one or more containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff container inspect [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct InspectContainer {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short = 's', long)]
    size: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

/// Carries `inspect` out.
pub async fn run(context: &Context, args: &Inspect) -> Result<(), Error> {
    let kinds = match args.kind {
        Some(kind) => vec![kind],
        None => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
    };
    let query = Query::new().flag("size", args.size);
    objects(context, &kinds, &args.names, args.format.as_deref(), &query).await
}

/// Carries `container inspect` out.
pub async fn container(context: &Context, args: &InspectContainer) -> Result<(), Error> {
    let query = Query::new().flag("size", args.size);
    objects(context, &[Kind::Container], &args.names, args.format.as_deref(), &query).await
}

/// Prints objects, each of the first kind that has its name. What is found is printed even when something is
/// not.
pub async fn objects(
    context: &Context,
    kinds: &[Kind],
    names: &[String],
    format: Option<&str>,
    query: &Query,
) -> Result<(), Error> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let client = context.client().await?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(&client, kinds, name, query).await {
            Ok(value) => found.push(value),
            Err(error) => errors.push(error),
        }
    }
    match (&template, format) {
        (Some(template), _) => {
            for value in &found {
                match template.execute(value) {
                    Ok(text) => print(&format!("{text}\n")),
                    Err(error) => errors.push(error.into()),
                }
            }
        }
        (None, Some("json")) => print(&format!("{}\n", Value::List(found).to_json())),
        (None, _) => print(&format!("{}\n", Value::List(found).to_pretty_json())),
    }
    let count = errors.len();
    for (index, error) in errors.into_iter().enumerate() {
        if index + 1 == count {
            return Err(error);
        }
        warn(error.chain());
    }
    Ok(())
}

async fn find(client: &Client, kinds: &[Kind], name: &str, query: &Query) -> Result<Value, Error> {
    let mut missing = None;
    for kind in kinds {
        match client.get(&kind.path(name), query).await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_not_found() => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if kinds.len() == 1 => Err(error),
        _ => Err(Error::plain(format!("Error: No such object: {name}"))),
    }
}
