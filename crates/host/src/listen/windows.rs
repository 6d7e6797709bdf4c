//! Named pipes.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use skiff_link::BoxStream;
use tokio::{
    net::windows::named_pipe::{ClientOptions, NamedPipeServer, ServerOptions},
    sync::Mutex,
};

/// All instances of the pipe are in use (ERROR_PIPE_BUSY).
const PIPE_BUSY: i32 = 231;

/// A listening pipe.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// The instance that the next client gets; made before the previous one is handed out, so that the name never
    /// vanishes.
    next: Mutex<NamedPipeServer>,
}

impl Listener {
    /// Listens at `path`, which is of the form `\\.\pipe\name`.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] when somebody listens there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let first =
            ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(path)?;
        Ok(Self { path: path.to_owned(), next: Mutex::new(first) })
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// Fails as `ConnectNamedPipe` does.
    pub async fn accept(&self) -> io::Result<BoxStream> {
        let mut next = self.next.lock().await;
        next.connect().await?;
        let fresh = ServerOptions::new().reject_remote_clients(true).create(&self.path)?;
        Ok(Box::new(std::mem::replace(&mut *next, fresh)))
    }
}

pub(super) async fn connect(path: &Path) -> io::Result<BoxStream> {
    for _ in 0..50 {
        match ClientOptions::new().open(path) {
            Ok(client) => return Ok(Box::new(client)),
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
