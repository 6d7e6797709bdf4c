//! The log as a whole: pump, files, readers.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use proptest::prelude::*;
use rustix::pipe::{PipeFlags, pipe_with};

use super::pump::Pump;
use super::reader::{From, ReadOptions, Until};
use super::{Ends, Log, Stream};

struct Written {
    _dir: tempfile::TempDir,
    log: Arc<Log>,
    pump: Pump,
    stdout: Option<std::fs::File>,
    stderr: Option<std::fs::File>,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

impl Written {
    fn new(limit: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(dir.path().join("log"), limit));
        let mut written = Self { _dir: dir, log, pump: Pump::start().unwrap(), stdout: None, stderr: None };
        written.begin();
        written
    }

    fn begin(&mut self) {
        let (stdout, stderr) = (pipe(), pipe());
        self.log.begin(Ends::Pipes { stdout: stdout.0, stderr: stderr.0 }, &self.pump).unwrap();
        self.stdout = Some(stdout.1.into());
        self.stderr = Some(stderr.1.into());
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let end = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        end.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The container's end.
    fn finish(&mut self) {
        (self.stdout, self.stderr) = (None, None);
        self.log.drain();
        self.log.end();
    }

    /// What a new engine would see.
    fn reopened(&self, limit: Option<u64>) -> Arc<Log> {
        Arc::new(Log::new(self.log.dir().to_owned(), limit))
    }
}

fn all() -> ReadOptions {
    ReadOptions {
        stdout: true,
        stderr: true,
        from: From::Beginning,
        until: Until::Present,
        since: None,
        before: None,
        timestamps: false,
        prefix: None,
        lines: false,
    }
}

fn read(log: &Log, options: &ReadOptions) -> [Vec<u8>; 2] {
    let stream = log.read(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut got = [Vec::new(), Vec::new()];
        let mut stream = stream;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            got[chunk.stream.number()].extend_from_slice(&chunk.bytes);
        }
        got
    })
}

