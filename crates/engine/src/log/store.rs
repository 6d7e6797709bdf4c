//! One container's output files, and the descriptors that they are filled from.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};
use tokio::sync::watch;

use super::Stream;
use super::index::{self, RECORD, Record};
use super::pump::{Registration, Turn};
use crate::clock;

/// A turn moves at most so much per stream; then it is the next container's turn.
const TURN: usize = 1 << 20;
/// What a pipe grows to once it was found full: fewer wake-ups for noisy containers.
const WIDE_PIPE: usize = 1 << 20;
/// What a pipe holds from the start (pipe(7)).
const PIPE: usize = 64 << 10;
/// The unit in which a file system gives bytes back.
const BLOCK: u64 = 4096;
/// How far a follower may fall behind the oldest line that `logs` shows before bytes are taken from under it.
const FOLLOWED: u64 = 4 << 20;
/// How long the last drain may take when something still writes after the container's end.
const LAST_DRAIN: Duration = Duration::from_secs(2);

/// Where a container's output comes from.
#[derive(Debug)]
pub enum Ends {
    /// The read ends of two pipes.
    Pipes {
        /// Of standard output.
        stdout: OwnedFd,
        /// Of standard error.
        stderr: OwnedFd,
    },
    /// A terminal's master, and both ends of its staging pipe.
    Terminal {
        /// The master.
        master: OwnedFd,
        /// The staging pipe's read end.
        staging_read: OwnedFd,
        /// The staging pipe's write end.
        staging_write: OwnedFd,
    },
}

/// How far a log is. Readers sleep on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The records in the index.
    pub records: u64,
    /// How many of them are beyond the log's limit: a new reader begins behind them.
    pub floor: u64,
    /// How many of those have lost their bytes. Told before the bytes go: whoever has read them and then finds himself
    /// not overtaken has read no hole.
    pub gone: u64,
    /// Runs of the container that have begun.
    pub begun: u64,
    /// Runs that have ended, with everything they wrote.
    pub ended: u64,
}

/// A container's output.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    limit: Option<u64>,
    /// What one record takes at most: a log is cut between records, so those of a small one are small.
    most: usize,
    writer: Mutex<Writer>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Writer {
    files: Option<Arc<Files>>,
    ends: [u64; 2],
    records: u64,
    floor: Edge,
    gone: Edge,
    sources: Vec<Source>,
    registrations: Vec<Registration>,
}

/// A place between two records.
#[derive(Debug, Clone, Copy, Default)]
struct Edge {
    /// How many records are before it.
    records: u64,
    /// How many bytes of both streams are before it.
    bytes: u64,
}

/// The open files of a log.
#[derive(Debug)]
pub struct Files {
    /// Standard output and standard error.
    pub raw: [File; 2],
    /// The index.
    pub index: File,
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    fd: OwnedFd,
    /// A terminal's detour.
    staging: Option<(OwnedFd, OwnedFd)>,
    splices: bool,
    wide: bool,
    open: bool,
}

/// What one attempt to move bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Bytes(usize),
    Nothing,
    End,
}

impl Log {
    /// The log in `dir`, which need not exist yet, bounded to `limit` bytes if given.
    pub fn new(dir: PathBuf, limit: Option<u64>) -> Self {
        let most = limit.map_or(TURN as u64, |limit| (limit / 4).clamp(BLOCK, TURN as u64));
        Self {
            dir,
            limit,
            most: usize::try_from(most).unwrap_or(TURN),
            writer: Mutex::new(Writer::default()),
            progress: watch::channel(Progress::default()).0,
        }
    }

    /// The directory of the files.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Opens the files, mending them first if a crash left them torn, and says how far they are.
    pub fn open(&self) -> io::Result<(Arc<Files>, watch::Receiver<Progress>)> {
        let mut writer = self.lock();
        let files = self.ensure_open(&mut writer)?;
        if writer.sources.is_empty() {
            // Nobody fills it: the files are the reader's alone, and a thousand stopped containers hold none.
            writer.files = None;
        }
        Ok((files, self.progress.subscribe()))
    }

    /// Begins a run: output comes from `ends` from now on.
    pub fn begin(self: &Arc<Self>, ends: Ends, pump: &super::pump::Pump) -> io::Result<()> {
        let mut writer = self.lock();
        self.ensure_open(&mut writer)?;
        writer.sources = sources(ends)?;
        for at in 0..writer.sources.len() {
            let registration = pump.register(self, writer.sources[at].fd.as_fd())?;
            writer.registrations.push(registration);
        }
        self.progress.send_modify(|progress| progress.begun += 1);
        Ok(())
    }

    /// Takes what is left in the pipes after a run's end, then lets go of them. Readers wait for [`end`](Self::end).
    pub fn drain(&self) {
        let mut writer = self.lock();
        let deadline = Instant::now() + LAST_DRAIN;
        while !writer.sources.is_empty() {
            match self.take_turn(&mut writer) {
                Turn::More if Instant::now() < deadline => {}
                Turn::Blocked if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                _ => break,
            }
        }
        writer.registrations.clear();
        writer.sources.clear();
        writer.files = None;
    }

