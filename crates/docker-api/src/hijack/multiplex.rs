//! The multiplexed format: every piece of output behind an 8-byte header of stream number, three zeros and a length.
//!
//! See "Stream format" at `POST /containers/{id}/attach` in the Docker Engine API.

use bytes::{BufMut, Bytes, BytesMut};

use crate::backend::{Chunk, StreamKind};

/// Bytes of a header.
pub(crate) const HEADER: usize = 8;

/// Makes the header of a piece of output.
///
/// The length is 32 bits; a chunk that big cannot come from a pipe or a log.
pub(crate) fn header(kind: StreamKind, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind as u8, 0, 0, 0, a, b, c, d]
}

/// Turns a piece of a log into a frame for each line, as dockerd has it: clients that read frame by frame see lines.
pub(crate) fn frames(chunk: Chunk) -> impl Iterator<Item = Bytes> {
    let Chunk { kind, bytes } = chunk;
    let mut all = BytesMut::with_capacity(bytes.len() + bytes.len() / 4 + HEADER);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        // A piece comes from one read and is far shorter than 4 GiB.
        all.put_slice(&header(kind, u32::try_from(line.len()).unwrap_or(u32::MAX)));
        all.put_slice(line);
    }
    (!all.is_empty()).then(|| all.freeze()).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_documented_header() {
        let chunk = Chunk { kind: StreamKind::Stderr, bytes: Bytes::from_static(b"hello") };
        assert_eq!(frames(chunk).collect::<Vec<_>>(), [&b"\x02\0\0\0\0\0\0\x05hello"[..]]);
        assert_eq!(header(StreamKind::Stdout, 0x0102_0304), [1, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn each_line_of_a_log_has_a_frame() {
        let chunk = Chunk { kind: StreamKind::Stdout, bytes: Bytes::from_static(b"a\nbc\nd") };
        let framed: Vec<Bytes> = frames(chunk).collect();
        assert_eq!(framed, [&b"\x01\0\0\0\0\0\0\x02a\n\x01\0\0\0\0\0\0\x03bc\n\x01\0\0\0\0\0\0\x01d"[..]]);
        assert_eq!(frames(Chunk { kind: StreamKind::Stdout, bytes: Bytes::new() }).count(), 0);
    }
}