#[test]
fn everything_written_before_the_end_is_read() {
    let mut written = Written::new(None);
    let big = vec![b'x'; 3 << 20];
    written.write(Stream::Stdout, b"one\n");
    written.write(Stream::Stderr, b"two\n");
    written.write(Stream::Stdout, &big);
    written.finish();
    let [stdout, stderr] = read(&written.log, &all());
    assert_eq!(stdout.len(), 4 + big.len());
    assert_eq!(stderr, b"two\n");
    let only = read(&written.log, &ReadOptions { stderr: false, ..all() });
    assert_eq!(only[1], b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_gets_each_byte_once_and_ends_with_the_run() {
    let mut written = Written::new(None);
    let options = ReadOptions { until: Until::RunEnds, ..all() };
    let early = written.log.read(&options).unwrap();
    let early = tokio::spawn(early.map(|chunk| chunk.unwrap().bytes.to_vec()).collect::<Vec<_>>());
    for at in 0..200 {
        written.write(Stream::Stdout, format!("line {at}\n").as_bytes());
        if at == 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    written.finish();
    let text = String::from_utf8(early.await.unwrap().concat()).unwrap();
    let expected: String = (0..200).map(|at| format!("line {at}\n")).collect();
    assert_eq!(text, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_before_the_start_sees_the_next_run_only() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"first\n");
    written.finish();
    let options = ReadOptions { from: From::Now, until: Until::RunEnds, ..all() };
    let stream = written.log.read(&options).unwrap();
    written.begin();
    written.write(Stream::Stdout, b"second\n");
    written.finish();
    let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap().bytes.to_vec()).collect().await;
    assert_eq!(chunks.concat(), b"second\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_start_ends_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(dir.path().join("log"), None);
    let stream = log.read(&ReadOptions { until: Until::RunEnds, ..all() }).unwrap();
    log.cancel();
    assert_eq!(stream.count().await, 0);
}

#[test]
fn bytes_that_reached_only_the_raw_file_are_found_again() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"indexed\n");
    written.finish();
    let mut raw =
        std::fs::OpenOptions::new().append(true).open(written.log.dir().join("stdout.raw")).unwrap();
    raw.write_all(b"not indexed\n").unwrap();
    let mut index = std::fs::OpenOptions::new().append(true).open(written.log.dir().join("index")).unwrap();
    index.write_all(b"torn").unwrap();
    let log = written.reopened(None);
    assert_eq!(read(&log, &all())[0], b"indexed\nnot indexed\n");
    // And a second time, because the mended log is a log like any other.
    assert_eq!(read(&written.reopened(None), &all())[0], b"indexed\nnot indexed\n");
}

#[test]
fn index_of_bytes_that_never_reached_the_disk_is_cut() {
    let mut written = Written::new(None);
    for at in 0..5 {
        written.write(Stream::Stdout, format!("line {at}\n").as_bytes());
        // One record each.
        std::thread::sleep(Duration::from_millis(10));
    }
    written.finish();
    let raw = std::fs::OpenOptions::new().write(true).open(written.log.dir().join("stdout.raw")).unwrap();
    raw.set_len(9).unwrap();
    assert_eq!(read(&written.reopened(None), &all())[0], b"line 0\nli");
}

#[test]
fn bounded_log_keeps_the_newest_bytes_also_for_the_next_engine() {
    let limit = 64 << 10;
    let mut written = Written::new(Some(limit));
    for at in 0..20_000 {
        written.write(Stream::Stdout, format!("line {at:06}\n").as_bytes());
        if at % 500 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    written.finish();
    let full = 20_000 * 12;
    for log in [Arc::clone(&written.log), written.reopened(Some(limit))] {
        let [stdout, _] = read(&log, &all());
        assert!((stdout.len() as u64) < full && stdout.len() >= 12, "{}", stdout.len());
        assert!(!stdout.contains(&0), "a hole is read");
        assert!(stdout.ends_with(b"line 019999\n"));
    }
}

/// Numbered lines of different lengths.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|number| format!("{number} {}\n", "x".repeat(number % 97)).into_bytes()).collect()
}

/// The numbers of whole lines; fails at one that is none.
fn numbers(text: &[u8]) -> Vec<usize> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "cut at the end");
    text.lines()
        .map(|line| {
            let number = line.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("cut: {line:?}"));
            assert_eq!(line.len(), format!("{number} ").len() + number % 97, "{line:?}");
            number
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_gets_each_line_once_and_in_order_while_the_log_rotates() {
    let mut written = Written::new(Some(4096));
    let options = ReadOptions { until: Until::RunEnds, lines: true, ..all() };
    let follower = written.log.read(&options).unwrap();
    let follower = tokio::spawn(follower.map(|chunk| chunk.unwrap().bytes.to_vec()).collect::<Vec<_>>());
    for part in 0..60 {
        written.write(Stream::Stdout, &numbered(part * 500..(part + 1) * 500));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written.finish();
    assert_eq!(numbers(&follower.await.unwrap().concat()), (0..30_000).collect::<Vec<_>>());
    // Who comes late finds no more than the bound, beginning with a whole line.
    let late = written.log.read(&ReadOptions { lines: true, ..all() }).unwrap();
    let late = numbers(&late.map(|chunk| chunk.unwrap().bytes.to_vec()).collect::<Vec<_>>().await.concat());
    assert_eq!(late.last(), Some(&29_999));
    assert!(late.len() < 1000 && late.windows(2).all(|pair| pair[1] == pair[0] + 1), "{late:?}");
    let allocated = std::os::unix::fs::MetadataExt::blocks(
        &std::fs::metadata(written.log.dir().join("stdout.raw")).unwrap(),
    ) * 512;
    assert!(allocated < 6 << 20, "{allocated} bytes are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_of_the_present_ends_there() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"present\n");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut reader = written.log.read(&ReadOptions { lines: true, ..all() }).unwrap();
    written.write(Stream::Stdout, b"future\n");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(reader.next().await.unwrap().unwrap().bytes, "present\n");
    assert!(reader.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn overtaken_follower_goes_on_with_a_whole_line() {
    let mut written = Written::new(Some(64 << 10));
    written.write(Stream::Stdout, &numbered(0..10));
    let options = ReadOptions { until: Until::RunEnds, lines: true, ..all() };
    let mut follower = written.log.read(&options).unwrap();
    let first = follower.next().await.unwrap().unwrap().bytes;
    assert_eq!(numbers(&first)[0], 0);
    // Far more than a follower may be behind.
    tokio::task::block_in_place(|| {
        for part in 0..40 {
            written.write(Stream::Stdout, &numbered(10 + part * 5000..10 + (part + 1) * 5000));
        }
    });
    written.finish();
    let rest =
        numbers(&follower.map(|chunk| chunk.unwrap().bytes.to_vec()).collect::<Vec<_>>().await.concat());
    assert_eq!(rest.last(), Some(&200_009));
    assert!(rest.len() < 150_000, "nothing was left out: {} lines", rest.len());
    let jumps = rest.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(jumps <= 1 && rest.windows(2).all(|pair| pair[1] > pair[0]), "{jumps} jumps");
}

#[test]
fn lines_that_began_before_a_time_are_not_cut_into() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"early ");
    std::thread::sleep(Duration::from_millis(30));
    let middle = crate::clock::now_ns();
    std::thread::sleep(Duration::from_millis(30));
    written.write(Stream::Stdout, b"line\nlate\n");
    written.finish();
    let options = ReadOptions { since: Some(middle), lines: true, ..all() };
    assert_eq!(read(&written.log, &options)[0], b"late\n");
}

#[test]
fn details_stand_between_time_and_line() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"one\ntw\xffo");
    written.finish();
    let prefix = Some(bytes::Bytes::from_static(b"a=1 "));
    let plain = ReadOptions { prefix: prefix.clone(), lines: true, ..all() };
    assert_eq!(read(&written.log, &plain)[0], b"a=1 one\na=1 tw\xffo");
    let stamped = ReadOptions { prefix, timestamps: true, lines: true, ..all() };
    let text = read(&written.log, &stamped)[0].clone();
    assert_eq!(&text[30..38], b" a=1 one");
}

#[test]
fn terminal_output_goes_through_its_staging_pipe() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(dir.path().join("log"), None));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let mut terminal =
        std::fs::OpenOptions::new().write(true).open(std::ffi::OsStr::new(name.to_str().unwrap())).unwrap();
    let (staging_read, staging_write) = pipe();
    // What an engine before this one had staged.
    rustix::io::write(&staging_write, b"staged ").unwrap();
    let pump = Pump::start().unwrap();
    log.begin(Ends::Terminal { master, staging_read, staging_write }, &pump).unwrap();
    terminal.write_all(b"hello\n").unwrap();
    terminal.write_all(b"world\n").unwrap();
    log.drain();
    log.end();
    assert_eq!(read(&log, &all())[0], b"staged hello\r\nworld\r\n");
}

