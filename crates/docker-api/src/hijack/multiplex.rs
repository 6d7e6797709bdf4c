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

/// Turns a chunk into frames: usually one, none for no bytes.
pub(crate) fn frames(chunk: Chunk) -> impl Iterator<Item = Bytes> {
    let Chunk { kind, mut bytes } = chunk;
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let payload = bytes.split_to(length as usize);
        let mut frame = BytesMut::with_capacity(HEADER + payload.len());
        frame.put_slice(&header(kind, length));
        frame.put(payload);
        Some(frame.freeze())
    })
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
    fn no_bytes_are_no_frame() {
        assert_eq!(frames(Chunk { kind: StreamKind::Stdout, bytes: Bytes::new() }).count(), 0);
    }
}
