//! `load`, `import` and `save`: images from archives and in them.

use std::io;

use clap::Args;
use http::Method;
use http::header::CONTENT_TYPE;
use tokio::fs::File;

use crate::api::Query;
use crate::api::client::{Body, empty, streamed};
use crate::command::Context;
use crate::download;
use crate::error::Error;
use crate::options::{platform, reference};
use crate::progress::Display;
use crate::terminal;

/// Load an image from a tar archive or STDIN
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff load [OPTIONS]")]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short = 'i', long, value_name = "string")]
    input: Option<String>,
    /// Load only the given platform variant, as os[/arch[/variant]]
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]")]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short = 'c', long, value_name = "list")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short = 'm', long, value_name = "string")]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Archive
    #[arg(value_name = "file|URL|-", hide = true)]
    source: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]", hide = true)]
    repository: Option<String>,
}

/// Save one or more images to a tar archive (streamed to STDOUT by default)
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff save [OPTIONS] IMAGE [IMAGE...]")]
pub struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(short = 'o', long, value_name = "string")]
    output: Option<String>,
    /// Save only the given platform variant, as os[/arch[/variant]]
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE", hide = true)]
    images: Vec<String>,
}

/// Carries `save` out.
pub async fn save(context: &Context, args: &Save) -> Result<(), Error> {
    download::check("save image", args.output.as_deref())?;
    let query = args.images.iter().fold(Query::new(), |query, image| query.with("names", image));
    let query = query.maybe("platform", platform::query(args.platform.as_deref())?);
    let response = context.client().await?.send(Method::GET, "/images/get", &query, empty(), &[]).await?;
    download::save(response, args.output.as_deref()).await
}

async fn file(path: &str) -> Result<Body, Error> {
    let file = File::open(path).await.map_err(|error| Error::plain(format!("open {path}: {error}")))?;
    Ok(streamed(file))
}

fn width() -> Option<u16> {
    terminal::stdout_is_terminal().then(|| terminal::size().map_or(80, |(columns, _)| columns))
}

/// Carries `load` out.
pub async fn load(context: &Context, args: &Load) -> Result<(), Error> {
    let body = match &args.input {
        Some(path) => file(path).await?,
        None if terminal::stdin_is_terminal() => {
            return Err(Error::plain("requested load from stdin, but stdin is empty"));
        }
        None => streamed(tokio::io::stdin()),
    };
    let client = context.client().await?;
    let query = Query::new().with("quiet", u8::from(args.quiet || !terminal::stdout_is_terminal()));
    let query = query.maybe("platform", platform::query(args.platform.as_deref())?);
    let headers = [(CONTENT_TYPE.as_str(), "application/x-tar")];
    let response = client.send(Method::POST, "/images/load", &query, body, &headers).await?;
    Display::new(io::stdout(), width()).show(client.documents(response)).await?;
    Ok(())
}

/// Carries `import` out.
pub async fn import(context: &Context, args: &Import) -> Result<(), Error> {
    let url = args.source.starts_with("http://") || args.source.starts_with("https://");
    let body = match args.source.as_str() {
        "-" => streamed(tokio::io::stdin()),
        _ if url => empty(),
        path => file(path).await?,
    };
    let (repository, tag) = match args.repository.as_deref().map(reference::parts) {
        Some((name, tag, _)) => (Some(name), tag),
        None => (None, None),
    };
    let mut query = Query::new()
        .with("fromSrc", if url { args.source.as_str() } else { "-" })
        .maybe("repo", repository)
        .maybe("tag", tag)
        .maybe("message", args.message.as_deref())
        .maybe("platform", args.platform.as_deref());
    for change in &args.change {
        query = query.with("changes", change);
    }
    let client = context.client().await?;
    let headers = [(CONTENT_TYPE.as_str(), "application/x-tar")];
    let response = client.send(Method::POST, "/images/create", &query, body, &headers).await?;
    Display::new(io::stdout(), width()).show(client.documents(response)).await?;
    Ok(())
}
