//! From a container's record to the OCI runtime spec.

pub mod devices;
pub mod files;
mod mounts;
pub mod resources;
pub mod security;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, PosixRlimit, Process, Spec, User};
use serde_json::json;
use skiff_runtime::user::{Identity, Root, resolve};

use crate::error::{Error, Result};
use crate::state::Record;

/// Whose namespace of a kind a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Share {
    /// Its own.
    #[default]
    Own,
    /// The engine's.
    Host,
    /// That of another container's first process.
    Process(i32),
}

/// What a spec is made from, beside the record.
pub struct Inputs<'a> {
    /// The container.
    pub record: &'a Record,
    /// The directory of the container's generated files: with `container:`, that of the other one.
    pub dir: &'a Path,
    /// Sources of mounts that are parts of volumes, by destination.
    pub parts: &'a HashMap<String, OwnedFd>,
    /// Its root file system, to find users in.
    pub root: &'a Root,
    /// Namespaces that are not its own.
    pub pid: Share,
    /// See `pid`.
    pub ipc: Share,
    /// See `pid`.
    pub uts: Share,
    /// Variables that its links bring.
    pub linked: &'a [String],
    /// Whether it uses the engine's network.
    pub host_network: bool,
    /// Whether there are cgroups with limits.
    pub limits: bool,
    /// The program that can be a container's init.
    pub init: Option<&'a Path>,
}

/// Where a container finds the init that it was made with.
const INIT: &str = "/sbin/docker-init";

impl Inputs<'_> {
    /// The init to start the command with: only a pid namespace of the container's own can have one.
    fn init(&self) -> Result<Option<&Path>> {
        if self.record.host_config.init != Some(true) || self.pid != Share::Own {
            return Ok(None);
        }
        let missing =
            || Error::invalid("exec: \"docker-init\": this build of the engine is not static and has none");
        self.init.map(Some).ok_or_else(missing)
    }
}

