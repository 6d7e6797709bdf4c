//! The first process of a container.

use crate::cgroup::Cgroup;
use crate::created::{Created, Pending, launch};
use crate::devices;
use crate::error::Error;
use crate::hooks;
use crate::io::Io;
use crate::label;
use crate::mapping::{Mapping, is_privileged};
use crate::mounts;
use crate::mounts::{c_string, directory};
use crate::namespaces;
use crate::process::{self, Tail};
use crate::rootfs::{self, RootFs};
use crate::sysctl;
use oci_spec::runtime::{Hook, Spec};
use rustix::fs::{Mode, OFlags};
use skiff_linux_sys::child::{Console, Groups, Kind, Links, Parent, Program, Spawn, Step, Target, Tree};
use skiff_linux_sys::mount::{MountAttr, Scope, set_attributes};
use skiff_linux_sys::namespace::Namespaces;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// What [`create`] needs to know.
#[derive(Debug)]
pub struct Create<'a> {
    /// The container's id, for messages.
    pub id: &'a str,
    /// The OCI runtime spec. Its `root.path` is not used.
    pub spec: &'a Spec,
    /// The root file system.
    pub rootfs: RootFs,
    /// The streams of its first process.
    pub io: Io,
    /// The cgroup it is born in.
    pub cgroup: Option<&'a Cgroup>,
    /// The network namespace it joins, in place of the one that the spec lists.
    pub netns: Option<BorrowedFd<'a>>,
    /// Who reaps its first process.
    pub parent: Parent,
}

/// Makes a container's state as JSON of its first process's id and its status.
pub type DescribeState<'a> = dyn Fn(i32, &str) -> Vec<u8> + 'a;

/// What a creator adds that is no engine.
#[derive(Default)]
pub struct More<'a> {
    /// Makes the container's state (runtime-spec, runtime.md, "State") as JSON, of the first process's id and the
    /// status: what hooks and a seccomp agent are given. Without it they get an empty object.
    pub state: Option<&'a DescribeState<'a>>,
    /// A listening socket on which the process waits for [`start_detached`](crate::start_detached) once its creator has
    /// [detached](Created::detach) it.
    pub accept: Option<OwnedFd>,
    /// How many descriptors from 3 on the command inherits; all must be open.
    pub inherited: u32,
}

/// Creates a container: when this returns its first process is set up and waits just before `execve`.
///
/// # Errors
/// [`Error::Setup`] names the step that failed; nothing is left behind.
pub fn create(create: Create<'_>) -> Result<Created, Error> {
    create_with(create, More::default())
}

