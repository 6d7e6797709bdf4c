//! The web interface on loopback: who may use it, and the way from a browser to the sockets.
//!
//! | path | what | who |
//! |---|---|---|
//! | `/`, `/assets/…` | the interface itself; holds nothing of the user's | whoever asks |
//! | `POST /session` | a one-time token against a session | who has the token |
//! | `/docker/…` | the engine's API, one request | a session |
//! | `POST /control` | one request to the daemon, its events line by line | a session |
//! | `/stream` | a WebSocket for what goes on: logs, events, pulls, terminals ([`stream`]) | a session |
//!
//! Four walls stand before a request, so that no other page, container or user of this machine comes in ([`guard`],
//! [`session`]): it names loopback as its host (a name that an attacker lets point here does not), it comes from our own
//! page (`Origin`, `Sec-Fetch-Site`), it has the session's cookie, and it has the session's key. **Why a key beside the
//! cookie:** browsers send the cookies of `localhost` to every port of it, published containers included. The key is kept in
//! the page's storage, which belongs to one port.
//!
//! A window of the desktop's needs no walls: its page is read from the program itself, and what it says comes in over no
//! socket that others could reach ([`Window`]).

#![forbid(unsafe_code)]

mod answer;
mod assets;
mod control;
mod docker;
mod guard;
mod server;
mod session;
mod shell;
mod stream;
mod upstream;
mod window;

pub use server::{Error, Links, Server};
pub use upstream::Upstream;
pub use window::{NoPipe, Said, Window};
