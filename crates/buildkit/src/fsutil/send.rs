//! The sending end: what a client's `--output type=local` gets.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use futures_util::{Stream, StreamExt};
use rustix::fs::{AtFlags, Dir, FileType, Mode as UnixMode, OFlags, ResolveFlags};
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::Status;

use super::mode::Mode;

/// As much as a packet of data has at most.
const CHUNK: usize = 32 << 10;
/// Files that were asked for and not sent yet; a receiver may ask for all of them at once.
const ASKED: usize = 4 << 20;
const NANOS: i64 = 1_000_000_000;

/// Why a tree could not be sent.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// The tree can't be read.
    #[error("{op} {path}: {source}")]
    File {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// The receiver did something that no receiver does.
    #[error("invalid file transfer: {what}")]
    Protocol {
        /// What it was.
        what: String,
    },
    /// The receiver gave up and said why.
    #[error("error from receiver: {message}")]
    Receiver {
        /// Its words.
        message: String,
    },
    /// The connection failed.
    #[error("{}", .0.message())]
    Transport(Status),
    /// The receiver left in the middle.
    #[error("the receiver left before it had all files")]
    Ended,
}

/// What a tree is shown as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The directory that everything is in, if it is.
    pub directory: Option<String>,
    /// Seconds since 1970 that every time becomes.
    pub epoch: Option<i64>,
}

impl Shape {
    fn path(&self, path: &str) -> String {
        match &self.directory {
            Some(directory) => format!("{directory}/{path}"),
            None => path.to_owned(),
        }
    }

    /// The entry of the directory.
    fn top(&self) -> Option<Stat> {
        let mode = Mode::from_unix(FileType::Directory.as_raw_mode() | 0o755).to_go();
        let path = self.directory.clone()?;
        let mod_time = self.epoch.unwrap_or_default().saturating_mul(NANOS);
        Some(Stat { path, mode, mod_time, ..Stat::default() })
    }
}

/// Is told how many bytes were sent so far.
pub(crate) type OnSent = Arc<dyn Fn(u64) + Send + Sync>;

/// Regular files by the number of their entry.
type Files = Arc<Mutex<HashMap<u32, String>>>;

/// Sends the tree below `root`.
///
/// # Errors
/// See [`SendError`].
pub(crate) async fn send(
    root: OwnedFd,
    shape: Shape,
    mut requests: impl Stream<Item = Result<Packet, Status>> + Send + Unpin,
    packets: mpsc::Sender<Packet>,
    on_bytes: OnSent,
) -> Result<(), SendError> {
    let root = Arc::new(root);
    let files = Files::default();
    let (asked, to_read) = mpsc::channel::<u32>(1024);
    let mut walk = tokio::task::spawn_blocking({
        let (root, files, packets) = (root.clone(), files.clone(), packets.clone());
        let walk = Walk { root, shape, files, packets, next_id: 0, links: HashMap::new() };
        move || walk.run()
    });
    let mut read = tokio::task::spawn_blocking({
        let packets = packets.clone();
        move || read_files(&root, &files, to_read, &packets, &on_bytes)
    });
    let (mut walking, mut count) = (true, 0_usize);
    loop {
        let request = tokio::select! {
            done = &mut walk, if walking => {
                walking = false;
                joined(done)?;
                continue;
            }
            done = &mut read => {
                joined(done)?;
                return Err(SendError::Ended);
            }
            request = requests.next() => request,
        };
        let request = match request {
            Some(Ok(request)) => request,
            Some(Err(status)) => return Err(SendError::Transport(status)),
            None => return Err(SendError::Ended),
        };
        match request.r#type() {
            PacketType::PacketReq => {
                count += 1;
                if count > ASKED {
                    return Err(SendError::Protocol { what: "more requests than files".to_owned() });
                }
                tokio::select! {
                    sent = asked.send(request.id) => sent.map_err(|_| SendError::Ended)?,
                    done = &mut read => {
                        joined(done)?;
                        return Err(SendError::Ended);
                    }
                }
            }
            PacketType::PacketFin => {
                let end = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
                return packets.send(end).await.map_err(|_| SendError::Ended);
            }
            PacketType::PacketErr => {
                let message = String::from_utf8_lossy(&request.data).into_owned();
                return Err(SendError::Receiver { message });
            }
            PacketType::PacketStat | PacketType::PacketData => {
                return Err(SendError::Protocol { what: "files from the receiver".to_owned() });
            }
        }
    }
}

fn joined(result: Result<Result<(), SendError>, tokio::task::JoinError>) -> Result<(), SendError> {
    result.unwrap_or_else(|error| Err(SendError::Protocol { what: error.to_string() }))
}

/// Goes through the tree in the order that receivers check.
struct Walk {
    root: Arc<OwnedFd>,
    shape: Shape,
    files: Files,
    packets: mpsc::Sender<Packet>,
    next_id: u32,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), String>,
}

