//! Signals that are passed on to the container, and changes of the window's size.

use tokio::sync::mpsc;

/// Catches every signal that a container may want and returns their names (`INT`, `TERM`, …).
#[cfg(unix)]
pub fn forwarded() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(16);
    for (kind, name) in [
        (SignalKind::hangup(), "HUP"),
        (SignalKind::interrupt(), "INT"),
        (SignalKind::quit(), "QUIT"),
        (SignalKind::terminate(), "TERM"),
        (SignalKind::user_defined1(), "USR1"),
        (SignalKind::user_defined2(), "USR2"),
        (SignalKind::alarm(), "ALRM"),
    ] {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Catches Ctrl-C and returns it as `INT`.
#[cfg(not(unix))]
pub fn forwarded() -> std::io::Result<mpsc::Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if sender.send("INT").await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Returns a channel that says when the window's size may have changed.
#[cfg(unix)]
pub fn resizes() -> mpsc::Receiver<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(1);
    if let Ok(mut stream) = signal(SignalKind::window_change()) {
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Returns a channel that says when the window's size has changed. Windows has no signal for it: the size is
/// looked at four times a second.
#[cfg(not(unix))]
pub fn resizes() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut known = super::size();
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            let now = super::size();
            if now != known {
                known = now;
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}
