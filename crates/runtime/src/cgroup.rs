//! One container's directory in a cgroup v2 hierarchy (Documentation/admin-guide/cgroup-v2.rst).

mod devices;
mod limits;

use crate::error::Error;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Controllers that every container gets; those that a machine lacks are left out. Each makes a cgroup cost more, so the rare
/// ones are only for those whose resources want them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// How long a killed cgroup may take to empty before removal gives up.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup v2 directory.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Whether `parent` lies in a cgroup v2 hierarchy: its processes can be paused, counted and ended together.
    pub fn available(parent: &Path) -> bool {
        controllers(parent).is_some()
    }

    /// Whether `parent` lies in a cgroup v2 hierarchy in which limits can be set.
    ///
    /// False on machines with cgroup v1 or a mixed hierarchy: containers then run without limits.
    pub fn limits(parent: &Path) -> bool {
        let controllers = controllers(parent).unwrap_or_default();
        let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
        has("memory") && has("pids")
    }

    /// Where this machine has its cgroup v2 hierarchy, with or without controllers.
    pub fn root() -> Option<PathBuf> {
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.join("cgroup.controllers").is_file())
            .map(Path::to_owned)
    }

    /// Makes the cgroup `id` below `parent`, with every controller that the machine has handed down to it.
    pub fn create(parent: &Path, id: &str) -> Result<Self, Error> {
        Self::create_for(parent, id, &LinuxResources::default())
    }

    /// As [`create`](Self::create), with the controllers that these resources need besides.
    pub fn create_for(parent: &Path, id: &str, resources: &LinuxResources) -> Result<Self, Error> {
        std::fs::create_dir_all(parent).map_err(|source| failed(parent, source))?;
        let mut ancestors: Vec<&Path> =
            parent.ancestors().take_while(|path| path.join("cgroup.controllers").is_file()).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            delegate(ancestor, &limits::rare_controllers(resources))?;
        }
        let path = parent.join(id);
        let mut made = std::fs::create_dir(&path);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Another engine has ended and taken the empty parent along.
            std::fs::create_dir_all(parent).map_err(|source| failed(parent, source))?;
            made = std::fs::create_dir(&path);
        }
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&path, error)),
            _ => {}
        }
        Self::open(&path)
    }

    /// Opens an existing cgroup.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(path, error.into()))?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets limits; what the resources leave out stays as it is.
    ///
    /// Device rules are not among them: see [`Cgroup::filter_devices`].
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), Error> {
        limits::check(resources)?;
        self.check_memory(resources)?;
        for (file, value) in limits::settings(resources) {
            match self.write(&file, &value) {
                // The machine has no swap, or lacks a controller: nothing to limit.
                Err(Error::Cgroup { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && limits::is_optional(&file) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Refuses a memory limit below what is in use, where the resources ask for that.
    fn check_memory(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0);
        let used = self.read("memory.current")?.trim().parse::<u64>().unwrap_or(0);
        match limit {
            Some(limit) if used > limit => Err(Error::Spec {
                what: format!("linux.resources.memory.limit: {limit} is below the current usage of {used}"),
            }),
            _ => Ok(()),
        }
    }

    /// Decides which devices its processes and those below it may use, in place of the rules given before.
    ///
    /// The devices of every container's `/dev` are allowed in any case, as in runc.
    ///
    /// # Errors
    /// [`Error::Spec`] names a rule that makes no sense.
    pub fn filter_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
        self.set_filter(rules, devices::ALWAYS.as_slice())
    }

    /// As [`filter_devices`](Self::filter_devices), with what these rules allow and nothing else.
    ///
    /// # Errors
    /// [`Error::Spec`] names a rule that makes no sense.
    pub fn restrict_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
        self.set_filter(rules, &[])
    }

    fn set_filter(&self, rules: &[LinuxDeviceCgroup], always: &[devices::Rule]) -> Result<(), Error> {
        let filter = devices::compile(rules, always).map_err(|what| Error::Spec { what })?;
        skiff_linux_sys::bpf::set_device_filter(self.directory.as_fd(), &filter)
            .map_err(|source| failed(&self.path.join("(device filter)"), source))
    }

    /// Whether its processes are stopped.
    pub fn frozen(&self) -> Result<bool, Error> {
        Ok(self.field("cgroup.events", "frozen")? == Some(1))
    }

    /// The ids of its processes and of those in cgroups below it.
    pub fn procs_below(&self) -> Result<Vec<i32>, Error> {
        let mut all = self.procs()?;
        let entries = std::fs::read_dir(&self.path).map_err(|source| failed(&self.path, source))?;
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            // It may be removed meanwhile, by whoever is in there.
            if let Ok(inner) = Self::open(&entry.path()) {
                all.extend(inner.procs_below()?);
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Kills every process in it and below it.
    pub fn kill(&self) -> Result<(), Error> {
        self.write("cgroup.kill", "1")
    }

    /// Stops all its processes, or lets them go on, and waits until it has happened.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let wanted = if frozen { 1 } else { 0 };
        while self.field("cgroup.events", "frozen")? != Some(wanted) {
            if Instant::now() > deadline {
                return Err(failed(&self.path.join("cgroup.freeze"), io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The ids of its processes, in the caller's pid namespace.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        Ok(self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Whether the kernel has killed a process of it because its memory limit was reached.
    pub fn oom_killed(&self) -> Result<bool, Error> {
        Ok(self.field("memory.events", "oom_kill")?.unwrap_or(0) > 0)
    }

    /// Removes the directory and those below it, after killing what is left in them. Gone already is fine.
    pub fn remove(&self) -> Result<(), Error> {
        if !self.path.exists() {
            return Ok(());
        }
        self.kill()?;
        let deadline = Instant::now() + REMOVE_PATIENCE;
        loop {
            match remove_tree(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other.map_err(|source| failed(&self.path, source)),
            }
        }
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.path.join(file);
        std::fs::read_to_string(&path).map_err(|source| failed(&path, source))
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        write_existing(&path, value).map_err(|source| failed(&path, source))
    }

    fn field(&self, file: &str, name: &str) -> Result<Option<u64>, Error> {
        let text = match self.read(file) {
            Err(Error::Cgroup { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(field(&text, name))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// What the hierarchy that `parent` lies in can limit; `None` when it is no cgroup v2.
fn controllers(parent: &Path) -> Option<String> {
    // The directory itself may not exist yet; its nearest ancestor decides.
    let existing = parent.ancestors().find(|path| path.is_dir())?;
    std::fs::read_to_string(existing.join("cgroup.controllers")).ok()
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Cgroup { path: path.to_owned(), source }
}

/// A value of a file of "name value" lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Hands the controllers of a directory down to its children.
fn delegate(path: &Path, rare: &[&str]) -> Result<(), Error> {
    let read = |file: &str| {
        let path = path.join(file);
        std::fs::read_to_string(&path).map_err(|source| failed(&path, source))
    };
    let (has, handed) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let has: Vec<&str> = has.split_whitespace().collect();
    let handed: Vec<&str> = handed.split_whitespace().collect();
    for &name in CONTROLLERS.iter().chain(rare) {
        if has.contains(&name) && !handed.contains(&name) {
            let file = path.join("cgroup.subtree_control");
            write_existing(&file, &format!("+{name}")).map_err(|source| failed(&file, source))?;
        }
    }
    Ok(())
}

/// Removes a cgroup and its children; cgroup directories are never removed by unlinking their files.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "kill"), None);
    }

    #[test]
    fn a_directory_outside_of_cgroup_v2_is_not_available() {
        let parent = Path::new("/tmp/skiff/containers");
        assert!(!Cgroup::available(parent) && !Cgroup::limits(parent));
    }
}
