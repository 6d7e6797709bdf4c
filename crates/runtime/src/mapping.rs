//! User and group id mappings of user namespaces (user_namespaces(7)).

use crate::error::Error;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use skiff_linux_sys::child::{Groups, Parent, Program, Spawn, Step};
use skiff_linux_sys::namespace::Namespaces;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;

/// How ids of a user namespace are those of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    users: Vec<LinuxIdMapping>,
    groups: Vec<LinuxIdMapping>,
}

/// The most lines that the kernel takes.
const MOST_LINES: usize = 340;

impl Mapping {
    /// The spec's, for a container with a user namespace of its own.
    pub fn of(spec: &Spec) -> Result<Self, Error> {
        let linux = spec.linux().as_ref();
        let list = |list: Option<&Vec<LinuxIdMapping>>| list.cloned().unwrap_or_default();
        let users = list(linux.and_then(|linux| linux.uid_mappings().as_ref()));
        let groups = list(linux.and_then(|linux| linux.gid_mappings().as_ref()));
        Self::new(users, groups, "linux.")
    }

    /// Checks mappings; `place` names them in errors.
    pub fn new(users: Vec<LinuxIdMapping>, groups: Vec<LinuxIdMapping>, place: &str) -> Result<Self, Error> {
        for (name, list) in [("uidMappings", &users), ("gidMappings", &groups)] {
            if list.is_empty() {
                return Err(Error::Spec {
                    what: format!("{place}{name}: a user namespace needs at least one"),
                });
            }
            if list.len() > MOST_LINES {
                return Err(Error::Spec { what: format!("{place}{name}: more than {MOST_LINES} entries") });
            }
            if list.iter().any(|entry| entry.size() == 0) {
                return Err(Error::Spec { what: format!("{place}{name}: an entry has size 0") });
            }
        }
        Ok(Self { users, groups })
    }

    /// What happens to supplementary groups: without privilege they stay what they are.
    pub fn groups(&self, wanted: &[u32]) -> Result<Groups, Error> {
        if self.may_set_groups() {
            return Ok(Groups::Set(wanted.to_vec()));
        }
        if wanted.is_empty() {
            return Ok(Groups::Keep);
        }
        Err(Error::Spec {
            what: "process.user.additionalGids cannot be set in a user namespace made without privilege"
                .into(),
        })
    }

    /// Whether the mapping is one that only a privileged writer, or the set-uid helpers, may write.
    fn may_set_groups(&self) -> bool {
        is_privileged() || !self.is_own_ids_alone()
    }

    fn is_own_ids_alone(&self) -> bool {
        let one = |list: &[LinuxIdMapping], own: u32| matches!(list, [only] if only.size() == 1 && only.host_id() == own);
        one(&self.users, rustix::process::geteuid().as_raw())
            && one(&self.groups, rustix::process::getegid().as_raw())
    }

    /// Gives the user namespace of process `pid` its mapping.
    pub fn write(&self, pid: i32) -> Result<(), Error> {
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, text).map_err(|source| Error::Mapping { what: path, source })
        };
        if is_privileged() {
            write("gid_map", &lines(&self.groups))?;
            return write("uid_map", &lines(&self.users));
        }
        if self.is_own_ids_alone() {
            write("setgroups", "deny")?;
            write("gid_map", &lines(&self.groups))?;
            return write("uid_map", &lines(&self.users));
        }
        helper("newgidmap", pid, &self.groups)?;
        helper("newuidmap", pid, &self.users)
    }

    /// A user namespace with this mapping, for mounts whose ids are to be shown through it.
    pub fn namespace(&self) -> Result<OwnedFd, Error> {
        let clone = |source| Error::Clone { source };
        let mut program = Program::new();
        program.push(Step::Ready, "waiting");
        let execute =
            Step::Execute { candidates: Vec::new(), arguments: Vec::new(), environment: Vec::new() };
        program.push(execute, "never");
        let spawn = Spawn {
            program: &program,
            new: Namespaces::USER,
            pid_namespace: None,
            cgroup: None,
            parent: Parent::Caller,
        };
        let mut child = spawn.spawn().map_err(clone)?;
        let made = (|| {
            child.ready().map_err(|_| Error::Died)?;
            self.write(child.pid())?;
            let path = format!("/proc/{}/ns/user", child.pid());
            let file = std::fs::File::open(&path).map_err(|source| Error::Mapping { what: path, source })?;
            Ok(OwnedFd::from(file))
        })();
        // The end of the channel ends it; the namespace lives on with its descriptor.
        let pidfd = child.into_pidfd();
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        made
    }
}

/// Whether this process may write any mapping of ids that it has, and mount: root, if only in a user namespace.
pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process is root of the whole machine, not of a user namespace that somebody (rootless podman) has made.
pub fn owns_machine() -> bool {
    is_privileged() && std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| covers_all(&map))
}

/// Whether a `uid_map` is the machine's own: every id there is, each as itself.
fn covers_all(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn lines(list: &[LinuxIdMapping]) -> String {
    list.iter()
        .map(|entry| format!("{} {} {}\n", entry.container_id(), entry.host_id(), entry.size()))
        .collect()
}

/// Asks the set-uid program that knows the user's subordinate ids (subuid(5)).
fn helper(program: &str, pid: i32, list: &[LinuxIdMapping]) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for entry in list {
        command.args([entry.container_id(), entry.host_id(), entry.size()].map(|number| number.to_string()));
    }
    let failed = |source| Error::Mapping { what: program.to_owned(), source };
    let output = command.output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(io::Error::other(format!("{}: {words}", output.status))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    fn entry(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn the_machines_own_mapping_is_known() {
        assert!(covers_all("         0          0 4294967295\n"));
        assert!(!covers_all("         0       1000          1\n         1     100000      65536\n"));
        assert!(!covers_all("         0          0          1\n"));
    }

    #[test]
    fn mappings_are_written_in_the_kernels_order() {
        assert_eq!(lines(&[entry(0, 1000, 1), entry(1, 100_000, 65536)]), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn a_mapping_that_is_empty_or_covers_nothing_is_refused_by_name() {
        let text = |users, groups| Mapping::new(users, groups, "linux.").unwrap_err().to_string();
        assert!(text(vec![], vec![entry(0, 0, 1)]).contains("linux.uidMappings"));
        assert!(text(vec![entry(0, 0, 1)], vec![entry(0, 0, 0)]).contains("linux.gidMappings"));
    }
}
