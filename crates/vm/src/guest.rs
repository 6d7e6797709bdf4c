//! What every backend offers: how a guest is described, started, watched and stopped.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    ByteStream, Error, Result,
    saved::{Key, Restore},
};

/// What a guest is made of; backends ignore the parts that they have no use for.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    /// Name shown in process lists.
    pub name: String,
    /// Uncompressed kernel with a PVH entry (x86-64) or Image (arm64).
    pub kernel: PathBuf,
    /// Initial RAM file system with the agent as `/init`.
    pub initramfs: PathBuf,
    /// Kernel command line of the image; the backend adds what its devices need.
    pub cmdline: String,
    /// Raw data disk.
    pub disk: PathBuf,
    /// Virtual CPUs; none lets the backend choose.
    pub cpus: Option<u32>,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Registry mirrors handed to the engine, as URLs.
    pub registry_mirrors: Vec<String>,
    /// The host address of a published port that names none.
    pub publish_ip: std::net::IpAddr,
    /// Where subnets of new networks come from, each as `base=10.0.0.0/8,size=24`; none for Docker's own pools.
    pub address_pools: Vec<String>,
    /// Variables for an agent that runs on this host itself: a guest asks the daemon instead.
    pub environment: Vec<(String, String)>,
    /// Whether an accelerator with a bad verdict is tried once more.
    pub retry_accelerator: bool,
    /// Names the bytes of kernel and initial RAM file system, for what is saved of a guest.
    pub image_id: String,
    /// A saved guest to go on with, instead of a boot.
    pub restore: Option<Restore>,
}

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Linux KVM.
    Kvm,
    /// macOS Hypervisor.framework.
    Hvf,
    /// Windows Hypervisor Platform.
    Whpx,
    /// QEMU's own translator: runs everywhere, slowly.
    Tcg,
}

impl Accelerator {
    /// Gives the name QEMU knows the accelerator by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Whpx => "whpx",
            Self::Tcg => "tcg",
        }
    }

    /// Tells whether the processor itself runs the guest.
    pub fn is_hardware(self) -> bool {
        self != Self::Tcg
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a running guest is, for status displays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// `qemu` or `native`.
    pub backend: String,
    /// How instructions are executed; none without a virtual machine.
    pub accelerator: Option<Accelerator>,
    /// Why the accelerator is not the best one this host could have.
    pub accelerator_note: Option<String>,
    /// Process id of the guest on the host.
    pub pid: u32,
    /// Version of the program that runs the guest.
    pub version: Option<String>,
    /// Whether the guest was found running instead of being started.
    pub adopted: bool,
}

/// A step of a start that is worth telling the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The guest's process is being started.
    StartingProcess {
        /// How instructions will be executed.
        accelerator: Option<Accelerator>,
    },
    /// A saved guest is being read.
    Loading,
    /// The guest executes instructions; its first sign of life is awaited.
    WaitingForGuest,
    /// An accelerator was given up.
    AcceleratorFailed {
        /// The accelerator.
        accelerator: Accelerator,
        /// What it did wrong.
        reason: String,
    },
    /// The guest has shown its first sign of life.
    GuestAlive,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartingProcess { accelerator: Some(accelerator) } => {
                write!(f, "starting the virtual machine ({accelerator})")
            }
            Self::StartingProcess { accelerator: None } => f.write_str("starting the engine on this host"),
            Self::Loading => f.write_str("waking the virtual machine"),
            Self::WaitingForGuest => f.write_str("booting"),
            Self::AcceleratorFailed { accelerator, reason } => {
                write!(f, "going on without {accelerator}: {reason}")
            }
            Self::GuestAlive => f.write_str("guest is alive"),
        }
    }
}

/// Receives the steps of a start.
pub type Progress<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// How the link's streams travel.
pub enum Transport {
    /// One byte stream that a multiplexer must share; it may hold bytes of a dead session.
    Stream(Box<dyn ByteStream>),
    /// Every stream is a connection of a unix socket.
    Unix {
        /// Where this side listens.
        listen: PathBuf,
        /// Where the guest's side listens.
        peer: PathBuf,
    },
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Unix { listen, peer } => {
                f.debug_struct("Unix").field("listen", listen).field("peer", peer).finish()
            }
        }
    }
}

/// Why a guest is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// It shut itself down.
    Shutdown,
    /// It restarted itself or its kernel panicked.
    Reset,
    /// We or an administrator asked for it.
    Stopped,
    /// It died without a word.
    Died,
}

/// The end of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// How the process ended, where known, in words.
    pub status: String,
    /// The last lines of its console and of its program's error output.
    pub tail: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            ExitReason::Shutdown => "the guest shut down",
            ExitReason::Reset => "the guest restarted or its kernel panicked",
            ExitReason::Stopped => "the guest was stopped",
            ExitReason::Died => "the guest's process died",
        };
        write!(f, "{what} ({})", self.status)
    }
}

/// A way to run guests.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Gives the backend's name, `qemu` or `native`.
    fn name(&self) -> &'static str;

    /// Tells why guests of this backend cannot be saved; nothing if they can.
    fn cannot_save(&self) -> Option<&'static str> {
        Some("this backend cannot save a guest")
    }

    /// Starts a guest and returns once it has shown its first sign of life.
    ///
    /// One that is restored stands still and has touched nothing, its disk least of all, until [`Guest::resume`].
    ///
    /// # Errors
    /// Fails when a stage misses its deadline or the process dies; nothing is left behind then.
    /// [`Error::Changed`] when the saved guest is not the one that the configuration describes.
    async fn start(&self, config: &GuestConfig, progress: Progress<'_>) -> Result<Box<dyn Guest>>;

    /// Finds the guest that an earlier process of ours started, if it still runs, or stood still while it was to be saved
    /// ([`Guest::is_halted`]).
    ///
    /// Remains of a guest that cannot be used any more are removed.
    ///
    /// # Errors
    /// Fails when such a guest exists but can neither be used nor removed.
    async fn adopt(&self) -> Result<Option<Box<dyn Guest>>>;
}

/// A guest that runs, or has run.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Describes the guest.
    fn description(&self) -> Description;

    /// Opens the transport of the link; one at a time.
    ///
    /// # Errors
    /// Fails when the guest is gone.
    async fn open_transport(&self) -> Result<Transport>;

    /// Whether the guest stands still and waits for [`resume`](Self::resume).
    fn is_halted(&self) -> bool {
        false
    }

    /// Halts the guest and writes all of it but its disk to `path`. The disk is on stable storage afterwards, the file need
    /// not be. The guest stays halted, whether this succeeds or not.
    ///
    /// # Errors
    /// Fails when the guest cannot be halted or written; what was written is of no use then.
    async fn save(&self, _path: &Path) -> Result<Key> {
        Err(Error::Unsupported { what: "saving a guest" })
    }

    /// Lets a halted guest go on.
    ///
    /// # Errors
    /// Fails when it does not.
    async fn resume(&self) -> Result<()> {
        Err(Error::Unsupported { what: "resuming a guest" })
    }

    /// Waits for the guest's end; any number of callers may wait.
    async fn wait(&self) -> Exit;

    /// Ends the guest's process: politely first, by force after `grace`; removes what the guest left on the host.
    ///
    /// Whoever wants the guest's own shutdown asks for it over the link before.
    ///
    /// # Errors
    /// Fails when the process cannot be ended.
    async fn stop(&self, grace: Duration) -> Result<()>;

    /// Gives the last lines of the guest's console.
    fn console_tail(&self) -> String;
}
