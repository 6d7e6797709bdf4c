//! `skiff-agent engine`: the Docker API on a unix socket, over the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use skiff_engine::{
    BridgeNetwork, Egress, Engine, Forwarder, LocalForwarder, LocalPublisher, PacketFilter, Publisher,
};
use skiff_images::{Dial, Store, TcpDial};
use skiff_supervisor::Client;
use tokio::net::UnixListener;

use crate::modules;

mod adapter;
mod host;

/// What `engine` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory for images, containers, volumes and state
    #[arg(long)]
    root: PathBuf,
    /// Unix socket for the Docker API
    #[arg(long)]
    socket: PathBuf,
    /// Bridge of the default network
    #[arg(long)]
    bridge: String,
    /// Socket on which the host is asked for ports and connections (default: this machine is the host)
    #[arg(long)]
    host_socket: Option<PathBuf>,
    /// Registry to ask before Docker Hub
    #[arg(long)]
    registry_mirror: Vec<String>,
}

/// Serves until the supervisor says stop, or is gone.
pub fn run(options: Options) -> anyhow::Result<()> {
    // Before anything else is opened: the descriptors are known by number.
    let supervisor = Client::from_env()?;
    crate::logging::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(serve(options, supervisor))
}

async fn serve(options: Options, supervisor: Client) -> anyhow::Result<()> {
    let in_guest = modules::is_guest();
    let local: Arc<dyn Forwarder> = Arc::new(LocalForwarder::new(PathBuf::from("/etc/resolv.conf")));
    let mut forwarder = local;
    let (dial, publisher): (Arc<dyn Dial>, Arc<dyn Publisher>) = match &options.host_socket {
        Some(socket) => {
            let host = host::Host::new(socket)?;
            if in_guest {
                forwarder = Arc::new(host.clone());
            }
            (Arc::new(host.clone()), Arc::new(host))
        }
        None => (Arc::new(TcpDial), Arc::new(LocalPublisher)),
    };
    let mut images = skiff_images::Config::new(&options.root);
    images.mirrors.clone_from(&options.registry_mirror);
    images.dial = dial;
    let images =
        tokio::task::spawn_blocking(move || Store::open(images)).await?.context("open the image store")?;
    if let Some(toolbox) = crate::layout::toolbox() {
        // The engine is of use without it: a damaged archive is no reason not to start.
        if let Err(error) = images.seed(&toolbox, "toolbox").await {
            tracing::warn!(%error, "built-in image");
        }
    }
    let config = skiff_engine::Config {
        root: options.root.clone(),
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        images,
        supervisor: supervisor.clone(),
        publisher,
        publish_default_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        bridge: BridgeNetwork { name: options.bridge, ..BridgeNetwork::default() },
        egress: if in_guest { Egress::Routed } else { Egress::Masquerade },
        packet_filter: if in_guest { PacketFilter::OnDemand } else { PacketFilter::AtStart },
        forwarder,
        cgroup_parent: Some(cgroup_parent()),
        // This program, whatever has become of its file; one that needs libraries can't run in an image.
        init: cfg!(target_feature = "crt-static").then(|| PathBuf::from("/proc/self/exe")),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        fallback_dns: Vec::new(),
        registry_mirrors: options.registry_mirror,
    };
    let engine = Engine::open(config).await.context("open the engine")?;
    let listener = listen(&options.socket)?;
    let backend = Arc::new(adapter::Adapter(engine.clone()));
    let server = skiff_docker_api::Server::new(backend, env!("CARGO_PKG_VERSION"));
    supervisor.ready()?;
    tracing::info!(socket = %options.socket.display(), "engine listens");
    server.serve(listener, engine.stopped()).await;
    // A dead engine leaves the file behind and the next one replaces it; a stopped one is tidier than that.
    let _ = std::fs::remove_file(&options.socket);
    Ok(())
}

/// Where the cgroups of containers are. On a machine with a mixed hierarchy that is the part of version 2, which has no
/// limits but can pause.
fn cgroup_parent() -> PathBuf {
    let mixed = Path::new("/sys/fs/cgroup/unified");
    let root = if mixed.join("cgroup.procs").is_file() { mixed } else { Path::new("/sys/fs/cgroup") };
    root.join("skiff")
}

/// Listens for the owner alone.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("{} is in use by another engine: stop it or choose another --socket", path.display());
    }
    // Bound beside its place and renamed: a client finds either the dead socket or one that answers, with its mode set.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).with_context(|| format!("listen on {}", fresh.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path).with_context(|| format!("put the socket to {}", path.display()))?;
    Ok(listener)
}
