//! Which namespaces are made and which are joined.

use crate::error::Error;
use crate::mounts::c_string;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use skiff_linux_sys::child::{Groups, Program, Step};
use skiff_linux_sys::namespace::Namespaces;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// The namespaces of one container.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Made by the clone.
    pub new: Namespaces,
    /// Made by the child once it is where it belongs: the cgroup namespace when it is in its cgroup, the time namespace
    /// because its clocks can be set only while nothing runs in it.
    later: Namespaces,
    /// What the clocks of a new time namespace are ahead of the host's, as `timens_offsets` takes it (proc(5)).
    offsets: Vec<u8>,
    /// The user namespace that the child joins before it makes others: they belong to that.
    user: Option<OwnedFd>,
    /// Joined by the child, in order.
    joined: Vec<(Namespaces, OwnedFd)>,
    /// Everything that is not the host's.
    own: Namespaces,
    /// The pid namespace that the child is born in.
    pub pid: Option<OwnedFd>,
}

impl Plan {
    /// Reads the spec's list; a network namespace given as a descriptor takes the place of the list's entry.
    pub fn new(spec: &Spec, netns: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let mut plan = Self::default();
        let linux = spec.linux().as_ref();
        let list = linux.and_then(|linux| linux.namespaces().as_ref());
        let mut seen = Namespaces::NONE;
        for entry in list.into_iter().flatten() {
            let (kind, file) = match entry.typ() {
                LinuxNamespaceType::Mount => (Namespaces::MOUNT, "mnt"),
                LinuxNamespaceType::Cgroup => (Namespaces::CGROUP, "cgroup"),
                LinuxNamespaceType::Uts => (Namespaces::UTS, "uts"),
                LinuxNamespaceType::Ipc => (Namespaces::IPC, "ipc"),
                LinuxNamespaceType::Pid => (Namespaces::PID, "pid"),
                LinuxNamespaceType::User => (Namespaces::USER, "user"),
                LinuxNamespaceType::Time => (Namespaces::TIME, "time"),
                LinuxNamespaceType::Network if netns.is_some() => continue,
                LinuxNamespaceType::Network => (Namespaces::NETWORK, "net"),
            };
            if seen.contains(kind) {
                return Err(Error::Spec { what: format!("linux.namespaces lists {} twice", entry.typ()) });
            }
            seen = seen | kind;
            let Some(path) = entry.path() else {
                plan.own = plan.own | kind;
                if kind == Namespaces::CGROUP || kind == Namespaces::TIME {
                    plan.later = plan.later | kind;
                } else {
                    plan.new = plan.new | kind;
                }
                continue;
            };
            if kind == Namespaces::MOUNT {
                let what = "linux.namespaces: joining a mount namespace is refused";
                return Err(Error::Spec { what: what.into() });
            }
            let fd = open(path)?;
            if is_own(&fd, file)? {
                // The host's by another name; joining it is no error, but nothing of it may be changed.
                continue;
            }
            plan.own = plan.own | kind;
            match kind {
                Namespaces::PID => plan.pid = Some(fd),
                Namespaces::USER => plan.user = Some(fd),
                kind => plan.joined.push((kind, fd)),
            }
        }
        if !plan.new.contains(Namespaces::MOUNT) {
            return Err(Error::Spec { what: "a container needs a mount namespace of its own".into() });
        }
        if plan.new.contains(Namespaces::USER) && plan.pid.is_some() {
            let what =
                "linux.namespaces: a pid namespace cannot be joined with a user namespace of one's own";
            return Err(Error::Spec { what: what.into() });
        }
        if let Some(netns) = netns {
            let netns = netns.try_clone_to_owned();
            let netns = netns
                .map_err(|source| Error::Namespace { what: "the network namespace given".into(), source })?;
            plan.own = plan.own | Namespaces::NETWORK;
            plan.joined.push((Namespaces::NETWORK, netns));
        }
        plan.offsets = offsets(spec)?;
        if !plan.offsets.is_empty() && !plan.later.contains(Namespaces::TIME) {
            let what = "linux.timeOffsets need a time namespace of the container's own";
            return Err(Error::Spec { what: what.into() });
        }
        Ok(plan)
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    pub fn separate(&self, kind: Namespaces) -> bool {
        self.own.contains(kind)
    }

    /// Whether it joins another's user namespace.
    pub fn joins_user(&self) -> bool {
        self.user.is_some()
    }

    /// Whether it has a user namespace of its own.
    pub fn new_user(&self) -> bool {
        self.new.contains(Namespaces::USER)
    }

    /// Adds the steps that enter the namespaces.
    pub fn push(&mut self, program: &mut Program) -> Result<(), Error> {
        if let Some(fd) = self.user.take() {
            let fd = program.keep(fd).map_err(|source| Error::Clone { source })?;
            program.push(Step::Join { fd, kinds: Namespaces::USER }, "joining the user namespace");
            // Not by BecomeRoot: others in there must not be able to look into it.
            let root = Step::User { uid: 0, gid: 0, groups: Groups::Keep };
            program.push(root, "becoming root of the user namespace");
            let new = std::mem::take(&mut self.new);
            program.push(Step::Respawn(new), "making namespaces");
        }
        for (kinds, fd) in self.joined.drain(..) {
            let fd = program.keep(fd).map_err(|source| Error::Clone { source })?;
            program.push(Step::Join { fd, kinds }, "joining a namespace");
        }
        if self.later.contains(Namespaces::CGROUP) {
            program.push(Step::Leave(Namespaces::CGROUP), "making a cgroup namespace");
        }
        if self.later.contains(Namespaces::TIME) {
            program.push(Step::Leave(Namespaces::TIME), "making a time namespace");
            if !self.offsets.is_empty() {
                let path = c_string("/proc/self/timens_offsets")?;
                program.push(
                    Step::WriteOwn { path, data: std::mem::take(&mut self.offsets) },
                    "setting the clocks",
                );
            }
        }
        Ok(())
    }
}

fn offsets(spec: &Spec) -> Result<Vec<u8>, Error> {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let mut lines: Vec<String> = Vec::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            let what = format!("linux.timeOffsets: \"{clock}\" is neither \"monotonic\" nor \"boottime\"");
            return Err(Error::Spec { what });
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        lines.push(format!("{clock} {seconds} {nanoseconds}\n"));
    }
    lines.sort();
    Ok(lines.concat().into_bytes())
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::Namespace { what: path.display().to_string(), source: error.into() })
}

/// Whether `fd` is the namespace that this process is in.
fn is_own(fd: &OwnedFd, file: &str) -> Result<bool, Error> {
    let path = format!("/proc/self/ns/{file}");
    let failed = |error: rustix::io::Errno| Error::Namespace { what: path.clone(), source: error.into() };
    let own = rustix::fs::stat(&path).map_err(failed)?;
    let other = rustix::fs::fstat(fd).map_err(failed)?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}
