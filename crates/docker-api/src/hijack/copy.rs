//! Copies both ways until the output ends or the client is gone.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::detach::{Verdict, Watch};
use super::multiplex;
use crate::backend::{ChunkStream, InputWriter};
use crate::connection::{Connection, Presence};
use crate::route::Hijack;

const INPUT_BUFFER: usize = 32 << 10;

/// How often a client that closed its side is looked at: the system tells nobody who isn't writing that it left.
const GONE_CHECK: Duration = Duration::from_secs(1);

/// How long input is still read and dropped after the output's end. Closing a socket with unread input would reset the
/// connection, and the client could miss the end of the output.
const LINGER: Duration = Duration::from_secs(2);

/// How long output is held back at least for a client that loses what arrives together with the head. dockerd never meets
/// it, because it takes longer than this to start a process.
const HEAD_START: Duration = Duration::from_millis(20);
/// And at most, while such a client has not read the head yet, as on a busy machine.
const LONGEST_HEAD_START: Duration = Duration::from_secs(5);
/// How often that is looked at.
const HEAD_CHECK: Duration = Duration::from_millis(2);

/// How the copying of input ended.
enum InputEnd {
    /// The client closed its side of the connection; it may still listen.
    Closed,
    /// The client typed the detach keys.
    Detached,
    /// The connection broke.
    Gone,
}

/// Serves a hijacked connection; `early` is input that was read with the request.
pub(crate) async fn run<C: Connection>(connection: C, early: Bytes, hijack: Hijack) {
    let Hijack { streams, detach_keys, multiplexed, loses_early_output, .. } = hijack;
    let presence = connection.presence();
    let (reader, mut writer) = tokio::io::split(connection);
    // What came early is read first.
    let mut reader = AsyncReadExt::chain(io::Cursor::new(early), reader);
    let watch = Watch::new(if streams.tty { detach_keys } else { Vec::new() });

    let detached = {
        let output = async {
            if loses_early_output {
                head_start(&presence).await;
            }
            copy_output(streams.output, &mut writer, multiplexed).await
        };
        let input = async {
            match copy_input(&mut reader, streams.input, watch).await {
                InputEnd::Closed => {
                    // Only the output can end this now, or the client's leaving.
                    while !presence.is_gone() {
                        tokio::time::sleep(GONE_CHECK).await;
                    }
                    InputEnd::Gone
                }
                end => end,
            }
        };
        tokio::select! {
            biased;
            end = input => matches!(end, InputEnd::Detached),
            result = output => {
                if let Err(error) = result {
                    tracing::debug!(%error, "attached client left");
                }
                false
            }
        }
    };
    if detached && let Some(on_detach) = streams.on_detach {
        on_detach();
    }
    if writer.shutdown().await.is_ok() {
        let mut sink = tokio::io::sink();
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut reader, &mut sink)).await;
    }
}

/// Waits until a client has read the head of the answer, so that output can't arrive together with it.
async fn head_start(presence: &Presence) {
    tokio::time::sleep(HEAD_START).await;
    let read = async {
        while presence.has_unread() {
            tokio::time::sleep(HEAD_CHECK).await;
        }
    };
    let _ = tokio::time::timeout(LONGEST_HEAD_START, read).await;
}

async fn copy_output(
    mut output: ChunkStream,
    writer: &mut (impl AsyncWrite + Unpin),
    multiplexed: bool,
) -> io::Result<()> {
    while let Some(chunk) = output.next().await {
        let chunk = chunk?;
        if multiplexed {
            for part in chunk.bytes.chunks(u32::MAX as usize) {
                let length = u32::try_from(part.len()).expect("parts are no longer than that");
                write_both(writer, &multiplex::header(chunk.kind, length), part).await?;
            }
        } else {
            writer.write_all(&chunk.bytes).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

/// Writes header and payload with one system call where the connection can.
async fn write_both(writer: &mut (impl AsyncWrite + Unpin), header: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut rest = Buf::chain(header, payload);
    while rest.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 2];
        let count = rest.chunks_vectored(&mut slices);
        let written = writer.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest.advance(written);
    }
    Ok(())
}

async fn copy_input(
    reader: &mut (impl AsyncRead + Unpin),
    mut input: Option<InputWriter>,
    mut watch: Watch,
) -> InputEnd {
    let mut buffer = vec![0; INPUT_BUFFER];
    loop {
        let read = match reader.read(&mut buffer).await {
            Ok(0) => {
                pass(&mut input, watch.finish()).await;
                if let Some(input) = &mut input {
                    // An error means that nobody reads any more, which is as good.
                    let _ = input.shutdown().await;
                }
                return InputEnd::Closed;
            }
            Ok(read) => read,
            Err(_) => return InputEnd::Gone,
        };
        match watch.feed(&buffer[..read]) {
            Verdict::Pass(bytes) => pass(&mut input, &bytes).await,
            Verdict::Detach(bytes) => {
                pass(&mut input, &bytes).await;
                return InputEnd::Detached;
            }
        }
    }
}

/// Writes input; once the process has closed its stdin, the rest is dropped.
async fn pass(input: &mut Option<InputWriter>, bytes: &[u8]) {
    if let Some(writer) = input
        && (writer.write_all(bytes).await.is_err() || writer.flush().await.is_err())
    {
        *input = None;
    }
}
