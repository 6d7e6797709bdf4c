//! Readers: `docker logs` and `docker attach`.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::lines::Lines;
use super::store::{Files, Progress};
use super::tail::{self, Start};
use super::{Chunk, Log, Stream, index};
use crate::clock;

/// Bytes that are read in one step.
const STEP_BYTES: u64 = 256 << 10;
/// Records that are read in one step.
const STEP_RECORDS: u64 = 1024;

/// Output in order; read only as fast as it is polled.
pub type ChunkStream = BoxStream<'static, io::Result<Chunk>>;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest byte.
    Beginning,
    /// With what comes from now on.
    Now,
    /// With the last lines.
    Tail(u64),
}

/// Until when a reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// What is there now.
    Present,
    /// The end of the present run, or of the next one if the container does not run.
    RunEnds,
    /// The end of the present run; what is there if the container does not run.
    PresentRunEnds,
}

/// What is read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Where it begins.
    pub from: From,
    /// Where it ends.
    pub until: Until,
    /// Only what came at or after this time.
    pub since: Option<u64>,
    /// Only what came at or before this time.
    pub before: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// What each line begins with after its time.
    pub prefix: Option<Bytes>,
    /// Whole lines instead of bytes as they came.
    pub lines: bool,
}

struct Reader {
    files: Arc<Files>,
    progress: watch::Receiver<Progress>,
    wanted: [bool; 2],
    /// The next record, and how far each stream is read.
    cursor: Start,
    /// The streams at whose cursor the rest of a line stands whose beginning is not wanted or is gone.
    inside: [bool; 2],
    last_run: Option<u64>,
    /// The records that were there when reading began.
    present: u64,
    before: Option<u64>,
    deadline: Option<tokio::time::Instant>,
    lines: Option<Lines>,
    pending: VecDeque<Chunk>,
    done: bool,
}

impl Log {
    /// Reads this log. Blocks for a moment; what is already written at this call is not missed by any option.
    ///
    /// # Errors
    /// When the files can't be opened or read.
    pub fn read(&self, options: &ReadOptions) -> io::Result<ChunkStream> {
        let (files, progress) = self.open()?;
        let wanted = [options.stdout, options.stderr];
        let (now, cursor, inside) = loop {
            let now = *progress.borrow();
            let (cursor, inside) = begin(&files, &now, wanted, options)?;
            // Else the bytes have been taken away while they were searched.
            if cursor.position >= progress.borrow().gone {
                break (now, cursor, inside);
            }
        };
        let runs = now.begun > now.ended;
        let last_run = match options.until {
            Until::Present => None,
            Until::RunEnds => Some(if runs { now.begun } else { now.begun + 1 }),
            Until::PresentRunEnds => runs.then_some(now.begun),
        };
        let deadline = options.before.map(|before| {
            tokio::time::Instant::now() + Duration::from_nanos(before.saturating_sub(clock::now_ns()))
        });
        let reader = Reader {
            files,
            progress,
            wanted,
            cursor,
            inside,
            last_run,
            present: now.records,
            before: options.before,
            deadline,
            lines: options.lines.then(|| Lines::new(options.timestamps, options.prefix.clone())),
            pending: VecDeque::new(),
            done: false,
        };
        Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await;
            next.transpose().map(|chunk| (chunk, reader))
        })))
    }
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Ok(Some(chunk));
            }
            if self.done {
                return Ok(None);
            }
            // Read before the records: a run that has ended has written all of its records.
            let mut progress = *self.progress.borrow_and_update();
            if self.last_run.is_none() {
                // A noisy container would keep its reader for ever.
                progress.records = progress.records.min(self.present);
            }
            if self.cursor.position < progress.records {
                self.step(progress).await?;
                continue;
            }
            let over = self.last_run.is_none_or(|run| progress.ended >= run);
            if over || !self.wait().await {
                self.finish();
            }
        }
    }

    /// Sleeps until there is more. Returns false when nothing will come.
    async fn wait(&mut self) -> bool {
        match self.deadline {
            None => self.progress.changed().await.is_ok(),
            Some(deadline) => {
                matches!(tokio::time::timeout_at(deadline, self.progress.changed()).await, Ok(Ok(())))
            }
        }
    }

    fn finish(&mut self) {
        self.done = true;
        if let Some(lines) = &mut self.lines {
            let mut rest = Vec::new();
            lines.finish(&mut rest);
            self.pending.extend(rest);
        }
    }

    /// Reads on, a bounded piece.
    async fn step(&mut self, progress: Progress) -> io::Result<()> {
        if self.cursor.position < progress.gone {
            return self.jump().await;
        }
        let (files, wanted, cursor) = (Arc::clone(&self.files), self.wanted, self.cursor);
        let (to, before, merge) = (progress.records, self.before, self.lines.is_none());
        let piece = blocking(move || read_piece(&files, wanted, cursor, to, before, merge)).await?;
        if self.cursor.position < self.progress.borrow().gone {
            // Holes may have been read.
            return self.jump().await;
        }
        self.cursor = piece.cursor;
        let mut out = Vec::new();
        for (stream, at, mut bytes) in piece.parts {
            let inside = &mut self.inside[stream.number()];
            if *inside {
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { continue };
                *inside = false;
                bytes.advance(end + 1);
                if bytes.is_empty() {
                    continue;
                }
            }
            match &mut self.lines {
                Some(lines) => lines.push(stream, at, bytes, &mut out),
                None => out.push(Chunk { stream, bytes }),
            }
        }
        self.pending.extend(out);
        if piece.over {
            self.finish();
        }
        Ok(())
    }
}

