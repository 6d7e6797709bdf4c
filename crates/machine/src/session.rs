//! Link sessions of one guest, one after the other.

use skiff_link::{Error, Link, mux};
use skiff_vm::Transport;

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
