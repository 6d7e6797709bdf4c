//! Lines of JSON on a connection.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest accepted line.
pub(crate) const LINE_LIMIT: usize = 256 << 10;

/// Writes one message.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Reads messages and never a byte behind the line that holds one: raw bytes may follow.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    line: Vec<u8>,
}

impl LineReader {
    /// Reads one message; none at the end of the stream.
    pub(crate) async fn read<T: DeserializeOwned>(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<T>> {
        self.line.clear();
        loop {
            let mut byte = [0];
            // Byte by byte, since a buffer would swallow what follows; control messages are short and rare.
            if stream.read(&mut byte).await? == 0 {
                if self.line.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if byte[0] == b'\n' {
                return Ok(Some(serde_json::from_slice(&self.line)?));
            }
            if self.line.len() >= LINE_LIMIT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
            }
            self.line.push(byte[0]);
        }
    }
}
