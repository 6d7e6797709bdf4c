//! `skiff-agent engine`: the Docker API on a unix socket, over the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use skiff_engine::{
    BridgeNetwork, Egress, Engine, Forwarder, LocalForwarder, LocalPublisher, LocalSources, PacketFilter,
    Publisher, Sources,
};
use skiff_images::{Dial, ProxyDial, Store, TcpDial, Trust};
use skiff_supervisor::Client;
use tokio::net::UnixListener;

use crate::held::Held;
use crate::modules;

mod adapter;
mod host;
mod sources;

/// What `engine` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory for images, containers, volumes and state
    #[arg(long)]
    root: PathBuf,
    /// Where this program lies on disk
    #[arg(long)]
    program: PathBuf,
    /// Unix socket for the Docker API
    #[arg(long)]
    socket: PathBuf,
    /// Bridge of the default network
    #[arg(long)]
    bridge: String,
    /// Socket on which the host is asked for ports and connections (default: this machine is the host)
    #[arg(long)]
    host_socket: Option<PathBuf>,
    /// Address that ports are published on when `-p` names none
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    publish_ip: IpAddr,
    /// Where subnets of new networks come from
    #[arg(long, value_parser = pool)]
    default_address_pool: Vec<skiff_network::AddressPool>,
    /// Registry to ask before Docker Hub
    #[arg(long)]
    registry_mirror: Vec<String>,
    /// File that tells not to use the root yet, as long as it exists
    #[arg(long)]
    held: Option<PathBuf>,
}

/// Serves until the supervisor says stop, or is gone.
pub fn run(options: Options) -> anyhow::Result<()> {
    skiff_oci::seal::ensure(c"skiff-agent");
    // Before anything else is opened: the descriptors are known by number.
    let supervisor = Client::from_env()?;
    crate::logging::init();
    if let Some(mark) = &options.held {
        Held::at(mark).wait();
    }
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
    let own: Arc<dyn Publisher> = Arc::new(LocalPublisher::new(format!("skiff_{}_ports", options.bridge)));
    let trust = Trust::default();
    let mut sources: Arc<dyn Sources> = Arc::new(LocalSources);
    let (dial, publisher): (Arc<dyn Dial>, Arc<dyn Publisher>) = match &options.host_socket {
        Some(socket) => {
            let host = host::Host::new(socket, trust.clone())?;
            if in_guest {
                forwarder = Arc::new(host.clone());
                sources = Arc::new(sources::HostSources::new(host.clone(), options.socket.clone()));
            }
            // Without a guest the host's addresses are this machine's: bound here, ports keep their clients' addresses.
            let publisher = if in_guest { Arc::new(host.clone()) } else { own };
            (Arc::new(host), publisher)
        }
        None => (Arc::new(ProxyDial::from_env(TcpDial)), own),
    };
    let mut images = skiff_images::Config::new(&options.root);
    images.mirrors.clone_from(&options.registry_mirror);
    images.dial = dial;
    images.trust = trust;
    let images =
        tokio::task::spawn_blocking(move || Store::open(images)).await?.context("open the image store")?;
    if let Some(toolbox) = crate::layout::toolbox(&options.program) {
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
        sources,
        publish_default_ip: options.publish_ip,
        bridge: BridgeNetwork { name: options.bridge, ..BridgeNetwork::default() },
        shares_interfaces: !in_guest,
        address_pools: match options.default_address_pool {
            none if none.is_empty() => skiff_network::default_pools(),
            pools => pools,
        },
        egress: if in_guest { Egress::Caught } else { Egress::Masquerade },
        host_gateway: in_guest.then_some(IpAddr::V4(skiff_link::HOST_ADDRESS)),
        packet_filter: if in_guest { PacketFilter::OnDemand } else { PacketFilter::AtStart },
        forwarder,
        cgroup_parent: Some(cgroup_parent()),
        // A program that needs libraries can't run in an image.
        init: cfg!(target_feature = "crt-static").then_some(options.program),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        fallback_dns: Vec::new(),
        registry_mirrors: options.registry_mirror,
    };
    let history = config.root.join("build/history");
    let engine = Engine::open(config).await.context("open the engine")?;
    let listener = listen(&options.socket)?;
    let buildkit = skiff_buildkit::BuildKit::new(skiff_buildkit::Config {
        solver: engine.solver().context("open the build cache")?,
        worker: engine.id().to_owned(),
        host_gateway: engine.host_gateway(),
        history,
        on_image: {
            let engine = engine.clone();
            Arc::new(move |id, names| engine.image_built(id, names))
        },
    });
    let backend = Arc::new(adapter::Adapter(engine.clone(), buildkit));
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

/// Checks `base=10.0.0.0/8,size=24`, which is handed on as it is.
pub fn check_pool(text: &str) -> Result<String, String> {
    pool(text).map(|_| text.to_owned())
}

/// Reads `base=10.0.0.0/8,size=24`, as dockerd's option has it.
fn pool(text: &str) -> Result<skiff_network::AddressPool, String> {
    let (mut base, mut size) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("base", value)) => base = value.parse::<ipnet::IpNet>().ok(),
            Some(("size", value)) => size = value.parse::<u8>().ok(),
            _ => return Err(format!("invalid field {field:?}, expected base=SUBNET,size=NUMBER")),
        }
    }
    match (base, size) {
        (Some(base), Some(size)) if base.prefix_len() <= size && size <= base.max_prefix_len() => {
            Ok(skiff_network::AddressPool { base, size })
        }
        _ => Err(format!("invalid address pool {text:?}, expected base=SUBNET,size=NUMBER")),
    }
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
