//! `history`.

use clap::Args;
use jiff::Timestamp;

use crate::api::Query;
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::format::{time, units};
use crate::options::platform;
use crate::terminal::print;

/// Show the history of an image
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff history [OPTIONS] IMAGE")]
pub struct History {
    #[doc = include_str!("../format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, value_name = "bool", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show history for the given platform, as os[/arch[/variant]]
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Image
    #[arg(value_name = "IMAGE", hide = true)]
    image: String,
}

const COLUMNS: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

const TITLES: &[(&str, &str)] = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

/// Carries `history` out.
pub async fn run(context: &Context, args: &History) -> Result<(), Error> {
    let format = if args.quiet && args.format.is_none() { Some("{{.ID}}") } else { args.format.as_deref() };
    let layout = Layout::new(format, COLUMNS)?;
    let client = context.client().await?;
    let query = Query::new().maybe("platform", platform::query(args.platform.as_deref())?);
    let path = format!("/images/{}/history", name_in_path(&args.image));
    let Value::List(steps) = client.get(&path, &query).await? else {
        return Err(Error::plain("the engine sent no history"));
    };
    let now = Timestamp::now();
    let rows: Vec<Row> = steps.iter().map(|step| row(step, args, now)).collect();
    let mut titles = TITLES.to_vec();
    if !args.human {
        titles
            .iter_mut()
            .filter(|(name, _)| *name == "CreatedSince")
            .for_each(|title| title.1 = "CREATED AT");
    }
    print(&layout.render(&titles, &rows)?);
    Ok(())
}

fn row(step: &Value, args: &History, now: Timestamp) -> Row {
    let (id, created, size) = (step.text("Id"), step.int("Created"), step.int("Size"));
    let by = step.text("CreatedBy").replace('\t', " ");
    let comment = step.text("Comment");
    let date = Timestamp::from_second(created).map(|time| time.to_string()).unwrap_or_default();
    Row {
        fields: vec![
            ("Comment", Value::from(comment)),
            ("CreatedAt", Value::from(date.clone())),
            ("CreatedBy", Value::from(if args.no_trunc { by } else { units::ellipsis(&by, 45) })),
            (
                "CreatedSince",
                Value::from(match args.human {
                    true if created <= 0 => "N/A".to_owned(),
                    true => time::ago(created, now),
                    false => date,
                }),
            ),
            (
                "ID",
                Value::from(if args.no_trunc || id == "<missing>" {
                    id.to_owned()
                } else {
                    units::short_id(id)
                }),
            ),
            ("Size", Value::from(if args.human { units::size(size) } else { size.to_string() })),
        ],
        labels: Vec::new(),
    }
}
