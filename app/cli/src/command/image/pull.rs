//! `pull`, and the pulls that `run` and `create` need.

use std::io;

use clap::Args;
use http::Method;

use crate::api::client::empty;
use crate::api::{Client, Query};
use crate::command::Context;
use crate::credentials;
use crate::error::Error;
use crate::options::reference;
use crate::options::trust::ContentTrust;
use crate::progress::Display;
use crate::terminal::{self, print_line};

/// Download an image from a registry
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff pull [OPTIONS] NAME[:TAG|@DIGEST]")]
pub struct Pull {
    /// Download all tagged images in the repository
    #[arg(short = 'a', long)]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Image
    #[arg(value_name = "NAME", hide = true)]
    image: String,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// Platform, as `linux/arm64`.
    pub platform: Option<&'a str>,
    /// Shows no progress.
    pub quiet: bool,
    /// Takes every tag of the repository.
    pub all_tags: bool,
}

/// Carries `pull` out.
pub async fn run(context: &Context, args: &Pull) -> Result<(), Error> {
    args.trust.check()?;
    let (name, tag, digest) = reference::parts(&args.image);
    if args.all_tags && (tag.is_some() || digest.is_some()) {
        return Err(Error::plain("tag can't be used with --all-tags/-a"));
    }
    let client = context.client().await?;
    if tag.is_none() && digest.is_none() && !args.quiet && !args.all_tags {
        print_line("Using default tag: latest");
    }
    let request = Request { platform: args.platform.as_deref(), quiet: args.quiet, all_tags: args.all_tags };
    let width = terminal::stdout_is_terminal().then(|| terminal::size().map_or(80, |(columns, _)| columns));
    pull(&client, &args.image, &request, io::stdout(), width).await?;
    // With all tags there is no single one to name.
    print_line(if args.all_tags { full_repository(name) } else { full_name(&args.image) });
    Ok(())
}

/// Pulls and shows the progress on standard error: standard output belongs to the container.
pub async fn to_stderr(client: &Client, image: &str, request: &Request<'_>) -> Result<(), Error> {
    let width = terminal::stderr_is_terminal().then(|| terminal::size().map_or(80, |(columns, _)| columns));
    pull(client, image, request, io::stderr(), width).await
}

async fn pull(
    client: &Client,
    image: &str,
    request: &Request<'_>,
    out: impl io::Write,
    width: Option<u16>,
) -> Result<(), Error> {
    let (name, tag, digest) = reference::parts(image);
    let query = Query::new()
        .with("fromImage", name)
        .maybe("tag", (!request.all_tags).then(|| digest.or(tag).unwrap_or("latest")))
        .maybe("platform", request.platform);
    let auth = credentials::header_for(name)?;
    let headers: Vec<_> = auth.iter().map(|auth| ("x-registry-auth", auth.as_str())).collect();
    let response = client.send(Method::POST, "/images/create", &query, empty(), &headers).await?;
    let messages = client.documents(response);
    let daemon = |error| match error {
        // Failures in the stream are the engine's words as much as those in a status.
        Error::Plain(message) => Error::Daemon { status: 500, message },
        other => other,
    };
    if request.quiet {
        Display::new(io::sink(), None).show(messages).await.map_err(daemon)?;
    } else {
        Display::new(out, width).show(messages).await.map_err(daemon)?;
    }
    Ok(())
}

/// Spells the registry out: `docker.io/library/busybox`.
fn full_repository(name: &str) -> String {
    let first = name.split('/').next().unwrap_or_default();
    let has_registry = name.contains('/')
        && (first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase());
    match has_registry {
        true if first == "index.docker.io" => name.replacen("index.docker.io", "docker.io", 1),
        true => name.to_owned(),
        false if name.contains('/') => format!("docker.io/{name}"),
        false => format!("docker.io/library/{name}"),
    }
}

/// Spells the registry and tag out, as `pull` does in its last line: `docker.io/library/busybox:latest`.
pub fn full_name(image: &str) -> String {
    let (name, tag, digest) = reference::parts(image);
    let name = full_repository(name);
    match (tag, digest) {
        (_, Some(digest)) => format!("{name}@{digest}"),
        (tag, None) => format!("{name}:{}", tag.unwrap_or("latest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_spells_the_name_out() {
        for (given, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("docker.io/library/x@sha256:0", "docker.io/library/x@sha256:0"),
        ] {
            assert_eq!(full_name(given), full);
        }
    }
}