/// As [`create`], with more.
///
/// # Errors
/// As [`create`]; [`Error::Hook`] when a `prestart` or `createRuntime` hook fails.
pub fn create_with(create: Create<'_>, more: More<'_>) -> Result<Created, Error> {
    let started = std::time::Instant::now();
    let spec = create.spec;
    let Some(process) = spec.process().as_ref() else {
        return Err(Error::Spec { what: "the spec has no process".into() });
    };
    check(spec)?;
    let mut program = Program::new();
    program.leave_inherited(more.inherited);
    let mut namespaces = namespaces::Plan::new(spec, create.netns)?;
    let pid = namespaces.pid.take();
    let mapping = namespaces.new_user().then(|| Mapping::of(spec)).transpose()?;
    let hooks = Pauses::new(spec, &mut program)?;

    label::push_open(process, &mut program)?;
    match &mapping {
        None => process::push_oom_score(process, &mut program),
        Some(mapping) => {
            program.push(Step::Ready, "waiting for the mapping of ids");
            program.push(Step::BecomeRoot(mapping.groups(&[])?), "becoming root of the user namespace");
        }
    }
    let joins_user = namespaces.joins_user();
    namespaces.push(&mut program)?;
    push_names(spec, &namespaces, &mut program)?;
    // Nothing that is mounted from here on may show on the host.
    program.push(Step::Propagation(libc::MS_PRIVATE), "making mounts private");
    let (mount, root) = root_tree(&create.rootfs, spec, &mut program)?;
    program
        .push(Step::AttachRoot { mount, present: rootfs::present_root() }, "mounting the root file system");
    mounts::push(spec, root.as_ref().map(AsFd::as_fd), &mut program)?;
    drop(root);
    if !mounts::device_directory_is_bound(spec) {
        devices::push(spec, &mut program)?;
    }
    let console = match &create.io {
        // A link there would have the terminal cover another file (CVE-2025-52565).
        Io::Terminal { .. } => Console::Mount {
            target: Target { path: c"dev/console".to_owned(), kind: Kind::File, links: Links::Refuse },
        },
        Io::Pipes(_) => Console::Leave,
    };
    process::push_terminal(&create.io, console, &mut program);
    let cwd = c_string(process.cwd().as_os_str().as_bytes())?;
    if !process.cwd().is_absolute() {
        return Err(Error::Spec { what: format!("cwd \"{}\" is not absolute", process.cwd().display()) });
    }
    let label = format!("mkdir {}", process.cwd().display());
    program.push(Step::MakeDirectory(directory(&cwd)), label);
    hooks.push(&mut program)?;
    sysctl::push(spec, &namespaces, &mut program)?;
    push_protection(spec, &mut program)?;
    program.push(Step::PivotRoot, "changing the root");
    if let Some(flags) = rootfs::propagation(spec)? {
        program.push(Step::RootPropagation(flags), "setting the propagation of the root");
    }
    let wanted = process.user().additional_gids().clone().unwrap_or_default();
    let groups = match &mapping {
        Some(mapping) => mapping.groups(&wanted)?,
        None => Groups::Set(wanted),
    };
    let tail = Tail {
        process,
        linux: spec.linux().as_ref(),
        io: create.io,
        groups,
        limits: !joins_user && (mapping.is_none() || !is_privileged()),
        accept: more.accept,
        hooks: hooks.start(),
    };
    let command = process::push_tail(tail, &mut program)?;
    let planned = started.elapsed();
    let spawn = Spawn {
        program: &program,
        new: namespaces.new,
        pid_namespace: pid.as_ref().map(AsFd::as_fd),
        cgroup: create.cgroup.map(AsFd::as_fd),
        parent: create.parent,
    };
    let (child, command) = launch(spawn, command)?;
    let cloned = started.elapsed();
    let mut pending = Pending::new(child, program, command, create.parent);
    let state =
        |pid: i32, status: &str| more.state.map_or_else(|| b"{}".to_vec(), |state| state(pid, status));
    if let Some(mapping) = &mapping {
        pending.reach()?;
        mapping.write(pending.pid())?;
        process::adjust_from_outside(process, pending.pid())?;
        pending.resume()?;
    }
    if hooks.any() {
        pending.reach()?;
        hooks.run(pending.pid(), &state)?;
        pending.resume()?;
    }
    let mut created = pending.finish()?;
    if joins_user {
        process::limit_from_outside(process, created.pid)?;
    }
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    if let (Some(listener), Some(profile)) = (created.listener.take(), profile) {
        crate::seccomp::hand_over(profile, &listener, created.pid, &state(created.pid, "creating"))?;
    }
    tracing::debug!(
        container = create.id,
        pid = created.pid,
        planned_us = planned.as_micros() as u64,
        cloned_us = cloned.as_micros() as u64,
        ready_us = started.elapsed().as_micros() as u64,
        "container process created"
    );
    Ok(created)
}

/// What the spec may ask for and no kernel or no runtime of containers gives.
fn check(spec: &Spec) -> Result<(), Error> {
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks)?;
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    let refuse = |what: &str| Err(Error::Spec { what: what.to_owned() });
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt is not supported");
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return refuse("linux.netDevices is not supported");
    }
    if linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) && !label::selinux_enabled() {
        return refuse("linux.mountLabel: SELinux is not enabled on the host");
    }
    Ok(())
}

