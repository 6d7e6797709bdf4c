//! `attach` and `start`: join a container that exists.

use clap::Args;

use super::session::{self, Forwarding, Wait};
use crate::api::{Client, Query};
use crate::command::{Context, each, name_in_path};
use crate::error::Error;
use crate::format::value::Value;
use crate::options::detach_keys::{self, Watcher};
use crate::terminal::attach::{Ended, Join, Resizer};
use crate::terminal::{self, print_line};

/// Attach local standard input, output, and error streams to a running container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff attach [OPTIONS] CONTAINER")]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, value_name = "bool", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Start one or more stopped containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff start [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short = 'a', long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

fn keys(text: Option<&str>) -> Result<Vec<u8>, Error> {
    detach_keys::parse(text.unwrap_or(detach_keys::DEFAULT))
        .map_err(|error| Error::plain(format!("invalid detach keys ({}): {error}", text.unwrap_or_default())))
}

async fn inspect(client: &Client, container: &str) -> Result<Value, Error> {
    client.get(&format!("/containers/{}/json", name_in_path(container)), &Query::new()).await
}

/// Carries `attach` out.
pub async fn attach(context: &Context, args: &Attach) -> Result<(), Error> {
    let keys = keys(args.detach_keys.as_deref())?;
    let client = context.client().await?;
    let details = inspect(&client, &args.container).await?;
    let state = details.get("State").unwrap_or(&Value::Null);
    if !state.flag("Running") {
        return Err(Error::plain("cannot attach to a stopped container, start it first"));
    }
    if state.flag("Paused") {
        return Err(Error::plain("cannot attach to a paused container, unpause it first"));
    }
    if state.flag("Restarting") {
        return Err(Error::plain("cannot attach to a restarting container, wait until it is running"));
    }
    let how = How {
        stdin: !args.no_stdin,
        sig_proxy: args.sig_proxy,
        start: false,
        detach_keys: args.detach_keys.as_deref(),
        keys,
    };
    session(&client, &details, how).await
}

struct How<'a> {
    stdin: bool,
    sig_proxy: bool,
    start: bool,
    detach_keys: Option<&'a str>,
    keys: Vec<u8>,
}

async fn session(client: &Client, details: &Value, how: How<'_>) -> Result<(), Error> {
    let id = details.text("Id").to_owned();
    let config = details.get("Config").unwrap_or(&Value::Null);
    let tty = config.flag("Tty");
    let stdin = how.stdin && config.flag("OpenStdin");
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Error::plain("the input device is not a TTY"));
    }
    let signals = how.sig_proxy.then(Forwarding::catch).transpose()?;
    let query = Query::new()
        .flag("stream", true)
        .flag("stdin", stdin)
        .flag("stdout", true)
        .flag("stderr", true)
        .maybe("detachKeys", how.detach_keys);
    let attached = client.hijack(&format!("/containers/{id}/attach"), &query, None::<&()>).await?;
    let removed = details.get("HostConfig").is_some_and(|host| host.flag("AutoRemove"));
    let condition = match (removed, how.start) {
        (true, _) => "removed",
        (false, true) => "next-exit",
        (false, false) => "not-running",
    };
    let wait = Wait::begin(client, &id, condition).await?;
    let join = Join { tty, stdin, detach: (tty && stdin).then(|| Watcher::new(how.keys)) };
    let raw_mode = join.raw_mode();
    let forwarding = signals.map(|signals| signals.forward_to(client, &id));
    let joined = tokio::spawn(join.run(attached));
    if how.start
        && let Err(error) = client.post(&format!("/containers/{id}/start"), &Query::new()).await
    {
        joined.abort();
        drop(raw_mode);
        return Err(error);
    }
    let resizer = (tty && terminal::stdout_is_terminal())
        .then(|| Resizer::start(client, format!("/containers/{id}/resize")));
    let ended =
        joined.await.map_err(|error| Error::plain(format!("joining the container's output: {error}")))??;
    drop(resizer);
    drop(raw_mode);
    if ended == Ended::Detached {
        return if how.start { Ok(()) } else { Err(Error::plain("read escape sequence")) };
    }
    let code = wait.exit_code().await?;
    drop(forwarding);
    session::end_with(code)
}

/// Carries `start` out.
pub async fn start(context: &Context, args: &Start) -> Result<(), Error> {
    if args.attach || args.interactive {
        let [container] = args.containers.as_slice() else {
            return Err(Error::plain("you cannot start and attach multiple containers at once"));
        };
        let keys = keys(args.detach_keys.as_deref())?;
        let client = context.client().await?;
        let details = inspect(&client, container).await?;
        let how = How {
            stdin: args.interactive,
            sig_proxy: true,
            start: true,
            detach_keys: args.detach_keys.as_deref(),
            keys,
        };
        return session(&client, &details, how).await;
    }
    let client = context.client().await?;
    each(&args.containers, "Error: failed to start containers", async |name| {
        client.post(&format!("/containers/{}/start", name_in_path(name)), &Query::new()).await?;
        print_line(name);
        Ok(())
    })
    .await
}
