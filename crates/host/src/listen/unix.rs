//! Unix sockets.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use skiff_link::BoxStream;
use tokio::net::{UnixListener, UnixStream};

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket file, so that a successor's file is never removed.
    file: (u64, u64),
}

impl Listener {
    /// Listens at `path`, replacing a socket that nobody listens on any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when somebody listens there, else as `bind` does.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                // Nothing but an answering connection proves a live listener.
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                fs::remove_file(path)?;
            }
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a file that is no socket is there",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Bound under another name first: at its own name the socket never has any other mode.
        // The name is short, since socket addresses are.
        let staging = path.with_file_name(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&staging);
        let inner = UnixListener::bind(&staging)?;
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o600))?;
        fs::rename(&staging, path)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { inner, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// Fails as `accept` does.
    pub async fn accept(&self) -> io::Result<BoxStream> {
        let (stream, _) = self.inner.accept().await?;
        Ok(Box::new(stream))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) async fn connect(path: &Path) -> io::Result<BoxStream> {
    Ok(Box::new(UnixStream::connect(path).await?))
}
