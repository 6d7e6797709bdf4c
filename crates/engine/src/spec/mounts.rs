//! The mounts of a container: Docker's defaults, the generated files, the user's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{Inputs, Share};
use crate::error::{Error, Result};
use crate::state::{self, MountKind};

/// All mounts in the order in which they are made.
pub fn all(inputs: &Inputs<'_>, defaults: Vec<Mount>) -> Result<Vec<Mount>> {
    let record = inputs.record;
    let privileged = record.host_config.privileged == Some(true);
    let taken = |path: &Path| record.mounts.iter().any(|mount| Path::new(&mount.destination) == path);
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in defaults.into_iter().filter(|mount| !taken(mount.destination())) {
        let mount = match mount.destination().to_str() {
            Some("/dev/shm") => match shared_memory(inputs, mount)? {
                Some(mount) => mount,
                None => continue,
            },
            Some("/sys" | "/sys/fs/cgroup") if privileged => writable(mount),
            // The engine's own system files can't be mounted anew for a network that is not the container's.
            Some("/sys") if inputs.host_network => {
                bind(Path::new("/sys"), Path::new("/sys"), &["rbind", "ro"])?
            }
            // Machines that have none show the engine's own queues with a new mount as well.
            Some("/dev/mqueue") if inputs.ipc == Share::Host && Path::new("/dev/mqueue").exists() => {
                bind(Path::new("/dev/mqueue"), Path::new("/dev/mqueue"), &["rbind"])?
            }
            _ => mount,
        };
        mounts.push(mount);
    }
    let mut own = Vec::new();
    for mount in &record.mounts {
        own.push(user_mount(mount, inputs.parts.get(&mount.destination))?);
    }
    for name in ["resolv.conf", "hostname", "hosts"] {
        let destination = Path::new("/etc").join(name);
        if !taken(&destination) {
            let mut options = vec!["rbind", "rprivate"];
            options.extend((record.host_config.readonly_rootfs == Some(true)).then_some("ro"));
            own.push(bind(&inputs.dir.join(name), &destination, &options)?);
        }
    }
    if let Some(init) = inputs.init()? {
        own.push(bind(init, Path::new(super::INIT), &["bind", "ro"])?);
    }
    // Outer ones first, or they would hide the inner: a volume on /etc as well.
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(own);
    Ok(mounts)
}

fn user_mount(mount: &state::Mount, part: Option<&OwnedFd>) -> Result<Mount> {
    let destination = Path::new(&mount.destination);
    if mount.kind == MountKind::Tmpfs {
        let options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
        return made("tmpfs", Path::new("tmpfs"), destination, &options);
    }
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { mount.propagation.as_str() };
    let mut options = vec![if mount.recursive { "rbind" } else { "bind" }, propagation];
    if !mount.writable {
        options.push("ro");
        // What is mounted below it is read-only too, unless the user wants just this one to be.
        if mount.recursive && !mount.shallow_read_only {
            options.push("rro");
        }
    }
    match part {
        // Opened by this process when the container is made.
        Some(part) => bind(Path::new(&format!("/proc/self/fd/{}", part.as_raw_fd())), destination, &options),
        None => bind(Path::new(&mount.source), destination, &options),
    }
}

/// `/dev/shm`: its own with the wanted size, the engine's, another container's, or none.
fn shared_memory(inputs: &Inputs<'_>, mut mount: Mount) -> Result<Option<Mount>> {
    let shm = Path::new("/dev/shm");
    match (&inputs.ipc, inputs.record.host_config.ipc_mode.as_deref()) {
        (Share::Host, _) => Ok(Some(bind(shm, shm, &["rbind", "rprivate"])?)),
        (Share::Process(pid), _) => {
            let source = match inputs.parts.get("/dev/shm") {
                Some(tree) => PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd())),
                None => PathBuf::from(format!("/proc/{pid}/root/dev/shm")),
            };
            Ok(Some(bind(&source, shm, &["rbind", "rprivate"])?))
        }
        (Share::Own, Some("none")) => Ok(None),
        (Share::Own, _) => {
            if let Some(size) = inputs.record.host_config.shm_size.filter(|size| *size > 0) {
                let mut options = mount.options().clone().unwrap_or_default();
                options.retain(|option| !option.starts_with("size="));
                options.push(format!("size={size}"));
                mount.set_options(Some(options));
            }
            Ok(Some(mount))
        }
    }
}

fn writable(mut mount: Mount) -> Mount {
    let mut options = mount.options().clone().unwrap_or_default();
    options.retain(|option| option != "ro");
    mount.set_options(Some(options));
    mount
}

fn bind(source: &Path, destination: &Path, options: &[&str]) -> Result<Mount> {
    made("bind", source, destination, options)
}

fn made(kind: &str, source: &Path, destination: &Path, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .typ(kind)
        .source(source)
        .destination(destination)
        .options(options.iter().map(|&option| option.to_owned()).collect::<Vec<String>>())
        .build()
        .map_err(|error| Error::internal("describe a mount", &error))
}
