//! What the client of a build offers: contexts, secrets, ssh agents, registry credentials.
//!
//! Every door implements these traits for its clients: the classic one with a tar and a header, the session with calls
//! back over gRPC. Nothing that comes through them is trusted; the solver checks and bounds it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use skiff_images::Auth;

use crate::error::{Error, Result};

/// What one build's client offers. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    /// Its directories.
    pub contexts: Arc<dyn Contexts>,
    /// Its secrets.
    pub secrets: Arc<dyn Secrets>,
    /// Its ssh agents.
    pub ssh: Arc<dyn Ssh>,
    /// Its registry logins.
    pub credentials: Arc<dyn Credentials>,
    /// Its blobs.
    pub stores: Arc<dyn Stores>,
}

impl Client {
    /// A client that offers nothing.
    pub fn nothing() -> Client {
        let nothing = Arc::new(NoClient);
        Client {
            contexts: nothing.clone(),
            secrets: nothing.clone(),
            ssh: nothing.clone(),
            credentials: nothing.clone(),
            stores: nothing,
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A directory of the client that a `local://` source asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalRequest {
    /// The name: `context`, `dockerfile`, or that of a named context.
    pub name: String,
    /// The session that has it when it is not the build's own (`local.session`, may be empty).
    pub session: String,
    /// Patterns of what to send; empty: everything (`local.includepattern`).
    pub include: Vec<String>,
    /// Patterns of what not to send, as in `.dockerignore` (`local.excludepatterns`).
    pub exclude: Vec<String>,
    /// Paths whose links are followed, and sent with what they lead to; the only ones sent when there are any
    /// (`local.followpaths`).
    pub follow: Vec<String>,
    /// Tells directories of the same name apart that different clients keep sending (`local.sharedkeyhint`).
    pub shared_key: String,
}

/// What an entry of a context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes.
    File {
        /// Its size in bytes, as announced; the data decides.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads to.
        target: Vec<u8>,
    },
    /// One more name of a file that came before.
    HardLink {
        /// That file's path.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    Char {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    Block {
        /// Major and minor number.
        device: (u32, u32),
    },
}

/// An entry of a context as the client announces it. (Sockets are not sent.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextEntry {
    /// The path below the context, relative, without `.` and `..`, slashes between names.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Unix permissions and the three bits above them (07777).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time, seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whether the contents of an announced file are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// They are; under the number that [`ContextSink::entry`] got.
    Yes,
    /// A file with the same size, time, mode and owner was sent before: its contents are here.
    No,
}

/// Receives a context.
///
/// ```text
/// entry(0, "a") → No    entry(1, "d") → No    entry(2, "d/x") → Yes    data(2, …) …  end(2)    (dropped or finished)
/// ```
/// Parents come before what is in them. Data of several files may be interleaved. Calls block shortly: contents are
/// written to disk.
pub trait ContextSink: Send {
    /// Announces an entry under a number of the sender's choice, unique in this transfer.
    ///
    /// `trust_times`: whether an unchanged modification time (of nanoseconds) proves unchanged contents. A sender whose
    /// times are coarser says no: then contents are always wanted.
    ///
    /// # Errors
    /// A path that leads out, a parent that is no directory, too many entries.
    fn entry(&mut self, id: u32, entry: ContextEntry, trust_times: bool) -> Result<Wanted>;

    /// Takes the next bytes of a wanted file.
    ///
    /// # Errors
    /// For a number that is not open; when the disk is full.
    fn data(&mut self, id: u32, bytes: &[u8]) -> Result<()>;

    /// Says that a wanted file is complete.
    ///
    /// # Errors
    /// As [`ContextSink::data`].
    fn end(&mut self, id: u32) -> Result<()>;
}

/// The client's directories.
#[async_trait]
pub trait Contexts: Send + Sync {
    /// Sends a directory into `sink`; returns when everything has been sent. Dropping the future cancels it.
    ///
    /// `progress` is told the bytes received so far.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that the client does not have; whatever breaks the transfer.
    async fn send(
        &self,
        request: &LocalRequest,
        sink: &mut dyn ContextSink,
        progress: &(dyn for<'a> Fn(&'a str, u64) + Send + Sync),
    ) -> Result<()>;

    /// Tells a session's directories apart from those of others, together with a request's own key: what was sent under
    /// the same keys before came from the same place, so that equal times prove equal contents.
    async fn shared_key(&self, session: &str) -> String {
        let _ = session;
        String::new()
    }

    /// Opens what the client uploads under an id (`http://buildkit-session/ID`): a Dockerfile or a tar from its standard
    /// input.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such upload.
    async fn upload(&self, url: &str) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>>;
}

/// The client's secrets.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Fetches a secret; `None` when the client has none of that id.
    ///
    /// # Errors
    /// When the client does not answer.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>>;
}

/// The client's ssh agents.
#[async_trait]
pub trait Ssh: Send + Sync {
    /// Says whether the client forwards an agent of that id (`default` when the user named none).
    ///
    /// # Errors
    /// When the client does not answer.
    async fn has(&self, id: &str) -> Result<bool>;

    /// Serves one connection to the agent: `stream` is our end of the unix socket that a step has connected to. Returns
    /// when either side has closed.
    ///
    /// # Errors
    /// When the client does not answer.
    async fn connect(&self, id: &str, stream: OwnedFd) -> Result<()>;
}

/// The client's registry logins.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns the login for a registry's host (`docker.io`, `localhost:5000`); `None`: anonymous.
    ///
    /// # Errors
    /// When the client does not answer.
    async fn registry(&self, host: &str) -> Result<Option<Auth>>;
}

/// Blobs that the client has, or takes, by their digests: OCI layouts, and caches in its directories. A store has a name
/// with its kind: `oci:NAME`, `local:DIRECTORY`.
#[async_trait]
pub trait Stores: Send + Sync {
    /// Opens a blob; `session` has the store when it is not the build's own (may be empty). What comes is not checked.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the client has no such blob.
    async fn open(
        &self,
        session: &str,
        store: &str,
        digest: &str,
    ) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>>;

    /// Gives the client a blob of `size` bytes, unless it has it.
    ///
    /// # Errors
    /// When the client does not take it.
    async fn write(
        &self,
        store: &str,
        digest: &str,
        size: u64,
        bytes: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    ) -> Result<()>;
}

/// A client that offers nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoClient;

#[async_trait]
impl Contexts for NoClient {
    async fn send(
        &self,
        request: &LocalRequest,
        _: &mut dyn ContextSink,
        _: &(dyn for<'a> Fn(&'a str, u64) + Send + Sync),
    ) -> Result<()> {
        Err(Error::not_found(format!("no local source \"{}\" from the client", request.name)))
    }

    async fn upload(&self, url: &str) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
        Err(Error::not_found(format!("no upload {url} from the client")))
    }
}

#[async_trait]
impl Secrets for NoClient {
    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[async_trait]
impl Ssh for NoClient {
    async fn has(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    async fn connect(&self, id: &str, _: OwnedFd) -> Result<()> {
        Err(Error::not_found(format!("unset ssh forward key {id}")))
    }
}

#[async_trait]
impl Credentials for NoClient {
    async fn registry(&self, _: &str) -> Result<Option<Auth>> {
        Ok(None)
    }
}

#[async_trait]
impl Stores for NoClient {
    async fn open(
        &self,
        _: &str,
        store: &str,
        _: &str,
    ) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
        Err(Error::not_found(format!("no content store {store} from the client")))
    }

    async fn write(
        &self,
        store: &str,
        _: &str,
        _: u64,
        _: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        Err(Error::not_found(format!("no content store {store} from the client")))
    }
}