impl Walk {
    fn run(mut self) -> Result<(), SendError> {
        if let Some(stat) = self.shape.top() {
            self.next_id += 1;
            self.send(Packet {
                r#type: PacketType::PacketStat.into(),
                stat: Some(stat),
                ..Packet::default()
            })?;
        }
        // Directories whose entries are still to come, deepest last; depth costs memory, never stack.
        let mut levels = vec![(String::new(), self.names("")?.into_iter())];
        while let Some((dir, names)) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let mut stat = stat_of(&self.root, &path).map_err(|error| file_error("look at", &path, error))?;
            let kind = Mode::from_go(stat.mode).map_or(FileType::Unknown, |mode| mode.kind);
            if matches!(kind, FileType::Socket | FileType::Unknown) {
                continue;
            }
            if kind == FileType::RegularFile {
                self.note_links(&path, &mut stat)?;
                if stat.linkname.is_empty() {
                    let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                    files.insert(self.next_id, path.clone());
                }
            }
            self.next_id += 1;
            stat.path = self.shape.path(&path);
            if let Some(epoch) = self.shape.epoch {
                stat.mod_time = epoch.saturating_mul(NANOS);
            }
            self.send(Packet {
                r#type: PacketType::PacketStat.into(),
                stat: Some(stat),
                ..Packet::default()
            })?;
            if kind == FileType::Directory {
                let names = self.names(&path)?.into_iter();
                levels.push((path, names));
            }
        }
        self.send(Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() })
    }

    fn note_links(&mut self, path: &str, stat: &mut Stat) -> Result<(), SendError> {
        let fd = open_below(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
            .map_err(|error| file_error("look at", path, error))?;
        let found = rustix::fs::fstat(&fd).map_err(|error| file_error("look at", path, error))?;
        if found.st_nlink > 1 {
            let first = self.links.entry((found.st_dev, found.st_ino)).or_insert_with(|| path.to_owned());
            if first != path {
                stat.linkname = self.shape.path(first);
                stat.size = 0;
            }
        }
        Ok(())
    }

    fn names(&self, dir: &str) -> Result<Vec<String>, SendError> {
        names_in(&self.root, dir).map_err(|error| file_error("read", dir, error))
    }

    fn send(&self, packet: Packet) -> Result<(), SendError> {
        self.packets.blocking_send(packet).map_err(|_| SendError::Ended)
    }
}

fn read_files(
    root: &OwnedFd,
    files: &Files,
    mut asked: mpsc::Receiver<u32>,
    packets: &mpsc::Sender<Packet>,
    on_bytes: &OnSent,
) -> Result<(), SendError> {
    let mut sent = 0;
    let mut buffer = vec![0; CHUNK];
    while let Some(id) = asked.blocking_recv() {
        let path = files.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let path =
            path.ok_or_else(|| SendError::Protocol { what: format!("no file has the number {id}") })?;
        let fd = open_below(root, &path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)
            .map_err(|error| file_error("open", &path, error))?;
        let mut file = std::fs::File::from(fd);
        loop {
            let read = file.read(&mut buffer).map_err(|source| SendError::File {
                op: "read",
                path: path.clone(),
                source,
            })?;
            let data = buffer[..read].to_vec();
            let packet = Packet { r#type: PacketType::PacketData.into(), id, data, stat: None };
            packets.blocking_send(packet).map_err(|_| SendError::Ended)?;
            sent += read as u64;
            on_bytes(sent);
            if read == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Returns the names in a directory below `root`, sorted.
fn names_in(root: &OwnedFd, dir: &str) -> rustix::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open_below(root, if dir.is_empty() { "." } else { dir }, flags)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd)? {
        // A name that is no text can't be said on this wire.
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Describes a file below `root` as the wire has it; the last part of the path is not followed.
fn stat_of(root: &OwnedFd, path: &str) -> rustix::io::Result<Stat> {
    let fd = open_below(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    let found = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_unix(found.st_mode);
    let linkname = if mode.kind == FileType::Symlink {
        rustix::fs::readlinkat(&fd, "", Vec::new())?.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let device = matches!(mode.kind, FileType::BlockDevice | FileType::CharacterDevice);
    #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    let mod_time = (found.st_mtime as i64).saturating_mul(NANOS).saturating_add(found.st_mtime_nsec as i64);
    Ok(Stat {
        path: path.to_owned(),
        mode: mode.to_go(),
        uid: found.st_uid,
        gid: found.st_gid,
        size: if mode.kind == FileType::RegularFile { found.st_size } else { 0 },
        mod_time,
        linkname,
        devmajor: if device { i64::from(rustix::fs::major(found.st_rdev)) } else { 0 },
        devminor: if device { i64::from(rustix::fs::minor(found.st_rdev)) } else { 0 },
        xattrs: HashMap::new(),
    })
}

fn open_below(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A link at the end is fine where it is only looked at (PATH and NOFOLLOW): the descriptor is the link's own then.
    rustix::fs::openat2(root, path, flags, UnixMode::empty(), resolve)
}

fn file_error(op: &'static str, path: &str, error: rustix::io::Errno) -> SendError {
    SendError::File { op, path: path.to_owned(), source: error.into() }
}
