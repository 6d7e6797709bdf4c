//! Exec operations: mounts are prepared, the engine runs the command, what was written becomes layers.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use skiff_images::archive::open_inside;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::detached::{memory, subtree};
use super::merge::input_of;
use super::mounts::{self, CacheMount};
use super::report::Reporter;
use super::value::{Outputs, Overlay, Snapshot, Value};
use super::vertex::{Counts, Plan};
use super::{Entitlement, Inner, Job, blocking};
use crate::error::{Error, Result};
use crate::files::act::Ownership;
use crate::files::copy::{Options, copy};
use crate::files::{Meta, Selection, View, read_only_root};
use crate::graph::pb::{self, CacheSharingOpt, MountType, NetMode, SecurityMode};
use crate::step::{Bind, Network, Output, Step, StepMount, Tmpfs};

const MOST_MOUNTS: usize = 1000;
const LARGEST_SECRET: usize = 500 << 10;
/// Names that the runtime makes in every root; removed again when the step did not use them.
const STUBS: [&str; 7] = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/proc", "/sys", "/dev", "/etc"];

/// Checks the operation, and says how inputs count.
pub(crate) fn plan(op: &pb::ExecOp, inputs: &[Value]) -> Result<Plan> {
    let meta = op.meta.as_ref().ok_or_else(|| Error::invalid("invalid exec op without meta"))?;
    if meta.args.is_empty() {
        return Err(Error::invalid("invalid exec op without arguments"));
    }
    if op.mounts.len() > MOST_MOUNTS {
        return Err(Error::invalid("invalid exec op with too many mounts"));
    }
    // No device is registered here: what a step can do without, it does without.
    if let Some(device) = op.cdi_devices.iter().find(|device| !device.optional) {
        return Err(Error::invalid(format!("required device {:?} is not registered", device.name)));
    }
    let mut counts: Vec<Option<Vec<Selection>>> = inputs.iter().map(|_| Some(Vec::new())).collect();
    let mut outputs = Vec::new();
    let mut roots = 0;
    for mount in &op.mounts {
        let is_root = clean(&mount.dest) == "/";
        roots += usize::from(is_root);
        if mount.input >= 0 {
            let index = usize::try_from(mount.input).ok().filter(|index| *index < inputs.len());
            let index =
                index.ok_or_else(|| Error::invalid(format!("invalid input index {}", mount.input)))?;
            let is_bind = mount.mount_type() == MountType::Bind;
            let by_content = mount.content_cache() != pb::MountContentCache::Off
                && (is_bind && mount.readonly && !is_root || mount.mount_type() == MountType::Cache);
            match (&mut counts[index], by_content) {
                (Some(parts), true) => parts.push(Selection {
                    path: mount.selector.clone().into_bytes(),
                    follow: true,
                    ..Selection::default()
                }),
                (whole, _) => *whole = None,
            }
        }
        if mount.output >= 0 {
            let output = usize::try_from(mount.output).unwrap_or(usize::MAX);
            if mount.mount_type() != MountType::Bind || outputs.contains(&output) || output > MOST_MOUNTS {
                return Err(Error::invalid(format!("invalid output index {}", mount.output)));
            }
            outputs.push(output);
        }
    }
    if roots != 1 {
        return Err(Error::invalid("exec op needs exactly one root mount"));
    }
    let inputs = counts
        .into_iter()
        .map(|parts| match parts {
            Some(parts) if !parts.is_empty() => Counts::Parts(parts),
            _ => Counts::Whole,
        })
        .collect();
    Ok(Plan { inputs, outputs })
}

