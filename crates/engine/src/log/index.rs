//! The index of a container's output: which bytes of which stream came when.
//!
//! A record is 24 bytes, little-endian: the time in nanoseconds since the epoch, the end of standard output, the end
//! of standard error. Ends are absolute offsets in the raw files, so every record stands for itself: the bytes that it
//! adds are those between the record before and itself, and a binary search works by time as well as by size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size of a record in the file.
pub const RECORD: u64 = 24;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// When the bytes were taken from the container, in nanoseconds since the epoch.
    pub at: u64,
    /// The ends of standard output and standard error.
    pub ends: [u64; 2],
}

impl Record {
    /// The record as it is in the file.
    pub fn to_bytes(self) -> [u8; RECORD as usize] {
        let mut bytes = [0; RECORD as usize];
        bytes[..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ends[0].to_le_bytes());
        bytes[16..].copy_from_slice(&self.ends[1].to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Self { at: number(0), ends: [number(8), number(16)] }
    }

    /// Bytes of both streams up to here.
    pub fn total(&self) -> u64 {
        self.ends[0].saturating_add(self.ends[1])
    }
}

/// Reads records `from..to`.
pub fn read(index: &File, from: u64, to: u64) -> io::Result<Vec<Record>> {
    let mut bytes = vec![0; usize::try_from((to - from) * RECORD).map_err(io::Error::other)?];
    index.read_exact_at(&mut bytes, from * RECORD)?;
    Ok(bytes.chunks_exact(RECORD as usize).map(Record::from_bytes).collect())
}

/// Reads one record; the one before the first is all zeros.
pub fn before(index: &File, position: u64) -> io::Result<Record> {
    match position.checked_sub(1) {
        None => Ok(Record::default()),
        Some(last) => Ok(read(index, last, position)?[0]),
    }
}

/// The first position in `from..to` at which `reached` holds, or `to`. `reached` must stay true once it is.
pub fn search(index: &File, from: u64, to: u64, reached: impl Fn(&Record) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if reached(&read(index, middle, middle + 1)?[0]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// How many records of a file of `length` bytes can be trusted, given the lengths of the raw files.
///
/// After a crash of the machine the index may end in the middle of a record, or tell of bytes that never reached the
/// raw files, or (where blocks were allocated but never written) hold zeros. Ends never fall, so the trusted records
/// are a prefix.
pub fn trusted(index: &File, floor: u64, length: u64, raw: [u64; 2]) -> io::Result<u64> {
    let whole = length / RECORD;
    let mut count = search(index, floor, whole, |record| {
        record.ends[0] > raw[0] || record.ends[1] > raw[1] || record.total() == 0
    })?;
    // The search presumes order; the last few records prove it.
    while count > floor {
        let last = read(index, count - 1, count)?[0];
        let previous = if count - 1 > floor { before(index, count - 1)? } else { Record::default() };
        let ordered = last.ends[0] >= previous.ends[0] && last.ends[1] >= previous.ends[1];
        let within = last.ends[0] <= raw[0] && last.ends[1] <= raw[1] && last.total() > 0;
        if ordered && within {
            break;
        }
        count -= 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(records: &[Record], torn: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for record in records {
            file.write_all(&record.to_bytes()).unwrap();
        }
        file.write_all(&vec![0xff; torn]).unwrap();
        file
    }

    fn ordered(steps: &[(bool, u8)]) -> Vec<Record> {
        let mut ends = [0, 0];
        steps
            .iter()
            .enumerate()
            .map(|(at, (stream, bytes))| {
                ends[usize::from(*stream)] += u64::from(*bytes) + 1;
                Record { at: at as u64 * 10, ends }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn trusted_records_are_exactly_those_whose_bytes_exist(
            steps in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..40),
            torn in 0usize..24,
            lost in 0u64..2000,
        ) {
            let records = ordered(&steps);
            let full = records.last().map_or([0, 0], |last| last.ends);
            let raw = [full[0].saturating_sub(lost), full[1]];
            let index = file(&records, torn);
            let length = index.metadata().unwrap().len();
            let count = trusted(&index, 0, length, raw).unwrap() as usize;
            let expected = records.iter().take_while(|r| r.ends[0] <= raw[0] && r.ends[1] <= raw[1]).count();
            prop_assert_eq!(count, expected);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), raw in any::<[u64; 2]>()) {
            let mut index = tempfile::tempfile().unwrap();
            index.write_all(&bytes).unwrap();
            let raw = raw.map(|length| length / 4);
            let count = trusted(&index, 0, bytes.len() as u64, raw).unwrap();
            prop_assert!(count * RECORD <= bytes.len() as u64);
        }

        #[test]
        fn search_finds_the_first_record_of_a_time(
            steps in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..40),
            since in 0u64..500,
        ) {
            let records = ordered(&steps);
            let index = file(&records, 0);
            let found = search(&index, 0, records.len() as u64, |record| record.at >= since).unwrap();
            let expected = records.iter().position(|record| record.at >= since).unwrap_or(records.len());
            prop_assert_eq!(found, expected as u64);
        }
    }

    #[test]
    fn zeros_of_blocks_never_written_are_not_trusted() {
        let mut records = ordered(&[(false, 10), (true, 20)]);
        records.extend([Record::default(); 3]);
        let index = file(&records, 0);
        assert_eq!(trusted(&index, 0, 5 * RECORD, [100, 100]).unwrap(), 2);
    }
}