impl Reader {
    /// Goes on with the oldest line there is: the log's limit has overtaken this reader.
    async fn jump(&mut self) -> io::Result<()> {
        let (files, floor) = (Arc::clone(&self.files), self.progress.borrow().floor);
        let lines = self.lines.is_some();
        (self.cursor, self.inside) = blocking(move || {
            let start = tail::at_record(&files, floor)?;
            let inside = if lines { tail::inside_line(&files, &start)? } else { [false; 2] };
            Ok((start, inside))
        })
        .await?;
        if let Some(lines) = &mut self.lines {
            let mut out = Vec::new();
            lines.forget(&mut out);
            self.pending.extend(out);
        }
        Ok(())
    }
}

/// Where reading begins, and in which streams that is in the middle of a line.
fn begin(
    files: &Files,
    now: &Progress,
    wanted: [bool; 2],
    options: &ReadOptions,
) -> io::Result<(Start, [bool; 2])> {
    let mut to = now.records;
    if let Some(before) = options.before {
        to = index::search(&files.index, now.floor, to, |record| record.at > before)?;
    }
    let mut from = now.floor;
    if let Some(since) = options.since {
        from = index::search(&files.index, from, to, |record| record.at >= since)?;
    }
    let oldest = tail::at_record(files, from)?;
    let start = match options.from {
        From::Beginning => oldest,
        From::Now => return Ok((tail::at_record(files, now.records)?, [false; 2])),
        From::Tail(lines) => tail::find(files, from, to, wanted, lines)?,
    };
    if !options.lines || start.position != oldest.position {
        return Ok((start, [false; 2]));
    }
    let mut inside = tail::inside_line(files, &start)?;
    for stream in Stream::BOTH {
        // The tail begins later in this stream, with a line.
        inside[stream.number()] &= start.ends[stream.number()] == oldest.ends[stream.number()];
    }
    Ok((start, inside))
}

struct Piece {
    parts: Vec<(Stream, u64, Bytes)>,
    cursor: Start,
    /// A record is past the time that is wanted.
    over: bool,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn read_piece(
    files: &Files,
    wanted: [bool; 2],
    mut cursor: Start,
    to: u64,
    before: Option<u64>,
    merge: bool,
) -> io::Result<Piece> {
    let to = to.min(cursor.position + STEP_RECORDS);
    let records = index::read(&files.index, cursor.position, to)?;
    // Ranges first, bytes after: neighbours of one stream are read at once.
    let mut ranges: Vec<(Stream, u64, u64, u64)> = Vec::new();
    let (mut bytes, mut over) = (0, false);
    for record in records {
        if before.is_some_and(|before| record.at > before) {
            over = true;
            break;
        }
        for stream in Stream::BOTH {
            let number = stream.number();
            let (from, end) = (cursor.ends[number], record.ends[number]);
            if end <= from {
                continue;
            }
            cursor.ends[number] = end;
            if !wanted[number] {
                continue;
            }
            bytes += end - from;
            match ranges.last_mut() {
                Some((last, at, _, last_end)) if *last == stream && (merge || *at == record.at) => {
                    *last_end = end
                }
                _ => ranges.push((stream, record.at, from, end)),
            }
        }
        cursor.position += 1;
        if bytes >= STEP_BYTES {
            break;
        }
    }
    let mut parts = Vec::with_capacity(ranges.len());
    for (stream, at, mut from, end) in ranges {
        while from < end {
            let length = (end - from).min(STEP_BYTES);
            let mut buffer = BytesMut::zeroed(usize::try_from(length).map_err(io::Error::other)?);
            files.raw[stream.number()].read_exact_at(&mut buffer, from)?;
            parts.push((stream, at, buffer.freeze()));
            from += length;
        }
    }
    Ok(Piece { parts, cursor, over })
}
