//! Verbs that take containers and print their names: stop, restart, kill, rm, pause, unpause, rename, wait.

use clap::Args;

use super::session::Wait as Waiting;
use crate::api::Query;
use crate::command::{Context, each, name_in_path};
use crate::error::Error;
use crate::terminal::print_line;

/// Stop one or more running containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff stop [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short = 's', long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short = 't', long, alias = "time", value_name = "int")]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Restart one or more containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff restart [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Restart {
    /// Signal to send to the container
    #[arg(short = 's', long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short = 't', long, alias = "time", value_name = "int")]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Kill one or more running containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff kill [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short = 's', long, value_name = "string")]
    signal: Option<String>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Remove one or more containers
#[derive(Debug, Clone, Args)]
#[command(visible_alias = "remove", override_usage = "skiff rm [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Rm {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short = 'f', long)]
    force: bool,
    /// Remove the specified link
    #[arg(short = 'l', long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short = 'v', long)]
    volumes: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Pause all processes within one or more containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff pause CONTAINER [CONTAINER...]")]
pub struct Pause {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Unpause all processes within one or more containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff unpause CONTAINER [CONTAINER...]")]
pub struct Unpause {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Rename a container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff rename CONTAINER NEW_NAME")]
pub struct Rename {
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME", hide = true)]
    name: String,
}

/// Block until one or more containers stop, then print their exit codes
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff wait CONTAINER [CONTAINER...]")]
pub struct Wait {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

/// Sends POST `/containers/NAME/VERB` for each container and prints the names.
async fn post_each(context: &Context, containers: &[String], verb: &str, query: Query) -> Result<(), Error> {
    let client = context.client().await?;
    each(containers, "", async |name| {
        client.post(&format!("/containers/{}/{verb}", name_in_path(name)), &query).await?;
        print_line(name);
        Ok(())
    })
    .await
}

/// Carries `stop` out.
pub async fn stop(context: &Context, args: &Stop) -> Result<(), Error> {
    let query = Query::new().maybe("signal", args.signal.as_deref()).maybe("t", args.timeout);
    post_each(context, &args.containers, "stop", query).await
}

/// Carries `restart` out.
pub async fn restart(context: &Context, args: &Restart) -> Result<(), Error> {
    let query = Query::new().maybe("signal", args.signal.as_deref()).maybe("t", args.timeout);
    post_each(context, &args.containers, "restart", query).await
}

/// Carries `kill` out.
pub async fn kill(context: &Context, args: &Kill) -> Result<(), Error> {
    post_each(context, &args.containers, "kill", Query::new().maybe("signal", args.signal.as_deref())).await
}

/// Carries `pause` out.
pub async fn pause(context: &Context, args: &Pause) -> Result<(), Error> {
    post_each(context, &args.containers, "pause", Query::new()).await
}

/// Carries `unpause` out.
pub async fn unpause(context: &Context, args: &Unpause) -> Result<(), Error> {
    post_each(context, &args.containers, "unpause", Query::new()).await
}

/// Carries `rename` out.
pub async fn rename(context: &Context, args: &Rename) -> Result<(), Error> {
    let (old, new) = (args.container.trim(), args.name.trim());
    if old.is_empty() || new.is_empty() {
        return Err(Error::plain("neither old nor new names may be empty"));
    }
    let client = context.client().await?;
    let path = format!("/containers/{}/rename", name_in_path(old));
    client.post(&path, &Query::new().with("name", new)).await?;
    Ok(())
}

/// Carries `rm` out.
pub async fn rm(context: &Context, args: &Rm) -> Result<(), Error> {
    let client = context.client().await?;
    let query = Query::new().flag("force", args.force).flag("link", args.link).flag("v", args.volumes);
    each(&args.containers, "", async |name| {
        let name = name.trim_matches('/');
        if name.is_empty() {
            return Err(Error::plain("container name cannot be empty"));
        }
        // A link is named by its container and its alias.
        let path = match name.split_once('/').filter(|_| args.link) {
            Some((container, alias)) => format!("{}/{}", name_in_path(container), name_in_path(alias)),
            None => name_in_path(name),
        };
        match client.delete(&format!("/containers/{path}"), &query).await {
            Ok(_) => {
                print_line(name);
                Ok(())
            }
            // With --force a container that is not there is what was wanted.
            Err(error) if args.force && error.is_not_found() => {
                crate::terminal::warn(error.chain());
                Ok(())
            }
            Err(error) => Err(error),
        }
    })
    .await
}

/// Carries `wait` out.
pub async fn wait(context: &Context, args: &Wait) -> Result<(), Error> {
    let client = context.client().await?;
    each(&args.containers, "", async |name| {
        let code = Waiting::begin(&client, &name_in_path(name), "not-running").await?.exit_code().await?;
        print_line(code);
        Ok(())
    })
    .await
}
