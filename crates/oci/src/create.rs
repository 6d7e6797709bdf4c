//! `create`: everything up to the wait before the command.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use skiff_runtime::{Create, Created, Io, More, Parent, RootFs, create_with};

use super::state::{Entry, Process, Record, Store, below, document, rfc3339};
use super::{Global, bundle, cgroups, terminal};

/// What `create` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub shared: Shared,
    /// Name of the container
    pub id: String,
}

/// What `create` and `run` take.
#[derive(Debug, clap::Args)]
pub struct Shared {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File to write the first process's id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket to send the terminal's master to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Taken for the sake of callers: the root is changed without pivot_root(2) only where that is impossible
    #[arg(long)]
    pub no_pivot: bool,
    /// Taken for the sake of callers: containers share no session keyring with their creator in any case
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the command inherits
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// A container that waits to be started.
pub struct Made {
    /// Its directory, locked.
    pub entry: Entry,
    /// What is recorded of it.
    pub record: Record,
    /// Its first process.
    pub created: Created,
}

/// Runs the command.
pub fn run(store: &Store, global: &Global, options: Options) -> anyhow::Result<()> {
    let Made { entry, record, created } = make(store, global, &options.id, &options.shared)?;
    let pid = created.pid;
    let finished = hand_over(&created, &record, &options.shared).and_then(|()| Ok(created.detach()?));
    if let Err(error) = finished {
        undo(&entry, &record);
        return Err(error);
    }
    if let Some(file) = &options.shared.pid_file {
        write_pid(file, pid)?;
    }
    Ok(())
}

/// Sends the terminal to whoever asked for it.
fn hand_over(created: &Created, record: &Record, options: &Shared) -> anyhow::Result<()> {
    let Some(master) = &created.terminal else { return Ok(()) };
    match &options.console_socket {
        Some(socket) => terminal::send(master.as_fd(), socket),
        None => bail!("cannot allocate tty of {} if nobody gets it: give --console-socket", record.id),
    }
}

/// Makes a container, with everything recorded on the way.
pub fn make(store: &Store, global: &Global, id: &str, options: &Shared) -> anyhow::Result<Made> {
    check_inherited(options.preserve_fds)?;
    let bundle = std::fs::canonicalize(&options.bundle)
        .with_context(|| format!("find bundle {}", options.bundle.display()))?;
    let spec = bundle::read(&bundle)?;
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    if options.console_socket.is_some() && !terminal {
        bail!("cannot use console socket if the container has no terminal (process.terminal is false)");
    }
    let root = spec.root().as_ref().map(|root| below(&bundle, root.path())).unwrap_or_default();
    let rootfs = std::fs::canonicalize(&root).with_context(|| format!("root.path: {}", root.display()))?;
    let entry = store.make(id)?;
    let record = Record {
        id: id.to_owned(),
        cgroup: None,
        cgroup_base: None,
        bundle,
        rootfs,
        created: rfc3339(SystemTime::now()),
        process: None,
        owner: rustix::process::getuid().as_raw(),
        spec,
    };
    match complete(&entry, record.clone(), global, options) {
        Ok((record, created)) => Ok(Made { entry, record, created }),
        Err(error) => {
            // What complete() may have made lies where it would have been recorded.
            let record = entry.try_read().ok().flatten().unwrap_or(record);
            undo(&entry, &record);
            Err(error)
        }
    }
}

fn complete(
    entry: &Entry,
    mut record: Record,
    global: &Global,
    options: &Shared,
) -> anyhow::Result<(Record, Created)> {
    record.cgroup = cgroups::path(global, &record.spec, &record.id)?;
    let mut parents = record.cgroup.as_deref().into_iter().flat_map(|path| path.ancestors().skip(1));
    record.cgroup_base = parents.find(|path| path.is_dir()).map(Path::to_owned);
    entry.write(&record)?;
    let cgroup =
        record.cgroup.as_deref().map(|path| cgroups::make(global, path, &record.spec)).transpose()?;
    if cgroup.is_none() {
        cgroups::without(global, &record.spec);
    }
    let listener = entry.listen()?;
    let io = streams(&record)?;
    let seen = record.clone();
    let state = move |pid: i32, status: &str| document(&seen, pid, status).to_string().into_bytes();
    let created = create_with(
        Create {
            id: &record.id,
            spec: &record.spec,
            rootfs: RootFs::Dir(record.rootfs.clone()),
            io,
            cgroup: cgroup.as_ref(),
            netns: None,
            parent: Parent::Caller,
        },
        More { state: Some(&state), accept: Some(listener), inherited: options.preserve_fds },
    )?;
    record.process = Some(Process::new(created.pid, created.later())?);
    entry.write(&record)?;
    Ok((record, created))
}

/// The caller's own streams, or a terminal.
fn streams(record: &Record) -> anyhow::Result<Io> {
    let process = record.spec.process().as_ref();
    if process.and_then(|process| process.terminal()).unwrap_or(false) {
        return Ok(terminal::io(process));
    }
    own_streams()
}

/// This process's standard streams.
pub fn own_streams() -> anyhow::Result<Io> {
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| -> anyhow::Result<OwnedFd> {
        // A caller may have closed one: the command gets the null device then.
        match fd.try_clone_to_owned() {
            Ok(fd) => Ok(fd),
            Err(_) => Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into()),
        }
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Ok(Io::Pipes(skiff_runtime::Stdio {
        stdin: duplicate(stdin.as_fd())?,
        stdout: duplicate(stdout.as_fd())?,
        stderr: duplicate(stderr.as_fd())?,
    }))
}

/// Removes what a failed command has made.
pub fn undo(entry: &Entry, record: &Record) {
    let _ = cgroups::remove(record);
    let _ = entry.remove();
}

/// Every descriptor that the command is to inherit must be open, or one of ours would get its number and go along.
pub fn check_inherited(count: u32) -> anyhow::Result<()> {
    for number in 3..3 + count {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            bail!("--preserve-fds {count}: descriptor {number} is not open");
        }
    }
    Ok(())
}

/// Writes the id that a caller waits for, whole at once.
pub fn write_pid(file: &Path, pid: i32) -> anyhow::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, pid.to_string())
        .and_then(|()| std::fs::rename(&fresh, file))
        .with_context(|| format!("write {}", file.display()))
}