/// The root file system as a detached mount: made here where that is allowed, else by the child in its own namespace.
/// The second is a descriptor of its directory, for whoever looks into it before.
fn root_tree(rootfs: &RootFs, spec: &Spec, program: &mut Program) -> Result<(Tree, Option<OwnedFd>), Error> {
    if let RootFs::Dir(path) = rootfs
        && !is_privileged()
    {
        let path = c_string(path.as_os_str().as_bytes())?;
        return Ok((Tree::Host { path, scope: Scope::Tree }, None));
    }
    let failed = |source: std::io::Error| Error::RootFs { what: "detached mount".into(), source };
    let root = rootfs::mount_rootfs(rootfs)?;
    if let RootFs::Dir(_) = rootfs {
        // The clone of a shared mount is its peer: what is mounted in one shows in the other.
        let follows =
            rootfs::propagation(spec)?.is_some_and(|flags| flags & (libc::MS_SLAVE | libc::MS_SHARED) != 0);
        let propagation = if follows { libc::MS_SLAVE } else { libc::MS_PRIVATE };
        set_attributes(root.as_fd(), Scope::Tree, &MountAttr::new(0, 0, propagation)).map_err(failed)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let view = rustix::fs::openat(&root, c".", flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let root = program.keep(root).map_err(|source| Error::Clone { source })?;
    Ok((Tree::Kept(root), Some(view)))
}

/// The points at which hooks run before the command, and the files that they read.
struct Pauses<'a> {
    spec: &'a Spec,
    /// What hooks that the child runs read: while it is being created, and when it is started.
    files: Option<[(std::fs::File, skiff_linux_sys::child::FdRef); 2]>,
}

impl<'a> Pauses<'a> {
    fn new(spec: &'a Spec, program: &mut Program) -> Result<Self, Error> {
        let mut pauses = Self { spec, files: None };
        if !pauses.any() {
            return Ok(pauses);
        }
        let mut file = || -> Result<_, Error> {
            let failed = |source| Error::Channel { source };
            let ours = hooks::memory(b"").map_err(failed)?;
            let theirs = program.keep(ours.try_clone().map_err(failed)?).map_err(failed)?;
            Ok((std::fs::File::from(ours), theirs))
        };
        pauses.files = Some([file()?, file()?]);
        Ok(pauses)
    }

    fn list(&self, pick: fn(&oci_spec::runtime::Hooks) -> Option<&Vec<Hook>>) -> Option<&'a Vec<Hook>> {
        self.spec.hooks().as_ref().and_then(pick).filter(|list| !list.is_empty())
    }

    fn any(&self) -> bool {
        self.list(hooks::deprecated).is_some()
            || self.list(|hooks| hooks.create_runtime().as_ref()).is_some()
            || self.list(|hooks| hooks.create_container().as_ref()).is_some()
            || self.list(|hooks| hooks.start_container().as_ref()).is_some()
    }

    /// Adds the pause for hooks outside of the container and the steps for those inside.
    fn push(&self, program: &mut Program) -> Result<(), Error> {
        let Some([(_, creating), _]) = &self.files else { return Ok(()) };
        program.push(Step::Ready, "waiting for hooks");
        let list = self.list(|hooks| hooks.create_container().as_ref());
        hooks::push("createContainer", list, *creating, program)
    }

    /// Those that run when the container is started.
    fn start(&self) -> Option<(&'a Vec<Hook>, skiff_linux_sys::child::FdRef)> {
        let [_, (_, created)] = self.files.as_ref()?;
        self.list(|hooks| hooks.start_container().as_ref()).map(|list| (list, *created))
    }

    fn run(&self, pid: i32, state: &DescribeState<'_>) -> Result<(), Error> {
        use std::io::Write as _;
        let creating = state(pid, "creating");
        if let Some([(first, _), (second, _)]) = &self.files {
            let failed = |source| Error::Channel { source };
            (&mut &*first).write_all(&creating).map_err(failed)?;
            (&mut &*second).write_all(&state(pid, "created")).map_err(failed)?;
        }
        hooks::run_hooks("prestart", self.list(hooks::deprecated), &creating)?;
        hooks::run_hooks("createRuntime", self.list(|hooks| hooks.create_runtime().as_ref()), &creating)
    }
}

fn push_names(spec: &Spec, namespaces: &namespaces::Plan, program: &mut Program) -> Result<(), Error> {
    let own = namespaces.separate(Namespaces::UTS);
    for (name, what) in [(spec.hostname(), "hostname"), (spec.domainname(), "domainname")] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !own {
            return Err(Error::Spec {
                what: format!("unable to set {what} without a private UTS namespace"),
            });
        }
        let name = c_string(name.as_str())?;
        let step = if what == "hostname" { Step::HostName(name) } else { Step::DomainName(name) };
        program.push(step, format!("setting the {what}"));
    }
    Ok(())
}

/// Adds the steps that hide or protect parts of the finished tree.
fn push_protection(spec: &Spec, program: &mut Program) -> Result<(), Error> {
    if let Some(linux) = spec.linux() {
        for path in linux.readonly_paths().iter().flatten() {
            program.push(Step::ReadOnly(c_string(path.as_str())?), format!("making {path} read-only"));
        }
        for path in linux.masked_paths().iter().flatten() {
            program.push(Step::Mask(c_string(path.as_str())?), format!("masking {path}"));
        }
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        program.push(Step::ReadOnlyRoot, "making the root file system read-only");
    }
    Ok(())
}
