//! The first process of a container.

use crate::cgroup::Cgroup;
use crate::created::{Created, launch};
use crate::devices;
use crate::error::Error;
use crate::io::Io;
use crate::mounts;
use crate::mounts::{c_string, directory, file};
use crate::namespaces;
use crate::process;
use crate::rootfs::{self, RootFs};
use crate::sysctl;
use oci_spec::runtime::Spec;
use skiff_linux_sys::child::{Console, Parent, Program, Spawn, Step};
use skiff_linux_sys::namespace::Namespaces;
use std::os::fd::{AsFd, BorrowedFd};
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

/// Creates a container: when this returns its first process is set up and waits just before `execve`.
///
/// # Errors
/// [`Error::Setup`] names the step that failed; nothing is left behind.
pub fn create(create: Create<'_>) -> Result<Created, Error> {
    let started = std::time::Instant::now();
    let spec = create.spec;
    let Some(process) = spec.process().as_ref() else {
        return Err(Error::Spec { what: "the spec has no process".into() });
    };
    let mut program = Program::new();
    let mut namespaces = namespaces::Plan::new(spec, create.netns)?;
    let pid = namespaces.pid.take();

    process::push_oom_score(process, &mut program);
    namespaces.push(&mut program)?;
    push_names(spec, &namespaces, &mut program)?;
    let root = rootfs::mount_rootfs(&create.rootfs)?;
    let root = program.keep(root).map_err(|source| Error::Clone { source })?;
    // Nothing that is mounted from here on may show on the host.
    program.push(Step::Propagation(libc::MS_PRIVATE), "making mounts private");
    program.push(
        Step::AttachRoot { mount: root, present: rootfs::present_root() },
        "mounting the root file system",
    );

    mounts::push(spec, &mut program)?;
    if !mounts::device_directory_is_bound(spec) {
        devices::push(spec, &mut program)?;
    }
    let console = match &create.io {
        Io::Terminal { .. } => Console::Mount { target: file(c"dev/console") },
        Io::Pipes(_) => Console::Leave,
    };
    process::push_terminal(&create.io, console, &mut program);
    sysctl::push(spec, &namespaces, &mut program)?;
    let cwd = c_string(process.cwd().as_os_str().as_bytes())?;
    if !process.cwd().is_absolute() {
        return Err(Error::Spec { what: format!("cwd \"{}\" is not absolute", process.cwd().display()) });
    }
    let label = format!("mkdir {}", process.cwd().display());
    program.push(Step::MakeDirectory(directory(&cwd)), label);
    push_protection(spec, &mut program)?;
    program.push(Step::PivotRoot, "changing the root");
    let command = process::push_tail(process, spec.linux().as_ref(), create.io, &mut program)?;
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
    let created = Created::wait(child, program, command, create.parent)?;
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
