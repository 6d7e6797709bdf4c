//! A share mounted on this machine: the guest half's work, in a few lines.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use skiff_fileshare::{Access, Server, Shares};
use tempfile::TempDir;

/// A mounted share.
pub struct Mount {
    /// What is shared.
    pub host: PathBuf,
    /// Where it is mounted.
    pub guest: PathBuf,
    requests: Arc<AtomicUsize>,
    server: Arc<Server>,
    runtime: tokio::runtime::Runtime,
    _directories: [TempDir; 2],
}

impl Mount {
    pub fn new() -> Mount {
        Mount::with(Access::ReadWrite)
    }

    pub fn with(access: Access) -> Mount {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let host = std::fs::canonicalize(directories[0].path()).unwrap();
        let guest = directories[1].path().to_owned();
        let device =
            rustix::fs::openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        rustix::mount::mount(
            "test",
            &guest,
            "fuse",
            MountFlags::NOSUID | MountFlags::NODEV,
            options.as_c_str(),
        )
        .unwrap();

        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = Arc::new(device);
        let requests = Arc::new(AtomicUsize::new(0));
        let thread = spawn_guest(Arc::clone(&device), ours, guest.clone(), Arc::clone(&requests));
        let shares = Shares::new([(host.clone(), access)], None);
        let share = shares.locate(host.to_str().unwrap()).unwrap().share;
        let server = shares.mount(&share, skiff_fileshare::Mount::New).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let serving = Arc::clone(&server);
        runtime.spawn(async move {
            let stream = tokio::net::UnixStream::from_std(theirs).unwrap();
            skiff_fileshare::serve(serving, thread, stream).await
        });
        Mount { host, guest, requests, server, runtime, _directories: directories }
    }

    /// How many requests the kernel has made.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until the mount shows what was done on the host.
    pub fn settle(&self) {
        self.runtime.block_on(skiff_fileshare::settle(&self.server));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Force ends the requests of this process's own threads, which nobody would answer while it exits.
        rustix::mount::unmount(&self.guest, UnmountFlags::FORCE | UnmountFlags::DETACH).unwrap();
    }
}

/// Starts the guest half; returns the number of its ghost thread.
fn spawn_guest(
    device: Arc<OwnedFd>,
    stream: UnixStream,
    directory: PathBuf,
    requests: Arc<AtomicUsize>,
) -> u32 {
    let out = Arc::new(Mutex::new(stream.try_clone().unwrap()));
    let (sender, notices) = mpsc::channel::<Vec<u8>>();
    let (started, id) = mpsc::channel();
    std::thread::spawn({
        let (device, out) = (Arc::clone(&device), Arc::clone(&out));
        move || {
            started.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
            let mut root = None;
            for message in notices {
                if i32::from_le_bytes(message[4..8].try_into().unwrap()) < 100 {
                    let _ = rustix::io::write(&*device, &message);
                    continue;
                }
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = root.get_or_insert_with(|| {
                    rustix::fs::openat(CWD, &directory, flags, Mode::empty()).unwrap()
                });
                let error = perform(root, &message[16..]).err().map_or(0, |errno| errno.raw_os_error());
                let mut done = [0; 40];
                done[0] = 40;
                done[4..8].copy_from_slice(&0x5346_0002u32.to_le_bytes());
                done[24..28].copy_from_slice(&error.to_le_bytes());
                if out.lock().unwrap().write_all(&done).is_err() {
                    return;
                }
            }
        }
    });
    std::thread::spawn({
        let device = Arc::clone(&device);
        let mut stream = stream;
        move || {
            loop {
                let mut message = vec![0; 16];
                if stream.read_exact(&mut message).is_err() {
                    return;
                }
                message.resize(u32::from_le_bytes(message[..4].try_into().unwrap()) as usize, 0);
                stream.read_exact(&mut message[16..]).unwrap();
                if message[8..16] == [0; 8] {
                    sender.send(message).unwrap();
                } else {
                    let _ = rustix::io::write(&*device, &message);
                }
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; (1 << 20) + 4096];
        while let Ok(length) = rustix::io::retry_on_intr(|| rustix::io::read(&*device, &mut buffer[..])) {
            requests.fetch_add(1, Ordering::Relaxed);
            if out.lock().unwrap().write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    id.recv().unwrap()
}

fn perform(root: impl AsFd, body: &[u8]) -> rustix::io::Result<()> {
    let call = u32::from_le_bytes(body[..4].try_into().unwrap());
    let argument = u64::from_le_bytes(body[8..16].try_into().unwrap());
    let mut paths = body[16..].split(|byte| *byte == 0).map(|path| CString::new(path).unwrap());
    let (path, to) = (paths.next().unwrap(), paths.next().unwrap());
    let mode = Mode::from_raw_mode(argument as u32 & 0o7777);
    match call {
        1 => {
            // Not quite truncate(2): nothing here may call it.
            let file = rustix::fs::openat(root, &path, OFlags::WRONLY, Mode::empty())?;
            rustix::fs::ftruncate(file, argument)
        }
        2 => rustix::fs::mknodat(root, &path, FileType::from_raw_mode(argument as u32), mode, 0),
        3 => rustix::fs::mkdirat(root, &path, mode),
        4 => rustix::fs::symlinkat(c".", root, &path),
        5 => rustix::fs::renameat(&root, &path, &root, &to),
        6 => rustix::fs::unlinkat(root, &path, AtFlags::empty()),
        7 => rustix::fs::unlinkat(root, &path, AtFlags::REMOVEDIR),
        8 => rustix::fs::chmodat(root, &path, mode, AtFlags::empty()),
        9 => rustix::fs::openat(root, &path, OFlags::WRONLY, Mode::empty()).map(drop),
        _ => Err(rustix::io::Errno::OPNOTSUPP),
    }
}

/// The kind and text of every entry below a directory, sorted.
pub fn tree(root: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                out.push(format!("{shown}/"));
                walk(root, &path, out);
            } else if metadata.is_symlink() {
                out.push(format!("{shown} -> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                let text = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                out.push(format!("{shown}: {}", String::from_utf8_lossy(&text)));
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}
