//! The guest's SSH server, for a client on this host.

use std::path::PathBuf;
use std::sync::Arc;

use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use skiff_link::BoxStream;
use skiff_settings::Paths;

/// Takes the guest's host key as it is: the key is made anew at every boot, and what proves the guest is the stream,
/// which only the daemon can open and which no network carries.
#[derive(Debug)]
pub struct TrustTheLink;

impl client::Handler for TrustTheLink {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Why nobody could log in.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The key can't be read.
    #[error("reading the key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::Error,
    },
    /// The conversation broke.
    #[error("{doing}")]
    Protocol {
        /// What was going on.
        doing: &'static str,
        /// Why.
        #[source]
        source: russh::Error,
    },
    /// The guest has another key.
    #[error("the machine does not accept this installation's key")]
    Refused,
}

impl ShellError {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Key { .. } => Some("restart the daemon: it makes a new key when there is none".to_owned()),
            Self::Refused => Some("`skiff machine restart` gives it the key again".to_owned()),
            Self::Protocol { .. } => None,
        }
    }
}

/// Logs in over a stream of [`Client::shell`](crate::control::Client::shell), as root.
///
/// # Errors
/// See [`ShellError`].
pub async fn log_in(paths: &Paths, stream: BoxStream) -> Result<Handle<TrustTheLink>, ShellError> {
    let key = load_secret_key(paths.ssh_key(), None)
        .map_err(|source| ShellError::Key { path: paths.ssh_key(), source })?;
    // What the window lets in fits into the channel's buffer: a slow reader of our output holds no input up.
    let config = client::Config { window_size: 2 << 20, channel_buffer_size: 1024, ..Default::default() };
    let failed = |doing| move |source| ShellError::Protocol { doing, source };
    let mut session = client::connect_stream(Arc::new(config), stream, TrustTheLink)
        .await
        .map_err(failed("speaking SSH with the machine"))?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let accepted =
        session.authenticate_publickey("root", key).await.map_err(failed("logging in to the machine"))?;
    if accepted.success() { Ok(session) } else { Err(ShellError::Refused) }
}
