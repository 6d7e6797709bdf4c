//! `events`.

use clap::Args;
use futures_util::StreamExt;
use http::Method;
use jiff::Timestamp;

use crate::api::Query;
use crate::api::client::empty;
use crate::command::Context;
use crate::error::Error;
use crate::format::time;
use crate::format::value::Value;
use crate::options::filter;
use crate::template::Template;
use crate::terminal::print_line;

/// Get real time events from the server
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff events [OPTIONS]")]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("../format_object.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    until: Option<String>,
}

/// Carries `events` out.
pub async fn run(context: &Context, args: &Events) -> Result<(), Error> {
    let template = match args.format.as_deref() {
        None | Some("json" | "") => None,
        Some(text) => Some(Template::parse(text)?.lenient()),
    };
    let now = Timestamp::now();
    let moment = |text: &Option<String>| {
        text.as_deref().map(|text| time::moment(text, now)).transpose().map_err(Error::plain)
    };
    let query = Query::new()
        .maybe("since", moment(&args.since)?)
        .maybe("until", moment(&args.until)?)
        .maybe("filters", filter::encode(&args.filter).map_err(Error::plain)?);
    let client = context.client().await?;
    let response = client.send(Method::GET, "/events", &query, empty(), &[]).await?;
    let mut events = client.documents(response);
    while let Some(event) = events.next().await {
        let event = event?;
        match (&template, args.format.as_deref()) {
            (Some(template), _) => print_line(template.execute(&event)?),
            (None, Some("json")) => print_line(event.to_json()),
            (None, _) => print_line(line(&event)),
        }
    }
    Ok(())
}

fn line(event: &Value) -> String {
    let nanoseconds = match event.int("timeNano") {
        0 => i128::from(event.int("time")) * 1_000_000_000,
        nanoseconds => i128::from(nanoseconds),
    };
    let actor = event.get("Actor").unwrap_or(&Value::Null);
    let mut attributes: Vec<String> =
        actor.entries("Attributes").iter().map(|(key, value)| format!("{key}={value}")).collect();
    attributes.sort();
    let mut text = format!(
        "{} {} {} {}",
        time::event_date(nanoseconds),
        event.text("Type"),
        event.text("Action"),
        actor.text("ID")
    );
    if !attributes.is_empty() {
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_sorted_attributes() {
        let event = Value::parse(
            br#"{"Type":"container","Action":"create","Actor":{"ID":"abc","Attributes":{"name":"x","image":"b"}},
            "time":1,"timeNano":1500000000}"#,
        )
        .unwrap();
        let text = line(&event);
        assert!(text.ends_with(" container create abc (image=b, name=x)"), "{text}");
        assert!(text.contains(":01.500000000"), "{text}");
    }
}
