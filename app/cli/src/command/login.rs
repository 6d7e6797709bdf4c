//! `login` and `logout`.

use std::io::{self, BufRead as _, Read as _, Write as _};

use clap::Args;
use skiff_host::docker_context::config_dir;

use crate::api::Query;
use crate::command::Context;
use crate::credentials::{ConfigFile, Credentials, DOCKER_HUB, server_key};
use crate::error::Error;
use crate::terminal::{self, print_line};

/// Authenticate to a registry
#[derive(Clone, Args)]
#[command(override_usage = "skiff login [OPTIONS] [SERVER]")]
pub struct Login {
    /// Password or Personal Access Token (PAT)
    #[arg(short = 'p', long, value_name = "string")]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short = 'u', long, value_name = "string")]
    username: Option<String>,
    /// Registry; Docker Hub without one
    #[arg(value_name = "SERVER", hide = true)]
    server: Option<String>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Log out from a registry
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff logout [SERVER]")]
pub struct Logout {
    /// Registry; Docker Hub without one
    #[arg(value_name = "SERVER", hide = true)]
    server: Option<String>,
}

/// Carries `login` out.
pub async fn login(context: &Context, args: &Login) -> Result<(), Error> {
    let server = server_key(args.server.as_deref().unwrap_or_default());
    let mut file = config_file()?;
    let known = file.get(server)?;
    if args.password.is_some() {
        if args.password_stdin {
            return Err(Error::plain(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
        terminal::warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let credentials = match (known, &args.username, &args.password, args.password_stdin) {
        (Some(known), None, None, false) => {
            print_line(format_args!(
                "Authenticating with existing credentials... [Username: {}]",
                known.username
            ));
            known
        }
        (_, username, password, from_stdin) => ask(server, username, password, from_stdin)?,
    };
    let client = context.client().await?;
    let answer = client.post_json("/auth", &Query::new(), &credentials).await?;
    let token = answer.text("IdentityToken");
    let kept = if token.is_empty() {
        credentials
    } else {
        Credentials { password: String::new(), identity_token: token.to_owned(), ..credentials }
    };
    if file.put(&kept)? {
        terminal::warn(format_args!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            file.path().display()
        ));
    }
    print_line(answer.text("Status"));
    Ok(())
}

/// Carries `logout` out.
pub fn logout(args: &Logout) -> Result<(), Error> {
    let server = server_key(args.server.as_deref().unwrap_or_default());
    if config_file()?.remove(server)? {
        print_line(format_args!("Removing login credentials for {server}"));
    } else {
        print_line(format_args!("Not logged in to {server}"));
    }
    Ok(())
}

fn config_file() -> Result<ConfigFile, Error> {
    let directory = config_dir()
        .ok_or_else(|| Error::plain("no home directory to keep credentials in: set HOME or DOCKER_CONFIG"))?;
    ConfigFile::read(&directory)
}

fn ask(
    server: &str,
    username: &Option<String>,
    password: &Option<String>,
    from_stdin: bool,
) -> Result<Credentials, Error> {
    if from_stdin && username.is_none() {
        return Err(Error::plain("the --password-stdin option requires --username to be set"));
    }
    if (username.is_none() || password.is_none()) && !from_stdin && !terminal::stdin_is_terminal() {
        return Err(Error::plain("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let read = |error: io::Error| Error::plain(format!("reading the credentials: {error}"));
    let username = match username {
        Some(name) => name.trim().to_owned(),
        None => {
            if server == DOCKER_HUB {
                print_line(
                    "Log in with your Docker ID or email address to push and pull images from Docker Hub.",
                );
            }
            prompt("Username: ").map_err(read)?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(read)?;
            line.trim().to_owned()
        }
    };
    if username.is_empty() {
        return Err(Error::plain("username is empty"));
    }
    let password = match password {
        Some(password) => password.clone(),
        None if from_stdin => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text).map_err(read)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => {
            prompt("Password: ").map_err(read)?;
            terminal::read_secret().map_err(read)?
        }
    };
    if password.is_empty() {
        return Err(Error::plain("password is empty"));
    }
    Ok(Credentials { username, password, server: server.to_owned(), ..Credentials::default() })
}

fn prompt(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}