    /// Ends a run for its readers: who has read to here is at the end.
    pub fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = progress.begun);
    }

    /// A run that never came to be: whoever attached in advance is told that it is over.
    pub fn cancel(&self) {
        self.drain();
        self.progress.send_modify(|progress| {
            progress.begun += 1;
            progress.ended = progress.begun;
        });
    }

    /// Moves a bounded amount; called by the pump.
    pub(super) fn turn(&self) -> Turn {
        self.take_turn(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_open(&self, writer: &mut Writer) -> io::Result<Arc<Files>> {
        if let Some(files) = &writer.files {
            return Ok(Arc::clone(files));
        }
        #[allow(clippy::disallowed_methods)]
        match std::fs::create_dir(&self.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let open = |name: &str| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.dir.join(name))
        };
        let files =
            Arc::new(Files { raw: [open("stdout.raw")?, open("stderr.raw")?], index: open("index")? });
        self.mend(writer, &files)?;
        self.bound(writer, &files)?;
        writer.files = Some(Arc::clone(&files));
        self.tell(writer);
        Ok(files)
    }

    /// Brings index and raw files together after whatever end the last engine had.
    fn mend(&self, writer: &mut Writer, files: &Files) -> io::Result<()> {
        let metadata = [files.raw[0].metadata()?, files.raw[1].metadata()?];
        let raw = [metadata[0].len(), metadata[1].len()];
        let length = files.index.metadata()?.len();
        if length == 0 && raw == [0, 0] {
            return Ok(());
        }
        let index_floor = first_data(&files.index, length).div_ceil(RECORD);
        let records = index::trusted(&files.index, index_floor, length, raw)?;
        if records * RECORD != length {
            files.index.set_len(records * RECORD)?;
        }
        let holes = [first_data(&files.raw[0], raw[0]), first_data(&files.raw[1], raw[1])];
        if index_floor > 0 || holes != [0, 0] {
            let complete = |record: &Record| record.ends[0] >= holes[0] && record.ends[1] >= holes[1];
            let records = (index::search(&files.index, index_floor, records, complete)? + 1).min(records);
            let bytes = if records > index_floor { index::before(&files.index, records)?.total() } else { 0 };
            writer.gone = Edge { records, bytes };
            writer.floor = writer.gone;
        }
        let last =
            if records > index_floor { index::before(&files.index, records)? } else { Record::default() };
        writer.records = records;
        writer.ends = last.ends;
        // Bytes that came into a raw file and not into the index: they get a record now, dated by the file.
        for stream in Stream::BOTH {
            let number = stream.number();
            if raw[number] > writer.ends[number] {
                let (seconds, nanos) = (metadata[number].mtime(), metadata[number].mtime_nsec());
                let modified =
                    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanos).unwrap_or(0);
                writer.ends[number] = raw[number];
                append(writer, files, modified.max(last.at))?;
            }
        }
        Ok(())
    }

    fn take_turn(&self, writer: &mut Writer) -> Turn {
        let Some(files) = writer.files.clone() else { return Turn::Idle };
        let before = writer.records;
        let mut turn = Turn::Idle;
        for at in 0..writer.sources.len() {
            let mut left = TURN;
            while writer.sources[at].open && left > 0 {
                match move_once(writer, at, &files, left.min(self.most)) {
                    Ok(Moved::Bytes(bytes)) => left = left.saturating_sub(bytes),
                    Ok(Moved::Nothing) => break,
                    Ok(Moved::End) => writer.sources[at].open = false,
                    Err(error) => {
                        tracing::warn!(%error, log = %self.dir.display(), "output waits: it can't be written");
                        turn = Turn::Blocked;
                        break;
                    }
                }
            }
            if left == 0 && turn == Turn::Idle {
                turn = Turn::More;
            }
        }
        if writer.records != before {
            if let Err(error) = self.bound(writer, &files) {
                tracing::warn!(%error, log = %self.dir.display(), "old output can't be given back");
            }
            self.tell(writer);
        }
        turn
    }

    fn tell(&self, writer: &Writer) {
        let (records, floor, gone) = (writer.records, writer.floor.records, writer.gone.records);
        self.progress.send_modify(|progress| {
            progress.records = records;
            progress.floor = floor;
            progress.gone = gone;
        });
    }

    /// Hides the oldest bytes of a log over its limit, and gives them back once no reasonable reader is still there.
    fn bound(&self, writer: &mut Writer, files: &Files) -> io::Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let total = writer.ends[0] + writer.ends[1];
        // A quarter of slack: the search and the holes are worth their system calls.
        if total - writer.floor.bytes > limit + limit / 4 {
            let oldest = index::search(&files.index, writer.floor.records, writer.records, |record| {
                total - record.total() <= limit
            })?;
            // At least the limit is kept: the first byte wanted is somewhere in this record.
            let records = oldest.min(writer.records);
            writer.floor = Edge { records, bytes: index::before(&files.index, records)?.total() };
        }
        if writer.floor.bytes - writer.gone.bytes <= FOLLOWED {
            return Ok(());
        }
        writer.gone = writer.floor;
        self.tell(writer);
        let keep = index::before(&files.index, writer.gone.records)?;
        // Whole blocks only: what is left begins where a restarted engine finds the first data. The byte before stays,
        // it tells whether a line begins there.
        let punch = |file: &File, end: u64| match end.saturating_sub(1) / BLOCK * BLOCK {
            0 => Ok(()),
            end => fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, end),
        };
        punch(&files.raw[0], keep.ends[0])?;
        punch(&files.raw[1], keep.ends[1])?;
        Ok(punch(&files.index, (writer.gone.records - 1) * RECORD)?)
    }
}