/// What a step holds while it runs.
#[derive(Default)]
struct Prepared {
    root: Option<Overlay>,
    binds: Vec<StepMount>,
    /// Overlays whose contents are outputs, or that are only mounted.
    overlays: Vec<(Option<usize>, Overlay)>,
    caches: Vec<CacheMount>,
    trees: Vec<skiff_images::Tree>,
    agents: Vec<tokio::task::JoinHandle<()>>,
    root_output: Option<usize>,
    readonly_root: bool,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.agents.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Runs a step.
pub(crate) async fn run(
    job: &Job,
    op: &pb::ExecOp,
    inputs: &[Value],
    reporter: &Reporter,
) -> Result<Outputs> {
    let inner = &job.inner.solver.inner;
    let network = network(job, op)?;
    let insecure = op.security() == SecurityMode::Insecure;
    if insecure && !job.may(Entitlement::SecurityInsecure) {
        return Err(Error::Denied { message: "security.insecure is not allowed".to_owned() });
    }
    let mut meta = op.meta.clone().unwrap_or_default();
    environment(&mut meta, op, job).await?;
    let scratch = inner.config.images.scratch()?;
    let mut prepared = Prepared::default();
    for (number, mount) in op.mounts.iter().enumerate() {
        prepare(job, mount, number, inputs, scratch.path(), &meta, &mut prepared).await?;
    }
    let root = prepared.root.take().ok_or_else(|| Error::invalid("exec op needs a root mount"))?;
    // Outer mounts first, or they would hide the inner ones.
    prepared.binds.sort_by_key(|mount| Path::new(destination(mount)).components().count());
    let destinations = prepared.binds.iter().map(|mount| destination(mount).to_owned());
    let stubs: Vec<String> = destinations.chain(STUBS.iter().map(|&stub| stub.to_owned())).collect();
    let (root, missing) = blocking(move || {
        let missing = missing_names(&root, &stubs)?;
        Ok((root, missing))
    })
    .await?;
    let command = meta.args.join(" ");
    let valid: HashSet<i32> = match meta.valid_exit_codes.as_slice() {
        [] => HashSet::from([0]),
        codes => codes.iter().copied().collect(),
    };
    let log = reporter.clone();
    let step = Step {
        id: super::random_id(),
        rootfs: root.rootfs(),
        readonly_root: prepared.readonly_root,
        meta,
        mounts: std::mem::take(&mut prepared.binds),
        network,
        insecure,
        shm_size: job.inner.options.shm_size,
        limits: job.inner.options.limits.clone(),
        output: Arc::new(move |stream: Output, bytes: &[u8]| log.log(stream, bytes)),
    };
    // The step's own task outlives whoever waits: what it uses must not go before its processes have.
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let runner = Arc::clone(&inner.config.runner);
    let running = tokio::spawn(async move {
        let exit = runner.run(step, cancel).await;
        (exit, root, prepared, scratch)
    });
    let (exit, root, mut prepared, scratch) =
        running.await.map_err(|error| Error::failed(format!("a worker failed: {error}")))?;
    drop(guard.disarm());
    let exit_code = exit.map_err(|error| match error {
        Error::Failed { message } => {
            Error::failed(format!("process {command:?} did not complete successfully: {message}"))
        }
        error => error,
    })?;
    if !valid.contains(&exit_code) {
        return Err(Error::Process { command, exit_code });
    }
    let worker = Arc::clone(inner);
    let base = inputs.iter().find_map(|input| match input {
        Value::Layers(snapshot) => snapshot.base.clone(),
        Value::Context(_) => None,
    });
    blocking(move || {
        let mut outputs: Vec<Option<Value>> = Vec::new();
        let mut put = |index: usize, held: skiff_images::Held| {
            if outputs.len() <= index {
                outputs.resize(index + 1, None);
            }
            outputs[index] = Some(Value::Layers(Snapshot::held(held, base.clone())));
        };
        if let Some(index) = prepared.root_output {
            remove_stubs(&root, &missing)?;
            put(index, root.commit(&worker)?);
        }
        for (index, overlay) in std::mem::take(&mut prepared.overlays) {
            if let Some(index) = index {
                put(index, overlay.commit(&worker)?);
            }
        }
        drop((prepared, scratch));
        Ok(Arc::new(outputs))
    })
    .await
}

fn destination(mount: &StepMount) -> &str {
    match mount {
        StepMount::Bind(bind) => &bind.destination,
        StepMount::Tmpfs(tmpfs) => &tmpfs.destination,
    }
}

fn network(job: &Job, op: &pb::ExecOp) -> Result<Network> {
    match op.network() {
        NetMode::Host => match job.may(Entitlement::NetworkHost) {
            true => Ok(Network::Host),
            false => Err(Error::Denied { message: "network.host is not allowed".to_owned() }),
        },
        NetMode::None => Ok(Network::None),
        NetMode::Unset => Ok(match job.inner.options.network.as_deref() {
            None | Some("" | "default" | "bridge") => Network::Bridge,
            Some("host") => Network::Host,
            Some("none") => Network::None,
            Some(name) => Network::Named(name.to_owned()),
        }),
    }
}

/// Adds proxies and secrets to the environment.
async fn environment(meta: &mut pb::Meta, op: &pb::ExecOp, job: &Job) -> Result<()> {
    if let Some(proxy) = &meta.proxy_env {
        let pairs = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                meta.env.push(format!("{name}={value}"));
            }
        }
    }
    for wanted in &op.secretenv {
        match job.client().secrets.secret(&wanted.id).await? {
            Some(secret) => meta.env.push(format!("{}={}", wanted.name, String::from_utf8_lossy(&secret))),
            None if wanted.optional => {}
            None => return Err(Error::not_found(format!("secret {}: not found", wanted.id))),
        }
    }
    Ok(())
}

