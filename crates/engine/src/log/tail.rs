//! Where the last lines begin: found backwards, so that the length of the log does not matter.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Stream;
use super::index::{self, Record};
use super::store::Files;

/// Records that are looked at in one step.
const STEP: u64 = 256;
const BLOCK: u64 = 64 << 10;

/// Where reading begins: a position in the index, and how far each stream counts as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// The first record to read.
    pub position: u64,
    /// The offsets in the raw files before which nothing is wanted.
    pub ends: [u64; 2],
}

/// The start of the last `lines` lines of the wanted streams within records `from..to`.
pub fn find(files: &Files, from: u64, to: u64, wanted: [bool; 2], lines: u64) -> io::Result<Start> {
    let end = index::before(&files.index, to)?;
    let origin = index::before(&files.index, from)?;
    let mut finder = Finder { wanted: lines, found: 0, start: Start { position: to, ends: end.ends } };
    if lines == 0 {
        return Ok(finder.start);
    }
    let mut upper = to;
    while upper > from {
        let lower = upper.saturating_sub(STEP).max(from);
        let base = index::before(&files.index, lower)?;
        let records = index::read(&files.index, lower, upper)?;
        for at in (0..records.len()).rev() {
            let record = records[at];
            let previous = if at == 0 { base } else { records[at - 1] };
            for number in Stream::BOTH.map(Stream::number).into_iter().rev() {
                let (low, high) = (previous.ends[number], record.ends[number]);
                if !wanted[number] || low == high {
                    continue;
                }
                let position = lower + at as u64;
                let first = origin.ends[number];
                if finder.scan(&files.raw[number], number, position, (low, high), first)? {
                    return Ok(finder.start);
                }
            }
        }
        upper = lower;
    }
    // Fewer lines than wanted: all of it.
    Ok(Start { position: from, ends: origin.ends })
}

#[derive(Debug)]
struct Finder {
    wanted: u64,
    found: u64,
    start: Start,
}

impl Finder {
    /// Goes backwards through one range of a raw file and counts the lines that begin in it: after a newline, or with
    /// the `first` byte of all. Returns true when enough lines are found.
    fn scan(
        &mut self,
        raw: &File,
        number: usize,
        position: u64,
        (low, high): (u64, u64),
        first: u64,
    ) -> io::Result<bool> {
        let mut upper = high;
        while upper > low {
            let lower = upper.saturating_sub(BLOCK).max(low);
            // With the byte before, which tells whether a line begins right here.
            let from = lower.saturating_sub(1).max(first);
            let mut bytes = vec![0; usize::try_from(upper - from).map_err(io::Error::other)?];
            raw.read_exact_at(&mut bytes, from)?;
            for begins in (lower..upper).rev() {
                let is_line = begins == first || bytes[(begins - from) as usize - 1] == b'\n';
                if is_line && self.line(number, position, begins) {
                    return Ok(true);
                }
            }
            upper = lower;
        }
        Ok(false)
    }

    /// Counts a line that begins at `begins`. Returns true when it is the last one that is wanted.
    fn line(&mut self, number: usize, position: u64, begins: u64) -> bool {
        self.found += 1;
        self.start.position = position;
        self.start.ends[number] = begins;
        self.found == self.wanted
    }
}

/// The start at the beginning of records `position..`.
pub fn at_record(files: &Files, position: u64) -> io::Result<Start> {
    let Record { ends, .. } = index::before(&files.index, position)?;
    Ok(Start { position, ends })
}

/// The streams in which `start` is in the middle of a line.
pub fn inside_line(files: &Files, start: &Start) -> io::Result<[bool; 2]> {
    let mut inside = [false; 2];
    for number in Stream::BOTH.map(Stream::number) {
        if let Some(before) = start.ends[number].checked_sub(1) {
            let mut byte = [0];
            files.raw[number].read_exact_at(&mut byte, before)?;
            inside[number] = byte[0] != b'\n';
        }
    }
    Ok(inside)
}
