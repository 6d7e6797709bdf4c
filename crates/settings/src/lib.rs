//! Settings and every path the product uses.
//!
//! A leaf that builds on every host and touches nothing but the files it is asked to read or write. Three subjects:
//! [`Settings`] is `settings.json`, [`Paths`] names every file and socket below the state directory, and
//! [`mod@env`] lists every environment variable that any Skiff programme reads.
#![forbid(unsafe_code)]

mod effect;
pub mod env;
mod error;
mod paths;
mod settings;

pub use effect::Effect;
pub use error::Error;
pub use paths::{MAX_SOCKET_PATH, Paths};
pub use settings::{
    AddressPool, BackendChoice, Daemon, Files, IdleAction, Machine, Names, Network, Proxy, Settings,
};
