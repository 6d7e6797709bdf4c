//! `registry`: a registry of one's own, for a team on a local network.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use skiff_registry::{Options, Server, Tls, Users};

use super::Context;
use crate::error::Error;
use crate::terminal::{self, print_line};

/// The commands below `registry`.
#[derive(Debug, Clone, Subcommand)]
pub enum Registry {
    Serve(Serve),
}

/// Serve a registry that others can push to and pull from
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff registry serve [OPTIONS]")]
pub struct Serve {
    /// Address and port to listen on; "0.0.0.0:5000" is for the whole network
    #[arg(short = 'l', long, value_name = "host:port", default_value = "127.0.0.1:5000")]
    listen: String,
    /// Directory of the registry's contents (default: "registry" in the state directory)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Let in this user only; may be given more than once
    #[arg(long, value_name = "user:password")]
    user: Vec<String>,
    /// Let in the users of this file (made with "htpasswd -B")
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Certificate for TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Refuse pushes and deletions
    #[arg(long)]
    read_only: bool,
}

impl Registry {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Registry::Serve(args) => serve(context, args).await,
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Host {
        message: "the registry can't be served".to_owned(),
        hint: None,
        source: Some(Box::new(error)),
    }
}

async fn serve(context: &Context, args: &Serve) -> Result<(), Error> {
    let mut users = Users::default();
    for user in &args.user {
        users.add(user).map_err(failed)?;
    }
    if let Some(path) = &args.htpasswd {
        users.read(path).map_err(failed)?;
    }
    let root = match &args.root {
        Some(root) => root.clone(),
        None => context.paths()?.registry(),
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let (open, encrypted) = (users.is_empty(), tls.is_some());
    let options = Options { root, address: args.listen.clone(), users, tls, read_only: args.read_only };
    let server = Server::bind(options).await.map_err(failed)?;
    let address = server.address().map_err(failed)?;
    if !address.ip().is_loopback() && (open || !encrypted) {
        terminal::warn(format_args!(
            "WARNING: others on the network can reach this registry {}",
            match (open, encrypted) {
                (true, false) => "without a password, and what they send is not encrypted",
                (true, true) => "without a password",
                _ => "and their passwords are not encrypted (see --tls-cert)",
            }
        ));
    }
    print_line(format_args!("Serving on {address}. Push to it with: skiff push {address}/NAME"));
    tokio::select! {
        () = server.run() => Ok(()),
        ended = tokio::signal::ctrl_c() => ended.map_err(|error| Error::plain(error.to_string())),
    }
}
