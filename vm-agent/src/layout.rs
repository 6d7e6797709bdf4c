//! Where the agent keeps things: one place for every path below its root.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use skiff_supervisor::Service;

/// The data disk's mount point in the guest: the engine's root.
pub const GUEST_DATA: &str = "/data";
/// Sockets and other things of one boot, in the guest.
const GUEST_RUN: &str = "/run/skiff";
/// Where the guest says that it stands before its data disk.
pub const GUEST_HELD: &str = "/run/skiff/held";

/// What the engine is told beside where it is.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Registries to ask before Docker Hub.
    pub mirrors: Vec<String>,
    /// Where subnets of new networks come from.
    pub address_pools: Vec<String>,
    /// The host address of a published port that names none.
    pub publish_ip: Option<std::net::IpAddr>,
}

/// Every path of one agent.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The engine's root: images, containers, volumes, state.
    pub root: PathBuf,
    /// The Docker API's socket.
    pub docker_socket: PathBuf,
    /// The router's socket on which the engine asks the host for things; absent when there is no daemon.
    pub host_socket: Option<PathBuf>,
    /// The bridge of the default network.
    pub bridge: String,
    /// What the engine waits for before it uses its root, as long as it exists.
    pub held: Option<PathBuf>,
}

impl Layout {
    /// The guest's.
    pub fn guest() -> Self {
        let run = Path::new(GUEST_RUN);
        Self {
            root: PathBuf::from(GUEST_DATA),
            docker_socket: run.join("docker.sock"),
            host_socket: Some(run.join("host.sock")),
            bridge: "docker0".to_owned(),
            held: Some(PathBuf::from(GUEST_HELD)),
        }
    }

    /// Creates the directories that must exist before the services start.
    pub fn create(&self) -> anyhow::Result<()> {
        for path in [Some(self.root.as_path()), self.docker_socket.parent()].into_iter().flatten() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(path)
                .with_context(|| format!("create {}", path.display()))?;
        }
        Ok(())
    }

    /// How the supervisor starts the engine.
    pub fn engine_service(&self, options: &EngineOptions) -> Service {
        let mut args: Vec<OsString> = vec!["engine".into()];
        let mut option = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        option("--root", self.root.clone().into());
        option("--program", own_program().into());
        option("--socket", self.docker_socket.clone().into());
        option("--bridge", self.bridge.clone().into());
        if let Some(host) = &self.host_socket {
            option("--host-socket", host.clone().into());
        }
        if let Some(held) = &self.held {
            option("--held", held.clone().into());
        }
        if let Some(ip) = options.publish_ip {
            option("--publish-ip", ip.to_string().into());
        }
        for pool in &options.address_pools {
            option("--default-address-pool", pool.into());
        }
        for mirror in &options.mirrors {
            option("--registry-mirror", mirror.into());
        }
        Service { name: "engine", program: own_program(), args }
    }
}

/// The running program, for starting itself in another role.
pub fn own_program() -> PathBuf {
    // The link names the file even after it was replaced on disk; an open one is what runs in both cases.
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// The built-in image: beside the program, in a build tree or in the guest's root.
pub fn toolbox(program: &Path) -> Option<PathBuf> {
    let directory = program.parent()?;
    ["../share/skiff/guest/toolbox.tar", "../guest/toolbox.tar", "../../guest/toolbox.tar", "toolbox.tar"]
        .into_iter()
        .map(|candidate| directory.join(candidate))
        .find(|path| path.is_file())
}
