//! `skiff-desktop`: the window over the daemon's sockets.
//!
//! It holds no privileges and no state but its own place on the screen: the page is the one of `skiff dashboard`, its calls
//! go to the daemon's sockets as those of any client, and errors come back in the daemon's words.

#![forbid(unsafe_code)]
#![cfg_attr(windows, windows_subsystem = "windows")]

mod window;

use std::process::ExitCode;

use anyhow::Context as _;
use skiff_desktop::autostart::HIDDEN;
use skiff_desktop::instance::{self, Instance};
use skiff_desktop::link::Link;
use skiff_settings::Paths;

const USAGE: &str = "Usage: skiff-desktop [--hidden] [skiff://container/NAME]";

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SKIFF_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("skiff-desktop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut hidden = false;
    let mut link = Link::Window;
    let mut wish = String::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            HIDDEN => hidden = true,
            "-V" | "--version" => {
                println!("skiff-desktop {}", env!("CARGO_PKG_VERSION"));
                return Ok(ExitCode::SUCCESS);
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            _ if argument.starts_with('-') => {
                eprintln!("skiff-desktop: unknown option {argument}\n{USAGE}");
                return Ok(ExitCode::from(2));
            }
            _ => {
                link = argument.parse()?;
                wish = argument;
            }
        }
    }
    let paths = Paths::discover(None)?;
    match tauri::async_runtime::block_on(instance::enter(&paths, &wish)).context("look for another window")? {
        Instance::Second => Ok(ExitCode::SUCCESS),
        Instance::First(ears) => window::run(paths, ears, &link, hidden),
    }
}
