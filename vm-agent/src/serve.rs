//! `skiff-agent serve`: the engine on a plain Linux host, without a guest.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use skiff_supervisor::{Outcome, Server, ServerConfig, Service};

use crate::layout::{EngineOptions, Layout, own_program};

/// How long the engine may take to stop all containers. Docker's default stop timeout is 10 s.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// What `serve` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory for images, containers, volumes and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/skiff")]
    root: PathBuf,
    /// Unix socket for the Docker API
    #[arg(long, value_name = "PATH", default_value = "/run/skiff/docker.sock")]
    socket: PathBuf,
    /// Registry to ask before Docker Hub (may be given several times)
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Address that ports are published on when `-p` names none
    #[arg(long, value_name = "ADDRESS")]
    publish_ip: Option<std::net::IpAddr>,
    /// Where subnets of new networks come from, as base=10.0.0.0/8,size=24 (may be given several times)
    #[arg(long, value_name = "POOL", value_parser = crate::engine::check_pool)]
    default_address_pool: Vec<String>,
    /// Unix socket on which a host daemon opens streams
    #[arg(long, value_name = "PATH", requires = "host_link")]
    link: Option<PathBuf>,
    /// Unix socket of the host daemon, for published ports and egress
    #[arg(long, value_name = "PATH", requires = "link")]
    host_link: Option<PathBuf>,
}

/// Serves until SIGTERM.
pub fn run(options: Options) -> anyhow::Result<()> {
    crate::logging::init();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "skiff-agent serve needs root: it makes namespaces, mounts and bridges (try sudo, or `skiff daemon` with a guest)"
        );
    }
    fs::create_dir_all(&options.root).with_context(|| format!("create {}", options.root.display()))?;
    let root = fs::canonicalize(&options.root).with_context(|| format!("find {}", options.root.display()))?;
    let _lock = lock(&root)?;
    let layout = Layout {
        bridge: bridge_name(&root),
        root,
        docker_socket: std::path::absolute(&options.socket)?,
        host_socket: options.host_link.clone(),
        held: None,
    };
    layout.create()?;
    let helpers = match (options.link, options.host_link) {
        (Some(listen), Some(host)) => vec![Service {
            name: "link",
            program: own_program(),
            args: [
                "link".into(),
                "--transport".into(),
                unix_transport(&listen, &host),
                "--root".into(),
                layout.root.clone().into(),
                "--docker-socket".into(),
                layout.docker_socket.clone().into(),
            ]
            .into(),
        }],
        _ => Vec::new(),
    };
    let server = Server::new(ServerConfig {
        engine: layout.engine_service(&EngineOptions {
            mirrors: options.registry_mirror,
            address_pools: options.default_address_pool,
            publish_ip: options.publish_ip,
        }),
        helpers,
        stop_grace: STOP_GRACE,
        when_ready: None,
    })
    .context("prepare the supervisor")?;
    match server.run().context("supervise")? {
        Outcome::Stopped => Ok(()),
        Outcome::Forced => bail!(
            "the engine did not stop its containers within {} s: they were killed",
            STOP_GRACE.as_secs()
        ),
    }
}

fn unix_transport(listen: &Path, host: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from("unix:");
    text.push(listen);
    text.push(":");
    text.push(host);
    text
}

/// Keeps a second agent off the same root. The lock goes with the process, however it ends.
fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        bail!("{} is in use by process {}: stop it or choose another --root", root.display(), pid.trim());
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// A bridge name of this root's own, within the kernel's 15 characters, so that agents run side by side.
fn bridge_name(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    format!("skf{}", hex::encode(&digest[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_differ_by_root_and_fit_the_kernel() {
        let one = bridge_name(Path::new("/a"));
        assert_ne!(one, bridge_name(Path::new("/b")));
        assert_eq!(one, bridge_name(Path::new("/a")));
        assert!(one.len() <= 15 - 4, "room for suffixes: {one}");
    }

    #[test]
    fn a_second_lock_names_the_holder_and_a_dead_holder_does_not_matter() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(root.path()).unwrap();
        let error = lock(root.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        lock(root.path()).unwrap();
    }
}
