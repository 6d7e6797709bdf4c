//! `push`.

use std::io;

use clap::Args;
use http::Method;

use super::pull::full_name;
use crate::api::Query;
use crate::api::client::empty;
use crate::command::{Context, name_in_path};
use crate::credentials;
use crate::error::Error;
use crate::options::trust::ContentTrust;
use crate::options::{platform, reference};
use crate::progress::Display;
use crate::terminal::{self, print_line};

/// Upload an image to a registry
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff push [OPTIONS] NAME[:TAG]")]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short = 'a', long)]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Push a platform-specific manifest as a single-platform image to the registry, as os[/arch[/variant]]
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Image
    #[arg(value_name = "NAME", hide = true)]
    image: String,
}

/// Carries `push` out.
pub async fn run(context: &Context, args: &Push) -> Result<(), Error> {
    args.trust.check()?;
    let (name, tag, digest) = reference::parts(&args.image);
    if digest.is_some() {
        return Err(Error::plain("cannot push a digest reference"));
    }
    if args.all_tags && tag.is_some() {
        return Err(Error::plain("tag can't be used with --all-tags/-a"));
    }
    if tag.is_none() && !args.all_tags && !args.quiet {
        print_line("Using default tag: latest");
    }
    let query = if args.all_tags { Query::new() } else { Query::new().with("tag", tag.unwrap_or("latest")) };
    let query = query.maybe("platform", platform::query(args.platform.as_deref())?);
    // The engine wants the header, with or without anything in it.
    let auth = credentials::header_for(name)?.unwrap_or_else(|| "e30=".to_owned());
    let client = context.client().await?;
    let path = format!("/images/{}/push", name_in_path(name));
    let response = client.send(Method::POST, &path, &query, empty(), &[("x-registry-auth", &auth)]).await?;
    let messages = client.documents(response);
    if args.quiet {
        Display::new(io::sink(), None).show(messages).await?;
        // With all tags there is no single one to name.
        print_line(if args.all_tags { name.to_owned() } else { full_name(&args.image) });
    } else {
        let width =
            terminal::stdout_is_terminal().then(|| terminal::size().map_or(80, |(columns, _)| columns));
        Display::new(io::stdout(), width).show(messages).await?;
    }
    Ok(())
}
