//! The container runtime: an OCI runtime spec in, a process out.
//!
//! ```text
//!  Spec ──► plan ──► Program (steps, descriptors, strings) ──► clone3 ──► Created ──start──► Running
//!           │                                                   │
//!           ├ detached mounts: overlay root, binds              └ the child runs the steps, see skiff_linux_sys::child
//!           └ compiled seccomp filter (cached)
//! ```
//!
//! Nothing of a container is visible outside of its own mount namespace: the root file system and the binds are made
//! as detached mounts and attached by the child. When a process dies, of the engine or of the container, there is
//! nothing to unmount.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod capability;
mod cgroup;
mod create;
mod created;
mod default_spec;
mod devices;
mod error;
mod exec;
mod hooks;
mod io;
mod label;
mod mapping;
mod mounts;
mod namespaces;
mod process;
mod rootfs;
mod scheduling;
pub mod seccomp;
mod sysctl;
pub mod user;

pub use capability::{
    DEFAULT_CAPABILITIES, all_capabilities, capability_from_name, capability_name, default_capabilities,
};
pub use cgroup::Cgroup;
pub use create::{Create, DescribeState, More, create, create_with};
pub use created::{Created, Later, Running, start_detached};
pub use default_spec::default_spec;
pub use error::{Error, ExecFailure};
pub use exec::{Exec, exec, exec_with};
pub use hooks::run_hooks;
pub use io::{Io, Stdio};
pub use mapping::owns_machine;
pub use mounts::{clone_tree, mount_options};
pub use rootfs::{RootFs, mount_rootfs};
pub use skiff_linux_sys::child::{NEVER_RAN, Parent};
