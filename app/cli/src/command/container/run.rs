//! `run`: create, attach, start, and end with the container's exit code.

use clap::Args;

use super::config::ContainerFlags;
use super::create::create;
use super::session::{self, Forwarding, Wait};
use crate::api::{Client, Query};
use crate::command::Context;
use crate::error::Error;
use crate::options::detach_keys::{self, Watcher};
use crate::terminal::attach::{Ended, Join, Resizer};
use crate::terminal::{self, print_line};

/// Create and run a new container from an image
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct Run {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Run container in background and print container ID
    #[arg(short = 'd', long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, value_name = "bool", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Image, command and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE", hide = true)]
    words: Vec<String>,
}

/// Carries `run` out; an error of ours ends with 125, as Docker's do.
pub async fn run(context: &Context, args: &Run) -> Result<(), Error> {
    carry_out(context, args).await.map_err(|error| error.with_status(125))
}

async fn carry_out(context: &Context, args: &Run) -> Result<(), Error> {
    let flags = &args.flags;
    if args.detach && !flags.attach.is_empty() {
        return Err(Error::plain("conflicting options: cannot specify both --attach and --detach"));
    }
    let stdin = !args.detach && flags.attaches("stdin");
    if stdin && flags.tty && !terminal::stdin_is_terminal() {
        return Err(Error::plain("the input device is not a TTY"));
    }
    let keys =
        detach_keys::parse(args.detach_keys.as_deref().unwrap_or(detach_keys::DEFAULT)).map_err(|error| {
            Error::plain(format!(
                "invalid detach keys ({}): {error}",
                args.detach_keys.as_deref().unwrap_or_default()
            ))
        })?;
    let body = flags.body(&args.words, args.detach)?;
    let client = context.client().await?;
    // Signals are caught before there is a container, so that none gets past us in between.
    let signals = (!args.detach && args.sig_proxy).then(Forwarding::catch).transpose()?;
    let id = create(&client, flags, &body).await?;
    if args.detach {
        start(&client, &id).await?;
        print_line(id);
        return Ok(());
    }
    let query = Query::new()
        .flag("stream", true)
        .flag("stdin", stdin)
        .flag("stdout", flags.attaches("stdout"))
        .flag("stderr", flags.attaches("stderr"))
        .maybe("detachKeys", args.detach_keys.as_deref());
    let attached = client.hijack(&format!("/containers/{id}/attach"), &query, None::<&()>).await?;
    let wait = Wait::begin(&client, &id, if flags.rm { "removed" } else { "next-exit" }).await?;
    let join = Join { tty: flags.tty, stdin, detach: (flags.tty && stdin).then(|| Watcher::new(keys)) };
    let raw_mode = join.raw_mode();
    let forwarding = signals.map(|signals| signals.forward_to(&client, &id));
    // Output is read while the container is being started: it may print more than a socket holds.
    let joined = tokio::spawn(join.run(attached));
    if let Err(error) = start(&client, &id).await {
        joined.abort();
        drop(raw_mode);
        if flags.rm {
            // Removal on exit needs no exit: the engine removes a container that never started.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), wait.exit_code()).await;
        }
        return Err(error);
    }
    let resizer = (flags.tty && terminal::stdout_is_terminal())
        .then(|| Resizer::start(&client, format!("/containers/{id}/resize")));
    let ended =
        joined.await.map_err(|error| Error::plain(format!("joining the container's output: {error}")))??;
    drop(resizer);
    drop(raw_mode);
    if ended == Ended::Detached {
        return Ok(());
    }
    let code = wait.exit_code().await?;
    drop(forwarding);
    session::end_with(code)
}

/// Starts the container; what kept its programme from starting gives 126 or 127 as a shell would.
async fn start(client: &Client, id: &str) -> Result<(), Error> {
    match client.post(&format!("/containers/{id}/start"), &Query::new()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(session::start_failure(error)),
    }
}