/// Where a file's data begins after a hole at its start (lseek(2), `SEEK_DATA`); 0 where holes are not known.
fn first_data(file: &File, length: u64) -> u64 {
    match seek(file, SeekFrom::Data(0)) {
        Ok(data) => data,
        Err(Errno::NXIO) => length,
        Err(_) => 0,
    }
}

fn append(writer: &mut Writer, files: &Files, at: u64) -> io::Result<()> {
    let record = Record { at, ends: writer.ends };
    files.index.write_all_at(&record.to_bytes(), writer.records * RECORD)?;
    writer.records += 1;
    Ok(())
}

fn sources(ends: Ends) -> io::Result<Vec<Source>> {
    let source = |stream, fd: OwnedFd, staging| -> io::Result<Source> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Source { stream, fd, staging, splices: true, wide: false, open: true })
    };
    match ends {
        Ends::Pipes { stdout, stderr } => {
            Ok(vec![source(Stream::Stdout, stdout, None)?, source(Stream::Stderr, stderr, None)?])
        }
        Ends::Terminal { master, staging_read, staging_write } => {
            rustix::io::ioctl_fionbio(&staging_read, true)?;
            rustix::io::ioctl_fionbio(&staging_write, true)?;
            Ok(vec![source(Stream::Stdout, master, Some((staging_read, staging_write)))?])
        }
    }
}

/// Moves once from one source into its raw file, and indexes what came.
fn move_once(writer: &mut Writer, at: usize, files: &Files, most: usize) -> io::Result<Moved> {
    let source = &mut writer.sources[at];
    let number = source.stream.number();
    let mut offset = writer.ends[number];
    let moved = match &source.staging {
        None => splice_to_file(&source.fd, &files.raw[number], &mut offset, most)?,
        Some((read, write)) => {
            // What an engine before this one staged comes first.
            match splice_to_file(read, &files.raw[number], &mut offset, most)? {
                Moved::Bytes(bytes) => Moved::Bytes(bytes),
                _ => match stage(&source.fd, write, &mut source.splices)? {
                    Moved::Bytes(_) => splice_to_file(read, &files.raw[number], &mut offset, most)?,
                    other => other,
                },
            }
        }
    };
    if let Moved::Bytes(bytes) = moved {
        if bytes >= PIPE && !source.wide && source.staging.is_none() {
            source.wide = true;
            // Only a matter of speed.
            let _ = fcntl_setpipe_size(&source.fd, WIDE_PIPE);
        }
        writer.ends[number] += bytes as u64;
        append(writer, files, clock::now_ns())?;
    }
    Ok(moved)
}

fn splice_to_file(pipe: &OwnedFd, file: &File, offset: &mut u64, most: usize) -> io::Result<Moved> {
    loop {
        return match splice(pipe, None, file, Some(offset), most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) => Ok(Moved::End),
            Ok(bytes) => Ok(Moved::Bytes(bytes)),
            Err(Errno::AGAIN) => Ok(Moved::Nothing),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno.into()),
        };
    }
}

/// From the terminal into its staging pipe. The end of a terminal (EIO: nobody has the other side open) is not final:
/// a process of the container may open it again, and the container's end is told by other means.
fn stage(master: &OwnedFd, pipe: &OwnedFd, splices: &mut bool) -> io::Result<Moved> {
    loop {
        if *splices {
            match splice(master, None, pipe, None, PIPE, SpliceFlags::NONBLOCK) {
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => return Ok(Moved::Nothing),
                Ok(bytes) => return Ok(Moved::Bytes(bytes)),
                Err(Errno::INTR) => continue,
                Err(Errno::INVAL) => *splices = false,
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN | Errno::IO) => return Ok(Moved::Nothing),
            Ok(bytes) => {
                // The pipe was found empty: it takes a page at once.
                rustix::io::write(pipe, &buffer[..bytes])?;
                return Ok(Moved::Bytes(bytes));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
