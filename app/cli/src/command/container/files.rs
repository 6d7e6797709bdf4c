//! `commit`, `diff` and `export`.

use clap::Args;
use http::Method;

use crate::api::Query;
use crate::api::client::empty;
use crate::command::{Context, name_in_path};
use crate::download;
use crate::error::Error;
use crate::format::value::Value;
use crate::options::reference;
use crate::terminal::{print, print_line};

/// Create a new image from a container's changes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]")]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short = 'a', long, value_name = "string")]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short = 'c', long, value_name = "list")]
    change: Vec<String>,
    /// Commit message
    #[arg(short = 'm', long, value_name = "string")]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short = 'p', long, value_name = "bool", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pause: bool,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]", hide = true)]
    repository: Option<String>,
}

/// Inspect changes to files or directories on a container's filesystem
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff diff CONTAINER")]
pub struct Diff {
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Export a container's filesystem as a tar archive
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff export [OPTIONS] CONTAINER")]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short = 'o', long, value_name = "string")]
    output: Option<String>,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Carries `commit` out.
pub async fn commit(context: &Context, args: &Commit) -> Result<(), Error> {
    let (repository, tag) = match args.repository.as_deref().map(reference::parts) {
        Some((name, tag, _)) => (Some(name), tag),
        None => (None, None),
    };
    let mut query = Query::new()
        .with("container", &args.container)
        .maybe("repo", repository)
        .maybe("tag", tag)
        .maybe("author", args.author.as_deref())
        .maybe("comment", args.message.as_deref())
        .with("pause", u8::from(args.pause));
    for change in &args.change {
        query = query.with("changes", change);
    }
    let answer = context.client().await?.post("/commit", &query).await?;
    print_line(answer.text("Id"));
    Ok(())
}

/// Carries `diff` out.
pub async fn diff(context: &Context, args: &Diff) -> Result<(), Error> {
    let path = format!("/containers/{}/changes", name_in_path(&args.container));
    let answer = context.client().await?.get(&path, &Query::new()).await?;
    let mut text = String::new();
    if let Value::List(changes) = &answer {
        for change in changes {
            let kind = match change.int("Kind") {
                0 => 'C',
                1 => 'A',
                _ => 'D',
            };
            text.push_str(&format!("{kind} {}\n", change.text("Path")));
        }
    }
    print(&text);
    Ok(())
}

/// Carries `export` out.
pub async fn export(context: &Context, args: &Export) -> Result<(), Error> {
    download::check("export", args.output.as_deref())?;
    let client = context.client().await?;
    let path = format!("/containers/{}/export", name_in_path(&args.container));
    let response = client.send(Method::GET, &path, &Query::new(), empty(), &[]).await?;
    download::save(response, args.output.as_deref()).await
}
