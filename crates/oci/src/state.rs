//! What is known of each container, in files.
//!
//! ```text
//!  ROOT/ID/             made first, removed last; its flock makes one command wait for another
//!    state.json         written whole and renamed
//!    start.sock         the first process listens on it until it is started
//!
//!  creating ──► created ──► running ◄──► paused        state.json says what is durable: bundle, cgroup, process;
//!      │           │           │                       the rest is asked of the kernel, so that nothing can be stale
//!      └───────────┴───────────┴──────► stopped
//! ```
//!
//! The cgroup is recorded before it is made and the process before it may outlive its creator: whatever kills a command at
//! any instruction, `delete --force` finds everything there is.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use skiff_runtime::{Cgroup, Later};

const STATE: &str = "state.json";
const SOCKET: &str = "start.sock";
/// As in runc.
const LONGEST_ID: usize = 1024;

/// The directory with all containers.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// What is recorded of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// The directory it was made from.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The spec as it was then: what becomes of the bundle's does not matter.
    pub spec: oci_spec::runtime::Spec,
    /// Its cgroup directory; without one, processes are found by their namespace.
    pub cgroup: Option<PathBuf>,
    /// The directory above it that was there before; those between are removed with it when they are empty.
    pub cgroup_base: Option<PathBuf>,
    /// Its first process, once there is one.
    pub process: Option<Process>,
    /// The user id of whoever made it.
    pub owner: u32,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it began, in ticks since boot (proc_pid_stat(5), field 22).
    pub began: u64,
    /// What errors of its start mean.
    pub later: Later,
}

/// Where a container is in its life (runtime-spec, runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made by another command.
    Creating,
    /// Waits to be started.
    Created,
    /// Runs its command.
    Running,
    /// All its processes are stopped.
    Paused,
    /// Has ended, or never came to be.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A container's directory, open.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    directory: OwnedFd,
}

impl Store {
    /// Opens the store; the directory is made with the first container.
    pub fn open(root: Option<PathBuf>) -> anyhow::Result<Self> {
        let owner = skiff_runtime::owns_machine();
        let is_root = rustix::process::geteuid().is_root();
        let root = match (root, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => std::path::absolute(root)?,
            (None, Some(run)) if !owner => PathBuf::from(run).join("skiff-oci"),
            (None, None) if !is_root => {
                bail!("XDG_RUNTIME_DIR is not set: give the state's place by --root")
            }
            (None, _) => PathBuf::from("/run/skiff-oci"),
        };
        Ok(Self { root })
    }

    /// Makes the directory of a new container.
    pub fn make(&self, id: &str) -> anyhow::Result<Entry> {
        check_id(id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("create {}", self.root.display()))?;
        let path = self.root.join(id);
        match DirBuilder::new().mode(0o711).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("container with given ID already exists: {id}")
            }
            other => other.with_context(|| format!("create {}", path.display()))?,
        }
        let entry = Entry::open(path)?;
        entry.lock()?;
        Ok(entry)
    }

    /// Finds a container.
    pub fn find(&self, id: &str) -> anyhow::Result<Entry> {
        self.look_for(id)?.with_context(|| format!("container does not exist: {id}"))
    }

    /// Finds a container that may not be there.
    pub fn look_for(&self, id: &str) -> anyhow::Result<Option<Entry>> {
        check_id(id)?;
        let path = self.root.join(id);
        if path.is_dir() { Entry::open(path).map(Some) } else { Ok(None) }
    }

    /// All containers, by name.
    pub fn all(&self) -> anyhow::Result<Vec<Entry>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("read {}", self.root.display()))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry?.path());
        }
        paths.sort();
        // One may be deleted while the others are read.
        Ok(paths.into_iter().filter_map(|path| Entry::open(path).ok()).collect())
    }
}

fn check_id(id: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > LONGEST_ID || id == "." || id == ".." || !id.chars().all(plain) {
        bail!("invalid container ID format: {id:?} (letters, digits and \"_+-.\" are allowed)");
    }
    Ok(())
}

