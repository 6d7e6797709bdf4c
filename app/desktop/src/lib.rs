//! What Skiff Desktop knows beside its window: links, the one instance, what it remembers, the tray's menu, what is worth a
//! notification. Nothing here knows Tauri, so that all of it is tested without a screen; the program (`main.rs`) joins it
//! with a window and holds no logic of its own.

#![forbid(unsafe_code)]

pub mod autostart;
pub mod error;
pub mod frame;
pub mod instance;
pub mod link;
pub mod memory;
pub mod news;
pub mod outside;
pub mod program;
pub mod sight;
pub mod tray;

pub use error::Error;