async fn prepare(
    job: &Job,
    mount: &pb::Mount,
    number: usize,
    inputs: &[Value],
    scratch: &Path,
    meta: &pb::Meta,
    prepared: &mut Prepared,
) -> Result<()> {
    let inner = &job.inner.solver.inner;
    let place = clean(&absolute(&mount.dest, &meta.cwd));
    match mount.mount_type() {
        MountType::Bind => bind(inner, mount, place, inputs, prepared).await,
        MountType::Tmpfs => {
            let size = mount.tmpfs_opt.as_ref().map_or(0, |options| u64::try_from(options.size).unwrap_or(0));
            prepared.binds.push(StepMount::Tmpfs(Tmpfs { destination: place, size }));
            Ok(())
        }
        MountType::Cache => {
            let options = mount.cache_opt.clone().unwrap_or_default();
            let sharing = CacheSharingOpt::try_from(options.sharing).unwrap_or(CacheSharingOpt::Shared);
            let id = if options.id.is_empty() { place.clone() } else { options.id };
            let seed = match mount.input {
                -1 => None,
                input => Some((input_of(inputs, input)?.viewed(inner).await?, mount.selector.clone())),
            };
            let description = format!("cached mount {place} from exec {}", meta.args.join(" "));
            let cache = mounts::take(inner, &id, sharing, seed, description).await?;
            let source = cache.directory.try_clone().map_err(|error| Error::io("open", scratch, error))?;
            prepared.binds.push(StepMount::Bind(Bind {
                source,
                destination: place,
                readonly: mount.readonly,
            }));
            prepared.caches.push(cache);
            Ok(())
        }
        MountType::Secret => secret(job, mount, place, prepared).await,
        MountType::Ssh => ssh(job, mount, place, number, scratch, prepared).await,
    }
}

