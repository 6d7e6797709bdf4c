//! The life of one guest: boot on demand, deadlines, idle stop, recovery.
//!
//! ```text
//!              wanted                    booted
//!   Stopped ────────────► Starting ────────────────► Running
//!    ▲  ▲                  │    │                     │   │
//!    │  │      boot failed │    │ stop asked          │   │ ended, link lost
//!    │  │                  ▼    │                     │   │
//!    │  │ stop asked    Failed  │    stop asked, idle │   │
//!    │  └───────────────┘ ▲ │   └──────► Stopping ◄───┴───┘
//!    │                    │ │ wanted       │    │
//!    │                    │ └──► Starting  │    │ stopped, after a failure
//!    │                    └────────────────┼────┘
//!    └─────────────────────────────────────┘ stopped
//! ```
//!
//! Sleep is a second way to rest: the guest is in a file, with everything that runs in it.
//!
//! ```text
//!            sleep asked, idle                saved              wanted
//!   Running ──────────────────► Suspending ─────────► Asleep ────────────► Starting
//!      ▲                          │     │               │ stop asked
//!      └──────────────────────────┘     └──► Failed     └──────────► Stopped
//!           not saved: it runs on   guest lost
//! ```
//!
//! One task owns the guest ([`Machine::spawn`]); everybody else sends requests. Whoever needs the guest takes a
//! [`Lease`], which starts it and keeps it awake; watching ([`Machine::snapshot`]) does neither.

#![forbid(unsafe_code)]

pub mod backend;
mod boot;
pub mod control;
mod disk;
mod driver;
mod error;
mod handle;
mod host;
pub mod idle;
mod image;
mod kept;
mod phase;
mod saved;
mod session;
mod sleep;
mod template;

pub use disk::DiskSize;
pub use error::Error;
pub use handle::{IncomingHandler, Lease, Machine, Options, Progress, Snapshot};
pub use host::host_memory_mib;
pub use image::{Image, ImageError};
pub use kept::SavedInfo;
pub use phase::{Phase, Trigger};
pub use skiff_vm::{self as vm, Accelerator, Description};
