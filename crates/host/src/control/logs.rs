//! Reading a log file that is written, and moved aside, while it is read.

use std::{io, path::Path, time::Duration};

use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, BufReader},
};

use super::{Event, wire};

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);
/// A line that is longer is cut in pieces.
const LINE_LIMIT: u64 = 64 << 10;

/// Sends the file's lines, the last `tail` of them, and new ones as long as the client stays if `follow` is set.
pub(super) async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &Path,
    tail: Option<u64>,
    follow: bool,
) -> io::Result<()> {
    let mut file = Followed::open(path, tail).await?;
    loop {
        while let Some(line) = file.next_line(follow).await? {
            wire::write(stream, &Event::Log { line }).await?;
        }
        if !follow {
            return Ok(());
        }
        // The client sends nothing more: anything to read is its end.
        let mut sink = [0];
        tokio::select! {
            read = stream.read(&mut sink) => match read? {
                0 => return Ok(()),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            },
            () = tokio::time::sleep(POLL) => {}
        }
        file.reopen_if_moved(path).await?;
    }
}

struct Followed {
    file: Option<BufReader<File>>,
    position: u64,
    partial: Vec<u8>,
}

impl Followed {
    async fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut this = Self { file: None, position: 0, partial: Vec::new() };
        this.reopen(path).await?;
        if let (Some(file), Some(tail)) = (&mut this.file, tail) {
            this.position = tail_start(file.get_mut(), tail).await?;
            file.seek(io::SeekFrom::Start(this.position)).await?;
        }
        Ok(this)
    }

    async fn reopen(&mut self, path: &Path) -> io::Result<()> {
        self.position = 0;
        self.file = match File::open(path).await {
            Ok(file) => Some(BufReader::new(file)),
            // Not written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// A file that is shorter than what was read is another one.
    async fn reopen_if_moved(&mut self, path: &Path) -> io::Result<()> {
        match tokio::fs::metadata(path).await {
            Ok(metadata) if self.file.is_some() && metadata.len() >= self.position => Ok(()),
            Ok(_) => self.reopen(path).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the next line; one without its end yet is kept back while more may come.
    async fn next_line(&mut self, more: bool) -> io::Result<Option<String>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let room = LINE_LIMIT.saturating_sub(self.partial.len() as u64);
        self.position += file.take(room).read_until(b'\n', &mut self.partial).await? as u64;
        let whole = self.partial.ends_with(b"\n") || self.partial.len() as u64 >= LINE_LIMIT;
        if self.partial.is_empty() || (more && !whole) {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.partial);
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()))
    }
}

/// Finds where the last `lines` lines begin, reading backwards.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const STEP: u64 = 16 << 10;
    let size = file.seek(io::SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(size);
    }
    let mut end = size;
    let mut seen = 0;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(io::SeekFrom::Start(start)).await?;
        block.clear();
        (&mut *file).take(end - start).read_to_end(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            // The end of the last line begins no further one.
            if *byte == b'\n' && start + index as u64 + 1 < size {
                seen += 1;
                if seen == lines {
                    return Ok(start + index as u64 + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::LineReader;

    async fn lines(path: &Path, tail: Option<u64>) -> Vec<String> {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        send(&mut server, path, tail, false).await.unwrap();
        drop(server);
        let mut found = Vec::new();
        let mut reader = LineReader::default();
        while let Some(Event::Log { line }) = reader.read(&mut client).await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn tail_gives_the_last_lines_whatever_their_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(lines(&path, None).await.is_empty(), "a log that is not there yet is empty");
        let long = "x".repeat(20 << 10);
        std::fs::write(&path, format!("one\n{long}\r\nthree\nfour")).unwrap();
        assert_eq!(lines(&path, Some(2)).await, ["three", "four"]);
        assert_eq!(lines(&path, Some(3)).await, [long.as_str(), "three", "four"]);
        assert_eq!(lines(&path, Some(9)).await.len(), 4);
        assert_eq!(lines(&path, None).await.len(), 4);
        assert!(lines(&path, Some(0)).await.is_empty());
    }

    #[tokio::test]
    async fn followed_log_goes_on_over_a_rotation_until_the_client_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old line\n").unwrap();
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let followed = path.clone();
        let task = tokio::spawn(async move { send(&mut server, &followed, Some(1), true).await });
        let mut reader = LineReader::default();
        let mut expect = async |text: &str| {
            let event: Event = reader.read(&mut client).await.unwrap().unwrap();
            assert_eq!(event, Event::Log { line: text.to_owned() });
        };
        expect("old line").await;
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        expect("new").await;
        drop(client);
        task.await.unwrap().unwrap();
    }
}