async fn bind(
    inner: &Arc<Inner>,
    mount: &pb::Mount,
    place: String,
    inputs: &[Value],
    prepared: &mut Prepared,
) -> Result<()> {
    let output = usize::try_from(mount.output).ok();
    let value = input_of(inputs, mount.input)?;
    let selector = mount.selector.clone();
    let snapshot = match value {
        Value::Layers(snapshot) => snapshot,
        Value::Context(_) => {
            if place == "/" || output.is_some() {
                return Err(Error::invalid("a local source can't be written to"));
            }
            let viewed = value.viewed(inner).await?;
            let worker = Arc::clone(inner);
            let (tree, source) = blocking(move || materialize(&worker, &viewed.view, &selector)).await?;
            prepared.trees.push(tree);
            prepared.binds.push(StepMount::Bind(Bind {
                source,
                destination: place,
                readonly: mount.readonly,
            }));
            return Ok(());
        }
    };
    let held = snapshot.realize(inner).await?;
    let worker = Arc::clone(inner);
    if place == "/" {
        prepared.root = Some(blocking(move || Overlay::new(&worker, held)).await?);
        prepared.root_output = output;
        prepared.readonly_root = mount.readonly;
        return Ok(());
    }
    let (overlay, source) = blocking(move || {
        let overlay = Overlay::new(&worker, held)?;
        let root = overlay.mount()?;
        let source = match clean(&selector).as_str() {
            "/" => root,
            path => subtree(&root, path, &worker.config.root).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    Error::not_found(format!("lstat {path}: no such file or directory"))
                }
                _ => Error::failed(format!("mount {path}: {error}")),
            })?,
        };
        Ok((overlay, source))
    })
    .await?;
    prepared.overlays.push((output, overlay));
    prepared.binds.push(StepMount::Bind(Bind { source, destination: place, readonly: mount.readonly }));
    Ok(())
}

/// Writes a part of a context as files, for a mount.
pub(super) fn materialize(
    inner: &Inner,
    view: &View,
    selector: &str,
) -> Result<(skiff_images::Tree, OwnedFd)> {
    let tree = inner.config.images.new_tree()?;
    let root = read_only_root(tree.path()).map_err(|error| Error::io("open", tree.path(), error))?;
    let unreadable = |error: io::Error| Error::failed(format!("{selector}: {error}"));
    let resolved = view.resolve(selector.as_bytes(), true).map_err(unreadable)?;
    let meta = view.meta(&resolved).map_err(unreadable)?;
    let is_directory = matches!(meta, Some(Meta { kind: crate::files::Kind::Directory, .. }));
    let selection = Selection { path: selector.as_bytes().to_vec(), follow: true, ..Selection::default() };
    copy(
        view,
        &root,
        &Options {
            selection: &selection,
            destination: if is_directory { b"/" } else { b"/file" },
            ownership: Ownership::default(),
            mode: None,
            contents: true,
            create: true,
            unpack: false,
            allow_empty: false,
            replace: true,
            required: &[],
        },
    )?;
    if is_directory {
        return Ok((tree, root));
    }
    let file =
        open_inside(&root, b"file", OFlags::PATH | OFlags::NOFOLLOW).map_err(|e| unreadable(e.into()))?;
    Ok((tree, file))
}

async fn secret(job: &Job, mount: &pb::Mount, place: String, prepared: &mut Prepared) -> Result<()> {
    let options = mount.secret_opt.clone().unwrap_or_default();
    let Some(bytes) = job.client().secrets.secret(&options.id).await? else {
        return match options.optional {
            true => Ok(()),
            false => Err(Error::not_found(format!("secret {}: not found", options.id))),
        };
    };
    if bytes.len() > LARGEST_SECRET {
        return Err(Error::invalid(format!("invalid secret size {}", bytes.len())));
    }
    let above = job.inner.solver.inner.config.root.clone();
    let source = blocking(move || {
        let failed = |error: io::Error| Error::failed(format!("secret {}: {error}", options.id));
        // In memory: a secret is never on a disk.
        let root = memory((bytes.len() as u64).next_multiple_of(4096) + (64 << 10)).map_err(failed)?;
        let ownership = Ownership { owner: Some((options.uid, options.gid)), time: None };
        crate::files::act::make_file(&root, b"secret", options.mode & 0o7777, &bytes, &ownership)?;
        subtree(&root, "/secret", &above).map_err(failed)
    })
    .await?;
    prepared.binds.push(StepMount::Bind(Bind { source, destination: place, readonly: true }));
    Ok(())
}

