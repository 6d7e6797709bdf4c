//! `skiff-agent link`: the router between the host's streams and what serves them here.
//!
//! ```text
//! host ──api─────► engine's Docker socket          engine ──publish, egress, resolve──► host.sock ──► host
//!      ──dial────► a container's ip:port
//!      ──shell───► SSH server (guest only)
//!      ──control─► this process                    containers ─egress, query, echo───────────► host
//!      ──control─► this process                     engine ──files──► this process mounts what the host shares
//! ```
//!
//! It is a process of its own so that the link, its connections and the shell outlive an engine that dies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use skiff_link::{Args, Incoming, Link, OpenError, Reply, ReplyCode, copy_both, mux};
use tokio::net::UnixStream;

use crate::layout::Layout;
use crate::ssh::{AuthorizedKeys, SshServer};

mod control;
mod dial;
mod files;
mod outside;
mod port;
mod sleep;

/// How long a stream waits for an engine that is starting.
const ENGINE_STARTS: Duration = Duration::from_secs(60);

/// What `link` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// `virtio:NAME` or `unix:LISTEN:HOST`
    #[arg(long)]
    transport: String,
    /// The engine's root
    #[arg(long)]
    root: PathBuf,
    /// The engine's Docker socket (default: the guest's)
    #[arg(long)]
    docker_socket: Option<PathBuf>,
}

/// Routes streams until the process is ended.
pub fn run(options: Options) -> anyhow::Result<()> {
    crate::logging::init();
    // With one processor a second worker is only one more to wake up for each event.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.min(2))
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(route(options))
}

