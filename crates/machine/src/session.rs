//! Link sessions of one guest, one after the other.

use std::sync::Arc;

use skiff_link::{Error, Link, mux};
use skiff_vm::Transport;
use tokio::sync::mpsc;

use crate::{Options, boot, driver::Event};

/// Where the sessions of a guest's link come from.
pub(crate) enum Sessions {
    /// A byte stream on which the guest may begin anew.
    Stream(Box<mux::HostListener>),
    /// Sockets that need no session.
    #[cfg(unix)]
    Unix { listen: std::path::PathBuf, peer: std::path::PathBuf },
}

impl Sessions {
    pub(crate) fn new(transport: Transport) -> Self {
        match transport {
            Transport::Stream(stream) => {
                Self::Stream(Box::new(mux::HostListener::new(stream, mux::Config::default())))
            }
            #[cfg(unix)]
            Transport::Unix { listen, peer } => Self::Unix { listen, peer },
            #[cfg(not(unix))]
            Transport::Unix { .. } => unreachable!("only the native backend of Linux has this transport"),
        }
    }

    /// Waits until the guest begins a session.
    pub(crate) async fn next(&mut self) -> Result<Link, Error> {
        match self {
            Self::Stream(listener) => listener.next().await,
            #[cfg(unix)]
            Self::Unix { listen, peer } => skiff_link::unix::link(Some(listen), Some(peer)),
        }
    }
}

/// Hands the guest's streams to the daemon, session after session.
pub(crate) async fn serve(
    generation: u64,
    mut link: Link,
    mut sessions: Sessions,
    options: Arc<Options>,
    events: mpsc::UnboundedSender<(u64, Event)>,
) {
    let report = |event| events.send((generation, event)).is_ok();
    loop {
        while let Ok(incoming) = link.accept().await {
            (options.incoming)(link.clone(), incoming);
        }
        let reason = link.closed();
        drop(link);
        if !report(Event::SessionLost(reason.await.to_string())) {
            return;
        }
        link = match sessions.next().await {
            Ok(link) => link,
            Err(error) => {
                report(Event::SessionsEnded(error));
                return;
            }
        };
        if let Err(reason) = boot::greet(&link, &options.authorized_keys).await {
            tracing::error!(error = reason, "guest does not open its data disk");
        }
        if !report(Event::SessionUp(link.clone())) {
            return;
        }
    }
}
