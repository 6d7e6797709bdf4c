//! `search`.

use clap::Args;
use futures_util::StreamExt as _;
use http::Method;

use crate::api::Query;
use crate::api::client::empty;
use crate::command::Context;
use crate::credentials;
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::units;
use crate::format::value::Value;
use crate::options::filter;
use crate::terminal::print;

/// Search Docker Hub, or another registry's index, for images
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff search [OPTIONS] [HOST[:PORT]/]TERM")]
pub struct Search {
    /// Filter output based on conditions provided (is-official, stars)
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "int", default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Words
    #[arg(value_name = "TERM", hide = true)]
    term: String,
}

const COLUMNS: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

const TITLES: &[(&str, &str)] = &[
    ("Description", "DESCRIPTION"),
    ("IsAutomated", "AUTOMATED"),
    ("IsOfficial", "OFFICIAL"),
    ("Name", "NAME"),
    ("StarCount", "STARS"),
];

/// Longer descriptions are cut in a table.
const WIDTH: usize = 45;

/// Carries `search` out.
pub async fn run(context: &Context, args: &Search) -> Result<(), Error> {
    let layout = Layout::new(args.format.as_deref(), COLUMNS)?;
    let mut query = Query::new()
        .with("term", &args.term)
        .maybe("filters", filter::encode(&args.filter).map_err(Error::plain)?);
    if args.limit != 0 {
        query = query.with("limit", args.limit);
    }
    let auth = credentials::header_for(&args.term)?;
    let headers: Vec<_> = auth.iter().map(|auth| ("x-registry-auth", auth.as_str())).collect();
    let client = context.client().await?;
    let response = client.send(Method::GET, "/images/search", &query, empty(), &headers).await?;
    let Some(Value::List(found)) = client.documents(response).next().await.transpose()? else {
        return Err(Error::plain("the engine sent no list of repositories"));
    };
    let rows: Vec<Row> = found.iter().map(|found| row(found, args.no_trunc)).collect();
    print(&layout.render(TITLES, &rows)?);
    Ok(())
}

fn row(found: &Value, whole: bool) -> Row {
    let description = found.text("description").replace(['\n', '\r'], " ");
    let mark = |set: bool| Value::from(if set { "[OK]" } else { "" });
    Row {
        fields: vec![
            (
                "Description",
                Value::from(if whole { description } else { units::ellipsis(&description, WIDTH) }),
            ),
            ("IsAutomated", mark(found.flag("is_automated"))),
            ("IsOfficial", mark(found.flag("is_official"))),
            ("Name", Value::from(found.text("name"))),
            ("StarCount", Value::from(found.int("star_count").to_string())),
        ],
        labels: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_a_table() {
        let found = Value::parse(
            br#"[{"star_count":5,"is_official":true,"name":"one","is_automated":false,"description":"first\nline"},
            {"star_count":1,"is_official":false,"name":"me/two","description":""}]"#,
        )
        .unwrap();
        let Value::List(found) = found else { panic!("no list") };
        let rows: Vec<Row> = found.iter().map(|found| row(found, false)).collect();
        assert_eq!(
            Layout::new(None, COLUMNS).unwrap().render(TITLES, &rows).unwrap(),
            "NAME      DESCRIPTION   STARS     OFFICIAL\n\
             one       first line    5         [OK]\n\
             me/two                  1         \n"
        );
    }
}
