//! Shared directories of the host, mounted in the guest on demand.
//!
//! ```text
//! engine ──locate(path)──► Shares ──files stream──► host: which share, and everything before is told
//!                            │ first time: mounts it at /run/skiff/files/N
//!                            ▼
//!      /dev/fuse ◄── Pump ──► the share's stream ◄──► host's file server
//!                      └──► ghost thread: notices, and the host's changes made once more for programs to see
//! ```
//!
//! Nothing here parses what passes beyond a message's length and number. When the host daemon goes, requests are answered
//! with an error; when it comes back, the same mount goes on over a new stream.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use skiff_link::{Args, Link, OpenError, Reply, StreamHeader};
use tokio::sync::Mutex;

mod ghost;
mod mount;
mod pump;

use pump::Pump;

/// Where shares are mounted.
const MOUNTS: &str = "/run/skiff/files";

/// The shares that are mounted.
#[derive(Debug, Default)]
pub struct Shares {
    mounted: Mutex<HashMap<String, Arc<Pump>>>,
}

impl Shares {
    /// Begins with none, and takes away what a router that died has left.
    pub fn new() -> Shares {
        mount::sweep(Path::new(MOUNTS));
        Shares::default()
    }

    /// Finds a path of the host for the engine.
    pub async fn locate(&self, link: &Link, path: &str) -> Reply {
        match self.find(link, path).await {
            Ok(data) => Reply::ok(Some(data)),
            Err(error) => match error.downcast_ref() {
                Some(refused @ OpenError::Refused { .. }) => super::refusal(refused),
                _ => Reply::refused(skiff_link::ReplyCode::Internal, format!("{error:#}")),
            },
        }
    }

    async fn find(&self, link: &Link, path: &str) -> anyhow::Result<Value> {
        let header = StreamHeader::new(Args::Files { share: path.to_owned() });
        let (stream, reply) = link.open_with_data(&header).await?;
        let data = reply.data.context("the host says nothing about the path")?;
        if data["docker_socket"] == true {
            return Ok(data);
        }
        let share = data["share"].as_str().context("the host names no share")?.to_owned();
        let mut mounted = self.mounted.lock().await;
        let pump = match mounted.get(&share) {
            Some(pump) => Arc::clone(pump),
            None => {
                let target = PathBuf::from(MOUNTS).join(mounted.len().to_string());
                let pump = Pump::start(&share, &target, data["read_only"] == true)?;
                mounted.insert(share.clone(), Arc::clone(&pump));
                pump
            }
        };
        if !pump.is_attached().await {
            pump.attach(stream).await?;
        }
        Ok(json!({ "root": pump.shown(), "path": data["path"] }))
    }

    /// Connects every mount to a host daemon that has come back.
    pub async fn attach_all(&self, link: &Link) {
        for (share, pump) in &*self.mounted.lock().await {
            let header = StreamHeader::new(Args::Files { share: share.clone() });
            let attached = async {
                let stream = link.open(&header).await?;
                pump.attach(stream).await
            };
            if let Err(error) = attached.await {
                tracing::error!(path = share, error = format!("{error:#}"), "shared directory stays away");
            }
        }
    }
}
