//! Why the window could not do something.

use std::io;
use std::path::PathBuf;

/// What can go wrong outside of the page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of ours.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Paths of the user's that cannot be found.
    #[error(transparent)]
    Settings(#[from] skiff_settings::Error),
    /// The environment names no place for programs that start with the session.
    #[error("there is no home directory to keep the autostart entry in")]
    NoHome,
    /// A deep link that is none.
    #[error("{link:?} is not a link of Skiff's: skiff://container/NAME is one")]
    Link {
        /// The link.
        link: String,
    },
}
