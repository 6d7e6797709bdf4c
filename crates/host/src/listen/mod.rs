//! Local sockets for the user alone: unix sockets of mode 0600, on Windows named pipes.

use std::{io, path::Path};

use skiff_link::BoxStream;

#[cfg(unix)]
#[path = "unix.rs"]
mod platform;
#[cfg(windows)]
#[path = "windows.rs"]
mod platform;

pub use platform::Listener;

/// Connects to a local socket.
///
/// # Errors
/// Fails when nobody listens at `path`.
pub async fn connect(path: &Path) -> io::Result<BoxStream> {
    platform::connect(path).await
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn socket_is_for_the_user_alone_and_gone_when_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (mut client, server) = tokio::join!(connect(&path), listener.accept());
        let mut server = server.unwrap();
        client.as_mut().unwrap().write_all(b"hi").await.unwrap();
        client.as_mut().unwrap().shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hi");
        drop(listener);
        assert!(!path.exists());
        assert!(connect(&path).await.is_err());
    }

    #[tokio::test]
    async fn stale_socket_is_replaced_but_a_live_one_and_a_plain_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed process leaves its socket");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(connect(&path).await.is_ok());
        drop(listener);
        std::fs::write(&path, b"mine").unwrap();
        assert!(Listener::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
