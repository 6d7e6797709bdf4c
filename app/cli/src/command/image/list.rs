//! `images` and `image inspect`.

use clap::Args;
use jiff::Timestamp;

use super::tree;
use crate::api::Query;
use crate::command::Context;
use crate::command::container::inspect::{Kind, objects};
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::format::{time, units};
use crate::options::{filter, platform};
use crate::terminal::print;

/// List images
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff images [OPTIONS] [REPOSITORY[:TAG]]")]
pub struct List {
    /// Show all images (default hides intermediate images)
    #[arg(short = 'a', long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("../format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    /// List images with all their names, and whether they are used
    #[arg(long, conflicts_with_all = ["all", "digests", "format", "quiet"])]
    tree: bool,
    /// Repository, with a tag if wanted
    #[arg(value_name = "REPOSITORY[:TAG]", hide = true)]
    repository: Option<String>,
}

/// Display detailed information on one or more images
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff image inspect [OPTIONS] IMAGE [IMAGE...]")]
pub struct InspectImage {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
    /// Inspect a specific platform of the multi-platform image, as os[/arch[/variant]]
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE", hide = true)]
    names: Vec<String>,
}

const COLUMNS: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const COLUMNS_DIGEST: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// The titles of the columns that [`rows`] fills.
pub const IMAGE_TITLES: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

/// Carries `image inspect` out.
pub async fn inspect(context: &Context, args: &InspectImage) -> Result<(), Error> {
    let query = Query::new().maybe("platform", platform::query(args.platform.as_deref())?);
    objects(context, &[Kind::Image], &args.names, args.format.as_deref(), &query).await
}

/// Carries `images` out.
pub async fn run(context: &Context, args: &List) -> Result<(), Error> {
    let format = match (&args.format, args.quiet) {
        (None, true) => Some("{{.ID}}"),
        (Some(format), true) if format == "table" => Some("{{.ID}}"),
        (format, _) => format.as_deref(),
    };
    let layout = Layout::new(format, if args.digests { COLUMNS_DIGEST } else { COLUMNS })?;
    let mut filters = args.filter.clone();
    filters.extend(args.repository.as_ref().map(|repository| format!("reference={repository}")));
    let query =
        Query::new().flag("all", args.all).maybe("filters", filter::encode(&filters).map_err(Error::plain)?);
    let client = context.client().await?;
    let Value::List(images) = client.get("/images/json", &query).await? else {
        return Err(Error::plain("the engine sent no list of images"));
    };
    if args.tree {
        let Value::List(containers) = client.get("/containers/json", &Query::new().flag("all", true)).await?
        else {
            return Err(Error::plain("the engine sent no list of containers"));
        };
        print(&tree::render(&images, &containers, !args.no_trunc));
        return Ok(());
    }
    let now = Timestamp::now();
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| rows(image, args.digests || uses_digest(format), !args.no_trunc, now))
        .collect();
    print(&layout.render(IMAGE_TITLES, &rows)?);
    Ok(())
}

fn uses_digest(format: Option<&str>) -> bool {
    format.is_some_and(|format| format.contains(".Digest"))
}

const NONE: &str = "<none>";

/// One row for each name of an image.
pub fn rows(image: &Value, digests: bool, truncate: bool, now: Timestamp) -> Vec<Row> {
    let texts = |key: &str| -> Vec<String> {
        image
            .list(key)
            .iter()
            .filter_map(Value::as_str)
            .filter(|text| !text.starts_with(NONE))
            .map(str::to_owned)
            .collect()
    };
    let (tags, repo_digests) = (texts("RepoTags"), texts("RepoDigests"));
    let digest_of = |repository: &str| {
        repo_digests
            .iter()
            .filter_map(|entry| entry.split_once('@'))
            .find(|(name, _)| *name == repository)
            .map_or(NONE, |(_, digest)| digest)
            .to_owned()
    };
    let mut names: Vec<(String, String, String)> = Vec::new();
    for tag in &tags {
        let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, NONE));
        let digest = if digests { digest_of(repository) } else { NONE.to_owned() };
        names.push((repository.to_owned(), tag.to_owned(), digest));
    }
    if names.is_empty() {
        match repo_digests.first().and_then(|entry| entry.split_once('@')) {
            Some((repository, digest)) => {
                names.push((repository.to_owned(), NONE.to_owned(), digest.to_owned()))
            }
            None => names.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned())),
        }
    }
    let id = image.text("Id");
    let created = image.int("Created");
    let size = units::size(image.int("Size"));
    let count = |key: &str| match image.int(key) {
        ..=-1 => "N/A".to_owned(),
        number => number.to_string(),
    };
    let amount = |key: &str| match image.int(key) {
        ..=-1 => "N/A".to_owned(),
        number => units::size_precise(number),
    };
    let unique = match (image.int("Size"), image.int("SharedSize")) {
        (_, ..=-1) => "N/A".to_owned(),
        (size, shared) => units::size_precise(size - shared),
    };
    names
        .into_iter()
        .map(|(repository, tag, digest)| Row {
            fields: vec![
                ("Containers", Value::from(count("Containers"))),
                ("CreatedAt", Value::from(time::list_date(created))),
                (
                    "CreatedSince",
                    Value::from(if created <= 0 { "N/A".to_owned() } else { time::ago(created, now) }),
                ),
                ("Digest", Value::from(digest)),
                ("ID", Value::from(if truncate { units::short_id(id) } else { id.to_owned() })),
                ("Repository", Value::from(repository)),
                ("SharedSize", Value::from(amount("SharedSize"))),
                ("Size", Value::from(size.clone())),
                ("Tag", Value::from(tag)),
                ("UniqueSize", Value::from(unique.clone())),
                ("VirtualSize", Value::from(units::size_precise(image.int("Size")))),
            ],
            labels: Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_image_is_a_row() {
        let image = Value::parse(
            br#"{"Id":"sha256:0123456789abcdef","RepoTags":["busybox:1","localhost:5000/b:latest"],
            "RepoDigests":["busybox@sha256:aa"],"Created":1000,"Size":4261000,"SharedSize":-1,"Containers":-1}"#,
        )
        .unwrap();
        let now = Timestamp::from_second(1000 + 14 * 86400).unwrap();
        let table = |digests| {
            let columns = if digests { COLUMNS_DIGEST } else { COLUMNS };
            Layout::new(None, columns)
                .unwrap()
                .render(IMAGE_TITLES, &rows(&image, digests, true, now))
                .unwrap()
        };
        assert_eq!(
            table(false),
            "REPOSITORY         TAG       IMAGE ID       CREATED       SIZE\n\
             busybox            1         0123456789ab   2 weeks ago   4.26MB\n\
             localhost:5000/b   latest    0123456789ab   2 weeks ago   4.26MB\n"
        );
        assert!(table(true).contains("busybox            1         sha256:aa   0123456789ab"));
    }

    #[test]
    fn an_image_without_a_name_is_none() {
        let image =
            Value::parse(br#"{"Id":"sha256:0123456789abcdef","RepoTags":[],"Created":0,"Size":1}"#).unwrap();
        let rows = rows(&image, false, true, Timestamp::now());
        let text = Layout::new(Some("{{.Repository}}:{{.Tag}} {{.CreatedSince}}"), COLUMNS).unwrap();
        assert_eq!(text.render(IMAGE_TITLES, &rows).unwrap(), "<none>:<none> N/A\n");
    }
}
