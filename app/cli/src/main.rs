//! Runs Linux containers on any desktop: docker-like commands and the host daemon.
//!
//! `cli` and `arguments` read the command line, `command` holds the commands, `api` speaks to the engine, `options`
//! parses values by Docker's rules, `format` and `template` print, `terminal` joins a process with the user.

#![forbid(unsafe_code)]

mod api;
mod arguments;
mod cli;
mod command;
mod credentials;
mod download;
mod error;
mod format;
mod options;
mod progress;
mod template;
mod terminal;

use std::io::Write;

use clap::FromArgMatches;
use skiff_settings::env;

use crate::command::Context;
use crate::error::Error;

fn main() {
    let code = start();
    // Threads may still wait for input that nobody needs any more: the process ends here.
    let _ = std::io::stdout().flush();
    std::process::exit(i32::from(code));
}

fn start() -> u8 {
    let mut words = Vec::new();
    for word in std::env::args_os() {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                terminal::warn(format_args!(
                    "skiff: argument is not valid UTF-8: {}",
                    word.to_string_lossy()
                ));
                return 125;
            }
        }
    }
    let root = cli::command();
    let words = arguments::normalise(&root, words);
    let parsed =
        root.clone().try_get_matches_from(&words).and_then(|matches| cli::Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let refusal = arguments::refusal(&root, &words, &error);
            if refusal.code == 0 {
                terminal::print_line(refusal.text);
            } else {
                terminal::warn(refusal.text);
            }
            return refusal.code;
        }
    };
    // The daemon writes its own log.
    if !matches!(cli.command, cli::Top::Daemon(_)) {
        log(cli.debug);
    }
    let context = Context::new(cli.host, cli.state);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(&cli.command))
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::warn(format_args!("skiff: starting threads: {error}"));
            return 125;
        }
    };
    match runtime.block_on(cli.command.run(&context)) {
        Ok(()) => 0,
        Err(error) => {
            report(&cli.command, &error);
            error.exit_code()
        }
    }
}

/// The daemon serves many connections; a command needs one thread for output and one for everything else.
fn threads(command: &cli::Top) -> usize {
    match command {
        cli::Top::Daemon(_) | cli::Top::Dashboard(_) | cli::Top::Registry { .. } => {
            std::thread::available_parallelism().map_or(2, usize::from).max(2)
        }
        _ => 2,
    }
}

fn log(debug: bool) {
    let filter = std::env::var(env::SKIFF_LOG).unwrap_or_default();
    if !debug && filter.is_empty() {
        return;
    }
    let filter = if filter.is_empty() { "debug" } else { &filter };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .finish();
    // A second subscriber can't be: this is the only place.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Prints an error; `run` says whose it is, so that it is not taken for the container's.
fn report(command: &cli::Top, error: &Error) {
    if matches!(error, Error::Status(_)) {
        return;
    }
    let text = error.chain();
    let run = matches!(
        command,
        cli::Top::Container(command::container::Shared::Run(_))
            | cli::Top::Containers {
                command: command::container::Container::Shared(command::container::Shared::Run(_))
            }
    );
    if run {
        terminal::warn(format_args!("skiff: {text}\n\nRun 'skiff run --help' for more information"));
    } else {
        terminal::warn(text);
    }
    if let Some(hint) = error.hint() {
        terminal::warn(format_args!("→ {hint}"));
    }
}
