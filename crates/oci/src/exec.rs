//! `exec`: a further command in a running container.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, bail};
use oci_spec::runtime::{Capability, Process, User};
use skiff_linux_sys::namespace::{Namespaces, join};
use skiff_runtime::{Cgroup, Exec, Parent, capability_from_name, exec_with};

use super::create::{check_inherited, own_streams, write_pid};
use super::state::{Record, Status, Store};
use super::{bundle, terminal};

/// What `exec` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// File with the process as the configuration would have it
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable as NAME=VALUE
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, with or without group, as numbers: UID[:GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// A further group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Don't wait for its end
    #[arg(short, long)]
    detach: bool,
    /// File to write its id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket to send the terminal's master to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Let it gain no privileges
    #[arg(long)]
    no_new_privs: bool,
    /// A further capability
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// How many descriptors from 3 on it inherits
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    preserve_fds: u32,
    /// Run it although the container is paused
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command; returns the exit code.
pub fn run(store: &Store, options: Options) -> anyhow::Result<u8> {
    check_inherited(options.preserve_fds)?;
    let entry = store.find(&options.id)?;
    let record = entry.read()?;
    match entry.status(&record) {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused to override)"),
        Status::Stopped | Status::Creating => bail!("cannot exec in a stopped container"),
    }
    let process = process(&record, &options)?;
    let target = record.process.as_ref().context("cannot exec in a stopped container")?;
    let pidfd = target.pidfd().context("cannot exec in a stopped container")?;
    if !rustix::process::geteuid().is_root() && has_user_namespace(&record) {
        // Its owner has every privilege over it once inside; this process has but one thread.
        join(pidfd.as_fd(), Namespaces::USER).context("join the container's user namespace")?;
    }
    let io = if process.terminal().unwrap_or(false) { terminal::io(Some(&process)) } else { own_streams()? };
    let cgroup = record.cgroup.as_deref().map(Cgroup::open).transpose()?;
    let mut created = exec_with(
        Exec {
            target_pidfd: pidfd.as_fd(),
            target_pid: target.pid,
            process: &process,
            linux: record.spec.linux().as_ref(),
            io,
            cgroup: cgroup.as_ref(),
            parent: Parent::Caller,
        },
        options.preserve_fds,
    )?;
    let master = created.terminal.take();
    let socket = options.console_socket.as_deref();
    match (&master, socket) {
        (Some(master), Some(socket)) => terminal::send(master.as_fd(), socket)?,
        (Some(_), None) if options.detach => {
            bail!("cannot allocate tty if the process is detached without setting console socket")
        }
        _ => {}
    }
    let forward = terminal::Forward::prepare(!options.detach)?;
    let running = created.start()?;
    if let Some(file) = &options.pid_file {
        write_pid(file, running.pid)?;
    }
    if options.detach {
        return Ok(0);
    }
    forward.until_end(running.pid, running.pidfd.as_fd(), master.filter(|_| socket.is_none()))
}

fn has_user_namespace(record: &Record) -> bool {
    let list = record.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    list.into_iter().flatten().any(|entry| entry.typ() == oci_spec::runtime::LinuxNamespaceType::User)
}

/// The process to run: from the file, or the container's own with the options' changes.
fn process(record: &Record, options: &Options) -> anyhow::Result<Process> {
    if let Some(file) = &options.process {
        let mut process = bundle::read_process(file)?;
        if options.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if options.command.is_empty() {
        bail!("process args cannot be empty");
    }
    let mut process = record.spec.process().clone().unwrap_or_default();
    process.set_args(Some(options.command.clone())).set_terminal(Some(options.tty));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(user) = &options.user {
        process.set_user(parse_user(user)?);
    }
    if !options.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&options.additional_gids);
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    if options.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if options.process_label.is_some() {
        process.set_selinux_label(options.process_label.clone());
    }
    if options.apparmor.is_some() {
        process.set_apparmor_profile(options.apparmor.clone());
    }
    add_capabilities(&mut process, &options.cap)?;
    Ok(process)
}

fn parse_user(text: &str) -> anyhow::Result<User> {
    let number = |text: &str| text.parse::<u32>().with_context(|| format!("--user: {text:?} is no number"));
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(text)?, 0),
    };
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid);
    Ok(user)
}

fn add_capabilities(process: &mut Process, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let more: Vec<Capability> = names
        .iter()
        .map(|name| capability_from_name(name).with_context(|| format!("--cap: unknown capability {name:?}")))
        .collect::<anyhow::Result<_>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}