async fn route(options: Options) -> anyhow::Result<()> {
    let docker_socket = options.docker_socket.unwrap_or_else(|| Layout::guest().docker_socket);
    let keys = AuthorizedKeys::default();
    if let Some(paths) = options.transport.strip_prefix("unix:") {
        let (listen, host) = paths.split_once(':').context("the unix transport is unix:LISTEN:HOST")?;
        let sleeper = Arc::new(sleep::Sleeper::new());
        let router = Arc::new(Router { docker_socket, root: options.root, keys, ssh: None, sleeper });
        let link = skiff_link::unix::link(Some(Path::new(listen)), Some(Path::new(host)))?;
        router.serve(link).await;
        return Ok(());
    }
    let Some(name) = options.transport.strip_prefix("virtio:") else {
        bail!("unknown transport {}", options.transport);
    };
    let ssh = SshServer::new(keys.clone());
    let sleeper = Arc::new(sleep::Sleeper::new());
    let router = Arc::new(Router {
        docker_socket,
        root: options.root,
        keys,
        ssh: Some(ssh),
        sleeper: Arc::clone(&sleeper),
    });
    let host_socket = Layout::guest().host_socket.context("the guest has one")?;
    // What a router that died has left: the supervisor runs one at a time.
    let _ = std::fs::remove_file(&host_socket);
    let host = tokio::net::UnixListener::bind(&host_socket)
        .with_context(|| format!("listen on {}", host_socket.display()))?;
    let current = Arc::new(tokio::sync::watch::Sender::new(None::<Link>));
    let shares = Arc::new(files::Shares::new());
    tokio::spawn(forward_to_host(host, Arc::clone(&current), Arc::clone(&shares)));
    tokio::spawn(outside::serve(outside::Host(Arc::clone(&current))));
    loop {
        let device = match port::open(name).await {
            Ok(device) => device,
            Err(error) => {
                // The port admits one opener: the last session's halves may still be closing.
                tracing::debug!(error = format!("{error:#}"), "open the link port");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Each session ends when the host daemon goes; the next one begins on the same port.
        match mux::connect(device, mux::Role::Guest, mux::Config::default()).await {
            Ok(link) => {
                tracing::info!("link is up");
                current.send_replace(Some(link.clone()));
                sleeper.set_shares(false);
                let (shares, again, sleeper) = (Arc::clone(&shares), link.clone(), Arc::clone(&sleeper));
                tokio::spawn(async move {
                    shares.attach_all(&again).await;
                    sleeper.set_shares(true);
                });
                Arc::clone(&router).serve(link).await;
                current.send_replace(None);
                tracing::info!("link is down");
            }
            Err(error) => {
                tracing::warn!(%error, "link handshake");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Carries the engine's requests to the host: same header, same reply, then bytes.
async fn forward_to_host(
    listener: tokio::net::UnixListener,
    current: Arc<tokio::sync::watch::Sender<Option<Link>>>,
    shares: Arc<files::Shares>,
) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut current = current.subscribe();
        let shares = Arc::clone(&shares);
        tokio::spawn(async move {
            let header = skiff_link::read_header(&mut stream).await?;
            // A host daemon that restarts is back within moments: the engine waits instead of failing.
            let waiting =
                async { current.wait_for(Option::is_some).await.ok().and_then(|link| link.clone()) };
            let link = tokio::time::timeout(ENGINE_STARTS, waiting).await.ok().flatten();
            let Some(link) = link else {
                let reply = Reply::refused(ReplyCode::Unreachable, "the host daemon is not connected");
                return skiff_link::write_reply(&mut stream, &reply).await;
            };
            if let Args::Files { share } = &header.args {
                let reply = shares.locate(&link, share).await;
                return skiff_link::write_reply(&mut stream, &reply).await;
            }
            match link.open_with_data(&header).await {
                Ok((remote, reply)) => {
                    skiff_link::write_reply(&mut stream, &reply).await?;
                    // A broken connection concerns its two ends only.
                    let _ = copy_both(stream, remote).await;
                    Ok(())
                }
                Err(error) => skiff_link::write_reply(&mut stream, &refusal(&error)).await,
            }
        });
    }
}

struct Router {
    docker_socket: PathBuf,
    root: PathBuf,
    keys: AuthorizedKeys,
    ssh: Option<SshServer>,
    sleeper: Arc<sleep::Sleeper>,
}

impl Router {
    async fn serve(self: Arc<Self>, link: Link) {
        loop {
            match link.accept().await {
                Ok(incoming) => {
                    let router = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = router.stream(incoming).await {
                            tracing::debug!(error = format!("{error:#}"), "stream ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "link session ended");
                    return;
                }
            }
        }
    }

    async fn stream(&self, incoming: Incoming) -> anyhow::Result<()> {
        match incoming.header.args.clone() {
            Args::Api {} => {
                let Some(engine) = connect_engine(&self.docker_socket).await else {
                    incoming.refuse(ReplyCode::Unreachable, "the engine does not start").await;
                    return Ok(());
                };
                copy_both(incoming.accept(None).await?, engine).await?;
            }
            Args::Dial { addr, protocol } => dial::serve(incoming, addr, protocol).await?,
            Args::Shell {} => match &self.ssh {
                Some(ssh) => ssh.serve(incoming.accept(None).await?).await?,
                None => {
                    incoming
                        .refuse(ReplyCode::Unsupported, "the native backend has no guest to log in to")
                        .await
                }
            },
            Args::Control {} => {
                let context = control::Context {
                    root: &self.root,
                    docker_socket: &self.docker_socket,
                    keys: &self.keys,
                    in_guest: self.ssh.is_some(),
                    sleeper: &self.sleeper,
                };
                control::serve(incoming.accept(None).await?, &context).await?;
            }
            _ => incoming.refuse(ReplyCode::Unsupported, "the agent does not serve this").await,
        }
        Ok(())
    }
}

/// Connects to the engine, which may be starting or restarting at this moment.
async fn connect_engine(socket: &Path) -> Option<UnixStream> {
    let deadline = tokio::time::Instant::now() + ENGINE_STARTS;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Some(stream);
        }
        if tokio::time::Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The host's own refusal, or that there was no way to it.
fn refusal(error: &OpenError) -> Reply {
    match error {
        OpenError::Refused { code, message, .. } => Reply::refused(*code, message.clone()),
        OpenError::Link { .. } => Reply::refused(ReplyCode::Unreachable, error.to_string()),
    }
}