/// Makes the spec.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let Inputs { record, .. } = inputs;
    let (config, host) = (&record.config, &record.host_config);
    let security = security::Security::of(host)?;
    let mut spec = skiff_runtime::default_spec();
    let identity = identify(inputs.root, config.user.as_deref().unwrap_or(""), host.group_add.as_deref())?;

    let mut process = spec.process().clone().unwrap_or_default();
    let mut args = Vec::new();
    if inputs.init()?.is_some() {
        args.extend([INIT.to_owned(), "--".to_owned()]);
    }
    args.push(record.path.clone());
    args.extend(record.args.iter().cloned());
    let tty = config.tty.unwrap_or(false);
    process
        .set_args(Some(args))
        .set_env(Some(environment(record, inputs.linked, &identity, tty)))
        .set_cwd(PathBuf::from(config.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/")))
        .set_user(user(&identity))
        .set_terminal(Some(tty))
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_oom_score_adj(host.oom_score_adj.and_then(|score| i32::try_from(score).ok()))
        .set_rlimits(rlimits(record)?)
        .set_capabilities(Some(skiff_runtime::default_capabilities(security.capabilities.iter().copied())));
    spec.set_process(Some(process));

    if inputs.uts == Share::Own {
        spec.set_hostname(config.hostname.clone().filter(|name| !name.is_empty()));
        spec.set_domainname(config.domainname.clone().filter(|name| !name.is_empty()));
    } else {
        spec.set_hostname(None);
    }
    if let Some(root) = spec.root_mut() {
        root.set_readonly(host.readonly_rootfs);
    }
    let mounts = mounts::all(inputs, spec.mounts().clone().unwrap_or_default())?;
    spec.set_mounts(Some(mounts));
    spec.set_annotations(host.annotations.clone());

    let linux = spec.linux_mut().as_mut().expect("the default spec has a Linux section");
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    linux.set_namespaces(Some(share(namespaces, inputs)));
    linux.set_seccomp(security.seccomp()?);
    linux.set_sysctl(Some(sysctls(inputs)));
    linux.set_devices(devices::all(host)?);
    linux.set_resources(inputs.limits.then(|| resources::of(host)).transpose()?);
    if security.privileged || security.system_paths_unconfined {
        linux.set_masked_paths(None);
        linux.set_readonly_paths(None);
    } else {
        if let Some(masked) = &host.masked_paths {
            linux.set_masked_paths(Some(masked.clone()));
        }
        if let Some(readonly) = &host.readonly_paths {
            linux.set_readonly_paths(Some(readonly.clone()));
        }
    }
    Ok(spec)
}

/// Makes the process of an exec from the container's spec.
pub fn exec_process(
    record: &Record,
    root: &Root,
    exec: &bollard_stubs::models::ExecConfig,
) -> Result<(Process, Option<oci_spec::runtime::Linux>)> {
    let mut host = record.host_config.clone();
    if exec.privileged == Some(true) {
        host.privileged = Some(true);
    }
    let security = security::Security::of(&host)?;
    let wanted = exec.user.as_deref().filter(|user| !user.is_empty());
    let user_text = wanted.or(record.config.user.as_deref()).unwrap_or("");
    let identity = identify(root, user_text, record.host_config.group_add.as_deref())?;
    let tty = exec.tty.unwrap_or(false);
    let mut env = environment(record, &[], &identity, tty);
    merge_env(&mut env, exec.env.as_deref().unwrap_or_default());
    let cwd = exec.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let cwd = cwd.or(record.config.working_dir.as_deref()).filter(|dir| !dir.is_empty()).unwrap_or("/");
    let mut process = Process::default();
    process
        .set_args(exec.cmd.clone())
        .set_env(Some(env))
        .set_cwd(PathBuf::from(cwd))
        .set_user(user(&identity))
        .set_terminal(Some(tty))
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_oom_score_adj(host.oom_score_adj.and_then(|score| i32::try_from(score).ok()))
        .set_rlimits(rlimits(record)?)
        .set_capabilities(Some(skiff_runtime::default_capabilities(security.capabilities.iter().copied())));
    let mut linux = oci_spec::runtime::Linux::default();
    linux.set_seccomp(security.seccomp()?);
    Ok((process, Some(linux)))
}

fn identify(root: &Root, user: &str, groups: Option<&[String]>) -> Result<Identity> {
    // The words of runc, which dockerd passes on.
    resolve(|path| root.open(path), user, groups.unwrap_or_default())
        .map_err(|error| Error::invalid(crate::error::chain(&error)))
}

fn user(identity: &Identity) -> User {
    let mut groups = identity.groups.clone();
    // Its own group is one of them, or a file that keeps this group out could be read by leaving it.
    if !groups.contains(&identity.gid) {
        groups.push(identity.gid);
    }
    let mut user = User::default();
    user.set_uid(identity.uid).set_gid(identity.gid).set_additional_gids(Some(groups));
    user
}

/// The environment in Docker's order: defaults, then the links', then the configuration's, then `HOME` where nobody set it.
fn environment(record: &Record, linked: &[String], identity: &Identity, tty: bool) -> Vec<String> {
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    if let Some(hostname) = record.config.hostname.as_deref().filter(|name| !name.is_empty()) {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    merge_env(&mut env, linked);
    merge_env(&mut env, record.config.env.as_deref().unwrap_or_default());
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// Adds variables; one that is there already is replaced in its place; a name without `=` removes it.
pub fn merge_env(env: &mut Vec<String>, more: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or(entry).to_owned();
    for entry in more {
        let at = env.iter().position(|have| name(have) == name(entry));
        match (at, entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (None, true) => env.push(entry.clone()),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, false) => {}
        }
    }
}

fn rlimits(record: &Record) -> Result<Option<Vec<PosixRlimit>>> {
    let Some(ulimits) = &record.host_config.ulimits else { return Ok(None) };
    ulimits
        .iter()
        .map(|limit| {
            let name = limit.name.as_deref().unwrap_or("");
            // -1 is "unlimited", which is what the largest number means to the kernel.
            let number =
                |value: Option<i64>| value.map_or(u64::MAX, |value| u64::try_from(value).unwrap_or(u64::MAX));
            serde_json::from_value(json!({
                "type": format!("RLIMIT_{}", name.to_ascii_uppercase()),
                "soft": number(limit.soft),
                "hard": number(limit.hard),
            }))
            .map_err(|_| Error::invalid(format!("invalid ulimit type: {name}")))
        })
        .collect::<Result<Vec<_>>>()
        .map(Some)
}

fn share(namespaces: Vec<LinuxNamespace>, inputs: &Inputs<'_>) -> Vec<LinuxNamespace> {
    let host_cgroups = inputs.record.host_config.cgroupns_mode
        == Some(bollard_stubs::models::HostConfigCgroupnsModeEnum::HOST)
        || inputs.record.host_config.privileged == Some(true)
            && inputs.record.host_config.cgroupns_mode.is_none();
    namespaces
        .into_iter()
        .filter_map(|mut namespace| {
            let (share, file) = match namespace.typ() {
                LinuxNamespaceType::Pid => (&inputs.pid, "pid"),
                LinuxNamespaceType::Ipc => (&inputs.ipc, "ipc"),
                LinuxNamespaceType::Uts => (&inputs.uts, "uts"),
                LinuxNamespaceType::Network if inputs.host_network => return None,
                LinuxNamespaceType::Cgroup if host_cgroups => return None,
                _ => return Some(namespace),
            };
            match share {
                Share::Own => Some(namespace),
                Share::Host => None,
                Share::Process(pid) => {
                    namespace.set_path(Some(PathBuf::from(format!("/proc/{pid}/ns/{file}"))));
                    Some(namespace)
                }
            }
        })
        .collect()
}

/// Docker lets every user of a container's own network bind low ports and send pings.
fn sysctls(inputs: &Inputs<'_>) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let mode = inputs.record.host_config.network_mode.as_deref().unwrap_or("");
    if !inputs.host_network && !mode.starts_with("container:") {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    all.extend(inputs.record.host_config.sysctls.clone().unwrap_or_default());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn later_variables_replace_earlier_ones_in_place() {
        let mut env = owned(&["PATH=/bin", "A=1", "B=2"]);
        merge_env(&mut env, &owned(&["A=3", "C=4=5", "B", "MISSING"]));
        assert_eq!(env, owned(&["PATH=/bin", "A=3", "C=4=5"]));
    }
}
