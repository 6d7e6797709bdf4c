//! `dashboard`: the web interface, for whoever has the link.

use std::io::BufRead as _;

use clap::Args;
use skiff_dashboard::{Links, Server, Upstream};
use skiff_host::spawn;

use super::Context;
use super::context::daemon_failed;
use crate::api::Endpoint;
use crate::error::Error;
use crate::terminal::{print_line, stdin_is_terminal};

/// Show containers, images and the machine in a browser
///
/// Serves the web interface on 127.0.0.1 until it is interrupted, and prints a link that lets one browser in, once. Through a
/// tunnel (ssh -L PORT:127.0.0.1:PORT) it works from another machine.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff dashboard [OPTIONS]")]
pub struct Dashboard {
    /// Port of 127.0.0.1 to listen on (default: any that is free)
    #[arg(short = 'p', long, value_name = "uint16", default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// Carries `dashboard` out.
pub async fn run(context: &Context, args: &Dashboard) -> Result<(), Error> {
    let upstream = match context.chosen_host() {
        None => {
            let paths = context.paths()?;
            // The daemon, not the guest: looking wakes nobody.
            spawn::ensure_daemon(&paths).await.map_err(daemon_failed)?;
            let program = std::env::current_exe().map_err(|error| Error::plain(error.to_string()))?;
            Upstream::Daemon { paths, program }
        }
        Some(host) => match Endpoint::parse(host.trim())? {
            Endpoint::Unix(path) => Upstream::Engine(path),
            _ => {
                return Err(Error::plain(
                    "the dashboard shows the skiff daemon, or an engine on a unix socket",
                ));
            }
        },
    };
    let server = Server::bind(args.port, upstream).await.map_err(|error| Error::Host {
        message: "the dashboard can't be served".to_owned(),
        hint: error.hint(),
        source: Some(Box::new(error)),
    })?;
    let links = server.links();
    print_line(links.make());
    if stdin_is_terminal() {
        print_line("The link works once. Press Enter for another one, Ctrl-C to end.");
        make_links(links);
    }
    tokio::select! {
        () = server.run() => Ok(()),
        ended = tokio::signal::ctrl_c() => ended.map_err(|error| Error::plain(error.to_string())),
    }
}

/// Prints a new link for each line that is typed. The thread waits for input when the process ends, and ends with it.
fn make_links(links: Links) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                return;
            }
            print_line(links.make());
        }
    });
}