async fn ssh(
    job: &Job,
    mount: &pb::Mount,
    place: String,
    number: usize,
    scratch: &Path,
    prepared: &mut Prepared,
) -> Result<()> {
    let options = mount.ssh_opt.clone().unwrap_or_default();
    let id = if options.id.is_empty() { "default".to_owned() } else { options.id.clone() };
    let agents = Arc::clone(&job.client().ssh);
    if !agents.has(&id).await? {
        return match options.optional {
            true => Ok(()),
            false => Err(Error::not_found(format!("unset ssh forward key {id}"))),
        };
    }
    let path = scratch.join(format!("agent-{number}.sock"));
    let failed = |error: io::Error| Error::io("listen on", &path, error);
    // The path may be longer than an address may be: the socket is bound by a link to its directory.
    let directory = read_only_root(scratch).map_err(failed)?;
    let address = format!("{}/agent-{number}.sock", crate::files::fd_path(&directory));
    let listener = tokio::net::UnixListener::bind(&address).map_err(failed)?;
    let node = open_inside(&directory, path.file_name().unwrap_or_default().as_encoded_bytes(), OFlags::PATH)
        .map_err(|errno| failed(errno.into()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o7777))
        .map_err(failed)?;
    crate::files::copy::chown(node.as_fd(), options.uid, options.gid)
        .map_err(|errno| failed(errno.into()))?;
    prepared.agents.push(tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (agents, id) = (Arc::clone(&agents), id.clone());
            connections.spawn(async move {
                let Ok(stream) = stream.into_std() else { return };
                if let Err(error) = agents.connect(&id, stream.into()).await {
                    tracing::debug!(%error, "ssh agent connection ended");
                }
            });
        }
    }));
    prepared.binds.push(StepMount::Bind(Bind { source: node, destination: place, readonly: false }));
    Ok(())
}

fn absolute(path: &str, directory: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") }
}

/// A path from the slash on without `.`, `..` and slashes at its end.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The names, and those of the directories that they are in, that the layers do not have.
fn missing_names(root: &Overlay, names: &[String]) -> Result<Vec<String>> {
    let mounted = root.mount()?;
    let mut missing: Vec<String> = Vec::new();
    for name in names {
        let mut name = name.as_str();
        while !name.is_empty() && !missing.iter().any(|have| have == name) {
            match open_inside(&mounted, name.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(_) => break,
                Err(Errno::NOENT | Errno::NOTDIR) => missing.push(name.to_owned()),
                Err(errno) => return Err(Error::failed(format!("{name}: {errno}"))),
            }
            name = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    // Inner ones first.
    missing.sort_by_key(|name| std::cmp::Reverse(name.len()));
    Ok(missing)
}

/// Removes what was made to be mounted on and is empty still.
fn remove_stubs(root: &Overlay, missing: &[String]) -> Result<()> {
    let upper = read_only_root(root.upper.path()).map_err(|e| Error::io("open", root.upper.path(), e))?;
    for name in missing {
        let (parent, last) = name.rsplit_once('/').unwrap_or(("", name));
        let Ok(parent) =
            open_inside(&upper, parent.as_bytes(), OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
        else {
            continue;
        };
        let Ok(status) = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let times = rustix::fs::fstat(&parent).ok();
        let removed = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile if status.st_size == 0 => {
                rustix::fs::unlinkat(&parent, last, AtFlags::empty())
            }
            // One that has something in it stays.
            FileType::Directory => rustix::fs::unlinkat(&parent, last, AtFlags::REMOVEDIR),
            _ => continue,
        };
        if removed.is_ok()
            && let Some(status) = times
        {
            let nanos = u32::try_from(status.st_mtime_nsec).unwrap_or(0);
            // The time of the directory tells of the stub alone, and is nothing to fail for.
            let _ = crate::files::copy::set_times(parent.as_fd(), (status.st_mtime, nanos));
        }
    }
    Ok(())
}
