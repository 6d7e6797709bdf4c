//! Who builds, pulls and pushes: the docker command against an engine (with buildx, where `scripts/fetch-clients` has
//! put it), and buildah, which needs no engine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::peer::Peer;
use crate::process::{check, guest_image};

/// A client with a configuration of its own.
pub struct Client {
    /// How it is called in the figures.
    pub name: String,
    tool: Tool,
    directory: tempfile::TempDir,
    peer: Option<Peer>,
}

enum Tool {
    Docker { host: String, buildx: Option<PathBuf> },
    Buildah,
}

/// Whether a build may take what an earlier one has made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    Use,
    Ignore,
}

impl Client {
    /// Our engine first, then dockerd and buildah where they can be had. Says what is not there.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let mut all = vec![Self::docker(Peer::skiff()?)?];
        match Peer::dockerd()? {
            Some(peer) => all.push(Self::docker(peer)?),
            None => match Peer::reference()? {
                Ok(peer) => all.push(Self::docker(peer)?),
                Err(reason) => println!("  no dockerd to compare with: {reason}"),
            },
        }
        match Command::new("buildah").arg("--version").output() {
            Ok(output) if output.status.success() => all.push(Self::buildah(&output.stdout)?),
            _ => println!("  no buildah to compare with"),
        }
        Ok(all)
    }

    fn docker(peer: Peer) -> anyhow::Result<Self> {
        let buildx = Path::new("target/tools/docker-buildx");
        Ok(Self {
            name: peer.name.clone(),
            tool: Tool::Docker {
                host: format!("unix://{}", peer.socket().display()),
                buildx: buildx.is_file().then(|| buildx.to_owned()),
            },
            directory: tempfile::tempdir()?,
            peer: Some(peer),
        })
    }

    fn buildah(version: &[u8]) -> anyhow::Result<Self> {
        let version = String::from_utf8_lossy(version);
        let version = version.split_whitespace().nth(2).unwrap_or("?");
        let (name, directory) = (format!("buildah {version}"), tempfile::tempdir()?);
        let client = Self { name, tool: Tool::Buildah, directory, peer: None };
        let archive = format!("docker-archive:{}", guest_image()?.join("toolbox.tar").display());
        client.time(&["pull", "-q", &archive])?;
        Ok(client)
    }

    /// Where a registry must be for it to be on this client's loopback.
    pub fn network(&self) -> Option<PathBuf> {
        self.peer.as_ref().and_then(Peer::network)
    }

    /// Pulls an image.
    pub fn pull(&self, name: &str) -> anyhow::Result<Duration> {
        match self.tool {
            Tool::Docker { .. } => self.time(&["pull", "-q", name]),
            Tool::Buildah => self.time(&["pull", "-q", "--tls-verify=false", name]),
        }
    }

    /// Pushes an image.
    pub fn push(&self, name: &str) -> anyhow::Result<Duration> {
        match self.tool {
            Tool::Docker { .. } => self.time(&["push", "-q", name]),
            Tool::Buildah => {
                self.time(&["push", "-q", "--tls-verify=false", name, &format!("docker://{name}")])
            }
        }
    }

    /// Gives an image one more name.
    pub fn tag(&self, name: &str, new: &str) -> anyhow::Result<()> {
        self.time(&["tag", name, new]).map(drop)
    }

    /// Removes images, and what builds have kept of them.
    pub fn remove(&self, names: &[&str]) -> anyhow::Result<()> {
        self.time(&[&["rmi", "-f"], names].concat())?;
        if matches!(self.tool, Tool::Docker { .. }) {
            self.time(&["builder", "prune", "-af"])?;
        }
        Ok(())
    }

    /// Builds an image.
    pub fn build(&self, name: &str, context: &Path, cache: Cache) -> anyhow::Result<Duration> {
        let context = context.to_str().context("the context's path is no text")?;
        let mut words = match self.tool {
            Tool::Docker { .. } => vec!["build"],
            // Its own way without a runtime, which some machines' control groups do not suit.
            Tool::Buildah => vec!["build", "-q", "--layers", "--isolation", "chroot"],
        };
        if cache == Cache::Ignore {
            words.push("--no-cache");
        }
        words.extend(["-t", name, context]);
        self.time(&words)
    }

    /// What no build through this client can be faster than: the same command asking its engine a single thing.
    pub fn floor(&self) -> anyhow::Result<Duration> {
        match &self.tool {
            Tool::Docker { buildx: Some(_), .. } => self.time(&["inspect"]),
            Tool::Docker { .. } | Tool::Buildah => self.time(&["version"]),
        }
    }

    /// Whether builds go through buildx.
    pub fn has_buildx(&self) -> bool {
        matches!(self.tool, Tool::Docker { buildx: Some(_), .. })
    }

    /// How long one command takes.
    fn time(&self, words: &[&str]) -> anyhow::Result<Duration> {
        let mut command = match &self.tool {
            Tool::Docker { buildx: Some(buildx), .. } if matches!(words, ["build", ..] | ["inspect"]) => {
                Command::new(buildx)
            }
            Tool::Docker { .. } => Command::new("docker"),
            Tool::Buildah => {
                let mut command = Command::new("buildah");
                command
                    .args(["--storage-driver", "overlay", "--root"])
                    .arg(self.directory.path().join("root"));
                command.arg("--runroot").arg(self.directory.path().join("run"));
                command
            }
        };
        if let Tool::Docker { host, .. } = &self.tool {
            command.env("DOCKER_HOST", host).env("DOCKER_CONFIG", self.directory.path());
            command.env("BUILDX_CONFIG", self.directory.path().join("buildx"));
            command.env("DOCKER_BUILDKIT", "0").env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        }
        command.args(words).stdin(Stdio::null());
        let started = Instant::now();
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        let taken = started.elapsed();
        ensure!(
            output.status.success(),
            "{}: {words:?}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(taken)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.tool, Tool::Buildah) {
            // Its storage stays mounted where it is.
            let root = self.directory.path().join("root/overlay");
            let _ = Command::new("umount").arg(root).stderr(Stdio::null()).status();
        }
    }
}

/// Waits until everything written is on the disk, so that nobody pays for another's writes.
pub fn settle() -> anyhow::Result<()> {
    check(&mut Command::new("sync"))
}
