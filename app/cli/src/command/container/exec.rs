//! `exec`: another process in a running container.

use bollard_stubs::models::ExecConfig;
use clap::Args;
use serde_json::json;

use super::session;
use crate::api::Query;
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::options::detach_keys::{self, Watcher};
use crate::options::environment::{self, Bare};
use crate::terminal;
use crate::terminal::attach::{Ended, Join, Resizer};

/// Execute a command in a running container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short = 'd', long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "list")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short = 'u', long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "string")]
    workdir: Option<String>,
    /// Container, command and arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER", hide = true)]
    words: Vec<String>,
}

/// Carries `exec` out.
pub async fn run(context: &Context, args: &Exec) -> Result<(), Error> {
    let (container, command) = args.words.split_first().ok_or_else(|| Error::plain("no container given"))?;
    let stdin = args.interactive && !args.detach;
    if stdin && args.tty && !terminal::stdin_is_terminal() {
        return Err(Error::plain("the input device is not a TTY"));
    }
    let keys = detach_keys::parse(args.detach_keys.as_deref().unwrap_or(detach_keys::DEFAULT))
        .map_err(Error::plain)?;
    let env = environment::collect(&args.env_file, &args.env, Bare::FromEnvironment)?;
    let console_size = terminal::size()
        .filter(|_| args.tty)
        .map(|(columns, rows)| vec![usize::from(rows), usize::from(columns)]);
    let config = ExecConfig {
        attach_stdin: Some(stdin),
        attach_stdout: Some(!args.detach),
        attach_stderr: Some(!args.detach),
        console_size: console_size.clone(),
        detach_keys: args.detach_keys.clone(),
        tty: Some(args.tty),
        env: (!env.is_empty()).then_some(env),
        cmd: Some(command.to_vec()),
        privileged: Some(args.privileged),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
    };
    let client = context.client().await?;
    let path = format!("/containers/{}/exec", name_in_path(container));
    let answer = client.post_json(&path, &Query::new(), &config).await?;
    let id = answer.text("Id").to_owned();
    let start = format!("/exec/{id}/start");
    if args.detach {
        client
            .post_json(&start, &Query::new(), &json!({"Detach": true, "Tty": args.tty}))
            .await
            .map_err(exec_failure)?;
        return Ok(());
    }
    let body = match console_size {
        Some(size) => json!({"Detach": false, "Tty": args.tty, "ConsoleSize": size}),
        None => json!({"Detach": false, "Tty": args.tty}),
    };
    let join = Join { tty: args.tty, stdin, detach: (args.tty && stdin).then(|| Watcher::new(keys)) };
    let attached = client.hijack(&start, &Query::new(), Some(&body)).await.map_err(exec_failure)?;
    let raw_mode = join.raw_mode();
    let resizer = (args.tty && terminal::stdout_is_terminal())
        .then(|| Resizer::start(&client, format!("/exec/{id}/resize")));
    let ended = join.run(attached).await?;
    drop(resizer);
    drop(raw_mode);
    if ended == Ended::Detached {
        return Err(Error::plain("read escape sequence"));
    }
    let state = client.get(&format!("/exec/{id}/json"), &Query::new()).await?;
    session::end_with(state.int("ExitCode"))
}

/// Only what kept the command from starting gets a code of its own; a missing container is 1.
fn exec_failure(error: Error) -> Error {
    let coded = session::start_failure(error);
    match coded {
        Error::WithStatus { status: 125, source } => *source,
        other => other,
    }
}
