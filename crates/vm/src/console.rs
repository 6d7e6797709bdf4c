//! The guest's console: written to a file of bounded size, its end kept for error messages.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    task::AbortHandle,
};

/// Bytes of one console file; one older file of the same size is kept beside it as `.1`.
const FILE_LIMIT: u64 = 4 << 20;
/// Bytes kept in memory for messages.
const TAIL_LIMIT: usize = 8 << 10;

/// A handle on what the guest has written to its console so far.
#[derive(Debug, Clone)]
pub struct Console {
    tail: Arc<Mutex<VecDeque<u8>>>,
    bytes: watch::Receiver<u64>,
    _pump: Arc<Pump>,
}

/// The copying task, which ends with the last handle.
#[derive(Debug)]
struct Pump(AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Console {
    /// Starts copying `source` to the file at `path`, until the source ends.
    ///
    /// # Errors
    /// Fails when the file cannot be opened.
    pub fn start(source: impl AsyncRead + Send + Unpin + 'static, path: &Path) -> io::Result<Self> {
        let log = CappedFile::open(path, FILE_LIMIT)?;
        let (sender, bytes) = watch::channel(0);
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_LIMIT)));
        let task = tokio::spawn(pump(source, log, Arc::clone(&tail), sender));
        Ok(Self { tail, bytes, _pump: Arc::new(Pump(task.abort_handle())) })
    }

    /// Gives the last lines, as text.
    pub fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let (a, b) = tail.as_slices();
        String::from_utf8_lossy(&[a, b].concat()).replace('\r', "")
    }

    /// Waits for the first byte; pends for ever when the source ends before.
    pub async fn first_byte(&self) {
        let mut bytes = self.bytes.clone();
        if bytes.wait_for(|n| *n > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the source has ended, so that the tail is complete.
    pub async fn ended(&self) {
        let mut bytes = self.bytes.clone();
        while bytes.changed().await.is_ok() {}
    }
}

async fn pump(
    mut source: impl AsyncRead + Unpin,
    mut log: CappedFile,
    tail: Arc<Mutex<VecDeque<u8>>>,
    bytes: watch::Sender<u64>,
) {
    let mut buffer = [0_u8; 4096];
    loop {
        let count = match source.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let data = &buffer[..count];
        {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend(data);
            let excess = tail.len().saturating_sub(TAIL_LIMIT);
            tail.drain(..excess);
        }
        // Console output is small and the page cache absorbs it: not worth a blocking thread per line.
        if let Err(error) = log.append(data) {
            tracing::warn!(%error, "console log is not written");
        }
        bytes.send_modify(|n| *n += count as u64);
    }
}

/// A file that is moved aside when it reaches its limit.
struct CappedFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl CappedFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + data.len() as u64 > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = Self::open(&self.path, self.limit)?;
        }
        self.file.write_all(data)?;
        self.size += data.len() as u64;
        Ok(())
    }
}

/// Reads the last `limit` bytes of a file as text; empty when there is no such file.
pub fn read_tail(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capped_file_keeps_one_old_file_and_stays_below_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut file = CappedFile::open(&path, 100).unwrap();
        for _ in 0..50 {
            file.append(b"0123456789").unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 100);
        assert!(std::fs::metadata(dir.path().join("console.log.1")).unwrap().len() <= 100);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn console_keeps_the_end_and_tells_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (mut guest, host) = tokio::io::duplex(64);
        let console = Console::start(host, &path).unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut guest, &vec![b'x'; TAIL_LIMIT + 10]).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut guest, b"the end\r\n").await.unwrap();
        console.first_byte().await;
        drop(guest);
        console.ended().await;
        assert_eq!(console.tail().len() + 1, TAIL_LIMIT, "one carriage return is dropped");
        assert!(console.tail().ends_with("the end\n"));
        assert!(read_tail(&path, 8).ends_with("he end\n"));
    }

    #[test]
    fn tail_of_a_missing_file_is_empty() {
        assert_eq!(read_tail(Path::new("/nonexistent/file"), 10), "");
    }
}