/// The last `lines` lines as `tail` would give them.
fn naive_tail(text: &[u8], lines: usize) -> Vec<u8> {
    let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    all[all.len().saturating_sub(lines)..].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn tail_of_one_stream_is_what_tail_prints(
        parts in proptest::collection::vec("[ab\n]{1,8}", 0..20),
        lines in 0u64..12,
    ) {
        let mut written = Written::new(None);
        for part in &parts {
            written.write(Stream::Stdout, part.as_bytes());
            // Sometimes several parts in one record, sometimes not.
            std::thread::yield_now();
        }
        written.finish();
        let options = ReadOptions { from: From::Tail(lines), lines: true, ..all() };
        let text = parts.concat();
        prop_assert_eq!(&read(&written.log, &options)[0], &naive_tail(text.as_bytes(), lines as usize));
    }
}

#[test]
fn tail_counts_lines_of_both_streams() {
    let mut written = Written::new(None);
    for (stream, text) in [
        (Stream::Stderr, "e1\n"),
        (Stream::Stdout, "o1\n"),
        (Stream::Stderr, "e2\n"),
        (Stream::Stdout, "o2\n"),
    ] {
        written.write(stream, text.as_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    written.finish();
    let tail = |lines| read(&written.log, &ReadOptions { from: From::Tail(lines), lines: true, ..all() });
    assert_eq!(tail(1), [b"o2\n".to_vec(), b"".to_vec()]);
    assert_eq!(tail(2), [b"o2\n".to_vec(), b"e2\n".to_vec()]);
    assert_eq!(tail(3), [b"o1\no2\n".to_vec(), b"e2\n".to_vec()]);
    assert_eq!(tail(9), [b"o1\no2\n".to_vec(), b"e1\ne2\n".to_vec()]);
}

#[test]
fn since_and_until_cut_by_time() {
    let mut written = Written::new(None);
    written.write(Stream::Stdout, b"early\n");
    std::thread::sleep(Duration::from_millis(30));
    let middle = crate::clock::now_ns();
    std::thread::sleep(Duration::from_millis(30));
    written.write(Stream::Stdout, b"late\n");
    std::thread::sleep(Duration::from_millis(10));
    written.finish();
    assert_eq!(read(&written.log, &ReadOptions { since: Some(middle), ..all() })[0], b"late\n");
    assert_eq!(read(&written.log, &ReadOptions { before: Some(middle), ..all() })[0], b"early\n");
}