impl Entry {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let directory = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { path, directory: directory.into() })
    }

    /// Waits until no other command works on the container. The lock goes with this process, however it ends.
    pub fn lock(&self) -> anyhow::Result<()> {
        rustix::fs::flock(&self.directory, FlockOperation::LockExclusive)
            .with_context(|| format!("lock {}", self.path.display()))
    }

    fn is_locked(&self) -> bool {
        // By a descriptor of its own: this command may hold the lock itself.
        let other = File::open(&self.path);
        other.is_ok_and(|other| rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// The record; `None` when the container's creator was killed before it wrote one.
    pub fn try_read(&self) -> anyhow::Result<Option<Record>> {
        let path = self.path.join(STATE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("parse {}", path.display()))
    }

    /// The record.
    pub fn read(&self) -> anyhow::Result<Record> {
        self.try_read()?.with_context(|| format!("container is only half made: {}", self.name()))
    }

    /// The container's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Replaces the record.
    pub fn write(&self, record: &Record) -> anyhow::Result<()> {
        let fresh = self.path.join("state.json.new");
        fs::write(&fresh, serde_json::to_vec(record)?)
            .with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, self.path.join(STATE)).with_context(|| format!("rename {}", fresh.display()))
    }

    /// The socket's path by the open directory: the real one may be longer than a socket's address.
    fn address(&self) -> anyhow::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()))?)
    }

    /// Makes the socket that the first process listens on.
    pub fn listen(&self) -> anyhow::Result<OwnedFd> {
        let socket = socket()?;
        rustix::net::bind(&socket, &self.address()?).context("bind the start socket")?;
        rustix::net::listen(&socket, 4).context("listen on the start socket")?;
        Ok(socket)
    }

    /// Connects to the first process.
    pub fn connect(&self) -> anyhow::Result<OwnedFd> {
        let socket = socket()?;
        rustix::net::connect(&socket, &self.address()?).context("connect to the container's process")?;
        Ok(socket)
    }

    /// Notes that the container was started.
    pub fn started(&self) {
        let _ = fs::remove_file(self.path.join(SOCKET));
    }

    /// Removes everything that is recorded.
    pub fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }

    /// Where the container is in its life.
    pub fn status(&self, record: &Record) -> Status {
        let Some(process) = &record.process else {
            return if self.is_locked() { Status::Creating } else { Status::Stopped };
        };
        if !process.is_alive() {
            return Status::Stopped;
        }
        if self.path.join(SOCKET).exists() {
            return Status::Created;
        }
        let frozen = record.cgroup.as_deref().and_then(|path| Cgroup::open(path).ok());
        if frozen.is_some_and(|cgroup| cgroup.frozen().unwrap_or(false)) {
            return Status::Paused;
        }
        Status::Running
    }
}

fn socket() -> anyhow::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).context("make a socket")
}

impl Process {
    /// Records a process that is alive.
    pub fn new(pid: i32, later: Later) -> anyhow::Result<Self> {
        let began = began(pid).with_context(|| format!("read the start time of process {pid}"))?;
        Ok(Self { pid, began, later })
    }

    fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }

    /// A descriptor of the process, if it is still the one that was recorded.
    pub fn pidfd(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Only after it is open is it known whose it is.
        self.is_alive().then_some(fd)
    }
}

/// When a process began; `None` when there is none, or nothing but its exit code is left.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let rest = stat.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The state as hooks and `state` show it.
pub fn document(record: &Record, pid: i32, status: &str) -> serde_json::Value {
    let annotations: HashMap<String, String> = record.spec.annotations().clone().unwrap_or_default();
    serde_json::json!({
        "ociVersion": super::SPEC_VERSION,
        "id": record.id,
        "pid": pid,
        "status": status,
        "bundle": record.bundle,
        "annotations": annotations,
    })
}

/// A time as RFC 3339 has it, in UTC with nanoseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days to a date of the Gregorian calendar, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Opens a directory of the container's for others.
impl AsFd for Entry {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The path of a file below a bundle, which may be absolute.
pub fn below(bundle: &Path, path: &Path) -> PathBuf {
    bundle.join(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
        let leap = UNIX_EPOCH + Duration::new(1_709_210_096, 5);
        assert_eq!(rfc3339(leap), "2024-02-29T12:34:56.000000005Z");
    }

    #[test]
    fn ids_stay_in_the_directory() {
        for wrong in ["", ".", "..", "a/b", "a b", "\u{e4}"] {
            assert!(check_id(wrong).is_err(), "{wrong:?}");
        }
        check_id("a_B+c-1.2").unwrap();
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = began(std::process::id() as i32).unwrap();
        assert!(own > 0);
        assert_eq!(began(i32::MAX), None);
    }

    #[test]
    fn a_second_container_of_a_name_is_refused_and_a_half_made_one_is_found() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(Some(root.path().join("state"))).unwrap();
        assert!(store.all().unwrap().is_empty());
        let made = store.make("box").unwrap();
        assert!(store.make("box").unwrap_err().to_string().contains("already exists"));
        assert!(store.find("box").unwrap().try_read().unwrap().is_none());
        made.remove().unwrap();
        assert!(store.find("box").unwrap_err().to_string().contains("does not exist"));
    }
}
