//! Why the guest is not there.

use std::{io, path::PathBuf, time::Duration};

use skiff_vm::Exit;

use crate::ImageError;

/// Why a guest could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No backend can run here.
    #[error("no way to run containers on this machine: {reason}")]
    NoBackend {
        /// What each backend lacks.
        reason: String,
        /// What would help.
        hint: String,
    },
    /// The guest image cannot be used.
    #[error("the guest image cannot be used")]
    Image(#[from] ImageError),
    /// The settings cannot be used.
    #[error("the settings cannot be used")]
    Settings(#[from] skiff_settings::Error),
    /// A file cannot be used.
    #[error("cannot {op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings ask for a smaller disk than there is.
    #[error("data disk {} is {} GiB, the settings ask for {} GiB", path.display(), length.div_ceil(1 << 30), wanted >> 30)]
    DiskShrink {
        /// The disk.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The length asked for in bytes.
        wanted: u64,
    },
    /// The backend failed.
    #[error("the guest did not start")]
    Start(#[source] skiff_vm::Error),
    /// The guest's process cannot be ended.
    #[error("the guest does not stop")]
    Stop(#[source] skiff_vm::Error),
    /// The guest booted, but its agent never spoke.
    #[error("the guest booted, but its agent did not answer within {} s", after.as_secs())]
    NoAgent {
        /// How long was waited.
        after: Duration,
        /// End of the console.
        console: String,
    },
    /// The link failed.
    #[error("the link to the guest failed")]
    Link(#[from] skiff_link::Error),
    /// The guest ended by itself.
    #[error("{exit}")]
    Ended {
        /// How.
        exit: Exit,
    },
    /// The guest runs, but nothing comes over the link any more.
    #[error("the guest stopped answering and was ended")]
    LinkLost {
        /// End of the console.
        console: String,
    },
    /// The guest was not saved.
    #[error("the guest was not saved")]
    Save(#[source] skiff_vm::Error),
    /// The guest that slept did not wake.
    #[error("the guest that slept did not wake")]
    Wake(#[source] skiff_vm::Error),
    /// The guest did not begin with the template, or could not become one.
    #[error("the guest did not start from its template")]
    Template(#[source] skiff_vm::Error),
    /// The guest is up, but for its data disk.
    #[error("the guest does not open its data disk: {reason}")]
    Held {
        /// Its reason.
        reason: String,
        /// End of the console.
        console: String,
    },
    /// What was saved is not good for a guest.
    #[error("the saved guest is of no use: {reason}")]
    NotWoken {
        /// Why.
        reason: &'static str,
    },
    /// The guest cannot be saved, and goes on as it was.
    #[error("the machine cannot sleep: {reason}")]
    CannotSleep {
        /// Why.
        reason: String,
    },
    /// The start was called off.
    #[error("the start was called off by a stop")]
    CalledOff,
    /// The daemon ends.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl Error {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoBackend { hint, .. } => Some(hint.clone()),
            Self::Start(error) | Self::Stop(error) => error.hint(),
            Self::DiskShrink { length, .. } => {
                let gib = length.div_ceil(1 << 30);
                Some(format!("a disk never shrinks: set machine.disk_gib to {gib} or more"))
            }
            Self::Image(ImageError::Missing { .. } | ImageError::Damaged { .. }) => {
                Some("install the guest image again, or name another by SKIFF_GUEST_IMAGE".to_owned())
            }
            Self::NoAgent { .. } | Self::Ended { .. } | Self::LinkLost { .. } | Self::Held { .. } => {
                Some("see `skiff machine logs` for the guest's console".to_owned())
            }
            _ => None,
        }
    }

    /// Gives the last words of the guest, where there are any.
    pub fn detail(&self) -> Option<String> {
        let text = match self {
            Self::Start(error) => error.evidence()?.text(),
            Self::NoAgent { console, .. } | Self::LinkLost { console } | Self::Held { console, .. } => {
                console.clone()
            }
            Self::Ended { exit } => exit.tail.clone(),
            _ => return None,
        };
        (!text.trim().is_empty()).then_some(text)
    }
}
