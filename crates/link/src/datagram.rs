//! Datagrams in a stream, each as a length (u16 LE) and its bytes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Interest};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// Longest datagram in bytes.
pub const MAX_DATAGRAM: usize = u16::MAX as usize;

const PREFIX: usize = 2;
/// Most datagrams are small; a flow that is idle holds no more than this.
const READ_AHEAD: usize = 2048;

/// Reads one datagram in the place of what `datagram` held; `false` at the end of the stream.
///
/// # Errors
/// When the stream fails, or ends within a datagram.
pub async fn read_datagram(
    stream: &mut (impl AsyncRead + Unpin),
    datagram: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut prefix = [0; PREFIX];
    if stream.read(&mut prefix[..1]).await? == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut prefix[1..]).await?;
    datagram.resize(usize::from(u16::from_le_bytes(prefix)), 0);
    stream.read_exact(datagram).await?;
    Ok(true)
}

/// Writes one datagram and flushes.
///
/// # Errors
/// When the stream fails, or the datagram is over [`MAX_DATAGRAM`].
pub async fn write_datagram(stream: &mut (impl AsyncWrite + Unpin), datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(PREFIX + datagram.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(datagram);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Carries datagrams between a stream and a connected socket, until the stream ends or nothing came for `idle`.
///
/// While one direction has to wait, its datagrams pile up where they come from, and there some are lost: as on any network.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] when the socket's peer said that nobody is there, and whatever else ends the stream
/// or makes the socket useless.
pub async fn copy_datagrams(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    socket: &UdpSocket,
    idle: Duration,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::with_capacity(READ_AHEAD, read);
    let started = Instant::now();
    let last = AtomicU64::new(0);
    let touch = || last.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
    let forth = async {
        let mut datagram = Vec::new();
        while read_datagram(&mut read, &mut datagram).await? {
            touch();
            match socket.send(&datagram).await {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => {}
            }
            // What one big datagram needed is not kept for ever.
            datagram.shrink_to(READ_AHEAD);
        }
        Ok(())
    };
    let back = async {
        loop {
            socket.readable().await?;
            // There is a buffer only while there is something to read: flows that are idle are many.
            let mut buffer = Vec::with_capacity(PREFIX + MAX_DATAGRAM);
            loop {
                buffer.clear();
                buffer.extend([0; PREFIX]);
                match socket.try_recv_buf(&mut buffer) {
                    Ok(length) => {
                        touch();
                        buffer[..PREFIX].copy_from_slice(&(length as u16).to_le_bytes());
                        write.write_all(&buffer).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            write.flush().await?;
        }
    };
    // An error makes a socket neither readable nor writable to tokio.
    let failures = async {
        loop {
            let taken = socket.async_io(Interest::ERROR, || {
                socket.take_error()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            let error = taken.await?;
            if !is_passing(&error) {
                return Err(error);
            }
        }
    };
    let watch = async {
        loop {
            let end = started + Duration::from_millis(last.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    };
    let result = tokio::select! {
        ended = forth => ended,
        ended = back => ended,
        ended = failures => ended,
        () = watch => Ok(()),
    };
    if result.is_ok() {
        // Nobody is there any more if this fails.
        let _ = write.shutdown().await;
    }
    result
}

/// Errors that concern one datagram, not those after it.
fn is_passing(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (UdpSocket, UdpSocket) {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        near.connect(far.local_addr().unwrap()).await.unwrap();
        far.connect(near.local_addr().unwrap()).await.unwrap();
        (near, far)
    }

    #[tokio::test]
    async fn datagrams_keep_their_borders_both_ways() {
        let (near, far) = pair().await;
        let (stream, mut peer) = tokio::io::duplex(64);
        let copying =
            tokio::spawn(async move { copy_datagrams(stream, &near, Duration::from_secs(60)).await });
        let mut buffer = vec![0; MAX_DATAGRAM];
        for size in [0, 1, 5000, 60_000] {
            let sent = vec![size as u8; size];
            write_datagram(&mut peer, &sent).await.unwrap();
            assert_eq!(far.recv(&mut buffer).await.unwrap(), size);
            far.send(&buffer[..size]).await.unwrap();
            let mut back = Vec::new();
            assert!(read_datagram(&mut peer, &mut back).await.unwrap());
            assert_eq!(back, sent);
        }
        drop(peer);
        copying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_refused_datagram_and_silence_end_the_flow_differently() {
        let (near, far) = pair().await;
        drop(far);
        let (stream, mut peer) = tokio::io::duplex(64);
        write_datagram(&mut peer, b"x").await.unwrap();
        let error = copy_datagrams(stream, &near, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        let (near, _far) = pair().await;
        let (stream, mut peer) = tokio::io::duplex(64);
        copy_datagrams(stream, &near, Duration::from_millis(20)).await.unwrap();
        assert!(!read_datagram(&mut peer, &mut Vec::new()).await.unwrap(), "the end is an orderly one");
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_datagram_is_an_error() {
        for bytes in [&[1][..], &[2, 0, 7]] {
            assert!(read_datagram(&mut &bytes[..], &mut Vec::new()).await.is_err(), "{bytes:?}");
        }
        assert!(!read_datagram(&mut &[][..], &mut Vec::new()).await.unwrap());
    }
}
