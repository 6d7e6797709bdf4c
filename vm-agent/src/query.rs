//! Questions to the host's resolver.

use std::io;

use skiff_link::{Args, Link, StreamHeader};
use tokio::io::AsyncReadExt;

/// An answer is a DNS message, whose length two bytes hold.
const LARGEST: u64 = u16::MAX as u64;

/// Has the host answer a DNS question; the answer may be longer than a datagram of the client's.
///
/// # Errors
/// When the host refuses or the link breaks.
pub async fn ask(link: &Link, message: &[u8]) -> io::Result<Vec<u8>> {
    let args = Args::Query { question: hex::encode(message) };
    let stream = link.open(&StreamHeader { args }).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    if answer.len() < 12 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
