//! The two sockets behind us, and why one asks which.

use std::path::PathBuf;

use hyper::Method;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use skiff_host::control::{Client, ClientError};
use skiff_host::{listen, spawn};
use skiff_settings::Paths;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::{Body, Code, Refusal};

/// What the dashboard shows.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// The daemon with these files, and the guest it owns.
    Daemon {
        /// The files.
        paths: Paths,
        /// The command line, which is started as the daemon where none runs.
        program: PathBuf,
    },
    /// An engine on a unix socket, without a daemon.
    Engine(PathBuf),
}

/// What a request wants of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see how things are. This neither wakes a guest nor keeps it awake.
    Look,
    /// To use it.
    Use,
}

impl Purpose {
    /// Tells what a request to the engine is for. Whole archives are used: a guest must not go to sleep in the middle.
    pub(crate) fn of(method: &Method, path_and_query: &str) -> Self {
        let path = path_and_query.split('?').next().unwrap_or_default();
        let is_transfer = ["/archive", "/export", "/get"].iter().any(|end| path.ends_with(end));
        match *method {
            Method::HEAD => Self::Look,
            Method::GET if !is_transfer => Self::Look,
            _ => Self::Use,
        }
    }
}

impl Upstream {
    /// Opens a connection to the engine.
    pub(crate) async fn engine(&self, purpose: Purpose) -> Result<SendRequest<Body>, Refusal> {
        match self {
            Self::Engine(socket) => handshake(listen::connect(socket).await.map_err(engine_away)?).await,
            Self::Daemon { paths, .. } => {
                let control = Client::connect(&paths.control_socket()).await.map_err(daemon_away)?;
                match purpose {
                    Purpose::Look => match control.engine().await.map_err(daemon_away)? {
                        Some(stream) => handshake(stream).await,
                        None => Err(Refusal::away(Code::Asleep, "the guest does not run")),
                    },
                    Purpose::Use => {
                        let version = control.version().await.map_err(daemon_away)?;
                        handshake(listen::connect(&version.docker_socket).await.map_err(engine_away)?).await
                    }
                }
            }
        }
    }

    /// Connects to the daemon; with [`Purpose::Use`] one that does not run is started.
    pub(crate) async fn control(&self, purpose: Purpose) -> Result<Client, Refusal> {
        let Self::Daemon { paths, program } = self else {
            return Err(Refusal::away(Code::Alone, "this engine has no daemon"));
        };
        if purpose == Purpose::Use {
            let started = spawn::ensure_daemon_of(paths, program).await;
            started.map_err(|error| Refusal::away(Code::Daemon, error.to_string()))?;
        }
        Client::connect(&paths.control_socket()).await.map_err(daemon_away)
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Body>, Refusal> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(engine_away)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the engine broke");
        }
    });
    Ok(sender)
}

/// The engine could not be reached, or broke off.
pub(crate) fn engine_away(error: impl std::fmt::Display) -> Refusal {
    Refusal::away(Code::Engine, format!("the engine does not answer: {error}"))
}

/// The daemon could not be reached, or could not do what was asked.
pub(crate) fn daemon_away(error: ClientError) -> Refusal {
    let code = match error {
        // It runs, and says why it can't.
        ClientError::Failed(_) => Code::Engine,
        _ => Code::Daemon,
    };
    Refusal::away(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_is_told_from_using() {
        let of = |method, path| Purpose::of(&method, path);
        assert_eq!(of(Method::GET, "/containers/json?all=1"), Purpose::Look);
        assert_eq!(of(Method::GET, "/containers/a/logs?follow=1"), Purpose::Look);
        assert_eq!(of(Method::HEAD, "/containers/a/archive?path=/"), Purpose::Look);
        assert_eq!(of(Method::GET, "/containers/a/archive?path=/"), Purpose::Use);
        assert_eq!(of(Method::GET, "/images/a/get"), Purpose::Use);
        assert_eq!(of(Method::POST, "/containers/a/start"), Purpose::Use);
        assert_eq!(of(Method::DELETE, "/containers/a"), Purpose::Use);
    }
}
