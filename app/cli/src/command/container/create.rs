//! `create`: makes a container, pulling its image when it is missing.

use std::io::Write;

use bollard_stubs::models::ContainerCreateBody;
use clap::Args;

use super::config::ContainerFlags;
use crate::api::{Client, Query};
use crate::command::Context;
use crate::command::image::pull;
use crate::error::Error;
use crate::options::reference;
use crate::terminal::{print_line, warn};

/// Create a new container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct Create {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Image, command and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE", hide = true)]
    words: Vec<String>,
}

/// Carries `create` out.
pub async fn run(context: &Context, args: &Create) -> Result<(), Error> {
    let body = args.flags.body(&args.words, false)?;
    let client = context.client().await?;
    let id = create(&client, &args.flags, &body).await?;
    print_line(id);
    Ok(())
}

/// Creates the container and returns its id.
pub async fn create(
    client: &Client,
    flags: &ContainerFlags,
    body: &ContainerCreateBody,
) -> Result<String, Error> {
    flags.trust.check()?;
    let cidfile = flags.cidfile.as_deref().map(CidFile::reserve).transpose()?;
    let image = body.image.as_deref().unwrap_or_default();
    let pulling = pull::Request { platform: flags.platform.as_deref(), quiet: flags.quiet, all_tags: false };
    if flags.pull == "always" {
        pull::to_stderr(client, image, &pulling).await?;
    }
    let query =
        Query::new().maybe("name", flags.name.as_deref()).maybe("platform", flags.platform.as_deref());
    let answer = match client.post_json("/containers/create", &query, body).await {
        Err(error) if flags.pull == "missing" && is_missing_image(&error) => {
            if !flags.quiet {
                warn(format_args!("Unable to find image '{}' locally", reference::familiar_with_tag(image)));
            }
            pull::to_stderr(client, image, &pulling).await?;
            client.post_json("/containers/create", &query, body).await?
        }
        other => other?,
    };
    for warning in answer.list("Warnings") {
        warn(format_args!("WARNING: {warning}"));
    }
    let id = answer.text("Id").to_owned();
    if let Some(file) = cidfile {
        file.write(&id)?;
    }
    Ok(id)
}

fn is_missing_image(error: &Error) -> bool {
    matches!(error, Error::Daemon { status: 404, message } if message.to_ascii_lowercase().contains("no such image"))
}

/// The file for the container's id: taken before the container is made, removed again when none is.
struct CidFile {
    path: String,
    file: std::fs::File,
    written: bool,
}

impl CidFile {
    fn reserve(path: &str) -> Result<CidFile, Error> {
        match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(CidFile { path: path.to_owned(), file, written: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::plain(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ))),
            Err(error) => {
                Err(Error::plain(format!("failed to create the container ID file: open {path}: {error}")))
            }
        }
    }

    fn write(mut self, id: &str) -> Result<(), Error> {
        self.file.write_all(id.as_bytes()).map_err(|source| Error::file(&self.path, source))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
