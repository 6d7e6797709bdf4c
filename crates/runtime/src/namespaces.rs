//! Which namespaces are made and which are joined.

use crate::error::Error;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use skiff_linux_sys::child::{Program, Step};
use skiff_linux_sys::namespace::Namespaces;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// The namespaces of one container.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Made by the clone.
    pub new: Namespaces,
    /// The cgroup namespace must be made after the child is in its cgroup.
    pub new_cgroup: bool,
    /// Joined by the child, in order.
    pub joined: Vec<(Namespaces, OwnedFd)>,
    /// Everything that is not the host's.
    own: Namespaces,
    /// The pid namespace that the child is born in.
    pub pid: Option<OwnedFd>,
}

impl Plan {
    /// Reads the spec's list; a network namespace given as a descriptor takes the place of the list's entry.
    pub fn new(spec: &Spec, netns: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let mut plan = Self::default();
        let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        for entry in list.into_iter().flatten() {
            let kind = match entry.typ() {
                LinuxNamespaceType::Mount => Namespaces::MOUNT,
                LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
                LinuxNamespaceType::Uts => Namespaces::UTS,
                LinuxNamespaceType::Ipc => Namespaces::IPC,
                LinuxNamespaceType::Pid => Namespaces::PID,
                LinuxNamespaceType::Network if netns.is_some() => continue,
                LinuxNamespaceType::Network => Namespaces::NETWORK,
                other => return Err(Error::Spec { what: format!("{other} namespaces are not supported") }),
            };
            plan.own = plan.own | kind;
            match entry.path() {
                None if kind == Namespaces::CGROUP => plan.new_cgroup = true,
                None => plan.new = plan.new | kind,
                Some(_) if kind == Namespaces::MOUNT => {
                    return Err(Error::Spec { what: "joining a mount namespace is not supported".into() });
                }
                Some(path) if kind == Namespaces::PID => plan.pid = Some(open(path)?),
                Some(path) => plan.joined.push((kind, open(path)?)),
            }
        }
        if !plan.new.contains(Namespaces::MOUNT) {
            return Err(Error::Spec { what: "a container needs a mount namespace of its own".into() });
        }
        if let Some(netns) = netns {
            let netns = netns.try_clone_to_owned();
            let netns = netns
                .map_err(|source| Error::Namespace { what: "the network namespace given".into(), source })?;
            plan.own = plan.own | Namespaces::NETWORK;
            plan.joined.push((Namespaces::NETWORK, netns));
        }
        Ok(plan)
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    pub fn separate(&self, kind: Namespaces) -> bool {
        self.own.contains(kind)
    }

    /// Adds the steps that enter the namespaces.
    pub fn push(&mut self, program: &mut Program) -> Result<(), Error> {
        for (kinds, fd) in self.joined.drain(..) {
            let fd = program.keep(fd).map_err(|source| Error::Clone { source })?;
            program.push(Step::Join { fd, kinds }, "joining a namespace");
        }
        if self.new_cgroup {
            program.push(Step::Leave(Namespaces::CGROUP), "making a cgroup namespace");
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::Namespace { what: path.display().to_string(), source: error.into() })
}
