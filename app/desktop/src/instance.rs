//! One window per state directory: who comes second hands its wish to the first and ends.

use std::time::Duration;

use skiff_host::listen::{self, Listener};
use skiff_settings::Paths;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Error;

/// Longest wish in bytes.
const LONGEST: u64 = 1 << 10;
/// How long a caller may take to say it, and the first one to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first one's answer.
const HEARD: &[u8] = b"shown\n";

/// Who we are.
pub enum Instance {
    /// The first one: others will speak to it.
    First(Ears),
    /// Another one runs and has taken the wish.
    Second,
}

/// What the first one listens with.
pub struct Ears(Listener);

/// Becomes the first one, or hands `wish` (a deep link, or nothing) to the one there is.
///
/// # Errors
/// [`Error`] when the state directory can't be used, or another one holds the socket and does not answer.
pub async fn enter(paths: &Paths, wish: &str) -> Result<Instance, Error> {
    paths.check_socket_dir()?;
    paths.prepare()?;
    let socket = paths.desktop_socket();
    if ask(paths, wish).await {
        return Ok(Instance::Second);
    }
    match Listener::bind(&socket) {
        Ok(listener) => Ok(Instance::First(Ears(listener))),
        // Two at once: the other one was quicker.
        Err(_) if ask(paths, wish).await => Ok(Instance::Second),
        Err(source) => Err(Error::File { action: "listen on", path: socket, source }),
    }
}

async fn ask(paths: &Paths, wish: &str) -> bool {
    let talk = async {
        let mut stream = listen::connect(&paths.desktop_socket()).await.ok()?;
        stream.write_all(format!("{wish}\n").as_bytes()).await.ok()?;
        let mut answer = vec![0; HEARD.len()];
        stream.read_exact(&mut answer).await.ok()?;
        (answer == HEARD).then_some(())
    };
    matches!(tokio::time::timeout(PATIENCE, talk).await, Ok(Some(())))
}

impl Ears {
    /// Hands over what others wish, until it is dropped.
    pub async fn listen(self, mut wish: impl FnMut(String)) {
        loop {
            let Ok(mut stream) = self.0.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let heard = async {
                let mut line = Vec::new();
                loop {
                    match stream.read_u8().await.ok()? {
                        b'\n' => break,
                        byte if line.len() < LONGEST as usize => line.push(byte),
                        _ => return None,
                    }
                }
                let line = String::from_utf8(line).ok()?;
                stream.write_all(HEARD).await.ok()?;
                Some(line)
            };
            if let Ok(Some(line)) = tokio::time::timeout(PATIENCE, heard).await {
                wish(line);
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn paths(dir: &tempfile::TempDir) -> Paths {
        Paths::discover_with(Some(&dir.path().join("state")), |_| None).unwrap()
    }

    async fn first(paths: &Paths) -> tokio::sync::mpsc::UnboundedReceiver<String> {
        let Instance::First(ears) = enter(paths, "").await.unwrap() else { panic!("there is another one") };
        let (sender, heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(ears.listen(move |wish| sender.send(wish).unwrap_or_default()));
        heard
    }

    #[tokio::test]
    async fn the_second_one_s_wish_reaches_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        let mut heard = first(&paths).await;
        let second = enter(&paths, "skiff://container/web").await.unwrap();
        assert!(matches!(second, Instance::Second));
        assert_eq!(heard.recv().await.unwrap(), "skiff://container/web");
        assert!(matches!(enter(&paths, "").await.unwrap(), Instance::Second));
        assert_eq!(heard.recv().await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_one_left_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        paths.prepare().unwrap();
        drop(std::os::unix::net::UnixListener::bind(paths.desktop_socket()).unwrap());
        assert!(paths.desktop_socket().exists());
        let mut heard = first(&paths).await;
        assert!(matches!(enter(&paths, "x").await.unwrap(), Instance::Second));
        assert_eq!(heard.recv().await.unwrap(), "x");
    }

    #[tokio::test]
    async fn one_that_says_too_much_or_nothing_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        let mut heard = first(&paths).await;
        assert!(!ask(&paths, &"x".repeat(5000)).await);
        drop(listen::connect(&paths.desktop_socket()).await.unwrap());
        assert!(matches!(enter(&paths, "y").await.unwrap(), Instance::Second));
        assert_eq!(heard.recv().await.unwrap(), "y");
    }
}
