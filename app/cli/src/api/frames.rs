//! Output of containers without a terminal: frames of stdout and stderr on one stream.

use bytes::{Buf, BytesMut};

/// Which output a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Output {
    /// Standard output (and echoed standard input).
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the engine itself.
    System,
}

/// Takes frames apart: `{stream, 0, 0, 0, length as big-endian u32}` and the bytes. A frame's bytes are handed
/// on as they arrive, so that a long frame needs no memory.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    current: Option<(Output, usize)>,
}

/// The stream does not consist of frames.
#[derive(Debug, thiserror::Error)]
#[error("unrecognized input header: {0}")]
pub struct BadFrame(u8);

impl Frames {
    /// Takes bytes off the stream and hands pieces of output to `write`.
    pub fn feed(&mut self, bytes: &[u8], mut write: impl FnMut(Output, &[u8])) -> Result<(), BadFrame> {
        self.buffer.extend_from_slice(bytes);
        loop {
            if self.current.is_none() {
                if self.buffer.len() < 8 {
                    return Ok(());
                }
                let output = match self.buffer[0] {
                    0 | 1 => Output::Stdout,
                    2 => Output::Stderr,
                    3 => Output::System,
                    other => return Err(BadFrame(other)),
                };
                self.buffer.advance(4);
                self.current = Some((output, self.buffer.get_u32() as usize));
            }
            let Some((output, left)) = self.current else { return Ok(()) };
            let now = left.min(self.buffer.len());
            if now > 0 {
                write(output, &self.buffer.split_to(now));
            }
            self.current = (left > now).then_some((output, left - now));
            if self.current.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let stream = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!";
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                frames
                    .feed(chunk, |output, bytes| match output {
                        Output::Stdout => out.extend_from_slice(bytes),
                        _ => err.extend_from_slice(bytes),
                    })
                    .unwrap();
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"hi!"[..], &b"err"[..]));
        }
        assert!(Frames::default().feed(b"not frames at all", |_, _| {}).is_err());
    }
}
