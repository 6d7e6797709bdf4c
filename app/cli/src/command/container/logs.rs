//! `logs`.

use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use jiff::Timestamp;

use crate::api::Query;
use crate::api::client::empty;
use crate::api::frames::Frames;
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::time;
use crate::terminal::attach::{standard_output, write_out};

/// Fetch the logs of a container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff logs [OPTIONS] CONTAINER")]
pub struct Logs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short = 'f', long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, value_name = "string", default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Carries `logs` out.
pub async fn run(context: &Context, args: &Logs) -> Result<(), Error> {
    let now = Timestamp::now();
    let moment = |name: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| time::moment(text, now))
            .transpose()
            .map_err(|error| Error::plain(format!("invalid value for {name:?}: {error}")))
    };
    let query = Query::new()
        .flag("stdout", true)
        .flag("stderr", true)
        .flag("details", args.details)
        .flag("follow", args.follow)
        .flag("timestamps", args.timestamps)
        .with("tail", &args.tail)
        .maybe("since", moment("since", &args.since)?)
        .maybe("until", moment("until", &args.until)?);
    let client = context.client().await?;
    let name = name_in_path(&args.container);
    let details = client.get(&format!("/containers/{name}/json"), &Query::new()).await?;
    let tty = details.get("Config").is_some_and(|config| config.flag("Tty"));
    let path = format!("/containers/{}/logs", details.text("Id"));
    let mut body = client.send(Method::GET, &path, &query, empty(), &[]).await?.into_body();
    let mut frames = Frames::default();
    let mut sink = standard_output();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::plain(format!("reading logs: {error}")))?;
        if let Ok(bytes) = frame.into_data() {
            write_out(&bytes, tty, &mut frames, &mut sink)?;
        }
    }
    Ok(())
}
